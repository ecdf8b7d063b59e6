"""Joules of an item, measured beside an application: in its pauses, and given up as soon as it wants to work.

The same turns of rest and work as in `measuring`, by one call at a time. What begins meanwhile would be counted with
the device's own, so such a measurement is thrown away.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hetero.backend import Device
from hetero.energy.choice import meter_for
from hetero.energy.measuring import ROUNDS, Clock, Sampling, Tally, idle, judged
from hetero.energy.meters import Meter, find_meters
from hetero.errors import Unavailable

_TURN = 1.0
_LOOK = 0.05


@dataclass(frozen=True)
class Glance:
    """What came of a pause.

    Attributes:
        joules: Of an item, on top of the idle machine's; None when it is still unknown.
        meter: What has measured them.
        reason: Why they are unknown.
        again: Another pause may tell.
    """

    joules: float | None = None
    meter: str = ""
    reason: str = ""
    again: bool = False


class _Disturbed(Exception):
    """Somebody else works."""


class Aside:
    """Measures devices while nothing else runs.

    Args:
        sysroot: Root of `/sys`.
        devices: All of the machine, by name.
        activity: Tells how many runs there were so far, and whether one goes on or waits; its own are not among them.
        closed: Ends a measurement.
        clock: Seconds, for tests.
        sleep: Lets that much time pass, for tests.
    """

    def __init__(
        self,
        sysroot: Path,
        devices: Mapping[str, Device],
        activity: Callable[[], tuple[int, bool]],
        closed: threading.Event,
        *,
        clock: Clock = time.perf_counter,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        self.activity = activity
        self._sysroot = sysroot
        self._devices = devices
        self._closed = closed
        self._clock = clock
        self._sleep = sleep or closed.wait

    def measure(
        self, device: str, answer: Callable[[], object], may_go_on: Callable[[], bool] = lambda: True
    ) -> Glance:
        """What an item takes on a device.

        Args:
            device: Its name.
            answer: Has it answer one item.
            may_go_on: Asked again and again; False ends it.

        Raises:
            Exception: What `answer` raised.
        """
        try:
            meter = meter_for(
                self._devices[device], list(self._devices.values()), find_meters(self._sysroot), self._sysroot
            )
        except Unavailable as error:
            return Glance(reason=error.problem)
        runs, running = self.activity()
        if running:
            return Glance(reason="requests run all the time", again=True)

        def look() -> None:
            if self._closed.is_set() or self.activity() != (runs, False) or not may_go_on():
                raise _Disturbed

        turn = max(_TURN, meter.shortest)
        try:
            rests, works = [self._rest(meter, turn, look)], []
            for _ in range(ROUNDS):
                works.append(self._work(meter, turn, answer, look))
                rests.append(self._rest(meter, turn, look))
        except _Disturbed:
            return Glance(reason="there was no pause that was long enough", again=True)
        except Unavailable as error:
            return Glance(reason=error.problem)
        energy = judged(meter, rests, works)
        if energy.joules is None:
            return Glance(reason=energy.reason, again=True)
        return Glance(energy.joules, f"{energy.meter}, in a pause")

    def _rest(self, meter: Meter, seconds: float, look: Callable[[], None]) -> Tally:
        def sleep(left: float) -> None:
            until = self._clock() + left
            while (left := until - self._clock()) > 0:
                self._sleep(min(left, _LOOK))
                look()

        return idle(meter, seconds, self._clock, sleep)

    def _work(
        self, meter: Meter, seconds: float, answer: Callable[[], object], look: Callable[[], None]
    ) -> tuple[Tally, int]:
        settled = self._clock() + meter.settle
        while self._clock() < settled:
            answer()
            look()
        tally, count = Tally(meter, self._clock), 0
        sampling = Sampling(tally, meter.interval)
        try:
            until = self._clock() + seconds
            while self._clock() < until:
                answer()
                count += 1
                look()
            sampling.end()
        finally:
            sampling.abandon()
        return tally, count
