"""Limits, hysteresis, hard stops, a lost sensor, a device that others heat, and one that nothing is known of."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hetero.errors import OptionError
from hetero.thermal.control import Control
from hetero.thermal.drift import Drift
from hetero.thermal.laws import Budget
from hetero.thermal.limits import LIMITS, STATES, Limits
from hetero.thermal.profiles import PROFILES, profile_named
from hetero.thermal.readings import Reading

UNKNOWN = Reading(None, reason="it is not there any more")


def at(control: Control, celsius: float, seconds: int = 1, used: float = 1.0) -> float:
    for _ in range(seconds):
        control.step(Reading(celsius), used, 1.0)
    return control.grant.duty


@pytest.mark.parametrize(
    ("way", "states"),
    [
        ([70, 79.9, 80, 76, 75, 74.9], ["cool", "cool", "warn", "warn", "warn", "cool"]),
        ([84.9, 85, 83.5, 82.9, 80], ["warn", "hot", "hot", "warn", "warn"]),
        ([88, 86, 85, 84.9, 82], ["stop", "stop", "stop", "hot", "warn"]),
        ([95, 60], ["stop", "cool"]),
    ],
)
def test_each_state_is_left_at_a_lower_temperature_than_it_is_entered(way: list[float], states: list[str]) -> None:
    state, told = "cool", []
    for celsius in way:
        state = Limits().state(celsius, state)  # type: ignore[arg-type]
        told.append(state)
    assert told == states


def test_the_thresholds_are_those_of_the_first_plan() -> None:
    assert (LIMITS["npu"].warn, LIMITS["npu"].maximum, LIMITS["cpu"].maximum) == (80, 85, 90)


@given(
    st.floats(-40, 150),
    st.sampled_from(STATES),
    st.floats(50, 100),
    st.floats(0.1, 10),
    st.floats(0.1, 10),
    st.floats(0.1, 10),
)
def test_states_follow_any_thresholds(
    celsius: float, before: Any, resume: float, warn: float, maximum: float, stop: float
) -> None:
    limits = Limits(resume + warn, resume, resume + warn + maximum, resume + warn + maximum + stop)
    state = limits.state(celsius, before)
    assert (state == "stop") >= (celsius >= limits.stop)
    assert state in ("hot", "stop") or celsius < limits.maximum
    assert state != "cool" or celsius < limits.warn
    assert limits.ceiling(celsius, state) in (0.0, limits.at_maximum, 1.0)
    assert limits.ceiling(celsius, state) < 1 or celsius < limits.maximum


@pytest.mark.parametrize(
    "wrong",
    [
        {"warn": 90},
        {"resume": 81},
        {"stop": 84},
        {"maximum": float("nan")},
        {"at_maximum": 2},
        {"warn": "hot"},
        {"hottest": 3},
    ],
)
def test_thresholds_that_cannot_be_are_refused_with_a_fix(wrong: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        Limits().with_(wrong)


def test_a_maximum_that_moves_alone_takes_the_others_with_it() -> None:
    assert Limits().with_({"maximum": 75}) == Limits(70, 65, 75, 78)
    assert Limits().with_({"maximum": 82, "stop": 95}) == Limits(77, 72, 82, 95)
    assert Limits().below(115) == Limits()
    assert Limits().below(90).stop == 83


@pytest.mark.parametrize("law", ["budget", "tokens"])
def test_at_the_maximum_little_runs_and_at_the_stop_nothing_until_it_has_cooled(law: str) -> None:
    control = Control(Limits(), law)
    assert at(control, 60) == 1.0
    assert at(control, 85.0) <= 0.3
    assert at(control, 88.0) == 0.0
    assert at(control, 86.0) == 0.0
    assert control.grant.state == "stop"
    assert "88 C was reached" in control.grant.why
    assert at(control, 60.0, 60) > 0.9


@pytest.mark.parametrize("law", ["budget", "tokens"])
@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), st.floats(-40, 150)), min_size=1, max_size=60))
def test_no_way_of_temperatures_gets_work_past_a_hard_stop(law: str, way: list[float | None]) -> None:
    control = Control(Limits(), law)
    for celsius in way:
        grant = control.step(Reading(celsius, reason="" if celsius is not None else "gone"), control.grant.duty, 1.0)
        assert 0 <= grant.duty <= 1
        if celsius is not None and celsius >= 88:
            assert (grant.duty, grant.state) == (0.0, "stop")
        assert celsius is not None or grant.state != "cool"


@pytest.mark.parametrize("celsius", [81.0, 84.0, 86.0, 90.0])
def test_a_warm_device_whose_sensor_is_lost_keeps_half_at_most_and_its_state(celsius: float) -> None:
    control = Control(Limits())
    at(control, 70, 30)
    before = at(control, celsius, 5)
    state = control.grant.state
    for _ in range(100):
        grant = control.step(UNKNOWN, 1.0, 1.0)
        assert grant.duty <= min(before, 0.5)
        assert grant.state == state
    assert "it is not there any more" in grant.why


def test_a_cool_device_whose_sensor_is_lost_goes_on_and_is_not_called_cool() -> None:
    control = Control(Limits())
    at(control, 50, 30)
    grant = control.step(UNKNOWN, 1.0, 1.0)
    assert (grant.duty, grant.state) == (1.0, "unknown")


def test_a_device_that_others_heat_goes_on_since_resting_would_not_cool_it() -> None:
    control = Control(Limits(warn=80, resume=75, maximum=90, stop=95))
    celsius = 70.0
    for second in range(1500):
        used = float(second // 100 % 2)
        own = 4.0 * used
        celsius = 70.0 + own + (20.5 if second > 1100 else 0.0) * min(1.0, max(0, second - 1100) / 100)
        control.step(Reading(celsius), used, 1.0)
    assert isinstance(control.law, Budget)
    assert control.law.heating.self_heat < 10
    # The law alone, which keeps it below 90 C, would leave it nothing; it may work up to the stop.
    assert control.law.most_below(control.law.target)[0] < 0.1
    assert 0.5 < control.grant.duty < 1.0
    assert "others heat it" in control.grant.why
    assert control.step(Reading(95.5), 1.0, 1.0).duty == 0.0


@pytest.mark.parametrize("law", ["budget", "tokens"])
def test_below_its_stop_a_little_is_left_of_every_device_so_that_its_work_does_not_go_to_others(law: str) -> None:
    control = Control(Limits(), law)
    at(control, 60, 100)
    for _ in range(300):
        grant = control.step(Reading(87.9), 1.0, 1.0)
        assert 0.05 <= grant.duty <= 0.3
    assert grant.duty == 0.05
    assert grant.state == "hot"
    assert "a little is left of it below 88 C" in grant.why
    assert at(control, 88.0) == 0.0


def hot_from_the_start(control: Control, own: float, rest: float, seconds: int, most: float = 1.0) -> list[float]:
    """The duties of a device that others make so hot, and that heats itself by so much at full work, within seconds."""
    duties: list[float] = []
    warm = 0.0
    for _ in range(seconds):
        used = min(most, control.grant.duty) if duties else 0.0
        warm += (used - warm) / 6
        duties.append(control.step(Reading(rest + own * warm), used, 1.0).duty)
    return duties


def test_a_device_that_was_hot_before_it_did_anything_learns_that_others_heat_it() -> None:
    control = Control(LIMITS["cpu"])
    duties = hot_from_the_start(control, own=3.0, rest=90.5, seconds=900)
    assert max(duties[3:25]) <= 0.05  # it may have been hot from work that nobody has told of
    assert control.grant.duty > 0.6
    assert "others heat it" in control.grant.why
    assert control.grant.state == "hot"


def test_one_that_heats_itself_much_is_not_taken_for_one_that_others_heat() -> None:
    control = Control(Limits())
    duties = hot_from_the_start(control, own=40.0, rest=85.2, seconds=1800)
    assert sum(duties[-300:]) / 300 < 0.1


def test_a_stop_that_resting_does_not_end_ends_below_it_where_others_heat() -> None:
    control = Control(LIMITS["cpu"])
    assert at(control, 95.5, 1, used=0.0) == 0.0
    for _ in range(100):
        control.step(Reading(92.0), 0.0, 1.0)
    assert control.grant.state == "hot"
    assert control.grant.duty > 0
    assert at(control, 95.0, 1, used=0.1) == 0.0
    assert at(control, 93.5, 1, used=0.0) == 0.0


def test_a_device_without_a_sensor_is_guessed_at_from_its_calls_and_says_so() -> None:
    control = Control(Limits())
    nothing = Reading(None, reason="no sensor was found")
    assert control.step(nothing, 1.0, 1.0).duty == 1.0
    assert "too few calls" in control.grant.why
    for _ in range(60):
        control.drift.ran(0.010)
    assert "is not throttled" in control.step(nothing, 1.0, 1.0).why
    for _ in range(30):
        control.drift.ran(0.0145)
    for _ in range(60):
        grant = control.step(nothing, 1.0, 1.0)
    assert grant.duty == 0.5
    assert grant.state == "unknown"
    assert "may be throttled" in grant.why
    for _ in range(30):
        control.drift.ran(0.0102)
    for _ in range(60):
        grant = control.step(nothing, 1.0, 1.0)
    assert grant.duty == 1.0


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=200))
def test_whatever_times_come_drift_takes_half_at_most(times: list[float]) -> None:
    drift = Drift()
    for seconds in times:
        drift.ran(seconds)
        assert 0.5 <= drift.step(1.0) <= 1.0
    assert drift.explain()


def test_an_unknown_law_or_profile_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(OptionError, match="not known") as law:
        Control(Limits(), "magic")
    assert law.value.fix == "known: budget, tokens"
    with pytest.raises(OptionError) as profile:
        profile_named("gaming")
    assert "continuous_audio" in profile.value.fix


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_gives_thresholds_that_rise_for_every_kind(name: str) -> None:
    for kind in ("npu", "gpu", "cpu"):
        limits = PROFILES[name].limits_of(kind)
        assert limits.maximum <= LIMITS[kind].maximum
    assert PROFILES[name].power_mode in ("default", "powersaver", "balanced", "performance", "turbo")


def test_audio_stays_cooler_than_bursts() -> None:
    assert PROFILES["continuous_audio"].limits_of("npu").maximum < PROFILES["burst"].limits_of("npu").maximum
    assert PROFILES["battery"].limits_of("npu").maximum == 75
