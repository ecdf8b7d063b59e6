"""Scheduling over NPU cores, on the simulated librknnrt with jobs of a modelled 20 ms.

    python benchmarks/rknn_schedule.py [--jobs 60] [--rounds 5] [--peer] [--json]

The library is a simulator: a job holds its core for a modelled time, in real time. What is measured on top of that is
real: how well the cores are kept busy, and what our layer costs. Cases are interleaved; medians over the rounds are
printed.

- One core against three, jobs of equal length.
- Uneven jobs (each 20 ms plus or minus half) and one core three times slower: the next free core takes the next job,
  against jobs that go round the cores (`order="static"`, as EZ RKNN Async has it).
- What our layer adds to a job, without modelled time: `session(x)` against the driver's context alone.

`--peer` runs EZ RKNN Async (ztu-somemodelruntime-ez-rknn-async, AGPL and no dependency of ours) on the same library in
a virtual environment of its own, which is made on first use.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from rich.console import Console
from rich.table import Table

import hetero
from hetero.backend import Call, Host
from hetero.cache import cache_dir
from hetero.testing.rknn import library, twin
from hetero.testing.rknn.npu import SimulatedNpu
from hetero_rknn.backend import RknnBackend

EVEN = SimulatedNpu(job_seconds=0.020)
UNEVEN = SimulatedNpu(job_seconds=0.020, spread=0.5, slowness=(1, 1, 3), seed=1)
FREE = SimulatedNpu()

PEER = "ztu-somemodelruntime-ez-rknn-async"

# One process runs one case: the peer destroys contexts in an order of its own, and nothing of it is to reach ours.
PEER_JOB = """
import json, sys, time
import numpy as np
import ztu_somemodelruntime_ez_rknn_async as ez
model, jobs, options = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
session = ez.InferenceSession(model, provider_options=[ez.make_provider_options(**options)])
x = {session.get_inputs()[0].name: np.ones((1, 16), np.float32)}
session.run(None, x)
done = []
started = time.perf_counter()
for _ in range(jobs):
    session.run_async(None, x, lambda outputs, data, error: done.append(error), None)
while len(done) < jobs:
    time.sleep(0.0002)
assert not any(done), done
print(json.dumps(time.perf_counter() - started))
"""


def model(folder: Path) -> Path:
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        "double",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 16])],
    )
    path = folder / "double.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


class Board:
    """A Runtime on the simulated NPU alone; one at a time."""

    def __init__(self, path: Path, npu: SimulatedNpu) -> None:
        self._path = path
        host = Host(environ={"HETERO_SIM_RKNN": npu.to_text()}, cache=cache_dir() / "simulators", simulate=("rk3588",))
        self._runtime = hetero.Runtime(backends=[RknnBackend], plugins=False, host=host, learn=False)

    def __enter__(self) -> Board:
        return self

    def __exit__(self, *_: object) -> None:
        self._runtime.close()

    def session(self, **options: Any) -> hetero.Session:
        rknn = {"driver": "capi", **options}
        return self._runtime.load(self._path, options={"rknn": rknn}, canary=False, standby=False)


def seconds(path: Path, npu: SimulatedNpu, jobs: int, **options: Any) -> float:
    """How long a number of jobs takes, each submitted as soon as there is room."""
    x = np.ones((1, 16), np.float32)
    with Board(path, npu) as board:
        session = board.session(**options)
        list(session.map([x] * 3))
        started = time.perf_counter()
        for _ in session.map((x for _ in range(jobs)), in_flight=12):
            pass
        return time.perf_counter() - started


def overhead(path: Path, rounds: int) -> tuple[float, float]:
    """Seconds of one job through the session and through the driver's context alone, medians of interleaved blocks."""
    x = np.ones((1, 16), np.float32)
    with Board(path, FREE) as board:
        session = board.session(schedule=0)
        executable: Any = session._candidates[0].executable
        call = Call(0)
        cases: dict[str, Callable[[], Any]] = {
            "session": lambda: session(x),
            "context": lambda: executable.run({"x": x}, call),
        }
        times: dict[str, list[float]] = {name: [] for name in cases}
        for _ in range(rounds * 20):
            for name, case in cases.items():
                started = time.perf_counter()
                for _ in range(50):
                    case()
                times[name].append((time.perf_counter() - started) / 50)
    return statistics.median(times["session"]), statistics.median(times["context"])


