"""`Attention` out of two products with a softmax between them, and the split into heads taken into it.

Vaswani et al., "Attention Is All You Need", 2017, equation 1: softmax(scale * q @ k^T + mask) @ v.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from hetero.graph.ir import Graph, scalar_of
from hetero.graph.node import Array, Attribute, Node
from hetero.graph.passes.rewriting import Change, rewrite, scaled, source

# [batch, t, heads, d] <-> [batch, heads, t, d].
_SWAP = (0, 2, 1, 3)
# Half of the distance of float32's neighbours is 5e22 here: no score is as large.
_LOST = -1e30


def fuse_attention(graph: Graph) -> Graph:
    """With each attention as one node, where nothing else uses what is in between.

    The scale may stand behind the first product or before it, at the queries, the keys or both; masks are added
    behind it, or chosen by `Where` instead of the scores. Then, where queries, keys, values and result are split into
    heads by a `Reshape` and a `Transpose` each, these go too (see `ops.linear` for the attribute `heads`), also where
    batch and heads are put together for the products, and a scale before the split.
    """
    return rewrite(rewrite(rewrite(graph, _match_attention), _match_heads), _match_scaled)


@dataclass(frozen=True)
class _Scores:
    """scale * q @ k + mask, with k as [..., d, s].

    Attributes:
        q: The queries.
        k: The keys.
        scale: A number.
        mask: What is added; empty for nothing.
        nodes: That make the mask, where it is not in the graph.
        constants: That these need.
    """

    q: str
    k: str
    scale: float
    mask: str = ""
    nodes: tuple[Node, ...] = ()
    constants: Mapping[str, Array] = field(default_factory=dict)


def _match_attention(graph: Graph, node: Node) -> Change | None:
    if node.op != "MatMul" or graph.types[node.output].dtype.kind != "f":
        return None
    softmax = source(graph, node.inputs[0], "Softmax")
    if softmax is None or softmax.integer("axis", -1) not in (-1, graph.types[softmax.output].rank - 1):
        return None
    scores = _scores(graph, softmax.inputs[0], node.output)
    if scores is None or min(graph.types[value].rank for value in (scores.q, scores.k, node.inputs[1])) < 2:
        return None
    q, on_q = _unscaled(graph, scores.q)
    k, on_k = _unscaled(graph, scores.k)
    nodes = list(scores.nodes)
    attributes: dict[str, Attribute] = {}
    turn = source(graph, k, "Transpose")
    joined = _turned_as_one(graph, k)
    if joined is not None:
        k, more = _unscaled(graph, joined)
        on_k *= more
    elif turn is None:
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
    return Change((*nodes, Node("Attention", inputs, node.outputs, attributes, node.name)), scores.constants)


def _scores(graph: Graph, value: str, stem: str) -> _Scores | None:
    """What is between the first product and the softmax; new values are named after `stem`."""
    node = source(graph, value, "MatMul", "Add", "Mul", "Div", "Where")
    if node is None:
        return None
    found = _product(graph, node)
    if found is not None:
        return _Scores(found[0].inputs[0], found[0].inputs[1], found[1])
    kind = graph.types[value]
    if node.op == "Add":
        for inner, other in (node.inputs, node.inputs[::-1]):
            # A sum that is larger than the scores would repeat them.
            scores = _scores(graph, inner, stem) if graph.types[inner] == kind else None
            if scores is not None:
                return _masked(graph, scores, other, stem)
    return _chosen(graph, node, stem) if node.op == "Where" else None


def _chosen(graph: Graph, node: Node, stem: str) -> _Scores | None:
    """Scores of which some are replaced by a number so low that any score added to it is lost in rounding."""
    condition, *ways = node.inputs
    for place, inner in enumerate(ways):
        low = scalar_of(graph, ways[1 - place])
        kind = graph.types[inner]
        if low is None or low > _LOST or kind != graph.types[node.output] or kind.dtype != np.float32:
            continue
        scores = _scores(graph, inner, stem)
        if scores is None:
            continue
        low_name, zero = (graph.fresh(f"{node.output}/{name}") for name in ("low", "zero"))
        made = graph.fresh(f"{node.output}/mask")
        constants = {low_name: np.asarray(low, np.float32), zero: np.zeros((), np.float32)}
        inputs = (condition, zero, low_name) if place == 0 else (condition, low_name, zero)
        scores = replace(
            scores,
            nodes=(*scores.nodes, Node("Where", inputs, (made,), {}, node.name)),
            constants={**scores.constants, **constants},
        )
        return _masked(graph, scores, made, stem)
    return None


def _masked(graph: Graph, scores: _Scores, mask: str, stem: str) -> _Scores:
    """The scores with one more mask."""
    if not scores.mask:
        return replace(scores, mask=mask)
    both = graph.fresh(f"{stem}/masks{len(scores.nodes)}")
    return replace(scores, mask=both, nodes=(*scores.nodes, Node("Add", (scores.mask, mask), (both,), {}, stem)))


def _turned_as_one(graph: Graph, value: str) -> str | None:
    """The keys [batch, heads, s, d] that were turned with batch and heads as one, as torch's newer exporter does."""
    apart = source(graph, value, "Reshape")
    turn = source(graph, apart.inputs[0], "Transpose") if apart is not None else None
    flat = source(graph, turn.inputs[0], "Reshape") if turn is not None else None
    if turn is None or flat is None or turn.integers("perm") != (0, 2, 1):
        return None
    keys, found = graph.types[flat.inputs[0]].shape, graph.types[value].shape
    joined = graph.types[flat.output].shape[1:] == keys[2:]
    return flat.inputs[0] if joined and len(keys) == 4 and found == (*keys[:2], keys[3], keys[2]) else None


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
    if turn is None or turn.integers("perm") != _SWAP:
        return None
    batch, heads, length, width = graph.types[turn.inputs[0]].shape
    attention = _of_heads(graph, turn.inputs[0], batch, heads, "Attention")
    if attention is None or attention.integer("heads") or attention.integer("k_transposed"):
        return None
    together = [_together(graph, value, batch, heads) for value in attention.inputs[:3]]
    whole = [value for value in together if value is not None]
    mask = _mask_of_heads(graph, attention, batch, heads)
    if len(whole) < 3 or mask is None:
        return None
    attributes: dict[str, Attribute] = {"heads": heads, "scale": attention.number("scale", 1.0)}
    inputs = (*whole, mask) if mask else tuple(whole)
    if graph.types[node.output].shape == (batch, length, heads * width):
        return Change((Node("Attention", inputs, node.outputs, attributes, attention.name),))
    # Another Reshape was joined with the one that put the heads together.
    mixed = graph.fresh(f"{node.output}/mixed")
    return Change((Node("Attention", inputs, (mixed,), attributes, attention.name), replace(node, inputs=(mixed,))))


