"""Ops that move elements, and mix neighbours at most."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from hetero.errors import InputError
from hetero.graph.node import Array, Node, ValueType
from hetero.graph.ops.table import Arrays, Types, as_type, axis_of, broadcast, floats, given, register, wide


def _infer_reshape(node: Node, types: Types) -> ValueType:
    x, shape = given(types[0]), node.integers("shape")
    if math.prod(shape) != x.size:
        raise node.broken(f"{x} has not the elements of shape {list(shape)}")
    return ValueType(x.dtype, shape)


register("Reshape", 1, _infer_reshape, lambda node, arrays: given(arrays[0]).reshape(node.integers("shape")))


def _infer_transpose(node: Node, types: Types) -> ValueType:
    x, perm = given(types[0]), node.integers("perm")
    if sorted(perm) != list(range(x.rank)):
        raise node.broken(f"perm {list(perm)} for a value of rank {x.rank}")
    return ValueType(x.dtype, tuple(x.shape[axis] for axis in perm))


register("Transpose", 1, _infer_transpose, lambda node, arrays: given(arrays[0]).transpose(node.integers("perm")))


def _infer_concat(node: Node, types: Types) -> ValueType:
    values = [given(value) for value in types]
    first = values[0]
    axis = axis_of(node, node.integer("axis"), first.rank)
    for value in values:
        others = value.shape[:axis] + value.shape[axis + 1 :]
        if (
            value.dtype != first.dtype
            or value.rank != first.rank
            or others != first.shape[:axis] + first.shape[axis + 1 :]
        ):
            raise node.broken(f"{value} cannot be joined to {first} along axis {axis}")
    total = sum(value.shape[axis] for value in values)
    return ValueType(first.dtype, (*first.shape[:axis], total, *first.shape[axis + 1 :]))


register(
    "Concat",
    (1, 1 << 16),
    _infer_concat,
    lambda node, arrays: np.concatenate([given(array) for array in arrays], axis=node.integer("axis")),
)


def _infer_slice(node: Node, types: Types) -> ValueType:
    x = given(types[0])
    starts, sizes, steps = (node.integers(key) for key in ("starts", "sizes", "steps"))
    if not len(starts) == len(sizes) == len(steps) == x.rank:
        raise node.broken(f"starts, sizes and steps must have the rank of {x}")
    for start, size, step, length in zip(starts, sizes, steps, x.shape, strict=True):
        if size < 0 or (size and not (0 <= start < length and 0 <= start + (size - 1) * step < length)):
            raise node.broken(f"{size} elements from {start} on by {step} are not in a dimension of {length}")
    return ValueType(x.dtype, sizes)


def _slice(node: Node, arrays: Arrays) -> Array:
    places = []
    for start, size, step in zip(*(node.integers(key) for key in ("starts", "sizes", "steps")), strict=True):
        end = start + size * step
        places.append(slice(start, end if end >= 0 else None, step) if size else slice(0, 0))
    return given(arrays[0])[tuple(places)]


register("Slice", 1, _infer_slice, _slice)


def _infer_gather(node: Node, types: Types) -> ValueType:
    x, indices = given(types[0]), given(types[1])
    axis = axis_of(node, node.integer("axis"), x.rank)
    if indices.dtype.kind != "i":
        raise node.broken(f"indices of dtype {indices.dtype}, expected int32 or int64")
    return ValueType(x.dtype, x.shape[:axis] + indices.shape + x.shape[axis + 1 :])


def _gather(node: Node, arrays: Arrays) -> Array:
    x, indices, axis = given(arrays[0]), given(arrays[1]), node.integer("axis")
    size = x.shape[axis]
    if indices.size and not -size <= indices.min() <= indices.max() < size:
        raise InputError(
            f"Gather {node.name or node.output!r}: indices from {indices.min()} to {indices.max()}, "
            f"but dimension {axis} has {size} elements"
        )
    return np.take(x, indices, axis=axis)


#: Negative indices count from the end, where they are not known; known ones are made positive by the import.
register("Gather", 2, _infer_gather, _gather)


def _infer_interpolate(node: Node, types: Types) -> ValueType:
    x, places, weights = floats(node, types[0]), given(types[1]), given(types[2])
    axis = axis_of(node, node.integer("axis"), x.rank)
    if places.rank != 2 or places.shape != weights.shape or places.dtype != np.int32 or weights.dtype != np.float32:
        raise node.broken(f"places {places} and weights {weights}, expected int32 and float32 [size, taps]")
    return ValueType(x.dtype, (*x.shape[:axis], places.shape[0], *x.shape[axis + 1 :]))


def _interpolate(node: Node, arrays: Arrays) -> Array:
    x, places, weights = wide(given(arrays[0])), given(arrays[1]), given(arrays[2])
    axis = node.integer("axis") % x.ndim
    shape = tuple(-1 if place == axis else 1 for place in range(x.ndim))
    taps = zip(places.T, weights.T, strict=True)
    total = sum(np.take(x, place, axis=axis) * weight.reshape(shape) for place, weight in taps)
    return as_type(np.asarray(total), given(arrays[0]).dtype)


#: Inputs x, places (int32) and weights (float32), both `[size, taps]`: each element along the axis is a sum of some of
#: x's, times their weights. What `Resize` is made of. Attributes: `axis`.
register(
    "Interpolate",
    3,
    _infer_interpolate,
    _interpolate,
    flops=lambda node, types, output: 2 * output.size * given(types[1]).shape[1],
)


def _infer_expand(node: Node, types: Types) -> ValueType:
    x, shape = given(types[0]), node.integers("shape")
    if broadcast(node, x.shape, shape) != shape:
        raise node.broken(f"{x} cannot be spread to {list(shape)}")
    return ValueType(x.dtype, shape)


register("Expand", 1, _infer_expand, lambda node, arrays: np.broadcast_to(given(arrays[0]), node.integers("shape")))


def _infer_tile(node: Node, types: Types) -> ValueType:
    x, repeats = given(types[0]), node.integers("repeats")
    if len(repeats) != x.rank or min(repeats, default=0) < 0:
        raise node.broken(f"repeats {list(repeats)} for a value of rank {x.rank}")
    return ValueType(x.dtype, tuple(size * count for size, count in zip(x.shape, repeats, strict=True)))


register("Tile", 1, _infer_tile, lambda node, arrays: np.tile(given(arrays[0]), node.integers("repeats")))

#: How numpy calls what ONNX calls it.
_PAD_MODES = {"constant": "constant", "reflect": "reflect", "edge": "edge", "wrap": "wrap"}


def _pads(node: Node, rank: int) -> Sequence[tuple[int, int]]:
    pads = node.integers("pads")
    if len(pads) != 2 * rank:
        raise node.broken(f"{len(pads)} pads for a value of rank {rank}, expected {2 * rank}")
    return list(zip(pads[:rank], pads[rank:], strict=True))


def _infer_pad(node: Node, types: Types) -> ValueType:
    x = given(types[0])
    if node.text("mode", "constant") not in _PAD_MODES:
        raise node.broken(f"mode {node.text('mode')!r}, expected one of {', '.join(_PAD_MODES)}")
    shape = tuple(size + sum(pads) for size, pads in zip(x.shape, _pads(node, x.rank), strict=True))
    if min(shape, default=0) < 0:
        raise node.broken(f"pads {list(node.integers('pads'))} take away more than {x} has")
    return ValueType(x.dtype, shape)


def _pad(node: Node, arrays: Arrays) -> Array:
    x = given(arrays[0])
    pads = _pads(node, x.ndim)
    # numpy does not take negative pads: they cut.
    x = x[tuple(slice(max(0, -low), size - max(0, -high)) for size, (low, high) in zip(x.shape, pads, strict=True))]
    positive = [(max(0, low), max(0, high)) for low, high in pads]
    mode = node.text("mode", "constant")
    if mode == "constant":
        return np.pad(x, positive, constant_values=x.dtype.type(node.attributes.get("value", 0)))
    return np.pad(x, positive, mode=_PAD_MODES[mode])  # type: ignore[no-any-return, call-overload]


register("Pad", 1, _infer_pad, _pad)


def _infer_trilu(node: Node, types: Types) -> ValueType:
    x = given(types[0])
    if x.rank < 2:
        raise node.broken(f"{x} is no matrix")
    return x


def _trilu(node: Node, arrays: Arrays) -> Array:
    x = given(arrays[0])
    mask = np.ones(x.shape[-2:], dtype=bool)
    kept = np.triu(mask, node.integer("k")) if node.integer("upper", 1) else np.tril(mask, node.integer("k"))
    return np.where(kept, x, x.dtype.type(0))


register("Trilu", 1, _infer_trilu, _trilu)
