"""`Linear` out of a product with a known matrix, and what can go into it and into `Conv`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from hetero.graph.ir import Graph
from hetero.graph.node import Array, Node, frozen
from hetero.graph.ops.elementwise import ACTIVATIONS
from hetero.graph.passes.rewriting import Change, as_row, rewrite, source
from hetero.graph.passes.tidy import drop_dead


def fuse_linear(graph: Graph) -> Graph:
    """With `Linear` for each `MatMul` by a known matrix, and a known bias behind it or a `Conv` taken into it."""
    return rewrite(rewrite(graph, _match_product), _match_bias)


def _match_product(graph: Graph, node: Node) -> Change | None:
    if node.op != "MatMul":
        return None
    given = graph.producers.get(node.inputs[1])
    quantised = given is not None and given.op == "DequantizeLinear" and given.inputs[0] in graph.constants
    if node.inputs[1] not in graph.constants and not quantised:
        return None
    x, weight = (graph.types[value] for value in node.inputs)
    if x.rank < 1 or weight.rank != 2 or x.dtype.kind != "f":
        return None
    return Change((Node("Linear", node.inputs, node.outputs, {}, node.name),))


def _match_bias(graph: Graph, node: Node) -> Change | None:
    if node.op != "Add":
        return None
    for value, other in (node.inputs, node.inputs[::-1]):
        inner = source(graph, value, "Linear", "Conv")
        if inner is None or inner.input(2) or inner.attributes.get("activation") or inner.input(3):
            continue
        kind = graph.types[value]
        if graph.types[node.output] != kind:
            continue
        bias = (
            as_row(graph, other, kind.shape[-1], kind.rank)
            if inner.op == "Linear"
            else _per_channel(graph, other, value)
        )
        if bias is not None:
            fits = graph.types[other].shape == bias.shape
            name = other if fits else graph.fresh(f"{node.output}/bias")
            made = replace(inner, inputs=(*inner.inputs[:2], name), outputs=node.outputs)
            return Change((made,), {} if fits else {name: bias})
    return None


def _per_channel(graph: Graph, value: str, result: str) -> Array | None:
    """A known value that is added to the channels of a convolution's result, as one row; None where it is another."""
    array = graph.constants.get(value)
    kind = graph.types[result]
    if array is None or array.ndim > kind.rank:
        return None
    shape = (1,) * (kind.rank - array.ndim) + array.shape
    if any(size != 1 for axis, size in enumerate(shape) if axis != 1):
        return None
    return np.array(np.broadcast_to(array.reshape(-1), kind.shape[1:2]))


def fuse_activations(graph: Graph, activations: Collection[str] = tuple(ACTIVATIONS)) -> Graph:
    """With these activations as the attribute `activation` of the `Linear` or `Conv` before them.

    Only where nothing else uses what is in between. Not part of `fuse` unless asked for: it suits devices whose
    kernels do both at once.
    """

    def match(graph: Graph, node: Node) -> Change | None:
        if node.op not in activations:
            return None
        inner = source(graph, node.inputs[0], "Linear", "Conv")
        if inner is None or inner.attributes.get("activation") or (inner.op == "Linear" and inner.input(3)):
            return None
        attributes = {**inner.attributes, "activation": node.op, **node.attributes}
        return Change((replace(inner, outputs=node.outputs, attributes=attributes),))

    return rewrite(graph, match)


def fuse_residuals(graph: Graph) -> Graph:
    """With a sum of a `Linear` and another value as the `Linear`'s residual.

    Only where nothing else uses the `Linear`'s result, and the other value has its shape and is not known. Not part of
    `fuse` unless asked for.
    """
    return rewrite(graph, _match_residual)


def _match_residual(graph: Graph, node: Node) -> Change | None:
    if node.op != "Add":
        return None
    for value, other in (node.inputs, node.inputs[::-1]):
        inner = source(graph, value, "Linear")
        fits = graph.types[value] == graph.types[other] == graph.types[node.output]
        if inner is None or inner.input(3) or not fits or other in graph.constants:
            continue
        inputs = (*inner.inputs[:2], inner.input(2), other)
        return Change((replace(inner, inputs=inputs, outputs=node.outputs),))
    return None


def merge_linears(graph: Graph, least: int = 2) -> Graph:
    """With one `Linear` and `Slice`s of it for several of one input, as for queries, keys and values.

    Only those without activation and residual whose weights are known. A bias that some lack is zero there. Not part of
    `fuse` unless asked for.

    Args:
        graph: What to change.
        least: How many there must be.
    """
    groups: dict[str, list[Node]] = {}
    for node in graph.nodes:
        known = all(value in graph.constants for value in node.inputs[1:] if value)
        if node.op == "Linear" and known and not node.attributes.get("activation") and not node.input(3):
            groups.setdefault(node.inputs[0], []).append(node)
    chosen = {group[0].output: group for group in groups.values() if len(group) >= least}
    if not chosen:
        return graph
    gone = {node.output for group in chosen.values() for node in group}
    nodes: list[Node] = []
    constants: dict[str, Array] = {}
    for node in graph.nodes:
        if node.output in chosen:
            nodes += _merged(graph, chosen[node.output], constants)
        elif node.output not in gone:
            nodes.append(node)
    return drop_dead(graph.with_nodes(nodes, constants))


def _merged(graph: Graph, group: Sequence[Node], constants: dict[str, Array]) -> list[Node]:
    stem = group[0].output
    weights = [graph.constants[node.inputs[1]] for node in group]
    widths = [weight.shape[1] for weight in weights]
    inputs = [group[0].inputs[0], graph.fresh(f"{stem}/merged_weight")]
    constants[inputs[1]] = frozen(np.concatenate(weights, axis=1))
    if any(node.input(2) for node in group):
        biases = [
            graph.constants[node.inputs[2]] if node.input(2) else np.zeros(width, dtype=weights[0].dtype)
            for node, width in zip(group, widths, strict=True)
        ]
        inputs.append(graph.fresh(f"{stem}/merged_bias"))
        constants[inputs[2]] = np.concatenate(biases)
    whole = graph.fresh(f"{stem}/merged")
    nodes = [Node("Linear", tuple(inputs), (whole,), {}, group[0].name)]
    shape = graph.types[stem].shape
    for place, node in enumerate(group):
        starts = (0,) * (len(shape) - 1) + (sum(widths[:place]),)
        attributes = {"starts": starts, "sizes": (*shape[:-1], widths[place]), "steps": (1,) * len(shape)}
        nodes.append(Node("Slice", (whole,), node.outputs, attributes, node.name))
    return nodes
