"""What keeping optimised graphs saves at load, and from which size on it does not pay.

    python benchmarks/cpu_graph_cache.py [--rounds 9] [--json]

Models with random weights: transformer encoders as exporters write them, with layer norms and GELUs in single nodes,
and stacks of convolutions. They are loaded through the CPU backend: without the cache; the first time with it, which
writes; later, which reads. "later" includes the digest of the model's bytes, which tells that it is still the same.
The backend's own limits of size are lifted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from rich.console import Console
from rich.table import Table

import hetero
from hetero.onnx_file import open_onnx
from hetero_cpu import graph_cache
from hetero_cpu.backend import CpuBackend


class Graph:
    """A graph under construction; every method adds nodes and gives the name of what they make."""

    def __init__(self) -> None:
        self.random = np.random.default_rng(0)
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """One node."""
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def const(self, value: Any, dtype: type = np.float32) -> str:
        """A stored tensor."""
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def weight(self, *shape: int) -> str:
        """A stored tensor of small random numbers."""
        return self.const(self.random.standard_normal(shape, np.float32) * 0.02)

    def linear(self, x: str, n: int, m: int) -> str:
        """A product with stored weights, and a bias."""
        return self.op("Add", self.op("MatMul", x, self.weight(n, m)), self.weight(m))

    def norm(self, x: str, width: int) -> str:
        """A layer norm in nine nodes."""
        centred = self.op("Sub", x, self.op("ReduceMean", x, axes=[-1]))
        variance = self.op("ReduceMean", self.op("Pow", centred, self.const(2)), axes=[-1])
        scaled = self.op("Div", centred, self.op("Sqrt", self.op("Add", variance, self.const(1e-5))))
        return self.op("Add", self.op("Mul", scaled, self.weight(width)), self.weight(width))

    def gelu(self, x: str) -> str:
        """A GELU in five nodes."""
        curve = self.op("Add", self.op("Erf", self.op("Div", x, self.const(2**0.5))), self.const(1))
        return self.op("Mul", self.op("Mul", x, curve), self.const(0.5))

    def heads(self, x: str, width: int) -> str:
        """[1, n, width] to [1, width / 64 or 4, n, ...]."""
        count = max(4, width // 64)
        split = self.op("Reshape", x, self.const([1, -1, count, width // count], np.int64))
        return self.op("Transpose", split, perm=[0, 2, 1, 3])

    def block(self, x: str, width: int) -> str:
        """One transformer layer."""
        h = self.norm(x, width)
        q, k, v = (self.heads(self.linear(h, width, width), width) for _ in range(3))
        weights = self.op("Softmax", self.op("MatMul", q, self.op("Transpose", k, perm=[0, 1, 3, 2])), axis=-1)
        mixed = self.op("Transpose", self.op("MatMul", weights, v), perm=[0, 2, 1, 3])
        x = self.op(
            "Add", x, self.linear(self.op("Reshape", mixed, self.const([1, -1, width], np.int64)), width, width)
        )
        inner = self.gelu(self.linear(self.norm(x, width), width, 4 * width))
        return self.op("Add", x, self.linear(inner, 4 * width, width))

    def model(self, result: str, shape: list[int | str]) -> ModelProto:
        """All of it, from `x` to `result`, of one shape."""
        ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", result)]
        graph = helper.make_graph(self.nodes, "g", ends[:1], ends[1:], self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def transformer(layers: int, width: int) -> ModelProto:
    """An encoder of so many layers."""
    graph, x = Graph(), "x"
    for _ in range(layers):
        x = graph.block(x, width)
    return graph.model(x, [1, "n", width])


def convolutions(layers: int, channels: int) -> ModelProto:
    """So many 3x3 convolutions with a normalisation and a ReLU each."""
    graph, x = Graph(), "x"
    for _ in range(layers):
        x = graph.op("Conv", x, graph.weight(channels, channels, 3, 3), pads=[1, 1, 1, 1])
        statistics_ = [graph.const(np.ones(channels)) for _ in range(4)]
        x = graph.op("Relu", graph.op("BatchNormalization", x, *statistics_))
    return graph.model(x, [1, channels, 14, 14])


def measure(model: ModelProto, folder: Path, rounds: int) -> dict[str, float]:
    """Medians in milliseconds, and sizes."""
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    backend = CpuBackend(hetero.Host(cache=folder / "cache"))
    (device,) = backend.probe()

    def load(expected: str, **options: Any) -> float:
        program = open_onnx(path)  # anew: a program keeps its digest
        started = time.perf_counter()
        executable = backend.load(program, device, {"threads": 1, **options})
        took = time.perf_counter() - started
        if executable.details["graph"] != expected:
            raise SystemExit(f"the graph is {executable.details['graph']!r}, expected {expected!r}")
        executable.close()
        return took * 1e3

    load("not kept", graph_cache=False)
    first = load("new")
    times: dict[str, list[float]] = {"without": [], "later": [], "digest": []}
    for _ in range(rounds):
        times["without"].append(load("not kept", graph_cache=False))
        times["later"].append(load("cache"))
        started = time.perf_counter()
        _ = open_onnx(path).artifact("onnx").digest
        opened = time.perf_counter()
        open_onnx(path)
        times["digest"].append((2 * opened - started - time.perf_counter()) * 1e3)
    return {
        "nodes": len(model.graph.node),
        "megabytes": round(path.stat().st_size / 1e6, 1),
        "first": round(first, 1),
        **{name: round(statistics.median(values), 1) for name, values in times.items()},
        "ratio": round(statistics.median(b / a for a, b in zip(times["without"], times["later"], strict=True)), 2),
    }


def main() -> None:
    """Measure all models and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    graph_cache.SMALLEST, graph_cache.LARGEST = 0, 1 << 40
    models = {
        "transformer 1 x 16": transformer(1, 16),
        "transformer 2 x 32": transformer(2, 32),
        "transformer 4 x 64": transformer(4, 64),
        "transformer 24 x 64": transformer(24, 64),
        "transformer 4 x 160": transformer(4, 160),
        "transformer 4 x 256": transformer(4, 256),
        "transformer 4 x 384 (tiny)": transformer(4, 384),
        "transformer 6 x 512 (base)": transformer(6, 512),
        "convolutions 20 x 64": convolutions(20, 64),
        "convolutions 50 x 256": convolutions(50, 256),
    }
    results = {}
    for name, model in models.items():
        with tempfile.TemporaryDirectory() as folder:
            results[name] = measure(model, Path(folder), options.rounds)
    if options.json:
        print(json.dumps({"onnxruntime": onnxruntime.__version__, "models": results}))
        return
    columns = ("nodes", "megabytes", "without", "first", "later", "digest", "ratio")
    table = Table("model", "nodes", "MB", *columns[2:])
    for name, result in results.items():
        table.add_row(name, *(str(result[column]) for column in columns))
    console = Console()
    console.print(
        f"onnxruntime {onnxruntime.__version__}; milliseconds; ratio: later to without; tiny, base: sizes of Whisper"
    )
    console.print(table)


if __name__ == "__main__":
    main()
