"""The backend through a Runtime: what it finds, which kernel it takes, and that the CPU answers when it cannot."""

from __future__ import annotations

import asyncio
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hetero
from hetero.errors import OptionError, Unavailable
from hetero.testing.xrt.clock import ControlledClock
from hetero.testing.xrt.pyxrt import simulated_pyxrt
from hetero.testing.xrt.stand_in import write_stand_in
from hetero_cpu.backend import CpuBackend
from hetero_kernels import get, names
from hetero_xrt.backend import XrtBackend
from hetero_xrt.flights import FLIGHTS
from tests.models import double
from tests.xrt.bench import Bench
from tests.xrt.machine import KERNEL, REFERENCES
from tests.xrt.npu import inputs_of

MakeRuntime = Callable[..., hetero.Runtime]


def check(session: hetero.Session, count: int = 4, seed: int = 0, device: str = "xrt") -> Any:
    """One exact answer, from the device that is expected."""
    inputs = inputs_of(KERNEL, count, seed)
    result = session.run(inputs)
    np.testing.assert_array_equal(result.outputs["o"], get(KERNEL).reference(**inputs)["o"], strict=True)
    assert result.record.device == device, result.record
    return result.record


# Probing.


def laptop(host: hetero.Host, vbnv: str = "NPU Phoenix", node: bool = True) -> hetero.Host:
    """A system with an NPU; the machine's own pyxrt, if there is one, counts as well."""
    device = host.sysroot / "sys/class/accel/accel0/device"
    device.mkdir(parents=True)
    (device / "vbnv").write_text(f"{vbnv}\n")
    (device / "fw_version").write_text("1.5.5.391\n")
    (device / "device_type").write_text("0\n")
    (device / "uevent").write_text("DRIVER=amdxdna\nPCI_ID=1022:1502\n")
    if node:
        (host.sysroot / "dev/accel").mkdir(parents=True)
        (host.sysroot / "dev/accel/accel0").touch()
    return host


@pytest.fixture
def pyxrt(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    module = simulated_pyxrt(kernels=REFERENCES, clock=ControlledClock(poll_seconds=1e-3))
    monkeypatch.setitem(sys.modules, "pyxrt", module)
    return module


@pytest.fixture
def no_pyxrt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyxrt", None)


def test_no_npu_is_told_with_both_ways_out(host: hetero.Host) -> None:
    with pytest.raises(Unavailable, match="no AMD NPU") as caught:
        XrtBackend(host).probe()
    assert "modprobe amdxdna" in caught.value.fix
    assert "HETERO_SIMULATE=phoenix" in caught.value.fix


def test_another_maker_s_accelerator_is_none(host: hetero.Host) -> None:
    device = host.sysroot / "sys/class/accel/accel0/device"
    device.mkdir(parents=True)
    (device / "uevent").write_text("DRIVER=intel_vpu\n")
    with pytest.raises(Unavailable, match="no AMD NPU"):
        XrtBackend(host).probe()


@pytest.mark.usefixtures("pyxrt")
def test_an_npu_is_described(host: hetero.Host) -> None:
    (device,) = XrtBackend(laptop(host)).probe()
    assert (device.name, device.kind, device.lanes, device.simulated) == ("xrt", "npu", 4, False)
    assert device.description == "AMD Phoenix NPU, 4 columns"
    told = dict(device.properties)
    assert told.pop("memory lock limit")
    assert told == {
        "generation": "npu1",
        "name": "NPU Phoenix",
        "device node": "/dev/accel/accel0",
        "firmware": "1.5.5.391",
        "device type": "0",
        "kernel driver": "amdxdna",
    }


@pytest.mark.usefixtures("pyxrt")
@pytest.mark.parametrize(
    ("limit", "told"), [(8 << 20, "only 8192 KiB of memory may be locked"), (1 << 40, ""), (-1, "")]
)
def test_a_low_limit_of_locked_memory_is_a_note(
    host: hetero.Host, monkeypatch: pytest.MonkeyPatch, limit: int, told: str
) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda which: (limit, limit))
    (device,) = XrtBackend(laptop(host)).probe()
    assert any("may be locked" in note for note in device.notes) is bool(told)
    assert told in " ".join(device.notes)


