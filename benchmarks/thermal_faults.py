"""Faults of temperature sensors by the hundred, while a Runtime serves requests on a modelled board that is hot.

    python benchmarks/thermal_faults.py [--faults 300] [--seed 1] [--json]

The board is an RK3588 in a sealed box, in air of 45 C: its NPU is at its limit all the time, and the governor paces it.
Meanwhile its sensors fail, one after another or all at once, each for 1 to 40 seconds:

| fault | what a read does |
|---|---|
| missing | no such file |
| permission | permission denied |
| bus | input/output error |
| zero | says 0 |
| jump up, jump down | says 60 C more, or less |
| garbage | text, or bytes that are none |
| stuck | says what it said when the fault began |
| hangs | does not come back before the fault is over, and with it the governor's tick |

Counted are exceptions that reached a request (there should be none), requests that were never answered, and a false
"cool": the NPU is at its maximum or above, by its true temperature, and its state says cool. Nobody can know better
where every sensor of the board tells the same plausible lie: such seconds (all sensors stuck, or all 60 C too low for
longer than a die may take to cool that far) are counted apart. `highest` is the NPU's true temperature.

The board, its files, its time and the faults are modelled; scheduler, governor and threads are the real ones.
"""

from __future__ import annotations

import argparse
import json
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from errno import EACCES, EIO, ENOENT
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from hetero.runtime import Runtime
from hetero.testing.thermal import builds
from hetero.testing.thermal.scenarios import Scenario, scenario
from hetero.testing.thermal.serving import Served, serve
from hetero.testing.thermal.ways import Governed, Way
from hetero.testing.thermal.world import World
from hetero.thermal.governor import Governor

KINDS = ("missing", "permission", "bus", "zero", "jump up", "jump down", "garbage", "stuck", "hangs")
ERRORS = {"missing": (ENOENT, "No such file"), "permission": (EACCES, "Permission denied"), "bus": (EIO, "I/O error")}
GARBAGE = ("garbage", "", "8_4000", "84000 84000", "\x00\x00", "1e5", "٨٤٠٠٠")
LIES = ("stuck", "jump down")

WARM_UP = 400


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        kind: One of `KINDS`.
        every: All sensors have it; else the NPU's own alone.
        start: Second at which it begins.
        seconds: How long it lasts.
        text: What is read, where that is garbage.
    """

    kind: str
    every: bool
    start: int
    seconds: int
    text: str = ""


@dataclass
class Tally:
    """What came of one kind of fault."""

    count: int = 0
    seconds: int = 0
    false_cool: int = 0
    unknowable: int = 0
    unknown: int = 0
    highest: float = 0.0


@dataclass
class Injector:
    """Reads of the board's temperatures, and what goes wrong with them."""

    fault: Fault | None = None
    began: dict[str, str] = field(default_factory=dict)
    over: threading.Event = field(default_factory=threading.Event)
    hanging: threading.Event = field(default_factory=threading.Event)

    def begin(self, fault: Fault) -> None:
        """From now on."""
        self.fault, self.began, self.over = fault, {}, threading.Event()

    def end(self) -> None:
        """The files tell the truth again."""
        self.fault = None
        self.over.set()

    def read(self, path: Path, said: str) -> str:
        """What a read gives, or raises, where the kernel says `said`."""
        fault = self.fault
        if fault is None or not (fault.every or (path.parent / "type").read_bytes().startswith(b"npu")):
            return said
        if fault.kind in ERRORS:
            raise OSError(*ERRORS[fault.kind])
        if fault.kind == "hangs":
            self.hanging.set()
            self.over.wait()
            self.hanging.clear()
            return said
        return {
            "zero": "0",
            "jump up": str(int(said) + 60_000),
            "jump down": str(int(said) - 60_000),
            "garbage": fault.text,
            "stuck": self.began.setdefault(str(path), said),
        }[fault.kind]

    @contextmanager
    def installed(self) -> Iterator[None]:
        """In the way of every read of a zone's temperature."""
        read = Path.read_text

        def text(path: Path, *args: Any, **options: Any) -> str:
            said = read(path, *args, **options)
            return self.read(path, said) if path.name == "temp" else said

        Path.read_text = text  # type: ignore[method-assign]
        try:
            yield
        finally:
            self.over.set()
            Path.read_text = read  # type: ignore[method-assign]


def drawn(count: int, seed: int) -> list[Fault]:
    """Faults one after another, with pauses in which the board recovers."""
    rng = np.random.default_rng(seed)
    faults, start = [], WARM_UP
    for _ in range(count):
        length = int(rng.integers(1, 41))
        text = GARBAGE[int(rng.integers(len(GARBAGE)))]
        faults.append(Fault(KINDS[int(rng.integers(len(KINDS)))], bool(rng.random() < 0.4), start, length, text))
        start += length + int(rng.integers(10, 41))
    return faults


