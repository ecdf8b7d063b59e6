"""`hetero thermal`: tables, explanations, recordings and what would have been done, with and without sensors."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import hetero
from hetero.cli import thermal
from hetero.testing.thermal.machine import ThermalMachine
from tests.cli.backends import reference
from tests.cli.conftest import Line, line  # noqa: F401  the fixture


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ThermalMachine]:
    """A machine at the Runtime's sysroot whose time passes when a command sleeps."""

    def make(name: str, **options: Any) -> ThermalMachine:
        machine = ThermalMachine(tmp_path / "root", name, **options)
        monkeypatch.setattr(thermal, "clock", machine.clock)
        monkeypatch.setattr(thermal, "sleep", lambda seconds: machine.advance(round(seconds * 2) / 2 or 0.5))
        return machine

    return make


Box = Callable[..., ThermalMachine]


def test_a_table_tells_temperature_state_duty_and_sensor(line: Line, box: Box) -> None:  # noqa: F811
    machine = box("rk3588")
    line.backends = [reference("rknn", "npu", lanes=3), reference("cpu")]
    machine.sysroot.show({0: 81.25, 1: 70.0, 2: 72.0, 3: 75.0})
    result = line("thermal", "--once")
    assert result.exit_code == 0, result.output
    rows = [row.split() for row in result.stdout.splitlines()]
    assert rows[0][:4] == ["device", "temperature", "state", "duty"]
    assert rows[1][:4] == ["rknn", "81.2", "C", "warn"]
    assert "npu-thermal" in rows[1]
    assert rows[2][:4] == ["cpu", "72.0", "C", "cool"]


def test_explain_says_which_sensor_counts_and_what_the_kernel_does(line: Line, box: Box) -> None:  # noqa: F811
    box("rk3568")
    line.backends = [reference("rknn", "npu")]
    output = line("thermal", "--explain").stdout
    soc = next(row for row in output.splitlines() if row.startswith("  soc-thermal: ") and "counts" in row)
    assert soc.endswith(" C; this one counts: a proxy: it sits in the SOC, the nearest there is")
    assert " C; for when soc-thermal is lost: in the GPU, further away" in output
    assert "soc-thermal: 85 C (passive): slows thermal-cpufreq-0, thermal-cpufreq-1" in output
    assert "no trip point slows an NPU down" in output
    assert "rknn: warn 80 C, maximum 85 C, stop 88 C" in output
    assert "power: unknown; platform profile: none" in output


def test_explain_says_from_what_auto_can_know_joules(line: Line, box: Box) -> None:  # noqa: F811
    machine = box("phoenix")
    line.backends = [reference("xrt", "npu")]
    told = "what on_hot='auto' compares, joules of an item:\n  xrt: not measured: no power meter is on this machine; "
    assert told + "nothing declared" in line("thermal", "--explain").stdout
    zone = machine.sysroot.root / "sys/class/powercap/intel-rapl:0"
    zone.mkdir(parents=True)
    for file, content in (("name", "package-0"), ("energy_uj", "5"), ("max_energy_range_uj", "9000")):
        (zone / file).write_text(f"{content}\n")
    energy = line.json("thermal", "--explain")["devices"]["xrt"]["energy"]
    assert energy.startswith("intel-rapl:0 package-0 (package) measures them: hetero bench, or in a pause; ")


def test_of_equal_sensors_the_warmest_counts_and_the_others_say_so(line: Line, box: Box) -> None:  # noqa: F811
    box("rk3588")
    line.backends = [reference("cpu")]
    output = line("thermal", "--explain").stdout
    assert " C; as near as bigcore0-thermal, and not warmer" in output


def test_what_rockchips_kernel_does_is_told_of_rockchips_boards_alone(line: Line, box: Box) -> None:  # noqa: F811
    line.backends = [reference("xrt", "npu")]
    box("phoenix")
    output = line("thermal", "--explain").stdout
    assert "no trip point slows an NPU down\n" in output
    assert "Rockchip" not in output


def test_with_seconds_it_goes_on_without_a_terminal(line: Line, box: Box) -> None:  # noqa: F811
    machine = box("rk3588")
    begun = machine.clock()
    assert line("thermal", "--seconds", 3, "--interval", 1).stdout.count("device  temperature") == 4
    assert machine.clock() - begun == 3
    lines = line("thermal", "--seconds", 2, "--json").stdout.splitlines()
    assert [json.loads(text)["profile"] for text in lines] == ["default"] * 3


