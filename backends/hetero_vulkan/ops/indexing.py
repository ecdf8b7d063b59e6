"""Elements by their places along an axis: looked up, written, mixed; and the places of the most extreme ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hetero.errors import OptionError, Unsupported
from hetero_vulkan.commands import Dispatch
from hetero_vulkan.ops.tensors import CODES, SIZES, Tensor, in_order, lanes, padded, spread, whole_words, words

if TYPE_CHECKING:
    from hetero_vulkan.device import VulkanDevice

_MOST_DIMENSIONS = 6

MOST_RANKED = 1 << 14
"""Elements of a line that are put in order: each is compared with each."""


def interpolate(
    device: VulkanDevice, x: Tensor, places: Tensor, weights: Tensor, y: Tensor, axis: int
) -> list[Dispatch]:
    """Y[.., i, ..] = the sum over t of x[.., places[i, t], ..] * weights[i, t], along an axis.

    Args:
        device: The device.
        x: f32 or f16, in order.
        places: i32 `[size, taps]`, in order; each is an element of x's axis.
        weights: f32, likewise.
        y: f32 or f16, in order; of x's shape but for the axis, which has `size` elements.
        axis: From the front.

    Raises:
        OptionError: Shapes or kinds that do not fit.
        Unsupported: They do not lie in order.
    """
    expected = (*x.shape[:axis], *places.shape[:1], *x.shape[axis + 1 :])
    kinds = (places.kind, weights.kind) == ("i32", "f32") and {x.kind, y.kind} <= {"f32", "f16"}
    if y.shape != expected or len(places.shape) != 2 or places.shape != weights.shape or not kinds:
        raise OptionError(
            f"{x.kind} {x.shape} by {places.kind} {places.shape} and {weights.kind} {weights.shape} along axis {axis} "
            f"to {y.kind} {y.shape}, expected {expected}, places of i32 and weights of f32"
        )
    if not y.size:
        return []
    if not all(tensor.contiguous for tensor in (x, places, weights)):
        raise Unsupported("interpolation of tensors that do not lie in order", fix="copy them first")
    whole_words(y, "what is interpolated")
    local = lanes(device)
    pipeline = device.pipeline("interpolate", {"local_size_x": local, "FROM": CODES[x.kind], "TO": CODES[y.kind]})
    push = {
        "count": y.size,
        "size": x.shape[axis],
        "wanted": y.shape[axis],
        "taps": places.shape[1],
        "inner": math.prod(x.shape[axis + 1 :]),
        "x_offset": x.offset,
        "places_offset": places.offset,
        "weights_offset": weights.offset,
        "y_offset": y.offset,
    }
    groups = spread(device, words(y.size, y.kind), local)
    buffers = [x.buffer, places.buffer, weights.buffer, y.buffer]
    return [Dispatch(pipeline, buffers, groups, push, 2.0 * y.size * places.shape[1])]


def gather_elements(
    device: VulkanDevice, source: Tensor, indices: Tensor, target: Tensor, axis: int, *, wide: bool = False
) -> list[Dispatch]:
    """Target = numpy.take_along_axis(source, indices, axis); other axes may be shorter than the source's.

    Args:
        device: The device.
        source: f32 or i32, in order.
        indices: i32, in order; below 0 they count from the end, and those that are beyond give the nearest.
        target: Of the source's kind and the indices' shape, in order.
        axis: From the front.
        wide: Elements of source and target are pairs, in a last dimension more.

    Raises:
        OptionError: Shapes or kinds that do not fit.
        Unsupported: Kinds of parts of words, more than six dimensions, or they do not lie in order.
    """
    whole = source.shape[:-1] if wide else source.shape
    _check(source, indices, target, whole, axis, wide)
    if not target.size:
        return []
    return _elements(device, "gather_elements", source, indices, target, whole, axis, wide)


def scatter_elements(
    device: VulkanDevice, updates: Tensor, indices: Tensor, target: Tensor, axis: int, *, wide: bool = False
) -> list[Dispatch]:
    """Target[.., indices[i], ..] = updates[i] along an axis, amid what is there; of equal indices any one wins.

    Args:
        device: The device.
        updates: f32 or i32, in order, of the indices' shape.
        indices: i32, in order; below 0 they count from the end, and those that are beyond write nothing.
        target: Of the updates' kind, in order.
        axis: From the front.
        wide: Elements of updates and target are pairs, in a last dimension more.

    Raises:
        OptionError: Shapes or kinds that do not fit.
        Unsupported: Kinds of parts of words, more than six dimensions, or they do not lie in order.
    """
    whole = target.shape[:-1] if wide else target.shape
    _check(target, indices, updates, whole, axis, wide)
    if not updates.size:
        return []
    return _elements(device, "scatter_elements", updates, indices, target, whole, axis, wide)


def _check(large: Tensor, indices: Tensor, small: Tensor, whole: Sequence[int], axis: int, wide: bool) -> None:
    """The indices are places in `large`, one for each element of `small`."""
    expected = (*indices.shape, 2) if wide else indices.shape
    fits = len(indices.shape) == len(whole) and all(
        place == axis or mine <= theirs for place, (mine, theirs) in enumerate(zip(indices.shape, whole, strict=True))
    )
    if not fits or indices.kind != "i32" or small.shape != expected or small.kind != large.kind:
        raise OptionError(
            f"{indices.kind} {indices.shape} of axis {axis} of {large.kind} {large.shape} for {small.kind} "
            f"{small.shape}, expected i32, at most as many elsewhere, and {expected}"
        )
    if SIZES[large.kind] != 4:
        raise Unsupported(f"single elements of {large.kind}", fix="use f32 or i32")
    if len(whole) > _MOST_DIMENSIONS:
        raise Unsupported(f"single elements of {len(whole)} dimensions, at most {_MOST_DIMENSIONS}")
    if not all(tensor.contiguous for tensor in (large, indices, small)):
        raise Unsupported("single elements of tensors that do not lie in order", fix="copy them first")
    if small.size and not large.size:
        raise Unsupported(f"elements of {large.shape}, of which there is none")


def _elements(
    device: VulkanDevice,
    shader: str,
    first: Tensor,
    indices: Tensor,
    last: Tensor,
    whole: Sequence[int],
    axis: int,
    wide: bool,
) -> list[Dispatch]:
    local = lanes(device)
    pipeline = device.pipeline(shader, {"local_size_x": local, "WORDS": 2 if wide else 1})
    steps = in_order(whole)
    push = {
        "count": indices.size,
        "size": whole[axis],
        "from_offset": first.offset,
        "index_offset": indices.offset,
        "to_offset": last.offset,
        "axis_step": steps[axis],
    }
    push |= {f"d{i}": size for i, size in enumerate(padded(indices.shape, 6, 1))}
    others = [0 if place == axis else step for place, step in enumerate(steps)]
    push |= {f"f{i}": step for i, step in enumerate(padded(others, 6, 0))}
    groups = spread(device, indices.size, local)
    return [Dispatch(pipeline, [first.buffer, indices.buffer, last.buffer], groups, push)]


def top_places(device: VulkanDevice, x: Tensor, y: Tensor, axis: int, *, largest: bool = True) -> list[Dispatch]:
    """Y = the places of the greatest or least elements along an axis, in order; of equal ones the first comes first.

    Args:
        device: The device.
        x: f32 or i32, in order. NaN is the greatest.
        y: Pairs, `[.., k, .., 2]`, in order: whole numbers of 64 bits.
        axis: From the front.
        largest: Which.

    Raises:
        OptionError: Shapes that do not fit.
        Unsupported: Lines that are longer than `MOST_RANKED`, another kind, or they do not lie in order.
    """
    length = x.shape[axis]
    if y.kind != "i32" or y.shape[-1:] != (2,) or len(y.shape) != len(x.shape) + 1 or y.shape[axis] > length:
        raise OptionError(
            f"places of {x.shape} along axis {axis} to {y.kind} {y.shape}, expected pairs, at most {length}"
        )
    if not y.size:
        return []
    if length > MOST_RANKED or x.kind not in ("f32", "i32") or not x.contiguous or not y.contiguous:
        raise Unsupported(
            f"putting {length} elements of {x.kind} in order, at most {MOST_RANKED} of f32 or i32 that lie in order are"
        )
    local = lanes(device)
    pipeline = device.pipeline("rank", {"local_size_x": local, "LARGEST": largest, "INTEGERS": x.kind == "i32"})
    push = {
        "count": x.size,
        "length": length,
        "inner": math.prod(x.shape[axis + 1 :]),
        "k": y.shape[axis],
        "x_offset": x.offset,
        "y_offset": y.offset,
    }
    return [Dispatch(pipeline, [x.buffer, y.buffer], spread(device, x.size, local), push, float(x.size) * length)]
