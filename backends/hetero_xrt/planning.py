"""Which nodes of a graph become int8 launches, and the plan of steps for inputs of certain shapes.

Claimed are products of many rows and a constant weight, and attention of all queries to all keys, where a kernel of the
size can be had. All else stays on the host: normalisation, activations, convolutions, residuals.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from hetero.graph.ir import Graph
from hetero.graph.node import Node
from hetero.graph.ops import evaluate_node
from hetero.graph.ops.elementwise import activate
from hetero.tensors import Array
from hetero_xrt.blocks import Blocks
from hetero_xrt.executable import TileExecutable
from hetero_xrt.quantise import Floats, matrix_of, smoothing
from hetero_xrt.steps import HEAD, AttentionStep, HostStep, Layer, LinearStep, Plan, Step

ROWS = 64
"""Of a tile: with fewer rows or queries a launch is not worth its price."""

_GRAIN = 64
_MOST_SIDE = 8192
_MOST_KEYS = 4096
_FLOAT = np.dtype(np.float32)
_ROW_BY_ROW = ("Gelu", "LayerNormalization", "Softmax", "Erf", "Relu", "Sigmoid", "Tanh")


@dataclass(frozen=True)
class Precision:
    """How floats become int8.

    Attributes:
        bits: Of activations in products, 8 or 16.
        keeps: Says of a node's name that it stays in float.
        alpha: How much of the activations' range goes over to the weights; None for no smoothing.
        largest: The largest magnitude of each input channel in samples, by the names of products; empty for none.
    """

    bits: int = 16
    keeps: Callable[[str], bool] = lambda name: False
    alpha: float | None = None
    largest: Mapping[str, Floats] = field(default_factory=dict)


@dataclass(frozen=True)
class Claim:
    """A node that can become launches of a kernel.

    Attributes:
        node: It.
        kernel: Its name.
    """

    node: Node
    kernel: str


def claims_of(graph: Graph, length: int | None = None) -> list[Claim]:
    """The nodes that kernels exist for, in order.

    Args:
        graph: With fused attention.
        length: Keys that the attention kernel is to take; None for as many as each has, in blocks of 64.
    """
    found = []
    for node in graph.nodes:
        if node.op in ("MatMul", "Linear"):
            kernel = _product_kernel(graph, node)
        else:
            kernel = _attention_kernel(graph, node, length) if node.op == "Attention" else None
        if kernel is not None:
            found.append(Claim(node, kernel))
    return found


def _product_kernel(graph: Graph, node: Node) -> str | None:
    x, weight, bias = graph.types[node.input(0)], graph.types[node.input(1)], node.input(2)
    if node.input(1) not in graph.constants or weight.rank != 2 or x.rank < 2 or x.dtype != _FLOAT:
        return None
    if bias and bias not in graph.constants:
        return None
    depth, channels = (-(-size // _GRAIN) * _GRAIN for size in weight.shape)
    if math.prod(x.shape[:-1]) < ROWS or not 0 < depth <= _MOST_SIDE or not 0 < channels <= _MOST_SIDE:
        return None
    return f"gemm_i8_i32_{depth}x{channels}"


def _attention_kernel(graph: Graph, node: Node, length: int | None) -> str | None:
    layout = _Layout.of(node)
    q, k, v = (layout.shape(graph.types[node.input(place)].shape, place) for place in range(3))
    if node.input(3) or graph.types[node.input(0)].dtype != _FLOAT or not q[:-2] == k[:-2] == v[:-2]:
        return None
    longest = max(q[-2], k[-2])
    if q[-2] < ROWS or max(q[-1], v[-1]) > HEAD or longest > (length or _MOST_KEYS):
        return None
    return f"attention_i8_exact_{length or -(-longest // _GRAIN) * _GRAIN}"


@dataclass(frozen=True)
class _Layout:
    """How an attention node has its heads: see the op `Attention`."""

    heads: int
    k_transposed: bool

    @classmethod
    def of(cls, node: Node) -> _Layout:
        return cls(node.integer("heads"), bool(node.integer("k_transposed")))

    def shape(self, shape: tuple[int, ...], place: int) -> tuple[int, ...]:
        """Of an input, as `[..., heads, n, size]`."""
        if self.heads:
            *batch, n, width = shape
            return (*batch, self.heads, n, width // self.heads)
        return (*shape[:-2], shape[-1], shape[-2]) if self.k_transposed and place == 1 else shape

    def apart(self, array: Array, place: int) -> Array:
        """An input as `[..., heads, n, size]`."""
        if self.heads:
            parted = array.reshape(*array.shape[:-1], self.heads, -1)
            return np.swapaxes(parted, -2, -3)
        return np.swapaxes(array, -1, -2) if self.k_transposed and place == 1 else array

    def together(self, array: Array) -> Array:
        """The output, of `[..., heads, n, size]`."""
        if not self.heads:
            return array
        joined = np.swapaxes(array, -2, -3)
        return joined.reshape(*joined.shape[:-2], -1)


class Planner:
    """Makes plans of graphs that share their weights.

    Args:
        kernels: Those that can be had, by name.
        length: Keys that the attention kernel takes; None when there is none.
        precision: How floats become int8.
        blocks: Shares the host's work; closed with the planner.

    Attributes:
        length: As given.
    """

    def __init__(
        self, kernels: Mapping[str, TileExecutable], length: int | None, precision: Precision, blocks: Blocks
    ) -> None:
        self._kernels = kernels
        self.length = length
        self._precision = precision
        self._blocks = blocks
        self._layers: dict[bytes, Layer] = {}

    def claimed(self, graph: Graph) -> dict[str, Claim]:
        """The nodes that go to the NPU, by their output."""
        claims = claims_of(graph, self.length)
        return {
            claim.node.output: claim
            for claim in claims
            if claim.kernel in self._kernels and not self._precision.keeps(claim.node.name)
        }

    def plan(self, graph: Graph) -> Plan:
        """The steps of a graph."""
        claimed = self.claimed(graph)
        divisors = self._divisors(graph, [claim.node for claim in claimed.values()])
        steps: list[Step] = []
        for node in graph.nodes:
            claim = claimed.get(node.output)
            if claim is None:
                steps.append(self._on_host(graph, node))
            elif node.op == "Attention":
                steps += self._attention(graph, claim)
            else:
                steps += self._product(graph, claim, divisors.get(node.input(0)))
        read = {name for step in steps for name in step.inputs} | set(graph.outputs)
        constants = {name: array for name, array in graph.constants.items() if name in read}
        return Plan(steps, constants, {name: name for name in graph.outputs})

    def close(self) -> None:
        """Take the weights off the NPU."""
        for layer in self._layers.values():
            layer.close()
        self._layers.clear()
        self._blocks.close()

    def _product(self, graph: Graph, claim: Claim, divisors: Floats | None) -> list[Step]:
        node = claim.node
        bias, residual = node.input(2), node.input(3)
        rest = bool(residual or node.text("activation"))
        output = graph.fresh(f"{node.output}/product") if rest else node.output
        step = LinearStep(
            node.name or node.output,
            (node.input(0),),
            (output,),
            self._layer(graph.constants[node.input(1)], claim.kernel, divisors),
            graph.constants[bias] if bias else None,
            wide=self._precision.bits == 16,
            blocks=self._blocks,
        )
        if not rest:
            return [step]

        def finish(values: Sequence[Array]) -> list[Array]:
            y = activate(node, values[0])
            return [y + values[1] if residual else y]

        inputs = (output, residual) if residual else (output,)
        return [step, HostStep(node.name, node.text("activation") or "Add", inputs, node.outputs, finish)]

    def _layer(self, weight: Floats, kernel: str, divisors: Floats | None) -> Layer:
        digest = hashlib.blake2b(np.ascontiguousarray(weight).data, digest_size=16)
        digest.update(repr(weight.shape).encode())
        digest.update(b"" if divisors is None else divisors.tobytes())
        key = digest.digest()
        if key not in self._layers:
            depth, channels = map(int, kernel.rsplit("_", 1)[1].split("x"))
            self._layers[key] = Layer(self._kernels[kernel], matrix_of(weight, depth, channels, divisors))
        return self._layers[key]

    def _attention(self, graph: Graph, claim: Claim) -> list[Step]:
        node, layout = claim.node, _Layout.of(claim.node)
        assert self.length is not None
        names = node.inputs[:3]
        if layout == _Layout(0, k_transposed=False):
            return [self._heads(claim, names, node.output, self.length)]
        parts = tuple(graph.fresh(f"{node.output}/{name}") for name in "qkv")
        output = graph.fresh(f"{node.output}/heads")
        return [
            HostStep(node.name, "Reshape", names, parts, lambda xs: [layout.apart(x, i) for i, x in enumerate(xs)]),
            self._heads(claim, parts, output, self.length),
            HostStep(node.name, "Reshape", (output,), node.outputs, lambda xs: [layout.together(xs[0])]),
        ]

    def _heads(self, claim: Claim, inputs: tuple[str, ...], output: str, length: int) -> AttentionStep:
        node = claim.node
        scale = node.number("scale", 1.0)
        kernel = self._kernels[claim.kernel]
        return AttentionStep(node.name or node.output, inputs, (output,), kernel, scale, length, self._blocks)

    def _on_host(self, graph: Graph, node: Node) -> HostStep:
        places = tuple(name for name in node.inputs if name)

        def compute(values: Sequence[Array]) -> Sequence[Array]:
            arrays = iter(values)
            return evaluate_node(node, [next(arrays) if name else None for name in node.inputs])

        last = graph.types[node.output].rank - 1
        if node.op in _ROW_BY_ROW and last > 0 and node.integer("axis", -1) in (-1, last):
            # Each row by itself: rows of all dimensions in front together, in blocks.
            alike = replace(node, attributes={**node.attributes, **({"axis": -1} if "axis" in node.attributes else {})})

            def by_rows(values: Sequence[Array]) -> Sequence[Array]:
                x, rest = values[0], values[1:]
                flat = x.reshape(-1, x.shape[-1])
                y = np.empty_like(flat)

                def work(some: slice) -> None:
                    y[some] = evaluate_node(alike, [flat[some], *rest])[0]

                self._blocks.each(*flat.shape, work)
                return [y.reshape(x.shape)]

            compute = by_rows
        return HostStep(node.name or node.output, node.op, places, node.outputs, compute)

    def _divisors(self, graph: Graph, nodes: Sequence[Node]) -> dict[str, Floats]:
        """What activations are divided by, by their value: one for all products of it, so that it is quantised once."""
        alpha = self._precision.alpha
        if alpha is None:
            return {}
        users: dict[str, list[Node]] = {}
        for node in nodes:
            if node.op != "Attention":
                users.setdefault(node.input(0), []).append(node)
        found = {}
        for value, those in users.items():
            weights = np.concatenate([graph.constants[node.input(1)] for node in those], axis=1)
            largest = next((self._precision.largest[n.name] for n in those if n.name in self._precision.largest), None)
            found[value] = smoothing(weights, largest, alpha)
        return found
