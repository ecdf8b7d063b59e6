"""Mixed load on a simulated NPU that fails in every way: nothing lost, memory flat, a clean end with a run that hangs.

    python benchmarks/xrt_soak.py [--minutes 10] [--json]

Four kernels, five callers (two synchronous threads, futures, asyncio, map), each answer compared with the reference to
the bit. Launches end in ERROR and ABORT, are killed at the driver's limit, or answer wrongly (every answer is
verified); the device is lost and comes back again and again; one launch hangs for good in the middle, and one more at
the end, so that the process ends with a run in flight. It runs as a process of its own, whose exit code is looked at:
the simulator takes it down where the vendor's library would. The NPU is simulated; memory and requests are real.
Memory takes a few minutes to settle: judge it by a run of ten.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import hetero
from hetero.tensors import Array
from hetero.testing.xrt.clock import Clock, RealClock
from hetero.testing.xrt.phoenix import SimulatedPhoenix
from hetero.testing.xrt.pyxrt import simulated_pyxrt
from hetero.testing.xrt.stand_in import write_stand_in
from hetero_cpu.backend import CpuBackend
from hetero_kernels import get
from hetero_xrt.backend import XrtBackend
from hetero_xrt.flights import FLIGHTS

SHAPES: dict[str, dict[str, Any]] = {
    "attention_i8_64x64": {"columns": 1, "tiles_per_launch": 1},
    "matmul_i8_64x64": {"columns": 4, "tiles_per_launch": 4, "layout": "separate"},
    "layernorm_i8_256": {"columns": 4, "tiles_per_launch": 8, "order": "interleaved", "fill": "repeat"},
    "gelu_i8": {"columns": 2, "tiles_per_launch": 2, "tile_rows": 256},
}
OPTIONS: dict[str, dict[str, Any]] = {"attention_i8_64x64": {"contexts": 2}, "gelu_i8": {"contexts": 1}}
FAULTS: dict[Any, float] = {"error": 5e-4, "abort": 5e-4, "timeout": 2e-4, "garbage": 5e-4}
HANG, RESET = 0.4, 0.5
"""When a launch hangs, and when the driver ends it, as shares of the whole."""
SAMPLES = 6
"""Different inputs of each kernel."""


class FirstHealthy:
    """The NPU as long as it is healthy, however quick the CPU is: else the CPU would do most of this work."""

    name = "first healthy"
    prefers_first = True
    helps_out = False
    uses_all = False

    def choose(self, request: Any, options: Any, now: float) -> Any:
        return options[0] if options else None


@dataclass
class Tally:
    """What came of the requests.

    Attributes:
        asked: Requests.
        right: Answers that are the reference's.
        wrong: Answers that are not.
        errors: Requests that ended in an error, by its text.
        doors: Answers by door.
        devices: Answers by device, of the records.
        failures: Attempts that failed, by the kind of failure.
        most_parked: Launches that hung, or waited behind one that did, when the driver reset the NPU.
    """

    asked: int = 0
    right: int = 0
    wrong: int = 0
    errors: collections.Counter[str] = field(default_factory=collections.Counter)
    doors: collections.Counter[str] = field(default_factory=collections.Counter)
    devices: collections.Counter[str] = field(default_factory=collections.Counter)
    failures: collections.Counter[str] = field(default_factory=collections.Counter)
    most_parked: int = 0


class Soak:
    """The machine, the sessions, the callers.

    Args:
        folder: For stand-ins.
        npu_clock: The simulator's and the backend's.
        progress: How much of the soak is over, 0 to 1.
        phoenix: What is simulated.
        timeout: Seconds of that clock after which a launch counts as hung.
        losses: How often the device is lost.
        npu_first: The CPU answers only what the NPU cannot; else it helps out with half of the kernels.
        runtime_options: For the Runtime.
    """

    def __init__(
        self,
        folder: Path,
        npu_clock: Clock,
        progress: Callable[[Tally], float],
        phoenix: SimulatedPhoenix,
        *,
        timeout: float = 0.5,
        losses: int = 5,
        npu_first: bool = False,
        **runtime_options: Any,
    ) -> None:
        references = {name: get(name).reference for name in SHAPES}
        self.x = simulated_pyxrt(phoenix, kernels=references, clock=npu_clock)
        self.tally = Tally()
        self._clock = npu_clock
        self._progress = progress
        self._lock = threading.Lock()
        self._counted: set[int] = set()
        for name, shape in SHAPES.items():
            write_stand_in(folder / name, get(name).program(), **shape)
        host = hetero.Host(environ={}, cache=folder / "cache", simulate=("phoenix",))
        self.runtime = hetero.Runtime(
            backends=[self._backend, CpuBackend],
            plugins=False,
            host=host,
            options={"xrt": {"kernels": str(folder), "timeout": timeout}},
            learn=False,
            keep_records=5000,
            **runtime_options,
        )
        self.sessions = {
            name: self.runtime.load(
                get(name).program(),
                verify=1,
                batch_delay=0.0005,
                policy=FirstHealthy() if number % 2 or npu_first else "chain",
                options={"xrt": OPTIONS.get(name, {})},
            )
            for number, name in enumerate(SHAPES)
        }
        self._samples = {name: [sample(name, seed) for seed in range(SAMPLES)] for name in SHAPES}
        # By progress: what befalls the NPU.
        events = [((number + 0.5) / losses, "lost") for number in range(losses)]
        # Nothing gets through behind a launch that hangs, not even a loss, before the driver has reset the NPU.
        events = [(when, event) for when, event in events if not HANG <= when < RESET]
        self._events = sorted([*events, (HANG, "hang"), (RESET, "reset")])
        self._back_at: float | None = None

    def run(self) -> None:
        """All callers at once, until the progress is 1."""
        callers = [self._sync, self._sync, self._submit, self._arun, self._map]
        threads = [threading.Thread(target=caller, args=(number,)) for number, caller in enumerate(callers)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            self.befall()
            self.count_records()
            for thread in threads:
                thread.join(0.02)
        self.npu.restore()
        self.count_records()

    @property
    def npu(self) -> Any:
        return self.x.npu

    def hang(self, limit: float = 60.0) -> int:
        """Have a launch hang, and wait until it is parked. Returns how many are."""
        self.npu.force("hang")
        end = time.monotonic() + limit
        while FLIGHTS.parked == 0 and time.monotonic() < end:
            for name in SHAPES:
                inputs, _ = self._samples[name][0]
                self.sessions[name](inputs)
            self._recover()
            FLIGHTS.sweep()
        return FLIGHTS.parked

    def befall(self) -> None:
        """What is due by now."""
        progress = self._progress(self.tally)
        while self._events and self._events[0][0] <= progress:
            _, event = self._events.pop(0)
            if event == "reset":
                self.npu.release_hangs()
                self.tally.most_parked = max(self.tally.most_parked, FLIGHTS.parked)
            else:
                self.npu.force(event)
        self._recover()

    def _recover(self) -> None:
        """Bring a lost NPU back a little after somebody has met the loss, as the driver does."""
        if self.npu.lost:
            now = time.monotonic()
            self._back_at = self._back_at or now + 0.05
            if now >= self._back_at:
                self.npu.restore()
                self._back_at = None

    def count_records(self) -> None:
        kept = list(self.runtime.records)
        # They come in the order in which requests end, which is not that of their numbers.
        fresh = [record for record in kept if record.id not in self._counted]
        for record in fresh:
            self.tally.devices[record.device or "none"] += 1
            for attempt in record.attempts:
                if attempt.outcome == "failed":
                    self.tally.failures[kind_of(attempt.reason)] += 1
        self._counted = {record.id for record in kept}

    def _backend(self, host: hetero.Host) -> XrtBackend:
        return XrtBackend(host, pyxrt=self.x, clock=self._clock.now)

    def _work(self, seed: int) -> Iterator[tuple[str, dict[str, Array], dict[str, Array]]]:
        """Kernel, inputs and right answer, until the end."""
        random = np.random.default_rng(seed)
        names = list(SHAPES)
        while self._progress(self.tally) < 1 and not self.tally.errors:
            name = names[random.integers(len(names))]
            inputs, right = self._samples[name][random.integers(SAMPLES)]
            with self._lock:
                self.tally.asked += 1
            yield name, inputs, right

    def _told(self, door: str, answer: Any, right: dict[str, Array]) -> None:
        (expected,) = right.values()
        same = isinstance(answer, np.ndarray) and np.array_equal(answer, expected)
        with self._lock:
            self.tally.doors[door] += 1
            self.tally.right += same
            self.tally.wrong += not same

    def _failed(self, error: BaseException) -> None:
        with self._lock:
            self.tally.errors[f"{type(error).__name__}: {error}"[:200]] += 1

    def _sync(self, seed: int) -> None:
        for name, inputs, right in self._work(seed):
            try:
                self._told("sync", self.sessions[name](inputs), right)
            except Exception as error:
                self._failed(error)

    def _submit(self, seed: int) -> None:
        waiting: collections.deque[tuple[Any, dict[str, Array]]] = collections.deque()

        def collect() -> None:
            future, right = waiting.popleft()
            try:
                self._told("submit", future.result(), right)
            except Exception as error:
                self._failed(error)

        for name, inputs, right in self._work(seed):
            waiting.append((self.sessions[name].submit(inputs), right))
            if len(waiting) >= 8:
                collect()
        while waiting:
            collect()

    def _arun(self, seed: int) -> None:
        async def one(name: str, inputs: dict[str, Array], right: dict[str, Array]) -> None:
            try:
                self._told("arun", await self.sessions[name].arun(inputs), right)
            except Exception as error:
                self._failed(error)

        async def main() -> None:
            work = self._work(seed)
            while some := list(itertools.islice(work, 4)):
                await asyncio.gather(*(one(*each) for each in some))

        asyncio.run(main())

    def _map(self, seed: int) -> None:
        """Runs of one kernel at a time, in order."""
        for number in itertools.count():
            name = list(SHAPES)[number % len(SHAPES)]
            if self._progress(self.tally) >= 1 or self.tally.errors:
                return
            chosen = [self._samples[name][index % SAMPLES] for index in range(12)]
            with self._lock:
                self.tally.asked += len(chosen)
            rights = iter(right for _, right in chosen)
            try:
                for answer in self.sessions[name].map((inputs for inputs, _ in chosen), in_flight=6):
                    self._told("map", answer, next(rights))
            except Exception as error:
                for _ in rights:
                    self._failed(error)
                self._failed(error)


def sample(name: str, seed: int) -> tuple[dict[str, Array], dict[str, Array]]:
    """Inputs of a kernel, of a size of their own, and the right answer."""
    random = np.random.default_rng(seed)
    rows = (1 + seed) * (200 if name == "gelu_i8" else 1)
    inputs = {
        spec.name: random.integers(
            -128, 128, [size if isinstance(size, int) else rows for size in spec.shape or ()], np.int8
        )
        for spec in get(name).inputs
    }
    return inputs, dict(get(name).reference(**inputs))


def kind_of(reason: str) -> str:
    """The kind of a failure, from its words."""
    signs = {
        "the driver killed": "killed at the limit",
        "has not ended within": "hung",
        "have not ended so far": "hung before",
        "state ERROR": "ERROR",
        "state ABORT": "ABORT",
        "differs from the reference": "wrong answer",
        "went away": "lost",
    }
    return next((kind for sign, kind in signs.items() if sign in reason), reason[:100])


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def ends(values: Array) -> dict[str, int]:
    """First, last and greatest of some samples."""
    return {"first": int(values[0]), "last": int(values[-1]), "most": int(values.max())}


def child(minutes: float) -> None:
    """The soak itself, in this process; its results go to stdout as JSON."""
    started = time.monotonic()
    phoenix = SimulatedPhoenix(
        faults=FAULTS, tile_seconds=400e-6, command_limit=0.1, context_seconds=0.005, seed=7, real_crashes=True
    )
    samples: list[tuple[float, int, int, int, int]] = []

    def watch(soak: Soak, stop: threading.Event) -> None:
        while not stop.wait(min(5.0, minutes)):
            report = soak.npu.report()
            passed = time.monotonic() - started
            samples.append((passed, resident(), report.buffers, report.contexts, threading.active_count()))
            told = f"{passed:6.0f} s: {soak.tally.asked} asked, {samples[-1][1] / 1e6:.1f} MB"
            print(f"{told}, {report.buffers} buffers, {FLIGHTS.parked} parked", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as folder:
        soak = Soak(
            Path(folder),
            RealClock(),
            lambda tally: (time.monotonic() - started) / (60 * minutes),
            phoenix,
            losses=max(1, round(2 * minutes)),
        )
        stop = threading.Event()
        watcher = threading.Thread(target=watch, args=(soak, stop))
        watcher.start()
        soak.run()
        stop.set()
        watcher.join()
        parked = soak.hang()
        report = soak.npu.report()
        tally = soak.tally
        soak.runtime.close(timeout=2.0)
        # Warming up is over after a fifth.
        settled = np.array([each for each in samples if each[0] > 12 * minutes] or samples, float).reshape(-1, 5)
        slopes = [float(np.polyfit(settled[:, 0] / 60, settled[:, at], 1)[0]) for at in (1, 2)]
        results = {
            "seconds": time.monotonic() - started,
            "asked": tally.asked,
            "right": tally.right,
            "wrong": tally.wrong,
            "errors": dict(tally.errors),
            "doors": dict(tally.doors),
            "devices": dict(tally.devices),
            "failures": dict(tally.failures),
            "launches": report.launches,
            "misuse": dict(report.misuse),
            "crashes": list(report.crashes),
            "resident_bytes": ends(settled[:, 1]),
            "resident_bytes_a_minute": slopes[0],
            "buffers": ends(settled[:, 2]),
            "buffers_a_minute": slopes[1],
            "threads": ends(settled[:, 4]),
            "parked_in_the_middle": tally.most_parked,
            "parked_at_the_end": parked,
        }
        print(json.dumps(results), flush=True)


def verdicts(results: dict[str, Any], code: int) -> dict[str, bool]:
    """What has to hold, and whether it does."""
    growth = results["resident_bytes"]["last"] - results["resident_bytes"]["first"]
    return {
        "every request was answered, once and rightly": results["asked"] == results["right"]
        and not results["wrong"]
        and not results["errors"],
        "both devices answered": {"xrt", "cpu"} <= set(results["devices"]),
        "memory is flat (less than 5% more at the end)": growth < 0.05 * results["resident_bytes"]["first"],
        "buffers are as many at the end": results["buffers"]["last"] <= results["buffers"]["first"] + 6,
        "the vendor's library was never misused": not results["misuse"] and not results["crashes"],
        "a launch hung in the middle": results["parked_in_the_middle"] > 0,
        "a run was parked at the end, and the process ended in peace": results["parked_at_the_end"] > 0 and code == 0,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.minutes)
        return
    command = [sys.executable, __file__, "--child", "--minutes", str(args.minutes)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if not done.stdout:
        sys.exit(f"the process ended with {done.returncode} and no results")
    results = json.loads(done.stdout.splitlines()[-1])
    checks = verdicts(results, done.returncode)
    results = {**results, "exit_code": done.returncode, "verdicts": checks}
    if args.json:
        print(json.dumps(results))
    else:
        for key, value in results.items():
            if key != "verdicts":
                print(f"{key}: {value}")
        for what, holds in checks.items():
            print(f"{'holds' if holds else 'DOES NOT HOLD'}: {what}")
    sys.exit(0 if all(checks.values()) else 1)


if __name__ == "__main__":
    main()
