"""Ops that look up or write single elements by their places along an axis, and the places of the greatest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hetero.errors import InputError
from hetero.graph.node import Array, Node, ValueType
from hetero.graph.ops.table import Arrays, Types, axis_of, given, register


def _indices(node: Node, indices: Array, size: int) -> Array:
    """Counted from the front.

    Raises:
        InputError: One is out of range.
    """
    if indices.size and not -size <= indices.min() <= indices.max() < size:
        raise InputError(
            f"{node.op} {node.name or node.output!r}: indices from {indices.min()} to {indices.max()}, "
            f"but dimension {node.integer('axis')} has {size} elements"
        )
    return np.where(indices < 0, indices + size, indices)


def _check(node: Node, x: ValueType, indices: ValueType) -> None:
    axis = axis_of(node, node.integer("axis"), x.rank)
    fits = indices.rank == x.rank and all(
        place == axis or mine <= theirs
        for place, (mine, theirs) in enumerate(zip(indices.shape, x.shape, strict=False))
    )
    if indices.dtype.name not in ("int32", "int64") or not fits:
        raise node.broken(f"indices {indices} along axis {axis} of {x}")


def _infer_gather(node: Node, types: Types) -> ValueType:
    x, indices = given(types[0]), given(types[1])
    _check(node, x, indices)
    return ValueType(x.dtype, indices.shape)


def _gather(node: Node, arrays: Arrays) -> Array:
    x, indices = given(arrays[0]), given(arrays[1])
    axis = node.integer("axis") % x.ndim
    found = _indices(node, indices, x.shape[axis])
    seen = x[tuple(slice(None) if place == axis else slice(size) for place, size in enumerate(indices.shape))]
    return np.take_along_axis(seen, found, axis)


#: Inputs x, indices of x's rank: y[o, i, r] = x[o, indices[o, i, r], r]. Attributes: `axis`.
register("GatherElements", 2, _infer_gather, _gather)


def _infer_scatter(node: Node, types: Types) -> ValueType:
    x, indices, updates = (given(value) for value in types)
    _check(node, x, indices)
    if updates != ValueType(x.dtype, indices.shape):
        raise node.broken(f"updates {updates} for the indices {indices} of {x}")
    if node.text("reduction", "none") not in _REDUCTIONS:
        raise node.broken(f"reduction {node.text('reduction')!r}, expected one of {', '.join(_REDUCTIONS)}")
    return x


_REDUCTIONS = {"none": None, "add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}


def _scatter(node: Node, arrays: Arrays) -> Array:
    x, indices, updates = (given(array) for array in arrays)
    axis = node.integer("axis") % x.ndim
    found = _indices(node, indices, x.shape[axis])
    grids: Sequence[Array] = np.indices(indices.shape, sparse=True)
    places = tuple(found if place == axis else grid for place, grid in enumerate(grids))
    result = np.array(x)
    together = _REDUCTIONS[node.text("reduction", "none")]
    if together is None:
        result[places] = updates
    else:
        together.at(result, places, updates)
    return result


#: Inputs x, indices of x's rank, updates of their shape: x with y[o, indices[o, i, r], r] = updates[o, i, r].
#: Attributes: `axis`; `reduction`, how an update and what is there go together: none (it takes the place), add, mul,
#: max, min.
register("ScatterElements", 3, _infer_scatter, _scatter)


def _infer_top(node: Node, types: Types) -> ValueType:
    x = given(types[0])
    axis = axis_of(node, node.integer("axis"), x.rank)
    k = node.integer("k")
    if not 0 <= k <= x.shape[axis]:
        raise node.broken(f"{k} of the {x.shape[axis]} elements along axis {axis} of {x}")
    return ValueType(np.dtype(np.int64), (*x.shape[:axis], k, *x.shape[axis + 1 :]))


def _top(node: Node, arrays: Arrays) -> Array:
    x = given(arrays[0])
    axis, k = node.integer("axis") % x.ndim, node.integer("k")
    if node.integer("largest", 1):
        # From the back, so that of equal ones the first comes first.
        turned = np.flip(np.argsort(np.flip(x, axis), axis=axis, kind="stable"), axis)
        order = x.shape[axis] - 1 - turned
    else:
        order = np.argsort(x, axis=axis, kind="stable")
    return np.take(order, np.arange(k), axis=axis).astype(np.int64)


#: The places of the `k` greatest elements along `axis`, or of the least (`largest` = 0), in order; NaN is the greatest.
register("TopK", 1, _infer_top, _top, flops=lambda node, types, output: given(types[0]).size)
