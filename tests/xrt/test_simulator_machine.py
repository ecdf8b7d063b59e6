"""The simulated machine: versions of XRT, what may be missing, contexts and columns, its description."""

from __future__ import annotations

import gc
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hetero.errors import OptionError
from hetero.testing.xrt.clock import ControlledClock
from hetero.testing.xrt.phoenix import SimulatedPhoenix
from hetero.testing.xrt.pyxrt import simulated_pyxrt

from .machine import Machine, attention, attention_tiles, context_of

TILE, DISPATCH = 2.85e-3, 130e-6


# Versions.


@pytest.mark.parametrize(
    ("xrt", "there", "missing"),
    [
        ("2.13", {"load_xclbin"}, {"hw_context", "register_xclbin", "enumerate_devices", "runlist", "wait2"}),
        ("2.15", {"load_xclbin"}, {"hw_context", "register_xclbin", "enumerate_devices", "runlist", "wait2"}),
        ("2.16", {"hw_context", "register_xclbin"}, {"enumerate_devices", "runlist", "wait2"}),
        ("2.17", {"hw_context", "register_xclbin", "enumerate_devices"}, {"runlist", "wait2"}),
        ("2.19", {"hw_context", "register_xclbin", "enumerate_devices"}, {"runlist", "wait2"}),
        ("2.20", {"hw_context", "register_xclbin", "enumerate_devices", "runlist", "wait2"}, set()),
        ("2.23", {"hw_context", "register_xclbin", "enumerate_devices", "runlist", "wait2", "load_xclbin"}, set()),
    ],
)
def test_each_version_of_xrt_has_what_it_had(xrt: str, there: set[str], missing: set[str]) -> None:
    x = simulated_pyxrt(SimulatedPhoenix(xrt=xrt), clock=ControlledClock())
    names = {*dir(x), *dir(x.device), *dir(x.run)}
    assert there <= names
    assert not missing & names


@pytest.mark.parametrize("xrt", ["2.13", "2.16", "2.20"])
def test_old_programs_run_through_load_xclbin(tmp_path: Path, xrt: str) -> None:
    machine = Machine(tmp_path, xrt=xrt, open_it=False)
    machine.device = machine.x.device(0)
    uuid = machine.device.load_xclbin(machine.xclbin_path)
    machine.kernel = machine.x.kernel(machine.device, uuid, "MLIR_AIE")
    whole = machine.words.nbytes
    machine.instructions = machine.instruction_buffer(sync=False)
    machine.instructions.sync(machine.to_device, whole, 0)
    if xrt == "2.13":
        with pytest.raises(TypeError):
            machine.instructions.sync(machine.to_device)
        with pytest.raises(AttributeError):
            _ = machine.x.hw_context
    source, target = machine.buffer(3, attention_tiles(4), sync=False), machine.buffer(4)
    source.sync(machine.to_device, source.size(), 0)
    assert machine.call([source, target]).wait() is machine.states.ERT_CMD_STATE_COMPLETED
    target.sync(machine.from_device, target.size(), 0)
    np.testing.assert_array_equal(
        target.read(target.size(), 0).reshape(4, 64, 64), attention(attention_tiles(4)), strict=True
    )
    assert machine.npu.report().contexts == 1


