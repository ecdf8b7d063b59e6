"""Whisper's encoder and one product on a Vulkan driver: hetero beside others on the same driver, and beside the CPU.

    HETERO_VK_DEVICE=llvmpipe python benchmarks/vulkan_encoder.py [--peers] [--only ncnn,iree] [--rounds 3]
                                                                  [--model tiny.en] [--precision fp32,fp16]
                                                                  [--limit 600] [--json]

- `--peers` installs the others with pip, each in a virtual environment in hetero's cache folder, and runs them; one
  that cannot be had, or does not run on this driver, is told with the reason. Without it those that are there run.
- All take turns, a run each a round; medians are printed, and the median of each round's ratio to hetero. Of a software
  driver that is processor time, which a busy machine changes least; of a GPU it is wall time. A whole call is timed:
  inputs from numpy, outputs to numpy.
- hetero runs in each of the precisions given; ratios are to the first of them.
- Each answer is compared with ONNX Runtime's on the CPU; float64 numpy's for the product.
- `VK_ICD_FILENAMES` chooses the driver, for all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console
from rich.table import Table
from vulkan_peers import PEERS, PeerFailed, Worker, install, installed

from hetero.backend import Call, Host
from hetero.cache import cache_dir
from hetero.onnx_file import open_onnx
from hetero.whisper.models import open_model
from hetero_vulkan.backend import VulkanBackend
from hetero_vulkan.choosing import VARIABLE

ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"), "1")
CASES = ("encoder", "product")
PRODUCT = (1500, 512, 2048)
"""Rows, k, columns: of Whisper base's encoder."""

INSTALL_SECONDS = 600.0
Run = Callable[[], dict[str, float]]
"""Gives `wall` and `processor` seconds."""


@dataclass
class Result:
    """What one of them took for one case; seconds, medians."""

    name: str
    case: str
    wall: float = 0.0
    processor: float = 0.0
    ratio: float = 0.0
    first: float = 0.0
    error: float = 0.0
    samples: list[dict[str, float]] = field(default_factory=list)


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def timed(run: Callable[[], Any]) -> dict[str, float]:
    begun, processor = time.perf_counter(), time.process_time()
    run()
    return {"wall": time.perf_counter() - begun, "processor": time.process_time() - processor}


def write_models(folder: Path, model: str) -> dict[str, Any]:
    """What the peers read; gives the answers that are right."""
    source = open_model(model).encoder / "encoder.onnx"
    (folder / "encoder.onnx").symlink_to(source)
    weights = onnx.load(source).graph.initializer
    known = {tensor.name: numpy_helper.to_array(tensor) for tensor in weights if tensor.name.startswith("encoder.")}
    np.savez(folder / "encoder.npz", **known)
    random = np.random.default_rng(0)
    channels = known["encoder.conv1.weight"].shape[1]
    np.save(folder / "mel.npy", random.standard_normal((1, channels, 3000), dtype=np.float32))
    m, k, n = PRODUCT
    a, b = (random.standard_normal(size, dtype=np.float32) for size in ((m, k), (k, n)))
    np.save(folder / "a.npy", a)
    np.save(folder / "b.npy", b)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["a", "b"], ["y"])],
        "product",
        [helper.make_tensor_value_info("a", TensorProto.FLOAT, [m, k])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [m, n])],
        [numpy_helper.from_array(b, "b")],
    )
    product = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(product, folder / "product.onnx")
    session = onnxruntime.InferenceSession(str(source), providers=["CPUExecutionProvider"])
    return {
        "encoder": session.run(None, {"mel": np.load(folder / "mel.npy")})[0],
        "product": a.astype(np.float64) @ b.astype(np.float64),
    }


