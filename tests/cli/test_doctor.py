"""`hetero doctor`: right, wrong, missing and unsupported devices told apart, in words and in the exit code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hetero
from hetero.backend import Array
from tests.cli.backends import reference
from tests.cli.conftest import Line
from tests.energy.machine import Machine
from tests.fakes import fake, raises


def shifted(by: float) -> Any:
    """Answers that are off by `by` in one place."""

    def spoil(outputs: Mapping[str, Array]) -> Mapping[str, Array]:
        spoiled = {name: array.copy() for name, array in outputs.items()}
        for array in spoiled.values():
            array.flat[3] += np.asarray(by).astype(array.dtype)
        return spoiled

    return spoil


def test_a_healthy_machine_is_all_well(line: Line) -> None:
    result = line("doctor")
    assert result.exit_code == 0, result.output
    assert "cpu: cpu, 1 lane, the only one" in result.stdout
    assert "onnx matmul and add: ok; greatest error 0" in result.stdout
    assert "kernel attention_i8_64x64: ok; greatest error 0" in result.stdout
    assert "all well: 1 device tested" in result.stdout


def test_an_absent_backend_is_told_with_its_fix_and_is_no_failure(line: Line) -> None:
    line.backends.append(fake("gone", probe=raises(hetero.Unavailable("no driver", fix="modprobe gone"))))
    result = line("doctor")
    assert result.exit_code == 0
    assert "gone: not on this machine: no driver\n  fix: modprobe gone" in result.stdout


def test_a_wrong_answer_is_a_failure_with_its_greatest_error(line: Line) -> None:
    line.backends.append(reference("npu", "npu", spoil=shifted(100)))
    result = line("doctor")
    assert result.exit_code == 1
    assert "onnx matmul and add: WRONG ANSWER; y differs by 100" in result.stdout
    found = line.json("doctor", code=1)["devices"][0]["trials"]
    assert [(entry["outcome"], entry["max_error"]) for entry in found] == [("wrong", 100.0), ("wrong", 100.0)]


def test_rounding_of_bfloat16_is_right_and_one_bit_of_an_integer_kernel_is_wrong(line: Line) -> None:
    line.backends = [reference("cpu", spoil=shifted(1))]
    found = line.json("doctor", code=1)["devices"][0]["trials"]
    assert [(entry["outcome"], entry["max_error"]) for entry in found] == [("ok", 1.0), ("wrong", 1.0)]


def test_nan_is_a_wrong_answer(line: Line) -> None:
    line.backends = [reference("cpu", kernels=False, spoil=shifted(np.nan))]
    found = line.json("doctor", code=1)["devices"][0]["trials"]
    assert [(entry["outcome"], entry["max_error"]) for entry in found] == [("wrong", None), ("unsupported", None)]


def test_an_answer_of_a_wrong_shape_is_a_failure(line: Line) -> None:
    line.backends = [reference("cpu", spoil=lambda outputs: {name: array[:-1] for name, array in outputs.items()})]
    found = line.json("doctor", code=1)["devices"][0]["trials"]
    assert [entry["outcome"] for entry in found] == ["failed", "wrong"]
    assert "has shape [7, 64], expected [8, 64]" in found[0]["reason"]


def test_a_device_that_fails_is_a_failure_with_the_reason(line: Line) -> None:
    line.backends.append(reference("npu", "npu", spoil=raises(hetero.errors.DeviceLost("it went away"))))
    result = line("doctor")
    assert result.exit_code == 1
    assert "onnx matmul and add: FAILED; DeviceLost: it went away" in result.stdout
    assert "problem: npu: onnx matmul and add: DeviceLost: it went away" in result.stdout


def test_what_a_device_does_not_support_is_no_failure(line: Line) -> None:
    line.backends.append(reference("npu", "npu", kernels=False))
    result = line("doctor")
    assert result.exit_code == 0, result.output
    assert "kernel attention_i8_64x64: not supported; kernels are not for this device" in result.stdout


def test_a_simulated_device_is_marked_and_so_are_its_times(line: Line) -> None:
    line.backends = [reference("npu", "npu", simulated=True)]
    result = line("doctor")
    assert "npu (simulated): npu" in result.stdout
    assert "the simulator's time" in result.stdout


def test_device_tests_only_that_one(line: Line) -> None:
    line.backends.append(reference("npu", "npu", spoil=raises(hetero.errors.DeviceLost("it went away"))))
    result = line("doctor", "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert "it went away" not in result.stdout


def test_device_that_is_not_known_is_wrong_usage_and_one_that_is_absent_is_not_here(line: Line) -> None:
    line.backends.append(fake("gone", probe=raises(hetero.Unavailable("no driver", fix="modprobe gone"))))
    line.refuses("doctor", "--device", "gpu", says="device='gpu' is none of the candidates here: cpu")
    assert "fix: modprobe gone" in line.refuses("doctor", "--device", "gone", code=3, says="no driver")


def test_properties_and_notes_of_a_device_are_shown(line: Line) -> None:
    line.backends = [reference("cpu", properties={"driver": "1.2"}, notes=("known to be slow",))]
    result = line("doctor")
    assert "  driver: 1.2\n  note: known to be slow" in result.stdout


def test_the_json_has_the_documented_keys(line: Line) -> None:
    line.backends.append(fake("gone", probe=raises(hetero.Unavailable("no driver"))))
    document = line.json("doctor")
    assert list(document) == [
        "ok",
        "problems",
        "versions",
        "cache",
        "power_meters",
        "backends",
        "devices",
        "broken_plugins",
    ]
    assert document["ok"] is True
    assert document["versions"]["numpy"] == np.__version__
    assert list(document["cache"]) == ["path", "exists", "bytes", "writable"]
    assert document["backends"] == [
        {"name": "cpu", "present": True, "devices": ["cpu"], "reason": "", "fix": "", "checks": []},
        {"name": "gone", "present": False, "devices": [], "reason": "no driver", "fix": "", "checks": []},
    ]
    keys = ["trial", "outcome", "reason", "max_error", "load_seconds", "run_seconds", "units"]
    assert [list(trial) for trial in document["devices"][0]["trials"]] == [keys, keys]


def test_the_cache_is_measured_and_a_place_that_cannot_be_written_is_told(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HETERO_CACHE_DIR", str(tmp_path))
    (tmp_path / "model").write_bytes(b"x" * 1500)
    assert f"cache: {tmp_path}, 1.5 kB, writable" in line("doctor").stdout
    monkeypatch.setenv("HETERO_CACHE_DIR", str(tmp_path / "model" / "below"))
    result = line("doctor")
    assert "NOT writable\n  fix: " in result.stdout
    assert result.exit_code == 0


def test_power_meters_are_listed_and_one_that_cannot_be_read_has_a_reason_and_a_fix(
    line: Line, host: hetero.Host
) -> None:
    assert "power meter: none" in line("doctor").stdout
    machine = Machine(host.sysroot)
    machine.package()
    machine.battery(status="Full", power_now=0)
    result = line("doctor")
    assert result.exit_code == 0
    assert "power meter: intel-rapl:0 package-0 (package)\n" in result.stdout
    assert "power meter: battery (battery): the battery does not discharge" in result.stdout
    first, second = line.json("doctor")["power_meters"]
    assert first == {"name": "intel-rapl:0", "label": "package-0", "scope": "package", "reason": "", "fix": ""}
    assert second["fix"] == "unplug the machine from its power supply"