def _of_heads(graph: Graph, value: str, batch: int, heads: int, *ops: str) -> Node | None:
    """The node that gives [batch, heads, t, d], or [batch * heads, t, d] that a `Reshape` takes apart."""
    node = source(graph, value, "Reshape", *ops)
    if node is None or node.op != "Reshape":
        return node
    whole, apart = graph.types[node.inputs[0]].shape, graph.types[value].shape
    fits = apart[:2] == (batch, heads) and whole == (batch * heads, *apart[2:])
    return source(graph, node.inputs[0], *ops) if fits else None


def _mask_of_heads(graph: Graph, attention: Node, batch: int, heads: int) -> str | None:
    """The mask for [batch, heads, t, s]; empty where there is none, None where it is of another form."""
    mask = attention.input(3)
    if not mask or graph.types[attention.output].rank == 4:
        return mask
    shape = graph.types[mask].shape
    # Without dimensions for batch and heads it is one for all.
    return mask if len(shape) < 3 else None


def _together(graph: Graph, value: str, batch: int, heads: int) -> str | None:
    """The value [batch, t, heads * d] that [batch, heads, t, d] or [batch * heads, t, d] was made of, if it was."""
    node = graph.producers.get(value)
    if node is not None and node.op == "Reshape" and graph.types[value].rank == 3:
        apart = graph.types[node.inputs[0]].shape
        if apart[:2] != (batch, heads) or graph.types[value].shape != (batch * heads, *apart[2:]):
            return None
        node = graph.producers.get(node.inputs[0])
    if node is None or node.op != "Transpose" or node.integers("perm") != _SWAP:
        return None
    split = graph.producers.get(node.inputs[0])
    if split is None or split.op != "Reshape":
        return None
    size, length, found, width = graph.types[split.output].shape
    same = (size, found) == (batch, heads) and graph.types[split.inputs[0]].shape == (batch, length, heads * width)
    return split.inputs[0] if same else None


def _match_scaled(graph: Graph, node: Node) -> Change | None:
    """A number that the queries or keys were multiplied by before they were split."""
    if node.op != "Attention":
        return None
    (q, on_q), (k, on_k) = (_unscaled(graph, value) for value in node.inputs[:2])
    if (q, k) == node.inputs[:2]:
        return None
    attributes = {**node.attributes, "scale": node.number("scale", 1.0) * on_q * on_k}
    return Change((replace(node, inputs=(q, k, *node.inputs[2:]), attributes=attributes),))
