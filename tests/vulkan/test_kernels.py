"""Shaders against numpy, on whichever device is here; run at every subgroup size of lavapipe by `test_widths`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hetero.tensors import Array
from hetero_vulkan.commands import Copy, Dispatch, Fill
from hetero_vulkan.device import VulkanDevice
from hetero_vulkan.instance import version_number
from hetero_vulkan.selftest import check_device
from tests.vulkan.machine import Faults, Machine, graphics_card


def add(device: VulkanDevice, x: Array, y: Array, local_size: int = 64) -> Array:
    """x + y, on the device."""
    pipeline = device.pipeline("add", {"local_size_x": local_size})
    with device.buffer(x.nbytes) as a, device.buffer(y.nbytes) as b, device.buffer(x.nbytes) as c:
        a.write(x)
        b.write(y)
        with device.record([Dispatch(pipeline, [a, b, c], (3, 1, 1), {"count": x.size})]) as commands:
            commands.run()
        return c.read(np.float32, x.shape)


@pytest.mark.parametrize("count", [1, 63, 64, 1000])
@pytest.mark.parametrize("local_size", [1, 32, 256])
def test_add_gives_numpys_sums(device: VulkanDevice, count: int, local_size: int) -> None:
    x, y = np.random.default_rng(count).normal(size=(2, count)).astype(np.float32)
    np.testing.assert_array_equal(add(device, x, y, local_size), x + y)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 17, 16), (3, 37, 53), (2, 64, 5)])
@pytest.mark.parametrize("tile", [4, 16])
def test_transpose_moves_every_element(device: VulkanDevice, shape: tuple[int, int, int], tile: int) -> None:
    matrices = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    count, rows, columns = shape
    pipeline = device.pipeline("transpose", {"TILE": tile})
    groups = (-(-columns // tile), -(-rows // tile), count)
    with device.buffer(matrices.nbytes) as source, device.buffer(matrices.nbytes) as target:
        source.write(matrices)
        with device.record([Dispatch(pipeline, [source, target], groups, {"rows": rows, "columns": columns})]) as work:
            work.run()
        answer = target.read(np.float32, (count, columns, rows))
    np.testing.assert_array_equal(answer, matrices.transpose(0, 2, 1))


def test_the_self_test_finds_this_device_right(device: VulkanDevice) -> None:
    assert check_device(device) <= {"exp", "tanh", "infinity", "denormals"}


@pytest.mark.parametrize("version", [(1, 1), (1, 2), (1, 3)])
def test_an_older_vulkan_has_by_extensions_what_a_newer_one_has_in_its_core(
    tmp_path: Path, validated: bool, messages: list[str], faults: Faults, version: tuple[int, int]
) -> None:
    def known(number: Any) -> int:
        number[0] = version_number(version)
        return 0

    faults.replace("vkEnumerateInstanceVersion", known)
    machine = Machine(tmp_path, messages.append if validated else None, faults)
    assert machine.choice.physical.version == version
    with machine.open() as device:
        check_device(device)
        x = np.arange(100, dtype=np.float32)
        np.testing.assert_array_equal(add(device, x, x), x + x)
    machine.instance.close()
    if machine.choice.physical.features["timelineSemaphore"]:
        assert ("vkWaitSemaphoresKHR" in faults.calls) == (version < (1, 2))
    assert dict(machine.vulkan.live) == {}
    assert messages == []


def test_memory_that_the_host_does_not_see_is_reached_by_copies(machine: Machine) -> None:
    x, y = np.random.default_rng(1).normal(size=(2, 100_000)).astype(np.float32)
    with machine.open(graphics_card) as card:
        with card.buffer(400) as own, card.buffer(400, "upload") as up, card.buffer(400, "download") as down:
            assert [own.mapped, up.mapped, down.mapped] == [False, True, True]
        np.testing.assert_array_equal(add(card, x, y), x + y)
        check_device(card)


def test_memory_that_is_not_coherent_is_flushed_and_invalidated(machine: Machine, faults: Faults) -> None:
    with machine.open(graphics_card) as card, card.buffer(1000, "upload") as up, card.buffer(1000, "download") as down:
        up.write(np.arange(250, dtype=np.float32))
        card.copy(up, down)
        np.testing.assert_array_equal(down.read(np.float32, 250), np.arange(250))
    assert faults.calls["vkFlushMappedMemoryRanges"] == 1
    assert faults.calls["vkInvalidateMappedMemoryRanges"] == 1


def test_copies_and_fills_reach_their_range_and_no_further(device: VulkanDevice) -> None:
    with device.buffer(1024) as source, device.buffer(1024) as target:
        source.write(np.arange(256, dtype=np.uint32))
        steps = [Fill(target, 7), Copy(source.view(256, 512), target.view(256, 512))]
        with device.record(steps) as commands:
            commands.run()
        answer = target.read(np.uint32, 256)
    np.testing.assert_array_equal(answer, [*[7] * 64, *range(64, 192), *[7] * 64])


def test_the_device_works_in_an_arrays_own_memory(device: VulkanDevice) -> None:
    step = device.import_alignment
    if not step:
        pytest.skip(f"{device.physical.name} imports no memory of the host's")
    whole = np.zeros(3 * step, np.uint8)
    first = -whole.ctypes.data % step
    array = whole[first : first + 2 * step].view(np.float32)
    pipeline = device.pipeline("add")
    with device.import_host(array) as own:
        array[:] = 2
        with device.record([Dispatch(pipeline, [own, own, own], (1, 1, 1), {"count": array.size})]) as commands:
            commands.run()
            array += 1
            commands.run()
    assert (array == 10).all()
