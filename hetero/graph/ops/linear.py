"""Matrix products, and the fused ops that are made of them."""

from __future__ import annotations

import numpy as np

from hetero.graph.node import Array, Node, ValueType
from hetero.graph.ops.elementwise import activate
from hetero.graph.ops.normalisation import softmax
from hetero.graph.ops.table import Arrays, Types, as_type, broadcast, floats, given, register, wide


def _infer_matmul(node: Node, types: Types) -> ValueType:
    a, b = given(types[0]), given(types[1])
    if a.dtype != b.dtype or not a.rank or not b.rank:
        raise node.broken(f"{a} and {b} cannot be multiplied")
    rows = a.shape if a.rank > 1 else (1, *a.shape)
    columns = b.shape if b.rank > 1 else (*b.shape, 1)
    if rows[-1] != columns[-2]:
        raise node.broken(f"{a} and {b} cannot be multiplied: {rows[-1]} columns, {columns[-2]} rows")
    shape = broadcast(node, rows[:-2], columns[:-2])
    shape += (rows[-2],) * (a.rank > 1) + (columns[-1],) * (b.rank > 1)
    return ValueType(a.dtype, shape)


def _matmul(node: Node, arrays: Arrays) -> Array:
    a, b = given(arrays[0]), given(arrays[1])
    return as_type(np.asarray(np.matmul(wide(a), wide(b))), a.dtype)


def _flops_of_product(node: Node, types: Types, output: ValueType) -> int:
    return 2 * output.size * given(types[0]).shape[-1]


register("MatMul", 2, _infer_matmul, _matmul, flops=_flops_of_product)


def _infer_linear(node: Node, types: Types) -> ValueType:
    x, weight = floats(node, types[0]), given(types[1])
    scale = types[4] if len(types) > 4 else None
    dtype = np.dtype(np.int8) if scale is not None else x.dtype
    if x.rank < 1 or weight.rank != 2 or weight.dtype != dtype or x.shape[-1] != weight.shape[0]:
        raise node.broken(f"input {x} and weight {weight} cannot be multiplied")
    if scale is not None and scale != ValueType(x.dtype, weight.shape[1:]):
        raise node.broken(f"scale {scale} for weight {weight}")
    result = ValueType(x.dtype, (*x.shape[:-1], weight.shape[1]))
    bias, residual = (*types[2:], None, None)[:2]
    if bias is not None and bias != ValueType(x.dtype, weight.shape[1:]):
        raise node.broken(f"bias {bias} for weight {weight}")
    if residual is not None and residual != result:
        raise node.broken(f"residual {residual}, expected {result}")
    return result


def _linear(node: Node, arrays: Arrays) -> Array:
    x, weight = given(arrays[0]), given(arrays[1])
    bias, residual, scale = (*arrays[2:], None, None, None)[:3]
    if scale is not None:
        weight = weight * wide(scale)
    # One product of matrices where matmul would make one for each row of the batch.
    result = np.matmul(wide(x).reshape(-1, x.shape[-1]), wide(weight))
    if bias is not None:
        result += wide(bias)
    result = activate(node, result).reshape(*x.shape[:-1], weight.shape[1])
    return as_type(result if residual is None else result + wide(residual), x.dtype)


def _flops_of_linear(node: Node, types: Types, output: ValueType) -> int:
    extra = sum(value is not None for value in types[2:]) + bool(node.text("activation"))
    return _flops_of_product(node, types, output) + extra * output.size


#: x @ weight + bias, then the activation, then + residual: inputs x [..., k], weight [k, n], bias [n] (optional),
#: residual [..., n] (optional), scale [n] (optional): with it the weight is int8, and each column is so many times as
#: large. Attributes: `activation` (see `elementwise.activate`).
register("Linear", (2, 5), _infer_linear, _linear, flops=_flops_of_linear)


