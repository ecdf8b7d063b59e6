"""Rules for ONNX operators that make images and signals larger or smaller: ConvTranspose, Resize, Upsample."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from hetero.graph.importing import Importing, OnnxNode
from hetero.graph.node import Array, Attribute, Node
from hetero.graph.ops import evaluate_node


def _made(importing: Importing, node: OnnxNode, value: str, op: str, /, **attributes: Attribute) -> str:
    """An op of one input, worked out where that is known, however large it is: weights are rearranged once."""
    known = importing.constants.get(value)
    if known is None:
        return importing.emit(node, op, (value,), None, **attributes)
    (array,) = evaluate_node(Node(op, (value,), ("",), attributes, node.name), [known])
    return importing.constant(node, np.array(array, order="C"))


def _conv_transpose(importing: Importing, node: OnnxNode) -> None:
    """As a convolution that makes all places of a stride at once, as channels, which are then put side by side.

    Place `t * stride + r` of the result is the sum over j of x[t - j] times the kernel's element `j * stride + r`.
    W. Shi et al., "Is the deconvolution layer the same as a convolutional layer?", 2016.
    """
    node.only("auto_pad", "dilations", "group", "kernel_shape", "output_padding", "output_shape", "pads", "strides")
    x, weight = importing.type_of(node), importing.type_of(node, 1)
    group, kernel = node.get("group", 1), weight.shape[2:]
    rank = len(kernel)
    if weight.rank != x.rank or x.shape[1] != weight.shape[0] or x.shape[1] % group:
        raise ValueError(f"weight {weight} in {group} groups for {x}")
    if tuple(node.get("kernel_shape", kernel)) != kernel:
        raise ValueError(f"kernel_shape {node.get('kernel_shape', ())} for a weight of {list(kernel)}")
    strides = tuple(node.get("strides", ())) or (1,) * rank
    dilations = tuple(node.get("dilations", ())) or (1,) * rank
    reach = tuple((size - 1) * step + 1 for size, step in zip(kernel, dilations, strict=True))
    before, sizes = _places(node, x.shape[2:], strides, reach)
    # How many elements of the kernel fall on one place of each stride.
    taps = tuple(-(-size // stride) for size, stride in zip(reach, strides, strict=True))
    channels, each = x.shape[1] // group, weight.shape[1]

    value = _dilated(importing, node, importing.name(node.inputs[1]), dilations)
    more = tuple(count * stride - size for count, stride, size in zip(taps, strides, reach, strict=True))
    if any(more):
        value = _made(importing, node, value, "Pad", pads=(0,) * (2 + rank) + (0, 0, *more), mode="constant", value=0)
    apart = tuple(number for pair in zip(taps, strides, strict=True) for number in pair)
    value = _made(importing, node, value, "Reshape", shape=(group, channels, each, *apart))
    if any(count > 1 for count in taps):
        starts = tuple(number for count in taps for number in (count - 1, 0))
        steps = tuple(number for _ in taps for number in (-1, 1))
        value = _made(
            importing,
            node,
            value,
            "Slice",
            starts=(0, 0, 0, *starts),
            sizes=(group, channels, each, *apart),
            steps=(1, 1, 1, *steps),
        )
    order = (0, 2, *range(4, 4 + 2 * rank, 2), 1, *range(3, 3 + 2 * rank, 2))
    value = _made(importing, node, value, "Transpose", perm=order)
    copies = math.prod(strides)
    value = _made(importing, node, value, "Reshape", shape=(group * each * copies, channels, *taps))
    inputs = [importing.name(node.inputs[0]), value]
    if node.has(2):
        bias = _made(importing, node, importing.name(node.inputs[2]), "Reshape", shape=(group * each, 1))
        bias = _made(importing, node, bias, "Expand", shape=(group * each, copies))
        inputs.append(_made(importing, node, bias, "Reshape", shape=(group * each * copies,)))

    first, pads_before, pads_after, counts = [], [], [], []
    for size, stride, count, skipped, wanted in zip(x.shape[2:], strides, taps, before, sizes, strict=True):
        start = min(skipped // stride, count - 1)
        whole = -(-(skipped + wanted) // stride) - start
        ahead = count - 1 - start
        behind = max(0, whole - size - ahead + count - 1)
        first.append(skipped - start * stride)
        pads_before.append(ahead)
        pads_after.append(behind)
        counts.append(size + ahead + behind - count + 1)
    plain = copies == 1 and not any(first) and tuple(counts) == sizes
    output = node.outputs[0]
    pads = (*pads_before, *pads_after)
    made = importing.emit(
        node,
        "Conv",
        tuple(inputs),
        output if plain else None,
        group=group,
        strides=(1,) * rank,
        dilations=(1,) * rank,
        pads=pads,
    )
    if plain:
        return
    batch, out = x.shape[0], group * each
    full = tuple(count * stride for count, stride in zip(counts, strides, strict=True))
    whole_shape = (batch, out, *full)
    cut = whole_shape != (batch, out, *sizes)
    if copies > 1:
        made = importing.emit(node, "Reshape", (made,), shape=(batch, out, *strides, *counts))
        sides = tuple(number for i in range(rank) for number in (2 + rank + i, 2 + i))
        made = importing.emit(node, "Transpose", (made,), perm=(0, 1, *sides))
        made = importing.emit(node, "Reshape", (made,), None if cut else output, shape=whole_shape)
    if cut:
        importing.emit(
            node,
            "Slice",
            (made,),
            output,
            starts=(0, 0, *first),
            sizes=(batch, out, *sizes),
            steps=(1,) * (2 + rank),
        )


def _places(
    node: OnnxNode, given: Sequence[int], strides: Sequence[int], reach: Sequence[int]
) -> tuple[list[int], tuple[int, ...]]:
    """What is cut off before each dimension of the whole result, and the sizes of what is left."""
    rank = len(given)
    extra = tuple(node.get("output_padding", ())) or (0,) * rank
    pads = tuple(node.get("pads", ())) or (0,) * 2 * rank
    mode, wanted = node.get("auto_pad", "NOTSET"), tuple(node.get("output_shape", ()))[-rank:]
    if mode not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        raise node.refused(f"the attribute auto_pad={mode!r} is not known")
    whole = [(n - 1) * s + r + e for n, s, r, e in zip(given, strides, reach, extra, strict=True)]
    if mode.startswith("SAME") and not wanted:
        wanted = tuple(size * stride for size, stride in zip(given, strides, strict=True))
    if wanted:
        spare = [max(0, all_ - size) for all_, size in zip(whole, wanted, strict=True)]
        return [number // 2 if mode == "SAME_UPPER" else number - number // 2 for number in spare], wanted
    if mode == "VALID":
        pads = (0,) * 2 * rank
    sizes = tuple(size - pads[i] - pads[rank + i] for i, size in enumerate(whole))
    if min((*sizes, *pads)) < 0:
        raise ValueError(f"pads {list(pads)} of a result of {whole}")
    return list(pads[:rank]), sizes


def _dilated(importing: Importing, node: OnnxNode, value: str, dilations: Sequence[int]) -> str:
    """A kernel with zeros between its elements."""
    if all(step == 1 for step in dilations):
        return value
    kernel = importing.types[value].shape
    outer, sizes, rank = kernel[:2], kernel[2:], len(dilations)
    apart = tuple(number for size in sizes for number in (size, 1))
    value = _made(importing, node, value, "Reshape", shape=(*outer, *apart))
    behind = tuple(number for step in dilations for number in (0, step - 1))
    pads = (0,) * (2 + 2 * rank) + (0, 0, *behind)
    value = _made(importing, node, value, "Pad", pads=pads, mode="constant", value=0)
    spread = tuple(size * step for size, step in zip(sizes, dilations, strict=True))
    value = _made(importing, node, value, "Reshape", shape=(*outer, *spread))
    kept = tuple((size - 1) * step + 1 for size, step in zip(sizes, dilations, strict=True))
    return _made(
        importing,
        node,
        value,
        "Slice",
        starts=(0,) * (2 + rank),
        sizes=(*outer, *kept),
        steps=(1,) * (2 + rank),
    )


_RESIZE = (
    "antialias",
    "axes",
    "coordinate_transformation_mode",
    "cubic_coeff_a",
    "exclude_outside",
    "extrapolation_value",
    "keep_aspect_ratio_policy",
    "mode",
    "nearest_mode",
)


def _resize(importing: Importing, node: OnnxNode) -> None:
    node.only(*_RESIZE)
    x = importing.type_of(node)
    # Before opset 11 there were no regions, and an element's place was its number times the scale.
    old = importing.opset < 11
    axes = [axis % x.rank for axis in node.get("axes", range(x.rank))]
    scales = _given(importing, node, 1 if old else 2, "scales")
    sizes = None if old else _given(importing, node, 3, "sizes")
    if (scales is None) == (sizes is None):
        raise ValueError("expected scales or sizes, and not both")
    if scales is not None:
        factors = [float(scale) for scale in scales]
        wanted = [math.floor(x.shape[axis] * factor) for axis, factor in zip(axes, factors, strict=True)]
    else:
        assert sizes is not None
        factors, wanted = _by_sizes(node, [x.shape[axis] for axis in axes], [int(size) for size in sizes])
    mode = node.get("mode", "nearest")
    where = node.get("coordinate_transformation_mode", "asymmetric" if old else "half_pixel")
    nearest = node.get("nearest_mode", "floor" if old else "round_prefer_floor")
    _resized(importing, node, list(zip(axes, factors, wanted, strict=True)), mode, where, nearest)


def _upsample(importing: Importing, node: OnnxNode) -> None:
    node.only("mode", "scales")
    x = importing.type_of(node)
    scales = node.get("scales", None) if importing.opset < 9 else _given(importing, node, 1, "scales")
    if scales is None:
        raise ValueError("it has no scales")
    factors = [float(scale) for scale in scales]
    wanted = [math.floor(size * factor) for size, factor in zip(x.shape, factors, strict=True)]
    mode = node.get("mode", "nearest")
    _resized(importing, node, list(zip(range(x.rank), factors, wanted, strict=True)), mode, "asymmetric", "floor")


def _given(importing: Importing, node: OnnxNode, place: int, name: str) -> list[float] | None:
    """Numbers that are an input; None where it is left out, or empty as exporters write it."""
    if not node.has(place):
        return None
    return importing.needed(node, place, name).reshape(-1).tolist() or None


def _by_sizes(node: OnnxNode, given: list[int], sizes: list[int]) -> tuple[list[float], list[int]]:
    policy = node.get("keep_aspect_ratio_policy", "stretch")
    factors = [size / old for size, old in zip(sizes, given, strict=True)]
    if policy == "stretch":
        return factors, sizes
    if policy not in ("not_larger", "not_smaller"):
        raise node.refused(f"the attribute keep_aspect_ratio_policy={policy!r} is not known")
    one = min(factors) if policy == "not_larger" else max(factors)
    return [one] * len(given), [math.floor(one * old + 0.5) for old in given]


def _resized(
    importing: Importing,
    node: OnnxNode,
    steps: list[tuple[int, float, int]],
    mode: str,
    where: str,
    nearest: str,
) -> None:
    """Axis after axis, those that become smaller first."""
    x = importing.type_of(node)
    value = importing.name(node.inputs[0])
    todo = [step for step in steps if step[1] != 1 or step[2] != x.shape[step[0]]]
    todo.sort(key=lambda step: step[1])
    if mode != "nearest" and x.dtype.kind != "f":
        raise node.refused(f"the mode {mode} of {x.dtype}")
    if not todo:
        importing.alias(node.inputs[0], node.outputs[0])
    for count, (axis, factor, size) in enumerate(todo):
        places = _coordinates(node, where, x.shape[axis], size, factor)
        output = node.outputs[0] if count == len(todo) - 1 else None
        if mode == "nearest":
            chosen = _nearest(node, places, nearest, x.shape[axis])
            value = importing.emit(node, "Gather", (value, importing.constant(node, chosen)), output, axis=axis)
        else:
            neighbours, weights = _taps(node, places, mode, x.shape[axis], factor)
            known = importing.constant(node, neighbours), importing.constant(node, weights)
            value = importing.emit(node, "Interpolate", (value, *known), output, axis=axis)


def _coordinates(node: OnnxNode, where: str, size: int, wanted: int, ratio: float) -> Array:
    """Where among the elements of an axis each of the wanted ones is."""
    # In float32, as other runtimes do: what is half-way between two elements must be so for all.
    place, factor, half = np.arange(wanted, dtype=np.float32), np.float32(ratio), np.float32(0.5)
    if where == "align_corners" and wanted != round(ratio * size, 3):
        raise node.refused(
            f"{size} elements times {ratio:.4g} with their corners aligned, which runtimes do not agree on"
        )
    if where == "align_corners":
        return np.asarray(place * np.float32(size - 1) / np.float32(max(1, wanted - 1)))
    if where == "asymmetric":
        return np.asarray(place / factor)
    if where == "half_pixel" or (where == "pytorch_half_pixel" and wanted > 1):
        return np.asarray((place + half) / factor - half)
    if where == "pytorch_half_pixel":
        return place
    if where == "half_pixel_symmetric":
        margin = np.float32(size / 2) * (1 - wanted / (factor * np.float32(size)))
        return np.asarray(margin + (place + half) / factor - half)
    raise node.refused(f"the attribute coordinate_transformation_mode={where!r} is not supported")


def _nearest(node: OnnxNode, places: Array, how: str, size: int) -> Array:
    functions: dict[str, Callable[[Array], Array]] = {
        "round_prefer_floor": lambda x: np.ceil(x - 0.5),
        "round_prefer_ceil": lambda x: np.floor(x + 0.5),
        "floor": np.floor,
        "ceil": np.ceil,
    }
    if how not in functions:
        raise node.refused(f"the attribute nearest_mode={how!r} is not known")
    return np.clip(functions[how](places), 0, size - 1).astype(np.int64)


def _taps(node: OnnxNode, places: Array, mode: str, size: int, factor: float) -> tuple[Array, Array]:
    """Neighbours of each place, `[wanted, taps]`, and their weights; beyond the ends it is the last element."""
    # Filters against aliasing reach as far as the axis shrinks.
    narrow = min(factor, 1.0) if node.get("antialias", 0) else 1.0
    if mode in ("linear", "bilinear", "trilinear"):
        reach, curve = 1.0, _triangle
    elif mode in ("cubic", "bicubic"):
        steepness = node.get("cubic_coeff_a", -0.75)
        reach, curve = 2.0, lambda x: _cubic(x, steepness)
    else:
        raise node.refused(f"the mode {mode!r} is not known")
    places = places.astype(np.float64)
    first = np.floor(places).astype(np.int64)
    start = math.floor(-reach / narrow) + 1
    offsets = np.arange(start, 2 - start)
    neighbours = first[:, np.newaxis] + offsets
    weights = curve((neighbours - places[:, np.newaxis]) * narrow)
    if node.get("exclude_outside", 0):
        weights = np.where((neighbours >= 0) & (neighbours < size), weights, 0)
    weights = weights / weights.sum(axis=1, keepdims=True)
    return np.clip(neighbours, 0, size - 1).astype(np.int32), weights.astype(np.float32)


def _triangle(x: Array) -> Array:
    return np.asarray(np.clip(1 - np.abs(x), 0, 1))


def _cubic(x: Array, a: float) -> Array:
    """R. Keys, "Cubic convolution interpolation for digital image processing", 1981."""
    size = np.abs(x)
    near = ((a + 2) * size - (a + 3)) * size * size + 1
    far = a * (((size - 5) * size + 8) * size - 4)
    return np.where(size <= 1, near, np.where(size < 2, far, 0))


UPSAMPLING_RULES: Mapping[str, Callable[[Importing, OnnxNode], None]] = {
    "ConvTranspose": _conv_transpose,
    "Resize": _resize,
    "Upsample": _upsample,
}
