"""Deadlines, priorities, cancellation, hung devices and recovery, with time that the test decides."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import hetero
from hetero import errors
from hetero.backend import Array, Call
from tests.fakes import DOUBLE, FakeExecutable, double, fake, raises

Make = Callable[..., hetero.Runtime]

X = np.arange(4, dtype=np.float32)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Gate:
    """A run that waits until it is let go, and says when somebody is inside."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.release = threading.Event()
        self.order: list[float] = []

    def __call__(self, inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        self.order.append(float(inputs["x"][0]))
        self.entered.release()
        assert self.release.wait(20)
        return double(inputs, call)

    def wait_inside(self) -> None:
        assert self.entered.acquire(timeout=20)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def number(value: float) -> Array:
    return np.full(1, value, np.float32)


def outcomes(record: hetero.Record) -> list[tuple[str, str]]:
    return [(attempt.device, attempt.outcome) for attempt in record.attempts]


def test_a_higher_priority_overtakes_those_that_wait(make_runtime: Make) -> None:
    gate = Gate()
    session = make_runtime(fake("n", run=gate)).load(DOUBLE)
    first = session.submit(number(0))
    gate.wait_inside()
    low, high = session.submit(number(1)), session.submit(number(2), priority=1)
    gate.release.set()
    for future in (first, low, high):
        future.result(20)
    assert gate.order == [0, 2, 1]


def test_a_request_past_its_deadline_is_not_started(make_runtime: Make, clock: Clock) -> None:
    gate = Gate()
    runtime = make_runtime(fake("n", run=gate), clock=clock)
    session = runtime.load(DOUBLE)
    first = session.submit(number(0))
    gate.wait_inside()
    late = session.submit(number(1), deadline=0.5)
    clock.now += 0.6
    runtime.timers.run_due()
    with pytest.raises(errors.DeadlineExceeded, match=r"no answer within 0\.5 s"):
        late.result(20)
    gate.release.set()
    first.result(20)
    assert gate.order == [0]


def test_a_running_request_past_its_deadline_is_left_and_its_lane_comes_back(make_runtime: Make, clock: Clock) -> None:
    gate = Gate()
    runtime = make_runtime(fake("n", run=gate), clock=clock)
    session = runtime.load(DOUBLE)
    late = session.submit(number(0), deadline=0.5)
    gate.wait_inside()
    clock.now += 0.6
    runtime.timers.run_due()
    with pytest.raises(errors.DeadlineExceeded):
        late.result(20)
    following = session.submit(number(1))
    gate.release.set()
    assert following.result(20)[0] == 2
    assert session.explain().candidates[0].state == "ready", "a deadline is no failure of the device"


def test_a_synchronous_call_keeps_its_deadline_too(make_runtime: Make, clock: Clock) -> None:
    gate = Gate()
    runtime = make_runtime(fake("n", run=gate), clock=clock)
    session = runtime.load(DOUBLE)

    def pass_time() -> None:
        gate.wait_inside()
        clock.now += 1.0
        runtime.timers.run_due()

    thread = threading.Thread(target=pass_time)
    thread.start()
    with pytest.raises(errors.DeadlineExceeded):
        session(number(0), deadline=0.5)
    thread.join(20)
    gate.release.set()


@pytest.mark.parametrize("deadline", [0, -1.0])
def test_a_deadline_in_the_past_is_refused(make_runtime: Make, deadline: float) -> None:
    with pytest.raises(errors.OptionError, match="deadline"):
        make_runtime(fake("n")).load(DOUBLE)(X, deadline=deadline)


def test_a_hung_device_is_set_aside_and_the_request_goes_on_elsewhere(make_runtime: Make, clock: Clock) -> None:
    gate = Gate()
    runtime = make_runtime(fake("n", run=gate), fake("c", kind="cpu"), clock=clock)
    session = runtime.load(DOUBLE, timeout=2.0, canary=False)
    future = session.submit(number(3))
    gate.wait_inside()
    clock.now += 2.1
    runtime.timers.run_due()
    assert future.result(20)[0] == 6
    last = runtime.records.last
    assert last is not None
    assert outcomes(last) == [("n", "failed"), ("c", "ok")]
    assert "DeviceTimeout: no answer within 2 s" in last.attempts[0].reason
    assert session.device == "c"
    gate.release.set()


def test_a_late_answer_of_a_hung_call_is_nobodys(make_runtime: Make, clock: Clock) -> None:
    gate = Gate()
    runtime = make_runtime(fake("n", run=gate), fake("c", kind="cpu"), clock=clock)
    session = runtime.load(DOUBLE, timeout=2.0, canary=False)
    future = session.submit(number(3))
    gate.wait_inside()
    clock.now += 2.1
    runtime.timers.run_due()
    assert future.result(20)[0] == 6
    gate.release.set()
    session.close()
    assert len(runtime.records) == 1


def test_a_device_that_failed_comes_back_by_itself(make_runtime: Make, clock: Clock) -> None:
    broken = threading.Event()
    broken.set()

    def run(inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        if broken.is_set():
            raise errors.DeviceLost("reset")
        return double(inputs, call)

    runtime = make_runtime(fake("n", run=run), fake("c", kind="cpu"), clock=clock)
    session = runtime.load(DOUBLE, canary=False)
    assert session.run(X).record.device == "c"
    clock.now += 0.1
    assert outcomes(session.run(X).record) == [("n", "set aside"), ("c", "ok")]
    broken.clear()
    clock.now += 1.0
    session(X)  # its pause is over: this request goes to the CPU, and a canary is sent
    runtime._workers.close(20)
    assert session.run(X).record.device == "n"


def test_a_canary_with_a_wrong_answer_keeps_the_device_out(make_runtime: Make) -> None:
    wrong = fake("n", run=lambda inputs, call: {"y": inputs["x"] * 3})
    session = make_runtime(wrong, fake("c", kind="cpu")).load(DOUBLE)
    assert session.device == "c"
    assert "the canary failed: output 'y' differs from the reference" in str(session.explain())
    assert wrong.made[0].closed == 1


def test_a_canary_the_reference_cannot_answer_is_not_asked(make_runtime: Make) -> None:
    picky = fake("c", kind="cpu", run=raises(errors.Unsupported("only 4 elements")))
    assert make_runtime(fake("n"), picky).load(DOUBLE).device == "n"


def test_cancelling_a_waiting_request_takes_it_out_of_the_queue(make_runtime: Make) -> None:
    gate = Gate()
    runtime = make_runtime(fake("n", run=gate))
    session = runtime.load(DOUBLE)
    first = session.submit(number(0))
    gate.wait_inside()
    waiting = session.submit(number(1))
    assert waiting.cancel()
    gate.release.set()
    first.result(20)
    session(number(2))
    assert gate.order == [0, 2]
    assert [record.error for record in runtime.records if record.error] == ["CancelledError: "]


def interruptible(name: str) -> tuple[Any, threading.Event]:
    """A backend whose running call ends when it is cancelled; and the event that it is inside."""
    inside, stop = threading.Event(), threading.Event()

    def run(inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        inside.set()
        if stop.wait(20):
            raise errors.ExecutionError("terminated")
        return double(inputs, call)

    def cancel(self: FakeExecutable, call: Call) -> bool:
        stop.set()
        return True

    backend = fake(name, run=run)

    def load(self: Any, program: Any, device: Any, options: Any) -> Any:
        executable = FakeExecutable(self)
        executable.cancel = cancel.__get__(executable)  # type: ignore[method-assign]
        return executable

    return type("Interruptible", (backend,), {"load": load}), inside


def test_cancelling_reaches_a_running_call_where_the_vendor_can(make_runtime: Make) -> None:
    backend, inside = interruptible("n")
    runtime = make_runtime(backend)
    session = runtime.load(DOUBLE)
    future = session.submit(X)
    assert inside.wait(20)
    assert future.cancel()
    with pytest.raises(concurrent.futures.CancelledError):
        future.result(20)
    session.close()
    assert len(runtime.records) == 1
    assert outcomes(next(iter(runtime.records))) == [("n", "cancelled")]


def test_cancelling_a_call_that_cannot_be_interrupted_says_so_and_the_answer_comes(make_runtime: Make) -> None:
    gate = Gate()
    session = make_runtime(fake("n", run=gate)).load(DOUBLE)
    future = session.submit(number(1))
    gate.wait_inside()
    assert not future.cancel()
    gate.release.set()
    assert future.result(20)[0] == 2


def test_cancelling_an_asyncio_task_cancels_the_request(make_runtime: Make) -> None:
    backend, inside = interruptible("n")
    runtime = make_runtime(backend)
    session = runtime.load(DOUBLE)

    async def main() -> None:
        task = asyncio.ensure_future(session.arun(X))
        await asyncio.to_thread(inside.wait, 20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    session.close()
    assert outcomes(next(iter(runtime.records))) == [("n", "cancelled")]


def test_a_full_queue_raises_or_waits_as_asked(make_runtime: Make) -> None:
    gate = Gate()
    session = make_runtime(fake("n", run=gate)).load(DOUBLE, max_waiting=1, on_full="raise")
    futures = [session.submit(number(0))]
    gate.wait_inside()
    futures.append(session.submit(number(1)))
    with pytest.raises(errors.QueueFull, match="1 requests"):
        session.submit(number(2))
    gate.release.set()
    assert [future.result(20)[0] for future in futures] == [0, 2]


def test_waiting_for_room_ends_when_there_is_some(make_runtime: Make) -> None:
    gate = Gate()
    session = make_runtime(fake("n", run=gate)).load(DOUBLE, max_waiting=1)
    futures = [session.submit(number(0))]
    gate.wait_inside()
    futures.append(session.submit(number(1)))
    thread = threading.Thread(target=lambda: futures.append(session.submit(number(2))))
    thread.start()
    gate.release.set()
    thread.join(20)
    assert [future.result(20)[0] for future in futures] == [0, 2, 4]


def test_as_completed_map_gives_what_is_done_first(make_runtime: Make) -> None:
    gate = Gate()

    def run(inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        return gate(inputs, call) if inputs["x"][0] == 0 else double(inputs, call)

    session = make_runtime(fake("n", lanes=2, run=run)).load(DOUBLE)
    results = session.map([number(i) for i in range(4)], in_flight=3, ordered=False)
    got = [next(results)[0] for _ in range(3)]
    gate.release.set()
    assert sorted(got) == [2, 4, 6]
    assert next(results)[0] == 0


@pytest.mark.parametrize("policy", ["chain", "fastest", "throughput", "efficiency"])
def test_every_policy_answers_every_request_rightly(make_runtime: Make, policy: str) -> None:
    runtime = make_runtime(fake("n", lanes=3), fake("g", kind="gpu"), fake("c", kind="cpu"))
    session = runtime.load(DOUBLE, policy=policy)
    got = [float(y[0]) for y in session.map([number(i) for i in range(300)])]
    assert got == [2.0 * i for i in range(300)]
    assert all(record.error is None for record in runtime.records)


def test_an_unknown_policy_is_refused(make_runtime: Make) -> None:
    with pytest.raises(errors.OptionError, match="known: chain, fastest, throughput, efficiency"):
        make_runtime(fake("n")).load(DOUBLE, policy="best")


def times(factor: float) -> Callable[..., Any]:
    return lambda inputs, call: {"y": inputs["x"] * np.float32(factor)}


def test_a_wrong_answer_never_reaches_the_caller_when_every_one_is_checked(make_runtime: Make) -> None:
    session = make_runtime(fake("n", run=times(3)), fake("c", kind="cpu")).load(DOUBLE, canary=False, verify=1)
    result = session.run(X)
    np.testing.assert_array_equal(result.value, X * 2)
    assert outcomes(result.record) == [("n", "failed"), ("c", "ok")]
    assert "differs from the reference by 3 at most" in result.record.attempts[0].reason
    assert session.device == "c"


def test_a_sampled_check_finds_a_wrong_device_and_sets_it_aside(make_runtime: Make) -> None:
    runtime = make_runtime(fake("n", run=times(3)), fake("c", kind="cpu"))
    session = runtime.load(DOUBLE, canary=False, verify=0.999999)
    assert session.run(X).record.device == "n"
    runtime._workers.close(20)
    assert session.device == "c"


def test_a_sampled_check_is_made_on_copies(make_runtime: Make) -> None:
    runtime = make_runtime(fake("n"), fake("c", kind="cpu"))
    session = runtime.load(DOUBLE, canary=False, verify=0.999999)
    x = X.copy()
    y = session(x)
    x[:] = 7
    y[:] = 7
    runtime._workers.close(20)
    assert session.device == "n"


def test_what_cannot_be_checked_is_not_held_against_the_device(make_runtime: Make) -> None:
    broken = fake("c", kind="cpu", run=raises(errors.ExecutionError("out of threads")))
    session = make_runtime(fake("n"), broken).load(DOUBLE, canary=False, verify=1)
    assert session.run(X).record.device == "n"


@pytest.mark.parametrize("wrong", [{"verify": 2}, {"verify": -1}, {"explore": 1.5}, {"timeout": 0}, {"max_waiting": 0}])
def test_shares_and_limits_out_of_range_are_refused(make_runtime: Make, wrong: dict[str, Any]) -> None:
    with pytest.raises(errors.OptionError):
        make_runtime(fake("n")).load(DOUBLE, **wrong)


def test_a_warm_start_answers_on_the_standby_while_the_accelerator_loads(make_runtime: Make) -> None:
    loading, go = threading.Event(), threading.Event()

    def compile_for_long() -> None:
        loading.set()
        assert go.wait(20)

    runtime = make_runtime(fake("n", load=compile_for_long), fake("c", kind="cpu"))
    session = runtime.load(DOUBLE, warm_start=True)
    assert loading.wait(20)
    assert session.run(X).record.device == "c"
    go.set()
    runtime._workers.close(20)
    assert session.run(X).record.device == "n"


def test_a_warm_start_whose_accelerator_fails_to_load_stays_where_it_is(make_runtime: Make) -> None:
    runtime = make_runtime(fake("n", load=raises(errors.ExecutionError("no firmware"))), fake("c", kind="cpu"))
    session = runtime.load(DOUBLE, warm_start=True)
    runtime._workers.close(20)
    assert session.run(X).record.device == "c"
    assert "no firmware" in str(session.explain())


def test_a_program_says_how_far_answers_may_differ(make_runtime: Make) -> None:
    rough = fake("n", run=times(2.2))
    strict = make_runtime(rough, fake("c", kind="cpu")).load(DOUBLE)
    assert strict.device == "c"
    tolerant = make_runtime(rough, fake("c", kind="cpu")).load(replace(DOUBLE, tolerance=0.2))
    assert tolerant.device == "n"


def test_what_a_run_takes_is_told(make_runtime: Make) -> None:
    session = make_runtime(fake("n")).load(DOUBLE)
    for _ in range(3):
        session(X)
    assert (session.explain().candidates[0].run_seconds or 0) > 0
    assert "a run takes" in str(session.explain())


def test_costs_are_kept_for_the_next_runtime(make_runtime: Make, host: hetero.Host) -> None:
    first = make_runtime(fake("n"))
    session = first.load(DOUBLE)
    for _ in range(3):
        session(X)
    first.close()
    again = make_runtime(fake("n"))
    assert (host.cache / "costs.json").is_file()
    assert [cost.runs for _, cost in again._costs] == [3]


def test_a_waiting_request_may_use_a_device_that_recovers_meanwhile(make_runtime: Make, clock: Clock) -> None:
    gate, broken = Gate(), threading.Event()
    broken.set()

    def flaky(inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        if broken.is_set():
            raise errors.DeviceLost("reset")
        return double(inputs, call)

    runtime = make_runtime(fake("n", run=flaky), fake("c", kind="cpu", run=gate), clock=clock)
    session = runtime.load(DOUBLE, canary=False)
    first = session.submit(number(1))
    gate.wait_inside()  # on the CPU, the device having failed it
    second = session.submit(number(2))
    broken.clear()
    clock.now += 1.0
    runtime.timers.run_due()
    assert second.result(20)[0] == 4, "it does not wait for the CPU any longer"
    gate.release.set()
    assert first.result(20)[0] == 2


def test_recovery_needs_no_further_request(make_runtime: Make, clock: Clock) -> None:
    broken = threading.Event()
    broken.set()

    def flaky(inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        if broken.is_set():
            raise errors.DeviceLost("reset")
        return double(inputs, call)

    runtime = make_runtime(fake("n", run=flaky), fake("c", kind="cpu"), clock=clock)
    session = runtime.load(DOUBLE, canary=False)
    session(X)
    assert session.device == "c"
    broken.clear()
    clock.now += 1.0
    runtime.timers.run_due()
    runtime._workers.close(20)
    assert session.device == "n"


def test_those_who_wait_are_told_when_the_last_device_hangs(make_runtime: Make, clock: Clock) -> None:
    gate = Gate()
    runtime = make_runtime(fake("n", run=gate), clock=clock)
    session = runtime.load(DOUBLE, timeout=2.0)
    hung = session.submit(number(1))
    gate.wait_inside()
    waiting = session.submit(number(2))
    clock.now += 2.1
    runtime.timers.run_due()
    for future in (hung, waiting):
        with pytest.raises(errors.AllDevicesFailed):
            future.result(20)
    gate.release.set()


def test_those_who_wait_for_the_only_device_are_still_asked_of_it_after_a_failure(make_runtime: Make) -> None:
    gate = Gate()

    def run(inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        answer = gate(inputs, call)
        if inputs["x"][0] == 0:
            raise errors.DeviceLost("reset")
        return answer

    runtime = make_runtime(fake("n", run=run))
    session = runtime.load(DOUBLE)
    lost = session.submit(number(0))
    gate.wait_inside()
    waiting = [session.submit(number(i)) for i in (1, 2)]
    gate.release.set()
    with pytest.raises(errors.AllDevicesFailed, match="reset"):
        lost.result(20)
    assert [future.result(20)[0] for future in waiting] == [2, 4]
