"""The governor on whole machines made of files: it keeps them below their limits through faults, and tells why."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hetero.backend import Device, Host
from hetero.errors import OptionError
from hetero.testing.thermal.machine import ThermalMachine
from hetero.thermal import sampling
from hetero.thermal.governor import SILENT, Governor
from hetero.thermal.sampling import Sampler
from hetero.thermal.steering import Worth
from tests.thermal.conftest import CPU, GPU, NPU, Faults

Machines = Callable[..., ThermalMachine]


class Load:
    """A queue that is never empty: each second the NPU works for as much as it may, and its calls are told."""

    def __init__(self, machine: ThermalMachine, governor: Governor, demand: float = 1.0) -> None:
        self.machine = machine
        self.governor = governor
        self.demand = demand
        self.highest = 0.0

    def run(self, seconds: int) -> float:
        """Gives the highest temperature of the time."""
        highest = 0.0
        for _ in range(seconds):
            self.second()
            highest = max(highest, self.machine.celsius)
        return highest

    def second(self) -> None:
        share = min(self.demand, self.governor.headroom("npu"))
        self.machine.duty[0] = share
        lanes = self.governor.pace("npu").lanes
        for _ in range(lanes if share else 0):
            self.governor.began("npu")
        half = round(share * 2) / 2
        self.machine.advance(half)
        for _ in range(lanes if share else 0):
            self.governor.ended("npu", half)
        self.machine.advance(1.0 - half)
        self.governor.tick()


def governor_of(host: Host, machine: ThermalMachine, **options: Any) -> Governor:
    return Governor(host, [NPU, GPU, CPU], clock=machine.clock, **options)


@pytest.mark.usefixtures("untraced")
@pytest.mark.parametrize(("board", "ambient"), [("rk3588", 52.0), ("rk3576", 52.0), ("rk3568", 36.0)])
@pytest.mark.parametrize("law", ["budget", "tokens"])
def test_a_board_whose_kernel_tells_the_load_stays_below_its_limit(
    machine: Machines, host: Host, board: str, ambient: float, law: str
) -> None:
    box = machine(board, ambient=ambient)
    governor = governor_of(host, box, law=law)
    assert Load(box, governor).run(400) < 85.3
    sample = governor.samples["npu"]
    assert sample.grant.state == "warn"
    assert 0.1 < sample.grant.duty < 1
    assert [(event.before, event.after) for event in governor.events if event.device == "npu"][-1][1] == "warn"


@pytest.mark.usefixtures("untraced")
def test_calls_are_enough_where_the_kernel_tells_no_load(machine: Machines, host: Host) -> None:
    box = machine("rk3588-mainline", ambient=54.0)
    governor = governor_of(host, box)
    load = Load(box, governor)
    load.run(200)
    assert 80 < load.run(200) < 85.3


def test_a_laptop_goes_by_the_package_and_its_higher_limit(machine: Machines, host: Host) -> None:
    box = machine("phoenix", ambient=30.0)
    box.other_work(cpu=17.0)
    governor = governor_of(host, box)
    Load(box, governor).run(60)
    sample = governor.samples["npu"]
    assert sample.reading.source.startswith("k10temp")
    assert not sample.reading.direct
    assert governor.limits("npu").maximum == 90
    assert governor.limits("gpu").maximum == 85


def test_a_machine_without_sensors_is_unknown_and_held_back_by_nothing(machine: Machines, host: Host) -> None:
    box = machine("none")
    governor = governor_of(host, box)
    Load(box, governor).run(5)
    sample = governor.samples["npu"]
    assert sample.grant.state == "unknown"
    assert sample.reading.celsius is None
    assert "no sensor was found" in sample.reading.reason
    assert governor.headroom("npu") == 1.0
    assert governor.admits("npu")


def test_a_simulated_device_has_no_temperature_of_this_machine(machine: Machines, host: Host) -> None:
    box = machine("rk3588", ambient=80.0)
    governor = Governor(host, [Device("npu", "npu", simulated=True)], clock=box.clock)
    governor.tick()
    assert governor.samples["npu"].reading.reason == "the device is simulated"
    assert governor.admits("npu")


FAULTS: dict[str, Any] = {
    "may not be read": PermissionError(errno.EACCES, "Permission denied"),
    "no reading": OSError(errno.EAGAIN, "Resource temporarily unavailable"),
    "broken bus": OSError(errno.EIO, "Input/output error"),
    "gone": FileNotFoundError(errno.ENOENT, "No such file or directory"),
    "garbage": "garbage",
    "zero": "0",
    "cold": "21000",
    "far too hot": "149000",
    "empty": "",
}


@pytest.mark.usefixtures("untraced")
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("length", [1, 4, 20])
@pytest.mark.parametrize("every", ["npu", "all"])
def test_a_fault_on_a_hot_board_raises_nothing_and_makes_nothing_hot(
    machine: Machines, host: Host, faults: Faults, fault: str, length: int, every: str
) -> None:
    box = machine("rk3588", ambient=62.0)
    governor = governor_of(host, box)
    load = Load(box, governor)
    load.run(60)
    assert governor.samples["npu"].grant.state == "warn"
    told = {
        name: file for name, (file, _) in box.sysroot.temperatures.items() if every == "all" or name == "npu-thermal"
    }
    highest = 0.0
    for _ in range(length):
        if isinstance(FAULTS[fault], OSError):
            faults.errors = {str(file): FAULTS[fault] for file in told.values()}
        load.second()
        if isinstance(FAULTS[fault], str):
            for file in told.values():
                file.write_text(FAULTS[fault])
            governor.tick()
        highest = max(highest, box.celsius)
        assert governor.samples["npu"].grant.state != "cool"
    faults.errors = {}
    highest = max(highest, load.run(60))
    assert highest < 86.5
    if fault != "far too hot":
        assert governor.samples["npu"].reading.source == "npu-thermal"


@pytest.mark.usefixtures("untraced")
def test_a_board_whose_own_sensor_is_lost_goes_by_its_neighbour_and_says_so(
    machine: Machines, host: Host, faults: Faults
) -> None:
    box = machine("rk3588", ambient=58.0)
    governor = governor_of(host, box)
    load = Load(box, governor)
    load.run(100)
    faults.errors[str(box.sysroot.temperatures["npu-thermal"][0])] = PermissionError(errno.EACCES, "Permission denied")
    load.run(10)
    reading = governor.samples["npu"].reading
    assert reading.source in ("soc-thermal", "center-thermal")
    assert not reading.direct
    said = {sensor.name: text for sensor, text in governor.voices("npu")}
    assert said["npu-thermal"] == "this user may not read it"
    assert "this one counts: a proxy" in said[reading.source]
    assert load.run(200) < 85.2


def test_a_sensor_that_falls_for_good_while_its_neighbours_stay_hot_is_not_believed_again(
    machine: Machines, host: Host, faults: Faults
) -> None:
    box = machine("rk3588", ambient=58.0)
    governor = governor_of(host, box)
    load = Load(box, governor)
    load.run(100)
    faults.degrees[str(box.sysroot.temperatures["npu-thermal"][0])] = -60.0
    load.run(60)
    reading = governor.samples["npu"].reading
    assert reading.source != "npu-thermal"
    assert governor.samples["npu"].grant.state != "cool"
    said = {sensor.name: text for sensor, text in governor.voices("npu")}
    assert said["npu-thermal"].startswith("it fell from 8")


def test_a_hot_board_whose_sensors_all_told_less_is_not_cool_once_they_tell_the_truth(
    machine: Machines, host: Host, faults: Faults
) -> None:
    box = machine("rk3588", ambient=58.0)
    governor = governor_of(host, box)
    load = Load(box, governor)
    load.run(100)
    for label in box.sysroot.temperatures:
        faults.degrees[str(box.sysroot.temperatures[label][0])] = -60.0
    load.run(60)
    faults.degrees.clear()
    for _ in range(30):
        load.run(1)
        assert governor.samples["npu"].grant.state != "cool"


def test_a_sensor_that_comes_back_under_another_number_is_found_again(machine: Machines, host: Host) -> None:
    box = machine("strix", ambient=35.0)
    governor = governor_of(host, box)
    governor.tick()
    (folder,) = [name.parent for label, (name, _) in box.sysroot.temperatures.items() if label == "amdxdna"]
    folder.rename(folder.with_name("hwmon77"))
    box.sysroot.temperatures.pop("amdxdna")
    for _ in range(4):
        box.advance(1.0)
        governor.tick()
    assert governor.samples["npu"].reading.source == "amdxdna"


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from([*FAULTS, "well"]), min_size=1, max_size=12), st.integers(0, 10_000))
def test_no_story_of_faults_raises_or_lets_a_hot_board_look_cool(
    tmp_path_factory: pytest.TempPathFactory, story: list[str], seed: int
) -> None:
    folder = tmp_path_factory.mktemp("story")
    box = ThermalMachine(folder / "root", "rk3588", ambient=62.0, seed=seed)
    governor = Governor(Host(environ={}, sysroot=folder / "root", cache=folder / "cache"), [NPU], clock=box.clock)
    file = box.sysroot.temperatures["npu-thermal"][0]
    others = [other for name, (other, _) in box.sysroot.temperatures.items() if name != "npu-thermal"]
    box.duty[0] = 1.0
    for _ in range(60):
        box.advance(1.0)
        governor.tick()
    for fault in story:
        box.advance(1.0)
        for other in others:
            other.unlink()
        if isinstance(FAULTS.get(fault), str):
            file.write_text(FAULTS[fault])
        elif fault != "well":
            file.unlink()
        sample = governor.tick()["npu"]
        assert 0 <= governor.headroom("npu") <= 1
        assert sample.reading.celsius is not None or sample.reading.reason
        assert sample.grant.state != "cool"


def test_a_deadline_overrides_pacing_and_never_a_stop(machine: Machines, host: Host) -> None:
    box = machine("rk3588", ambient=58.0)
    governor = governor_of(host, box)
    load = Load(box, governor)
    load.run(150)
    assert governor.headroom("npu") < 1
    for _ in range(3):
        governor.ended("npu", 3.0)
    assert not governor.admits("npu")
    assert governor.admits("npu", urgent=True)
    paced, pressed = governor.decide("npu"), governor.decide("npu", urgent=True)
    assert (paced.action, pressed.action) == ("pace", "run")
    assert paced.wait > 0
    assert "a deadline presses" in pressed.reason
    for _ in range(12):
        box.advance(1.0)
        box.sysroot.temperatures["npu-thermal"][0].write_text("91000")
        governor.tick()
    assert not governor.admits("npu", urgent=True)
    stopped = governor.decide("npu", urgent=True)
    assert stopped.action == "stop"
    assert "88 C was reached" in stopped.reason
    away = governor.decide("npu", [Worth("cpu", None)], urgent=True)
    assert (away.action, away.to) == ("steer", "cpu")


@pytest.mark.parametrize(
    ("on_hot", "joules", "other", "action"),
    [
        ("pace", 0.03, 0.01, "pace"),
        ("steer", None, None, "steer"),
        ("auto", 0.03, 0.02, "steer"),
        ("auto", 0.03, 0.05, "pace"),
        ("auto", None, 0.05, "pace"),
    ],
)
def test_every_choice_made_for_heat_is_told(
    machine: Machines, host: Host, on_hot: str, joules: float | None, other: float | None, action: str
) -> None:
    box = machine("rk3588", ambient=58.0)
    governor = governor_of(host, box, on_hot=on_hot)
    assert governor.decide("npu").reason == ""
    Load(box, governor).run(150)
    governor.ended("npu", 9.0)
    decision = governor.decide("npu", [Worth("cpu", other, True)], joules=joules, measured=True)
    assert decision.action == action
    assert f"{governor.samples['npu'].reading}" in decision.reason
    assert "npu-thermal" in decision.reason
    assert ("steered to cpu" if action == "steer" else "paced") in str(decision)
    if joules is None and on_hot == "auto":
        assert "cannot compare" in decision.reason


def test_a_sampler_that_hangs_leaves_a_warm_device_half_at_most(machine: Machines, host: Host) -> None:
    box = machine("rk3588", ambient=58.0)
    governor = governor_of(host, box)
    Load(box, governor).run(120)
    assert governor.check_alive()
    governor.pace("npu").grant(1.0)
    box.plant.seconds += SILENT + 1
    assert not governor.check_alive()
    assert governor.headroom("npu") <= 0.5


def test_profiles_and_users_set_thresholds(machine: Machines, host: Host) -> None:
    box = machine("rk3588")
    governor = governor_of(host, box, profile="battery", limits={"cpu": {"maximum": 70}, "npu": {"stop": 90}})
    governor.tick()
    assert governor.limits("npu").maximum == 75
    assert governor.limits("npu").stop == 90
    assert governor.limits("cpu").maximum == 70
    assert governor.on_hot == "auto"
    assert governor_of(host, box, limits={"cpu": {"warn": 88}}).limits("cpu").warn == 88
    assert governor_of(host, box, profile="burst").on_hot == "steer"
    assert governor_of(host, box, profile="burst", on_hot="pace").on_hot == "pace"


@pytest.mark.parametrize(
    "options",
    [
        {"profile": "x"},
        {"on_hot": "x"},
        {"law": "x"},
        {"limits": {"tpu": {"maximum": 80}}},
        {"limits": {"npu": {"x": 1}}},
    ],
)
def test_what_is_not_known_is_refused(machine: Machines, host: Host, options: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        governor_of(host, machine("rk3588"), **options)


def test_devices_that_are_not_watched_are_free_and_not_to_be_asked_for(machine: Machines, host: Host) -> None:
    governor = governor_of(host, machine("rk3588"))
    assert governor.admits("xrt")
    assert governor.headroom("xrt") == 1
    governor.began("xrt")
    governor.ended("xrt", 1.0)
    assert governor.decide("xrt").action == "run"
    with pytest.raises(OptionError, match="not watched"):
        governor.pace("xrt")


def test_the_sampler_ticks_once_a_second_and_makes_up_for_nothing(machine: Machines, host: Host) -> None:
    box = machine("rk3588")
    governor = governor_of(host, box)
    sampler = Sampler(governor, clock=box.clock).start()
    assert sampler.run_due() == 1.0
    assert sampler.run_due() == 1.0
    box.advance(0.5)
    assert sampler.run_due() == 0.5
    box.advance(60.0)
    sampler.run_due()
    assert sampler.ticks == 2
    sampler.close()


def test_the_sampler_goes_on_when_a_tick_fails(machine: Machines, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    box = machine("rk3588")
    governor = governor_of(host, box)
    monkeypatch.setattr(governor, "tick", lambda: 1 / 0)
    monkeypatch.setattr(sampling._log, "exception", lambda *_: None)
    sampler = Sampler(governor, clock=box.clock)
    sampler.run_due()
    box.advance(1.0)
    sampler.run_due()
    assert sampler.ticks == 2


def test_the_sampler_has_a_thread_of_its_own_that_ends(machine: Machines, host: Host) -> None:
    box = machine("rk3588")
    governor = governor_of(host, box)
    ticked = threading.Event()
    tick = governor.tick
    governor.tick = lambda: (tick(), ticked.set())[0]  # type: ignore[method-assign]
    with Sampler(governor, interval=0.01):
        assert ticked.wait(10)
        assert "hetero-thermal" in {thread.name for thread in threading.enumerate()}
    assert "hetero-thermal" not in {thread.name for thread in threading.enumerate()}


def test_a_machine_can_run_in_quicker_time(machine: Machines) -> None:
    box = machine("rk3588", ambient=25.0)
    box.duty[0] = 1.0
    with box.running(speed=2000.0):
        pause = threading.Event()
        for _ in range(20_000):
            if box.clock() >= 20:
                break
            pause.wait(0.001)
    assert box.items > 1500
    assert int((box.sysroot.temperatures["npu-thermal"][0]).read_text()) > 41_000


def test_the_cache_folder_is_left_alone_without_a_ladder(machine: Machines, host: Host, tmp_path: Path) -> None:
    governor = governor_of(host, machine("rk3588"))
    governor.tick()
    governor.close()
    assert not (tmp_path / "cache").exists()
