"""What a process of its own costs per call: the same backend with and without, on small and on large tensors.

    python benchmarks/isolation.py [--rounds 200] [--json]

The program gives its input back, so that what is measured is the way there and back. Cases are interleaved, so that a
busy machine slows all of them alike; medians are printed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import hetero
from hetero.backend import Array, Artifact, Backend, Call, Device, Executable, Program, TensorSpec
from hetero.isolation import isolated

F32 = np.dtype(np.float32)
SIZES = {"64x64 float32 (16 KB)": (64, 64), "7,500,000 float32 (30 MB)": (7_500_000,)}


class Copying(Backend):
    name = "copying"

    def probe(self) -> Sequence[Device]:
        return [Device("copying", kind="cpu")]

    def load(self, program: Program, device: Device, options: Mapping[str, Any]) -> Executable:
        return Copy()


class Copy(Executable):
    def run(self, inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        return {"y": inputs["x"].copy()}


def program(shape: tuple[int, ...]) -> Program:
    specs = (TensorSpec("x", F32, shape),), (TensorSpec("y", F32, shape),)
    return Program("copy", *specs, (Artifact("none", name="copy"),))


def loaded(factory: Any, shape: tuple[int, ...]) -> tuple[Backend, Executable]:
    backend: Backend = factory(hetero.Host())
    executable = backend.load(program(shape), backend.probe()[0], {})
    assert isinstance(executable, Executable)
    return backend, executable


def interleave(cases: dict[str, Callable[[], Any]], rounds: int, block: int) -> dict[str, float]:
    """Median seconds of one call of each case."""
    times: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(rounds + 5):
        for name, call in cases.items():
            started = time.perf_counter()
            for _ in range(block):
                call()
            if turn >= 5:
                times[name].append((time.perf_counter() - started) / block)
    return {name: statistics.median(values) for name, values in times.items()}


def measure(shape: tuple[int, ...], rounds: int, module: Any) -> dict[str, float]:
    x = np.random.default_rng(0).random(shape, F32)
    call = Call()
    here, inside = loaded(module.Copying, shape)
    apart, outside = loaded(isolated(module.Copying), shape)
    large = x.nbytes > 1 << 20
    try:
        cases = {
            "in process": lambda: inside.run({"x": x}, call),
            "isolated": lambda: outside.run({"x": x}, call),
        }
        medians = interleave(cases, min(rounds, 40) if large else rounds, 1 if large else 20)
    finally:
        apart.close()
        here.close()
    return {name: round(seconds * 1e6, 1) for name, seconds in medians.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()

    # The backend has to be found by name in its process, where this script is not the main module.
    sys.path.insert(0, str(Path(__file__).parent))
    import isolation as module

    started = time.perf_counter()
    backend = isolated(module.Copying)(hetero.Host())
    backend.probe()
    start_ms = (time.perf_counter() - started) * 1e3
    backend.close()
    result = {name: measure(shape, arguments.rounds, module) for name, shape in SIZES.items()}
    if arguments.json:
        print(json.dumps({"median_us": result, "start_ms": round(start_ms)}))
        return
    table = Table("tensor in and out", "in process, us", "isolated, us", "adds, us")
    for name, medians in result.items():
        inside, outside = medians["in process"], medians["isolated"]
        table.add_row(name, f"{inside:,.1f}", f"{outside:,.1f}", f"{outside - inside:,.1f}")
    console = Console()
    console.print(table)
    console.print(f"starting the process, up to the first answer: {start_ms:.0f} ms")


if __name__ == "__main__":
    main()
