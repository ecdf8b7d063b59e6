"""Quantised models as products of floats: integers that are in between become fakes, known ones become floats again."""

from __future__ import annotations

import numpy as np

from hetero.graph.ir import Graph
from hetero.graph.node import Array, Node
from hetero.graph.ops import evaluate_node
from hetero.graph.passes.rewriting import Change, rewrite, source
from hetero.graph.passes.tidy import drop_dead, drop_repeated


def fuse_quantised(graph: Graph, *, int8: bool = False) -> Graph:
    """With `FakeQuantize` and products of floats for what quantised models are made of, and known values as floats.

    `QuantizeLinear` and `DequantizeLinear` behind it are `FakeQuantize`; `MatMulInteger` and `ConvInteger` that are
    cast to floats and scaled are `MatMul` and `Conv`. What they give differs by rounding alone.

    Args:
        graph: What to change.
        int8: Leave known matrices of products in int8, as `DequantizeLinear` of `[k, n]`, for `take_int8`.
    """
    if not any(node.op in _QUANTISED for node in graph.nodes):
        return graph
    # Scales and zero points that are equal have to have one name.
    graph = drop_repeated(graph)
    graph = rewrite(rewrite(graph, _match_scaled), _match_cast)
    return _settled(rewrite(graph, _match_fake), int8)


_QUANTISED = ("ConvInteger", "DequantizeLinear", "MatMulInteger", "QuantizeLinear")
_FLOAT = {"ConvInteger": "Conv", "MatMulInteger": "MatMul"}


def _match_scaled(graph: Graph, node: Node) -> Change | None:
    """A product times the scale of the integers on its left and a known one: each goes to its own side."""
    if node.op != "Mul":
        return None
    for value, scales in (node.inputs, node.inputs[::-1]):
        cast = source(graph, value, "Cast")
        product = source(graph, cast.inputs[0], *_FLOAT) if cast else None
        both = graph.producers.get(scales)
        if cast is None or product is None or both is None or both.op != "Mul":
            continue
        left = graph.producers.get(product.inputs[0])
        if left is None or left.op != "QuantizeLinear" or left.input(2) != product.input(2):
            continue
        own = left.inputs[1]
        other = next((name for name in both.inputs if name != own), "")
        known = graph.constants.get(other)
        if own not in both.inputs or known is None or graph.types[own].size != 1:
            continue
        scale = _per_output(graph, product, known)
        if scale is not None:
            return _floating(graph, product, node, own, scale)
    return None


def _per_output(graph: Graph, product: Node, scale: Array) -> Array | None:
    """A known scale as one number, or one for each column or channel of a product; None where it is another."""
    if scale.size == 1:
        return scale.reshape(())
    kind = graph.types[product.output]
    axis = kind.rank - 1 if product.op == "MatMulInteger" else 1
    if scale.ndim > kind.rank:
        return None
    whole = (1,) * (kind.rank - scale.ndim) + scale.shape
    return scale.reshape(-1) if whole[axis] == scale.size == kind.shape[axis] else None


def _match_cast(graph: Graph, node: Node) -> Change | None:
    """Wherever the scales come from: the product of floats is made before them."""
    if node.op != "Cast" or graph.types[node.output].dtype != np.float32:
        return None
    product = source(graph, node.inputs[0], *_FLOAT)
    if product is None:
        return None
    own = graph.fresh(f"{node.output}/one")
    change = _floating(graph, product, node, own, np.ones((), np.float32))
    return Change(change.nodes, {**change.constants, own: np.ones((), np.float32)}) if change else None


def _floating(graph: Graph, product: Node, last: Node, left: str, right: Array) -> Change | None:
    """The product of what both sides stand for, in the place of `last`; `left` and `right` are their scales."""
    stem = last.output
    a, b, right_name = (graph.fresh(f"{stem}/{name}") for name in ("left", "right", "right_scale"))
    right_zero, constants = product.input(3), {right_name: right.astype(np.float32)}
    if right_zero and graph.types[right_zero].size != right.size:
        zero = graph.constants.get(right_zero)
        if zero is None or (zero.size > 1 and right.size > 1):
            return None
        if zero.size == 1:
            right_zero = graph.fresh(f"{stem}/right_zero")
            constants[right_zero] = np.full(right.shape, zero.reshape(-1)[0])
        else:
            constants[right_name] = np.full(zero.shape, right.reshape(-1)[0], np.float32)
    left_zero = product.input(2)
    if left_zero and graph.types[left_zero].size != 1:
        return None
    columns = graph.types[product.inputs[1]].rank - 1 if product.op == "MatMulInteger" else 0
    nodes = (
        Node("DequantizeLinear", _given(product.inputs[0], left, left_zero), (a,), {}, last.name),
        Node("DequantizeLinear", _given(product.inputs[1], right_name, right_zero), (b,), {"axis": columns}, last.name),
        Node(_FLOAT[product.op], (a, b), last.outputs, product.attributes, last.name),
    )
    return Change(nodes, constants)