def test_on_a_terminal_the_table_is_live_and_draws_how_temperatures_went(
    line: Line,  # noqa: F811
    box: Box,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = box("rk3588", ambient=45.0)
    machine.duty[0] = 1.0
    line.backends = [reference("rknn", "npu", lanes=3)]
    out = io.StringIO()
    terminal = Console(file=out, width=100, height=20, force_terminal=True, force_interactive=True)
    monkeypatch.setattr(thermal, "terminal", lambda: terminal)
    assert line("thermal", "--seconds", 30, "--interval", 1).exit_code == 0
    last = next(text for text in reversed(out.getvalue().splitlines()) if "rknn" in text)
    assert machine.clock() == 30
    assert re.search(r" C  [▁▂▃▄▅▆▇█]{16}  ", last)


def test_the_table_tells_the_tokens(line: Line, box: Box) -> None:  # noqa: F811
    box("rk3588")
    line.backends = [reference("rknn", "npu", lanes=3)]
    heading, row = line("thermal", "--once").stdout.splitlines()
    assert row[heading.index("tokens") :].startswith("1.50 s")


def test_a_machine_without_any_sensor_says_so(line: Line, box: Box) -> None:  # noqa: F811
    box("none")
    result = line("thermal", "--once", "--explain")
    assert result.exit_code == 0
    assert "shows no temperature of an NPU, a GPU or a CPU" in result.stdout
    assert "unknown" in result.stdout
    device = line.json("thermal")["devices"]["cpu"]
    assert (device["celsius"], device["state"], device["age"]) == (None, "unknown", None)
    assert "no sensor" in device["reason"]


def test_the_json_has_everything_that_is_shown(line: Line, box: Box) -> None:  # noqa: F811
    box("phoenix")
    line.backends = [reference("xrt", "npu")]
    document = line.json("thermal", "--explain")
    device = document["devices"]["xrt"]
    assert device["direct"] is False
    assert device["source"].startswith("k10temp")
    assert device["limits"]["maximum"] == 90
    assert next(entry["sensor"] for entry in device["considered"]) == "k10temp Tctl"
    assert document["power"] == {"source": "mains", "platform_profile": "balanced"}


def test_another_root_is_looked_at_with_one_device_of_each_kind(line: Line, box: Box, tmp_path: Path) -> None:  # noqa: F811
    box("none")
    ThermalMachine(tmp_path / "copy", "rk3576")
    document = line.json("thermal", "--sysroot", tmp_path / "copy")
    assert {name: each["source"] for name, each in document["devices"].items()} == {
        "npu": "npu-thermal",
        "gpu": "gpu-thermal",
        "cpu": document["devices"]["cpu"]["source"],
    }


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--profile", "gaming"), "the thermal profile 'gaming' is not known"),
        (("--law", "magic"), "the thermal law 'magic' is not known"),
        (("--limit", "npu=80"), "is not of the form"),
        (("--limit", "npu.maximum=hot"), "is not of the form"),
        (("--limit", "npu.most=80"), "there is no thermal limit 'most'"),
        (("--limit", "tpu.maximum=80"), "'tpu', which is no device here"),
    ],
)
def test_wrong_usage_is_told(line: Line, box: Box, arguments: tuple[str, ...], says: str) -> None:  # noqa: F811
    box("rk3588")
    line.refuses("thermal", "--once", *arguments, says=says)


def test_a_recording_is_replayed_and_told(line: Line, box: Box, tmp_path: Path) -> None:  # noqa: F811
    machine = box("rk3588", ambient=58.0)
    line.backends = [reference("rknn", "npu", lanes=3)]
    machine.duty[0] = 1.0
    file = tmp_path / "heat.jsonl"
    result = line("thermal", "record", file, "--seconds", 240)
    assert result.exit_code == 0, result.output
    assert "240 samples of rknn" in result.stdout
    head, *lines = [json.loads(text) for text in file.read_text().splitlines()]
    assert head["devices"] == {"rknn": {"kind": "npu", "lanes": 3}}
    assert lines[100]["at"] == 100
    assert lines[200]["devices"]["rknn"]["celsius"] > 80
    told = line("thermal", "replay", file).stdout
    assert "npu-thermal" in told
    assert "240 samples" in told
    steps = line.json("thermal", "replay", file)
    assert [step["now"]["duty"] for step in steps] == [step["then"]["duty"] for step in steps]
    colder = line.json("thermal", "replay", file, "--limit", "npu.maximum=70")
    assert sum(step["now"]["duty"] for step in colder) < sum(step["now"]["duty"] for step in steps)
    line.refuses("thermal", "replay", file, "--limit", "rknn.maximum=70", says="by kind")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "is no recording"),
        ("not json\n", "is no recording"),
        ('{"hetero thermal": 99, "devices": {}}\n', "format 99"),
        ('{"hetero thermal": 1, "devices": {"a": {"kind": "tpu"}}}\n', "kind of device"),
        ('{"hetero thermal": 1, "devices": {}}\n', "holds no sample"),
        ('{"hetero thermal": 1, "devices": {"a": {"kind": "npu"}}}\n{"at": 1, "devices": {"a": {}}}\n', "line 2"),
        ('{"hetero thermal": 1, "devices": {"a": {"kind": "npu"}}}\n{"at": 1, "dev\n', "line 2"),
    ],
)
def test_a_file_that_is_no_recording_is_refused(line: Line, box: Box, tmp_path: Path, content: str, says: str) -> None:  # noqa: F811
    box("rk3588")
    file = tmp_path / "file.jsonl"
    file.write_text(content)
    line.refuses("thermal", "replay", file, says=says)


def test_time_that_stands_still_in_a_recording_is_refused(line: Line, box: Box, tmp_path: Path) -> None:  # noqa: F811
    machine = box("rk3588")
    line.backends = [reference("rknn", "npu")]
    file = tmp_path / "heat.jsonl"
    line("thermal", "record", file, "--seconds", 3)
    assert machine.clock() >= 2
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines, lines[-1]]) + "\n")
    line.refuses("thermal", "replay", file, says="time does not go on")


def test_a_runtime_that_is_closed_again_leaves_nothing(line: Line, box: Box) -> None:  # noqa: F811
    box("rk3588")
    assert line("thermal", "--once").exit_code == 0
    assert isinstance(hetero.Host(), hetero.Host)
