"""Rules for ONNX operators that are made of others: normalisations, activations, sums of logarithms, Einsum."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hetero.graph.importing import Importing, OnnxNode


class _Maker:
    """Adds the ops that one node becomes."""

    def __init__(self, importing: Importing, node: OnnxNode) -> None:
        self.importing = importing
        self.node = node

    def __call__(self, op: str, *inputs: str, last: bool = False, **attributes: Any) -> str:
        return self.importing.emit(self.node, op, inputs, self.node.outputs[0] if last else None, **attributes)

    def number(self, value: float, like: str) -> str:
        return self.importing.constant(self.node, np.array(value, self.importing.types[like].dtype))

    def shaped(self, value: str, *shape: int) -> str:
        same = self.importing.types[value].shape == shape
        return value if same else self("Reshape", value, shape=shape)

    def is_all(self, value: str, number: float) -> bool:
        known = self.importing.constants.get(value)
        return known is not None and bool((known == number).all())

    def scaled(self, value: str, scale: str, bias: str, shape: Sequence[int]) -> str:
        """Times a scale and plus a bias, seen in a shape; not where they change nothing, as exporters write them."""
        if not self.is_all(scale, 1):
            value = self("Mul", value, self.shaped(scale, *shape))
        return value if self.is_all(bias, 0) else self("Add", value, self.shaped(bias, *shape))

    def give(self, value: str) -> None:
        """The value is the node's output."""
        self("Identity", value, last=True)

    def normalised(self, value: str, epsilon: float) -> str:
        """Each row of the last dimension, without its mean and divided by its deviation."""
        one = self.importing.constant(self.node, np.ones(1, self.importing.types[value].dtype))
        axis = self.importing.types[value].rank - 1
        return self("LayerNormalization", value, one, axis=axis, epsilon=epsilon)


def _instance_norm(importing: Importing, node: OnnxNode) -> None:
    node.only("epsilon")
    make, x = _Maker(importing, node), importing.type_of(node)
    value, scale, bias = importing.inputs(node)
    n, channels, *sizes = x.shape
    value = make.normalised(make.shaped(value, n, channels, math.prod(sizes)), node.get("epsilon", 1e-5))
    value = make.shaped(value, *x.shape)
    make.give(make.scaled(value, scale, bias, (channels, *(1,) * len(sizes))))


