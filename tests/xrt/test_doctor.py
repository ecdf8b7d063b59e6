"""`hetero doctor` on a laptop: each part of the system, with what to do about it, and each compiled kernel."""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import hetero
from hetero.backend import Check
from hetero.cli.root import cli
from hetero.testing.xrt.clock import ControlledClock
from hetero.testing.xrt.phoenix import SimulatedPhoenix
from hetero.testing.xrt.pyxrt import simulated_pyxrt
from hetero.testing.xrt.stand_in import write_stand_in
from hetero_cpu.backend import CpuBackend
from hetero_kernels import get
from hetero_xrt.backend import XrtBackend
from tests.xrt.machine import KERNEL, REFERENCES
from tests.xrt.smi import Smi, laptop

OTHER = "layernorm_i8_256"


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The simulator in place of the installed pyxrt, and enough memory that may be locked."""
    module = simulated_pyxrt(SimulatedPhoenix(), kernels=REFERENCES, clock=ControlledClock(poll_seconds=1e-3))
    monkeypatch.setitem(sys.modules, "pyxrt", module)
    monkeypatch.setattr(resource, "getrlimit", lambda which: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return module


@pytest.fixture
def smi(tmp_path: Path) -> Smi:
    return Smi(tmp_path / "tool")


def checks(host: hetero.Host) -> Mapping[str, Check]:
    return {check.name: check for check in XrtBackend(host).checks()}


def kernels(folder: Path, **shapes: Mapping[str, Any]) -> str:
    for name, shape in shapes.items():
        write_stand_in(folder / name, get(name).program(), **shape)
    return str(folder)


def test_a_laptop_in_order_has_nothing_but_good_news(host: hetero.Host, smi: Smi, tmp_path: Path) -> None:
    named = kernels(tmp_path / "kernels", **{KERNEL: {"columns": 4, "tiles_per_launch": 8}, OTHER: {}})
    (host.sysroot / "proc/sys/kernel").mkdir(parents=True)
    (host.sysroot / "proc/sys/kernel/osrelease").write_text("6.14.3-1\n")
    found = checks(laptop(host, smi, HETERO_XRT_KERNELS=named))
    assert {check.level for check in found.values()} == {"ok"}
    assert {name: found[name].found for name in ("Linux", "firmware", "kernel driver", "memory lock limit")} == {
        "Linux": "6.14.3-1",
        "firmware": "1.5.5.391",
        "kernel driver": "amdxdna",
        "memory lock limit": "none",
    }
    assert found["device node"].found.startswith("/dev/accel/accel0, group ")
    assert found["XRT"].found == f"2.18 ({smi.path})"
    assert found["contexts in use"].found == "0"
    assert found[f"kernel {KERNEL}"].found == "4 columns, 8 tiles a launch, for npu1"


def test_an_old_linux_is_a_note(host: hetero.Host, smi: Smi) -> None:
    machine = laptop(host, smi)
    (host.sysroot / "proc/sys/kernel").mkdir(parents=True)
    (host.sysroot / "proc/sys/kernel/osrelease").write_text("6.8.0-45-generic\n")
    check = checks(machine)["Linux"]
    assert (check.level, check.found.split(",")[0]) == ("note", "6.8.0-45-generic")
    assert "6.14" in check.fix


def test_a_node_that_is_not_here_and_one_that_is_closed_are_problems(
    host: hetero.Host, smi: Smi, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = laptop(host, smi)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    check = checks(machine)["device node"]
    assert check.level == "problem"
    assert "may not open it" in check.found
    assert "usermod -aG" in check.fix or "log in again" in check.fix
    (host.sysroot / "dev/accel/accel0").unlink()
    check = checks(machine)["device node"]
    assert (check.level, check.fix) == ("problem", "in a container pass it in: --device /dev/accel/accel0")


def test_a_low_memory_lock_limit_is_a_problem(host: hetero.Host, smi: Smi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (8 << 20, 8 << 20))
    check = checks(laptop(host, smi))["memory lock limit"]
    assert (check.level, check.found) == ("problem", "8192 KiB, too little for the NPU's buffers")
    assert "memlock unlimited" in check.fix


def test_no_tool_is_a_note(host: hetero.Host) -> None:
    found = checks(laptop(host))
    assert found["XRT"].level == "note"
    assert "xrt-smi is neither on PATH" in found["XRT"].found


def test_a_pyxrt_for_another_python_is_told_with_what_to_do(
    host: hetero.Host, smi: Smi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyxrt", None)
    folder = host.sysroot / "opt/xilinx/xrt/python"
    folder.mkdir(parents=True)
    (folder / "pyxrt.cpython-36-x86_64-linux-gnu.so").touch()
    check = checks(laptop(host, smi))["pyxrt"]
    assert check.level == "problem"
    mine = f"Python {sys.version_info[0]}.{sys.version_info[1]}"
    assert check.found == (
        f"{mine} cannot import it: /opt/xilinx/xrt/python/pyxrt.cpython-36-x86_64-linux-gnu.so is for Python 3.6"
    )
    assert "use Python 3.6, or build XRT with this one" in check.fix


def test_who_has_the_npu_open_is_told(host: hetero.Host, smi: Smi) -> None:
    context = {"pid": "4711", "process_name": "whisper", "context_id": "1", "status": "Active"}
    smi.behave(partitions=[{"start_col": "1", "num_cols": "4", "hw_contexts": [context, context]}])
    assert checks(laptop(host, smi))["contexts in use"].found == "2: whisper (4711)"


@pytest.mark.parametrize("how", [{"report": "{"}, {"partitions": [{"start_col": "1"}]}, {"partitions": [3]}])
def test_without_the_tool_s_word_open_files_are_looked_at(host: hetero.Host, smi: Smi, how: dict[str, Any]) -> None:
    smi.behave(**how)
    machine = laptop(host, smi)
    for pid, name, target in (("12", "shell", "/dev/null"), ("345", "whisper", "/dev/accel/accel0")):
        (host.sysroot / f"proc/{pid}/fd").mkdir(parents=True)
        (host.sysroot / f"proc/{pid}/comm").write_text(f"{name}\n")
        (host.sysroot / f"proc/{pid}/fd/3").symlink_to(target)
    assert checks(machine)["contexts in use"].found.startswith("open in whisper (345) (")


def test_each_kernel_is_judged_and_only_good_ones_are_tried(host: hetero.Host, smi: Smi, tmp_path: Path) -> None:
    serial = {"columns": 4, "tiles_per_launch": 4, "serial": True}
    folder = tmp_path / "kernels"
    named = kernels(folder, **{KERNEL: serial, OTHER: {}, "gelu_i8": {}, "matmul_i8_64x64": {}})
    (folder / "gelu_i8/gelu_i8.xclbin").write_bytes(b"")
    (folder / "matmul_i8_64x64").rename(folder / "product")
    host = laptop(host, smi, HETERO_XRT_KERNELS=named)
    found = checks(host)
    assert (found[f"kernel {KERNEL}"].level, "one after the other" in found[f"kernel {KERNEL}"].found) == ("note", True)
    assert found[f"kernel {OTHER}"].level == "ok"
    assert (found["kernel gelu_i8"].level, "is empty" in found["kernel gelu_i8"].found) == ("problem", True)
    assert found["kernel product"].fix == "call its folder matmul_i8_64x64"
    assert XrtBackend(host).trial_programs() == [KERNEL, OTHER]


def test_a_folder_without_kernels_is_a_problem(host: hetero.Host, smi: Smi, tmp_path: Path) -> None:
    check = checks(laptop(host, smi, HETERO_XRT_KERNELS=str(tmp_path)))["kernels"]
    assert (check.level, "holds none" in check.found) == ("problem", True)


def test_without_an_npu_there_is_nothing_to_tell(host: hetero.Host) -> None:
    assert checks(host) == {}


# The command.


@pytest.fixture
def doctor(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    def run(host: hetero.Host, code: int) -> Any:
        monkeypatch.setattr(
            "hetero.cli.runtime.make_runtime",
            lambda **options: hetero.Runtime(backends=[XrtBackend, CpuBackend], host=host, learn=False, plugins=False),
        )
        monkeypatch.setattr("hetero.plugins.Plugins.program", lambda self, name: get(name).program())
        result = CliRunner().invoke(cli, ["doctor", "--json"])
        assert result.exit_code == code, result.output
        return json.loads(result.stdout)

    return run


def test_every_compiled_kernel_is_run_on_the_npu_and_fills_its_launch(
    host: hetero.Host, smi: Smi, tmp_path: Path, doctor: Callable[..., Any], machine: Any
) -> None:
    shape = {"columns": 4, "tiles_per_launch": 16}
    named = kernels(tmp_path / "kernels", **{KERNEL: shape, OTHER: shape})
    document = doctor(laptop(host, smi, HETERO_XRT_KERNELS=named), 0)
    (xrt,) = [device for device in document["devices"] if device["name"] == "xrt"]
    outcomes = {trial["trial"]: trial["outcome"] for trial in xrt["trials"]}
    assert outcomes == {"onnx matmul and add": "unsupported", f"kernel {KERNEL}": "ok", f"kernel {OTHER}": "ok"}
    (cpu,) = [device for device in document["devices"] if device["name"] == "cpu"]
    assert len(cpu["trials"]) == 2, "kernels that are compiled for the NPU are tried there"
    assert machine.npu.report().tiles == 32
    (told,) = [backend["checks"] for backend in document["backends"] if backend["name"] == "xrt"]
    assert {
        "name": f"kernel {KERNEL}",
        "found": "4 columns, 16 tiles a launch, for npu1",
        "level": "ok",
        "fix": "",
    } in told


def test_a_kernel_whose_last_columns_are_swapped_is_found_out(
    host: hetero.Host, smi: Smi, tmp_path: Path, doctor: Callable[..., Any]
) -> None:
    named = kernels(tmp_path / "kernels", **{OTHER: {"columns": 4, "tiles_per_launch": 8, "layout": "separate"}})
    manifest = tmp_path / f"kernels/{OTHER}/kernel.toml"
    head, *parts = manifest.read_text().split("\n[[argument]]\n")
    swapped = {"column = 2": "column = 3", "column = 3": "column = 2"}
    for place, part in enumerate(parts):
        column = next((line for line in part.splitlines() if line.startswith("column")), "")
        # Of the inputs alone: of inputs and outputs alike it would make no difference.
        if 'role = "in"' in part:
            parts[place] = part.replace(column, swapped.get(column, column))
    manifest.write_text("\n[[argument]]\n".join([head, *parts]))
    document = doctor(laptop(host, smi, HETERO_XRT_KERNELS=named), 1)
    assert any(f"kernel {OTHER}" in problem and "differs" in problem for problem in document["problems"])
