"""Timing one program on several devices in turns, so that whatever slows the machine slows all of them alike."""

from __future__ import annotations

import functools
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from hetero.backend import Device
from hetero.cli.runtime import LEFT_ALONE
from hetero.cli.watched import Beat, Watched
from hetero.energy.choice import meter_for, meter_named
from hetero.energy.measuring import ROUNDS, Energy
from hetero.energy.measuring import measure as energy_of
from hetero.energy.meters import Meter, find_meters
from hetero.errors import DeviceTimeout, DispatchError, FallbackForbidden, Unavailable
from hetero.tensors import Array

if TYPE_CHECKING:
    from hetero.program import Program
    from hetero.runtime import Runtime
    from hetero.session import Session

T = TypeVar("T")

# Throughput is the median of so many stretches of `map`.
_STRETCHES = 3
_LEAST_RUNS = 3
_TELL_EVERY = 0.1


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        warmup: Runs on each device that are not counted, after the first one.
        seconds: Time for each device, two thirds of it for single runs and one third for throughput.
        runs: Single runs, and items for throughput, on each device; goes before `seconds` when given.
        timeout: Seconds after which a call counts as hung: its device is given up, the others go on. None for never.
    """

    warmup: int
    seconds: float
    runs: int | None
    timeout: float | None = None


@dataclass
class Contender:
    """One device and what was measured on it.

    Attributes:
        device: The device.
        session: The program on it; None when it could not be loaded.
        outcome: `ok`, `unsupported` or `failed`.
        reason: Why not `ok`.
        load_seconds: What `Runtime.load` took.
        first_seconds: The first run.
        seconds: The counted single runs, from call to answer.
        spent: Their sum.
        rates: Items per second, one for each stretch of `map`.
        outputs: The first run's.
        energy: Joules of an item, or why they are unknown; None when nobody asked for them.
    """

    device: Device
    session: Session | None = None
    outcome: str = "ok"
    reason: str = ""
    load_seconds: float | None = None
    first_seconds: float | None = None
    seconds: list[float] = field(default_factory=list)
    spent: float = 0.0
    rates: list[float] = field(default_factory=list)
    outputs: Mapping[str, Array] = field(default_factory=dict)
    energy: Energy | None = None
    _thread: Watched | None = None
    _hangs: bool = False

    def give_up(self, error: DispatchError | DeviceTimeout) -> None:
        """The device refused, failed or hangs: nothing more is measured on it."""
        if isinstance(error, DeviceTimeout):
            self.outcome, self._hangs = "failed", True
            self.reason = f"{error.problem}; {LEFT_ALONE}"
            return
        last = error.attempts[-1]
        self.outcome = "unsupported" if last.outcome == "unsupported" else "failed"
        self.reason = last.reason

    def do(self, work: Callable[[Session, Beat], T], patience: float | None) -> T | None:
        """Have the session do something; None when the device refuses, fails or hangs, which gives it up.

        Args:
            work: What to do, with beats in between where it takes long.
            patience: Seconds that it may be silent; None for any number.
        """
        session = self.session
        assert session is not None
        try:
            if patience is None:
                return work(session, lambda: None)
            if self._thread is None:
                self._thread = Watched(f"hetero-bench-{self.device.name}")
            return self._thread.do(lambda beat: work(session, beat), patience)
        except (DispatchError, DeviceTimeout) as error:
            self.give_up(error)
            return None

    def close(self) -> None:
        """Free the session; a call that hangs is not waited for."""
        if self._thread is not None:
            self._thread.close()
        if self.session is not None and self._hangs:
            self.session.close(timeout=0)
        elif self.session is not None:
            self.session.close()


def prepare(runtime: Runtime, program: Program, device: Device) -> Contender:
    """Load the program on one device, and on no other."""
    contender = Contender(device)
    started = time.perf_counter()
    try:
        contender.session = runtime.load(program, device=device.name, fallback="forbid", standby=False)
    except FallbackForbidden as error:
        contender.give_up(error)
    contender.load_seconds = time.perf_counter() - started if contender.session else None
    return contender


def measure(
    contenders: Sequence[Contender],
    inputs: Mapping[str, Any],
    effort: Effort,
    progress: Callable[[float, float], None] = lambda done, total: None,
) -> None:
    """Fill in the contenders' times: a first run each, warm-up, single runs in turns, stretches of `map` in turns.

    Args:
        contenders: As `prepare` gave them; those that could not be loaded are passed over.
        inputs: By name, the same for every run.
        effort: How much.
        progress: Told what share is done.
    """
    for contender in _able(contenders):
        answer = contender.do(functools.partial(_timed, inputs=inputs), effort.timeout)
        if answer is not None:
            contender.outputs, contender.first_seconds = answer
    for _ in range(effort.warmup):
        for contender in _able(contenders):
            contender.do(functools.partial(_timed, inputs=inputs), effort.timeout)
    single = effort.seconds * 2 / 3
    told = 0.0
    while waiting := [c for c in _able(contenders) if _share(c, effort.runs, single) < 1]:
        for contender in waiting:
            answer = contender.do(functools.partial(_timed, inputs=inputs), effort.timeout)
            if answer is not None:
                contender.seconds.append(answer[1])
                contender.spent += answer[1]
        if time.perf_counter() - told > _TELL_EVERY:
            told = time.perf_counter()
            progress(min(_share(c, effort.runs, single) for c in waiting) * _STRETCHES, 2 * _STRETCHES)
    for stretch in range(_STRETCHES):
        progress(_STRETCHES + stretch, 2 * _STRETCHES)
        for contender in _able(contenders):
            rate = contender.do(functools.partial(_stretch, items=_items(inputs, effort)), effort.timeout)
            if rate is not None:
                contender.rates.append(rate)
    progress(2 * _STRETCHES, 2 * _STRETCHES)


def measure_energy(
    runtime: Runtime,
    contenders: Sequence[Contender],
    inputs: Mapping[str, Any],
    effort: Effort,
    name: str | None,
    progress: Callable[[float, float], None] = lambda done, total: None,
) -> None:
    """Fill in the contenders' energy, one device at a time, and keep it for the policy `efficiency`.

    Args:
        runtime: The contenders'.
        contenders: After `measure`.
        inputs: By name, the same for every run.
        effort: Its `seconds` are shared out among the turns.
        name: Of the meter; None chooses one for each device.
        progress: Told what share is done.

    Raises:
        OptionError: There is no meter of that name.
    """
    sysroot = runtime.host.sysroot
    meters = find_meters(sysroot)
    chosen = None if name is None else meter_named(name, meters)
    for place, contender in enumerate(contenders):
        progress(place, len(contenders))
        if contender.session is None or contender.outcome != "ok":
            continue
        try:
            meter = chosen or meter_for(contender.device, runtime.devices, meters, sysroot)
            contender.energy = _energy(contender, inputs, meter, effort)
        except Unavailable as error:
            contender.energy = Energy.unknown(error)
    progress(1, 1)


def latency(seconds: Sequence[float]) -> dict[str, float | int | None]:
    """Runs, median, p90 and min in seconds, and the spread: the middle half's width as a share of the median."""
    if not seconds:
        return {"runs": 0, "median": None, "p90": None, "min": None, "spread": None}
    low, median, high, p90 = (float(value) for value in np.percentile(seconds, (25, 50, 75, 90)))
    return {
        "runs": len(seconds),
        "median": median,
        "p90": p90,
        "min": min(seconds),
        "spread": (high - low) / median if median else 0.0,
    }


