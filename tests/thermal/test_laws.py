"""The laws keep a device below its limit, learn what heats it, and do not wind up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hetero.testing.thermal import builds
from hetero.testing.thermal.plant import Build, Plant
from hetero.testing.thermal.scenarios import scenario
from hetero.testing.thermal.strategies import STRATEGIES, Governed, Hysteresis, Nothing, play
from hetero.thermal.heating import Heating
from hetero.thermal.laws import Budget, Law, Tokens

SHORT = 900


@pytest.mark.parametrize("law", ["budget", "tokens"])
@pytest.mark.parametrize(
    "build", [builds.RK3588, builds.RK3588_SEALED, builds.RK3588_BARE, builds.RK3576], ids=lambda build: build.name
)
@pytest.mark.parametrize("ambient", [30.0, 42.0])
def test_a_saturated_npu_stays_below_its_limit_without_oscillating(law: str, build: Build, ambient: float) -> None:
    case = scenario("saturated", build, ambient, seconds=SHORT)
    (outcome,) = play([case], lambda each: Governed(each, law, "pace"))
    # The simpler law has no distance of its own making: it may touch the limit for a second.
    assert outcome.highest < case.limits.maximum + (0.2 if law == "tokens" else 0.0)
    assert outcome.hot_seconds <= 1
    late = outcome.duties[SHORT // 2 :]
    assert np.abs(np.diff(late)).max() <= 0.15
    assert late.std() < 0.12


def test_ours_does_more_than_hysteresis_without_its_heat() -> None:
    case = scenario("bare", builds.RK3588_BARE, 30.0, seconds=SHORT)
    ours, hysteresis, nothing = (play([case], make)[0] for make in (Governed, Hysteresis, Nothing))
    assert ours.hot_seconds == 0
    assert hysteresis.hot_seconds > 60
    assert nothing.hot_seconds > 300
    tokens = play([case], lambda each: Governed(each, "tokens"))[0]
    assert ours.items > 1.01 * tokens.items


def test_a_cool_device_is_never_held_back() -> None:
    case = scenario("cool", builds.RK3588, 22.0, seconds=SHORT)
    for name in ("tokens", "ours", "ours, root"):
        (outcome,) = play([case], STRATEGIES[name])
        assert outcome.duties.min() == 1.0, name
        assert outcome.items == 100 * SHORT


def test_a_lower_clock_does_more_than_pauses_where_it_lowers_the_voltage() -> None:
    case = scenario("bare", builds.RK3588_BARE, 25.0, seconds=SHORT)
    pauses, clock = (play([case], STRATEGIES[name])[0] for name in ("ours", "ours, root"))
    assert clock.items > 1.08 * pauses.items
    assert clock.highest < case.limits.maximum


def test_work_that_comes_without_notice_is_met_within_seconds() -> None:
    cpu = np.zeros(SHORT)
    cpu[600:] = 1.5
    case = scenario("compile", builds.RK3588_SEALED, 36.0, cpu=cpu, seconds=SHORT)
    (outcome,) = play([case], Governed)
    assert outcome.highest < case.limits.maximum + 1
    assert outcome.hot_seconds <= 6
    assert outcome.temperatures[700:].max() < case.limits.maximum


def test_the_device_with_more_items_a_joule_gets_the_work_that_heat_takes_away() -> None:
    good, bad = (
        scenario("gpu", builds.RK3588_SEALED.with_(gpu_rate=rate), 42.0, seconds=SHORT) for rate in (85.0, 30.0)
    )
    steered, stays = play([good], Governed)[0], play([bad], Governed)[0]
    paced, pushed = (
        play([each], lambda e, o=on: Governed(e, on_hot=o))[0] for each, on in ((good, "pace"), (bad, "steer"))
    )
    assert steered.items > 1.05 * paced.items
    assert stays.items > 1.02 * pushed.items
    assert max(each.highest for each in (steered, stays, paced, pushed)) < 85.5


def drive(law: Law, plant: Plant, seconds: int, demand: float = 1.0) -> list[float]:
    duties, used = [], 0.0
    for _ in range(seconds):
        duty = law.step(float(plant.readings[0, 0]), used, 1.0, 0.923)
        used = min(duty, demand)
        plant.advance(np.array([[used], [0.0], [0.0]]), 1.0)
        duties.append(duty)
    return duties


@pytest.mark.parametrize("make", [Budget, Tokens])
def test_a_long_idle_time_winds_nothing_up(make: Callable[[float], Law]) -> None:
    law, plant = make(85.0), Plant([builds.RK3588_BARE], 32.0)
    drive(law, plant, 600)
    drive(law, plant, 900, demand=0.1)
    highest = max(float(plant.temperatures[0, 0]) for _ in range(400) if drive(law, plant, 1))
    assert highest < 85.3


def test_duty_that_nobody_takes_does_not_grow() -> None:
    law = Tokens(85.0)
    for _ in range(120):
        before = law.step(84.0, 1.0, 1.0, 0.0)
    assert before < 0.7
    for _ in range(400):
        unused = law.step(81.0, 0.0, 1.0, 0.0)
    assert unused < before + 0.2
    for _ in range(400):
        taken = law.step(81.0, 1.0, 1.0, 0.0)
    assert taken == 1.0


def test_the_target_keeps_a_greater_distance_where_heat_came_without_notice_and_forgets_it() -> None:
    law = Budget(85.0)
    for second in range(900):
        law.step(70.0 + (second % 5 == 0), 0.5, 1.0, 0.923)
    calm = law.target
    for second in range(30):
        law.step(70.0 + min(5.0, second), 0.5, 1.0, 0.923)
    assert calm > 84.3
    assert law.target < calm - 0.5
    for second in range(3000):
        law.step(75.0 + (second % 5 == 0), 0.5, 1.0, 0.923)
    assert law.target == pytest.approx(calm, abs=0.3)


@pytest.mark.parametrize("seed", range(12))
def test_a_device_that_always_works_teaches_nothing_that_cannot_be(seed: int) -> None:
    plant, heating = Plant([builds.RK3588.with_(board_resistance=4.0)], 42.0, seed), Heating()
    for second in range(200):
        heating.learn(float(plant.readings[0, 0]), float(second > 0), 1.0)
        plant.advance(np.array([[1.0], [0.0], [0.0]]), 1.0)
        assert heating.fast < 25
        assert 20 < heating.rest < 75


@pytest.mark.parametrize("build", [builds.RK3588_SEALED, builds.RK3588_BARE, builds.PHOENIX], ids=lambda b: b.name)
def test_what_a_device_heats_itself_by_is_learned(build: Build) -> None:
    plant, heating, used = Plant([build], 25.0, seed=3), Heating(), 0.0
    for second in range(2400):
        heating.learn(float(plant.readings[0, 0]), used, 1.0)
        used = float(second // 150 % 2)
        plant.advance(np.array([[used], [0.0], [0.0]]), 1.0)
    resistance = build.die_resistance + build.board_resistance
    own = resistance * (build.npu_watts + build.host_watts) + (
        build.hotspots[0] * build.npu_watts if build.npu_sensor else 0
    )
    assert heating.confident
    # What takes longer than a turn of work is taken for the air's doing, in part.
    assert heating.self_heat == pytest.approx(own, rel=0.5)
    assert (heating.self_heat < 10) is (own < 10)


def test_nothing_is_learned_of_a_device_that_does_nothing() -> None:
    heating = Heating()
    before = heating.self_heat
    for second in range(300):
        heating.learn(40.0 + second / 20, 0.0, 1.0)
    assert heating.self_heat == pytest.approx(before)
    assert not heating.confident
    assert heating.forecast(0.0, 10.0) == pytest.approx(55.0 + 0.5, abs=1.0)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-40, 150), st.floats(0, 1), st.floats(0.1, 30)), min_size=1, max_size=60),
    st.sampled_from([Budget, Tokens]),
)
def test_whatever_temperatures_come_a_duty_comes_out(
    ticks: list[tuple[float, float, float]], make: Callable[[float], Law]
) -> None:
    law = make(85.0)
    for celsius, used, seconds in ticks:
        assert 0 <= law.step(celsius, used, seconds, 0.9) <= 1
        assert law.explain()
    if isinstance(law, Budget):
        assert 0.3 <= law.heating.fast <= 60
        assert 0.1 <= round(law.heating.slow, 6) <= 150
        assert law.limit - 1.4 <= law.target < law.limit


@settings(max_examples=25, deadline=None)
@given(
    resistance=st.floats(5, 20),
    board_seconds=st.floats(60, 260),
    die_seconds=st.floats(3, 10),
    watts=st.floats(2, 4),
    share=st.floats(0.35, 0.95),
)
def test_machines_of_many_constants_stay_below_the_limit_in_steady_weather(
    resistance: float, board_seconds: float, die_seconds: float, watts: float, share: float
) -> None:
    build = builds.RK3588.with_(
        board_resistance=resistance, board_seconds=board_seconds, die_seconds=die_seconds, npu_watts=watts
    )
    whole = resistance + build.die_resistance
    ambient = 85 - whole * build.idle_watts - share * (whole * (watts + build.host_watts) + 0.6 * watts)
    (outcome,) = play([scenario("drawn", build, ambient, seconds=700)], Governed)
    assert outcome.highest < 85.4
    assert outcome.hot_seconds <= 3


def test_the_bound_is_above_whoever_stays_below_the_limit(tmp_path: Path) -> None:
    pytest.importorskip("scipy", reason="the bound is a linear program, solved by scipy")
    from hetero.testing.thermal.bound import most_items

    for build, ambient in ((builds.RK3588_BARE, 28.0), (builds.RK3588_SEALED, 40.0)):
        case = scenario("bound", build.with_(cap_at=float("inf")), ambient, seconds=600)
        bound = most_items(case, 5.0)
        for name in ("tokens", "ours"):
            (outcome,) = play([case], STRATEGIES[name])
            assert outcome.highest < 85.05
            assert outcome.items < bound
        assert play([case], Nothing)[0].items > bound
        assert play([case], Governed)[0].items > 0.9 * bound
        assert most_items(scenario("cool", build, -20.0, seconds=600), 5.0) == pytest.approx(60_000)
