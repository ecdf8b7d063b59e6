"""Devices that crash, hang, lie, refuse and dawdle, on a clock that moves with the work that is done."""

from __future__ import annotations

import collections
import gc
import os
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

import hetero
from hetero import errors
from hetero.backend import Array, Call, Device, Program
from tests.fakes import FakeBackend, FakeExecutable, Run, double, fake

TICK = 0.05
"""Seconds of the scheduler's time for each run that ends: a machine that stalls stalls the clock too."""

FAULTS = {"lost": 0.02, "error": 0.02, "refused": 0.02, "form": 0.01, "wrong": 0.01, "hang": 0.01}
"""Shares of the runs of each accelerator."""


class World:
    """The clock, and everything that waits for it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.ended = 0
        self.hangs = 0
        self.cancelled = 0
        self._hanging: collections.deque[tuple[float, threading.Event]] = collections.deque()
        self._stopped = threading.Event()
        self._open = False

    def clock(self) -> float:
        return self.now

    def hang(self, life: float = 20.0) -> threading.Event:
        """Does not come back before its time has come, or for ever in the end."""
        event = threading.Event()
        self.hangs += 1
        self._hanging.append((self.now + life, event))
        if self._open:
            event.set()
        return event

    def dawdle(self, seconds: float) -> None:
        """Comes back when so much of the scheduler's time has passed."""
        until = self.now + seconds
        while self.now < until and not self._open:
            self._stopped.wait(0.0002)

    @contextmanager
    def passing(self, runtime: hetero.Runtime) -> Iterator[None]:
        """Time passes while this lasts."""

        def pass_time() -> None:
            seen = stuck = 0
            while not self._stopped.is_set():
                ended = self.ended
                stuck = 0 if ended != seen else stuck + 1
                # With nothing but hung calls left, nothing ends: then time passes by itself.
                self.now += TICK * (ended - seen) if ended != seen else 0.5 if stuck > 6 else 0.0
                seen = ended
                runtime.timers.run_due()
                while self._hanging and self._hanging[0][0] <= self.now:
                    self._hanging.popleft()[1].set()
                self._stopped.wait(0.0005)

        thread = threading.Thread(target=pass_time)
        thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            thread.join()

    def let_go(self) -> None:
        """Nothing hangs or dawdles any more."""
        self._open = True
        for _, event in list(self._hanging):
            event.set()


class ChaosExecutable(FakeExecutable):
    """One that can be interrupted, if its backend says so."""

    def __init__(self, backend: FakeBackend, waiting: Mapping[Call, threading.Event]) -> None:
        super().__init__(backend)
        self._waiting = waiting

    def cancel(self, call: Call) -> bool:
        event = self._waiting.get(call)
        if event is None:
            return False
        event.set()
        return True


def accelerator(
    world: World,
    name: str,
    kind: str,
    lanes: int,
    *,
    units: tuple[str, ...] = (),
    slow: float = 0.0,
    interruptible: bool = False,
) -> type[FakeBackend]:
    """A backend with every fault; drawn from the input and the name, so that a request has the same fate each time."""

    waiting: dict[Call, threading.Event] = {}

    def run(inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        x = inputs["x"]
        if slow:
            world.dawdle(slow)
        fault = _drawn(f"{name}{x.ravel()[0]}")
        if fault == "lost":
            raise errors.DeviceLost("reset")
        if fault == "error":
            raise OSError("vendor error -1")
        if fault == "refused":
            raise errors.Unsupported("not this shape")
        if fault == "form":
            return {"y": (x * 2).astype(np.float64)}
        if fault == "wrong":
            return {"y": x * 3}
        if fault == "hang":
            event = world.hang()
            if interruptible:
                waiting[call] = event
            assert event.wait(120)
            waiting.pop(call, None)
            if call.cancelled:
                world.cancelled += 1
                raise OSError("interrupted")
        return {"y": x * 2}

    return _backend(world, name, kind, lanes, run, units, waiting)


def processor(world: World, name: str, lanes: int) -> type[FakeBackend]:
    """A CPU, which is always right; the last of the chain, and the reference."""
    return _backend(world, name, "cpu", lanes, double)


def _drawn(seed: str) -> str:
    draw = zlib.crc32(seed.encode()) % 10_000 / 10_000
    for fault, share in FAULTS.items():
        draw -= share
        if draw < 0:
            return fault
    return ""


def _backend(
    world: World,
    name: str,
    kind: str,
    lanes: int,
    run: Run,
    units: Sequence[str] = (),
    waiting: Mapping[Call, threading.Event] | None = None,
) -> type[FakeBackend]:
    def counted(inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        try:
            return run(inputs, call)
        finally:
            world.ended += 1

    base = fake(name, kind=kind, lanes=lanes, simulated=kind != "cpu", units=units, run=counted)

    class Chaotic(base):  # type: ignore[misc, valid-type]
        def load(self, program: Program, device: Device, options: Mapping[str, Any]) -> ChaosExecutable:
            executable = ChaosExecutable(self, {} if waiting is None else waiting)
            type(self).made.append(executable)
            return executable

    return Chaotic


class Traces:
    """Threads and files that were there before, to be held against those that are there afterwards."""

    def __init__(self) -> None:
        gc.collect()
        self._threads = set(threading.enumerate())
        self._files = _open_files()

    def nothing_left(self) -> None:
        gc.collect()
        assert set(threading.enumerate()) <= self._threads
        assert _open_files() <= self._files


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
