"""A device that says when its next call may begin: what comes too soon waits, is refused, or goes elsewhere."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable

import numpy as np
import pytest

import hetero
from hetero.errors import QueueFull
from tests.fakes import DOUBLE, fake

X = np.array([1, 2], np.float32)
Make = Callable[..., hetero.Runtime]


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class EverySecond:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._next = 0.0
        self.begun: list[float] = []

    def due_in(self) -> float:
        return max(0.0, self._next - self._clock())

    def began(self) -> None:
        self.begun.append(self._clock())
        self._next = self._clock() + 1.0


def test_requests_that_come_too_soon_wait_their_turn_and_none_is_lost(make_runtime: Make) -> None:
    clock = Clock()
    pace = EverySecond(clock)
    runtime = make_runtime(fake("npu", lanes=4, pace=pace), chain=["npu"], clock=clock, learn=False)
    session = runtime.load(DOUBLE, canary=False)
    futures = [session.submit(X + i) for i in range(5)]
    for second in range(5):
        concurrent.futures.wait(futures[: second + 1], timeout=30)
        assert [future.done() for future in futures] == [i <= second for i in range(5)]
        clock.now += 1.0
        runtime.timers.run_due()
    assert [future.result().tolist() for future in futures] == [[2 + 2 * i, 4 + 2 * i] for i in range(5)]
    assert pace.begun == [100.0, 101.0, 102.0, 103.0, 104.0]


def test_a_request_that_comes_too_soon_is_refused_with_the_time_to_wait_where_nobody_may_wait(
    make_runtime: Make,
) -> None:
    clock = Clock()
    runtime = make_runtime(fake("npu", lanes=2, pace=EverySecond(clock)), chain=["npu"], clock=clock, learn=False)
    session = runtime.load(DOUBLE, canary=False, on_full="raise")
    assert session(X).tolist() == [2, 4]
    clock.now += 0.25
    for door in (lambda: session(X), lambda: session.submit(X)):
        with pytest.raises(QueueFull, match="npu is paced: the next request may come in 750 ms"):
            door()
    clock.now += 0.75
    assert session(X).tolist() == [2, 4]


def test_what_a_paced_device_cannot_take_yet_goes_to_the_next_one_of_the_chain(make_runtime: Make) -> None:
    clock = Clock()
    runtime = make_runtime(fake("npu", pace=EverySecond(clock)), fake("cpu", kind="cpu"), clock=clock, learn=False)
    session = runtime.load(DOUBLE, canary=False)
    assert [session.run(X).record.device for _ in range(3)] == ["npu", "cpu", "cpu"]
    clock.now += 1.0
    assert session.run(X).record.device == "npu"


def test_a_synchronous_call_waits_for_the_pace(make_runtime: Make) -> None:
    clock = Clock()
    runtime = make_runtime(fake("npu", pace=EverySecond(clock)), chain=["npu"], clock=clock, learn=False)
    session = runtime.load(DOUBLE, canary=False)
    session(X)
    with concurrent.futures.ThreadPoolExecutor(1) as caller:
        answer = caller.submit(session, X)
        while not session._dispatcher.board.waiting:
            pass
        clock.now += 1.0
        runtime.timers.run_due()
        assert answer.result(30).tolist() == [2, 4]
