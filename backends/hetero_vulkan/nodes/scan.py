"""Nodes that go along an axis: sums so far, places of extremes."""

from __future__ import annotations

from hetero.graph.node import Node
from hetero_vulkan.nodes.lowering import FLOAT, INT, LONG, Lowering, only, register
from hetero_vulkan.ops.scan import place_of, running_sums


def _cumsum(work: Lowering, node: Node) -> None:
    kind = work.type(node)
    only(node, kind, FLOAT, INT, LONG)
    x, y = work.input(node), work.output(node)
    axis = node.integer("axis") % kind.rank
    exclusive, backwards = bool(node.integer("exclusive")), bool(node.integer("reverse"))
    work.add(running_sums(work.device, x, y, axis, wide=kind.dtype == LONG, exclusive=exclusive, backwards=backwards))


register(["CumSum"], _cumsum)


def _arg(work: Lowering, node: Node) -> None:
    kind = work.type(node)
    only(node, kind, FLOAT, INT)
    axis = node.integer("axis") % kind.rank
    how = "greatest" if node.op == "ArgMax" else "least"
    last = bool(node.integer("select_last_index"))
    work.add(place_of(work.device, how, work.input(node), work.output(node), axis, last=last))  # type: ignore[arg-type]


register(["ArgMax", "ArgMin"], _arg)
