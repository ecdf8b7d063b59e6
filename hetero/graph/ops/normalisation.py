"""Softmax and normalisations."""

from __future__ import annotations

import numpy as np

from hetero.graph.node import Array, Node, ValueType
from hetero.graph.ops.table import Arrays, Types, as_type, axis_of, broadcast, floats, given, register, wide


def softmax(x: Array, axis: int) -> Array:
    """exp(x) / sum of exp(x), the largest taken away first. A row of nothing but -inf is not a number, as in ONNX."""
    shifted = np.exp(x - np.max(x, axis=axis, keepdims=True, initial=-np.inf))
    shifted /= np.sum(shifted, axis=axis, keepdims=True)
    return np.asarray(shifted)


def _infer_softmax(node: Node, types: Types) -> ValueType:
    x = floats(node, types[0])
    axis_of(node, node.integer("axis", -1), x.rank)
    return x


def _softmax(node: Node, arrays: Arrays) -> Array:
    x = given(arrays[0])
    return as_type(softmax(wide(x), node.integer("axis", -1)), x.dtype)


def _log_softmax(node: Node, arrays: Arrays) -> Array:
    x, axis = given(arrays[0]), node.integer("axis", -1)
    shifted = wide(x) - np.max(wide(x), axis=axis, keepdims=True, initial=-np.inf)
    return as_type(shifted - np.log(np.sum(np.exp(shifted), axis=axis, keepdims=True)), x.dtype)


register("Softmax", 1, _infer_softmax, _softmax, flops=5)
register("LogSoftmax", 1, _infer_softmax, _log_softmax, flops=5)


def _infer_layer_norm(node: Node, types: Types) -> ValueType:
    x, scale = floats(node, types[0]), given(types[1])
    axis = axis_of(node, node.integer("axis", -1), x.rank)
    for other in (scale, types[2] if len(types) > 2 else None):
        if other is not None and (
            other.dtype != x.dtype or broadcast(node, other.shape, x.shape[axis:]) != x.shape[axis:]
        ):
            raise node.broken(f"scale or bias {other} for {x} normalised from axis {axis} on")
    return x


def _layer_norm(node: Node, arrays: Arrays) -> Array:
    x, scale = given(arrays[0]), given(arrays[1])
    axes = tuple(range(node.integer("axis", -1) % x.ndim, x.ndim))
    centred = wide(x) - np.mean(wide(x), axis=axes, keepdims=True)
    variance = np.mean(np.square(centred), axis=axes, keepdims=True)
    result = centred / np.sqrt(variance + centred.dtype.type(node.number("epsilon", 1e-5))) * wide(scale)
    bias = arrays[2] if len(arrays) > 2 else None
    return as_type(result if bias is None else result + wide(bias), x.dtype)


register("LayerNormalization", (2, 3), _infer_layer_norm, _layer_norm, flops=8)


def _infer_batch_norm(node: Node, types: Types) -> ValueType:
    x = floats(node, types[0])
    for value in types[1:]:
        if x.rank < 2 or given(value).shape != (x.shape[1],):
            raise node.broken(f"{value} for the channels of {x}")
    return x


def _batch_norm(node: Node, arrays: Arrays) -> Array:
    x = given(arrays[0])
    wanted = (1, -1) + (1,) * (x.ndim - 2)
    scale, bias, mean, variance = (wide(given(array)).reshape(wanted) for array in arrays[1:])
    factor = scale / np.sqrt(variance + variance.dtype.type(node.number("epsilon", 1e-5)))
    return as_type((wide(x) - mean) * factor + bias, x.dtype)


register("BatchNormalization", 5, _infer_batch_norm, _batch_norm, flops=4)