class Demonstration:
    """Begins and ends faults in time, and looks what comes of them."""

    def __init__(self, faults: list[Fault]) -> None:
        self.injector = Injector()
        self.tallies: dict[str, Tally] = defaultdict(Tally)
        self._faults = {fault.start: fault for fault in faults}
        self._ticking: threading.Thread | None = None

    def second(self, runtime: Runtime, world: World) -> None:
        """After each second of the world."""
        governor = runtime.governor
        assert governor is not None
        now = round(world())
        fault, celsius, sample = self.injector.fault, world.machine.celsius, governor.samples["npu"]
        if fault is not None:
            tally = self.tallies[fault.kind]
            tally.seconds += 1
            tally.highest = max(tally.highest, celsius)
            tally.unknown += sample.reading.celsius is None
            if sample.grant.state == "cool" and celsius >= 85.0:
                if fault.every and fault.kind in LIES:
                    tally.unknowable += 1
                else:
                    tally.false_cool += 1
            if now >= fault.start + fault.seconds:
                self.injector.end()
                if self._ticking is not None:
                    self._ticking.join()
        elif sample.grant.state == "cool" and celsius >= 85.0:
            self.tallies["after a fault"].false_cool += 1
        if now in self._faults:
            self.injector.begin(self._faults[now])
            self.tallies[self._faults[now].kind].count += 1

    def tick(self, governor: Governor) -> None:
        """Have the governor look, in a thread of its own: a driver that hangs takes that along, and nothing else."""
        if self._ticking is not None:
            if self.injector.hanging.is_set():
                return
            self._ticking.join()
        done = threading.Event()

        def look() -> None:
            governor.tick()
            done.set()

        self._ticking = threading.Thread(target=look, daemon=True)
        self._ticking.start()
        while not done.wait(0.001) and not self.injector.hanging.is_set():
            pass

    def way(self, scenario: Scenario, world: World, lanes: int) -> Way:
        """Ours, with this tick."""
        way = Governed(scenario, world, lanes)
        way.tick = self.tick  # type: ignore[method-assign]
        return way


def measure(faults: list[Fault], seed: int, console: Console) -> tuple[Served, Demonstration]:
    """Play them."""
    demonstration = Demonstration(faults)
    seconds = faults[-1].start + faults[-1].seconds + 30
    hot = scenario("RK3588, sealed box, 45 C", builds.RK3588_SEALED, 45.0, seconds=seconds)
    with (
        demonstration.injector.installed(),
        Progress(console=console, transient=True, disable=not console.is_terminal) as bar,
    ):
        task = bar.add_task("modelled seconds", total=seconds)
        served = serve(
            hot,
            demonstration.way,
            seed=seed,
            progress=lambda now: bar.update(task, completed=now),
            each_second=demonstration.second,
        )
    return served, demonstration


def document(served: Served, demonstration: Demonstration, args: argparse.Namespace) -> dict[str, Any]:
    """What is printed."""
    tallies = demonstration.tallies
    return {
        "faults": args.faults,
        "seed": args.seed,
        "modelled_seconds": len(served.outcome.temperatures),
        "requests": served.requests,
        "exceptions_in_requests": len(served.errors),
        "slowest_request_seconds": round(served.longest, 2),
        "highest": round(served.outcome.highest, 1),
        "hot_seconds": served.outcome.hot_seconds,
        "false_cool_seconds": sum(tally.false_cool for tally in tallies.values()),
        "kinds": {kind: asdict(tallies[kind]) for kind in (*KINDS, "after a fault") if kind in tallies},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.faults < 1:
        parser.error("--faults is at least 1")
    started = time.perf_counter()
    # What is said of each fault would be hundreds of lines.
    logging.getLogger("hetero").setLevel(logging.ERROR)
    served, demonstration = measure(drawn(args.faults, args.seed), args.seed, Console(stderr=True))
    result = document(served, demonstration, args)
    if args.json:
        print(json.dumps(result, indent=2))
        return
    table = Table(title=f"{args.faults} faults of sensors on a modelled board; seconds of each")
    for column in ("fault", "faults", "seconds", "unknown", "highest, C", "false cool", "cool, unknowably"):
        table.add_column(column, justify="left" if column == "fault" else "right")
    for kind, tally in result["kinds"].items():
        told = (tally["count"], tally["seconds"], tally["unknown"])
        highest = f"{tally['highest']:.1f}" if tally["highest"] else "-"
        table.add_row(kind, *map(str, told), highest, str(tally["false_cool"]), str(tally["unknowable"]))
    Console(width=None if Console().is_terminal else 110).print(table)
    print(
        f"{result['requests']} requests, {result['exceptions_in_requests']} exceptions in them; the slowest took "
        f"{result['slowest_request_seconds']:g} s; {result['false_cool_seconds']} s of false cool\n"
        f"{result['modelled_seconds']} modelled seconds, {result['highest']:g} C at most, "
        f"{result['hot_seconds']:g} s at 85 C or above; {time.perf_counter() - started:.0f} s"
    )


if __name__ == "__main__":
    main()
