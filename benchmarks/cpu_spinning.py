"""What it costs to let ONNX Runtime's idle threads spin, and what it brings.

    python benchmarks/cpu_spinning.py [--rounds 15] [--json]

A matrix product of 256x256 in two threads, back to back and with pauses of 2 ms, and twelve layers of 512x512 for a
batch of 32. Wall time and CPU time of the process for each call; the settings are interleaved, medians are printed.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper, save
from rich.console import Console
from rich.table import Table

from hetero.backend import Array

# Session configuration; "unlimited" is what ONNX Runtime does when it is told nothing.
SETTINGS: dict[str, dict[str, str]] = {
    "off": {"allow_spinning": "0"},
    "50 us": {"allow_spinning": "1", "spin_duration_us": "50"},
    "200 us": {"allow_spinning": "1", "spin_duration_us": "200"},
    "1000 us": {"allow_spinning": "1", "spin_duration_us": "1000"},
    "unlimited": {},
}


def layers(path: Path, count: int, rows: int, width: int) -> Path:
    """So many matrix products with a ReLU each."""
    random = np.random.default_rng(0)
    nodes, weights, x = [], [], "x"
    for layer in range(count):
        weights.append(numpy_helper.from_array(random.standard_normal((width, width), np.float32), f"w{layer}"))
        nodes.append(helper.make_node("MatMul", [x, f"w{layer}"], [f"m{layer}"]))
        nodes.append(helper.make_node("Relu", [f"m{layer}"], [f"r{layer}"]))
        x = f"r{layer}"
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [rows, width]) for name in ("x", x)]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def load(path: Path, settings: dict[str, str]) -> Any:
    """A session with two threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    for name, value in settings.items():
        options.add_session_config_entry(f"session.intra_op.{name}", value)
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def cpu_seconds() -> float:
    """CPU time of this process, all threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def measure(path: Path, x: Array, calls: int, pause: float, rounds: int) -> dict[str, dict[str, float]]:
    """Median wall and CPU milliseconds of a call in each setting."""
    sessions = {name: load(path, settings) for name, settings in SETTINGS.items()}
    wall: dict[str, list[float]] = {name: [] for name in SETTINGS}
    cpu: dict[str, list[float]] = {name: [] for name in SETTINGS}
    for turn in range(rounds + 1):
        for name, session in sessions.items():
            time.sleep(0.02)  # the threads of the setting before go to sleep
            spent, took = cpu_seconds(), 0.0
            for _ in range(calls):
                started = time.perf_counter()
                session.run(None, {"x": x})
                took += time.perf_counter() - started
                if pause:
                    time.sleep(pause)
            if turn:
                wall[name].append(took / calls * 1e3)
                cpu[name].append((cpu_seconds() - spent) / calls * 1e3)
    return {
        name: {"wall_ms": round(statistics.median(wall[name]), 3), "cpu_ms": round(statistics.median(cpu[name]), 3)}
        for name in SETTINGS
    }


def main() -> None:
    """Measure all cases and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    random = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as folder:
        one, twelve = layers(Path(folder) / "1.onnx", 1, 256, 256), layers(Path(folder) / "12.onnx", 12, 32, 512)
        square, batch = random.random((256, 256), np.float32), random.random((32, 512), np.float32)
        results = {
            "256x256, back to back": measure(one, square, 100, 0, options.rounds),
            "256x256, pauses of 2 ms": measure(one, square, 30, 0.002, options.rounds),
            "12 layers, back to back": measure(twelve, batch, 50, 0, options.rounds),
        }
    if options.json:
        print(json.dumps({"onnxruntime": onnxruntime.__version__, "cases": results}))
        return
    table = Table("case", "spinning", "wall ms", "CPU ms")
    for name, result in results.items():
        for setting, numbers in result.items():
            table.add_row(name, setting, f"{numbers['wall_ms']:.3f}", f"{numbers['cpu_ms']:.3f}")
            name = ""
        table.add_section()
    console = Console()
    console.print(f"onnxruntime {onnxruntime.__version__}, two threads")
    console.print(table)


if __name__ == "__main__":
    main()