def _split(value: ValueType, heads: int) -> ValueType:
    """[..., t, heads*d] as [..., heads, t, d]."""
    *batch, length, width = value.shape
    return ValueType(value.dtype, (*batch, heads, length, width // heads))


def _apart(node: Node, types: Types) -> tuple[ValueType, ValueType, ValueType]:
    """q, k and v with heads as a dimension of their own and k as [..., s, d]; checked."""
    q, k, v = floats(node, types[0]), given(types[1]), given(types[2])
    heads = node.integer("heads")
    fits = q.dtype == k.dtype == v.dtype and min(q.rank, k.rank, v.rank) >= 2
    if heads:
        fits = fits and not any(value.shape[-1] % heads for value in (q, k, v))
        fits = fits and not node.integer("k_transposed")
    if not fits:
        raise node.broken(f"queries {q}, keys {k} and values {v} do not fit each other")
    if heads:
        q, k, v = _split(q, heads), _split(k, heads), _split(v, heads)
    elif node.integer("k_transposed"):
        k = ValueType(k.dtype, (*k.shape[:-2], k.shape[-1], k.shape[-2]))
    if q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2]:
        raise node.broken(f"queries {q}, keys {k} and values {v} do not fit each other")
    return q, k, v


def _infer_attention(node: Node, types: Types) -> ValueType:
    q, k, v = _apart(node, types)
    batch = broadcast(node, q.shape[:-2], k.shape[:-2], v.shape[:-2])
    length, width = q.shape[-2], v.shape[-1]
    mask = types[3] if len(types) > 3 else None
    scores = (*batch, length, k.shape[-2])
    if mask is not None and (mask.dtype != q.dtype or broadcast(node, scores, mask.shape) != scores):
        raise node.broken(f"mask {mask} for scores {list(scores)}")
    if node.integer("heads"):
        return ValueType(q.dtype, (*batch[:-1], length, batch[-1] * width))
    return ValueType(q.dtype, (*batch, length, width))


def _attention(node: Node, arrays: Arrays) -> Array:
    q, k, v = (wide(given(array)) for array in arrays[:3])
    dtype = given(arrays[0]).dtype
    heads = node.integer("heads")
    if heads:
        q, k, v = (
            np.moveaxis(array.reshape(*array.shape[:-1], heads, array.shape[-1] // heads), -2, -3)
            for array in (q, k, v)
        )
    scores = np.matmul(q, k if node.integer("k_transposed") else np.swapaxes(k, -1, -2))
    scores *= scores.dtype.type(node.number("scale", 1.0))
    mask = arrays[3] if len(arrays) > 3 else None
    if mask is not None:
        scores = scores + wide(mask)
    result = np.matmul(softmax(scores, -1), v)
    if heads:
        together = np.moveaxis(result, -3, -2)
        result = together.reshape(*together.shape[:-2], -1)
    return as_type(result, dtype)


def _flops_of_attention(node: Node, types: Types, output: ValueType) -> int:
    q, k, v = _apart(node, types)
    batch = broadcast(node, q.shape[:-2], k.shape[:-2], v.shape[:-2])
    scores = int(np.prod(batch, dtype=np.int64)) * q.shape[-2] * k.shape[-2]
    masked = len(types) > 3 and types[3] is not None
    return scores * (2 * q.shape[-1] + 2 * v.shape[-1] + 6 + masked)


#: softmax(scale * q @ k^T + mask) @ v. Inputs q, k, v, mask (optional, added to the scores, broadcast to them).
#: Attributes: `scale` (1); `heads` (0: q [..., t, d], k [..., s, d], v [..., s, e] -> [..., t, e], heads being one of
#: the leading dimensions; h: q [..., t, h*d], k [..., s, h*d], v [..., s, h*e] -> [..., t, h*e], scores
#: [..., h, t, s]); `k_transposed` (1: k is [..., d, s]; with `heads` 0 only).
register("Attention", (3, 4), _infer_attention, _attention, flops=_flops_of_attention)
