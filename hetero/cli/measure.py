"""Timing one program on several devices in turns, so that whatever slows the machine slows all of them alike."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from hetero.backend import Device
from hetero.energy.choice import meter_for, meter_named
from hetero.energy.measuring import ROUNDS, Energy
from hetero.energy.measuring import measure as energy_of
from hetero.energy.meters import find_meters
from hetero.errors import DispatchError, FallbackForbidden, Unavailable
from hetero.tensors import Array

if TYPE_CHECKING:
    from hetero.program import Program
    from hetero.runtime import Runtime
    from hetero.session import Session

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
    """

    warmup: int
    seconds: float
    runs: int | None


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

    def give_up(self, error: DispatchError) -> None:
        """The device refused or failed: nothing more is measured on it."""
        last = error.attempts[-1]
        self.outcome = "unsupported" if last.outcome == "unsupported" else "failed"
        self.reason = last.reason


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
        started = time.perf_counter()
        contender.outputs = _run(contender, inputs) or {}
        contender.first_seconds = time.perf_counter() - started
    for _ in range(effort.warmup):
        for contender in _able(contenders):
            _run(contender, inputs)
    single = effort.seconds * 2 / 3
    told = 0.0
    while waiting := [c for c in _able(contenders) if _share(c, effort.runs, single) < 1]:
        for contender in waiting:
            _count(contender, inputs)
        if time.perf_counter() - told > _TELL_EVERY:
            told = time.perf_counter()
            progress(min(_share(c, effort.runs, single) for c in waiting) * _STRETCHES, 2 * _STRETCHES)
    for stretch in range(_STRETCHES):
        progress(_STRETCHES + stretch, 2 * _STRETCHES)
        for contender in _able(contenders):
            _stretch(contender, _items(inputs, effort))
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
            contender.energy = energy_of(contender.session, inputs, meter, effort.seconds / (2 * ROUNDS + 1))
        except Unavailable as error:
            contender.energy = Energy.unknown(error)
        except DispatchError as error:
            contender.give_up(error)
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


def _run(contender: Contender, inputs: Mapping[str, Any]) -> Mapping[str, Array] | None:
    assert contender.session is not None
    try:
        return contender.session.run(inputs).outputs
    except DispatchError as error:
        contender.give_up(error)
        return None


def _count(contender: Contender, inputs: Mapping[str, Any]) -> None:
    started = time.perf_counter()
    if _run(contender, inputs) is not None:
        seconds = time.perf_counter() - started
        contender.seconds.append(seconds)
        contender.spent += seconds


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


def _stretch(contender: Contender, items: Iterator[Mapping[str, Any]]) -> None:
    assert contender.session is not None
    started = time.perf_counter()
    try:
        answered = sum(1 for _ in contender.session.map(items))
    except DispatchError as error:
        contender.give_up(error)
        return
    contender.rates.append(answered / (time.perf_counter() - started))
