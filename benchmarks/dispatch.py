"""What hetero's layer costs on top of a bare ONNX Runtime `run`, on a 64x64 matrix product.

    python benchmarks/dispatch.py [--peer openvino] [--rounds 300] [--json]

Cases are interleaved in blocks, so that a busy machine slows all of them alike; medians over the blocks are printed.
Groups, each interleaved in itself: calls in one thread, calls that change threads (after which a processor's caches are
no longer those of the caller), bursts (50 submits, then 50 waits), and the peer.

A submitted request whose `result()` is asked for before a worker has begun it runs in the asking thread, hence two ways
to measure it: with `result()`, and with `concurrent.futures.wait`, which only waits.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from rich.console import Console
from rich.table import Table

import hetero
from hetero import errors
from hetero.backend import Backend, Device, Executable

BLOCK = 50


def matmul(path: Path) -> Path:
    w = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "matmul",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [64, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [64, 64])],
        [helper.make_tensor("w", TensorProto.FLOAT, [64, 64], w.tobytes(), raw=True)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


class Failing(Backend):
    """A device that is found, loads, and then fails whenever it is asked."""

    name = "failing"

    def probe(self) -> list[Device]:
        return [Device("failing", kind="npu", simulated=True)]

    def load(self, program: Any, device: Device, options: Any) -> Executable:
        class Fails(Executable):
            def run(self, inputs: Any, call: Any) -> Any:
                raise errors.Unsupported("not today")  # the breaker stays closed, so each call fails over anew

        return Fails()


def interleave(cases: dict[str, Callable[[], Any]], rounds: int, repeats: int = BLOCK) -> dict[str, float]:
    """Median seconds of one request of each case; a block of requests is `repeats` calls."""
    times: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(rounds + 10):
        for name, call in cases.items():
            started = time.perf_counter()
            for _ in range(repeats):
                call()
            if turn >= 10:
                times[name].append((time.perf_counter() - started) / BLOCK)
    return {name: statistics.median(values) for name, values in times.items()}


def openvino_cases(path: Path, x: np.ndarray[Any, Any]) -> dict[str, Callable[[], Any]]:
    import openvino as ov

    core = ov.Core()
    cases = {}
    for name in ("CPU", "AUTO:CPU"):
        request = core.compile_model(str(path), name, {"INFERENCE_NUM_THREADS": 1}).create_infer_request()
        cases[f"OpenVINO {name}"] = lambda request=request: request.infer([x])
    return cases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", choices=["openvino"])
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    logging.getLogger("hetero").setLevel(logging.ERROR)

    import onnxruntime as ort

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as pool:
        path = matmul(Path(folder) / "m.onnx")
        x = np.random.default_rng(1).standard_normal((64, 64)).astype(np.float32)
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        bare = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        one_thread = {"cpu": {"threads": 1}}
        with (
            hetero.Runtime(chain=["cpu"], options=one_thread, learn=False) as alone,
            hetero.Runtime(backends=[Failing], chain=["failing", "cpu"], options=one_thread, learn=False) as pair,
        ):
            session = alone.load(path)
            # The executable itself, so that what the layer adds is not mixed up with how the backend calls the vendor.
            executable = session._candidates[0].executable
            assert isinstance(executable, Executable)
            call = hetero.Call()
            over = pair.load(path, canary=False)
            direct: dict[str, Callable[[], Any]] = {
                "ORT run": lambda: bare.run(None, {"x": x}),
                "backend alone": lambda: executable.run({"x": x}, call),
                "session(x)": lambda: session(x),
                "failover, then CPU": lambda: over(x),
            }
            threaded: dict[str, Callable[[], Any]] = {
                "pool submit + result": lambda: pool.submit(bare.run, None, {"x": x}).result(),
                "session.submit + result": lambda: session.submit(x).result(),
                "pool submit + wait": lambda: wait([pool.submit(bare.run, None, {"x": x})]),
                "session.submit + wait": lambda: wait([session.submit(x)]),
            }
            bursts: dict[str, Callable[[], Any]] = {
                "pool burst": lambda: wait([pool.submit(bare.run, None, {"x": x}) for _ in range(BLOCK)]),
                "session burst": lambda: wait([session.submit(x) for _ in range(BLOCK)]),
            }
            medians = interleave(direct, arguments.rounds) | interleave(threaded, arguments.rounds)
            medians |= interleave(bursts, arguments.rounds, repeats=1)
            if arguments.peer == "openvino":
                medians |= interleave(openvino_cases(path, x), arguments.rounds)
            medians = {name: seconds * 1e6 for name, seconds in medians.items()}
    result = {
        "median_us": {name: round(value, 2) for name, value in medians.items()},
        "session_adds_us": round(medians["session(x)"] - medians["backend alone"], 2),
        "session_over_ort_us": round(medians["session(x)"] - medians["ORT run"], 2),
        "submit_ratio": round(medians["session.submit + result"] / medians["pool submit + result"], 2),
        "submit_and_wait_ratio": round(medians["session.submit + wait"] / medians["pool submit + wait"], 2),
        "burst_ratio": round(medians["session burst"] / medians["pool burst"], 2),
        "failover_adds_us": round(medians["failover, then CPU"] - medians["session(x)"], 2),
    }
    if "OpenVINO CPU" in medians:
        result["openvino_auto_adds_us"] = round(medians["OpenVINO AUTO:CPU"] - medians["OpenVINO CPU"], 2)
    if arguments.json:
        print(json.dumps(result))
        return
    table = Table("case", "median us", "ratio to ORT run")
    for name, value in medians.items():
        table.add_row(name, f"{value:.1f}", f"{value / medians['ORT run']:.2f}")
    console = Console()
    console.print(table)
    for name, value in result.items():
        if name != "median_us":
            console.print(f"{name}: {value}")


if __name__ == "__main__":
    main()
