"""Tile kernels on a simulated Phoenix: columns together, pipelining, our own cost of a launch, the first plan's sums.

    python benchmarks/xrt_batching.py [--tiles 24] [--rounds 15] [--json]

The NPU is a simulator: a tile takes a modelled 2.85 ms on a column, a launch a modelled 130 us beside. Nothing here was
measured on a laptop. What is printed is one of three things, and says which:

- modelled: the simulator's own time, on a clock that nothing of Python's disturbs.
- real: that model run in real time, with what our layer and the machine's other load add to it.
- measured: on this machine's CPU: our own cost of a launch (CPU time), Whisper's mel front end (time on the wall).

Cases are interleaved; medians over the rounds are printed. What has to hold is checked at the end, and the exit code is
1 when something does not.

- Four columns in one launch, against a one-column xclbin whose tiles go one by one.
- The one-column xclbin over four contexts (a column each), over one, and by four threads that poll.
- The first design's way: four threads, a context each, in the vendor's blocking `wait`, which holds the GIL.
- Our own cost of a launch: CPU seconds of a request through the backend, copies included, less those of the vendor's
  calls alone on the same simulator. Pauses between polls are no part of it.
- The first plan's table ("15.6x realtime, 84x with everything"), with its claims beside what this model gives.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
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
from hetero.whisper.mel import log_mel
from hetero_kernels import get
from hetero_xrt.executable import TileExecutable
from hetero_xrt.flow import Flow, Launch
from hetero_xrt.layout import Tiles
from hetero_xrt.manifest import Manifest
from hetero_xrt.pool import PoolCache
from hetero_xrt.reading import read_manifest

KERNEL = get("attention_i8_64x64")
# An NPU takes no time of Python's to compute the answer, so that the simulator's is of no content.
ANSWER = np.zeros((1, 64, 64), np.int8)

ONE_BY_ONE = "one column, one by one"
TOGETHER = "four columns a launch"
CONTEXTS = "one column, four contexts"
CONTEXT = "one column, one context"
POLLING = "one column, four polling threads"
BLOCKING = "one column, four blocking threads"

# Of the first plan: audio, blocks of the encoder, tiles in each, and its mel front end.
AUDIO_SECONDS, BLOCKS, BLOCK_TILES, PLAN_MEL = 11.0, 6, 24, 0.3047
# Exact attention of Whisper base: 8 heads of 24 x 24 blocks of 64 x 64 in each layer.
EXACT_TILES = 8 * 24 * 24


def cheap(q: Array, k: Array, v: Array) -> dict[str, Array]:
    return {"o": np.broadcast_to(ANSWER, (len(q), 64, 64))}


def inputs_of(tiles: int) -> dict[str, Array]:
    random = np.random.default_rng(0)
    return {name: random.integers(-128, 128, (tiles, 64, 64), dtype=np.int8) for name in "qkv"}


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


class VendorAlone:
    """The vendor's calls of one launch, and nothing of ours: no copies either."""

    def __init__(self, manifest: Manifest, phoenix: SimulatedPhoenix) -> None:
        x: Any = simulated_pyxrt(phoenix, kernels={KERNEL.name: cheap})
        device = x.device(0)
        xclbin = x.xclbin(str(manifest.xclbin.path))
        device.register_xclbin(xclbin)
        self._kernel = x.kernel(x.hw_context(device, xclbin.get_uuid()), manifest.name)
        words = np.fromfile(manifest.instructions, np.uint32)
        self._code = x.bo(device, words.nbytes, x.bo.cacheable, self._kernel.group_id(1))
        self._code.write(words, 0)
        directions = x.xclBOSyncDirection
        self._to, self._from = directions.XCL_BO_SYNC_BO_TO_DEVICE, directions.XCL_BO_SYNC_BO_FROM_DEVICE
        self._code.sync(self._to, words.nbytes, 0)
        self._sizes = [manifest.size_of(argument) for argument in manifest.arguments]
        self._bos = [
            x.bo(device, size, x.bo.host_only, self._kernel.group_id(argument.index))
            for argument, size in zip(manifest.arguments, self._sizes, strict=True)
        ]
        self._run = x.run(self._kernel)
        for index, value in enumerate([manifest.opcode, self._code, len(words), *self._bos]):
            self._run.set_arg(index, value)
        self._over = x.ert_cmd_state.ERT_CMD_STATE_COMPLETED

    def launch(self) -> None:
        read, written = self._bos
        read.sync(self._to, self._sizes[0], 0)
        self._run.start()
        while self._run.state() is not self._over:
            pass
        self._run.wait(1)
        written.sync(self._from, self._sizes[1], 0)


