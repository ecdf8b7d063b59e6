"""Launches of tile kernels on a simulated Phoenix: columns together against one by one, and pipelining one column.

    python benchmarks/xrt_batching.py [--tiles 24] [--rounds 5] [--json]

The NPU is a simulator: a tile takes a modelled 2.85 ms on a column, a launch a modelled 130 us beside, in real time.
Nothing here was measured on a laptop. "modelled" is the simulator's own time, on a clock that nothing of Python's
disturbs; "real" is that model run in real time, with what our layer and the machine's other load add to it. Cases are
interleaved; medians over the rounds are printed.

- Four columns in one launch, against a one-column xclbin whose tiles go one by one.
- The one-column xclbin over four contexts (a column each), over one, and by four threads that poll.
- The first design's way: four threads, a context each, in the vendor's blocking `wait`, which holds the GIL.
- The host's share: a launch of ours without modelled time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from hetero.backend import Call
from hetero.scheduler.polling import run_polled
from hetero.tensors import Array
from hetero.testing.xrt.clock import ControlledClock
from hetero.testing.xrt.phoenix import SimulatedPhoenix
from hetero.testing.xrt.pyxrt import simulated_pyxrt
from hetero.testing.xrt.stand_in import write_stand_in
from hetero_kernels import get
from hetero_xrt.executable import TileExecutable
from hetero_xrt.flow import Flow, Launch
from hetero_xrt.layout import Tiles
from hetero_xrt.manifest import Manifest, read_manifest
from hetero_xrt.pool import PoolCache

KERNEL = get("attention_i8_64x64")
# An NPU takes no time of Python's to compute the answer, so that the simulator's is of no content.
ANSWER = np.zeros((1, 64, 64), np.int8)


def cheap(q: Array, k: Array, v: Array) -> dict[str, Array]:
    return {"o": np.broadcast_to(ANSWER, (len(q), 64, 64))}


class Case:
    """One way to run the tiles, on a simulated NPU of its own; on a clock of its own where one is given."""

    def __init__(
        self, manifest: Manifest, phoenix: SimulatedPhoenix, clock: ControlledClock | None = None, **options: Any
    ) -> None:
        module = simulated_pyxrt(phoenix, kernels={KERNEL.name: cheap}, clock=clock)
        flow = Flow(module) if clock is None else Flow(module, clock.now)
        self.executable = TileExecutable(PoolCache(flow), manifest, KERNEL.program(), **options)
        self._sleep = time.sleep if clock is None else lambda seconds: None

    def run(self, inputs: dict[str, Array]) -> None:
        run_polled(self.executable, inputs, Call(0), self._sleep)


class OneByOne(Case):
    """A launch for each tile, each waited for before the next."""

    def run(self, inputs: dict[str, Array]) -> None:
        for tile in range(len(inputs["q"])):
            super().run({name: array[tile : tile + 1] for name, array in inputs.items()})


class BlockingThreads:
    """Four threads, each with a context, in the vendor's `wait`."""

    def __init__(self, manifest: Manifest, phoenix: SimulatedPhoenix) -> None:
        flow = Flow(simulated_pyxrt(phoenix, kernels={KERNEL.name: cheap}))
        self._tiles = Tiles(manifest, KERNEL.program())
        self._launches = [Launch(flow.context(manifest), self._tiles) for _ in range(4)]
        self._threads = ThreadPoolExecutor(4)

    def run(self, inputs: dict[str, Array]) -> None:
        count = len(inputs["q"])
        outputs = self._tiles.empty_outputs(count)

        def work(number: int) -> None:
            launch = self._launches[number]
            for tile in range(number, count, 4):
                launch.fill(inputs, tile, tile + 1)
                launch.start()
                launch._run.wait(0)  # ours never does that, so that it is no part of a launch's interface
                launch.collect()
                launch.take(outputs)

        list(self._threads.map(work, range(4)))


def seconds_of(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def modelled(kind: type[Case], manifest: Manifest, inputs: dict[str, Array], **options: Any) -> float:
    """The simulator's seconds; each poll of a launch that is not over is worth a microsecond."""
    clock = ControlledClock(poll_seconds=1e-6)
    case = kind(manifest, SimulatedPhoenix(), clock, **options)
    case.run(inputs)
    before = clock.now()
    case.run(inputs)
    return clock.now() - before


def measure(tiles: int, rounds: int, folder: Path) -> tuple[dict[str, float], dict[str, float]]:
    program = KERNEL.program()
    four = read_manifest(write_stand_in(folder / "four", program, columns=4, tiles_per_launch=4))
    one = read_manifest(write_stand_in(folder / "one", program, columns=1, tiles_per_launch=1))
    npu, free = SimulatedPhoenix(), SimulatedPhoenix(tile_seconds=0, dispatch_seconds=0, switch_seconds=0)
    cases: dict[str, Any] = {
        "one column, one by one": OneByOne(one, npu, pipeline="off"),
        "four columns a launch": Case(four, npu),
        "one column, four contexts": Case(one, npu, pipeline="contexts"),
        "one column, one context": Case(one, npu, contexts=1),
        "one column, four polling threads": Case(one, npu, pipeline="threads"),
        "one column, four blocking threads": BlockingThreads(one, npu),
        "host alone, four columns a launch": Case(four, free),
        "host alone, one column, four contexts": Case(one, free, pipeline="contexts"),
    }
    inputs: dict[str, Array] = {
        name: np.random.default_rng(0).integers(-128, 128, (tiles, 64, 64), dtype=np.int8) for name in "qkv"
    }
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for case in cases.values():
        case.run(inputs)
    for _ in range(rounds):
        for name, case in cases.items():
            seconds[name].append(seconds_of(lambda case=case: case.run(inputs)))  # type: ignore[misc]
    times = {
        "one column, one by one": modelled(OneByOne, one, inputs, pipeline="off"),
        "four columns a launch": modelled(Case, four, inputs),
        "one column, four contexts": modelled(Case, one, inputs, pipeline="contexts"),
        "one column, one context": modelled(Case, one, inputs, contexts=1),
    }
    return {name: statistics.median(each) for name, each in seconds.items()}, times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        medians, times = measure(args.tiles, args.rounds, Path(folder))
    if args.json:
        print(json.dumps({"tiles": args.tiles, "modelled_seconds": times, "modelled_in_real_time_seconds": medians}))
        return
    base, modelled_base = medians["one column, one by one"], times["one column, one by one"]
    table = Table(title=f"{args.tiles} attention tiles on a simulated Phoenix: times are modelled, no hardware")
    for column in ("way", "modelled ms", "modelled gain", "real ms", "real gain", "us a launch"):
        table.add_column(column, justify="left" if column == "way" else "right")
    for name, seconds in medians.items():
        launches = -(-args.tiles // 4) if "four columns" in name else args.tiles
        alone = name.startswith("host")
        table.add_row(
            name,
            f"{times[name] * 1e3:.2f}" if name in times else "",
            f"{modelled_base / times[name]:.2f}x" if name in times else "",
            f"{seconds * 1e3:.2f}",
            "" if alone else f"{base / seconds:.2f}x",
            f"{seconds / launches * 1e6:.0f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
