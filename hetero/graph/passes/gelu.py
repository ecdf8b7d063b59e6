"""`Gelu` out of the sums and products that exporters write for it, in whatever order.

What a node computes is written as a polynomial in x and in t = erf(x/sqrt(2)), or in x and in
t = tanh(sqrt(2/pi)(x + 0.044715 x^3)), and compared with x/2 + x*t/2. Hendrycks and Gimpel, "Gaussian
Error Linear Units", 2016.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from hetero.graph.ir import Graph, scalar_of
from hetero.graph.node import Node
from hetero.graph.passes.rewriting import Change, private, rewrite

#: Coefficients by the powers of x and t.
Polynomial = dict[tuple[int, int], float]

_ARITHMETIC = ("Add", "Sub", "Mul", "Div", "Pow", "Neg")
# Nodes between the result and the function at most, on any way; the longest form known has four.
_DEPTH = 6
_GELU: Polynomial = {(1, 0): 0.5, (1, 1): 0.5}
_INNER: dict[str, tuple[str, Polynomial]] = {
    "Erf": ("none", {(1, 0): math.sqrt(0.5)}),
    "Tanh": ("tanh", {(1, 0): math.sqrt(2 / math.pi), (3, 0): 0.044715 * math.sqrt(2 / math.pi)}),
}


def fuse_gelu(graph: Graph) -> Graph:
    """With either form of GELU as one node, where nothing else uses what is in between.

    The tanh form is `Gelu` with `approximate=tanh`. Coefficients may be off by what the model's precision rounds away.
    """
    return rewrite(graph, _match)


def _match(graph: Graph, node: Node) -> Change | None:
    kind = graph.types[node.output]
    if node.op not in ("Add", "Mul", "Div") or kind.dtype.kind != "f":
        return None
    # Exporters write the constants with few digits; half precision has no more.
    tolerance = 2e-3 if kind.dtype == np.float16 else 1e-4
    for function in set(_below(graph, node.output, ("Erf", "Tanh"))):
        approximate, wanted = _INNER[graph.producers[function].op]
        argument = graph.producers[function].inputs[0]
        for x in _below(graph, argument, None):
            if graph.types[x] != kind:
                continue
            inside = {function}
            inner = _polynomial(graph, argument, {x: (1, 0)}, inside)
            if inner is None or not _close(inner, wanted, tolerance):
                continue
            whole = _polynomial(graph, node.output, {x: (1, 0), function: (0, 1)}, inside)
            inside.discard(node.output)
            if whole is not None and _close(whole, _GELU, tolerance) and private(graph, inside, node, inside):
                made = Node("Gelu", (x,), node.outputs, {"approximate": approximate}, node.name)
                return Change((made,))
    return None


def _below(graph: Graph, value: str, ops: tuple[str, ...] | None, depth: int = _DEPTH) -> Iterator[str]:
    """Values that `value` is computed of by arithmetic: those that these ops give, or all that are not known."""
    node = graph.producers.get(value)
    if value not in graph.constants and (ops is None or (node is not None and node.op in ops)):
        yield value
    if node is not None and node.op in _ARITHMETIC and depth:
        for other in dict.fromkeys(node.inputs):
            yield from _below(graph, other, ops, depth - 1)


def _close(found: Polynomial, wanted: Polynomial, tolerance: float) -> bool:
    return found.keys() == wanted.keys() and all(
        math.isclose(found[powers], value, rel_tol=tolerance) for powers, value in wanted.items()
    )


def _polynomial(
    graph: Graph, value: str, symbols: dict[str, tuple[int, int]], inside: set[str], depth: int = _DEPTH
) -> Polynomial | None:
    """What a value is in terms of the symbols; None where it is no polynomial. The values on the way go to `inside`."""
    if value in symbols:
        return {symbols[value]: 1.0}
    number = scalar_of(graph, value)
    if number is not None:
        return {(0, 0): number}
    node = graph.producers.get(value)
    if node is None or node.op not in _ARITHMETIC or not depth:
        return None
    terms = [_polynomial(graph, other, symbols, inside, depth - 1) for other in node.inputs]
    first, second = (*terms, {(0, 0): -1.0})[:2]
    if first is None or second is None:
        return None
    inside.add(value)
    return _combined(node.op, first, second)


def _combined(op: str, a: Polynomial, b: Polynomial) -> Polynomial | None:
    factor = b.get((0, 0)) if b.keys() == {(0, 0)} else None
    if op == "Add" or op == "Sub":
        sign = 1 if op == "Add" else -1
        total = {powers: a.get(powers, 0.0) + sign * b.get(powers, 0.0) for powers in {*a, *b}}
        return {powers: value for powers, value in total.items() if value}
    if op == "Mul" or op == "Neg":
        return _product(a, b)
    if factor is None:
        return None
    if op == "Div":
        return {powers: value / factor for powers, value in a.items()} if factor else None
    if factor not in (1, 2, 3):
        return None
    result = a
    for _ in range(int(factor) - 1):
        result = _product(result, a)
    return result


def _product(a: Polynomial, b: Polynomial) -> Polynomial:
    result: Polynomial = {}
    for (i, j), left in a.items():
        for (k, m), right in b.items():
            result[i + k, j + m] = result.get((i + k, j + m), 0.0) + left * right
    return result
