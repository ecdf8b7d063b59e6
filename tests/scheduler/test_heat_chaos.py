"""Thousands of requests while a governor that throws dice gives and takes duties: each ends in exactly one outcome.

The devices crash, hang, lie and dawdle besides. The governor is told of each call's beginning and end, once each.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import hetero
from hetero.backend import Host
from hetero.testing.thermal.sysroots import Sysroot
from hetero.thermal.admission import Admission
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


class Told:
    """Counts what an admission is told, and holds it against what it must be."""

    def __init__(self, admission: Admission) -> None:
        self.begun = self.ended = 0
        self.wrong: list[str] = []
        self.admission = admission
        self._lock = threading.Lock()
        self._began, self._ended = admission.began, admission.ended
        admission.began = self._begin  # type: ignore[method-assign]
        admission.ended = self._end  # type: ignore[method-assign]

    def _begin(self) -> None:
        with self._lock:
            self.begun += 1
        self._began()

    def _end(self, seconds: float) -> None:
        with self._lock:
            self.ended += 1
            if self.ended > self.begun:
                self.wrong.append("an end without a beginning")
            if seconds < 0:
                self.wrong.append(f"a call of {seconds} s")
        self._ended(seconds)


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
        thermal=hetero.ThermalSettings(on_hot=on_hot),
    )


@pytest.mark.parametrize(
    ("policy", "on_hot"),
    [("chain", "pace"), ("chain", "steer"), ("throughput", "auto"), ("fastest", "pace"), ("efficiency", "auto")],
)
def test_whatever_the_governor_does_each_request_ends_once_and_each_call_is_told_once(
    make_runtime: Make, tmp_path: Path, policy: str, on_hot: OnHot
) -> None:
    traces, world = Traces(), World()
    backends = devices(world)
    runtime = governed(make_runtime, backends, world, tmp_path / "root", on_hot, TOTAL + 1)
    governor = runtime.governor
    assert governor is not None
    told = [Told(governor.pace(name)) for name in NAMES]
    session = runtime.load(DOUBLE, policy=policy, verify=1, timeout=TIMEOUT, max_waiting=64, canary=False)
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
    records = list(runtime.records)
    assert len(records) == len({record.id for record in records}) == TOTAL
    decisions = [decision for record in records for decision in record.heat]
    assert {decision.action for decision in decisions} >= {"steer"}
    assert all(decision.reason for decision in decisions)
    assert all(d.held is not None for record in records for d in record.heat if d.action in ("pace", "stop"))
    for one in told:
        assert not one.wrong
        assert one.begun == one.ended > 0
        assert one.admission._running == 0


def test_batches_under_such_a_governor_end_too(make_runtime: Make, tmp_path: Path) -> None:
    traces, world = Traces(), World()
    backends = devices(world)
    runtime = governed(make_runtime, backends, world, tmp_path / "root", "pace", TOTAL + 1)
    governor = runtime.governor
    assert governor is not None
    told = [Told(governor.pace(name)) for name in NAMES]
    session = runtime.load(DOUBLE, verify=1, timeout=TIMEOUT, canary=False, batch=8, batch_delay=0.05)
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
        assert not one.wrong
        assert one.begun == one.ended
