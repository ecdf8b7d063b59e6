"""A duty becomes admissions: over time the lanes work for that share, and no call is let in past it."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hetero.errors import OptionError
from hetero.thermal.admission import Admission
from hetero.thermal.steering import Decision, Worth, check_on_hot, elsewhere


class Clock:
    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


def busy(admission: Admission, clock: Clock, lanes: int, seconds: float, total: float) -> float:
    """Lane-seconds of work that a queue which is never empty gets done."""
    ends: list[float] = []
    done, stop = 0.0, clock.now + total
    while clock.now < stop:
        for end in [end for end in ends if end <= clock.now]:
            ends.remove(end)
            admission.ended(seconds)
            done += seconds
        while len(ends) < lanes and admission.admits():
            admission.began()
            ends.append(clock.now + seconds)
        clock.now += 0.001
    return done


@pytest.mark.parametrize("duty", [0.0, 0.1, 0.3, 0.5, 0.8, 0.95, 1.0])
@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize("seconds", [0.025, 0.08])
def test_lanes_work_for_the_share_that_was_granted(duty: float, lanes: int, seconds: float) -> None:
    clock = Clock()
    admission = Admission(lanes, clock)
    admission.grant(duty)
    busy(admission, clock, lanes, seconds, 2.0)
    share = busy(admission, clock, lanes, seconds, 6.0) / (6.0 * lanes)
    assert share == pytest.approx(duty, abs=0.05)


def test_use_is_told_and_begins_anew_each_time() -> None:
    clock = Clock()
    admission = Admission(2, clock)
    admission.began()
    clock.now += 1.0
    assert admission.used() == pytest.approx(0.5)
    admission.ended(1.0)
    clock.now += 1.0
    assert admission.used() == pytest.approx(0.0)


def test_at_no_duty_nothing_is_due_and_at_full_duty_everything() -> None:
    admission = Admission(1, Clock())
    assert admission.due_in() == 0
    admission.grant(0.0)
    admission.ended(9.0)
    assert admission.due_in() == float("inf")
    admission.grant(1.0)
    assert admission.admits()


@settings(max_examples=100)
@given(
    st.lists(
        st.one_of(
            st.just("begin"),
            st.tuples(st.just("end"), st.floats(0, 3)),
            st.tuples(st.just("grant"), st.floats(-0.5, 2)),
            st.tuples(st.just("wait"), st.floats(0, 5)),
        ),
        max_size=60,
    )
)
def test_no_order_of_calls_gives_more_than_a_burst_or_a_negative_wait(steps: list[object]) -> None:
    clock = Clock()
    admission = Admission(3, clock)
    for step in steps:
        match step:
            case "begin":
                admission.began()
            case ("end", float(seconds)):
                admission.ended(seconds)
            case ("grant", float(duty)):
                admission.grant(duty)
            case ("wait", float(seconds)):
                clock.now += seconds
        assert admission.tokens <= 1.5
        assert admission.due_in() >= 0
        assert 0 <= admission.used() <= 1
        assert admission.admits() is (admission.due_in() == 0)


def test_calls_from_many_threads_are_all_counted() -> None:
    admission = Admission(4, Clock())
    admission.grant(0.5)

    def calls() -> None:
        for _ in range(500):
            admission.admits()
            admission.began()
            admission.ended(0.001)

    threads = [threading.Thread(target=calls) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert admission.tokens == pytest.approx(2.0 - 2000 * 0.001)
    assert admission.used() == 0


HERE = Worth("npu", 0.035, True)


@pytest.mark.parametrize(
    ("on_hot", "here", "others", "to", "says"),
    [
        ("pace", HERE, [Worth("gpu", 0.01, True)], "", "'pace' stays"),
        ("steer", HERE, [Worth("gpu", None)], "gpu", "next device"),
        ("steer", HERE, [Worth("gpu", None, duty=0.0), Worth("cpu", None)], "cpu", "next device"),
        ("steer", HERE, [], "", "no other device"),
        ("steer", HERE, [Worth("gpu", None, duty=0.0)], "", "stopped by heat too"),
        ("auto", HERE, [Worth("gpu", 0.06, True)], "", "elsewhere heats more"),
        ("auto", HERE, [Worth("gpu", 0.06, True), Worth("cpu", 0.02, True)], "cpu", "cpu takes 0.02 J"),
        ("auto", HERE, [Worth("gpu", 0.01, False)], "", "cannot compare"),
        ("auto", HERE, [Worth("gpu", None)], "", "unknown for gpu"),
        ("auto", Worth("npu", None), [Worth("gpu", 0.01, True)], "", "unknown for npu"),
        ("auto", Worth("npu", 0.05), [Worth("gpu", 0.01)], "gpu", "declared"),
    ],
)
def test_where_work_for_a_hot_device_goes_and_why(
    on_hot: str, here: Worth, others: list[Worth], to: str, says: str
) -> None:
    chosen, reason = elsewhere(check_on_hot(on_hot), here, others)
    assert chosen == to
    assert says in reason


def test_an_unknown_choice_is_refused_and_decisions_are_told_in_a_line() -> None:
    with pytest.raises(OptionError, match="'run'"):
        check_on_hot("run")
    assert str(Decision("npu", "run")) == "npu: runs"
    assert str(Decision("npu", "steer", "84 C", "gpu")) == "npu: steered to gpu: 84 C"
    assert str(Decision("npu", "pace", "84 C", wait=0.25)) == "npu: paced, 0.25 s: 84 C"
