"""In which thread a submitted request runs: a worker's, or that of whoever waits for its answer."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

import hetero
from hetero import errors
from hetero.backend import Array, Call
from hetero.scheduler.workers import Workers
from hetero.telemetry.records import Record
from tests.fakes import DOUBLE, Failing, double, fake

X = np.array([1, 2], np.float32)
Make = Callable[..., hetero.Runtime]


def without_workers(session: hetero.Session, monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], Any]]:
    """Workers that take work and never come to do it."""
    waiting: list[Callable[[], Any]] = []
    monkeypatch.setattr(session._dispatcher._workers, "do", waiting.append)
    return waiting


def test_whoever_waits_for_a_request_that_was_not_begun_runs_it(
    make_runtime: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = make_runtime(fake("c", kind="cpu"))
    session = runtime.load(DOUBLE)
    left = without_workers(session, monkeypatch)
    future = session.submit(X)
    assert future.result().tolist() == [2, 4]
    assert runtime.records.last.attempts[-1].thread == threading.get_ident()
    for work in left:
        work()  # the worker comes late: it finds nothing to do
    assert len(runtime.records) == 1


def test_whoever_waits_follows_the_request_to_the_next_device(
    make_runtime: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = make_runtime(
        fake("n", run=Failing(0, errors.ExecutionError("no"))), fake("c", kind="cpu"), chain=["n", "c"]
    )
    session = runtime.load(DOUBLE, canary=False)
    without_workers(session, monkeypatch)
    assert session.submit(X).result().tolist() == [2, 4]
    assert [attempt.device for attempt in runtime.records.last.attempts] == ["n", "c"]


@pytest.mark.parametrize("load", [{}, {"timeout": 5.0}])
def test_whoever_waits_with_a_limit_of_time_does_not_run_it(
    make_runtime: Make, monkeypatch: pytest.MonkeyPatch, load: dict[str, float]
) -> None:
    session = make_runtime(fake("c", kind="cpu")).load(DOUBLE, **load)
    left = without_workers(session, monkeypatch)
    future = session.submit(X)
    with pytest.raises(concurrent.futures.TimeoutError):
        future.result(0)
    assert not future.running()
    left[0]()
    assert future.result().tolist() == [2, 4]


def test_a_call_that_may_hang_never_runs_in_the_thread_of_whoever_waits(make_runtime: Make) -> None:
    threads: list[int] = []

    def run(inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        threads.append(threading.get_ident())
        return double(inputs, call)

    session = make_runtime(fake("c", kind="cpu", run=run)).load(DOUBLE, timeout=60.0)
    for _ in range(50):
        session.submit(X).result()
        session.submit(X, deadline=60.0).result()
    assert threading.get_ident() not in threads


def test_an_interrupt_in_a_thread_that_helps_out_reaches_it_and_leaves_no_lane_taken(
    make_runtime: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupts = [KeyboardInterrupt()]

    def run(inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        if interrupts:
            raise interrupts.pop()
        return double(inputs, call)

    session = make_runtime(fake("c", kind="cpu", run=run)).load(DOUBLE, canary=False)
    with monkeypatch.context() as patch:
        without_workers(session, patch)
        with pytest.raises(KeyboardInterrupt):
            session.submit(X).result()
    assert session(X).tolist() == [2, 4]


def test_a_callback_may_wait_for_a_request_that_waits_for_its_lane(make_runtime: Make) -> None:
    gate = threading.Event()

    def run(inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        assert gate.wait(30)
        return double(inputs, call)

    session = make_runtime(fake("c", kind="cpu", run=run)).load(DOUBLE, canary=False)
    answers: list[list[float]] = []
    done = threading.Event()
    first, second = session.submit(X), session.submit(X + 1)

    def callback(future: concurrent.futures.Future[Any]) -> None:
        # The worker that calls this has made room for the second request; it must not have kept that for itself.
        answers.append(second.result(30).tolist())
        done.set()

    first.add_done_callback(callback)
    gate.set()
    assert done.wait(30)
    assert answers == [[4, 6]]


def test_a_listener_may_wait_for_a_request_that_waits_for_its_lane(make_runtime: Make) -> None:
    gate = threading.Event()

    def run(inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        assert gate.wait(30)
        return double(inputs, call)

    runtime = make_runtime(fake("c", kind="cpu", run=run))
    session = runtime.load(DOUBLE, canary=False)
    futures = [session.submit(X), session.submit(X + 1)]
    answers: list[list[float]] = []
    heard: list[int] = []

    def listener(record: Record) -> None:
        heard.append(record.id)
        if len(heard) == 1:
            answers.append(futures[1].result(30).tolist())

    runtime.records.subscribe(listener)
    gate.set()
    assert futures[0].result(30).tolist() == [2, 4]
    assert answers == [[4, 6]]


def test_a_kept_piece_is_done_by_the_thread_that_kept_it_after_its_own() -> None:
    workers, order, done = Workers(), [], threading.Event()

    def second() -> None:
        order.append(("second", threading.get_ident()))
        done.set()

    def first() -> None:
        workers.keep_next(True)
        workers.do(second)
        workers.keep_next(False)
        order.append(("first", threading.get_ident()))

    workers.do(first)
    assert done.wait(30)
    assert [name for name, _ in order] == ["first", "second"]
    assert order[0][1] == order[1][1]
    assert workers.close(10)
