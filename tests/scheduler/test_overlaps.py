"""Two things at one moment: a cancel, a deadline, a failure or a close, and what it meets half-way."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable, Mapping

import numpy as np

import hetero
from hetero import errors
from hetero.backend import Array, Call
from tests.fakes import DOUBLE, double, fake

X = np.array([1, 2], np.float32)
Make = Callable[..., hetero.Runtime]


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Gate:
    def __init__(self) -> None:
        self.entered, self.go = threading.Event(), threading.Event()

    def run(self, inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        self.entered.set()
        assert self.go.wait(60)
        return double(inputs, call)


def test_whoever_waits_for_futures_learns_of_a_cancelled_one(make_runtime: Make) -> None:
    gate = Gate()
    session = make_runtime(fake("n", run=gate.run), learn=False).load(DOUBLE, canary=False)
    first = session.submit(X)
    assert gate.entered.wait(60)
    waiting = session.submit(X)
    assert waiting.cancel()
    gate_open = concurrent.futures.wait([waiting], timeout=5).done
    gate.go.set()
    first.result(60)
    assert gate_open == {waiting}


def test_a_deadline_that_passes_as_the_batch_is_launched_spoils_no_other(make_runtime: Make) -> None:
    clock = Clock()
    runtime = make_runtime(fake("n"), clock=clock, learn=False)
    session = runtime.load(DOUBLE, canary=False, batch=2, batch_delay=10.0)
    batcher = session._batcher
    assert batcher is not None
    launch = batcher._launch

    def late(gathered: list) -> None:
        clock.now += 1
        runtime.timers.run_due()
        launch(gathered)

    batcher._launch = late
    one = session.submit(X[:1], deadline=0.5)
    two = session.submit(X[1:])
    assert isinstance(one.exception(30), errors.DeadlineExceeded)
    assert two.result(30).tolist() == [4]


def test_nothing_is_loaded_again_for_a_request_that_fails_as_its_session_is_closed(make_runtime: Make) -> None:
    gate = Gate()

    def fails(inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        gate.run(inputs, call)
        raise OSError("vendor error")

    npu, cpu = fake("n", run=fails), fake("c", kind="cpu")
    session = make_runtime(npu, cpu, learn=False).load(DOUBLE, canary=False)
    future = session.submit(X)
    assert gate.entered.wait(60)
    withdraw = session._candidates[0].lanes.withdraw

    def let_go(timeout: float) -> bool:
        gate.go.set()
        return withdraw(timeout)

    session._candidates[0].lanes.withdraw = let_go
    # The failure goes on when all is closed.
    after = session._dispatcher.after_failure
    closed = threading.Event()

    def later(request: object, candidate: object) -> None:
        assert closed.wait(60)
        after(request, candidate)

    session._dispatcher.after_failure = later
    session.close()
    closed.set()
    error = future.exception(60)
    assert [len(npu.made), len(cpu.made)] == [1, 1], "loaded again"
    assert isinstance(error, errors.ClosedError), repr(error)


def test_a_hung_call_keeps_nobody_waiting_who_closes_the_runtime(make_runtime: Make) -> None:
    gate = Gate()
    runtime = make_runtime(fake("n", run=gate.run), learn=False)
    session = runtime.load(DOUBLE, canary=False)
    future = session.submit(X)
    assert gate.entered.wait(60)
    runtime.close(timeout=0.05)
    try:
        assert isinstance(future.exception(5), errors.ClosedError)
    finally:
        gate.go.set()


def test_work_that_comes_when_the_workers_are_closed_is_done() -> None:
    from hetero.scheduler.workers import Workers

    workers, first, second = Workers(), threading.Event(), threading.Event()
    workers.do(first.set)
    assert first.wait(60)
    while not workers._idle:
        pass
    assert workers.close(10)
    workers.do(second.set)
    assert second.wait(5)


def test_a_future_that_was_cancelled_has_a_record_that_says_so(make_runtime: Make) -> None:
    gate, clock = Gate(), Clock()
    runtime = make_runtime(fake("n", run=gate.run), clock=clock, learn=False)
    session = runtime.load(DOUBLE, canary=False)
    first = session.submit(X)
    assert gate.entered.wait(60)
    waiting = session.submit(X, deadline=0.5)
    finish = session._dispatcher.finish

    # The caller cancels in the moment in which the deadline passes.
    def cancel(request: object, error: BaseException | None) -> None:
        waiting.cancel()
        finish(request, error)

    session._dispatcher.finish = cancel
    clock.now += 1
    runtime.timers.run_due()
    session._dispatcher.finish = finish
    gate.go.set()
    first.result(60)
    record = next(r for r in runtime.records if r.error is not None)
    told = "CancelledError" if waiting.cancelled() else "DeadlineExceeded"
    assert record.error.startswith(told), (record.error, waiting)
