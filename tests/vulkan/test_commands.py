"""Recorded work: its order, its end, its parts, and what it refuses."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from hetero.errors import ClosedError, DeviceTimeout, ExecutionError, OptionError, Unsupported
from hetero_vulkan.buffers import Buffer
from hetero_vulkan.commands import Commands, Copy, Dispatch, Fill
from hetero_vulkan.device import VulkanDevice
from hetero_vulkan.physical import Physical
from tests.vulkan.machine import TIMED_OUT, Faults, Machine, limited, without

COUNT = 5000


def sum_of(device: VulkanDevice, x: Buffer, y: Buffer, z: Buffer, cost: float = 0.0) -> Dispatch:
    pipeline = device.pipeline("add", {"local_size_x": 32})
    return Dispatch(pipeline, [x, y, z], (8, 1, 1), {"count": x.nbytes // 4}, cost)


@pytest.fixture
def buffers(device: VulkanDevice) -> Iterator[list[Buffer]]:
    made = [device.buffer(4 * COUNT) for _ in range(4)]
    for number, buffer in enumerate(made):
        buffer.write(np.full(COUNT, number + 1, np.float32))
    yield made
    for buffer in made:
        buffer.free()


def test_a_step_sees_all_that_the_steps_before_it_wrote(device: VulkanDevice, buffers: list[Buffer]) -> None:
    a, b, _, _ = buffers
    # Fibonacci numbers: each step needs the whole of the one before.
    steps = [sum_of(device, a, b, (a, b)[number % 2]) for number in range(60)]
    with device.record(steps) as commands:
        assert commands.barriers == 59
        commands.run()
    first, second = 1.0, 2.0
    for number in range(60):
        first, second = (first + second, second) if number % 2 == 0 else (first, np.float32(first + second))
        first, second = np.float32(first), np.float32(second)
    assert (a.read(np.float32, COUNT) == first).all()
    assert (b.read(np.float32, COUNT) == second).all()


def test_barriers_are_set_where_steps_meet_and_nowhere_else(device: VulkanDevice, buffers: list[Buffer]) -> None:
    a, b, c, d = buffers
    half = 2048
    cases = [
        ([sum_of(device, a, b, c), sum_of(device, a, b, d)], 0, "both read a and b"),
        ([sum_of(device, a, b, c), sum_of(device, c, b, d)], 1, "c is read after it was written"),
        ([sum_of(device, a, b, c), sum_of(device, b, b, a)], 1, "a is written after it was read"),
        ([sum_of(device, a, b, c), sum_of(device, b, b, c)], 1, "c is written twice"),
        ([Copy(a, c), Fill(a)], 1, "a copy reads a before it is filled"),
        ([Fill(c.view(0, half)), Fill(c.view(half, half))], 0, "halves of c"),
        ([Fill(c.view(0, half + 64)), Fill(c.view(half, half))], 1, "parts of c that overlap"),
    ]
    for steps, barriers, why in cases:
        with device.record(steps) as commands:
            assert commands.barriers == barriers, why


def test_commands_run_again_and_again_with_what_is_in_the_buffers(device: VulkanDevice, buffers: list[Buffer]) -> None:
    a, b, c, _ = buffers
    with device.record([sum_of(device, a, b, c)]) as commands:
        for number in range(20):
            a.write(np.full(COUNT, number, np.float32))
            commands.run()
            assert (c.read(np.float32, COUNT) == number + 2).all()


def test_submissions_follow_each_other_without_a_wait_between(device: VulkanDevice, buffers: list[Buffer]) -> None:
    a, b, c, d = buffers
    with device.record([sum_of(device, a, b, c)]) as first, device.record([sum_of(device, c, c, d)]) as second:
        first.submit()
        second.submit()
        second.wait()
        first.wait()
        assert first.done()
        assert second.done()
    assert (d.read(np.float32, COUNT) == 6).all()


def test_work_is_cut_by_its_cost_and_still_in_order(
    device: VulkanDevice, buffers: list[Buffer], faults: Faults
) -> None:
    a, b, _, _ = buffers
    steps = [sum_of(device, a, b, a, cost=1.0) for _ in range(10)]
    before = faults.calls.get("vkQueueSubmit", 0)
    with device.record(steps, most_cost=3.0) as commands:
        assert commands.submissions == 4
        commands.run()
        assert faults.calls["vkQueueSubmit"] - before == 4
    assert (a.read(np.float32, COUNT) == 21).all()
    with device.record([sum_of(device, a, b, a, cost=9.0)], most_cost=3.0) as commands:
        assert commands.submissions == 1


def test_each_step_is_timed_by_the_device(device: VulkanDevice, buffers: list[Buffer]) -> None:
    if not device.queues[0].family.timestamp_bits:
        pytest.skip(f"{device.physical.name} has no timestamps")
    a, b, c, _ = buffers
    with device.record([sum_of(device, a, b, c), Fill(c)], timed=True) as commands:
        commands.run()
        seconds = commands.seconds()
    assert len(seconds) == 2
    assert all(0 <= each < 10 for each in seconds)
    assert seconds[0] > 0
    with device.record([Fill(c)]) as commands, pytest.raises(OptionError, match="timed=True"):
        commands.seconds()


def fenced(physical: Physical) -> Physical:
    return without(physical, "timelineSemaphore")


@pytest.mark.parametrize("change", [lambda physical: physical, fenced], ids=["semaphore", "fence"])
def test_the_end_is_told_by_a_semaphore_or_a_fence(
    machine: Machine, faults: Faults, change: Callable[[Physical], Physical]
) -> None:
    with machine.open(change) as device, device.buffer(64) as buffer, device.record([Fill(buffer, 5)]) as commands:
        assert commands.done()
        for _ in range(3):
            commands.run()
        commands.submit()
        while not commands.done():
            pass
        assert (buffer.read(np.uint32, 16) == 5).all()
    assert ("vkWaitForFences" in faults.calls) == (change is fenced)


@pytest.mark.parametrize("change", [lambda physical: physical, fenced], ids=["semaphore", "fence"])
def test_a_wait_ends_in_time_and_may_be_taken_up_again(
    machine: Machine, faults: Faults, change: Callable[[Physical], Physical]
) -> None:
    wait = "vkWaitForFences" if change is fenced else "vkWaitSemaphores"
    with machine.open(change, clock=faults.clock) as device, device.buffer(64) as buffer:
        with device.record([Fill(buffer, 5)]) as commands:
            faults.fail(wait, TIMED_OUT, times=1000)
            commands.submit()
            began = faults.clock.now
            with pytest.raises(DeviceTimeout, match=r"has not ended its work in 2\.5 s"):
                commands.wait(2.5)
            assert faults.clock.now - began == pytest.approx(2.5)
            with pytest.raises(ExecutionError, match="still running"):
                commands.submit()
            faults.heal()
            commands.wait(2.5)
            commands.run()
        assert (buffer.read(np.uint32, 16) == 5).all()


def test_closed_commands_and_freed_buffers_are_refused(device: VulkanDevice, buffers: list[Buffer]) -> None:
    a, b, c, _ = buffers
    with device.record([sum_of(device, a, b, c)]) as commands:
        commands.run()
    commands.close()
    with pytest.raises(ClosedError, match="record them again"):
        commands.submit()
    freed = device.buffer(64)
    freed.free()
    freed.free()
    with pytest.raises(ClosedError, match="freed"):
        device.record([Fill(freed)])


def refusals(device: VulkanDevice, a: Buffer, b: Buffer, c: Buffer) -> list[tuple[Callable[[], object], type, str]]:
    add = device.pipeline("add")
    count = {"count": 1}

    def recorded(*step: object) -> Callable[[], Commands]:
        return lambda: device.record([Dispatch(*step)])  # type: ignore[arg-type]

    return [
        (recorded(add, [a, b], (1, 1, 1), count), OptionError, "2 buffers, expected 3"),
        (recorded(add, [a, b, c], (0, 1, 1), count), Unsupported, "workgroups"),
        (recorded(add, [a, b, c], (1 << 31, 1, 1), count), Unsupported, "workgroups"),
        (recorded(add, [a, b, c], (1, 1, 1), {"n": 1}), OptionError, "'count'"),
        (recorded(add, [a, b, c], (1, 1, 1), {"count": -1}), OptionError, "push constant count is -1"),
        (recorded(add, [a, b, c], (1, 1, 1), b"12345"), OptionError, "expected 4"),
        (lambda: device.record([Copy(a, a.view(0, 64))]), OptionError, "a copy of"),
        (lambda: device.record([Fill(a.view(0, 63))]), OptionError, "multiple of 4"),
        (lambda: a.view(1, 8), OptionError, "multiple of"),
        (lambda: a.view(0, a.nbytes + 1), OptionError, "a part of it"),
        (lambda: a.write(np.zeros(a.nbytes + 1, np.uint8)), OptionError, "bytes for a buffer"),
        (lambda: a.read(np.uint8, a.nbytes + 1), OptionError, "in a buffer of"),
        (lambda: device.buffer(0), OptionError, "at least 1"),
        (lambda: device.pipeline("add", {"size": 1}), OptionError, "no constant size"),
        (lambda: device.pipeline("add", {"local_size_x": -1}), OptionError, "local_size_x is -1"),
        (lambda: device.pipeline("add", {"local_size_x": 1 << 20}), Unsupported, "workgroups of"),
        (lambda: device.pipeline("add", subgroup=3), Unsupported, "subgroups of 3"),
    ]


def test_what_does_not_fit_is_refused_with_what_was_expected(device: VulkanDevice, buffers: list[Buffer]) -> None:
    a, b, c, _ = buffers
    for attempt, error, told in refusals(device, a, b, c):
        with pytest.raises(error, match=told):
            attempt()


def test_a_binding_that_is_too_large_is_refused_and_its_parts_are_not(machine: Machine) -> None:
    with (
        machine.open(lambda physical: limited(physical, maxStorageBufferRange=1024)) as device,
        device.buffer(4000) as large,
    ):
        with pytest.raises(Unsupported, match="binds at most 1024"):
            device.record([sum_of(device, large, large, large)])
        with pytest.raises(OptionError, match="cannot be bound"):
            large.parts(2000)
        parts = large.parts(16)
        assert [part.nbytes for part in parts] == [1024, 1024, 1024, 928]
        large.write(np.arange(1000, dtype=np.float32))
        with device.record([sum_of(device, part, part, part) for part in parts]) as commands:
            commands.run()
        np.testing.assert_array_equal(large.read(np.float32, 1000), 2 * np.arange(1000))


def test_a_shader_that_the_device_lacks_something_for_is_refused(machine: Machine) -> None:
    def poor(physical: Physical) -> Physical:
        return dataclasses.replace(physical, subgroup_operations=0)

    with machine.open(poor) as device, pytest.raises(Unsupported, match="operations on subgroups"):
        device.pipeline("selftest_subgroup")


def test_buffers_of_another_device_are_refused(machine: Machine, device: VulkanDevice) -> None:
    with machine.open() as other, other.buffer(64) as buffer, pytest.raises(OptionError, match="another device"):
        device.record([Fill(buffer)])


def test_a_pipeline_is_compiled_once(device: VulkanDevice) -> None:
    assert device.pipeline("add", {"local_size_x": 64}) is device.pipeline("add", {"local_size_x": 64})
    assert device.pipeline("add", {"local_size_x": 32}) is not device.pipeline("add", {"local_size_x": 64})


def test_threads_with_commands_of_their_own_do_not_meet(device: VulkanDevice) -> None:
    def work(number: int) -> bool:
        with device.buffer(400) as x, device.buffer(400) as y:
            x.write(np.full(100, number, np.float32))
            y.write(np.zeros(100, np.float32))
            with device.record([sum_of(device, x, y, y)], lane=number % device.lanes) as commands:
                for _ in range(20):
                    commands.run()
            return bool((y.read(np.float32, 100) == 20 * number).all())

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(24)))
