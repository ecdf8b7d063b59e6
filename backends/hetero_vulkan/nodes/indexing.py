"""Nodes that look up, write and mix elements by their places along an axis."""

from __future__ import annotations

from hetero.errors import Unsupported
from hetero.graph.node import Node
from hetero_vulkan.nodes.lowering import BOOL, FLOAT, INT, SMALL, Lowering, only, register, words_of
from hetero_vulkan.nodes.movement import indices_of, look_at_indices
from hetero_vulkan.ops.indexing import gather_elements, interpolate, scatter_elements, top_places
from hetero_vulkan.ops.movement import copy


def _interpolate(work: Lowering, node: Node) -> None:
    only(node, work.type(node), FLOAT)
    x, y = work.input(node), work.output(node)
    axis = node.integer("axis") % len(x.shape)
    places, weights = work.input(node, 1), work.whole(node, 2)
    assert weights is not None
    work.add(interpolate(work.device, x, places, work.as_kind(weights, "f32"), y, axis))


register(["Interpolate"], _interpolate)


def _gather_elements(work: Lowering, node: Node) -> None:
    x, kind = work.input(node), work.type(node)
    axis = node.integer("axis") % kind.rank
    look_at_indices(work, node, kind.shape[axis])
    wide = words_of(kind.dtype) == 2
    work.add(gather_elements(work.device, x, indices_of(work, node), work.output(node), axis, wide=wide))


register(["GatherElements"], _gather_elements)


def _scatter_elements(work: Lowering, node: Node) -> None:
    kind, y = work.type(node), work.output(node)
    if node.text("reduction", "none") != "none":
        raise Unsupported(f"{node.op} with the reduction {node.text('reduction')} is not computed on the device")
    axis = node.integer("axis") % kind.rank
    look_at_indices(work, node, kind.shape[axis])
    wide = words_of(kind.dtype) == 2
    work.add(copy(work.device, work.input(node), y))
    work.add(scatter_elements(work.device, work.input(node, 2), indices_of(work, node), y, axis, wide=wide))


register(["ScatterElements"], _scatter_elements)


def _top(work: Lowering, node: Node) -> None:
    kind = work.type(node)
    only(node, kind, FLOAT, INT, BOOL, *SMALL)
    axis, largest = node.integer("axis") % kind.rank, bool(node.integer("largest", 1))
    work.add(top_places(work.device, work.input(node), work.output(node), axis, largest=largest))


register(["TopK"], _top)
