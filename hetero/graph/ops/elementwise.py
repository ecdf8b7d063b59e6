"""Ops that work element by element, with numpy's broadcasting where they take several inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from hetero.graph.node import Array, Node, ValueType
from hetero.graph.ops.special import erf, gelu, sigmoid
from hetero.graph.ops.table import Arrays, Types, as_type, broadcast, floats, given, register, wide

_BOOL = np.dtype(np.bool_)
Function = Callable[[Node, Array], Array]


def activate(node: Node, x: Array) -> Array:
    """What the attribute `activation` of a fused node does to its result: the op of that name.

    The activation's own attributes (`alpha`, `approximate`, `min`, `max`) stand beside it. Without one x is returned.
    """
    name = node.text("activation")
    return ACTIVATIONS[name](node, x) if name else x


def _relu(node: Node, x: Array) -> Array:
    return np.asarray(np.maximum(x, x.dtype.type(0)))


def _leaky_relu(node: Node, x: Array) -> Array:
    return np.where(x >= 0, x, x.dtype.type(node.number("alpha", 0.01)) * x)


def _clip(node: Node, x: Array) -> Array:
    if x.dtype.kind == "f":
        low, high = node.number("min", -np.inf), node.number("max", np.inf)
    else:
        bounds = np.iinfo(x.dtype)
        low, high = node.integer("min", bounds.min), node.integer("max", bounds.max)
    return np.asarray(np.minimum(np.maximum(x, x.dtype.type(low)), x.dtype.type(high)))


#: Functions of one input that a node's attribute `activation` can name.
ACTIVATIONS: dict[str, Function] = {
    "Relu": _relu,
    "LeakyRelu": _leaky_relu,
    "Clip": _clip,
    "Gelu": lambda node, x: gelu(x, node.text("approximate", "none")),
    "Tanh": lambda node, x: np.tanh(x),
    "Sigmoid": lambda node, x: sigmoid(x),
}

#: Further functions of one floating-point input.
_FLOATING: dict[str, Function] = {
    "Ceil": lambda node, x: np.ceil(x),
    "Cos": lambda node, x: np.cos(x),
    "Elu": lambda node, x: np.where(x > 0, x, node.number("alpha", 1.0) * np.expm1(np.minimum(x, 0))),
    "Erf": lambda node, x: erf(x),
    "Exp": lambda node, x: np.exp(x),
    "Floor": lambda node, x: np.floor(x),
    "HardSigmoid": lambda node, x: np.clip(node.number("alpha", 0.2) * x + node.number("beta", 0.5), 0, 1),
    "HardSwish": lambda node, x: x * np.clip(x / 6 + 0.5, 0, 1),
    "Log": lambda node, x: np.log(x),
    "Reciprocal": lambda node, x: 1 / x,
    "Round": lambda node, x: np.rint(x),
    "Sin": lambda node, x: np.sin(x),
    "Softplus": lambda node, x: np.logaddexp(x, x.dtype.type(0)),
    "Sqrt": lambda node, x: np.sqrt(x),
}

#: Functions of one input of any number type.
_NUMERIC: dict[str, Function] = {
    "Abs": lambda node, x: np.abs(x),
    "Identity": lambda node, x: x,
    "Neg": lambda node, x: np.negative(x),
    "Sign": lambda node, x: np.sign(x),
}


def _same(node: Node, types: Types) -> ValueType:
    return given(types[0])


def _floating(node: Node, types: Types) -> ValueType:
    return floats(node, types[0])


def _unary(function: Function) -> Callable[[Node, Arrays], Array]:
    def evaluate(node: Node, arrays: Arrays) -> Array:
        x = given(arrays[0])
        return as_type(function(node, wide(x)), x.dtype)

    return evaluate


for _name, _function in (ACTIVATIONS | _FLOATING).items():
    _infer = _same if _name in ("Relu", "Clip") else _floating
    register(_name, 1, _infer, _unary(_function), flops=1)
for _name, _function in _NUMERIC.items():
    register(_name, 1, _same, _unary(_function), flops=0 if _name == "Identity" else 1)


def _divide(a: Array, b: Array) -> Array:
    if a.dtype.kind == "f":
        return np.asarray(a / b)
    # Whole numbers round towards zero in ONNX and towards minus infinity in numpy.
    quotient = np.asarray(a // b)
    return np.asarray(quotient + ((quotient < 0) & (quotient * b != a)).astype(a.dtype))


def _modulo(node: Node, arrays: Arrays) -> Array:
    a, b = given(arrays[0]), given(arrays[1])
    return np.fmod(a, b) if node.integer("fmod") else np.mod(a, b)


def _alike(node: Node, types: Types) -> ValueType:
    """All of one dtype, broadcast."""
    values = [given(value) for value in types]
    dtypes = {value.dtype for value in values}
    if len(dtypes) > 1:
        raise node.broken(f"inputs of dtypes {', '.join(sorted(map(str, dtypes)))}, expected one")
    return ValueType(values[0].dtype, broadcast(node, *(value.shape for value in values)))


def _compared(node: Node, types: Types) -> ValueType:
    return ValueType(_BOOL, _alike(node, types).shape)


def _logical(node: Node, types: Types) -> ValueType:
    result = _alike(node, types)
    if result.dtype != _BOOL:
        raise node.broken(f"inputs of dtype {result.dtype}, expected bool")
    return result


def _pairs(function: Callable[[Any, Any], Any]) -> Callable[[Node, Arrays], Array]:
    """Of two or more inputs, from the left."""

    def evaluate(node: Node, arrays: Arrays) -> Array:
        result = given(arrays[0])
        for array in arrays[1:]:
            result = function(result, given(array))
        return result

    return evaluate


_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "Add": np.add,
    "Div": _divide,
    "Mul": np.multiply,
    "Sub": np.subtract,
}
_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "Equal": np.equal,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
}
_LOGIC: dict[str, Callable[[Any, Any], Any]] = {"And": np.logical_and, "Or": np.logical_or, "Xor": np.logical_xor}
_MANY: dict[str, Callable[[Any, Any], Any]] = {"Max": np.maximum, "Min": np.minimum}

for _name, _pair in _ARITHMETIC.items():
    register(_name, 2, _alike, _pairs(_pair), flops=1)
for _name, _pair in _COMPARISONS.items():
    register(_name, 2, _compared, _pairs(_pair), flops=1)
for _name, _pair in _LOGIC.items():
    register(_name, 2, _logical, _pairs(_pair), flops=1)
for _name, _pair in _MANY.items():
    register(
        _name,
        (1, 1 << 16),
        _alike,
        _pairs(_pair),
        flops=lambda node, types, output: (len(types) - 1) * output.size,
    )
register("Mod", 2, _alike, _modulo, flops=1)


def _infer_not(node: Node, types: Types) -> ValueType:
    return _logical(node, types)


register("Not", 1, _infer_not, lambda node, arrays: np.logical_not(given(arrays[0])), flops=1)


def _infer_pow(node: Node, types: Types) -> ValueType:
    base, exponent = given(types[0]), given(types[1])
    return ValueType(base.dtype, broadcast(node, base.shape, exponent.shape))


def _pow(node: Node, arrays: Arrays) -> Array:
    base, exponent = given(arrays[0]), given(arrays[1])
    return as_type(np.asarray(np.power(wide(base), exponent)), base.dtype)


register("Pow", 2, _infer_pow, _pow, flops=1)


def _infer_prelu(node: Node, types: Types) -> ValueType:
    x, result = given(types[0]), _alike(node, types)
    if result.shape != x.shape:
        raise node.broken(f"slope {given(types[1])} does not broadcast to the input {x}")
    return x


def _prelu(node: Node, arrays: Arrays) -> Array:
    x, slope = given(arrays[0]), given(arrays[1])
    return np.where(x >= 0, x, slope * x)


register("PRelu", 2, _infer_prelu, _prelu, flops=1)


def _infer_where(node: Node, types: Types) -> ValueType:
    condition, a, b = (given(value) for value in types)
    if condition.dtype != _BOOL:
        raise node.broken(f"condition of dtype {condition.dtype}, expected bool")
    chosen = _alike(node, (a, b))
    return ValueType(chosen.dtype, broadcast(node, condition.shape, chosen.shape))


register("Where", 3, _infer_where, lambda node, arrays: np.where(*map(given, arrays)), flops=1)


def _infer_cast(node: Node, types: Types) -> ValueType:
    return ValueType(np.dtype(node.text("to")), given(types[0]).shape)


register("Cast", 1, _infer_cast, lambda node, arrays: as_type(given(arrays[0]), np.dtype(node.text("to"))), flops=1)
