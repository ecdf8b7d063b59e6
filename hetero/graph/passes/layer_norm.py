"""`LayerNormalization` out of the chain that exporters before opset 17 write for it.

The chain, with d = x - mean(x): d / sqrt(mean(d^2) + epsilon), then * scale and + bias, each of which may be missing.
Means go over the last dimensions. Ba, Kiros and Hinton, "Layer Normalization", 2016.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hetero.graph.ir import Graph, scalar_of
from hetero.graph.node import Array, Node
from hetero.graph.passes.rewriting import Change, private, rewrite, source


def fuse_layer_norm(graph: Graph) -> Graph:
    """With the chain as one node, where nothing else uses what is in between.

    Scale and bias must be known and belong to the normalised dimensions alone; a chain without them gets ones.
    """
    return rewrite(graph, _match)


@dataclass(frozen=True)
class _Normalised:
    """(x - mean) / sqrt(variance + epsilon) over the dimensions from `axis` on."""

    x: str
    axis: int
    epsilon: float


def _match(graph: Graph, node: Node) -> Change | None:
    for quotient, scale, bias in _ways(graph, node):
        found = _normalised(graph, quotient)
        if found is not None:
            return _change(graph, node, found, scale, bias)
    return None


def _ways(graph: Graph, node: Node) -> Iterator[tuple[Node, str | None, str | None]]:
    """What the node can be: a quotient, one that is scaled, and either with a bias."""
    yield node, None, None
    for quotient, scale in _apart(graph, node, "Mul"):
        yield quotient, scale, None
    for inner, bias in _apart(graph, node, "Add"):
        yield inner, None, bias
        for quotient, scale in _apart(graph, inner, "Mul"):
            yield quotient, scale, bias


def _apart(graph: Graph, node: Node, op: str) -> Iterator[tuple[Node, str]]:
    """Of a sum or product with a known value: the node that gives the other input, and the known value."""
    for value, known in (node.inputs, node.inputs[::-1]) if node.op == op else ():
        inner = source(graph, value, "Mul", "Div")
        if inner is not None and known in graph.constants:
            yield inner, known


def _change(graph: Graph, node: Node, found: _Normalised, scale: str | None, bias: str | None) -> Change | None:
    x = graph.types[found.x]
    if graph.types[node.output] != x:
        return None
    shape = x.shape[found.axis :]
    constants: dict[str, Array] = {}
    inputs = [found.x]
    for what, value in (("scale", scale), ("bias", bias)):
        if value is None and what == "bias":
            continue
        array = np.ones(shape, dtype=x.dtype) if value is None else _of_shape(graph.constants[value], shape)
        if array is None:
            return None
        if value is not None and array is graph.constants[value]:
            inputs.append(value)
        else:
            constants[graph.fresh(f"{node.output}/{what}")] = array
            inputs.append(next(reversed(constants)))
    attributes = {"axis": found.axis, "epsilon": found.epsilon}
    return Change((Node("LayerNormalization", tuple(inputs), node.outputs, attributes, node.name),), constants)


def _of_shape(array: Array, shape: tuple[int, ...]) -> Array | None:
    """The array as one of that shape; None where it varies over dimensions in front of it."""
    if array.shape == shape:
        return array
    front = array.ndim - len(shape)
    if any(size != 1 for size in array.shape[: max(front, 0)]):
        return None
    return np.array(np.broadcast_to(array.reshape(array.shape[max(front, 0) :]), shape))


def _normalised(graph: Graph, node: Node) -> _Normalised | None:
    if node.op == "Div":
        centred, deviation = node.inputs
        inside: list[str] = []
    elif node.op == "Mul":
        reciprocal = next((value for value in node.inputs if source(graph, value, "Reciprocal") is not None), None)
        if reciprocal is None:
            return None
        centred = node.inputs[1 - node.inputs.index(reciprocal)]
        deviation, inside = graph.producers[reciprocal].inputs[0], [reciprocal]
    else:
        return None
    root = source(graph, deviation, "Sqrt")
    total = source(graph, root.inputs[0], "Add") if root is not None else None
    if root is None or total is None:
        return None
    for value, other in (total.inputs, total.inputs[::-1]):
        epsilon, variance = scalar_of(graph, other), source(graph, value, "ReduceMean")
        if epsilon is not None and epsilon > 0 and variance is not None:
            break
    else:
        return None
    square, difference = graph.producers.get(variance.inputs[0]), graph.producers.get(centred)
    if square is None or difference is None or difference.op != "Sub" or not _is_square(graph, square, centred):
        return None
    mean = graph.producers.get(difference.inputs[1])
    if mean is None or mean.op != "ReduceMean" or mean.inputs[0] != difference.inputs[0]:
        return None
    x = difference.inputs[0]
    axes, rank = mean.integers("axes"), graph.types[x].rank
    trailing = bool(axes) and axes == tuple(range(axes[0], rank)) == variance.integers("axes")
    if not trailing or not mean.integer("keepdims", 1) or not variance.integer("keepdims", 1):
        return None
    inside += [centred, mean.output, square.output, variance.output, total.output, root.output]
    if not private(graph, inside, node, inside):
        return None
    return _Normalised(x, axes[0], epsilon)


def _is_square(graph: Graph, node: Node, value: str) -> bool:
    if node.op == "Mul":
        return node.inputs == (value, value)
    return node.op == "Pow" and node.inputs[0] == value and scalar_of(graph, node.inputs[1]) == 2
