"""Thousands of requests while a governor that throws dice gives and takes duties: each ends in exactly one outcome.

The devices crash, hang, lie and dawdle besides. The governor is told of each call's beginning and end, once each.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import hetero
from hetero.backend import Call, Host
from hetero.scheduler.heat import Heat
from hetero.testing.thermal.sysroots import Sysroot
from hetero.thermal.steering import OnHot
from tests.fakes import DOUBLE
from tests.scheduler.chaos import Traces, World
from tests.scheduler.test_chaos import (
    TIMEOUT,
    awaiting,
    calling,
    devices,
    into_buffers,
    mapping,
    nothing_left,
    run_all,
    submitting,
)

TOTAL = 6000

Make = Callable[..., hetero.Runtime]
NAMES = ("a", "b", "g", "c")


class Told(dict[Call, float]):
    """Stands in for a device's calls that have begun: counts what is told of them."""

    def __init__(self, heat: Heat) -> None:
        self.begun = self.ended = 0
        self.twice: list[Call] = []
        self.heat = heat
        self._lock = threading.Lock()
        heat.inside = self

    def __setitem__(self, call: Call, now: float) -> None:
        with self._lock:
            self.begun += 1
            if call in self:
                self.twice.append(call)
            super().__setitem__(call, now)

    def pop(self, call: Call, default: Any = None) -> Any:
        with self._lock:
            self.ended += call in self
            return super().pop(call, default)

    def right(self) -> None:
        """Each call that has begun has ended, once, and its work was told."""
        assert not self.twice, "a call began on a lane before the one before had ended"
        assert self.begun == self.ended > 0
        running, seconds, ended = self.heat.worked(0.0)
        assert running == 0
        assert seconds >= 0
        assert ended == self.ended
        assert not self.heat._reserved


def watched(session: hetero.Session) -> list[Told]:
    heats = [candidate.heat for candidate in session._candidates]
    return [Told(heat) for heat in heats if heat is not None]


@contextmanager
def weather(runtime: hetero.Runtime, seed: int) -> Iterator[None]:
    """Duties by chance, again and again while this lasts: mostly some, often none at all, also for every device."""
    governor, rng, over = runtime.governor, random.Random(seed), threading.Event()
    assert governor is not None

    def throw_dice() -> None:
        while not over.wait(0.002):
            for name in NAMES:
                governor.pace(name).grant(rng.choice([0.0, 0.0, 0.05, 0.3, 0.7, 1.0]))
            governor.ticked()

    thread = threading.Thread(target=throw_dice)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def governed(make: Make, backends: list[object], world: World, root: Path, on_hot: OnHot, keep: int) -> hetero.Runtime:
    Sysroot(root, "rk3588").show(dict.fromkeys(range(4), 40.0))
    return make(
        *backends,
        host=Host(environ={}, sysroot=root, cache=root.parent / "cache"),
        clock=world.clock,
        keep_records=keep,
        learn=False,
        thermal=hetero.ThermalSettings(on_hot=on_hot, patience=0.05),
    )


@pytest.mark.usefixtures("untraced")
@pytest.mark.parametrize(
    ("policy", "on_hot"),
    [
        ("chain", "pace"),
        ("chain", "steer"),
        ("chain", "auto"),
        ("throughput", "auto"),
        ("fastest", "pace"),
        ("efficiency", "auto"),
    ],
)
def test_whatever_the_governor_does_each_request_ends_once_and_each_call_is_told_once(
    make_runtime: Make, tmp_path: Path, policy: str, on_hot: OnHot
) -> None:
    traces, world = Traces(), World()
    backends = devices(world)
    runtime = governed(make_runtime, backends, world, tmp_path / "root", on_hot, TOTAL + 1)
    session = runtime.load(DOUBLE, policy=policy, verify=1, timeout=TIMEOUT, max_waiting=64, canary=False)
    told = watched(session)
    assert len(told) == len(NAMES)
    if (policy, on_hot) != ("chain", "auto"):  # where the others are loaded meanwhile, for the heat
        for candidate in session._candidates:
            candidate.load()
    doors = [submitting, submitting, calling, mapping, awaiting, into_buffers]
    with world.passing(runtime), weather(runtime, seed=len(policy)):
        counted = run_all(
            lambda door=door, place=place: door(session, range(place, TOTAL, len(doors)), place)  # type: ignore[misc]
            for place, door in enumerate(doors)
        )
    world.let_go()
    assert counted.total() == TOTAL
    assert set(counted) <= {"answered", "cancelled", "late"}
    assert counted["answered"] > 0.9 * TOTAL
    nothing_left(runtime, [session], backends, traces)
    assert all(len(backend.made) == 1 for backend in backends)
    records = list(runtime.records)
    assert len(records) == len({record.id for record in records}) == TOTAL
    decisions = [decision for record in records for decision in record.heat]
    assert decisions
    assert policy != "chain" or {"steer"} <= {decision.action for decision in decisions}
    assert all(decision.reason for decision in decisions)
    assert all(d.held is not None for record in records for d in record.heat if d.action in ("pace", "stop"))
    for one in told:
        one.right()


def test_batches_under_such_a_governor_end_too(make_runtime: Make, tmp_path: Path) -> None:
    traces, world = Traces(), World()
    backends = devices(world)
    runtime = governed(make_runtime, backends, world, tmp_path / "root", "pace", TOTAL + 1)
    session = runtime.load(
        DOUBLE, policy="throughput", verify=1, timeout=TIMEOUT, canary=False, batch=8, batch_delay=0.05
    )
    told = watched(session)
    with world.passing(runtime), weather(runtime, seed=1):
        counted = run_all(
            lambda place=place: submitting(session, range(place, TOTAL, 4), place)  # type: ignore[misc]
            for place in range(4)
        )
    world.let_go()
    assert counted.total() == TOTAL
    assert set(counted) <= {"answered", "cancelled", "late"}
    nothing_left(runtime, [session], backends, traces)
    for one in told:
        one.right()
