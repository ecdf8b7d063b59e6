"""Each board's sensors are found by what they are, the right one speaks for a device, and nothing is woken up."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hetero.backend import Device
from hetero.testing.thermal.sysroots import LAYOUTS, Sysroot
from hetero.thermal import sysfs
from hetero.thermal.choosing import voices_for
from hetero.thermal.npu import npu_frequency, npu_load
from hetero.thermal.power import read_power
from hetero.thermal.sensors import find_sensors
from hetero.thermal.sysfs import Unreadable
from tests.thermal.conftest import CPU, GPU, NPU, Faults

Board = Callable[[str], Sysroot]


@pytest.mark.parametrize(
    ("name", "npu", "direct"),
    [
        ("rk3588", {"npu-thermal"}, True),
        ("rk3588-mainline", {"npu-thermal"}, True),
        ("rk3576", {"npu-thermal"}, True),
        ("rk3568", {"soc-thermal"}, False),
        ("rk3566-mainline", {"gpu-thermal"}, False),
        ("phoenix", {"k10temp Tctl", "k10temp Tccd1"}, False),
        ("strix", {"amdxdna"}, True),
    ],
)
def test_the_right_sensor_speaks_for_the_npu_of_each_board(
    board: Board, name: str, npu: set[str], direct: bool
) -> None:
    first = voices_for(NPU, find_sensors(board(name).root))[0]
    assert {sensor.name for sensor in first.sensors} == npu
    assert first.direct is direct


@pytest.mark.parametrize(
    ("name", "cpu"),
    [
        ("rk3588", {"bigcore0-thermal", "bigcore1-thermal", "littlecore-thermal"}),
        ("rk3576", {"bigcore-thermal", "little-core-thermal"}),
        ("rk3566-mainline", {"cpu-thermal"}),
        ("phoenix", {"k10temp Tctl", "k10temp Tccd1"}),
    ],
)
def test_all_clusters_speak_for_the_cpu(board: Board, name: str, cpu: set[str]) -> None:
    first = voices_for(CPU, find_sensors(board(name).root))[0]
    assert {sensor.name for sensor in first.sensors} == cpu
    assert first.direct


def test_a_machine_without_sensors_has_none_and_none_speaks_for_a_simulated_device(board: Board) -> None:
    assert find_sensors(board("none").root) == []
    assert find_sensors(Path("/nowhere/at/all")) == []
    sensors = find_sensors(board("rk3588").root)
    assert voices_for(Device("npu", "npu", simulated=True), sensors) == []


def test_sensors_of_other_things_are_not_taken(board: Board) -> None:
    names = {sensor.name for sensor in find_sensors(board("phoenix").root)}
    assert not any("nvme" in name or "acpitz" in name for name in names)


def test_a_graphics_card_says_nothing_of_the_package(board: Board) -> None:
    sysroot = board("phoenix")
    assert voices_for(GPU, find_sensors(sysroot.root))[0].sensors[0].name == "amdgpu edge"
    (sysroot.root / "sys/devices/0000:c1:00.0/gpu_metrics").write_bytes(bytes([0, 0, 1, 3]))
    assert not any("amdgpu" in sensor.name for sensor in find_sensors(sysroot.root))


@pytest.mark.parametrize("name", [name for name in LAYOUTS if name != "none"])
def test_numbers_of_zones_and_hwmons_mean_nothing(tmp_path: Path, name: str) -> None:
    first = Sysroot(tmp_path / "a", name)
    root = tmp_path / "b"
    shutil.copytree(first.root, root, symlinks=True)
    for folder in ("sys/class/thermal", "sys/class/hwmon"):
        for number, entry in enumerate(sorted((root / folder).glob("*[0-9]")) if (root / folder).exists() else []):
            if not entry.name.startswith("cooling"):
                entry.rename(entry.with_name(entry.name.rstrip("0123456789") + str(90 - number)))
    assert [(s.name, s.part) for s in find_sensors(root)] == [(s.name, s.part) for s in find_sensors(first.root)]
    assert all(sensor.read() == pytest.approx(40.0) for sensor in find_sensors(root))


def test_a_temperature_made_for_fans_does_not_count_where_the_real_one_is_told(board: Board) -> None:
    sysroot = board("phoenix")
    (file, _) = sysroot.temperatures["k10temp Tccd1"]
    file.with_name("temp2_label").write_text("Tdie")
    assert {sensor.name for sensor in find_sensors(sysroot.root) if "k10temp" in sensor.name} == {"k10temp Tdie"}


def test_what_the_kernel_itself_slows_down_is_told(board: Board) -> None:
    by_name = {sensor.name: sensor for sensor in find_sensors(board("rk3588").root)}
    (trip,) = by_name["soc-thermal"].throttles
    assert trip.celsius == 85
    assert trip.cools == ("thermal-cpufreq-0", "thermal-cpufreq-1", "thermal-devfreq-0-fb000000.gpu")
    assert [str(trip) for trip in by_name["npu-thermal"].trips] == ["115 C (critical): switches the machine off"]


def test_a_sensor_whose_device_sleeps_is_not_read(board: Board, faults: Faults) -> None:
    sysroot = board("strix")
    sysroot.put("sys/devices/0000:c5:00.1/power/runtime_status", "suspended")
    (sensor,) = [sensor for sensor in find_sensors(sysroot.root) if sensor.part == "npu"]
    faults.read.clear()
    with pytest.raises(Unreadable, match="sleeps"):
        sensor.read()
    assert not any(path.endswith("temp1_input") for path in faults.read)


def test_a_number_that_went_to_another_sensor_is_noticed(board: Board) -> None:
    sysroot = board("rk3588")
    (sensor,) = [sensor for sensor in find_sensors(sysroot.root) if sensor.part == "npu"]
    sysroot.put(str(sensor.file.with_name("type").relative_to(sysroot.root)), "gpu-thermal")
    with pytest.raises(Unreadable, match="another sensor"):
        sensor.read()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "empty"),
        ("garbage", "no number"),
        ("41.5", "no number"),
        ("nan", "no number"),
        ("0", "reads 0"),
        ("-274000", "cannot be"),
        ("4000000", "cannot be"),
        ("9" * 30, "no number"),
        ("\x00\x00", "empty"),
        ("41000 41000", "no number"),
        ("x" * 5000, "no number"),
    ],
)
def test_text_that_is_no_temperature_is_unknown_with_a_reason(board: Board, content: str, says: str) -> None:
    sysroot = board("rk3588")
    (sensor,) = [sensor for sensor in find_sensors(sysroot.root) if sensor.part == "npu"]
    sensor.file.write_text(content)
    with pytest.raises(Unreadable, match=says) as error:
        sensor.read()
    assert len(str(error.value)) < 100


@pytest.mark.parametrize("number", [errno.EACCES, errno.EAGAIN, errno.EIO, errno.ENODEV, errno.ENODATA, errno.EINVAL])
def test_every_error_of_a_driver_is_unreadable_with_words(board: Board, faults: Faults, number: int) -> None:
    (sensor,) = [sensor for sensor in find_sensors(board("rk3588").root) if sensor.part == "npu"]
    faults.errors["/temp"] = OSError(number, "as the kernel says")
    with pytest.raises(Unreadable) as error:
        sensor.read()
    assert str(error.value)


def test_a_file_with_bytes_that_are_no_text_is_read_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\xff\xfe41000")
    with pytest.raises(Unreadable, match="no number"):
        sysfs.integer(tmp_path / "file")


def test_load_and_clock_are_read_and_nothing_that_powers_the_npu_up(board: Board, faults: Faults) -> None:
    sysroot = board("rk3588")
    sysroot.put("sys/kernel/debug/rknpu/freq", "1000000000")
    sysroot.show_load(0.25)
    load, frequency = npu_load(sysroot.root), npu_frequency(sysroot.root)
    assert (load.percents, load.share) == ((25, 25, 25), 0.25)
    assert frequency is not None
    assert (frequency.limit, frequency.steps[0], frequency.steps[-1]) == (1_000_000_000, 300_000_000, 1_000_000_000)
    find_sensors(sysroot.root)
    assert not any(path.endswith(("debug/rknpu/freq", ".npu/load")) for path in faults.read)


def test_proc_is_asked_before_debugfs_and_a_load_for_root_alone_is_said_to_be(board: Board, faults: Faults) -> None:
    sysroot = board("rk3588")
    faults.errors["debug/rknpu/load"] = PermissionError(errno.EACCES, "Permission denied")
    assert npu_load(sysroot.root).hidden
    sysroot.put("proc/rknpu/load", "NPU load:   7%")
    assert npu_load(sysroot.root).percents == (7,)


def test_power_of_a_laptop_and_of_a_board(board: Board, tmp_path: Path) -> None:
    sysroot = board("phoenix")
    assert read_power(sysroot.root).source == "mains"
    assert read_power(sysroot.root).platform_profile == "balanced"
    sysroot.put("sys/class/power_supply/AC/online", 0)
    sysroot.put("sys/class/power_supply/BAT0/status", "Discharging")
    sysroot.put("sys/class/power_supply/mouse/type", "Battery")
    sysroot.put("sys/class/power_supply/mouse/scope", "Device")
    assert read_power(sysroot.root).source == "battery"
    board_power = read_power(Sysroot(tmp_path / "other", "rk3588").root)
    assert (board_power.source, board_power.platform_profile) == ("unknown", None)
