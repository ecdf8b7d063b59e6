"""Ways to have ONNX Runtime's answer end in an array of the caller's, and what `session(x, out=y)` makes of them.

    python benchmarks/cpu_out.py [--rounds 31] [--json]

First the ways of handing over the array, each against `session.run` that gives a new one. Then the doors of hetero: a
plain call; one with `out=` in which the executable writes; one in which the core copies (as it does for `submit`). One
thread, so that the pool's noise stays out. The ways are interleaved within a round; medians, and medians of each
round's ratio to the first way, are printed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper
from rich.console import Console
from rich.table import Table

import hetero
from hetero.backend import Array
from hetero.onnx_file import open_onnx
from hetero_cpu.backend import CpuBackend

Way = Callable[[], Array]


def doubling(path: Path, shape: list[int | str]) -> Path:
    """y = x + x, which costs hardly more than writing y."""
    return save(path, [helper.make_node("Add", ["x", "x"], ["y"])], shape)


def product(path: Path, n: int) -> Path:
    """y = x @ x."""
    return save(path, [helper.make_node("MatMul", ["x", "x"], ["y"])], [n, n])


def save(path: Path, nodes: list[Any], shape: list[int | str]) -> Path:
    """A model of float32 from x to y, both of one shape."""
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)] for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", *ends)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def vendor_ways(path: Path, x: Array, y: Array) -> dict[str, Way]:
    """What onnxruntime offers."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    binding, kept = session.io_binding(), session.io_binding()
    kept.bind_cpu_input("x", x)
    kept.bind_output("y", "cpu", 0, y.dtype, y.shape, y.ctypes.data)

    def run() -> Array:
        answer: Array = session.run(["y"], {"x": x})[0]
        return answer

    def run_and_copy() -> Array:
        np.copyto(y, session.run(["y"], {"x": x})[0])
        return y

    def bind_each_time() -> Array:
        binding.bind_cpu_input("x", x)
        binding.bind_output("y", "cpu", 0, y.dtype, y.shape, y.ctypes.data)
        session.run_with_iobinding(binding)
        return y

    def bound_once() -> Array:
        session.run_with_iobinding(kept)
        return y

    return {"session.run": run, "run, copy": run_and_copy, "bind, run": bind_each_time, "run, bound before": bound_once}


def hetero_ways(path: Path, x: Array, y: Array, runtime: hetero.Runtime) -> dict[str, Way]:
    """The executable and the doors."""
    backend = CpuBackend(hetero.Host(cache=path.parent / "cache"))
    executable = backend.load(open_onnx(path), backend.probe()[0], {"threads": 1})
    session = runtime.load(path, device="cpu", options={"cpu": {"threads": 1}})
    timed = runtime.load(path, device="cpu", options={"cpu": {"threads": 1}}, timeout=60.0)
    lane, feed, outputs = hetero.Call(0), {"x": x}, {"y": y}

    def plain() -> Array:
        lane.outputs = None
        return executable.run(feed, lane)["y"]

    def direct() -> Array:
        lane.outputs = outputs
        return executable.run(feed, lane)["y"]

    return {
        "executable": plain,
        "executable, Call.outputs": direct,
        "session(x)": lambda: session(x),
        "session(x, out=y)": lambda: session(x, out=y),
        "session(x), timeout": lambda: timed(x),
        "session(x, out=y), timeout": lambda: timed(x, out=y),
    }


def measure(ways: dict[str, Way], rounds: int) -> dict[str, dict[str, float]]:
    """Median time of each way, and median ratio to the first."""
    names = list(ways)
    expected = ways[names[0]]().copy()
    for name, way in ways.items():
        if not np.array_equal(way(), expected):
            raise SystemExit(f"{name} answers differently")
    started = time.perf_counter()
    ways[names[0]]()
    turns = max(5, int(0.004 / (time.perf_counter() - started)))
    times: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name, way in ways.items():
            started = time.perf_counter()
            for _ in range(turns):
                way()
            times[name].append((time.perf_counter() - started) / turns)
    base = times[names[0]]
    return {
        name: {
            "us": round(statistics.median(values) * 1e6, 1),
            "ratio": round(statistics.median(a / b for a, b in zip(values, base, strict=True)), 2),
        }
        for name, values in times.items()
    }


def main() -> None:
    """Measure all cases and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    random = np.random.default_rng(0)
    results: dict[str, dict[str, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder, hetero.Runtime(learn=False) as runtime:
        path = Path(folder) / "model.onnx"
        cases: dict[str, tuple[Callable[[], Path], tuple[int, ...]]] = {
            "matmul 32x32 (4 KiB)": (lambda: product(path, 32), (32, 32)),
            "matmul 64x64 (16 KiB)": (lambda: product(path, 64), (64, 64)),
            "matmul 512x512 (1 MiB)": (lambda: product(path, 512), (512, 512)),
            "add, 1 KiB": (lambda: doubling(path, [256]), (256,)),
            "add, 256 KiB": (lambda: doubling(path, [65536]), (65536,)),
            "add, 64 KiB": (lambda: doubling(path, [16384]), (16384,)),
            "add, 1 MiB": (lambda: doubling(path, [1, 512, 512]), (1, 512, 512)),
            "add, 1 MiB, dynamic": (lambda: doubling(path, ["n", 512, 512]), (1, 512, 512)),
            "add, 16 MiB": (lambda: doubling(path, [16, 512, 512]), (16, 512, 512)),
            "add, 64 MiB": (lambda: doubling(path, [64, 512, 512]), (64, 512, 512)),
        }
        for name, (make, shape) in cases.items():
            make()
            x, y = random.random(shape, np.float32), np.empty(shape, np.float32)
            results[name] = measure(vendor_ways(path, x, y), options.rounds)
            results[f"{name}: hetero"] = measure(hetero_ways(path, x, y, runtime), options.rounds)
    if options.json:
        print(json.dumps({"onnxruntime": onnxruntime.__version__, "cases": results}))
        return
    table = Table("case", "way", "median us", "ratio")
    for name, result in results.items():
        for way, numbers in result.items():
            table.add_row(name, way, f"{numbers['us']:.1f}", f"{numbers['ratio']:.2f}")
            name = ""
        table.add_section()
    console = Console()
    console.print(f"onnxruntime {onnxruntime.__version__}; ratios to the first way of each case")
    console.print(table)


if __name__ == "__main__":
    main()
