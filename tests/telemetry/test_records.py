"""What a record tells of a request: where each attempt ran, when, how long it waited and was checked."""

from __future__ import annotations

import concurrent.futures
import contextvars
import threading
from collections.abc import Callable, Mapping

import numpy as np
import pytest

import hetero
from hetero.backend import Array, Call
from hetero.errors import DeviceLost, ProgramInvalid, Unsupported
from hetero.telemetry.records import LoadRecord, Record
from tests.fakes import DOUBLE, double, fake, raises

Make = Callable[..., hetero.Runtime]

X = np.ones(4, np.float32)


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def takes(self, seconds: float, error: Exception | None = None) -> Callable[..., Mapping[str, Array]]:
        def run(inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
            self.now += seconds
            if error is not None:
                raise error
            return double(inputs, call)

        return run


@pytest.mark.parametrize("door", ["call", "submit"])
@pytest.mark.parametrize("error", [DeviceLost("gone"), Unsupported("not this shape")])
def test_attempts_follow_each_other_in_time(make_runtime: Make, error: Exception, door: str) -> None:
    clock = Clock()
    npu, cpu = fake("npu", run=clock.takes(2.0, error)), fake("cpu", kind="cpu", run=clock.takes(3.0))
    session = make_runtime(npu, cpu, clock=clock, learn=False).load(DOUBLE, canary=False)
    # `wait` only waits, where `result` might run the request itself.
    _ = session(X) if door == "call" else concurrent.futures.wait([session.submit(X)])
    record = session.explain().last
    assert record is not None
    assert record.arrived == 100.0
    assert [(a.device, a.started, a.seconds, a.lane) for a in record.attempts] == [
        ("npu", 100.0, 2.0, 0),
        ("cpu", 102.0, 3.0, 0),
    ]
    here = threading.get_ident()
    assert all((attempt.thread == here) is (door == "call") for attempt in record.attempts)
    assert all(attempt.thread for attempt in record.attempts)


def test_a_submitted_request_tells_how_long_it_waited(make_runtime: Make) -> None:
    clock, begin, busy = Clock(), threading.Event(), threading.Event()

    def run(inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        busy.set()
        assert begin.wait(60)
        clock.now += 2.0
        return double(inputs, call)

    session = make_runtime(fake("cpu", kind="cpu", run=run), clock=clock, learn=False).load(DOUBLE)
    first = session.submit(X)
    assert busy.wait(60)
    second = session.submit(X)
    begin.set()
    first.result()
    second.result()
    records = {record.arrived: record for record in session._records}
    assert [round(record.wait_seconds, 6) for record in session._records] == [0.0, 2.0]
    assert len(records) == 1, "both came at the same time"


def test_the_check_of_an_answer_is_not_counted_as_run_time(make_runtime: Make) -> None:
    clock = Clock()
    npu, cpu = fake("npu", run=clock.takes(2.0)), fake("cpu", kind="cpu", run=clock.takes(5.0))
    session = make_runtime(npu, cpu, clock=clock, learn=False).load(DOUBLE, canary=False, verify=1.0)
    attempts = session.run(X).record.attempts
    assert [(a.device, a.seconds, a.verify_seconds) for a in attempts] == [("npu", 2.0, 5.0)]


def test_a_call_that_hangs_keeps_its_lane_and_its_time(make_runtime: Make) -> None:
    clock, release, inside = Clock(), threading.Event(), threading.Event()

    def hang(inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        inside.set()
        assert release.wait(60)
        return double(inputs, call)

    runtime = make_runtime(fake("npu", run=hang), fake("cpu", kind="cpu"), clock=clock, learn=False)
    session = runtime.load(DOUBLE, canary=False, timeout=4.0)
    future = session.submit(X)
    assert inside.wait(60)
    clock.now += 4.0
    runtime.timers.run_due()
    future.result()
    release.set()
    hung = session.explain().last
    assert hung is not None
    assert [(a.device, a.outcome, a.started, a.seconds, a.lane, a.thread) for a in hung.attempts[:1]] == [
        ("npu", "failed", 100.0, 4.0, 0, 0)
    ]


def test_a_call_that_its_deadline_ended_shows_how_long_it_ran(make_runtime: Make) -> None:
    clock, release, inside = Clock(), threading.Event(), threading.Event()

    def slow(inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        inside.set()
        assert release.wait(60)
        return double(inputs, call)

    runtime = make_runtime(fake("cpu", kind="cpu", run=slow), clock=clock, learn=False)
    session = runtime.load(DOUBLE)
    future = session.submit(X, deadline=3.0)
    assert inside.wait(60)
    clock.now += 3.0
    runtime.timers.run_due()
    with pytest.raises(hetero.errors.DeadlineExceeded):
        future.result()
    release.set()
    record = session.explain().last
    assert record is not None
    assert [(a.outcome, a.started, a.seconds, a.lane) for a in record.attempts] == [("cancelled", 100.0, 3.0, 0)]
    assert record.outcome == "too late"


def test_the_outcome_of_a_request_is_told(make_runtime: Make) -> None:
    session = make_runtime(fake("cpu", kind="cpu")).load(DOUBLE)
    assert session.run(X).record.outcome == "ok"
    broken = make_runtime(fake("cpu", kind="cpu", run=raises(DeviceLost("gone")))).load(DOUBLE)
    with pytest.raises(hetero.errors.AllDevicesFailed):
        broken(X)
    last = broken.explain().last
    assert last is not None
    assert last.outcome == "failed"


def test_loads_are_told_to_listeners_with_what_came_of_them(make_runtime: Make) -> None:
    def refuse() -> None:
        raise Unsupported("op Foo")

    told: list[LoadRecord] = []
    runtime = make_runtime(fake("npu", load=refuse), fake("gpu", kind="gpu", simulated=True))
    stop = runtime.records.subscribe(lambda record: None, told.append)
    session = runtime.load(DOUBLE)
    session(X)
    stop()
    runtime.load(DOUBLE)
    assert [(load.program, load.attempt.device, load.attempt.outcome, load.attempt.reason) for load in told] == [
        ("double", "npu", "unsupported", "op Foo"),
        ("double", "gpu", "ok", ""),
    ]
    assert told[1].attempt.simulated
    assert [load.cached for load in told] == [None, None]
    assert list(runtime.records.loads)[:2] == told
    assert len(runtime.records.loads) == 4
    assert len(runtime.records) == 1


def test_a_program_that_is_broken_for_every_device_is_a_load_that_failed(make_runtime: Make) -> None:
    runtime = make_runtime(fake("cpu", kind="cpu", load=raises(ProgramInvalid("truncated"))))
    with pytest.raises(ProgramInvalid):
        runtime.load(DOUBLE)
    (load,) = runtime.records.loads
    assert (load.attempt.outcome, load.attempt.reason) == ("failed", "ProgramInvalid: truncated")


def test_a_load_in_the_middle_of_a_request_is_told_when_the_request_can_go_on(make_runtime: Make) -> None:
    runtime = make_runtime(fake("npu", run=raises(DeviceLost("gone"))), fake("cpu", kind="cpu"))
    session = runtime.load(DOUBLE, canary=False, standby=False)
    assert [load.attempt.device for load in runtime.records.loads] == ["npu"]
    session(X)
    assert [load.attempt.device for load in runtime.records.loads] == ["npu", "cpu"]


def test_a_listener_of_loads_may_use_the_session_and_may_fail(make_runtime: Make) -> None:
    runtime = make_runtime(fake("npu", run=raises(DeviceLost("gone"))), fake("cpu", kind="cpu"))
    session = runtime.load(DOUBLE, canary=False, standby=False)
    answers: list[object] = []

    def use(load: LoadRecord) -> None:
        answers.append(session(X))
        raise ValueError("a bug of the listener")

    runtime.records.subscribe(lambda record: None, use)
    np.testing.assert_array_equal(session(X), X * 2)
    np.testing.assert_array_equal(answers[0], X * 2)


def test_what_a_backend_says_of_its_cache_is_in_the_record(make_runtime: Make) -> None:
    npu = fake("npu")
    made = npu.load

    def load(self: object, *arguments: object) -> object:
        executable = made(self, *arguments)  # type: ignore[arg-type]
        executable.details = {"cached": True}
        return executable

    npu.load = load  # type: ignore[assignment,method-assign]
    runtime = make_runtime(npu)
    runtime.load(DOUBLE)
    assert [load.cached for load in runtime.records.loads] == [True]


def test_the_callers_context_comes_along_only_while_somebody_wants_it(make_runtime: Make) -> None:
    user: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")
    runtime = make_runtime(fake("cpu", kind="cpu"))
    session = runtime.load(DOUBLE)
    seen: list[str] = []

    def listen(record: Record) -> None:
        seen.append(record.context.run(user.get) if hasattr(record, "context") else "without")

    stop = runtime.records.subscribe(listen, context=True)
    user.set("ada")
    session.submit(X).result()
    stop()
    assert seen == ["ada"]
    assert not any(hasattr(record, "context") for record in runtime.records)
    runtime.records.subscribe(listen)
    session.submit(X).result()
    assert seen == ["ada", "without"]