def modelled(kind: type[Case], manifest: Manifest, tiles: int, **options: Any) -> float:
    """The simulator's seconds; each poll of a launch that is not over is worth a microsecond."""
    clock, inputs = ControlledClock(poll_seconds=1e-6), inputs_of(tiles)
    case = kind(manifest, SimulatedPhoenix(), clock, **options)
    case.run(inputs)
    before = clock.now()
    case.run(inputs)
    return clock.now() - before


def medians(works: dict[str, Callable[[], None]], rounds: int, clock: Callable[[], float]) -> dict[str, float]:
    """Median seconds of each, taken in turn; once before for the caches."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for round_ in range(rounds + 1):
        for name, work in works.items():
            started = clock()
            work()
            if round_:
                seconds[name].append(clock() - started)
    return {name: statistics.median(each) for name, each in seconds.items()}


def host_cost(manifest: Manifest, rounds: int) -> dict[str, float]:
    """Measured: CPU seconds of a launch that are ours, in a request of one launch and in one of six."""
    free = SimulatedPhoenix(tile_seconds=0, dispatch_seconds=0, switch_seconds=0)
    case, vendor = Case(manifest, free, pipeline="off"), VendorAlone(manifest, free)
    # On an NPU the pauses of a poll are the NPU's time.
    case._sleep = lambda seconds: None
    one, six = inputs_of(manifest.tiles_per_launch), inputs_of(6 * manifest.tiles_per_launch)
    turns = 30

    def repeat(work: Callable[[], None]) -> Callable[[], None]:
        def several() -> None:
            for _ in range(turns):
                work()

        return several

    # Of the CPU, not of the clock on the wall: other programs' work is none of ours.
    seconds = medians(
        {
            "vendor": repeat(vendor.launch),
            "one": repeat(lambda: case.run(one)),
            "six": repeat(lambda: case.run(six)),
        },
        rounds,
        time.thread_time,
    )
    vendors = seconds["vendor"] / turns
    return {
        "the vendor's calls on the simulator": vendors,
        "ours, a request of one launch": seconds["one"] / turns - vendors,
        "ours, a launch of a request of six": seconds["six"] / turns / 6 - vendors,
    }


@dataclass(frozen=True)
class Row:
    """One line of the first plan.

    Attributes:
        way: What it called it.
        claimed: Times realtime, as it claimed.
        npu_seconds: Modelled: the encoder's tiles.
        host_seconds: Measured: our own cost of its launches.
        mel_seconds: The plan's own number, or measured.
        realtime: Times realtime of these three together.
    """

    way: str
    claimed: float
    npu_seconds: float
    host_seconds: float
    mel_seconds: float
    realtime: float


def plan(one: Manifest, four: Manifest, cost: dict[str, float], mel: float) -> list[Row]:
    """The first plan's table: 11 s of audio, six blocks of 24 tiles, and a mel front end."""
    ours = cost["ours, a launch of a request of six"]
    each = {
        "sequential": (15.6, modelled(OneByOne, one, BLOCK_TILES, pipeline="off"), BLOCK_TILES, PLAN_MEL),
        "pipelined": (23.7, modelled(Case, one, BLOCK_TILES, pipeline="contexts"), BLOCK_TILES, PLAN_MEL),
        "four columns": (27.2, modelled(Case, four, BLOCK_TILES), BLOCK_TILES // 4, PLAN_MEL),
        "four columns and mel": (84.3, modelled(Case, four, BLOCK_TILES), BLOCK_TILES // 4, mel),
    }
    rows = []
    for way, (claimed, npu, launches, front) in each.items():
        npu, host = BLOCKS * npu, BLOCKS * launches * ours
        rows.append(Row(way, claimed, npu, host, front, AUDIO_SECONDS / (npu + host + front)))
    npu, host = BLOCKS * EXACT_TILES / 4 * 2.98e-3, BLOCKS * EXACT_TILES / 4 * ours
    rows.append(Row("exact attention, four columns", math.nan, npu, host, mel, AUDIO_SECONDS / (npu + host + mel)))
    return rows


def requirements(tiles: int, times: dict[str, float], cost: dict[str, float]) -> list[tuple[str, float, float, bool]]:
    """What has to hold: name, what there is, the bound, and whether it holds."""
    phoenix = SimulatedPhoenix()
    base = times[ONE_BY_ONE]
    bound = tiles * (phoenix.tile_seconds + phoenix.dispatch_seconds)
    ours = max(seconds for name, seconds in cost.items() if name.startswith("ours"))
    gained, wanted = base / times[TOGETHER], base / times[CONTEXTS]
    filled = bound / times[CONTEXT]
    return [
        ("four columns a launch, times one by one (modelled)", gained, 3.9, gained >= 3.9),
        ("one column over four contexts, times one by one (modelled)", wanted, 3.6, wanted >= 3.6),
        ("one column over one context, share of a column that never idles (modelled)", filled, 0.95, filled >= 0.95),
        ("our own cost of a launch, us (measured)", ours * 1e6, 60.0, ours < 60e-6),
    ]


def measure(tiles: int, rounds: int, folder: Path) -> dict[str, Any]:
    program = KERNEL.program()
    four = read_manifest(write_stand_in(folder / "four", program, columns=4, tiles_per_launch=4))
    one = read_manifest(write_stand_in(folder / "one", program, columns=1, tiles_per_launch=1))
    npu, inputs = SimulatedPhoenix(), inputs_of(tiles)
    cases: dict[str, Any] = {
        ONE_BY_ONE: OneByOne(one, npu, pipeline="off"),
        TOGETHER: Case(four, npu),
        CONTEXTS: Case(one, npu, pipeline="contexts"),
        CONTEXT: Case(one, npu, contexts=1),
        POLLING: Case(one, npu, pipeline="threads"),
        BLOCKING: BlockingThreads(one, npu),
    }
    works = {name: (lambda case=case: case.run(inputs)) for name, case in cases.items()}
    real = medians(works, rounds, time.perf_counter)
    times = {
        ONE_BY_ONE: modelled(OneByOne, one, tiles, pipeline="off"),
        TOGETHER: modelled(Case, four, tiles),
        CONTEXTS: modelled(Case, one, tiles, pipeline="contexts"),
        CONTEXT: modelled(Case, one, tiles, contexts=1),
    }
    cost = host_cost(four, 4 * rounds)
    speech = np.random.default_rng(0).standard_normal(int(AUDIO_SECONDS * 16_000)).astype(np.float32) / 10
    mel = medians({"mel": lambda: log_mel(speech)}, rounds, time.perf_counter)["mel"]
    return {
        "tiles": tiles,
        "modelled_seconds": times,
        "modelled_in_real_time_seconds": real,
        "measured_host_seconds_a_launch": cost,
        "measured_mel_seconds": mel,
        "plan": [asdict(row) for row in plan(one, four, cost, mel)],
        "requirements": [
            {"name": name, "value": value, "bound": bound, "holds": holds}
            for name, value, bound, holds in requirements(tiles, times, cost)
        ],
    }


def show(results: dict[str, Any]) -> None:
    console = Console()
    times, real = results["modelled_seconds"], results["modelled_in_real_time_seconds"]
    table = Table(title=f"{results['tiles']} attention tiles on a simulated Phoenix: modelled times, no hardware")
    for column in ("way", "modelled ms", "gain", "real ms", "gain"):
        table.add_column(column, justify="left" if column == "way" else "right")
    for name, seconds in real.items():
        table.add_row(
            name,
            f"{times[name] * 1e3:.2f}" if name in times else "",
            f"{times[ONE_BY_ONE] / times[name]:.2f}x" if name in times else "",
            f"{seconds * 1e3:.2f}",
            f"{real[ONE_BY_ONE] / seconds:.2f}x",
        )
    console.print(table)
    table = Table(title="a launch of four tiles on the host: CPU time, measured; no modelled time in it")
    for column in ("share", "us"):
        table.add_column(column, justify="left" if column == "share" else "right")
    for name, seconds in results["measured_host_seconds_a_launch"].items():
        table.add_row(name, f"{seconds * 1e6:.1f}")
    console.print(table)
    table = Table(title=f"the first plan, {AUDIO_SECONDS:g} s of audio, {BLOCKS} blocks of {BLOCK_TILES} tiles")
    for column in ("way", "plan's claim", "this model", "NPU ms (modelled)", "host ms (measured)", "mel ms"):
        table.add_column(column, justify="left" if column == "way" else "right")
    for row in results["plan"]:
        claimed = "" if math.isnan(row["claimed"]) else f"{row['claimed']:.1f}x"
        front = "plan's own" if row["mel_seconds"] == PLAN_MEL else "measured"
        table.add_row(
            row["way"],
            claimed,
            f"{row['realtime']:.2f}x",
            f"{row['npu_seconds'] * 1e3:.1f}",
            f"{row['host_seconds'] * 1e3:.2f}",
            f"{row['mel_seconds'] * 1e3:.1f} ({front})",
        )
    console.print(table)
    console.print(
        "The plan's 24 tiles a block are one head and the diagonal blocks alone, and nothing but attention: no encoder "
        f"that transcribes. Exact attention takes {EXACT_TILES} such tiles a layer, which is the last line; the rest "
        "of the encoder comes on top.",
        highlight=False,
    )
    for check in results["requirements"]:
        mark = "holds" if check["holds"] else "DOES NOT HOLD"
        console.print(f"{mark}: {check['name']}: {check['value']:.2f}, bound {check['bound']:g}", highlight=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = measure(args.tiles, args.rounds, Path(folder))
    if args.json:
        plain = json.dumps(results, default=str)
        print(plain.replace("NaN", "null"))
    else:
        show(results)
    if not all(check["holds"] for check in results["requirements"]):
        sys.exit(1)


if __name__ == "__main__":
    main()
