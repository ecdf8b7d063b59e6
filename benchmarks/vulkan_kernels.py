"""Matrix products and attention on a Vulkan device beside numpy with one thread.

    python benchmarks/vulkan_kernels.py [--device llvmpipe] [--rounds 7] [--ways] [--json]

Of a software driver the processor time of the whole process is compared with numpy's, since wall time says little on a
busy machine; of a GPU the time that the device itself measures. Cases and numpy take turns; medians are printed.
Weights are packed beforehand, pipelines are compiled beforehand.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from hetero_vulkan.commands import Commands, Dispatch
from hetero_vulkan.device import VulkanDevice
from hetero_vulkan.opening import open_device
from hetero_vulkan.ops.attention import AttentionTuning, attention, default_attention
from hetero_vulkan.ops.gemm import Tuning, default_tuning, gemm
from hetero_vulkan.ops.packing import Packed, pack, packed_shape
from hetero_vulkan.ops.tensors import DTYPES, Kind, Tensor, words
from hetero_vulkan.ops.tuning import attention_ways, gemm_ways

ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "LP_NUM_THREADS"), "1")
"""Of numpy and of lavapipe: two on one core would be charged for each other's time."""

PRODUCTS = ((1500, 512, 2048), (1500, 2048, 512), (1500, 512, 512), (1, 512, 2048))
"""Rows, k, columns: those of Whisper base's encoder, and of a step of its decoder."""


@dataclass
class Case:
    """One case and what came of it; milliseconds."""

    name: str
    way: str
    device_ms: float = 0.0
    numpy_ms: float = 0.0
    ratio: float = 0.0
    gflops: float = 0.0
    first_run_s: float = 0.0
    error: float = 0.0


class Bench:
    def __init__(self, device: VulkanDevice, rounds: int) -> None:
        self.device = device
        self.rounds = rounds
        self.software = device.physical.software

    def put(self, array: np.ndarray[Any, Any], kind: Kind = "f32") -> Tensor:
        tensor = self.empty(array.shape, kind)
        tensor.buffer.write(np.ascontiguousarray(array.astype(DTYPES[kind])))
        return tensor

    def empty(self, shape: tuple[int, ...], kind: Kind = "f32") -> Tensor:
        return Tensor(self.device.buffer(4 * words(int(np.prod(shape)), kind)), shape, kind)

    def compare(
        self, case: Case, steps: list[Dispatch], answer: Tensor, reference: Callable[[], Any], expected: Any
    ) -> Case:
        begun = time.process_time()
        with self.device.record(steps, timed=not self.software) as commands:
            commands.run(300)
            case.first_run_s = time.process_time() - begun
            case.error = float(np.abs(answer.buffer.read(DTYPES[answer.kind], answer.shape) - expected).max())
            ours, theirs = [], []
            for _ in range(self.rounds):
                theirs.append(processor_time(reference))
                ours.append(self.time_of(commands))
        case.device_ms, case.numpy_ms = statistics.median(ours) * 1e3, statistics.median(theirs) * 1e3
        case.ratio = case.numpy_ms / case.device_ms
        case.gflops = sum(step.cost for step in steps) / case.device_ms * 1e-6
        return case

    def time_of(self, commands: Commands) -> float:
        if self.software:
            return processor_time(lambda: commands.run(300))
        commands.run(300)
        return sum(commands.seconds())

    def product(self, size: tuple[int, int, int], name: str, way: Tuning, kind: Kind) -> Case:
        m, k, n = size
        random = np.random.default_rng(0)
        x, w = random.normal(size=(m, k)).astype(np.float32), random.normal(size=(k, n)).astype(np.float32)
        a = self.put(x, "f16" if way.family == "matrix" else "f32")
        b: Tensor | Packed = self.put(w, "f16" if way.family == "matrix" else kind)
        c = self.empty((m, n))
        if way.family == "subgroup":
            assert isinstance(b, Tensor)
            packed = Packed(self.empty(packed_shape(self.device.physical, k, n), kind), n, k)
            with self.device.record(pack(self.device, b, packed.tensor)) as commands:
                commands.run(60)
            b = packed
        weights = w.astype(DTYPES[kind]).astype(np.float64)
        case = Case(f"{m}x{k}x{n} weights {kind}", name)
        steps = gemm(self.device, a, b, c, tuning=way)
        return self.compare(case, steps, c, lambda: x @ w, x.astype(np.float64) @ weights)

    def attention(self, shape: tuple[int, int, int], name: str, way: AttentionTuning, kind: Kind) -> Case:
        heads, rows, size = shape
        q, k, v = np.random.default_rng(0).normal(size=(3, 1, heads, rows, size)).astype(np.float32)
        o = self.empty(q.shape, kind)
        steps = attention(self.device, *(self.put(x, kind) for x in (q, k, v)), o, tuning=way)
        exact = [x.astype(DTYPES[kind]).astype(np.float64) for x in (q, k, v)]
        case = Case(f"attention {heads}x{rows}x{size} {kind}", name)
        return self.compare(case, steps, o, lambda: plain(q, k, v), plain(*exact))


def processor_time(call: Callable[[], Any]) -> float:
    begun = time.process_time()
    call()
    return time.process_time() - begun


def plain(q: Any, k: Any, v: Any) -> Any:
    scores = q @ k.swapaxes(2, 3)
    scores *= np.asarray(q.shape[-1] ** -0.5, q.dtype)
    scores -= scores.max(-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(-1, keepdims=True)
    return scores @ v


def run(bench: Bench, every_way: bool) -> list[Case]:
    physical = bench.device.physical
    products = gemm_ways(physical) if every_way else {"default": default_tuning(physical)}
    attentions = attention_ways(physical) if every_way else {"default": default_attention(physical)}
    cases = [bench.product(size, name, way, "f32") for size in PRODUCTS for name, way in products.items()]
    kinds: tuple[Kind, ...] = ("f16", "i8")
    cases += [bench.product(PRODUCTS[0], "default", default_tuning(physical), kind) for kind in kinds]
    cases += [bench.attention((8, 1500, 64), name, way, "f32") for name, way in attentions.items()]
    cases.append(bench.attention((8, 1500, 64), "default", default_attention(physical), "f16"))
    return cases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="all", help="as in HETERO_VK_DEVICE; the first is used")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--ways", action="store_true", help="every way that the device may take, not its default alone")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if os.environ.get("OPENBLAS_NUM_THREADS") != "1":
        # numpy reads it when it is imported, which was before this.
        os.execvpe(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ONE_THREAD})
    with open_device(arguments.device) as device:
        cases = run(Bench(device, arguments.rounds), arguments.ways)
        told = {
            "device": device.physical.name,
            "driver": device.physical.driver_info,
            "software": device.physical.software,
        }
    if arguments.json:
        print(json.dumps({**told, "cases": [asdict(case) for case in cases]}, indent=1))
        return
    measured = "processor time" if told["software"] else "the device's time"
    table = Table(title=f"{told['device']}, {told['driver']}: {measured} beside numpy's, one thread")
    for heading in ("case", "way", "device ms", "numpy ms", "ratio", "GFLOP/s", "first run s", "error"):
        table.add_column(heading)
    for case in cases:
        table.add_row(
            case.name, case.way, f"{case.device_ms:.1f}", f"{case.numpy_ms:.1f}", f"{case.ratio:.3f}",
            f"{case.gflops:.1f}", f"{case.first_run_s:.2f}", f"{case.error:.2g}",
        )  # fmt: skip
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
