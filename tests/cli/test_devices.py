"""`hetero devices`: order, what is absent and why, options, and the shape of its JSON."""

from __future__ import annotations

import pytest

import hetero
from hetero.cli import runtime
from tests.cli.backends import reference
from tests.cli.conftest import Line
from tests.fakes import fake, raises

GONE = fake("gone", probe=raises(hetero.Unavailable("no driver", fix="modprobe gone")))


def test_devices_are_listed_in_chain_order_with_simulated_ones_marked(line: Line) -> None:
    line.backends = [reference("cpu"), reference("npu", "npu", simulated=True, lanes=3, description="a fine NPU")]
    result = line("devices")
    assert result.exit_code == 0
    rows = [row.split() for row in result.stdout.splitlines()]
    assert rows[1] == ["1", "npu", "(simulated)", "npu", "3", "a", "fine", "NPU"]
    assert rows[2] == ["2", "cpu", "cpu", "1"]


def test_a_chain_changes_the_order(line: Line) -> None:
    line.backends = [reference("cpu"), reference("npu", "npu")]
    document = line.json("devices", "--chain", "cpu,npu")
    assert [device["name"] for device in document["devices"]] == ["cpu", "npu"]


def test_an_absent_backend_is_listed_with_reason_and_fix(line: Line) -> None:
    line.backends.append(GONE)
    result = line("devices")
    assert result.exit_code == 0
    assert "gone: no driver" in result.stdout
    assert "fix: modprobe gone" in result.stdout
    assert line.json("devices")["absent"] == [{"backend": "gone", "reason": "no driver", "fix": "modprobe gone"}]


def test_no_device_at_all_is_said_and_is_no_failure(line: Line) -> None:
    line.backends = [GONE]
    result = line("devices")
    assert result.exit_code == 0
    assert result.stdout.startswith("no devices")


def test_options_are_listed_with_type_default_and_meaning(line: Line) -> None:
    result = line("devices", "--options")
    rows = [row.split() for row in result.stdout.splitlines()]
    assert ["cpu.threads", "int", ">=", "1", "2", "How", "many", "threads."] in rows
    assert ["cpu.mode", "a", "|", "b", "a", "How."] in rows


def test_notes_of_a_device_are_shown(line: Line) -> None:
    line.backends = [reference("cpu", notes=("one core did not answer",))]
    assert "note on cpu: one core did not answer" in line("devices").stdout


def test_the_json_has_the_documented_keys(line: Line) -> None:
    document = line.json("devices")
    assert list(document) == ["devices", "absent", "broken_plugins", "options"]
    assert document["devices"] == [
        {
            "name": "cpu",
            "kind": "cpu",
            "description": "the only one",
            "lanes": 1,
            "rank": 300,
            "simulated": False,
            "watts": None,
            "properties": {},
            "notes": [],
        }
    ]
    assert document["options"]["cpu"][0] == {
        "name": "threads",
        "type": "int",
        "default": 2,
        "help": "How many threads.",
        "choices": [],
        "minimum": 1,
        "per_call": False,
    }


def test_a_broken_plugin_is_listed(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        @hetero.hookimpl
        def hetero_backend(self) -> str:
            return "not a class"

    made = runtime.make_runtime()
    made._plugins.register(Broken(), "hetero.backends:broken")
    made._plugins.backends()
    monkeypatch.setattr(runtime, "make_runtime", lambda **_: made)
    assert "broken plugins:\n  plugin broken of hetero.backends" in line("devices").stdout


def test_an_unknown_name_in_the_chain_is_wrong_usage(line: Line) -> None:
    assert "known: cpu" in line.refuses("devices", "--chain", "gpu,cpu", says="the chain names 'gpu'")


def test_an_unknown_machine_to_simulate_is_wrong_usage(line: Line) -> None:
    line.refuses("devices", "--simulate", "toaster", says="no backend can simulate 'toaster'")
    assert line("devices", "--simulate", "rk3588").exit_code == 0
