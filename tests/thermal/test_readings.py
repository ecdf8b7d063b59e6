"""No fault of a sensor is ever taken for a cool device, and none raises."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hetero.thermal.readings import HELD, Belief, Reading

STEP = 0.923


def steady(belief: Belief, celsius: float, seconds: int = 20, start: float = 0.0, load: float = 1.0) -> float:
    """Says the same with the least of movement, as real sensors do; gives the time after it."""
    for second in range(seconds):
        belief.take(start + second, celsius + (STEP if second % 7 == 3 else 0.0), "", load)
    return start + seconds


FAULTS = {
    "jumps down": [(20.0, "")],
    "jumps far up": [(149.0, "")],
    "is gone": [(None, "it is not there any more")],
    "may not be read any more": [(None, "this user may not read it")],
    "holds garbage": [(None, "it holds 'x', no number")],
    "reads zero": [(None, "it reads 0")],
    "flickers between gone and cold": [(None, "gone"), (20.0, "")],
    "jumps to and fro": [(20.0, ""), (82.0, "")],
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("hot", [60.0, 75.0, 82.0, 86.0, 95.0])
@pytest.mark.parametrize("length", [1, 2, 3, 5])
def test_a_hot_device_never_looks_cool_because_of_a_fault(fault: str, hot: float, length: int) -> None:
    belief = Belief()
    now = steady(belief, hot)
    for second in range(length):
        values = FAULTS[fault]
        celsius, problem = values[second % len(values)]
        told, why = belief.take(now + second, celsius, problem, 1.0)
        # A die cools by some degrees a second when all work ends, so that much of a fault may be believed.
        assert told is None or told >= hot - 18
        assert (told is not None) or why
    now = steady(belief, hot, 40, now + length)
    assert belief.take(now, hot, "", 1.0) == (hot, "")


@pytest.mark.parametrize("seconds", [0.5, 1.0, 2.0, HELD])
def test_the_last_value_stands_in_for_a_moment_and_says_so(seconds: float) -> None:
    belief = Belief()
    belief.take(0.0, 70.0)
    assert belief.take(seconds, None, "busy") == (70.0, "busy")
    assert belief.take(HELD + 0.1, None, "busy") == (None, "busy")


def test_a_jump_that_lasts_is_believed_when_a_die_could_have_done_it() -> None:
    belief = Belief()
    belief.take(0.0, 80.0)
    believed = [second for second in range(1, 30) if belief.take(float(second), 20.0)[0] == 20.0]
    assert believed
    assert 12 <= believed[0] <= 20


def test_a_machine_that_slept_may_come_back_cool_at_once() -> None:
    belief = Belief()
    steady(belief, 84.0)
    assert belief.take(4000.0, 31.0) == (31.0, "")


@pytest.mark.parametrize("rise", [1.0, 3.0, 8.0, 15.0])
def test_real_heat_is_believed_at_once(rise: float) -> None:
    belief = Belief()
    now = steady(belief, 50.0, 5)
    for second in range(5):
        celsius = 50.0 + rise * (second + 1)
        assert belief.take(now + second, celsius) == (celsius, "")


def test_a_sensor_that_stands_still_while_the_load_moves_is_stuck_until_it_moves() -> None:
    belief = Belief()
    told = [belief.take(float(second), 61.0, "", float(second // 60 % 2)) for second in range(200)]
    assert told[50] == (61.0, "")
    assert told[-1][0] is None
    assert "stuck" in told[-1][1]
    assert belief.take(200.0, None, "gone")[0] is None
    assert belief.take(201.0, 62.0, "", 1.0) == (62.0, "")


@pytest.mark.parametrize("load", [0.0, 0.3, 1.0])
def test_a_sensor_that_stands_still_under_a_steady_load_is_believed(load: float) -> None:
    belief = Belief()
    assert all(belief.take(float(second), 61.0, "", load) == (61.0, "") for second in range(900))


def test_quick_bursts_are_no_reason_to_call_a_sensor_stuck() -> None:
    belief = Belief()
    assert all(belief.take(float(s), 61.0, "", float(s % 4 == 0))[0] == 61.0 for s in range(900))


def test_the_resolution_is_the_least_step_that_was_seen() -> None:
    belief = Belief()
    for second, celsius in enumerate([50.0, 50.0, 52.5, 52.0, 52.0]):
        belief.take(float(second), celsius)
    assert belief.resolution == pytest.approx(0.5)


said = st.one_of(st.none(), st.floats(-40, 150, allow_nan=False))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 5), said, st.floats(0, 1)), max_size=80))
def test_whatever_comes_nothing_raises_and_what_is_believed_was_said(
    ticks: list[tuple[float, float | None, float]],
) -> None:
    belief, now, before = Belief(), 0.0, set()
    for passed, celsius, load in ticks:
        now += passed
        told, why = belief.take(now, celsius, "" if celsius is not None else "gone", load)
        if celsius is not None:
            before.add(celsius)
        assert told is None or told in before
        assert told is not None or why
        assert told is None or math.isfinite(told)


@settings(max_examples=300, deadline=None)
@given(st.floats(70, 95), st.lists(st.one_of(st.none(), st.floats(-40, 150, allow_nan=False)), min_size=1, max_size=5))
def test_no_five_seconds_of_nonsense_make_a_hot_die_cool(hot: float, nonsense: list[float | None]) -> None:
    belief = Belief()
    now = steady(belief, hot)
    lowest = hot
    for second, celsius in enumerate(nonsense):
        told, _ = belief.take(now + second, celsius, "" if celsius is not None else "gone", 1.0)
        lowest = min(lowest, told if told is not None else hot)
    # A die cools by some degrees a second when all load ends: that much may be believed, each second anew.
    assert lowest >= hot - len(nonsense) * 18 - 6


@pytest.mark.parametrize(
    ("reading", "text"),
    [
        (Reading(None, reason="gone"), "unknown: gone"),
        (Reading(61.23, source="npu-thermal"), "61.2 C (npu-thermal)"),
        (Reading(61.23, direct=False, source="soc-thermal"), "61.2 C (soc-thermal, a proxy)"),
        (Reading(61.23, 2.0, source="npu-thermal", reason="busy"), "61.2 C (npu-thermal, 2 s ago: busy)"),
    ],
)
def test_a_reading_says_what_it_is(reading: Reading, text: str) -> None:
    assert str(reading) == text
    assert reading.known is (reading.celsius is not None)
