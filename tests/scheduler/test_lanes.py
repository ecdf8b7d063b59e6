"""Lanes: who gets one that is given back, and what becomes of those who wait when there are none any more."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

import numpy as np

import hetero
from hetero.backend import Array, Call
from hetero.scheduler.lanes import Lanes
from tests.fakes import DOUBLE, FakeExecutable, double, fake

X = np.array([1, 2], np.float32)


def opened(lanes: int = 1) -> Lanes:
    made = Lanes(time.perf_counter)
    made.prepare(lanes, ())
    made.open()
    return made


def waiting(lanes: Lanes, count: int) -> None:
    while len(lanes._claims) < count:
        time.sleep(0)


def test_a_lane_that_is_given_back_goes_to_who_has_claimed_one_and_not_to_the_free_ones() -> None:
    lanes = opened()
    held = lanes.take()
    assert held is not None
    got: list[Call | None] = []
    claimant = threading.Thread(target=lambda: got.append(lanes.claim()))
    claimant.start()
    waiting(lanes, 1)
    lanes.give_back(held)
    claimant.join(30)
    assert got == [held]
    assert not lanes.free


def test_whoever_waits_for_a_lane_is_told_when_all_are_withdrawn() -> None:
    lanes = opened()
    held = lanes.take()
    assert held is not None
    got: list[Call | None] = []
    claimants = [threading.Thread(target=lambda: got.append(lanes.claim())) for _ in range(3)]
    for claimant in claimants:
        claimant.start()
    waiting(lanes, 3)
    assert not lanes.withdraw(0.0)
    for claimant in claimants:
        claimant.join(30)
    assert got == [None, None, None]
    assert lanes.claim() is None
    lanes.give_back(held)
    assert lanes.withdraw(1.0)


def test_every_lane_is_there_in_the_end_whoever_claims_and_takes() -> None:
    lanes = opened(3)

    def work(number: int) -> None:
        for turn in range(2000):
            call = lanes.claim() if (turn + number) % 2 else lanes.take()
            if call is not None:
                lanes.give_back(call)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(call.lane for call in lanes.free) == [0, 1, 2]


def test_checking_an_answer_is_not_kept_waiting_by_those_who_queue_for_the_reference(
    make_runtime: Callable[..., hetero.Runtime],
) -> None:
    gate = threading.Semaphore(0)
    served: list[float] = []

    def slow(inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        assert gate.acquire(timeout=30)
        served.append(float(inputs["x"][0]))
        return double(inputs, call)

    runtime = make_runtime(fake("npu"), fake("cpu", kind="cpu", run=slow), learn=False)
    session = runtime.load(DOUBLE, verify=1, canary=False)
    queued = [session.submit(X + i, device="cpu") for i in range(3)]
    checked = session.submit(X + 9, device="npu")
    reference = session._candidates[-1]
    waiting(reference.lanes, 1)
    gate.release()
    gate.release()
    checked.result(30)
    assert served == [1.0, 10.0], "the check comes next, before what has queued"
    for _ in range(2):
        gate.release()
    assert [future.result(30).tolist() for future in queued] == [[2 + 2 * i, 4 + 2 * i] for i in range(3)]


def test_a_device_whose_answer_is_being_checked_is_not_taken_for_hung(
    make_runtime: Callable[..., hetero.Runtime],
) -> None:
    class Clock:
        now = 0.0

        def __call__(self) -> float:
            return self.now

    gate, clock = threading.Event(), Clock()

    def slow(inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        assert gate.wait(30)
        return double(inputs, call)

    runtime = make_runtime(fake("npu"), fake("cpu", kind="cpu", run=slow), learn=False, clock=clock)
    session = runtime.load(DOUBLE, verify=1, canary=False, timeout=5.0)
    future = session.submit(X, device="npu")
    while session._candidates[-1].free:
        time.sleep(0)
    clock.now += 60
    runtime.timers.run_due()
    gate.set()
    assert future.result(30).tolist() == [2, 4]
    assert session.explain().candidates[0].reason == ""


def test_whoever_cancels_a_run_that_has_just_ended_does_not_hit_the_next_one_on_its_lane(
    make_runtime: Callable[..., hetero.Runtime],
) -> None:
    class Cancellable(FakeExecutable):
        def cancel(self, call: Call) -> bool:
            cancelled.append(call.turn)
            return True

    cancelled: list[int] = []
    gate = threading.Semaphore(0)

    def run(inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        assert gate.acquire(timeout=30)
        return double(inputs, call)

    backend = fake("npu", run=run)
    backend.load = lambda self, *_: Cancellable(self)  # type: ignore[assignment, method-assign]
    session = make_runtime(backend, chain=["npu"]).load(DOUBLE, canary=False)
    candidate = session._candidates[0]
    first = session.submit(X)
    while not candidate.lanes.calls[0].started:
        time.sleep(0)
    call, turn = candidate.lanes.calls[0], candidate.lanes.calls[0].turn
    gate.release()
    assert first.result(30).tolist() == [2, 4]
    second = session.submit(X)
    while not call.started:
        time.sleep(0)
    assert not candidate.cancel(call, turn)
    assert not call.cancelled
    assert candidate.cancel(call, call.turn)
    gate.release()
    second.result(30)
    assert cancelled == [turn + 1]