class Bench:
    """All that take turns."""

    def __init__(self, folder: Path, expected: dict[str, Any], rounds: int, limit: float) -> None:
        self.folder = folder
        self.expected = expected
        self.rounds = rounds
        self.limit = limit
        self.runs: dict[tuple[str, str], Run] = {}
        self.results: dict[tuple[str, str], Result] = {}
        self.failed: dict[str, str] = {}
        self.open: list[Callable[[], None]] = []
        self.device = ""

    def add(self, name: str, case: str, run: Run, answer: Any, first: float) -> None:
        expected = self.expected[case]
        error = float(np.abs(answer.reshape(expected.shape) - expected).max() / np.abs(expected).max())
        self.runs[name, case] = run
        self.results[name, case] = Result(name, case, first=first, error=error)

    def add_hetero(self, precision: str, name: str) -> None:
        environ = {VARIABLE: os.environ.get(VARIABLE, "all")}
        backend = VulkanBackend(Host(environ=environ, cache=cache_dir()))
        (device, *_) = backend.probe()
        self.device = device.description
        defaults = {option.name: option.default for option in backend.options}
        options = defaults | {"timeout": self.limit, "precision": precision}
        self.open.append(backend.close)
        for case, inputs in self._inputs().items():
            begun = time.perf_counter()
            program = replace(open_onnx(self.folder / f"{case}.onnx"), sizes={"frames": 3000})
            executable = backend.load(program, device, options)
            self.open.insert(0, executable.close)

            def run(executable: Any = executable, inputs: Any = inputs) -> Any:
                return executable.run(inputs, Call(0))

            (answer,) = run().values()
            self.add(name, case, lambda run=run: timed(run), answer, time.perf_counter() - begun)

    def add_cpu(self) -> None:
        """The yardsticks: ONNX Runtime on the CPU, and numpy's product with one thread."""
        options = onnxruntime.SessionOptions()
        # Threads that spin take processor time for nothing.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        for case, inputs in self._inputs().items():
            begun = time.perf_counter()
            session = onnxruntime.InferenceSession(
                str(self.folder / f"{case}.onnx"), options, providers=["CPUExecutionProvider"]
            )

            def run(session: Any = session, inputs: Any = inputs) -> Any:
                return session.run(None, inputs)

            (answer,) = run()
            self.add("onnxruntime (CPU)", case, lambda run=run: timed(run), answer, time.perf_counter() - begun)
        a, b = np.load(self.folder / "a.npy"), np.load(self.folder / "b.npy")
        self.add("numpy (CPU)", "product", lambda: timed(lambda: a @ b), a @ b, 0.0)

    def add_peers(self, wanted: list[str], home: Path, get: bool) -> None:
        for peer in PEERS:
            if peer.name not in wanted:
                continue
            try:
                python = installed(peer, home)
                if python is None:
                    if not get:
                        self.failed[peer.name] = "not installed: --peers installs it"
                        continue
                    progress(f"{peer.name}: installing {' '.join(peer.packages)} in {home}")
                    python = install(peer, home, INSTALL_SECONDS)
                worker = Worker(peer, python, self.folder)
                self.open.append(worker.close)
            except PeerFailed as error:
                self.failed[peer.name] = str(error)
                continue
            for case in reversed(CASES):
                progress(f"{peer.name}: the first run of the {case}")
                try:
                    first = worker.ask("load", case, self.limit)["wall"]
                    answer = np.load(self.folder / f"{peer.name}-{case}.npy")
                except PeerFailed as error:
                    self.failed[f"{peer.name}, {case}"] = f"{error}" + (f" ({peer.note})" if peer.note else "")
                    break

                def run(worker: Worker = worker, case: str = case) -> dict[str, float]:
                    return worker.ask("run", case, self.limit)

                self.add(peer.name, case, run, answer, first)

    def measure(self) -> list[Result]:
        for number in range(self.rounds):
            progress(f"round {number + 1} of {self.rounds}")
            for (name, case), run in list(self.runs.items()):
                try:
                    self.results[name, case].samples.append(run())
                except PeerFailed as error:
                    self.failed[f"{name}, {case}"] = str(error)
                    del self.runs[name, case], self.results[name, case]
        software = "software" in self.device
        for result in self.results.values():
            own = self.results["hetero", result.case].samples
            which = "processor" if software else "wall"
            result.wall = statistics.median(sample["wall"] for sample in result.samples)
            result.processor = statistics.median(sample["processor"] for sample in result.samples)
            pairs = zip(result.samples, own, strict=True)
            result.ratio = statistics.median(sample[which] / ours[which] for sample, ours in pairs)
        order = {case: number for number, case in enumerate(CASES)}
        return sorted(self.results.values(), key=lambda result: (order[result.case], result.ratio))

    def _inputs(self) -> dict[str, dict[str, Any]]:
        return {
            "encoder": {"mel": np.load(self.folder / "mel.npy")},
            "product": {"a": np.load(self.folder / "a.npy")},
        }

    def close(self) -> None:
        for close in self.open:
            close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", action="store_true", help="install the others where they are not there")
    parser.add_argument("--only", default=",".join(peer.name for peer in PEERS), help="which others, by name")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default="tiny.en")
    parser.add_argument("--precision", default="fp32", help="of hetero: fp32, fp16, int8, ...; several by commas")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds that one run may take")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    wanted = [name for name in arguments.only.split(",") if name]
    unknown = set(wanted) - {peer.name for peer in PEERS}
    if unknown or arguments.rounds < 1:
        known = ", ".join(peer.name for peer in PEERS)
        parser.error(f"no such peer: {', '.join(unknown)}; there are: {known}" if unknown else "--rounds is at least 1")
    if os.environ.get("OPENBLAS_NUM_THREADS") != "1":
        # numpy reads it when it is imported, which was before this.
        os.execvpe(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ONE_THREAD})
    with tempfile.TemporaryDirectory(prefix="hetero-encoder-") as name:
        folder = Path(name)
        bench = Bench(folder, write_models(folder, arguments.model), arguments.rounds, arguments.limit)
        try:
            first, *others = arguments.precision.split(",")
            bench.add_hetero(first, "hetero")
            for precision in others:
                bench.add_hetero(precision, f"hetero, {precision}")
            bench.add_cpu()
            bench.add_peers(wanted, cache_dir() / "benchmark-peers", arguments.peers)
            results = bench.measure()
        finally:
            bench.close()
    told = {"device": bench.device, "model": arguments.model, "rounds": arguments.rounds, "load": os.getloadavg()[0]}
    if arguments.json:
        print(json.dumps({**told, "results": [asdict(r) for r in results], "failed": bench.failed}, indent=1))
        return
    which = "processor" if "software" in bench.device else "wall"
    table = Table(title=f"{bench.device}; Whisper {arguments.model}'s encoder, and a product {PRODUCT}")
    for heading in ("case", "", f"{which} time, ratio to hetero's", "processor s", "wall s", "first run s", "error"):
        table.add_column(heading)
    for r in results:
        table.add_row(
            r.case, r.name, f"{r.ratio:.2f}", f"{r.processor:.3f}", f"{r.wall:.3f}", f"{r.first:.1f}", f"{r.error:.2g}"
        )
    Console(width=120).print(table)
    for failed, why in bench.failed.items():
        print(f"{failed}: {why}")


if __name__ == "__main__":
    main()