def _given(*names: str) -> tuple[str, ...]:
    return names if names[-1] else names[:-1]


def _match_fake(graph: Graph, node: Node) -> Change | None:
    if node.op != "DequantizeLinear":
        return None
    first = graph.producers.get(node.inputs[0])
    same = first is not None and first.op == "QuantizeLinear" and first.inputs[1:] == node.inputs[1:]
    if first is None or not same or _where(first) != _where(node):
        return None
    return Change((Node("FakeQuantize", first.inputs, node.outputs, first.attributes, node.name),))


def _where(node: Node) -> tuple[int, int]:
    return node.integer("axis", 1), node.integer("block")


def _settled(graph: Graph, int8: bool) -> Graph:
    """With known integers as floats; those that are the right side of products stay, if so wished."""
    constants: dict[str, Array] = {}
    floats: dict[str, Node] = {}
    kept: list[Node] = []
    for node in graph.nodes:
        if node.op == "DequantizeLinear" and all(value in graph.constants for value in node.inputs):
            floats[node.output] = node
            continue
        if int8 and node.op == "MatMul":
            matrix = _matrix(graph, node.inputs[1])
            if matrix is not None:
                names = [graph.fresh(f"{node.output}/{name}") for name in ("int8", "scales", "matrix")]
                constants |= dict(zip(names, matrix, strict=False))
                kept.append(Node("DequantizeLinear", (names[0], names[1]), (names[2],), {"axis": 1}, node.name))
                node = Node("MatMul", (node.inputs[0], names[2]), node.outputs, {}, node.name)
        kept.append(node)
    needed = {value for node in kept for value in node.inputs} | set(graph.outputs)
    for value, node in floats.items():
        if value in needed:
            (constants[value],) = evaluate_node(node, [graph.constants[name] for name in node.inputs])
    # Only now: a value that a node gives is no constant before the node is gone.
    return drop_dead(graph.with_nodes(kept, constants)) if floats else graph


def _matrix(graph: Graph, value: str) -> tuple[Array, Array] | None:
    """A known matrix `[k, n]` as int8 without a zero point, and its columns' scales; None where it cannot be."""
    turned = False
    node = graph.producers.get(value)
    if node is not None and node.op == "Transpose" and node.integers("perm") == (1, 0):
        node, turned = graph.producers.get(node.inputs[0]), True
    if node is None or node.op != "DequantizeLinear" or node.integer("block"):
        return None
    arrays = [graph.constants.get(name) for name in node.inputs]
    whole, scale = arrays[0], arrays[1]
    if whole is None or scale is None or whole.ndim != 2 or whole.dtype.name not in ("int8", "uint8"):
        return None
    columns = 0 if turned else 1
    if scale.size > 1 and node.integer("axis", 1) % 2 != columns:
        return None
    shifted = whole.astype(np.int32)
    if len(arrays) > 2:
        zero = arrays[2]
        if zero is None:
            return None
        shifted = shifted - (zero.reshape(()) if zero.size == 1 else np.expand_dims(zero, 1 - columns)).astype(np.int32)
    if shifted.size and not -128 <= shifted.min() <= shifted.max() <= 127:
        return None
    matrix = shifted.astype(np.int8)
    scales = np.full(matrix.shape[columns], scale.reshape(-1)[0]) if scale.size == 1 else scale
    return np.ascontiguousarray(matrix.T if turned else matrix), scales


def take_int8(graph: Graph) -> Graph:
    """With int8 matrices and their scales as inputs of the `Linear`s that take them."""
    return rewrite(graph, _match_int8)


def _match_int8(graph: Graph, node: Node) -> Change | None:
    if node.op != "Linear":
        return None
    first = graph.producers.get(node.inputs[1])
    if first is None or first.op != "DequantizeLinear":
        return None
    inputs = (node.inputs[0], first.inputs[0], node.input(2), node.input(3), first.inputs[1])
    return Change((Node("Linear", inputs, node.outputs, node.attributes, node.name),))
