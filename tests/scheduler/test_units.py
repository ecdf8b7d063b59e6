"""Parts of a device that fail by themselves: one is set aside alone, the others go on, and it comes back alone."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

import hetero
from hetero.backend import Array, Call
from hetero.errors import DeviceLost, NonFiniteOutput
from tests.fakes import DOUBLE, FakeBackend, double, fake

X = np.array([1, 2], np.float32)
Make = Callable[..., hetero.Runtime]


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Npu:
    """Three cores with two lanes each; those named in `bad` do what `fault` does."""

    def __init__(self) -> None:
        self.bad: set[int] = set()
        self.fault: Callable[[], Any] = self.lost
        self.cores: list[int] = []
        self.gate = threading.Event()

    def lost(self) -> None:
        raise DeviceLost("reset")

    def hang(self) -> None:
        assert self.gate.wait(60)

    def run(self, inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        core = call.lane % 3
        if core in self.bad:
            self.fault()
        self.cores.append(core)
        return double(inputs, call)

    def backend(self) -> type[FakeBackend]:
        units = ["core0", "core1", "core2"] * 2
        return fake("npu", lanes=6, units=units, run=self.run)


def test_a_core_that_is_lost_is_set_aside_alone(make_runtime: Make) -> None:
    npu, clock = Npu(), Clock()
    runtime = make_runtime(npu.backend(), fake("cpu", kind="cpu"), clock=clock, learn=False)
    session = runtime.load(DOUBLE)
    npu.bad = {1}
    for _ in range(12):
        assert session(X).tolist() == [2, 4]
    devices = [record.device for record in runtime.records]
    assert devices.count("cpu") == 1
    assert devices.count("npu") == 11
    assert set(npu.cores[-11:]) == {0, 2}
    report = session.explain().candidates[0]
    assert report.state == "ready"
    assert "core1: DeviceLost: reset" in report.reason


def test_a_core_comes_back_by_itself(make_runtime: Make) -> None:
    npu, clock = Npu(), Clock()
    runtime = make_runtime(npu.backend(), fake("cpu", kind="cpu"), clock=clock, learn=False)
    session = runtime.load(DOUBLE)
    npu.bad = {1}
    for _ in range(3):
        session(X)
    npu.bad = set()
    back = threading.Event()
    recovered = session._candidates[0].lanes.recovered

    def seen(unit: Any) -> None:
        recovered(unit)
        back.set()

    session._candidates[0].lanes.recovered = seen  # type: ignore[method-assign]
    clock.now += 10
    runtime.timers.run_due()
    assert back.wait(30)
    npu.cores.clear()
    # The lane that answered the canary is given back a moment later.
    while len(session._candidates[0].free) < 6:
        pass
    for _ in range(6):
        session(X)
    assert sorted(npu.cores) == [0, 0, 1, 1, 2, 2]


def test_a_core_that_hangs_for_good_costs_one_time_out_and_no_answer(make_runtime: Make) -> None:
    npu, clock = Npu(), Clock()
    npu.fault = npu.hang
    runtime = make_runtime(npu.backend(), fake("cpu", kind="cpu"), clock=clock, learn=False)
    session = runtime.load(DOUBLE, timeout=5.0, canary=False)
    npu.bad = {2}
    futures = [session.submit(X) for _ in range(6)]
    # Two of the six are in the hung core; the others end.
    done = set()
    while len(done) < 4:
        done, _ = concurrent.futures.wait(futures, timeout=0.01)
    clock.now += 6
    runtime.timers.run_due()
    assert [future.result(30).tolist() for future in futures] == [[2, 4]] * 6
    for _ in range(20):
        assert session.submit(X).result(30).tolist() == [2, 4]
    assert 2 not in npu.cores
    assert "core2" in session.explain().candidates[0].reason
    npu.gate.set()


def test_a_device_all_of_whose_cores_are_lost_is_set_aside_as_a_whole(make_runtime: Make) -> None:
    npu, clock = Npu(), Clock()
    runtime = make_runtime(npu.backend(), fake("cpu", kind="cpu"), clock=clock, learn=False)
    session = runtime.load(DOUBLE)
    npu.bad = {0, 1, 2}
    for _ in range(10):
        assert session(X).tolist() == [2, 4]
    last = runtime.records.last
    assert last is not None
    assert [attempt.outcome for attempt in last.attempts] == ["set aside", "ok"]
    assert session.explain().candidates[0].state == "set aside"


def test_a_core_that_does_not_answer_its_canary_at_load_is_left_out(make_runtime: Make) -> None:
    npu = Npu()
    npu.bad = {0}
    runtime = make_runtime(npu.backend(), fake("cpu", kind="cpu"), learn=False)
    session = runtime.load(DOUBLE)
    npu.cores.clear()
    for _ in range(8):
        session(X)
    assert set(npu.cores) == {1, 2}
    assert "core0: the canary failed: DeviceLost: reset" in session.explain().candidates[0].reason


def test_a_core_that_hangs_in_its_canary_at_load_keeps_nobody_waiting(make_runtime: Make) -> None:
    npu = Npu()
    npu.bad, npu.fault = {1}, npu.hang
    runtime = make_runtime(npu.backend(), fake("cpu", kind="cpu"), learn=False)
    session = runtime.load(DOUBLE, timeout=0.005)
    npu.cores.clear()
    for _ in range(8):
        session(X, device="npu")
    assert set(npu.cores) == {0, 2}
    npu.gate.set()
    assert session.close()


def test_a_device_without_units_that_hangs_in_its_canary_is_passed_over(make_runtime: Make) -> None:
    gate = threading.Event()

    def hang(inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        assert gate.wait(60)
        return double(inputs, call)

    npu = fake("npu", run=hang)
    runtime = make_runtime(npu, fake("cpu", kind="cpu"), learn=False)
    session = runtime.load(DOUBLE, timeout=0.005)
    assert session(X).tolist() == [2, 4]
    assert "no answer within 0.05 s" in session.explain().candidates[0].reason
    gate.set()


def test_calls_are_numbered_in_the_order_of_their_submits(make_runtime: Make) -> None:
    seen: dict[float, int] = {}

    def run(inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        seen[float(inputs["x"][0])] = call.number
        return double(inputs, call)

    session = make_runtime(fake("npu", lanes=3, run=run), chain=["npu"]).load(DOUBLE, canary=False)
    futures = [session.submit(np.array([i], np.float32)) for i in range(200)]
    concurrent.futures.wait(futures)
    assert [seen[i] for i in range(200)] == list(range(200))


@pytest.mark.parametrize("final", [False, True])
def test_an_answer_that_is_not_finite_goes_on_or_is_raised_and_is_no_failure_of_the_device(
    make_runtime: Make, final: bool
) -> None:
    def run(inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        if inputs["x"][0] > 60000:
            raise NonFiniteOutput("1 of 2 numbers in 'y' is inf", final=final)
        return double(inputs, call)

    session = make_runtime(fake("npu", run=run), fake("cpu", kind="cpu")).load(DOUBLE)
    big = np.array([65000, 1], np.float32)
    for _ in range(5):
        if final:
            with pytest.raises(NonFiniteOutput, match="inf"):
                session(big)
        else:
            result = session.run(big)
            assert [attempt.outcome for attempt in result.record.attempts] == ["failed", "ok"]
    assert session.run(X).record.device == "npu"


def test_options_of_one_call_reach_the_executable_and_no_other_call(make_runtime: Make) -> None:
    seen: list[dict[str, Any]] = []

    def run(inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        seen.append(dict(call.options))
        return double(inputs, call)

    session = make_runtime(fake("npu", run=run), chain=["npu"]).load(DOUBLE, canary=False)
    loud = {"npu": {"loud": True}}
    session(X, options=loud)
    session(X)
    session.submit(X, options=loud).result()
    assert list(session.map([X], options=loud))
    session.run(X)
    assert seen == [{"loud": True}, {}, {"loud": True}, {"loud": True}, {}]


def test_an_option_that_is_settled_at_load_is_refused_for_one_call(make_runtime: Make) -> None:
    session = make_runtime(fake("npu"), chain=["npu"]).load(DOUBLE)
    with pytest.raises(
        hetero.errors.OptionError, match="settled when the program is loaded; for one call there is: loud"
    ):
        session(X, options={"npu": {"threads": 3}})


def test_a_lane_of_twice_the_weight_gets_twice_the_calls_where_both_are_free(make_runtime: Make) -> None:
    lanes: list[int] = []

    def run(inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        lanes.append(call.lane)
        return double(inputs, call)

    session = make_runtime(fake("npu", lanes=2, weights=(2, 1), run=run), chain=["npu"]).load(DOUBLE, canary=False)
    for _ in range(300):
        session(X)
    assert (lanes.count(0), lanes.count(1)) == (200, 100)


@pytest.mark.parametrize("wrong", [{"units": ["core0"]}, {"weights": (1, 2, 3)}, {"weights": (1, 0)}])
def test_units_and_weights_that_do_not_fit_the_lanes_are_the_plugins_mistake(
    make_runtime: Make, wrong: dict[str, Any]
) -> None:
    session = make_runtime(fake("npu", lanes=2, **wrong), fake("cpu", kind="cpu")).load(DOUBLE)
    assert "an executable" in session.explain().candidates[0].reason
    assert session.run(X).record.device == "cpu"


def test_a_request_does_not_take_a_lane_that_one_before_it_was_not_told_of_yet(make_runtime: Make) -> None:
    """A lane lies free for a moment before whoever gave it back looks who waits."""
    gate = threading.Semaphore(0)

    def run(inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        assert gate.acquire(timeout=30)
        order.append(float(inputs["x"][0]))
        return double(inputs, call)

    order: list[float] = []
    session = make_runtime(fake("npu", run=run), chain=["npu"]).load(DOUBLE, canary=False)
    board, candidate = session._dispatcher.board, session._candidates[0]
    first, second = session.submit(X), session.submit(X + 1)
    held = candidate.lanes.calls[0]
    while not held.started:
        pass
    given_back, board_waits = candidate.lanes.give_back, threading.Event()

    def slowly(call: Call) -> None:
        given_back(call)
        candidate.lanes.give_back = given_back  # type: ignore[method-assign]
        third.append(session.submit(X + 2))
        board_waits.set()

    third: list[concurrent.futures.Future[Any]] = []
    candidate.lanes.give_back = slowly  # type: ignore[method-assign]
    for _ in range(3):
        gate.release()
    assert board_waits.wait(30)
    concurrent.futures.wait([first, second, *third], timeout=30)
    assert order == [1.0, 2.0, 3.0]
    assert board.waiting == 0