def test_the_newest_version_takes_xclbins_paths_and_contexts_and_warns_of_the_old_ways(tmp_path: Path) -> None:
    machine = Machine(tmp_path, xrt="2.23")
    x = machine.x
    for source in (machine.xclbin, machine.xclbin_path, machine.xclbin.get_uuid()):
        context = x.hw_context(machine.device, source)
        assert x.kernel(context, "MLIR_AIE").group_id(3) & 0xFFFF == 0
    assert x.bo(x.hw_context(machine.device, machine.xclbin, x.hw_context.shared), 64, 0).size() == 64
    assert x.bo(x.hw_context(machine.device, machine.xclbin, {"gops": 1}), 64, x.bo.host_only, 0).size() == 64
    with pytest.warns(DeprecationWarning, match="load_xclbin"):
        uuid = machine.device.load_xclbin(machine.xclbin_path)
    with pytest.warns(DeprecationWarning, match="use kernel\\(hw_context, name\\)"):
        x.kernel(machine.device, uuid, "MLIR_AIE")
    older = Machine(tmp_path / "older", xrt="2.20")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        older.x.kernel(older.device, older.device.load_xclbin(older.xclbin_path), "MLIR_AIE")
    with pytest.raises(TypeError):
        older.x.bo(context_of(older), 64, older.x.bo.host_only, 0)


def test_an_xclbin_tells_its_kernel_and_arguments(tmp_path: Path) -> None:
    machine = Machine(tmp_path, layout="separate")
    (kernel,) = machine.xclbin.get_kernels()
    assert (kernel.get_name(), kernel.get_num_args()) == ("MLIR_AIE", 3 + 8)


# What is not there.


def test_no_device() -> None:
    x = simulated_pyxrt(SimulatedPhoenix(devices=0), clock=ControlledClock())
    assert x.enumerate_devices() == 0
    with pytest.raises(RuntimeError, match=r"^ No such device with index '0'$"):
        x.device(0)
    assert simulated_pyxrt(clock=ControlledClock()).enumerate_devices() == 1


def test_no_permission() -> None:
    x = simulated_pyxrt(SimulatedPhoenix(permitted=False), clock=ControlledClock())
    with pytest.raises(RuntimeError, match=r"Open /dev/accel/accel0 failed \(err=-13\)"):
        x.device(0)


def test_the_limit_of_locked_memory(tmp_path: Path) -> None:
    machine = Machine(tmp_path, memlock_bytes=100_000)
    kept = machine.buffer(3)
    with pytest.raises(RuntimeError, match=r"mmap\(.*\) failed \(err=-11\)"):
        machine.buffers(attention_tiles(4))
    del kept
    assert len(machine.buffers(attention_tiles(4))) == 2, "freed memory counts no more"


