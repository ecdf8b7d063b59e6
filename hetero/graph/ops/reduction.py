"""Ops that take dimensions together, and running sums."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from hetero.graph.node import Array, Node, ValueType
from hetero.graph.ops.table import Arrays, Types, as_type, axis_of, given, register, wide


def _reduced(node: Node, x: ValueType, axes: tuple[int, ...]) -> tuple[int, ...]:
    if node.integer("keepdims", 1):
        return tuple(1 if axis in axes else size for axis, size in enumerate(x.shape))
    return tuple(size for axis, size in enumerate(x.shape) if axis not in axes)


def _infer_reduce(node: Node, types: Types) -> ValueType:
    x, axes = given(types[0]), node.integers("axes")
    if len(set(axes)) < len(axes) or any(not 0 <= axis < x.rank for axis in axes):
        raise node.broken(f"axes {list(axes)} of a value of rank {x.rank}")
    return ValueType(x.dtype, _reduced(node, x, axes))


def _reducer(function: Callable[..., Any]) -> Callable[[Node, Arrays], Array]:
    def evaluate(node: Node, arrays: Arrays) -> Array:
        x = given(arrays[0])
        result = function(wide(x), axis=node.integers("axes"), keepdims=bool(node.integer("keepdims", 1)))
        return as_type(np.asarray(result), x.dtype)

    return evaluate


def _norm(x: Array, **where: Any) -> Array:
    return np.asarray(np.sqrt(np.sum(np.square(x), **where)))


def _least(x: Array, **where: Any) -> Array:
    """The minimum; of nothing the largest value."""
    first = np.inf if x.dtype.kind == "f" else True if x.dtype == bool else np.iinfo(x.dtype).max
    return np.asarray(np.min(x, initial=first, **where))


def _greatest(x: Array, **where: Any) -> Array:
    first = -np.inf if x.dtype.kind == "f" else False if x.dtype == bool else np.iinfo(x.dtype).min
    return np.asarray(np.max(x, initial=first, **where))


#: Each takes the dimensions `axes` (counted from the front; none: nothing is reduced) together.
REDUCTIONS: dict[str, Callable[..., Any]] = {
    "ReduceL1": lambda x, **where: np.sum(np.abs(x), **where),
    "ReduceL2": _norm,
    "ReduceMax": _greatest,
    "ReduceMean": np.mean,
    "ReduceMin": _least,
    "ReduceProd": np.prod,
    "ReduceSum": np.sum,
    "ReduceSumSquare": lambda x, **where: np.sum(np.square(x), **where),
}
for _name, _function in REDUCTIONS.items():
    register(_name, 1, _infer_reduce, _reducer(_function), flops=lambda node, types, output: given(types[0]).size)


def _infer_arg(node: Node, types: Types) -> ValueType:
    x = given(types[0])
    axis = axis_of(node, node.integer("axis"), x.rank)
    return ValueType(np.dtype(np.int64), _reduced(node, x, (axis,)))


def _arg(function: Callable[..., Any]) -> Callable[[Node, Arrays], Array]:
    def evaluate(node: Node, arrays: Arrays) -> Array:
        x, axis = given(arrays[0]), node.integer("axis")
        if node.integer("select_last_index"):
            found = x.shape[axis] - 1 - function(np.flip(x, axis), axis=axis, keepdims=True)
        else:
            found = function(x, axis=axis, keepdims=True)
        kept = found if node.integer("keepdims", 1) else np.squeeze(found, axis)
        return np.asarray(kept, dtype=np.int64)

    return evaluate


for _name, _function in {"ArgMax": np.argmax, "ArgMin": np.argmin}.items():
    register(_name, 1, _infer_arg, _arg(_function), flops=lambda node, types, output: given(types[0]).size)


def _infer_cumsum(node: Node, types: Types) -> ValueType:
    x = given(types[0])
    axis_of(node, node.integer("axis"), x.rank)
    return x


def _cumsum(node: Node, arrays: Arrays) -> Array:
    x, axis = given(arrays[0]), node.integer("axis")
    turned = np.flip(x, axis) if node.integer("reverse") else x
    total = np.cumsum(wide(turned), axis=axis)
    if node.integer("exclusive"):
        total = total - turned
    return as_type(np.flip(total, axis) if node.integer("reverse") else total, x.dtype)


register("CumSum", 1, _infer_cumsum, _cumsum, flops=1)
