"""How near a graph's layers come to float32, and which activations they see: for choosing what stays in float."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hetero.backend import Call
from hetero.graph.evaluate import evaluate
from hetero.graph.ir import Graph
from hetero.tensors import Array
from hetero_xrt.graph import GraphExecutable
from hetero_xrt.onnx_program import MIN_COSINE, OnnxOnNpu
from hetero_xrt.quantise import Floats


@dataclass(frozen=True)
class Nearness:
    """How near one value comes.

    Attributes:
        name: Of the node that gives it.
        kind: `product`, `attention`, `block` (a sum that layers are strung along) or `output`.
        cosine: Of the angle between it and float32's, the least of all samples: with everything before it on the NPU.
    """

    name: str
    kind: str
    cosine: float


def compare_layers(made: OnnxOnNpu, samples: Sequence[Mapping[str, Array]]) -> list[Nearness]:
    """Compare what the NPU computes with float32, layer by layer.

    Args:
        made: The program; stays usable.
        samples: Inputs of its usual shapes.

    Returns:
        Products, attention, sums and outputs, in their order in the graph.
    """
    graph = made.graph()
    values = _points(made, graph)
    exact = replace(graph, outputs=tuple(values))
    plan = made.plan(made.shapes, also=list(values))
    executable = GraphExecutable(lambda shapes: plan, lambda: None, min_cosine=MIN_COSINE, details={})
    worst = dict.fromkeys(values, 1.0)
    for sample in samples:
        expected, got = evaluate(exact, sample), executable.run(sample, Call())
        for value in values:
            worst[value] = min(worst[value], cosine(got[value], expected[value]))
    return [Nearness(*about, worst[value]) for value, about in values.items()]


def largest_activations(made: OnnxOnNpu, samples: Iterable[Mapping[str, Array]]) -> dict[str, Floats]:
    """The largest magnitude of each input channel of each product in some samples, by the product's name: `[k]`.

    Args:
        made: The program.
        samples: Inputs of its usual shapes.
    """
    graph = made.graph()
    products = [claim.node for claim in made.claimed(graph).values() if claim.node.op != "Attention"]
    seen = replace(graph, outputs=tuple(dict.fromkeys(node.input(0) for node in products)))
    found: dict[str, Floats] = {}
    for sample in samples:
        values = evaluate(seen, sample)
        for node in products:
            x = np.abs(values[node.input(0)]).reshape(-1, values[node.input(0)].shape[-1]).max(axis=0)
            found[node.name] = np.maximum(found.get(node.name, np.float32(0)), x)
    return found


def write_statistics(path: Path, largest: Mapping[str, Floats]) -> None:
    """Write what `largest_activations` gave, for the option `statistics`."""
    with path.open("wb") as file:
        np.savez(file, **dict(largest))  # type: ignore[arg-type]


def cosine(a: Array, b: Array) -> float:
    """Of the angle between two arrays taken as vectors; NaN where one is zero."""
    x, y = a.reshape(-1).astype(np.float64), b.reshape(-1).astype(np.float64)
    return float(x @ y / np.sqrt((x @ x) * (y @ y)))


def _points(made: OnnxOnNpu, graph: Graph) -> dict[str, tuple[str, str]]:
    """The values to look at, with the name and the kind of each."""
    claimed = made.claimed(graph)
    points = {}
    for node in graph.nodes:
        name = node.name or node.output
        if node.output in claimed:
            kind = "attention" if node.op == "Attention" else "product"
            points[node.output] = (name, kind)
        if node.op == "Add" and not any(value in graph.constants for value in node.inputs):
            points[node.output] = (name, "block")
        if node.output in graph.outputs:
            points[node.output] = (name, "output")
    return points