def test_an_xclbin_must_be_registered(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    with pytest.raises(RuntimeError, match="No xclbin with uuid"):
        machine.x.hw_context(machine.x.device(0), machine.xclbin.get_uuid())


# Contexts and columns.


def test_six_contexts_and_no_more(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    contexts = [context_of(machine) for _ in range(5)]
    assert machine.npu.report().contexts == 6
    with pytest.raises(RuntimeError, match=r"DRM_IOCTL_AMDXDNA_CREATE_HWCTX IOCTL failed \(err=-22\)"):
        context_of(machine)
    contexts.pop()
    gc.collect()
    contexts.append(context_of(machine))
    assert machine.npu.report().contexts == 6


def test_a_context_takes_its_time_to_make(tmp_path: Path) -> None:
    clock = ControlledClock()
    machine = Machine(tmp_path, clock=clock)
    assert clock.now() == clock.held == pytest.approx(0.035)
    context_of(machine)
    assert clock.now() == pytest.approx(0.07)
    newer = ControlledClock()
    Machine(tmp_path, clock=newer, xrt="2.23")
    assert newer.now() == pytest.approx(0.035)
    assert newer.held == 0, "2.23 releases the GIL while it makes a context"


def launch_on(machine: Machine, kernels: list[Any]) -> tuple[list[Any], list[list[Any]]]:
    buffers = [machine.buffers(attention_tiles(machine.design.tiles_per_launch, i)) for i in range(len(kernels))]
    return [machine.call(mine, kernel) for mine, kernel in zip(buffers, kernels, strict=True)], buffers


def test_contexts_of_one_column_work_side_by_side(tmp_path: Path) -> None:
    clock = ControlledClock()
    machine = Machine(tmp_path, columns=1, tiles_per_launch=1, clock=clock)
    kernels = [machine.kernel, *(machine.open() for _ in range(3))]
    began = clock.now()
    runs, kept = launch_on(machine, kernels)
    for run in runs:
        run.wait()
    assert clock.now() - began == pytest.approx(DISPATCH + TILE)
    assert machine.npu.report().column_launches == (1, 1, 1, 1)
    for i, buffers in enumerate(kept):
        np.testing.assert_array_equal(machine.read(buffers[1]).reshape(1, 64, 64), attention(attention_tiles(1, i)))


def test_more_contexts_than_columns_share_time(tmp_path: Path) -> None:
    clock = ControlledClock()
    machine = Machine(tmp_path, columns=1, tiles_per_launch=1, clock=clock)
    kernels = [machine.kernel, *(machine.open() for _ in range(5))]
    began = clock.now()
    runs, kept = launch_on(machine, kernels)
    for run in runs:
        run.wait()
    assert clock.now() - began == pytest.approx(2 * (DISPATCH + TILE))
    assert sorted(machine.npu.report().column_launches) == [1, 1, 2, 2]
    assert len(kept) == 6


def test_an_xclbin_of_four_columns_takes_them_all(tmp_path: Path) -> None:
    clock = ControlledClock()
    machine = Machine(tmp_path, columns=4, tiles_per_launch=4, clock=clock)
    second = machine.open()
    began = clock.now()
    runs, kept = launch_on(machine, [machine.kernel, second])
    for run in runs:
        run.wait()
    assert clock.now() - began == pytest.approx(2 * (DISPATCH + TILE))
    assert machine.npu.report().column_launches == (2, 2, 2, 2)
    assert len(kept) == 2


def test_switching_xclbins_on_a_column_costs(tmp_path: Path) -> None:
    clock = ControlledClock()
    machine = Machine(tmp_path, clock=clock)
    folder = tmp_path / "other"
    other = Machine(folder, "gelu_i8")
    xclbin = machine.x.xclbin(other.xclbin_path)
    machine.device.register_xclbin(xclbin)
    gelu = machine.x.kernel(machine.x.hw_context(machine.device, xclbin.get_uuid()), "MLIR_AIE")
    buffers = machine.buffers(attention_tiles(4))
    machine.call(buffers).wait()
    began = clock.now()
    machine.call(buffers).wait()
    assert clock.now() - began == pytest.approx(DISPATCH + TILE)
    began = clock.now()
    # Instructions of another kernel: the launch times out, but the column was switched for it.
    machine.call(buffers, gelu).wait()
    assert clock.now() - began == pytest.approx(2.81e-3 + 2.0)


# The description.


def test_a_description_survives_its_text() -> None:
    phoenix = SimulatedPhoenix(
        xrt="2.16",
        devices=0,
        permitted=False,
        memlock_bytes=65536,
        tile_seconds=1e-4,
        timing="cycles",
        utilisation=0.123,
        faults={"error": 0.1, "hang": 0.05},
        hung_column=2,
        real_crashes=True,
        seed=7,
    )
    assert SimulatedPhoenix.from_text(phoenix.to_text()) == phoenix
    assert SimulatedPhoenix.from_text("") == SimulatedPhoenix.from_text(SimulatedPhoenix().to_text())
    assert SimulatedPhoenix.from_text("tile_us=900; faults=hang:0.01") == SimulatedPhoenix(
        tile_seconds=9e-4, faults={"hang": 0.01}
    )


@pytest.mark.parametrize(
    "text",
    [
        "tile=1",
        "tile_us=x",
        "tile_us=",
        "faults=nan:0.1",
        "faults=hang:2",
        "faults=hang:0.6,error:0.6",
        "xrt=2.12",
        "xrt=two",
        "timing=days",
        "devices=2",
    ],
)
def test_a_description_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(OptionError):
        SimulatedPhoenix.from_text(text)
