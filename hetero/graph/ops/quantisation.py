"""Ops of quantised models: numbers as small integers with a scale and a zero point, and products of such integers."""

from __future__ import annotations

import math

import numpy as np

from hetero.graph.node import Array, Node, ValueType
from hetero.graph.ops.convolution import Window
from hetero.graph.ops.table import Arrays, Types, as_type, axis_of, floats, given, register, wide

_INT32 = np.dtype(np.int32)


def _check_scale(node: Node, x: ValueType, scale: ValueType, zero: ValueType | None) -> None:
    """Of all of x, of each place along an axis, or of blocks along it."""
    if zero is not None and zero.shape != scale.shape and (zero.size, scale.size) != (1, 1):
        raise node.broken(f"zero point {zero} for the scale {scale}")
    if scale.size == 1 and scale.rank < 2:
        return
    axis, block = axis_of(node, node.integer("axis", 1), x.rank), node.integer("block")
    blocks = (*x.shape[:axis], -(-x.shape[axis] // block), *x.shape[axis + 1 :]) if block else ()
    expected = blocks if block else (x.shape[axis],)
    if scale.shape != expected:
        raise node.broken(f"scale {scale} for {x} along axis {axis}, expected {list(expected)}")


def _spread(node: Node, x: Array, number: Array) -> Array:
    """A scale or zero point in a shape that broadcasts to x."""
    if number.size == 1:
        return number.reshape(())
    axis, block = node.integer("axis", 1) % x.ndim, node.integer("block")
    if block:
        return np.repeat(number, block, axis)[tuple(slice(size) for size in x.shape)]
    return number.reshape(tuple(-1 if place == axis else 1 for place in range(x.ndim)))


def _infer_quantize(node: Node, types: Types) -> ValueType:
    x, scale = floats(node, types[0]), floats(node, types[1])
    zero = types[2] if len(types) > 2 else None
    dtype = np.dtype(node.text("to", "uint8"))
    if dtype.kind not in "iu" or (zero is not None and zero.dtype != dtype):
        raise node.broken(f"to {dtype} with the zero point {zero}, expected one integer type")
    _check_scale(node, x, scale, zero)
    return ValueType(dtype, x.shape)


def _quantized(node: Node, arrays: Arrays) -> Array:
    """As floats of whole numbers."""
    x, scale = wide(given(arrays[0])), wide(given(arrays[1]))
    zero = arrays[2] if len(arrays) > 2 else None
    limits = np.iinfo(node.text("to", "uint8"))
    whole = np.rint(x / _spread(node, x, scale))
    if zero is not None:
        whole = whole + _spread(node, x, zero)
    return np.clip(whole, limits.min, limits.max)


def _quantize(node: Node, arrays: Arrays) -> Array:
    return _quantized(node, arrays).astype(node.text("to", "uint8"))


#: Inputs x, scale, zero point (optional): round(x / scale) + zero point, saturated. Attributes: `to`, numpy's name of
#: the dtype; `axis`, along which scale and zero point are [size] unless they are one number; `block`: so many elements
#: along the axis have one scale, which has x's rank then (0: not).
register("QuantizeLinear", (2, 3), _infer_quantize, _quantize, flops=4)


def _infer_dequantize(node: Node, types: Types) -> ValueType:
    x, scale = given(types[0]), floats(node, types[1])
    zero = types[2] if len(types) > 2 else None
    if x.dtype.kind not in "iu" or (zero is not None and zero.dtype != x.dtype):
        raise node.broken(f"{x} with the zero point {zero}, expected one integer type")
    _check_scale(node, x, scale, zero)
    return ValueType(scale.dtype, x.shape)


def _dequantize(node: Node, arrays: Arrays) -> Array:
    x, scale = given(arrays[0]), given(arrays[1])
    zero = arrays[2] if len(arrays) > 2 else None
    shifted = x if zero is None else x.astype(np.int32) - _spread(node, x, zero.astype(np.int32))
    return as_type(shifted.astype(np.float32) * _spread(node, x, wide(scale)), scale.dtype)


#: Inputs x (integers), scale, zero point (optional): (x - zero point) * scale. Attributes as above, without `to`.
register("DequantizeLinear", (2, 3), _infer_dequantize, _dequantize, flops=2)


def _infer_fake(node: Node, types: Types) -> ValueType:
    _infer_quantize(node, types)
    return ValueType(given(types[1]).dtype, given(types[0]).shape)


def _fake(node: Node, arrays: Arrays) -> Array:
    scale = given(arrays[1])
    zero = arrays[2] if len(arrays) > 2 else None
    whole = _quantized(node, arrays)
    shifted = whole if zero is None else whole - _spread(node, whole, zero)
    return as_type(shifted.astype(np.float32) * _spread(node, whole, wide(scale)), scale.dtype)


#: `QuantizeLinear` and `DequantizeLinear` with the same scale and zero point: what passes through integers, as floats.
register("FakeQuantize", (2, 3), _infer_fake, _fake, flops=6)


def _less_zero(x: Array, zero: Array | None, axis: int) -> Array:
    """X as int32 without its zero point, which is one number or one for each place along an axis."""
    if zero is None:
        return x.astype(np.int32)
    spread = zero.reshape(()) if zero.size == 1 else zero
    if zero.size > 1 and zero.ndim == 1:
        spread = zero.reshape(tuple(-1 if place == axis % x.ndim else 1 for place in range(x.ndim)))
    return np.asarray(x.astype(np.int32) - spread.astype(np.int32))


def _integers(node: Node, types: Types) -> tuple[ValueType, ValueType]:
    a, b = given(types[0]), given(types[1])
    if any(value.dtype.name not in ("int8", "uint8") for value in (a, b)):
        raise node.broken(f"{a} and {b}, expected int8 or uint8")
    return a, b


def _infer_matmul(node: Node, types: Types) -> ValueType:
    a, b = _integers(node, types)
    if a.rank < 2 or b.rank < 2 or a.shape[-1] != b.shape[-2]:
        raise node.broken(f"{a} and {b} cannot be multiplied")
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    return ValueType(_INT32, (*batch, a.shape[-2], b.shape[-1]))


def _matmul(node: Node, arrays: Arrays) -> Array:
    zeros = (*arrays[2:], None, None)
    a = _less_zero(given(arrays[0]), zeros[0], -2)
    b = _less_zero(given(arrays[1]), zeros[1], -1)
    return np.asarray(np.matmul(a, b))


#: Inputs a [..., m, k], b [..., k, n] of int8 or uint8, and their zero points (optional), which are taken away from a
#: (one number, or [m]) and b (one number, or [n]); the product is int32.
register(
    "MatMulInteger",
    (2, 4),
    _infer_matmul,
    _matmul,
    flops=lambda node, types, output: 2 * output.size * given(types[0]).shape[-1],
)


def _infer_conv(node: Node, types: Types) -> ValueType:
    x, weight = _integers(node, types)
    group = node.integer("group", 1)
    if x.rank < 3 or weight.rank != x.rank or x.shape[1] != weight.shape[1] * group or weight.shape[0] % group:
        raise node.broken(f"weight {weight} in {group} groups for the channels of {x}")
    places = Window.of(node, weight.shape[2:]).places(node, x.shape[2:])
    return ValueType(_INT32, (x.shape[0], weight.shape[0], *places))


def _conv(node: Node, arrays: Arrays) -> Array:
    zeros = (*arrays[2:], None, None)
    x = _less_zero(given(arrays[0]), zeros[0], 1)
    weight = _less_zero(given(arrays[1]), zeros[1], 0)
    group, kernel = node.integer("group", 1), weight.shape[2:]
    seen = Window.of(node, kernel).view(node, x, 0)
    rank = len(kernel)
    places = seen.shape[2 : 2 + rank]
    order = (0, 1, *range(2 + rank, 2 + 2 * rank), *range(2, 2 + rank))
    columns = seen.transpose(order).reshape(x.shape[0], group, -1, math.prod(places))
    rows = weight.reshape(group, weight.shape[0] // group, -1)
    return np.asarray(np.matmul(rows, columns)).reshape(x.shape[0], weight.shape[0], *places)


#: Inputs x, weight of int8 or uint8, and their zero points (optional): one number, and one number or [m]. Attributes as
#: of `Conv`; the result is int32.
register(
    "ConvInteger",
    (2, 4),
    _infer_conv,
    _conv,
    flops=lambda node, types, output: 2 * output.size * math.prod(given(types[1]).shape[1:]),
)
