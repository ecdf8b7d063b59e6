"""What a node costs: operations on numbers, and bytes moved. Counted, not measured."""

from __future__ import annotations

from dataclasses import dataclass

from hetero.graph.ir import Graph
from hetero.graph.node import Node
from hetero.graph.ops import op_of

# These give their input under another shape: no device needs to move a byte.
_FREE = ("Identity", "Reshape")


@dataclass(frozen=True)
class Cost:
    """Of one node or several.

    Attributes:
        flops: Additions, multiplications and functions of one number, each one; a multiplication that is added is two.
        read: Bytes of the inputs, each counted once.
        written: Bytes of the outputs.
        weights: Of what is read, the bytes of constants.
    """

    flops: int = 0
    read: int = 0
    written: int = 0
    weights: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.flops + other.flops,
            self.read + other.read,
            self.written + other.written,
            self.weights + other.weights,
        )


def cost_of(graph: Graph, node: Node) -> Cost:
    """The cost of one node of the graph."""
    flops = op_of(node).flops(node, graph.input_types(node), graph.types[node.output])
    if node.op in _FREE:
        return Cost(flops)
    inputs = {value for value in node.inputs if value}
    return Cost(
        flops,
        sum(graph.types[value].nbytes for value in inputs),
        sum(graph.types[value].nbytes for value in node.outputs),
        sum(graph.types[value].nbytes for value in inputs if value in graph.constants),
    )


def total_cost(graph: Graph) -> Cost:
    """The cost of all nodes."""
    return sum((cost_of(graph, node) for node in graph.nodes), Cost())


def costs_by_op(graph: Graph) -> dict[str, Cost]:
    """The cost of each op's nodes together, the dearest first."""
    costs: dict[str, Cost] = {}
    for node in graph.nodes:
        costs[node.op] = costs.get(node.op, Cost()) + cost_of(graph, node)
    return dict(sorted(costs.items(), key=lambda entry: -entry[1].flops))
