"""Replacing nodes by others that give the same value: what every fusion is made of."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from hetero.graph.ir import Graph
from hetero.graph.node import Array, Node
from hetero.graph.passes.tidy import drop_dead


@dataclass(frozen=True)
class Change:
    """What takes a node's place.

    Attributes:
        nodes: The last one gives the value that the replaced node gave, under its name.
        constants: That they need and the graph does not have.
    """

    nodes: tuple[Node, ...]
    constants: Mapping[str, Array] = field(default_factory=dict)


#: What is to take the place of a node, the last of a pattern; None where the pattern does not end there.
Match = Callable[[Graph, Node], "Change | None"]


def rewrite(graph: Graph, match: Match) -> Graph:
    """The graph with every match replaced, and what is dead then dropped.

    Matches may overlap: each change gives its node's value out of values that stay there as long as something uses
    them, so one does not undo what another needs.
    """
    nodes: list[Node] = []
    constants: dict[str, Array] = {}
    for node in graph.nodes:
        change = match(graph, node)
        nodes += (node,) if change is None else change.nodes
        if change is not None:
            constants |= change.constants
    if len(nodes) == len(graph.nodes) and all(a is b for a, b in zip(nodes, graph.nodes, strict=True)):
        return graph
    changed = graph.with_nodes(nodes, constants)
    assert all(changed.types[value] == graph.types[value] for node in graph.nodes for value in node.outputs)
    return drop_dead(changed)


def source(graph: Graph, value: str, *ops: str) -> Node | None:
    """The node that gives a value, where it is one of these ops and nothing else uses the value."""
    node = graph.producers.get(value)
    return node if node is not None and node.op in ops and graph.uses(value) == 1 else None


def private(graph: Graph, values: Collection[str], root: Node, inside: Collection[str]) -> bool:
    """Whether these values are used by nothing but `root` and the nodes that give values of `inside`."""
    return all(
        value not in graph.outputs
        and all(user is root or user.output in inside for user in graph.consumers.get(value, ()))
        for value in values
    )


def scaled(graph: Graph, node: Node) -> tuple[str, float] | None:
    """Of a product with a known number, or a quotient by one: the other input and the factor.

    Only where the result has the other input's type, and so nothing is broadcast.
    """
    if node.op not in ("Mul", "Div"):
        return None
    for value, other in ((node.inputs[0], node.inputs[1]), (node.inputs[1], node.inputs[0])):
        number = graph.constants.get(other)
        fits = number is not None and number.size == 1 and graph.types[value] == graph.types[node.output]
        if fits and number is not None and not (node.op == "Div" and other == node.inputs[0]):
            factor = float(number.reshape(-1)[0])
            if node.op == "Div" and factor == 0:
                return None
            return value, 1 / factor if node.op == "Div" else factor
    return None


def as_row(graph: Graph, value: str, width: int, rank: int) -> Array | None:
    """A known value that is added to or multiplied with the last dimension, as [width]; None where it is another.

    Args:
        graph: Where the value is.
        value: Its name.
        width: Size of the last dimension of the other operand.
        rank: Of the other operand.
    """
    array = graph.constants.get(value)
    if array is None or array.ndim > rank or array.size not in (1, width):
        return None
    if array.size == width and array.ndim and array.shape[-1] == width:
        return array.reshape(width)
    return np.full(width, array.reshape(-1)[0]) if array.size == 1 else None
