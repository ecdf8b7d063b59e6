"""`Runtime.status`: what it says is so, on a clock of the test's; and no request waits for it, nor it for any."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

import hetero
from hetero.backend import Array, Call
from hetero.errors import DeviceLost
from hetero.monitor.forms import of_json
from hetero.monitor.status import DeviceStatus, RuntimeStatus
from hetero.testing.thermal.machine import ThermalMachine
from tests.fakes import DOUBLE, Failing, double, fake, raises

Make = Callable[..., hetero.Runtime]
X = np.arange(4, dtype=np.float32)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Gate:
    """A run that waits until it is let through, and tells how many are in it."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.inside = threading.Semaphore(0)

    def __call__(self, inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        self.inside.release()
        assert self.open.wait(30)
        return double(inputs, call)


def device(status: RuntimeStatus, name: str) -> DeviceStatus:
    return next(each for each in status.devices if each.name == name)


def test_what_is_in_calls_and_what_waits_is_told_while_it_is_so(make_runtime: Make) -> None:
    gate = Gate()
    runtime = make_runtime(fake("n", lanes=3, run=gate))
    session = runtime.load(DOUBLE, canary=False, standby=False)
    assert device(runtime.status(), "n").busy == 0
    futures = [session.submit(X) for _ in range(5)]
    for _ in range(3):
        assert gate.inside.acquire(timeout=30)
    status = runtime.status()
    assert (device(status, "n").busy, device(status, "n").lanes) == (3, 3)
    assert status.waiting == status.sessions[0].waiting == 2
    assert status.sessions[0].ended == 0
    gate.open.set()
    for future in futures:
        future.result()
    after = runtime.status()
    assert (device(after, "n").busy, after.waiting, after.sessions[0].ended) == (0, 0, 5)


def test_requests_that_wait_to_share_a_launch_are_in_the_queue(make_runtime: Make) -> None:
    runtime = make_runtime(fake("n"), clock=Clock())
    session = runtime.load(DOUBLE, batch=4, batch_delay=1.0)
    session.submit(X[:1])
    session.submit(X[:1])
    assert runtime.status().sessions[0].waiting == 2


def test_rates_loads_and_latencies_are_those_of_the_last_seconds(make_runtime: Make) -> None:
    clock = Clock()

    def run(inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        clock.now += 0.2
        return double(inputs, call)

    runtime = make_runtime(fake("n", lanes=2, run=run), clock=clock)
    session = runtime.load(DOUBLE, canary=False)
    clock.now += 100
    for _ in range(10):
        session(X)
        clock.now += 0.3
    status = runtime.status()
    told = status.sessions[0]
    assert told.seconds == 5.0
    assert told.per_second == pytest.approx(2.0)
    assert told.latency == pytest.approx(0.2)
    assert told.latency_95 == pytest.approx(0.2)
    # One of two lanes, two fifths of the time.
    assert device(status, "n").load == pytest.approx(0.2)
    clock.now += 2.4  # half of them are too old now
    assert runtime.status().sessions[0].per_second == pytest.approx(1.0)
    clock.now += 60
    status = runtime.status()
    assert (status.per_second, device(status, "n").load, status.sessions[0].latency) == (0, 0, None)
    assert status.sessions[0].ended == 10


def test_a_rate_beyond_what_is_remembered_is_told_of_a_shorter_time(make_runtime: Make) -> None:
    clock = Clock()
    runtime = make_runtime(fake("n"), clock=clock)
    session = runtime.load(DOUBLE, canary=False)
    clock.now += 100
    for _ in range(1000):
        clock.now += 0.001
        session(X)
    told = runtime.status().sessions[0]
    assert told.seconds < 1
    assert told.per_second == pytest.approx(1000, rel=0.01)
    assert told.ended == 1000


def test_a_call_that_has_not_ended_yet_is_load_too(make_runtime: Make) -> None:
    clock, gate = Clock(), Gate()
    runtime = make_runtime(fake("n", run=gate), clock=clock)
    session = runtime.load(DOUBLE, canary=False, standby=False)
    clock.now += 100
    future = session.submit(X)
    assert gate.inside.acquire(timeout=30)
    clock.now += 2.5
    assert device(runtime.status(), "n").load == pytest.approx(0.5)
    gate.open.set()
    future.result()


def test_the_members_of_a_batch_are_not_each_a_load(make_runtime: Make) -> None:
    clock = Clock()

    def run(inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        clock.now += 1.0
        return double(inputs, call)

    runtime = make_runtime(fake("n", run=run), clock=clock)
    session = runtime.load(DOUBLE, batch=4, canary=False)
    clock.now += 100
    for future in [session.submit(X[:1]) for _ in range(4)]:
        future.result()
    status = runtime.status()
    assert status.sessions[0].ended == 4
    assert device(status, "n").load == pytest.approx(0.2)


def test_a_device_that_is_set_aside_says_why_and_for_how_long(make_runtime: Make) -> None:
    clock = Clock()
    runtime = make_runtime(fake("n", run=Failing(0, DeviceLost("it was reset"))), fake("c", kind="cpu"), clock=clock)
    session = runtime.load(DOUBLE, canary=False)
    session(X)
    told = device(runtime.status(), "n")
    assert told.state == "set aside"
    assert "it was reset" in told.reason
    assert 0 < told.retry_in < 1
    first, last = runtime.status().sessions[0].candidates
    assert (first.state, last.state) == ("set aside", "ready")
    assert runtime.status().sessions[0].device == "c"


def test_a_part_that_is_set_aside_degrades_its_device(make_runtime: Make) -> None:
    def run(inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        if call.lane == 0:
            raise DeviceLost("core 0 is gone")
        return double(inputs, call)

    runtime = make_runtime(fake("n", lanes=2, units=("0", "1"), run=run), fake("c", kind="cpu"))
    session = runtime.load(DOUBLE, canary=False)
    session(X)
    told = device(runtime.status(), "n")
    assert told.state == "degraded"
    assert told.reason.startswith("0: ")


def test_devices_that_refuse_and_devices_that_nobody_uses_are_told_apart(make_runtime: Make) -> None:
    refusing = fake("n", load=raises(hetero.Unsupported("no such op")))
    runtime = make_runtime(refusing, fake("c", kind="cpu"))
    assert [each.state for each in runtime.status().devices] == ["not used", "not used"]
    session = runtime.load(DOUBLE)
    assert session.device == "c"
    assert [each.state for each in runtime.status().devices] == ["refused", "ok"]
    assert "no such op" in device(runtime.status(), "n").reason


def test_the_last_fallbacks_say_who_passed_and_who_answered(make_runtime: Make) -> None:
    clock = Clock()
    broken = fake("n", run=raises(DeviceLost("it was reset")), simulated=True)
    runtime = make_runtime(broken, fake("c", kind="cpu"), clock=clock)
    session = runtime.load(DOUBLE, canary=False)
    session.submit(X).result()
    clock.now += 7
    (told,) = runtime.status().fallbacks
    assert told.ago == pytest.approx(7)
    assert (told.program, told.device, told.error) == ("double", "c", "")
    assert told.passed == ("n (simulated): run failed: DeviceLost: it was reset",)
    with pytest.raises(hetero.HeteroError):
        session(X, device="n", fallback="forbid")
    assert runtime.status().sessions[0].failed == 1


def test_sessions_of_one_program_are_counted_apart_and_go_when_they_are_closed(make_runtime: Make) -> None:
    runtime = make_runtime(fake("n"))
    first, second = runtime.load(DOUBLE), runtime.load(DOUBLE)
    first(X)
    assert [each.ended for each in runtime.status().sessions] == [1, 0]
    first.close()
    assert [each.ended for each in runtime.status().sessions] == [0]
    second(X)
    assert [each.ended for each in runtime.status().sessions] == [1]


def test_memory_in_use_is_told(make_runtime: Make) -> None:
    runtime = make_runtime(fake("n"), memory_limit=1 << 20)
    buffer = runtime.buffer((64,), np.float32)
    (host,) = runtime.status().memory
    assert (host.name, host.buffers, host.limit_bytes) == ("host", 1, 1 << 20)
    assert host.in_use_bytes == runtime.memory["host"].in_use_bytes > 0
    del buffer


def test_heat_is_told_as_the_governor_sees_it(make_runtime: Make, tmp_path: Path) -> None:
    machine = ThermalMachine(tmp_path / "root", "rk3588", ambient=25.0)
    runtime = make_runtime(fake("npu", lanes=3), fake("cpu", kind="cpu"), clock=machine.clock)
    session = runtime.load(DOUBLE)
    governor = runtime.governor
    assert governor is not None
    machine.sysroot.show({0: 81.25, 1: 70.0, 2: 72.0, 3: 75.0})
    governor.tick()
    heat = device(runtime.status(), "npu").heat
    assert heat is not None
    assert (heat.celsius, heat.state, heat.source) == (81.25, "warn", "npu-thermal")
    assert heat.tokens == governor.tokens("npu")
    told = runtime.status().governor
    assert told is not None
    assert any(event.text.startswith("npu: unknown -> warn: 81.2 C") for event in told.events)
    session(X)
    assert make_runtime(fake("n"), thermal=False).status().governor is None


def test_a_snapshot_is_frozen_and_the_same_after_a_way_through_json(make_runtime: Make) -> None:
    runtime = make_runtime(fake("n", run=raises(DeviceLost("gone"))), fake("c", kind="cpu"))
    session = runtime.load(DOUBLE, canary=False)
    session(X)
    status = runtime.status()
    assert status.sessions
    assert of_json(RuntimeStatus, json.loads(json.dumps(status.to_dict(), allow_nan=False))) == status
    with pytest.raises(dataclasses.FrozenInstanceError):
        status.age = 1.0  # type: ignore[misc]


def test_status_waits_for_no_lock_that_a_request_takes(make_runtime: Make) -> None:
    runtime = make_runtime(fake("n", lanes=2), fake("c", kind="cpu"))
    session = runtime.load(DOUBLE, batch=2)
    session(X[:1])
    governor = runtime.governor
    assert governor is not None
    governor.tick()
    board = session._dispatcher.board
    held = [board._lock, session._tally._lock, runtime.memory.host._lock, runtime.memory._lock, runtime._workers._lock]
    held += [governor._lock, *(watched.admission._lock for watched in governor._watched.values())]
    for candidate in session._candidates:
        units = candidate.lanes.units
        held += [
            candidate._lock,
            candidate._interrupts._lock,
            candidate.lanes._lock,
            *(unit.breaker._lock for unit in units),
        ]
    assert session._batcher is not None
    held.append(session._batcher._lock)
    told: list[RuntimeStatus] = []
    for lock in held:
        lock.acquire()
    try:
        looker = threading.Thread(target=lambda: told.append(runtime.status()), daemon=True)
        looker.start()
        looker.join(30)
    finally:
        for lock in held:
            lock.release()
    assert told


def test_counts_hold_while_other_threads_work(make_runtime: Make) -> None:
    flaky = fake("n", lanes=2, run=Failing(150, DeviceLost("gone")))
    runtime = make_runtime(flaky, fake("c", kind="cpu", lanes=2))
    session = runtime.load(DOUBLE, canary=False)

    def work() -> None:
        for _ in range(100):
            session(X)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    seen = []
    while any(thread.is_alive() for thread in threads):
        status = runtime.status()
        seen.append(status.sessions[0].ended)
        assert all(0 <= each.load <= 1 and 0 <= each.busy <= each.lanes for each in status.devices)
    assert seen == sorted(seen)
    status = runtime.status()
    assert (status.sessions[0].ended, status.waiting) == (400, 0)
    assert status.sessions[0].fell_back == sum(record.fell_back for record in runtime.records)


def test_a_closed_runtime_still_has_a_status(make_runtime: Make) -> None:
    runtime = make_runtime(fake("n"))
    runtime.load(DOUBLE)(X)
    runtime.close()
    assert runtime.status().closed == "the Runtime is closed"
