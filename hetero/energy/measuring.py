"""Joules per item of a session, measured: what the machine takes at work, less what it takes idle.

A meter of the package or the board counts everything that hangs on it. So a device's part is what comes on top when it
alone is set to work, and that is only known when nothing else changes meanwhile: idle and work take turns, and when the
turns contradict each other, or the difference is lost in the idle machine's own ups and downs, the answer is `unknown`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hetero.energy.meters import Meter
from hetero.errors import Unavailable
from hetero.scheduler.costs import median, shapes_of

if TYPE_CHECKING:
    from hetero.session import Session

Clock = Callable[[], float]

ROUNDS = 3
"""How often the device is set to work; before, between and after it is idle."""


@dataclass(frozen=True)
class Energy:
    """What was found out about a program on a device.

    Attributes:
        joules: For an item, on top of the idle machine's; None when it is unknown.
        gross: For an item, the idle machine's part included; None when nothing could be measured.
        idle_watts: Of whatever the meter counts, while nothing ran; None when nothing could be measured.
        work_watts: The same, while the device was at work.
        items: How many were counted.
        meter: The meter's name, what the kernel calls it, and what it counts; empty when there is none.
        reason: Why `joules` is unknown; empty otherwise.
        fix: What can be done about it.
    """

    joules: float | None = None
    gross: float | None = None
    idle_watts: float | None = None
    work_watts: float | None = None
    items: int = 0
    meter: str = ""
    reason: str = ""
    fix: str = ""

    @classmethod
    def unknown(cls, error: Unavailable, meter: str = "") -> Energy:
        """Nothing could be measured, for that reason."""
        return cls(reason=error.problem, fix=error.fix or "", meter=meter)


class Tally:
    """A meter's joules over a stretch of time; samples may be taken in several threads.

    Args:
        meter: What counts.
        clock: Seconds.

    Raises:
        Unavailable: The meter cannot be read.
    """

    def __init__(self, meter: Meter, clock: Clock) -> None:
        self.joules = 0.0
        self.seconds = 0.0
        self._meter = meter
        self._clock = clock
        self._lock = threading.Lock()
        self._time = clock()
        self._last = meter.read()

    def sample(self) -> None:
        """Take in what has come since the last sample. A counter must not have gone round more than once since.

        Raises:
            Unavailable: The meter cannot be read any more, or has begun anew.
        """
        with self._lock:
            now, read = self._clock(), self._meter.read()
            seconds = now - self._time
            if self._meter.cumulative:
                self.joules += self._counted(read)
            else:
                self.joules += (sum(self._last) + sum(read)) / 2 * seconds
            self.seconds += seconds
            self._time, self._last = now, read

    @property
    def watts(self) -> float:
        """On average; 0 before any time has passed."""
        return self.joules / self.seconds if self.seconds else 0.0

    def _counted(self, read: tuple[float, ...]) -> float:
        joules = 0.0
        for part, before, now in zip(self._meter.parts, self._last, read, strict=True):
            if now < before and not part.top:
                raise Unavailable(f"{self._meter.name} has begun anew while it was read")
            joules += now - before + (part.top if now < before else 0.0)
        return joules


def measure(
    session: Session,
    inputs: Mapping[str, Any],
    meter: Meter,
    seconds: float,
    *,
    clock: Clock = time.perf_counter,
    sleep: Callable[[float], object] = time.sleep,
) -> Energy:
    """Set a session's device to work and idle by turns, and tell what an item costs. Nothing else should run meanwhile.

    What was measured is kept with the Runtime's learned costs, where the policy `efficiency` finds it.

    Args:
        session: Of one device and nothing else: loaded with `fallback="forbid"`.
        inputs: Of an item, by name; the same for each.
        meter: What counts the device.
        seconds: Of each turn; the meter's shortest turn at least.
        clock: Seconds, for tests.
        sleep: Lets that much time pass, for tests.

    Raises:
        DispatchError: The device failed or refused.
    """
    turn = max(seconds, meter.shortest)
    rest: list[Tally] = []
    work: list[tuple[Tally, int]] = []
    try:
        rest.append(idle(meter, turn, clock, sleep))
        for _ in range(ROUNDS):
            work.append(_work(session, inputs, meter, turn, clock))
            rest.append(idle(meter, turn, clock, sleep))
    except Unavailable as error:
        return Energy.unknown(error, str(meter))
    energy = judged(meter, rest, work)
    if energy.joules is not None:
        feed = session.program.signature.feed([inputs])
        session._candidates[0].expects.learn_energy(shapes_of(feed), energy.joules, energy.meter)
    return energy


class Sampling:
    """Has a thread take samples of a tally, so that no counter goes round unseen and powers are averaged."""

    def __init__(self, tally: Tally, interval: float) -> None:
        self._tally = tally
        self._interval = interval
        self._stopped = threading.Event()
        self._error: Unavailable | None = None
        self._thread = threading.Thread(target=self._run, name="hetero-power-meter", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Take the last sample. Raises Unavailable when one could not be taken."""
        self.abandon()
        if self._error is not None:
            raise self._error
        self._tally.sample()

    def abandon(self) -> None:
        """End the thread, whatever it has seen."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(self._interval):
            try:
                self._tally.sample()
            except Unavailable as error:
                self._error = error
                return


def idle(meter: Meter, seconds: float, clock: Clock, sleep: Callable[[float], object]) -> Tally:
    """What the machine takes in so many seconds of rest, counted from when the meter has settled."""
    sleep(meter.settle)
    tally = Tally(meter, clock)
    sampling = Sampling(tally, meter.interval)
    try:
        sleep(seconds)
        sampling.end()
    finally:
        sampling.abandon()
    return tally


def _work(session: Session, inputs: Mapping[str, Any], meter: Meter, seconds: float, clock: Clock) -> tuple[Tally, int]:
    """As many items as fit, several under way; counted from when the meter has settled.

    As many are under way when counting begins as when it ends: each item answered in between counts as a whole one.
    """
    settled = clock() + meter.settle
    tally: Tally | None = None
    sampling: Sampling | None = None
    count = 0
    over = False

    def items() -> Iterator[Mapping[str, Any]]:
        while not over:
            yield inputs

    try:
        for _ in session.map(items()):
            if over:
                continue
            if tally is None or sampling is None:
                if clock() >= settled:
                    tally = Tally(meter, clock)
                    sampling = Sampling(tally, meter.interval)
                continue
            count += 1
            over = clock() >= settled + seconds
            if over:
                sampling.end()
    finally:
        if sampling is not None:
            sampling.abandon()
    assert tally is not None
    return tally, count


def judged(meter: Meter, idle: list[Tally], work: list[tuple[Tally, int]]) -> Energy:
    """The medians, unless the turns do not agree."""
    powers = [tally.watts for tally in idle]
    rest = median(powers)
    busy = median([tally.watts for tally, _ in work])
    # The idle machine may grow warmer and its fans quicker: each turn of work is held against its neighbours.
    each = [
        (tally.joules - (before + after) / 2 * tally.seconds) / count
        for (tally, count), before, after in zip(work, powers, powers[1:], strict=False)
    ]
    told = Energy(
        joules=median(each),
        gross=median([tally.joules / count for tally, count in work]),
        idle_watts=rest,
        work_watts=busy,
        items=sum(count for _, count in work),
        meter=str(meter),
    )
    fix = "end what else runs on this machine, or measure longer: hetero bench --seconds 15"
    swing = max(powers) - min(powers)
    if busy - rest <= swing:
        reason = f"work takes {busy - rest:.3g} W more than rest, and rest itself moves by {swing:.3g} W: "
        return replace(told, joules=None, reason=reason + "the difference is not the device's alone", fix=fix)
    if max(each) - min(each) > median(each):
        reason = f"the turns do not agree: {min(each):.3g} to {max(each):.3g} J for an item"
        return replace(told, joules=None, reason=reason, fix=fix)
    return told