def max_difference(one: Mapping[str, Array], other: Mapping[str, Array]) -> float | None:
    """The greatest difference between two answers; None where they cannot be compared, or one has a NaN in it."""
    worst = 0.0
    for name, array in one.items():
        if name not in other or array.shape != other[name].shape or array.dtype.kind in "OUS":
            return None
        if array.size:
            wide = np.complex128 if array.dtype.kind == "c" else np.float64
            difference = float(np.abs(array.astype(wide) - other[name].astype(wide)).max())
            if not math.isfinite(difference):
                return None
            worst = max(worst, difference)
    return worst if one else None


def _able(contenders: Sequence[Contender]) -> Iterator[Contender]:
    return (c for c in contenders if c.session is not None and c.outcome == "ok")


def _timed(session: Session, beat: Beat, inputs: Mapping[str, Any]) -> tuple[Mapping[str, Array], float]:
    """One run's outputs, and its seconds from call to answer."""
    started = time.perf_counter()
    outputs = session.run(inputs).outputs
    return outputs, time.perf_counter() - started


def _energy(contender: Contender, inputs: Mapping[str, Any], meter: Meter, effort: Effort) -> Energy | None:
    turns = 2 * ROUNDS + 1
    turn = effort.seconds / turns
    patience = None if effort.timeout is None else effort.timeout + turns * max(turn, meter.shortest)
    return contender.do(lambda session, beat: energy_of(session, inputs, meter, turn), patience)


def _share(contender: Contender, runs: int | None, seconds: float) -> float:
    """The part of its single runs that a device has done."""
    if runs is not None:
        return len(contender.seconds) / runs
    return min(len(contender.seconds) / _LEAST_RUNS, contender.spent / max(seconds, 1e-9))


def _items(inputs: Mapping[str, Any], effort: Effort) -> Iterator[Mapping[str, Any]]:
    """What one stretch of `map` takes: so many, or as many as there is time for."""
    if effort.runs is not None:
        yield from itertools.repeat(inputs, math.ceil(effort.runs / _STRETCHES))
        return
    deadline = time.perf_counter() + effort.seconds / 3 / _STRETCHES
    yield inputs
    while time.perf_counter() < deadline:
        yield inputs


def _stretch(session: Session, beat: Beat, items: Iterator[Mapping[str, Any]]) -> float:
    """Items per second of one stretch of `map`."""
    started = time.perf_counter()
    answered = 0
    for _ in session.map(items):
        answered += 1
        beat()
    return answered / (time.perf_counter() - started)
