"""The plant is physics: energy balances, stages answer in their time, sensors lag and step, kernels cap."""

from __future__ import annotations

import numpy as np
import pytest

from hetero.testing.thermal import builds
from hetero.testing.thermal.plant import CPU, DIE, GPU, NPU, SOC, Build, Floats, Plant
from hetero.testing.thermal.scenarios import drawn, named

BUILDS = [builds.RK3588, builds.RK3588_SEALED, builds.RK3588_BARE, builds.RK3576, builds.RK3568, builds.PHOENIX]


def duty(npu: float = 0.0, gpu: float = 0.0, cpu: float = 0.0) -> Floats:
    return np.array([[npu], [gpu], [cpu]])


@pytest.mark.parametrize("build", BUILDS, ids=lambda build: build.name)
def test_at_rest_each_watt_is_worth_the_resistance(build: Build) -> None:
    plant = Plant([build.with_(cap_at=np.inf, fights_at=np.inf)], 20.0)
    resistance = build.die_resistance + build.board_resistance
    assert plant.state[0, DIE] == pytest.approx(20 + resistance * build.idle_watts)
    plant.advance(duty(1.0), 12 * build.board_seconds)
    watts = build.idle_watts + build.npu_watts + build.host_watts
    assert plant.temperatures[SOC, 0] == pytest.approx(20 + resistance * watts, rel=1e-3)
    assert plant.temperatures[NPU, 0] - plant.temperatures[SOC, 0] == pytest.approx(
        build.hotspots[0] * build.npu_watts, rel=1e-3
    )


def test_the_die_answers_in_seconds_and_the_board_in_minutes() -> None:
    build = builds.RK3588
    plant = Plant([build], 20.0)
    start = plant.temperatures[SOC, 0]
    plant.advance(duty(1.0), 20.0)
    quick = plant.temperatures[SOC, 0] - start
    own = build.npu_watts + build.host_watts
    assert build.die_resistance * own * 0.9 < quick < build.die_resistance * own + 0.3 * build.board_resistance * own


def test_each_source_has_its_own_hotspot_on_one_thermal_mass() -> None:
    plant = Plant([builds.RK3588], 25.0)
    plant.advance(duty(gpu=1.0), 30.0)
    npu, gpu, _, soc = plant.temperatures[:, 0]
    assert gpu > npu == pytest.approx(soc)
    cool = Plant([builds.RK3588], 25.0)
    cool.advance(duty(), 30.0)
    assert npu > cool.temperatures[NPU, 0] + 3


def test_sensors_tell_whole_steps_below_what_is_and_lag() -> None:
    plant = Plant([builds.RK3588.with_(sensor_noise=0.0)], 25.0)
    plant.advance(duty(1.0), 3.0)
    reading, real = plant.readings[NPU, 0], plant.temperatures[NPU, 0]
    assert reading < real
    assert (reading / 0.923) == pytest.approx(round(reading / 0.923))


def test_the_kernel_caps_the_clock_from_85_and_lifts_it_5_below() -> None:
    plant = Plant([builds.RK3588_BARE], 40.0)
    plant.advance(duty(1.0), 600.0)
    assert plant.capped[0]
    before = plant.items[0]
    plant.advance(duty(1.0), 10.0)
    assert plant.items[0] - before == pytest.approx(0.8 * 100 * 10)
    while plant.temperatures[NPU, 0] > 81:
        plant.advance(duty(), 0.5)
    assert plant.capped[0]
    plant.advance(duty(), 60.0)
    assert not plant.capped[0]


def test_a_lower_clock_takes_less_than_its_share_of_the_power() -> None:
    build = builds.RK3588
    assert build.power_at(1000) == 1.0
    assert build.power_at(800) == pytest.approx(0.8 * (0.75 / 0.85) ** 2)
    assert build.power_at(700) / 0.7 == pytest.approx(build.power_at(300) / 0.3)


def test_a_fan_that_stops_and_other_work_heat_the_machine() -> None:
    plant = Plant([builds.RK3588], 25.0)
    before = plant.temperatures[SOC, 0]
    plant.rebuild(0, builds.RK3588.with_(board_resistance=12.0))
    plant.background = np.array([[0.0], [2.0]])
    plant.advance(duty(), 900.0)
    assert plant.temperatures[SOC, 0] == pytest.approx(25 + 14 * 4, rel=0.02)
    assert plant.temperatures[SOC, 0] > before + 35


def test_many_machines_at_once_are_each_like_one_alone() -> None:
    together = Plant(BUILDS, 30.0)
    together.advance(np.full((3, len(BUILDS)), [[0.7], [0.1], [0.2]]), 200.0)
    for place, build in enumerate(BUILDS):
        alone = Plant([build], 30.0)
        alone.advance(duty(0.7, 0.1, 0.2), 200.0)
        assert together.temperatures[:, place] == pytest.approx(alone.temperatures[:, 0])
        assert together.items[place] == pytest.approx(alone.items[0])


def test_clocks_that_change_between_steps_change_the_power() -> None:
    plant, low = Plant([builds.RK3588_SEALED], 25.0), Plant([builds.RK3588_SEALED], 25.0)
    low.clock[0] = 500.0
    for each in (plant, low):
        each.advance(duty(1.0), 600.0)
    assert low.temperatures[NPU, 0] < plant.temperatures[NPU, 0] - 10
    assert low.items[0] == pytest.approx(plant.items[0] / 2)


def test_scenarios_are_of_one_length_and_those_by_chance_are_the_same_each_time() -> None:
    cases = named(600)
    assert len(cases) >= 8
    assert {len(each) for case in cases for each in (case.ambient, case.gpu, case.cpu, case.demand)} == {600}
    assert len({case.name for case in cases}) == len(cases)
    one, two = drawn(4, seed=7, seconds=60), drawn(4, seed=7, seconds=60)
    assert [case.build for case in one] == [case.build for case in two]
    assert drawn(1, seed=8, seconds=60)[0].build != one[0].build
    assert cases[5].build_at(599).board_resistance == 4.0


@pytest.mark.parametrize("part", [NPU, GPU, CPU])
def test_without_work_nothing_but_the_air_changes_anything(part: int) -> None:
    plant = Plant([builds.RK3568], 33.0)
    before = plant.temperatures[part, 0]
    plant.advance(duty(), 300.0)
    assert plant.temperatures[part, 0] == pytest.approx(before)
    assert plant.items[0] == 0
