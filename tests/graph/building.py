"""Small graphs for tests: written node by node, and as hypothesis makes them up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from hetero.graph import Graph, Node, ValueType, evaluate

Array = NDArray[Any]


class Builder:
    """Adds nodes to a graph; every method gives the name of a value."""

    def __init__(self) -> None:
        self.inputs: dict[str, ValueType] = {}
        self.constants: dict[str, Array] = {}
        self.nodes: list[Node] = []

    def input(self, name: str, *shape: int, dtype: Any = np.float32) -> str:
        self.inputs[name] = ValueType(np.dtype(dtype), shape)
        return name

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = np.array(value, dtype=dtype)
        return name

    def op(self, op: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        name = output or f"v{len(self.nodes)}"
        self.nodes.append(Node(op, inputs, (name,), attributes, f"{op}{len(self.nodes)}"))
        return name

    def graph(self, *outputs: str) -> Graph:
        return Graph.build("test", self.inputs, outputs, self.nodes, self.constants)


def random_inputs(graph: Graph, seed: int = 0) -> dict[str, Array]:
    """Standard normal values for every input."""
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(graph.types[name].shape).astype(graph.types[name].dtype) for name in graph.inputs}


def weights(*shape: int, seed: int = 1) -> Array:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


Write = Callable[[Builder], str]


def fused(passing: Callable[[Graph], Graph], write: Write, tolerance: float = 1e-5) -> Graph:
    """The graph after a pass, which must compute what it did before."""
    build = Builder()
    before = build.graph(write(build))
    after = passing(before)
    after.verify()
    given = random_inputs(before)
    for name, array in evaluate(before, given).items():
        np.testing.assert_allclose(evaluate(after, given)[name], array, rtol=tolerance, atol=tolerance)
    return after


_UNARY = ("Relu", "Tanh", "Sigmoid", "Neg", "Abs", "Gelu", "Identity", "Erf")
_BINARY = ("Add", "Sub", "Mul", "Max", "Min")
_SHAPES = ((2, 3, 4), (2, 12), (6, 4), (24,), (4, 3, 2))
_KINDS = ("unary", "binary", "constant", "reshape", "transpose", "product", "softmax", "norm", "gelu", "attention")


class _Growing(Builder):
    """A builder that draws from the values that it has so far; all have 24 elements, in double precision."""

    def __init__(self, draw: st.DrawFn) -> None:
        super().__init__()
        self.draw = draw
        self.shapes: dict[str, tuple[int, ...]] = {}
        for i in range(draw(st.integers(1, 2))):
            self.shapes[self.input(f"x{i}", 2, 3, 4, dtype=np.float64)] = (2, 3, 4)
        # Few different constants, so that some are equal.
        self.numbers = [self.number(draw(st.sampled_from((0.5, 1.0, 2.0)))) for _ in range(3)]
        self.row = self.number(weights(4))
        self.squares = {size: self.number(weights(size, size, seed=size) / size) for size in (2, 3, 4, 12)}

    def number(self, value: Any) -> str:
        return self.constant(value, np.float64)

    def add(self, op: str, *inputs: str, like: tuple[int, ...] | None = None, **attributes: Any) -> str:
        """A node whose value later ones may take; of the shape of its first input, if no other is given."""
        name = self.op(op, *inputs, **attributes)
        self.shapes[name] = self.shapes[inputs[0]] if like is None else like
        return name

    def any(self, shape: tuple[int, ...] | None = None) -> str:
        """A value, of that shape if one is given; the later ones are likelier."""
        fitting = [name for name, found in self.shapes.items() if shape in (None, found)]
        return fitting[-1 - min(self.draw(st.integers(0, 5)), len(fitting) - 1)]

    def grow(self, kind: str) -> None:
        x = self.any()
        shape = self.shapes[x]
        if kind == "unary":
            self.add(self.draw(st.sampled_from(_UNARY)), x)
        elif kind == "binary":
            self.add(self.draw(st.sampled_from(_BINARY)), x, self.any(shape))
        elif kind == "constant":
            fitting = self.numbers + [self.row] * (shape[-1] == 4)
            pair = self.draw(st.permutations((x, self.draw(st.sampled_from(fitting)))))
            self.add(self.draw(st.sampled_from(_BINARY)), *pair, like=shape)
        elif kind == "reshape":
            wanted = self.draw(st.sampled_from(_SHAPES))
            self.add("Reshape", x, like=wanted, shape=wanted)
        elif kind == "transpose":
            perm = tuple(self.draw(st.permutations(range(len(shape)))))
            self.add("Transpose", x, like=tuple(shape[axis] for axis in perm), perm=perm)
        elif kind == "product" and shape[-1] in self.squares:
            self.add("MatMul", x, self.squares[shape[-1]])
        elif kind == "softmax":
            self.add("Softmax", x, axis=self.draw(st.integers(0, len(shape) - 1)))
        elif kind == "norm":
            self._norm(x, (len(shape) - 1,))
        elif kind == "gelu":
            inner = self.add("Erf", self.add("Mul", x, self.number(0.5**0.5)))
            self.add("Mul", self.add("Mul", x, self.add("Add", inner, self.number(1.0))), self.number(0.5))
        elif kind == "attention" and len(shape) == 3:
            self._attention(x, self.any(shape), self.any(shape))

    def _norm(self, x: str, axes: tuple[int, ...]) -> None:
        centred = self.add("Sub", x, self.op("ReduceMean", x, axes=axes, keepdims=1))
        variance = self.op("ReduceMean", self.add("Mul", centred, centred), axes=axes, keepdims=1)
        deviation = self.op("Sqrt", self.op("Add", variance, self.number(1e-3)))
        quotient = self.add("Div", centred, deviation)
        if self.shapes[x][-1] == 4:
            self.add("Add", self.add("Mul", quotient, self.row), self.row)

    def _attention(self, q: str, k: str, v: str) -> None:
        scores = self.op("MatMul", q, self.op("Transpose", k, perm=(0, 2, 1)))
        scaled = self.op("Mul", scores, self.number(0.5))
        self.add("MatMul", self.op("Softmax", scaled, axis=2), v, like=self.shapes[q])


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Graphs with branches, repeated and dead nodes, constants, moves, and what fusions look for, whole or shared."""
    build = _Growing(draw)
    for kind in draw(st.lists(st.sampled_from(_KINDS), min_size=1, max_size=10)):
        build.grow(kind)
    names = list(build.shapes)
    places = draw(st.lists(st.integers(0, min(len(names), 8) - 1), min_size=1, max_size=3, unique=True))
    return build.graph(*(names[-1 - place] for place in places))
