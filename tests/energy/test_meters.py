"""Meters are found by what they are, tell joules or watts, and say why where they cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hetero.energy.measuring import Tally
from hetero.energy.meters import Meter, Part, display_controllers, find_meters
from hetero.errors import Unavailable
from tests.energy.machine import Machine, put


def only(machine: Machine) -> Meter:
    (meter,) = find_meters(machine.sysroot)
    return meter


def test_a_machine_without_meters_has_none(machine: Machine) -> None:
    assert find_meters(machine.sysroot) == []
    assert display_controllers(machine.sysroot) == 0


def test_packages_are_one_meter_and_their_parts_and_twins_are_not_counted_again(machine: Machine) -> None:
    machine.package(0, "package-0")
    machine.package(1, "package-1")
    core = machine.sysroot / "sys/class/powercap/intel-rapl:0:0"
    put(core / "energy_uj", 1_000_000)
    put(core / "name", "core")
    machine.package(0, "package-0", driver="intel-rapl-mmio")
    meter = only(machine)
    assert (meter.name, meter.label, meter.scope) == ("intel-rapl:0+intel-rapl:1", "package-0+package-1", "package")
    assert meter.read() == (5.0, 5.0)


def test_the_platform_is_the_board_and_mmio_is_read_where_there_is_nothing_else(machine: Machine) -> None:
    machine.package(0, "package-0", driver="intel-rapl-mmio")
    assert only(machine).name == "intel-rapl-mmio:0"
    machine.package(0, "package-0")
    machine.package(1, "psys")
    assert [(meter.name, meter.scope) for meter in find_meters(machine.sysroot)] == [
        ("intel-rapl:0", "package"),
        ("intel-rapl:1", "board"),
    ]


def test_a_counter_that_root_alone_may_read_says_so(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    counter = machine.package()
    read = Path.read_text

    def refuse(self: Path, *args: object, **options: object) -> str:
        if self == counter:
            raise PermissionError(13, "Permission denied")
        return read(self)

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(Unavailable, match="can be read by root alone") as error:
        only(machine).read()
    assert f"sudo chmod a+r {counter}" in error.value.fix


def test_amdgpu_counts_the_package_of_an_apu_and_a_card_alone(machine: Machine) -> None:
    folder = machine.hwmon(4, "amdgpu", power1_average=9_000_000, power1_label="PPT")
    for header, scope, kind in ((b"\x68\x00\x01\x03", "device", "gpu"), (b"\x98\x00\x02\x02", "package", None)):
        put(folder / "device/gpu_metrics", "").write_bytes(header)
        meter = only(machine)
        assert (meter.scope, meter.kind, meter.label) == (scope, kind, "PPT")
        assert meter.read() == (9.0,)


def test_the_present_power_goes_before_the_averaged_one_and_energy_before_both(machine: Machine) -> None:
    machine.hwmon(0, "xe", power1_average=1_000_000, power1_input=2_000_000)
    assert (only(machine).read(), only(machine).cumulative) == ((2.0,), False)
    machine.hwmon(0, "xe", energy1_input=70_000_000)
    assert (only(machine).read(), only(machine).cumulative) == ((70.0,), True)


def test_a_meter_is_named_after_its_chips_place_and_not_its_number(machine: Machine) -> None:
    folder = machine.hwmon(7, "ina226", power1_input=3_210_000)
    (machine.sysroot / "sys/devices/2-0040").mkdir(parents=True)
    (folder / "device").symlink_to("../../../devices/2-0040")
    assert (only(machine).name, only(machine).scope) == ("ina226:2-0040", "board")
    assert only(machine).read() == (pytest.approx(3.21),)


def test_an_ina3221_gives_a_rail_for_each_channel_that_is_on(machine: Machine) -> None:
    channels = {
        "in1_input": 5000, "curr1_input": 400, "in1_label": "VDD_IN", "in1_enable": 1,
        "in2_input": 900, "curr2_input": 100, "in2_label": "VDD_NPU",
        "in3_input": 900, "curr3_input": 100, "in3_enable": 0,
    }  # fmt: skip
    machine.hwmon(0, "ina3221", **channels)
    first, second = find_meters(machine.sysroot)
    assert (first.label, first.scope, first.read()) == ("VDD_IN", "rail", (pytest.approx(2.0),))
    assert (second.label, second.scope, second.read()) == ("VDD_NPU", "rail", (pytest.approx(0.09),))


def test_an_npu_has_its_own_meter_and_what_is_no_meter_is_passed_over(machine: Machine) -> None:
    machine.hwmon(0, "k10temp", temp1_input=40_000)
    machine.hwmon(1, "amdxdna", power1_input=1_500_000)
    assert (only(machine).scope, only(machine).kind, only(machine).read()) == ("device", "npu", (1.5,))


def test_a_battery_tells_power_while_it_discharges(machine: Machine) -> None:
    machine.battery("BAT0", power_now=-7_500_000)
    machine.battery("BAT1", status="Not charging", voltage_now=12_000_000, current_now=1_000_000)
    machine.battery("mouse", scope="Device", power_now=1_000_000)
    assert (only(machine).scope, only(machine).read()) == ("battery", (7.5, 0.0))
    machine.battery("BAT0", status="Charging")
    with pytest.raises(Unavailable, match="does not discharge") as error:
        only(machine).read()
    assert "unplug" in error.value.fix


def test_a_battery_without_power_gives_volts_times_amperes(machine: Machine) -> None:
    machine.battery(voltage_now=12_000_000, current_now=500_000)
    assert only(machine).read() == (pytest.approx(6.0),)


@pytest.mark.parametrize("content", ["", "nonsense"])
def test_a_meter_that_tells_no_number_is_unavailable(machine: Machine, content: str) -> None:
    put(machine.package(), content)
    with pytest.raises(Unavailable, match="tells no number"):
        only(machine).read()


def test_a_meter_that_has_gone_is_unavailable(machine: Machine) -> None:
    counter = machine.package()
    meter = only(machine)
    counter.unlink()
    with pytest.raises(Unavailable, match="cannot be read: No such file"):
        meter.read()


@given(st.lists(st.integers(0, 999), min_size=1, max_size=30), st.integers(0, 999))
def test_a_counter_that_goes_round_loses_nothing(steps: list[int], start: int) -> None:
    counter = _Counter(start, top=1000)
    tally = Tally(counter.meter(), lambda: 0.0)
    for step in steps:
        counter.value = (counter.value + step) % 1000
        tally.sample()
    assert tally.joules == pytest.approx(sum(steps))


def test_a_counter_without_an_end_that_falls_is_not_believed() -> None:
    counter = _Counter(500, top=0)
    tally = Tally(counter.meter(), lambda: 0.0)
    counter.value = 3
    with pytest.raises(Unavailable, match="begun anew"):
        tally.sample()


def test_powers_are_averaged_over_time(machine: Machine) -> None:
    folder = machine.hwmon(0, "ina219", power1_input=2_000_000)
    tally = Tally(only(machine), machine.clock)
    machine.now += 3
    tally.sample()
    put(folder / "power1_input", 6_000_000)
    machine.now += 1
    tally.sample()
    assert (tally.joules, tally.seconds, tally.watts) == (pytest.approx(10.0), pytest.approx(4.0), pytest.approx(2.5))


class _Counter(Part):
    """A counter without a file."""

    value: int

    def __init__(self, value: int, top: int) -> None:
        super().__init__((), 1.0, float(top))
        object.__setattr__(self, "value", value)

    def __setattr__(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def read(self) -> float:
        return float(self.value)

    def meter(self) -> Meter:
        return Meter("counter", "", "package", (self,), cumulative=True, interval=1.0, settle=0.0, shortest=0.0)