@pytest.mark.usefixtures("pyxrt")
def test_nodes_that_are_missing_or_closed_are_notes(host: hetero.Host, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = XrtBackend(laptop(host, node=False))
    assert "--device /dev/accel/accel0" in " ".join(backend.probe()[0].notes)
    (host.sysroot / "dev/accel").mkdir(parents=True)
    (host.sysroot / "dev/accel/accel0").touch()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "sudo usermod -aG" in " ".join(backend.probe()[0].notes)


@pytest.mark.usefixtures("pyxrt")
def test_an_npu_of_another_generation_is_there_and_says_that_there_are_no_kernels(host: hetero.Host) -> None:
    (device,) = XrtBackend(laptop(host, "NPU Strix")).probe()
    assert device.properties["generation"] is None
    assert "no NPU that hetero has kernels for" in " ".join(device.notes)


@pytest.mark.usefixtures("no_pyxrt")
@pytest.mark.parametrize(
    ("file", "fix"),
    [
        (None, "install XRT with its Python module"),
        ("pyxrt.cpython-38-x86_64-linux-gnu.so", "is for Python 3.8, this is"),
        (f"pyxrt{__import__('importlib.machinery').machinery.EXTENSION_SUFFIXES[0]}", "export PYTHONPATH=/opt/xilinx"),
        ("pyxrt.pyd.so", "is not for this Python"),
    ],
)
def test_a_pyxrt_that_this_python_cannot_import_is_told_how_to_come_by(
    host: hetero.Host, file: str | None, fix: str
) -> None:
    if file is not None:
        folder = host.sysroot / "opt/xilinx/xrt/python"
        folder.mkdir(parents=True)
        (folder / file).touch()
    with pytest.raises(Unavailable, match="this Python cannot import pyxrt") as caught:
        XrtBackend(laptop(host)).probe()
    assert fix in caught.value.fix


def test_a_real_npu_runs_the_kernels_of_a_folder(
    host: hetero.Host, pyxrt: types.ModuleType, tmp_path: Path, make_runtime: MakeRuntime
) -> None:
    write_stand_in(tmp_path / "kernels" / KERNEL, get(KERNEL).program())
    runtime = make_runtime(XrtBackend, CpuBackend, host=laptop(host), learn=False)
    options = {"xrt": {"kernels": str(tmp_path / "kernels")}}
    check(runtime.load(get(KERNEL).program(), options=options), 9)
    # Without an xclbin the NPU refuses, and the chain goes on.
    session = runtime.load(get("gelu_i8").program(), options=options)
    result = session.run(inputs_of("gelu_i8", 5))
    assert result.record.device == "cpu"
    (refused,) = [attempt for attempt in result.record.attempts if attempt.device == "xrt"]
    assert (refused.outcome, "there is no xclbin for 'gelu_i8'" in refused.reason) == ("unsupported", True)
    assert pyxrt.npu.report().misuse == {}  # type: ignore[attr-defined]


# Simulating.


@pytest.mark.parametrize("kernel", names())
def test_a_simulated_phoenix_runs_kernels_that_have_no_xclbin(bench: Callable[..., Bench], kernel: str) -> None:
    machine = bench()
    inputs = inputs_of(kernel, 9)
    result = machine.load(get(kernel).program()).run(inputs)
    for name, array in get(kernel).reference(**inputs).items():
        np.testing.assert_array_equal(result.outputs[name], array, strict=True)
    assert result.record.device == "xrt"
    assert result.record.attempts[-1].simulated
    machine.check_clean()


def test_the_simulated_npu_says_that_it_is_one(host: hetero.Host) -> None:
    simulated = hetero.Host(environ={}, sysroot=host.sysroot, cache=host.cache, simulate=("phoenix",))
    (device,) = XrtBackend(simulated).probe()
    assert device.simulated
    assert "modelled" in " ".join(device.notes)
    broken = hetero.Host(environ={"HETERO_SIM_XRT": "tiles=3"}, cache=host.cache, simulate=("phoenix",))
    with pytest.raises(OptionError, match="tiles=3"):
        XrtBackend(broken).probe()


def test_stand_ins_are_made_once(bench: Callable[..., Bench]) -> None:
    machine = bench()
    machine.load()
    folder = machine.host.cache / "xrt" / "simulated"
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert len([path for path in before if path.name == "kernel.toml"]) == 1
    machine.load()
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_real_kernel_is_simulated_with_its_own_buffers(bench: Callable[..., Bench], tmp_path: Path) -> None:
    """The simulator cannot run what is in a real xclbin, but it can take the same buffers in the same order."""
    path = write_stand_in(
        tmp_path / "kernels" / KERNEL, get(KERNEL).program(), 2, 6, "separate", order="interleaved", fill="repeat"
    )
    xclbin = path.parent / f"{KERNEL}.xclbin"
    xclbin.write_bytes(xclbin.read_bytes().replace(b'{"arguments"', b'{"ARGUMENTS"'))
    machine = bench()
    session = machine.load(kernels=str(tmp_path / "kernels"), canary=False)
    check(session, 6)
    check(session, 7)
    report = machine.npu.report()
    assert report.launches == 3, "six tiles a launch"
    assert report.contexts == 2, "of two columns"
    assert report.buffers == 2 * (1 + 2 * 4), "instructions, and four buffers for each of two launches"
    machine.check_clean()


def test_a_smaller_npu_gets_smaller_stand_ins_and_refuses_larger_kernels(
    bench: Callable[..., Bench], tmp_path: Path
) -> None:
    write_stand_in(tmp_path / "kernels" / KERNEL, get(KERNEL).program(), 4, 4)
    machine = bench(columns=2)
    check(machine.load(), 9)
    record = check(machine.load(kernels=str(tmp_path / "kernels")), 9, device="cpu")
    assert "takes 4 columns, the NPU has 2" in record.attempts[0].reason
    machine.check_clean()


# Kernels and options.


def bundle(folder: Path, manifest: bool = True) -> Path:
    write_stand_in(folder, get(KERNEL).program())
    extra = ', manifest = "kernel.toml"' if manifest else ""
    spec = 'dtype = "int8"\nshape = ["tiles", 64, 64]\n'
    (folder / "hetero.toml").write_text(
        f'[program]\nformat = 1\nname = "{KERNEL}"\n[[artifact]]\nkind = "xclbin"\npath = "{KERNEL}.xclbin"\n'
        f'target = "npu1"\ncompanions = {{ instructions = "{KERNEL}.insts.bin"{extra} }}\n'
        + "".join(f'[[input]]\nname = "{name}"\n{spec}' for name in "qkv")
        + f'[[output]]\nname = "o"\n{spec}'
    )
    return folder


@pytest.mark.parametrize("manifest", [True, False])
def test_a_bundle_brings_its_kernel(bench: Callable[..., Bench], tmp_path: Path, manifest: bool) -> None:
    machine = bench()
    check(machine.load(bundle(tmp_path / "b", manifest)), 9)
    machine.check_clean()


def test_an_environment_variable_names_the_folder(
    host: hetero.Host, pyxrt: types.ModuleType, tmp_path: Path, make_runtime: MakeRuntime
) -> None:
    write_stand_in(tmp_path / "kernels" / KERNEL, get(KERNEL).program())
    environ = {"HETERO_XRT_KERNELS": str(tmp_path / "kernels")}
    there = hetero.Host(environ=environ, sysroot=laptop(host).sysroot, cache=host.cache)
    check(make_runtime(XrtBackend, CpuBackend, host=there, learn=False).load(get(KERNEL).program()), 3)
    assert pyxrt.npu.report().launches >= 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("damage", ["truncated", "no manifest", "other kernel", "other target"])
def test_a_broken_kernel_is_refused_and_the_cpu_answers(
    bench: Callable[..., Bench], tmp_path: Path, damage: str
) -> None:
    folder = tmp_path / "kernels" / KERNEL
    path = write_stand_in(folder, get("matmul_i8_64x64" if damage == "other kernel" else KERNEL).program())
    if damage == "truncated":
        xclbin = folder / f"{KERNEL}.xclbin"
        xclbin.write_bytes(xclbin.read_bytes()[:700])
    elif damage == "no manifest":
        path.unlink()
    elif damage == "other target":
        path.write_text(path.read_text().replace("npu1", "npu9"))
    machine = bench()
    record = check(machine.load(kernels=str(tmp_path / "kernels")), device="cpu")
    assert record.attempts[0].outcome == "unsupported"
    machine.check_clean()


def test_a_program_that_is_no_kernel_is_refused(bench: Callable[..., Bench], tmp_path: Path) -> None:
    result = bench().load(double(tmp_path / "d.onnx")).run(np.ones(4, np.float32))
    assert result.record.device == "cpu"
    assert "nothing for the NPU" in result.record.attempts[0].reason


@pytest.mark.parametrize("options", [{"in_flight": 5}, {"in_flight": 0}, {"pipeline": "fast"}, {"contexts": 0}])
def test_options_out_of_range_are_refused(bench: Callable[..., Bench], options: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        bench().runtime.load(get(KERNEL).program(), options={"xrt": options})


# Sharing launches.


def test_tiles_of_several_callers_share_a_launch(bench: Callable[..., Bench]) -> None:
    machine = bench()
    session = machine.load(canary=False, batch_delay=60.0)
    inputs = [inputs_of(KERNEL, 1, seed) for seed in range(8)]
    futures = [session.submit(each) for each in inputs]
    for each, future in zip(inputs, futures, strict=True):
        np.testing.assert_array_equal(future.result(60), get(KERNEL).reference(**each)["o"])
    assert machine.npu.report().launches == 2
    machine.check_clean()


# Failing.


@pytest.mark.parametrize("fault", ["error", "abort", "timeout", "lost", "garbage", "hang"])
@pytest.mark.parametrize("pipeline", ["auto", "threads"])
def test_whatever_goes_wrong_the_request_is_answered_and_the_reason_told(
    bench: Callable[..., Bench], fault: Any, pipeline: Any
) -> None:
    machine = bench(poll=1e-2)
    session = machine.load(pipeline=pipeline, timeout=5.0, verify=1)
    check(session)
    machine.npu.force(fault)
    record = check(session, device="cpu")
    told = {
        "error": "attention_i8_64x64: a launch ended in the state ERROR",
        "abort": "attention_i8_64x64: a launch ended in the state ABORT",
        "timeout": "DeviceTimeout: attention_i8_64x64: the driver killed a launch",
        "lost": "",
        "garbage": "differs from the reference",
        "hang": "DeviceTimeout: a launch has not ended within 5 s",
    }
    (failed,) = [attempt for attempt in record.attempts if attempt.outcome == "failed"]
    assert failed.device == "xrt"
    assert told[fault] in failed.reason
    machine.runtime.close()
    if fault == "hang":
        assert FLIGHTS.parked == 1
        machine.npu.release_hangs()
        FLIGHTS.sweep()
    assert FLIGHTS.parked == 0
    machine.check_clean()


def test_nothing_is_lost_on_an_npu_that_fails_in_every_way(bench: Callable[..., Bench]) -> None:
    faults = dict.fromkeys(("error", "abort", "timeout", "garbage", "hang"), 0.03)
    machine = bench(poll=2e-2, faults=faults, seed=3, tile_seconds=1e-3)
    session = machine.load(timeout=1.0, verify=1, batch_delay=0.0)
    counts = [1 + number % 9 for number in range(300)]
    futures = [session.submit(inputs_of(KERNEL, count, seed)) for seed, count in enumerate(counts)]
    for seed, (count, future) in enumerate(zip(counts, futures, strict=True)):
        expected = get(KERNEL).reference(**inputs_of(KERNEL, count, seed))["o"]
        np.testing.assert_array_equal(future.result(120), expected, strict=True)
    devices = [record.device for record in machine.runtime.records]
    assert {"xrt", "cpu"} <= set(devices)
    machine.runtime.close()
    machine.npu.release_hangs()
    machine.clock.advance(10.0)
    FLIGHTS.sweep()
    machine.check_clean()


def test_the_event_loop_goes_on_while_the_npu_works(bench: Callable[..., Bench]) -> None:
    """The launch ends only when the loop itself has ticked a hundred times: were it held up, it would never end."""
    machine = bench(poll=0.0)
    session = machine.load(canary=False)
    inputs = inputs_of(KERNEL, 8)

    async def main() -> int:
        answer = asyncio.ensure_future(session.arun(inputs))
        ticks = 0
        while not answer.done():
            await asyncio.sleep(0)
            ticks += machine.npu.report().peak_in_flight > 0
            if ticks >= 100:
                machine.clock.advance(1e-3)
        np.testing.assert_array_equal(await answer, get(KERNEL).reference(**inputs)["o"])
        return ticks

    assert asyncio.run(main()) >= 100
    machine.check_clean()


def test_two_runtimes_have_an_npu_each(bench: Callable[..., Bench], tmp_path: Path) -> None:
    first, second = bench(), bench()
    check(first.load())
    assert second.npu.report().launches == 0
