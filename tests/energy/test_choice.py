"""A device's meter is one that is known to count it; where that is not known, it is said."""

from __future__ import annotations

import pytest

from hetero.backend import Device
from hetero.energy.choice import meter_for, meter_named
from hetero.energy.meters import find_meters
from hetero.errors import OptionError, Unavailable
from tests.energy.machine import Machine, put

CPU, NPU, GPU = Device("cpu", "cpu"), Device("xrt", "npu"), Device("vulkan:0", "gpu")
APU, CARD = b"\x98\x00\x02\x02", b"\x68\x00\x01\x03"


def chosen(machine: Machine, device: Device, *others: Device) -> str:
    return meter_for(device, (device, *others), find_meters(machine.sysroot), machine.sysroot).name


def amdgpu(machine: Machine, number: int, header: bytes) -> str:
    folder = machine.hwmon(number, "amdgpu", power1_input=5_000_000)
    put(folder / "device/gpu_metrics", "").write_bytes(header)
    return f"amdgpu:hwmon{number}"


def test_a_laptops_devices_share_the_package_and_not_their_own_meters(machine: Machine) -> None:
    machine.package()
    machine.hwmon(1, "amdxdna", power1_input=1_000_000)
    amdgpu(machine, 2, APU)
    machine.graphics("0x030000", "0x060000")
    for device in (CPU, NPU, GPU):
        assert chosen(machine, device) == "intel-rapl:0"


def test_where_the_package_is_roots_alone_the_next_one_that_counts_it_serves(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(machine.package(), "no number")
    name = amdgpu(machine, 2, APU)
    assert chosen(machine, CPU) == name


def test_a_board_has_one_supply_for_all(machine: Machine) -> None:
    machine.hwmon(0, "ina226", power1_input=4_000_000)
    for device in (CPU, NPU, GPU):
        assert chosen(machine, device) == "ina226:hwmon0"


def test_an_npu_without_a_wider_meter_has_its_own_and_the_cpu_none(machine: Machine) -> None:
    machine.hwmon(0, "amdxdna", power1_input=1_000_000)
    assert chosen(machine, NPU) == "amdxdna:hwmon0"
    with pytest.raises(Unavailable, match="not known whether a power meter counts cpu; there are: amdxdna:hwmon0"):
        chosen(machine, CPU)


def test_a_card_is_counted_by_its_own_meter_and_never_by_the_package(machine: Machine) -> None:
    machine.package()
    name = amdgpu(machine, 0, CARD)
    machine.graphics("0x030000")
    assert (chosen(machine, GPU), chosen(machine, CPU)) == (name, "intel-rapl:0")


@pytest.mark.parametrize("doubt", ["two on the buses", "two devices", "nobody says where it sits"])
def test_a_gpu_whose_place_is_in_doubt_has_no_meter(machine: Machine, doubt: str) -> None:
    machine.package()
    if doubt != "nobody says where it sits":
        amdgpu(machine, 0, APU)
    machine.graphics("0x030000", *(["0x030200"] if doubt == "two on the buses" else []))
    others = [Device("vulkan:1", "gpu")] if doubt == "two devices" else []
    with pytest.raises(Unavailable, match="not known whether") as error:
        chosen(machine, GPU, *others)
    assert "--meter" in error.value.fix


def test_a_simulated_device_has_none(machine: Machine) -> None:
    machine.package()
    with pytest.raises(Unavailable, match="simulated"):
        chosen(machine, Device("rknn", "npu", simulated=True))


def test_rails_and_batteries_are_left_to_the_user(machine: Machine) -> None:
    machine.battery(power_now=5_000_000)
    with pytest.raises(Unavailable, match="only the battery") as error:
        chosen(machine, CPU)
    assert "--meter battery" in error.value.fix
    machine.hwmon(0, "ina3221", in1_input=1, curr1_input=1, in2_input=1, curr2_input=1)
    with pytest.raises(Unavailable, match="ina3221:hwmon0:1, ina3221:hwmon0:2, battery"):
        chosen(machine, CPU)


def test_a_meter_is_named_by_its_name_or_its_label(machine: Machine) -> None:
    machine.package()
    meters = find_meters(machine.sysroot)
    assert meter_named("intel-rapl:0", meters) is meter_named("package-0", meters) is meters[0]
    with pytest.raises(OptionError, match="no power meter 'usb'") as error:
        meter_named("usb", meters)
    assert "intel-rapl:0 package-0 (package)" in error.value.fix
    with pytest.raises(OptionError) as error:
        meter_named("usb", [])
    assert "has none" in error.value.fix


def test_no_meter_at_all_is_said(machine: Machine) -> None:
    with pytest.raises(Unavailable, match="no power meter is on this machine"):
        chosen(machine, CPU)
