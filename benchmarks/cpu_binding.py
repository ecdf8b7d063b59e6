"""Ways to hand numpy arrays to ONNX Runtime and back, and what the CPU backend makes of them.

    python benchmarks/cpu_binding.py [--rounds 31] [--json]

Every way is safe for the caller: outputs are new arrays in each call. One thread, so that the pool's noise stays out.
The ways are interleaved within a round; medians, and medians of each round's ratio to `session.run`, are printed.
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

Feed = dict[str, Array]
Way = Callable[[], dict[str, Array]]


def pairs(path: Path, count: int, shape: list[int | str]) -> Path:
    """y0 = x0 + x0, y1 = x1 + x1, ..."""
    nodes = [helper.make_node("Add", [f"x{i}", f"x{i}"], [f"y{i}"]) for i in range(count)]
    return save(path, nodes, [f"x{i}" for i in range(count)], [f"y{i}" for i in range(count)], shape)


def matmul(path: Path, n: int) -> Path:
    """The product of two square matrices."""
    return save(path, [helper.make_node("MatMul", ["a", "b"], ["c"])], ["a", "b"], ["c"], [n, n])


def save(path: Path, nodes: list[Any], inputs: list[str], outputs: list[str], shape: list[int | str]) -> Path:
    """A model of these nodes, all ends float32 and of one shape."""

    def ends(names: list[str]) -> list[Any]:
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in names]

    graph = helper.make_graph(nodes, "g", ends(inputs), ends(outputs))
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def ways(path: Path, feed: Feed) -> dict[str, Way]:
    """The ways to run the model on these arrays, by name."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    backend = CpuBackend(hetero.Host(cache=path.parent / "cache"))
    executable = backend.load(open_onnx(path), backend.probe()[0], {"threads": 1})
    lane = hetero.Call(0)

    def run() -> dict[str, Array]:
        return dict(zip(names, session.run(names, feed), strict=True))

    copied = session.io_binding()
    for name in names:
        copied.bind_output(name)

    def bind_and_copy() -> dict[str, Array]:
        for name, array in feed.items():
            copied.bind_cpu_input(name, array)
        session.run_with_iobinding(copied)
        return dict(zip(names, copied.copy_outputs_to_cpu(), strict=True))

    def ort_values() -> dict[str, Array]:
        given = {name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in feed.items()}
        got = session.run_with_ort_values(names, given)
        return {name: value.numpy() for name, value in zip(names, got, strict=True)}

    found: dict[str, Way] = {"session.run": run, "bind, copy_outputs_to_cpu": bind_and_copy, "OrtValues": ort_values}
    if all(type(size) is int for value in [*session.get_inputs(), *session.get_outputs()] for size in value.shape):
        found |= fixed(session)(feed)
    found["hetero_cpu"] = lambda: dict(executable.run(feed, lane))
    return found


def fixed(session: Any) -> Callable[[Feed], dict[str, Way]]:
    """The ways that need to know the outputs' shapes before a run."""
    shapes = {output.name: tuple(output.shape) for output in session.get_outputs()}
    new, bound = session.io_binding(), session.io_binding()
    inputs = {value.name: np.empty(value.shape, np.float32) for value in session.get_inputs()}
    outputs = {name: np.empty(shape, np.float32) for name, shape in shapes.items()}
    for name, buffer in inputs.items():
        bound.bind_cpu_input(name, buffer)
    for name, buffer in outputs.items():
        bound.bind_output(name, "cpu", 0, np.float32, buffer.shape, buffer.ctypes.data)

    def make(feed: Feed) -> dict[str, Way]:
        def preallocated() -> dict[str, Array]:
            for name, array in feed.items():
                new.bind_cpu_input(name, array)
            given = {name: np.empty(shape, np.float32) for name, shape in shapes.items()}
            for name, array in given.items():
                new.bind_output(name, "cpu", 0, np.float32, array.shape, array.__array_interface__["data"][0])
            session.run_with_iobinding(new)
            return given

        def buffers() -> dict[str, Array]:
            for name, buffer in inputs.items():
                buffer[...] = feed[name]
            session.run_with_iobinding(bound)
            return {name: buffer.copy() for name, buffer in outputs.items()}

        return {"bind, preallocated outputs": preallocated, "buffers bound once": buffers}

    return make


def measure(path: Path, feed: Feed, rounds: int) -> dict[str, dict[str, float]]:
    """Median time and median ratio of each way."""
    candidates = ways(path, feed)
    expected = candidates["session.run"]()
    for name, way in candidates.items():
        got = way()
        if not all(np.array_equal(got[key], value) for key, value in expected.items()):
            raise SystemExit(f"{name} answers differently")
    started = time.perf_counter()
    candidates["session.run"]()
    turns = max(10, int(0.004 / (time.perf_counter() - started)))
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, way in candidates.items():
            started = time.perf_counter()
            for _ in range(turns):
                way()
            times[name].append((time.perf_counter() - started) / turns)
    base = times["session.run"]
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

    def arrays(names: list[str], *shape: int) -> Feed:
        return {name: random.random(shape, np.float32) for name in names}

    x25 = [f"x{i}" for i in range(25)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        cases: dict[str, Callable[[], tuple[Path, Feed]]] = {
            "matmul 32x32 (4 KiB each)": lambda: (matmul(path, 32), arrays(["a", "b"], 32, 32)),
            "matmul 64x64 (16 KiB each)": lambda: (matmul(path, 64), arrays(["a", "b"], 64, 64)),
            "1 KiB, fixed": lambda: (pairs(path, 1, [256]), arrays(["x0"], 256)),
            "3 MiB, fixed": lambda: (pairs(path, 1, [1, 1500, 512]), arrays(["x0"], 1, 1500, 512)),
            "25 in and out, 1 KiB each, fixed": lambda: (pairs(path, 25, [1, 256]), arrays(x25, 1, 256)),
            "25 in and out, 8 KiB each, fixed": lambda: (pairs(path, 25, [1, 2048]), arrays(x25, 1, 2048)),
            "25 in and out, 16 KiB each, fixed": lambda: (pairs(path, 25, [1, 4096]), arrays(x25, 1, 4096)),
            "25 in and out, 1 KiB each, dynamic": lambda: (pairs(path, 25, ["n", 256]), arrays(x25, 1, 256)),
            "25 in and out, 75 KiB each, dynamic": lambda: (pairs(path, 25, ["n", 19200]), arrays(x25, 1, 19200)),
        }
        results = {name: measure(*case(), options.rounds) for name, case in cases.items()}
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
    console.print(f"onnxruntime {onnxruntime.__version__}; ratios to session.run")
    console.print(table)


if __name__ == "__main__":
    main()
