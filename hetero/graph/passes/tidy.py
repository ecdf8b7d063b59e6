"""Passes that leave nothing superfluous: constants worked out, nodes that do nothing, are dead or repeated gone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from hetero.graph.ir import Graph
from hetero.graph.node import Array, Node, frozen
from hetero.graph.ops import evaluate_node

# A constant may be worked out when it is not larger than what it is made of, or than this.
_FOLDED = 1 << 20
# Larger constants are not compared with each other.
_COMPARED = 1 << 12
# Each round can make work for the next, as with a Reshape of a constant; deeper chains are left.
_ROUNDS = 8


def simplify(graph: Graph) -> Graph:
    """All passes of this module until nothing changes."""
    for _ in range(_ROUNDS):
        before = graph
        graph = drop_dead(drop_repeated(join_moves(drop_idle(fold_constants(graph)))))
        if graph.nodes == before.nodes:
            break
    return graph


def drop_dead(graph: Graph) -> Graph:
    """Without the nodes that no output needs."""
    needed = set(graph.outputs)
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if not needed.isdisjoint(node.outputs):
            kept.append(node)
            needed.update(node.inputs)
    return graph if len(kept) == len(graph.nodes) else graph.with_nodes(reversed(kept))


def fold_constants(graph: Graph) -> Graph:
    """With every node's value worked out whose inputs are known, unless it is much larger than they are."""
    constants: dict[str, Array] = dict(graph.constants)
    kept: list[Node] = []
    for node in graph.nodes:
        arrays = [constants.get(value) for value in node.inputs]
        known = all(array is not None or not value for array, value in zip(arrays, node.inputs, strict=True))
        # Integers of quantised models are `fuse_quantised`'s: what it leaves stays small.
        known = known and node.op != "DequantizeLinear"
        size = sum(graph.types[value].nbytes for value in node.outputs)
        if known and size <= max(_FOLDED, sum(array.nbytes for array in arrays if array is not None)):
            results = evaluate_node(node, arrays)
            constants |= {
                value: frozen(np.array(array, order="C")) for value, array in zip(node.outputs, results, strict=True)
            }
        else:
            kept.append(node)
    return graph if len(kept) == len(graph.nodes) else graph.with_nodes(kept, constants)


def drop_idle(graph: Graph) -> Graph:
    """Without nodes whose output is their first input: identities, and moves that move nothing.

    Where such an output is the graph's, the node that gives the input takes over the name; an `Identity` is left only
    where an output of the graph is an input, a constant or another output.
    """
    stands_for: dict[str, str] = {}
    renamed: dict[str, str] = {}
    kept: list[Node] = []
    for node in graph.nodes:
        inputs = tuple(stands_for.get(value, value) for value in node.inputs)
        if not _idle(graph, node):
            kept.append(node if inputs == node.inputs else replace(node, inputs=inputs))
        elif node.output not in graph.outputs:
            stands_for[node.output] = inputs[0]
        elif inputs[0] in graph.producers and inputs[0] not in graph.outputs and inputs[0] not in renamed:
            renamed[inputs[0]] = node.output
        else:
            kept.append(Node("Identity", inputs[:1], node.outputs, {}, node.name))
    if len(kept) == len(graph.nodes) and all(a is b for a, b in zip(kept, graph.nodes, strict=True)):
        return graph
    return graph.with_nodes(_renamed(node, renamed) for node in kept)


def _renamed(node: Node, names: Mapping[str, str]) -> Node:
    if names.keys().isdisjoint((*node.inputs, *node.outputs)):
        return node
    inputs, outputs = (tuple(names.get(value, value) for value in values) for values in (node.inputs, node.outputs))
    return replace(node, inputs=inputs, outputs=outputs)


def _idle(graph: Graph, node: Node) -> bool:
    if node.op == "Identity":
        return True
    same = graph.types[node.inputs[0]] == graph.types[node.output] if node.inputs else False
    if node.op in ("Reshape", "Expand", "Tile", "Cast"):
        return same
    if node.op == "Slice":
        return same and all(step == 1 for step in node.integers("steps"))
    if node.op == "Transpose":
        return node.integers("perm") == tuple(range(len(node.integers("perm"))))
    if node.op == "Concat":
        return len(node.inputs) == 1
    return node.op == "Pad" and not any(node.integers("pads"))


def join_moves(graph: Graph) -> Graph:
    """With one `Reshape` for two in a row, and one `Transpose` for two in a row."""
    kept: list[Node] = []
    made: dict[str, Node] = {}
    for node in graph.nodes:
        first = made.get(node.inputs[0]) if node.op in ("Reshape", "Transpose") else None
        if first is not None and first.op == node.op == "Reshape":
            node = replace(node, inputs=first.inputs)
        elif first is not None and first.op == node.op == "Transpose":
            perm = tuple(first.integers("perm")[axis] for axis in node.integers("perm"))
            node = replace(node, inputs=first.inputs, attributes={"perm": perm})
        made[node.output] = node
        kept.append(node)
    if all(a is b for a, b in zip(kept, graph.nodes, strict=True)):
        return graph
    return drop_dead(graph.with_nodes(kept))


def drop_repeated(graph: Graph) -> Graph:
    """With one node for those that do the same to the same, and one constant for small ones that are equal."""
    stands_for: dict[str, str] = {}
    constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
    for value, array in graph.constants.items():
        if array.nbytes <= _COMPARED:
            first = constants.setdefault((str(array.dtype), array.shape, array.tobytes()), value)
            if first != value:
                stands_for[value] = first
    done: dict[tuple[str, tuple[str, ...], str], Node] = {}
    kept: list[Node] = []
    for node in graph.nodes:
        inputs = tuple(stands_for.get(value, value) for value in node.inputs)
        key = node.op, inputs, repr(sorted(node.attributes.items()))
        first_node = done.get(key)
        if first_node is not None and not any(value in graph.outputs for value in node.outputs):
            stands_for |= dict(zip(node.outputs, first_node.outputs, strict=True))
            continue
        done.setdefault(key, node)
        kept.append(node if inputs == node.inputs else replace(node, inputs=inputs))
    if len(kept) == len(graph.nodes) and all(a is b for a, b in zip(kept, graph.nodes, strict=True)):
        return graph
    return graph.with_nodes(kept)
