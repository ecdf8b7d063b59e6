"""Nodes that work element by element."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from hetero.errors import Unsupported
from hetero.graph.node import Node
from hetero_vulkan.nodes.lowering import BOOL, FLOAT, INT, LONG, SMALL, Lowering, only, register, words_of
from hetero_vulkan.ops.elementwise import binary, unary, where
from hetero_vulkan.ops.movement import copy, series
from hetero_vulkan.ops.tensors import Tensor
from hetero_vulkan.ops.wide import ARITHMETIC, COMPARISONS, wide_binary, wide_cast

_UNARY = {
    **{name: name.lower() for name in ("Abs", "Ceil", "Cos", "Elu", "Erf", "Exp", "Floor", "Gelu", "Log", "Neg")},
    **{name: name.lower() for name in ("Reciprocal", "Relu", "Round", "Sigmoid", "Sign", "Sin", "Softplus", "Sqrt")},
    "Clip": "clip",
    "HardSigmoid": "hard_sigmoid",
    "HardSwish": "hard_swish",
    "LeakyRelu": "leaky_relu",
    "Tanh": "tanh",
}

FUSED = ("Gelu", "Relu", "Sigmoid", "Tanh")
"""Activations that products and convolutions do besides."""


def function_of(node: Node, op: str) -> str:
    """What shaders call an op; `approximate` says which form of `Gelu`."""
    return "gelu_tanh" if op == "Gelu" and node.text("approximate", "none") == "tanh" else _UNARY[op]


def _parameters(node: Node) -> tuple[float, float] | None:
    if node.op == "Clip":
        return node.number("min", -np.inf), node.number("max", np.inf)
    if node.op == "HardSigmoid":
        return node.number("alpha", 0.2), node.number("beta", 0.5)
    alpha = {"LeakyRelu": 0.01, "Elu": 1.0}.get(node.op)
    return None if alpha is None else (node.number("alpha", alpha), 0.0)


def _unary(work: Lowering, node: Node) -> None:
    x, y = work.input(node), work.output(node)
    if work.type(node).dtype in (INT, LONG, *SMALL):
        _of_whole_numbers(work, node, x, y)
        return
    only(node, work.type(node), FLOAT)
    work.add(unary(work.device, function_of(node, node.op), x, y, _parameters(node)))


def _of_whole_numbers(work: Lowering, node: Node, x: Tensor, y: Tensor) -> None:
    """Through the operators of two, which are exact beyond 2^24."""
    dtype = work.type(node).dtype
    of_two = wide_binary if dtype == LONG else binary

    def add(function: str, a: Tensor, b: Tensor, result: Tensor) -> None:
        work.add(of_two(work.device, function, a, b, result))

    def number(value: int) -> Tensor:
        return work.known(np.array(value, dtype))

    if node.op == "Neg":
        add("sub", number(0), x, y)
        wrap(work, dtype, y)
    elif node.op == "Relu":
        add("max", x, number(0), y)
    elif node.op == "Abs":
        negative = work.spare(x.shape, "i32")
        add("sub", number(0), x, negative)
        add("max", x, negative, y)
        wrap(work, dtype, y)
    elif node.op == "Clip":
        limits = np.iinfo(dtype)
        least = work.spare(x.shape, "i32")
        add("max", x, number(node.integer("min", int(limits.min))), least)
        add("min", least, number(node.integer("max", int(limits.max))), y)
    else:
        raise Unsupported(f"{node.op} of {dtype} is not computed on the device")


def wrap(work: Lowering, dtype: np.dtype[Any], x: Tensor) -> None:
    """Small integers, which are i32, go round at the ends of their type; nothing to do for others."""
    if dtype in SMALL:
        function = "signed_bits" if dtype.kind == "i" else "bits"
        work.add(unary(work.device, function, x, x, (8.0 * dtype.itemsize, 0.0)))


register(list(_UNARY), _unary)
register(["Not"], lambda work, node: work.add(unary(work.device, "not", work.input(node), work.output(node))))

_ARITHMETIC = {"Add": "add", "Div": "div", "Max": "max", "Min": "min", "Mul": "mul", "Pow": "pow", "Sub": "sub"}
_COMPARISONS = {
    "Equal": "equal",
    "Greater": "greater",
    "GreaterOrEqual": "greater_equal",
    "Less": "less",
    "LessOrEqual": "less_equal",
}
_LOGIC = {"And": "and", "Or": "or", "Xor": "xor"}


def _binary(work: Lowering, node: Node) -> None:
    names = _ARITHMETIC | _COMPARISONS | _LOGIC
    if work.type(node).dtype == LONG and names[node.op] in (*ARITHMETIC, *COMPARISONS):
        _of_longs(work, node, names[node.op])
        return
    for place in range(len(node.inputs)):
        kinds = (FLOAT, INT, BOOL, *SMALL) if node.op in (*_COMPARISONS, *_LOGIC) else (FLOAT, INT, *SMALL)
        only(node, work.type(node, place), *kinds)
    if node.op == "Pow":
        only(node, work.type(node), FLOAT)
    first, *others = work.inputs(node)
    if not others:
        work.add(copy(work.device, first, work.output(node)))
    for place, other in enumerate(others):
        last = place == len(others) - 1
        shape = np.broadcast_shapes(first.shape, other.shape)
        result = work.output(node) if last else work.spare(shape, "i32" if first.kind == "i32" else "f32")
        work.add(binary(work.device, names[node.op], first, other, result))
        if node.op in ("Add", "Div", "Mul", "Sub"):
            wrap(work, work.type(node).dtype, result)
        first = result


register([*_ARITHMETIC, *_COMPARISONS, *_LOGIC], _binary)


def _of_longs(work: Lowering, node: Node, name: str) -> None:
    for place in range(len(node.inputs)):
        only(node, work.type(node, place), LONG)
    first, *others = work.inputs(node)
    if not others:
        work.add(copy(work.device, first, work.output(node)))
    for place, other in enumerate(others):
        shape = np.broadcast_shapes(first.shape, other.shape)
        result = work.output(node) if place == len(others) - 1 else work.spare(shape, "i32")
        work.add(wide_binary(work.device, name, first, other, result))
        first = result


def _mod(work: Lowering, node: Node) -> None:
    only(node, work.type(node), FLOAT, INT, *SMALL)
    function = "fmod" if node.integer("fmod") else "mod"
    a, b = work.inputs(node)
    work.add(binary(work.device, function, a, b, work.output(node)))


register(["Mod"], _mod)


def _prelu(work: Lowering, node: Node) -> None:
    only(node, work.type(node), FLOAT)
    (x, slope), y = work.inputs(node), work.output(node)
    negative, scaled = work.spare(x.shape, "i32"), work.spare(x.shape)
    work.add(binary(work.device, "less", x, work.known(np.zeros((), np.float32)), negative))
    work.add(binary(work.device, "mul", slope, x, scaled))
    work.add(where(work.device, negative, scaled, x, y))


register(["PRelu"], _prelu)


def _where(work: Lowering, node: Node) -> None:
    condition, a, b = work.inputs(node)
    if words_of(work.type(node, 1).dtype) == 2:
        condition = replace(condition, shape=(*condition.shape, 1), strides=(*condition.steps, 0))
    work.add(where(work.device, condition, a, b, work.output(node)))


register(["Where"], _where)


def _trilu(work: Lowering, node: Node) -> None:
    kind = work.type(node)
    only(node, kind, FLOAT, INT, BOOL, LONG, *SMALL)
    mask = np.ones(kind.shape[-2:], dtype=bool)
    kept = np.triu(mask, node.integer("k")) if node.integer("upper", 1) else np.tril(mask, node.integer("k"))
    # The two halves of a number of 64 bits go the same way.
    shown = np.repeat(kept[..., np.newaxis], 2, axis=-1) if kind.dtype == LONG else kept
    zero = work.known(np.zeros((), kind.dtype))
    work.add(where(work.device, work.known(shown), work.input(node), zero, work.output(node)))


register(["Trilu"], _trilu)


def _cast(work: Lowering, node: Node) -> None:
    source, target = work.type(node).dtype, work.graph.types[node.output].dtype
    x, y = work.input(node), work.output(node)
    device = work.device
    whole = (INT, *SMALL)
    if target == BOOL and source == LONG:
        work.add(wide_binary(device, "not_equal", x, work.known(np.zeros((), np.int64)), y))
    elif {source, target} == {LONG, FLOAT}:
        work.add(wide_cast(device, x, y))
    elif target == BOOL and source in (FLOAT, *whole):
        zero = work.known(np.zeros((), source))
        work.add(binary(device, "not_equal", x, zero, y))
    elif target in (FLOAT, *whole) and source in (FLOAT, *whole, BOOL):
        work.add(unary(device, "cast", x, y))
        wrap(work, target, y)
    elif target in whole and source == LONG:
        work.add(copy(device, low_words(x), y))
        wrap(work, target, y)
    elif target == LONG and source in (*whole, BOOL):
        rank = len(x.shape)
        signed = source != BOOL and source.kind == "i"
        work.add([] if signed else series(device, y))
        work.add(copy(device, x, low_words(y)))
        if signed:
            negative, upper = (work.spare(x.shape, "i32") for _ in range(2))
            zero = work.known(np.zeros((), np.int32))
            work.add(binary(device, "less", x, zero, negative))
            work.add(binary(device, "sub", zero, negative, upper))
            high = y.sliced(rank, 1, 2)
            work.add(copy(device, upper, replace(high, shape=high.shape[:-1], strides=high.steps[:-1])))
    else:
        raise Unsupported(f"{source} is not made {target} on the device")


register(["Cast"], _cast)


def low_words(pairs: Tensor) -> Tensor:
    """The lower halves of numbers of 64 bits."""
    return replace(pairs, shape=pairs.shape[:-1], strides=pairs.steps[:-1])