def _group_norm(importing: Importing, node: OnnxNode) -> None:
    node.only("epsilon", "num_groups", "stash_type")
    make, x = _Maker(importing, node), importing.type_of(node)
    value, scale, bias = importing.inputs(node)
    n, channels, *sizes = x.shape
    groups = node.must("num_groups")
    value = make.shaped(value, n, groups, channels // groups * math.prod(sizes))
    value = make.normalised(value, node.get("epsilon", 1e-5))
    each = importing.types[scale].shape
    if importing.opset < 21 and each == (groups,):
        # Before opset 21 a group had one scale.
        make.give(make.shaped(make.scaled(value, scale, bias, (groups, 1)), *x.shape))
        return
    value = make.shaped(value, *x.shape)
    make.give(make.scaled(value, scale, bias, (channels, *(1,) * len(sizes))))


def _lp_norm(importing: Importing, node: OnnxNode) -> None:
    node.only("axis", "p")
    make, (value,) = _Maker(importing, node), importing.inputs(node)
    p = node.get("p", 2)
    if p not in (1, 2):
        raise node.refused(f"the attribute p={p} is not known")
    axis = node.get("axis", -1) % importing.types[value].rank
    length = make(f"ReduceL{p}", value, axes=(axis,), keepdims=1)
    # What is all zero stays so.
    none = make("Cast", make("Equal", length, make.number(0, length)), to=str(importing.types[value].dtype))
    make("Div", value, make("Add", length, none), last=True)


def _rms_norm(importing: Importing, node: OnnxNode) -> None:
    node.only("axis", "epsilon", "stash_type")
    make, (value, scale) = _Maker(importing, node), importing.inputs(node)
    rank = importing.types[value].rank
    axes = tuple(range(node.get("axis", -1) % rank, rank))
    mean = make("ReduceMean", make("Mul", value, value), axes=axes, keepdims=1)
    root = make("Sqrt", make("Add", mean, make.number(node.get("epsilon", 1e-5), mean)))
    make("Mul", make("Div", value, root), scale, last=True)


def _mean_variance(importing: Importing, node: OnnxNode) -> None:
    node.only("axes")
    make, (value,) = _Maker(importing, node), importing.inputs(node)
    axes = tuple(sorted(axis % importing.types[value].rank for axis in node.get("axes", [0, 2, 3])))
    centred = make("Sub", value, make("ReduceMean", value, axes=axes, keepdims=1))
    variance = make("ReduceMean", make("Mul", centred, centred), axes=axes, keepdims=1)
    make("Div", centred, make("Add", make("Sqrt", variance), make.number(1e-9, value)), last=True)


def _activation(importing: Importing, node: OnnxNode) -> None:
    node.only("alpha", "gamma", "bias", "lambd")
    make, (value, *_) = _Maker(importing, node), importing.inputs(node)
    alpha = node.get("alpha", 1.0)

    def number(of: float) -> str:
        return make.number(of, value)

    if node.op == "Mish":
        make("Mul", value, make("Tanh", make("Softplus", value)), last=True)
    elif node.op == "Swish":
        inner = value if alpha == 1 else make("Mul", value, number(alpha))
        make("Mul", value, make("Sigmoid", inner), last=True)
    elif node.op == "Selu":
        alpha, gamma = node.get("alpha", 1.67326319217681884765625), node.get("gamma", 1.05070102214813232421875)
        make("Mul", make("Elu", value, alpha=alpha), number(gamma), last=True)
    elif node.op == "Celu":
        inner = make("Elu", make("Div", value, number(alpha)), alpha=1.0)
        make("Mul", inner, number(alpha), last=True)
    elif node.op == "Softsign":
        make("Div", value, make("Add", make("Abs", value), number(1)), last=True)
    elif node.op == "ThresholdedRelu":
        make("Where", make("Greater", value, number(alpha)), value, number(0), last=True)
    else:
        lambd, bias = node.get("lambd", 0.5), node.get("bias", 0.0)
        inner = make("Where", make("Greater", value, number(lambd)), make("Sub", value, number(bias)), number(0))
        below = make("Less", value, number(-lambd))
        make("Where", below, make("Add", value, number(bias)), inner, last=True)


def _function(importing: Importing, node: OnnxNode) -> None:
    node.only()
    make, (value,) = _Maker(importing, node), importing.inputs(node)
    if node.op == "Tan":
        make("Div", make("Sin", value), make("Cos", value), last=True)
    elif node.op == "IsNaN":
        make("Not", make("Equal", value, value), last=True)
    else:
        down = make("Exp", make("Neg", value))
        both = make("Sub" if node.op == "Sinh" else "Add", make("Exp", value), down)
        make("Mul", both, make.number(0.5, value), last=True)


def _log_sum(importing: Importing, node: OnnxNode) -> None:
    node.only("axes", "keepdims", "noop_with_empty_axes")
    make, x = _Maker(importing, node), importing.type_of(node)
    axes = importing.needed(node, 1, "axes").tolist() if node.has(1) else node.get("axes", [])
    if not axes and node.get("noop_with_empty_axes", 0):
        chosen: tuple[int, ...] = ()
    else:
        chosen = tuple(sorted(axis % x.rank for axis in axes)) if axes else tuple(range(x.rank))
    value, keep = importing.name(node.inputs[0]), node.get("keepdims", 1)
    if node.op == "ReduceLogSum" or not x.size:
        value = value if node.op == "ReduceLogSum" else make("Exp", value)
        make("Log", make("ReduceSum", value, axes=chosen, keepdims=keep), last=True)
        return
    # The largest first, so that no exponential overflows.
    largest = make("ReduceMax", value, axes=chosen, keepdims=1)
    away = make("Exp", make("Sub", value, largest))
    logs = make("Log", make("ReduceSum", away, axes=chosen, keepdims=1))
    total = make("Add", logs, largest, last=bool(keep))
    if not keep:
        shape = tuple(size for axis, size in enumerate(x.shape) if axis not in chosen)
        make("Reshape", total, last=True, shape=shape)


def _einsum(importing: Importing, node: OnnxNode) -> None:
    """Sums over what is in one operand alone, then one product of matrices in a batch."""
    node.only("equation")
    make = _Maker(importing, node)
    terms, wanted = _terms(importing, node)
    values = list(importing.inputs(node))
    sizes: dict[str, int] = {}
    for term, value in zip(terms, values, strict=True):
        for letter, count in zip(term, importing.types[value].shape, strict=True):
            if sizes.setdefault(letter, count) != count:
                raise ValueError(f"{letter} is {sizes[letter]} and {count} in {node.get('equation', '')!r}")
    if len(values) > 2 or any(len(set(term)) < len(term) for term in terms):
        raise node.refused("only products of up to two operands without diagonals are supported")
    for place, term in enumerate(terms):
        others = {*wanted, *(letter for i, other in enumerate(terms) if i != place for letter in other)}
        alone = tuple(axis for axis, letter in enumerate(term) if letter not in others)
        if alone:
            values[place] = make("ReduceSum", values[place], axes=alone, keepdims=0)
            terms[place] = "".join(letter for letter in term if letter in others)
    if len(values) == 1:
        _ordered(make, values[0], terms[0], wanted, sizes)
        return
    left, right = terms
    batch = [letter for letter in left if letter in right and letter in wanted]
    summed = [letter for letter in left if letter in right and letter not in wanted]
    rows = [letter for letter in left if letter not in right]
    columns = [letter for letter in right if letter not in left]

    def size(letters: Sequence[str]) -> int:
        return math.prod(sizes[letter] for letter in letters)

    a = _arranged(make, values[0], left, [*batch, *rows, *summed])
    b = _arranged(make, values[1], right, [*batch, *summed, *columns])
    if not batch:
        a, b = make.shaped(a, size(rows), size(summed)), make.shaped(b, size(summed), size(columns))
    else:
        a = make.shaped(a, size(batch), size(rows), size(summed))
        b = make.shaped(b, size(batch), size(summed), size(columns))
    product = make("MatMul", a, b)
    order = [*batch, *rows, *columns]
    product = make.shaped(product, *(sizes[letter] for letter in order))
    _ordered(make, product, "".join(order), wanted, sizes)


def _terms(importing: Importing, node: OnnxNode) -> tuple[list[str], str]:
    """The letters of each operand and of the result, dots written out in capitals that the equation does not use."""
    equation = node.must("equation").replace(" ", "")
    given, arrow, wanted = equation.partition("->")
    terms = given.split(",")
    if len(terms) != len(node.inputs):
        raise ValueError(f"{len(node.inputs)} operands for {equation!r}")
    free = [letter for letter in "ZYXWVUTSRQPONMLKJIHGFEDCBA" if letter not in equation]
    dots = ""
    for place, term in enumerate(terms):
        if "..." in term:
            count = importing.type_of(node, place).rank - (len(term) - 3)
            own = "".join(reversed(free[:count]))
            dots = max(dots, own, key=len)
            terms[place] = term.replace("...", own)
    if not arrow:
        letters = "".join(terms)
        wanted = dots + "".join(sorted(x for x in set(letters) if letters.count(x) == 1 and x not in dots))
    return terms, wanted.replace("...", dots)


def _arranged(make: _Maker, value: str, term: str, order: Sequence[str]) -> str:
    perm = tuple(term.index(letter) for letter in order)
    return value if perm == tuple(range(len(perm))) else make("Transpose", value, perm=perm)


def _ordered(make: _Maker, value: str, term: str, wanted: str, sizes: Mapping[str, int]) -> None:
    if sorted(term) != sorted(wanted):
        raise make.node.refused(f"{wanted} has what no operand has")
    make.give(make.shaped(_arranged(make, value, term, wanted), *(sizes[letter] for letter in wanted)))


COMPOSED_RULES: Mapping[str, Callable[[Importing, OnnxNode], None]] = {
    **dict.fromkeys(("Celu", "Mish", "Selu", "Shrink", "Softsign", "Swish", "ThresholdedRelu"), _activation),
    **dict.fromkeys(("Cosh", "IsNaN", "Sinh", "Tan"), _function),
    "Einsum": _einsum,
    "GroupNormalization": _group_norm,
    "InstanceNormalization": _instance_norm,
    "LpNormalization": _lp_norm,
    "MeanVarianceNormalization": _mean_variance,
    "RMSNormalization": _rms_norm,
    "ReduceLogSum": _log_sum,
    "ReduceLogSumExp": _log_sum,
}
