"""Rules for ONNX operators that look up, write or choose single elements."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from hetero.graph.importing import Importing, OnnxNode


def _gather_elements(importing: Importing, node: OnnxNode) -> None:
    node.only("axis")
    axis = node.get("axis", 0) % importing.type_of(node).rank
    importing.emit(node, node.op, importing.inputs(node), node.outputs[0], axis=axis)


def _scatter_elements(importing: Importing, node: OnnxNode) -> None:
    node.only("axis", "reduction")
    axis = node.get("axis", 0) % importing.type_of(node).rank
    reduction = node.get("reduction", "none")
    importing.emit(node, "ScatterElements", importing.inputs(node), node.outputs[0], axis=axis, reduction=reduction)


def _linear(importing: Importing, node: OnnxNode, sizes: tuple[int, ...]) -> str:
    """Indices `[..., n]` into n dimensions as ones into these dimensions put together, `[...]`."""
    value = importing.name(node.inputs[1])
    kind = importing.types[value]
    known = importing.known(node, 1)
    if known is not None and known.size:
        low, high = known.reshape(-1, len(sizes)).min(0), known.reshape(-1, len(sizes)).max(0)
        if any(not -size <= a <= b < size for a, b, size in zip(low, high, sizes, strict=True)):
            raise ValueError(f"indices from {low.tolist()} to {high.tolist()} in dimensions of {list(sizes)}")

    def number(of: int) -> str:
        return importing.constant(node, np.array(of, kind.dtype))

    total = ""
    for place, size in enumerate(sizes):
        starts = (0,) * (kind.rank - 1) + (place,)
        shape = kind.shape[:-1]
        one = importing.emit(node, "Slice", (value,), starts=starts, sizes=(*shape, 1), steps=(1,) * kind.rank)
        one = importing.emit(node, "Reshape", (one,), shape=shape)
        below = importing.emit(node, "Less", (one, number(0)))
        one = importing.emit(node, "Where", (below, importing.emit(node, "Add", (one, number(size))), one))
        step = math.prod(sizes[place + 1 :])
        one = one if step == 1 else importing.emit(node, "Mul", (one, number(step)))
        total = importing.emit(node, "Add", (total, one)) if total else one
    return total


def _gather_nd(importing: Importing, node: OnnxNode) -> None:
    node.only("batch_dims")
    x, indices = importing.type_of(node), importing.type_of(node, 1)
    batch, depth = node.get("batch_dims", 0), indices.shape[-1]
    outer, inner, rest = x.shape[:batch], x.shape[batch : batch + depth], x.shape[batch + depth :]
    if len(inner) != depth or indices.shape[:batch] != outer or not depth:
        raise ValueError(f"indices {indices} of {x} with {batch} dimensions in common")
    places = _linear(importing, node, inner)
    if batch:
        rows = np.arange(math.prod(outer), dtype=indices.dtype).reshape(*outer, *(1,) * (indices.rank - 1 - batch))
        first = importing.constant(node, rows * np.array(math.prod(inner), indices.dtype))
        places = importing.emit(node, "Add", (places, first))
    flat = importing.emit(
        node, "Reshape", (importing.name(node.inputs[0]),), shape=(math.prod(outer) * math.prod(inner), *rest)
    )
    importing.emit(node, "Gather", (flat, places), node.outputs[0], axis=0)


def _scatter_nd(importing: Importing, node: OnnxNode) -> None:
    node.only("reduction")
    x, indices = importing.type_of(node), importing.type_of(node, 1)
    depth = indices.shape[-1]
    inner, rest = x.shape[:depth], x.shape[depth:]
    if len(inner) != depth or not depth:
        raise ValueError(f"indices {indices} of {x}")
    count, width = math.prod(indices.shape[:-1]), math.prod(rest)
    places = importing.emit(node, "Reshape", (_linear(importing, node, inner),), shape=(count, 1))
    if width != 1:
        places = importing.emit(node, "Expand", (places,), shape=(count, width))
    flat = importing.emit(node, "Reshape", (importing.name(node.inputs[0]),), shape=(math.prod(inner), width))
    updates = importing.emit(node, "Reshape", (importing.name(node.inputs[2]),), shape=(count, width))
    reduction = node.get("reduction", "none")
    made = importing.emit(node, "ScatterElements", (flat, places, updates), axis=0, reduction=reduction)
    importing.emit(node, "Reshape", (made,), node.outputs[0], shape=x.shape)


def _one_hot(importing: Importing, node: OnnxNode) -> None:
    node.only("axis")
    kind = importing.type_of(node)
    depth = int(importing.needed(node, 1, "the depth").item())
    axis = node.get("axis", -1) % (kind.rank + 1)
    values, both = importing.name(node.inputs[2]), importing.type_of(node, 2)
    indices = importing.name(node.inputs[0])
    if kind.dtype not in (np.dtype(np.int32), np.dtype(np.int64)):
        indices = importing.emit(node, "Cast", (indices,), to="int64")
    dtype = importing.types[indices].dtype

    def number(of: int) -> str:
        return importing.constant(node, np.array(of, dtype))

    below = importing.emit(node, "Less", (indices, number(0)))
    indices = importing.emit(node, "Where", (below, importing.emit(node, "Add", (indices, number(depth))), indices))
    indices = importing.emit(node, "Reshape", (indices,), shape=(*kind.shape[:axis], 1, *kind.shape[axis:]))
    every = np.arange(depth, dtype=dtype).reshape(-1, *(1,) * (kind.rank - axis))
    there = importing.emit(node, "Equal", (indices, importing.constant(node, every)))
    if both.shape != (2,):
        raise ValueError(f"values {both}, expected two")
    ends = []
    for place in range(2):
        one = importing.emit(node, "Slice", (values,), starts=(place,), sizes=(1,), steps=(1,))
        ends.append(importing.emit(node, "Reshape", (one,), shape=()))
    importing.emit(node, "Where", (there, ends[1], ends[0]), node.outputs[0])


def _top_k(importing: Importing, node: OnnxNode) -> None:
    node.only("axis", "largest", "sorted", "k")
    x = importing.type_of(node)
    k = int(importing.needed(node, 1, "k").item()) if node.has(1) else int(node.must("k"))
    axis = node.get("axis", -1) % x.rank
    values, places = (*node.outputs, "")[:2]
    value = importing.name(node.inputs[0])
    found = importing.emit(node, "TopK", (value,), places or None, axis=axis, k=k, largest=node.get("largest", 1))
    if values:
        importing.emit(node, "GatherElements", (value, found), values, axis=axis)


INDEXING_RULES: Mapping[str, Callable[[Importing, OnnxNode], None]] = {
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "OneHot": _one_hot,
    "Scatter": _scatter_elements,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
    "TopK": _top_k,
}
