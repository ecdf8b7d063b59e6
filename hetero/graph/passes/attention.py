"""`Attention` out of two products with a softmax between them, and the split into heads taken into it.

Vaswani et al., "Attention Is All You Need", 2017, equation 1: softmax(scale * q @ k^T + mask) @ v.
"""

from __future__ import annotations

from dataclasses import dataclass

from hetero.graph.ir import Graph
from hetero.graph.node import Attribute, Node
from hetero.graph.passes.rewriting import Change, rewrite, scaled, source

# [batch, t, heads, d] <-> [batch, heads, t, d].
_SWAP = (0, 2, 1, 3)


def fuse_attention(graph: Graph) -> Graph:
    """With each attention as one node, where nothing else uses what is in between.

    The scale may stand behind the first product or before it, at the queries, the keys or both; the mask is added
    behind it. Then, where queries, keys, values and result are split into heads by a `Reshape` and a `Transpose` each,
    these go too (see `ops.linear` for the attribute `heads`).
    """
    return rewrite(rewrite(graph, _match_attention), _match_heads)


@dataclass(frozen=True)
class _Scores:
    """scale * q @ k + mask, with k as [..., d, s]."""

    q: str
    k: str
    scale: float
    mask: str


def _match_attention(graph: Graph, node: Node) -> Change | None:
    if node.op != "MatMul" or graph.types[node.output].dtype.kind != "f":
        return None
    softmax = source(graph, node.inputs[0], "Softmax")
    if softmax is None or softmax.integer("axis", -1) not in (-1, graph.types[softmax.output].rank - 1):
        return None
    scores = _scores(graph, softmax.inputs[0])
    if scores is None or min(graph.types[value].rank for value in (scores.q, scores.k, node.inputs[1])) < 2:
        return None
    q, on_q = _unscaled(graph, scores.q)
    k, on_k = _unscaled(graph, scores.k)
    nodes: list[Node] = []
    attributes: dict[str, Attribute] = {}
    turn = source(graph, k, "Transpose")
    if turn is None:
        attributes["k_transposed"] = 1
    else:
        inner, more = _unscaled(graph, turn.inputs[0])
        on_k *= more
        perm = (*turn.integers("perm")[:-2], turn.integers("perm")[-1], turn.integers("perm")[-2])
        k = inner
        if perm != tuple(range(len(perm))):
            k = graph.fresh(f"{node.output}/keys")
            nodes.append(Node("Transpose", (inner,), (k,), {"perm": perm}, turn.name))
    attributes["scale"] = scores.scale * on_q * on_k
    inputs = (q, k, node.inputs[1], scores.mask) if scores.mask else (q, k, node.inputs[1])
    return Change((*nodes, Node("Attention", inputs, node.outputs, attributes, node.name)))


def _scores(graph: Graph, value: str) -> _Scores | None:
    """What is between the first product and the softmax."""
    node = source(graph, value, "MatMul", "Add", "Mul", "Div")
    mask = ""
    if node is not None and node.op == "Add":
        kind = graph.types[node.output]
        for scores, other in (node.inputs, node.inputs[::-1]):
            inner = source(graph, scores, "MatMul", "Mul", "Div")
            # A sum that is larger than the scores would repeat them.
            if inner is not None and graph.types[scores] == kind and _product(graph, inner) is not None:
                node, mask = inner, other
                break
    found = _product(graph, node) if node is not None else None
    return _Scores(found[0].inputs[0], found[0].inputs[1], found[1], mask) if found is not None else None


def _product(graph: Graph, node: Node) -> tuple[Node, float] | None:
    """A `MatMul`, or one times a number: the node and the number."""
    if node.op == "MatMul":
        return node, 1.0
    parts = scaled(graph, node)
    inner = source(graph, parts[0], "MatMul") if parts is not None else None
    return (inner, parts[1]) if inner is not None and parts is not None else None


def _unscaled(graph: Graph, value: str) -> tuple[str, float]:
    """A value without the number that it is multiplied by, and the number."""
    node = source(graph, value, "Mul", "Div")
    parts = scaled(graph, node) if node is not None else None
    return parts if parts is not None else (value, 1.0)


def _match_heads(graph: Graph, node: Node) -> Change | None:
    if node.op != "Reshape":
        return None
    turn = source(graph, node.inputs[0], "Transpose")
    attention = source(graph, turn.inputs[0], "Attention") if turn is not None else None
    if turn is None or attention is None or turn.integers("perm") != _SWAP:
        return None
    if attention.integer("heads") or attention.integer("k_transposed"):
        return None
    batch, heads, length, width = graph.types[attention.output].shape
    if graph.types[node.output].shape != (batch, length, heads * width):
        return None
    together = [_together(graph, value, heads) for value in attention.inputs[:3]]
    whole = [value for value in together if value is not None]
    if len(whole) < 3:
        return None
    attributes: dict[str, Attribute] = {"heads": heads, "scale": attention.number("scale", 1.0)}
    inputs = (*whole, *attention.inputs[3:])
    return Change((Node("Attention", inputs, node.outputs, attributes, attention.name),))


def _together(graph: Graph, value: str, heads: int) -> str | None:
    """The value [batch, t, heads * d] that [batch, heads, t, d] was made of, if it was."""
    turn = graph.producers.get(value)
    if turn is None or turn.op != "Transpose" or turn.integers("perm") != _SWAP:
        return None
    apart = graph.producers.get(turn.inputs[0])
    if apart is None or apart.op != "Reshape":
        return None
    batch, length, found, width = graph.types[apart.output].shape
    same = found == heads and graph.types[apart.inputs[0]].shape == (batch, length, heads * width)
    return apart.inputs[0] if same else None
