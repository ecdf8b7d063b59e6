"""Rules for ONNX operators that deal with shapes: what they compute of them becomes attributes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from hetero.graph.importing import Importing, OnnxNode


def _numbers(importing: Importing, node: OnnxNode, place: int, name: str) -> list[int] | None:
    """Whole numbers that are an attribute in old versions and an input in new ones; None where they are left out."""
    if node.has(place):
        return [int(number) for number in importing.needed(node, place, name).reshape(-1)]
    value = node.get(name, None)
    return None if value is None else [int(number) for number in value]


def _to_shape(importing: Importing, node: OnnxNode, shape: tuple[int, ...]) -> None:
    if importing.type_of(node).shape == shape:
        importing.alias(node.inputs[0], node.outputs[0])
    else:
        importing.emit(node, "Reshape", (importing.name(node.inputs[0]),), node.outputs[0], shape=shape)


def _reshape(importing: Importing, node: OnnxNode) -> None:
    node.only("allowzero", "shape")
    x = importing.type_of(node)
    wanted = _numbers(importing, node, 1, "shape") or []
    if not node.get("allowzero", 0):
        wanted = [x.shape[place] if size == 0 else size for place, size in enumerate(wanted)]
    if -1 in wanted:
        others = math.prod(size for size in wanted if size != -1)
        wanted[wanted.index(-1)] = x.size // others if others else 0
    _to_shape(importing, node, tuple(wanted))


def _flatten(importing: Importing, node: OnnxNode) -> None:
    node.only("axis")
    shape = importing.type_of(node).shape
    axis = node.get("axis", 1)
    axis += len(shape) if axis < 0 else 0
    _to_shape(importing, node, (math.prod(shape[:axis]), math.prod(shape[axis:])))


def _squeeze(importing: Importing, node: OnnxNode) -> None:
    node.only("axes")
    shape = importing.type_of(node).shape
    axes = _numbers(importing, node, 1, "axes")
    gone = (
        {axis % len(shape) for axis in axes} if axes is not None else {i for i, size in enumerate(shape) if size == 1}
    )
    if any(shape[axis] != 1 for axis in gone):
        raise ValueError(f"axes {axes} of {list(shape)} are not all 1")
    _to_shape(importing, node, tuple(size for axis, size in enumerate(shape) if axis not in gone))


def _unsqueeze(importing: Importing, node: OnnxNode) -> None:
    node.only("axes")
    shape = importing.type_of(node).shape
    axes = _numbers(importing, node, 1, "axes") or []
    rank = len(shape) + len(axes)
    places = {axis % rank for axis in axes}
    if len(places) < len(axes):
        raise ValueError(f"axes {axes} are not different ones")
    rest = iter(shape)
    _to_shape(importing, node, tuple(1 if axis in places else next(rest) for axis in range(rank)))


def _transpose(importing: Importing, node: OnnxNode) -> None:
    node.only("perm")
    rank = importing.type_of(node).rank
    perm = tuple(node.get("perm", range(rank - 1, -1, -1)))
    if perm == tuple(range(rank)):
        importing.alias(node.inputs[0], node.outputs[0])
    else:
        importing.emit(node, "Transpose", importing.inputs(node), node.outputs[0], perm=perm)


def _slice(importing: Importing, node: OnnxNode) -> None:
    node.only("starts", "ends", "axes")
    shape = importing.type_of(node).shape
    starts, ends = (_numbers(importing, node, place, name) or [] for place, name in ((1, "starts"), (2, "ends")))
    axes = _numbers(importing, node, 3, "axes") or list(range(len(starts)))
    steps = _numbers(importing, node, 4, "steps") or [1] * len(starts)
    first, count, by = [0] * len(shape), list(shape), [1] * len(shape)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        places = range(shape[axis])[slice(start, end, step)]
        # A step over a whole dimension and one of nothing are written in one way, so that equal slices look equal.
        at = axis % len(shape)
        first[at], count[at], by[at] = (places.start, len(places), step) if places else (0, 0, 1)
    if tuple(count) == shape and all(step == 1 for step in by):
        importing.alias(node.inputs[0], node.outputs[0])
        return
    x = importing.inputs(node)[:1]
    importing.emit(node, "Slice", x, node.outputs[0], starts=tuple(first), sizes=tuple(count), steps=tuple(by))


def _split(importing: Importing, node: OnnxNode) -> None:
    node.only("axis", "split", "num_outputs")
    x = importing.type_of(node)
    axis = node.get("axis", 0) % x.rank
    sizes = _numbers(importing, node, 1, "split")
    if sizes is None:
        parts = node.get("num_outputs", len(node.outputs))
        each = -(-x.shape[axis] // parts)
        sizes = [each] * (parts - 1) + [x.shape[axis] - each * (parts - 1)]
    if sum(sizes) != x.shape[axis] or len(sizes) != len(node.outputs):
        raise ValueError(f"{len(node.outputs)} parts of sizes {sizes} of a dimension of {x.shape[axis]}")
    start = 0
    for size, output in zip(sizes, node.outputs, strict=True):
        if output:
            starts = tuple(start if i == axis else 0 for i in range(x.rank))
            counts = tuple(size if i == axis else whole for i, whole in enumerate(x.shape))
            value = importing.inputs(node)[:1]
            importing.emit(node, "Slice", value, output, starts=starts, sizes=counts, steps=(1,) * x.rank)
        start += size


def _gather(importing: Importing, node: OnnxNode) -> None:
    node.only("axis")
    x = importing.type_of(node)
    axis = node.get("axis", 0) % x.rank
    value, indices = importing.inputs(node)
    known = importing.known(node, 1)
    if known is not None:
        if known.size and not -x.shape[axis] <= known.min() <= known.max() < x.shape[axis]:
            raise ValueError(f"indices from {known.min()} to {known.max()} in a dimension of {x.shape[axis]}")
        if known.size and known.min() < 0:
            # Devices count from the front.
            indices = importing.constant(node, np.where(known < 0, known + x.shape[axis], known).astype(known.dtype))
    importing.emit(node, "Gather", (value, indices), node.outputs[0], axis=axis)


def _expand(importing: Importing, node: OnnxNode) -> None:
    node.only()
    x = importing.type_of(node)
    shape = np.broadcast_shapes(x.shape, tuple(_numbers(importing, node, 1, "shape") or ()))
    if shape == x.shape:
        importing.alias(node.inputs[0], node.outputs[0])
    else:
        importing.emit(node, "Expand", importing.inputs(node)[:1], node.outputs[0], shape=shape)


def _tile(importing: Importing, node: OnnxNode) -> None:
    node.only()
    repeats = tuple(_numbers(importing, node, 1, "repeats") or ())
    importing.emit(node, "Tile", importing.inputs(node)[:1], node.outputs[0], repeats=repeats)


def _pad(importing: Importing, node: OnnxNode) -> None:
    node.only("mode", "pads", "value")
    x = importing.type_of(node)
    pads = _numbers(importing, node, 1, "pads") or []
    axes = _numbers(importing, node, 3, "axes")
    at = [axis % x.rank for axis in axes] if axes is not None else list(range(x.rank))
    if len(pads) != 2 * len(at):
        raise ValueError(f"{len(pads)} pads for {len(at)} dimensions")
    whole = [0] * 2 * x.rank
    for place, axis in enumerate(at):
        whole[axis], whole[axis + x.rank] = pads[place], pads[place + len(at)]
    filler = importing.needed(node, 2, "the value").item() if node.has(2) else node.get("value", 0)
    mode = node.get("mode", "constant")
    importing.emit(node, "Pad", importing.inputs(node)[:1], node.outputs[0], pads=tuple(whole), mode=mode, value=filler)


def _shape(importing: Importing, node: OnnxNode) -> None:
    node.only("start", "end")
    shape = importing.type_of(node).shape[node.get("start", 0) : node.get("end", None)]
    importing.define(node.outputs[0], np.array(shape, dtype=np.int64))


def _size(importing: Importing, node: OnnxNode) -> None:
    node.only()
    importing.define(node.outputs[0], np.array(importing.type_of(node).size, dtype=np.int64))


def _constant_of_shape(importing: Importing, node: OnnxNode) -> None:
    node.only("value")
    value = node.get("value", np.zeros(1, dtype=np.float32))
    shape = tuple(_numbers(importing, node, 0, "shape") or ())
    importing.define(node.outputs[0], np.full(shape, value.reshape(-1)[0]))


def _range(importing: Importing, node: OnnxNode) -> None:
    node.only()
    bounds = [importing.needed(node, place, name) for place, name in enumerate(("start", "limit", "delta"))]
    start, limit, delta = (bound.item() for bound in bounds)
    count = max(0, math.ceil((limit - start) / delta))
    importing.define(node.outputs[0], (start + np.arange(count) * delta).astype(bounds[0].dtype))


def _depth_to_space(importing: Importing, node: OnnxNode) -> None:
    node.only("blocksize", "mode")
    n, c, h, w = importing.type_of(node).shape
    b = node.must("blocksize")
    if node.get("mode", "DCR") == "DCR":
        apart, perm = (n, b, b, c // (b * b), h, w), (0, 3, 4, 1, 5, 2)
    else:
        apart, perm = (n, c // (b * b), b, b, h, w), (0, 1, 4, 2, 5, 3)
    x = importing.emit(node, "Reshape", importing.inputs(node), shape=apart)
    x = importing.emit(node, "Transpose", (x,), perm=perm)
    importing.emit(node, "Reshape", (x,), node.outputs[0], shape=(n, c // (b * b), h * b, w * b))


def _space_to_depth(importing: Importing, node: OnnxNode) -> None:
    node.only("blocksize", "mode")
    if node.get("mode", "DCR") != "DCR":
        raise node.refused(f"the mode {node.get('mode', '')} is not supported")
    n, c, h, w = importing.type_of(node).shape
    b = node.must("blocksize")
    x = importing.emit(node, "Reshape", importing.inputs(node), shape=(n, c, h // b, b, w // b, b))
    x = importing.emit(node, "Transpose", (x,), perm=(0, 3, 5, 1, 2, 4))
    importing.emit(node, "Reshape", (x,), node.outputs[0], shape=(n, c * b * b, h // b, w // b))


SHAPE_RULES: Mapping[str, Callable[[Importing, OnnxNode], None]] = {
    "ConstantOfShape": _constant_of_shape,
    "DepthToSpace": _depth_to_space,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Pad": _pad,
    "Range": _range,
    "Reshape": _reshape,
    "Shape": _shape,
    "Size": _size,
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