class Peer:
    """EZ RKNN Async in a virtual environment of its own."""

    def __init__(self, path: Path, folder: Path) -> None:
        home = cache_dir() / "peers" / "ez-rknn-async"
        self._python = home / "bin" / "python"
        if not self._python.is_file():
            venv.create(home, with_pip=True)
            subprocess.run([self._python, "-m", "pip", "install", "-q", PEER, "numpy"], check=True)
        self._model = folder / "double.rknn"
        twin.write_twin(path, self._model, platform="rk3588")
        self._library = library.built_library(cache_dir() / "simulators" / "rknn")

    def seconds(self, npu: SimulatedNpu, jobs: int, **options: Any) -> float:
        environ = {**os.environ, **library.environment(npu), "ZTU_RKNPU2_RUNTIME_LIBRARY": str(self._library)}
        command = [self._python, "-c", PEER_JOB, self._model, str(jobs), json.dumps(options)]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"the peer failed: {done.stderr[-2000:]}")
        return float(done.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peer", action="store_true")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    logging.getLogger("hetero").setLevel(logging.ERROR)
    jobs = arguments.jobs
    with tempfile.TemporaryDirectory() as folder:
        path = model(Path(folder))
        cases: dict[str, Callable[[], float]] = {
            "one core": lambda: seconds(path, EVEN, jobs, schedule=0),
            "three cores": lambda: seconds(path, EVEN, jobs, schedule="0,1,2"),
            "uneven, a slow core: next free core": lambda: seconds(path, UNEVEN, jobs, schedule="0,1,2"),
            "uneven, a slow core: static order": lambda: seconds(path, UNEVEN, jobs, schedule="0,1,2", order="static"),
        }
        if arguments.peer:
            peer = Peer(path, Path(folder))
            cases |= {
                "three cores: EZ RKNN Async": lambda: peer.seconds(EVEN, jobs, schedule=[0, 1, 2]),
                "uneven, a slow core: EZ RKNN Async": lambda: peer.seconds(UNEVEN, jobs, schedule=[0, 1, 2]),
            }
        times: dict[str, list[float]] = {name: [] for name in cases}
        for _ in range(arguments.rounds):
            for name, case in cases.items():
                times[name].append(case())
        median = {name: statistics.median(values) for name, values in times.items()}
        session, context = overhead(path, arguments.rounds)
    result = {
        "modelled_job_ms": 20,
        "jobs": jobs,
        "jobs_per_second": {name: round(jobs / value, 1) for name, value in median.items()},
        "three_cores_over_one": round(median["one core"] / median["three cores"], 3),
        "next_free_over_static": round(
            median["uneven, a slow core: static order"] / median["uneven, a slow core: next free core"], 3
        ),
        "layer_adds_us": round((session - context) * 1e6, 1),
    }
    if arguments.peer:
        result["over_peer_even"] = round(median["three cores: EZ RKNN Async"] / median["three cores"], 3)
        result["over_peer_uneven"] = round(
            median["uneven, a slow core: EZ RKNN Async"] / median["uneven, a slow core: next free core"], 3
        )
    if arguments.json:
        print(json.dumps(result))
        return
    table = Table("case (simulated NPU, modelled 20 ms a job)", "jobs/s")
    for name, value in median.items():
        table.add_row(name, f"{jobs / value:.1f}")
    console = Console()
    console.print(table)
    for name, value in result.items():
        if not isinstance(value, dict):
            console.print(f"{name}: {value}")


if __name__ == "__main__":
    main()
