"""Devices that are lost, hang, or compute wrongly: told, opened anew once, and nothing of them left."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from hetero.errors import DeviceLost, DeviceTimeout, ExecutionError, OutOfMemory, Unavailable
from hetero_vulkan.commands import Dispatch, Fill
from hetero_vulkan.device import VulkanDevice
from hetero_vulkan.holder import HEALTHY_SECONDS, DeviceHolder
from hetero_vulkan.selftest import check_device
from tests.vulkan.machine import LOST, NO_MEMORY, TIMED_OUT, Faults, Machine


@pytest.fixture
def holder(machine: Machine, faults: Faults) -> Iterator[DeviceHolder]:
    holder = DeviceHolder(machine.instance, machine.choice, machine.folder, faults.clock)
    yield holder
    holder.close()


def use(device: VulkanDevice) -> None:
    """Some work, whose answer is checked."""
    with device.buffer(400) as buffer, device.record([Fill(buffer, 3)]) as commands:
        commands.run()
        assert (buffer.read(np.uint32, 100) == 3).all()


@pytest.mark.parametrize("function", ["vkQueueSubmit", "vkWaitSemaphores"])
@pytest.mark.parametrize("at", [1, 2, 5])
def test_a_device_that_is_lost_at_any_time_is_opened_anew_and_works(
    holder: DeviceHolder, faults: Faults, function: str, at: int
) -> None:
    first = holder.take()
    if function not in faults.calls:
        pytest.skip(f"{first.physical.name} does not use {function}")
    faults.fail(function, LOST, at=at)
    for _ in range(at - 1):
        use(first)
    with pytest.raises(DeviceLost, match="VK_ERROR_DEVICE_LOST") as caught:
        use(first)
    assert "dmesg" in caught.value.fix
    with pytest.raises(DeviceLost):
        use(first)
    second = holder.take()
    assert second is not first
    use(second)
    first.returned()
    second.returned()


def test_a_lost_device_stays_until_the_last_who_uses_it_has_left(holder: DeviceHolder, faults: Faults) -> None:
    first = holder.take()
    buffer = first.buffer(400)
    seen = buffer.array(np.uint8, 400)
    commands = first.record([Fill(buffer)])
    faults.fail("vkQueueSubmit", LOST)
    with pytest.raises(DeviceLost):
        commands.run()
    second = holder.take()
    assert dict(first.vulkan.live)["Device"] == 2
    seen[:] = 1  # its memory is still there
    commands.close()
    buffer.free()
    first.returned()
    assert dict(first.vulkan.live)["Device"] == 1
    second.returned()


def lose(holder: DeviceHolder, faults: Faults) -> None:
    device = holder.take()
    faults.fail("vkQueueSubmit", LOST)
    with pytest.raises(DeviceLost):
        use(device)
    device.returned()


def test_a_device_that_is_lost_again_soon_is_not_used_any_more(holder: DeviceHolder, faults: Faults) -> None:
    lose(holder, faults)
    lose(holder, faults)
    for _ in range(2):
        with pytest.raises(DeviceLost, match="had been opened anew 0 s before, and is not used any more"):
            holder.take()


def test_a_device_that_worked_for_long_is_opened_anew_again(holder: DeviceHolder, faults: Faults) -> None:
    for _ in range(3):
        lose(holder, faults)
        faults.clock.now += HEALTHY_SECONDS
    use(device := holder.take())
    device.returned()


def test_work_that_does_not_end_is_not_freed_under_the_device(
    machine: Machine, faults: Faults, caplog: pytest.LogCaptureFixture
) -> None:
    device = machine.open(clock=faults.clock)
    buffer = device.buffer(400)
    commands = device.record([Fill(buffer)])
    faults.fail("vkWaitSemaphores", TIMED_OUT, times=10_000)
    with pytest.raises(DeviceTimeout):
        commands.run(1.0)
    before = dict(machine.vulkan.live)
    commands.close()
    buffer.free()
    device.close()
    assert dict(machine.vulkan.live) == before
    assert "given up" in caplog.text
    with pytest.raises(DeviceLost, match="hangs"):
        device.buffer(1)
    # The work has long ended here; without this the test itself would leave something.
    faults.heal()
    commands.wait()
    device._stuck = False
    commands._destroy()
    device._destroy()


def test_a_device_that_is_lost_while_work_is_freed_leaves_nothing(machine: Machine, faults: Faults) -> None:
    with machine.open() as device, device.buffer(400) as buffer:
        with device.record([Fill(buffer)]) as commands:
            commands.submit()
            faults.fail("vkWaitSemaphores", LOST)
        assert device.lost


def test_a_submission_that_is_refused_may_be_tried_again(machine: Machine, faults: Faults) -> None:
    with machine.open() as device, device.buffer(400) as buffer, device.record([Fill(buffer, 9)]) as commands:
        faults.fail("vkQueueSubmit", NO_MEMORY)
        with pytest.raises(OutOfMemory):
            commands.run()
        commands.run()
        assert (buffer.read(np.uint32, 100) == 9).all()


def test_work_of_which_only_a_part_was_taken_is_given_up(machine: Machine, faults: Faults) -> None:
    device = machine.open()
    buffer = device.buffer(400)
    add = device.pipeline("add")
    steps = [Dispatch(add, [buffer] * 3, (1, 1, 1), {"count": 100}, cost=1.0) for _ in range(2)]
    commands = device.record(steps, most_cost=1.0)
    faults.fail("vkQueueSubmit", NO_MEMORY, at=2)
    with pytest.raises(ExecutionError):
        commands.run()
    with pytest.raises(DeviceLost, match="the rest was refused"):
        commands.run()
    device.settle()
    device._stuck = False
    device.close()


def test_a_device_that_does_nothing_is_found_out(machine: Machine, faults: Faults) -> None:
    """Dispatches are dropped: the buffers keep what was in them."""
    with machine.open() as device:
        faults.replace("vkCmdDispatch", lambda *arguments: None)
        with pytest.raises(Unavailable, match="computes wrongly") as caught:
            check_device(device)
        assert "update the GPU's driver" in caught.value.fix


@pytest.mark.parametrize("row", range(12))
def test_one_wrong_number_is_found_out(machine: Machine, monkeypatch: pytest.MonkeyPatch, row: int) -> None:
    from hetero_vulkan import selftest

    right = selftest._asked

    def wrong(device: VulkanDevice, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        results, sums, whole = right(device, x, y)
        results[row, 50] = np.nan
        return results, sums, whole

    monkeypatch.setattr(selftest, "_asked", wrong)
    with machine.open() as device, pytest.raises(Unavailable, match="is nan, expected"):
        check_device(device)


def test_a_wrong_sum_through_shared_memory_is_found_out(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    from hetero_vulkan import selftest

    right = selftest._asked

    def wrong(device: VulkanDevice, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        results, sums, whole = right(device, x, y)
        return results, sums + np.array([0, 0, 1, 0]), whole

    monkeypatch.setattr(selftest, "_asked", wrong)
    with machine.open() as device, pytest.raises(Unavailable, match="through shared memory of workgroup 2"):
        check_device(device)


def test_wrong_subgroups_are_found_out(machine: Machine, faults: Faults) -> None:
    """The second shader is dropped; the first one answers rightly."""
    with machine.open() as device:
        faults.replace_from("vkCmdDispatch", 2, lambda *arguments: None)
        with pytest.raises(Unavailable, match="within subgroups"):
            check_device(device)


def test_differences_that_vulkan_allows_are_told(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    from hetero_vulkan import selftest

    right = selftest._asked

    def other(device: VulkanDevice, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        results, sums, whole = right(device, x, y)
        results[13, x > 44] = np.nan  # as on Mali
        results[14, (x != 0) & (np.abs(x) < 1e-38)] = 0
        return results, sums, whole

    with machine.open() as device:
        usual = check_device(device)
        monkeypatch.setattr(selftest, "_asked", other)
        assert check_device(device) == usual | {"tanh", "denormals"}


def test_a_device_that_computes_wrongly_is_not_asked_again(holder: DeviceHolder, faults: Faults) -> None:
    faults.replace("vkCmdDispatch", lambda *arguments: None)
    with pytest.raises(Unavailable, match="computes wrongly"):
        holder.take()
    faults.heal()
    opened = faults.calls["vkCreateDevice"]
    with pytest.raises(Unavailable, match="computes wrongly"):
        holder.take()
    assert faults.calls["vkCreateDevice"] == opened


def test_a_device_that_is_lost_in_its_self_test_may_be_tried_again(holder: DeviceHolder, faults: Faults) -> None:
    faults.fail("vkQueueSubmit", LOST)
    with pytest.raises(DeviceLost):
        holder.take()
    use(device := holder.take())
    device.returned()
