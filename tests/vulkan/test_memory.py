"""Buffers: never two in one place, all of it given back, and an error when there is no room."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hetero.errors import OutOfMemory, Unsupported
from hetero_vulkan.buffers import Buffer
from hetero_vulkan.device import VulkanDevice
from hetero_vulkan.memory import BLOCK_BYTES, suitable
from hetero_vulkan.physical import MemoryType
from tests.vulkan.machine import NO_MEMORY, Faults, Machine, limited, made_up

MIB = 1 << 20


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 200_000), st.booleans(), st.integers(0, 1 << 30)), max_size=40))
def test_buffers_keep_their_content_whatever_is_made_and_freed_around_them(
    tmp_path_factory: pytest.TempPathFactory, validated: bool, turns: list[tuple[int, bool, int]]
) -> None:
    machine = Machine(tmp_path_factory.mktemp("machine"), None)
    with machine.open() as device:
        kept: list[tuple[Buffer, np.ndarray]] = []
        for nbytes, freeing, number in turns:
            if freeing and kept:
                buffer, content = kept.pop(number % len(kept))
                np.testing.assert_array_equal(buffer.read(np.uint8, content.size), content)
                buffer.free()
            buffer = device.buffer(nbytes)
            content = np.random.default_rng(number).integers(0, 256, nbytes, np.uint8)
            buffer.write(content)
            kept.append((buffer, content))
        assert device.memory.buffers == len(kept)
        assert device.memory.in_use_bytes >= sum(content.size for _, content in kept)
        for buffer, content in kept:
            np.testing.assert_array_equal(buffer.read(np.uint8, content.size), content)
            buffer.free()
        assert (device.memory.in_use_bytes, device.memory.buffers) == (0, 0)
    machine.instance.close()
    assert dict(machine.vulkan.live) == {}


def test_statistics_tell_what_is_held_and_the_most_that_was_in_use(device: VulkanDevice) -> None:
    first, second = device.buffer(1000), device.buffer(2000)
    first.free()
    told = device.memory
    assert (told.name, told.buffers, told.hits, told.misses) == (device.name, 1, 1, 1)
    assert (told.in_use_bytes, told.high_water_bytes) == (2048, 1024 + 2048)
    assert told.in_use_bytes + told.idle_bytes == BLOCK_BYTES
    second.free()


def test_an_empty_block_is_kept_for_the_next_buffer_and_large_ones_go_back(device: VulkanDevice) -> None:
    for _ in range(3):
        device.buffer(1000).free()
    assert device.memory.misses == 1
    large = device.buffer(2 * BLOCK_BYTES)
    assert device.memory.in_use_bytes + device.memory.idle_bytes == 3 * BLOCK_BYTES
    large.free()
    assert device.memory.idle_bytes == BLOCK_BYTES


def test_a_buffer_may_be_aligned_to_pages(device: VulkanDevice) -> None:
    device.buffer(100)
    with device.buffer(100, alignment=4096) as buffer:
        assert buffer.offset == 4096


def test_when_there_is_no_room_for_a_block_the_buffer_gets_what_it_needs(device: VulkanDevice, faults: Faults) -> None:
    faults.fail("vkAllocateMemory", NO_MEMORY, times=2)
    with device.buffer(1000) as buffer:
        buffer.write(np.arange(250, dtype=np.float32))
        assert device.memory.in_use_bytes + device.memory.idle_bytes == 1024
    assert faults.calls["vkAllocateMemory"] == 3


def test_idle_memory_is_given_up_before_a_buffer_is_refused(machine: Machine) -> None:
    with machine.open(memory_limit=100 * MIB) as device:
        device.buffer(MIB).free()
        assert device.memory.idle_bytes == BLOCK_BYTES
        with device.buffer(90 * MIB):
            assert device.memory.idle_bytes == 0


@pytest.mark.parametrize("function", ["vkAllocateMemory", "vkCreateBuffer", "vkBindBufferMemory", "vkMapMemory"])
@pytest.mark.parametrize("nbytes", [1000, 40 * MIB])
def test_out_of_memory_is_told_and_passes(device: VulkanDevice, faults: Faults, function: str, nbytes: int) -> None:
    with device.buffer(30 * MIB) as other:
        other.write(np.ones(100, np.float32))
        faults.fail(function, NO_MEMORY, times=1000)
        with pytest.raises(OutOfMemory, match="VK_ERROR_OUT_OF_DEVICE_MEMORY") as caught:
            device.buffer(nbytes if nbytes > MIB else BLOCK_BYTES)
        assert "memory_limit" in caught.value.fix
        faults.heal()
        with device.buffer(nbytes) as buffer:
            buffer.write(np.ones(10, np.float32))
        assert (other.read(np.float32, 100) == 1).all()


@pytest.mark.parametrize(
    "function",
    [
        "vkCreateSemaphore",
        "vkCreateCommandPool",
        "vkCreateDescriptorPool",
        "vkAllocateDescriptorSets",
        "vkAllocateCommandBuffers",
        "vkEndCommandBuffer",
    ],
)
def test_recording_that_fails_leaves_nothing(device: VulkanDevice, faults: Faults, function: str) -> None:
    from tests.vulkan.test_commands import sum_of

    with device.buffer(400) as a:
        step = sum_of(device, a, a, a)
        before = dict(device.vulkan.live)
        faults.fail(function, NO_MEMORY)
        with pytest.raises(OutOfMemory):
            device.record([step])
        assert dict(device.vulkan.live) == before
        with device.record([step]) as commands:
            commands.run()


@pytest.mark.parametrize(
    "function",
    ["vkCreateShaderModule", "vkCreateDescriptorSetLayout", "vkCreatePipelineLayout", "vkCreateComputePipelines"],
)
def test_compiling_that_fails_may_be_tried_again(device: VulkanDevice, faults: Faults, function: str) -> None:
    faults.fail(function, NO_MEMORY)
    with pytest.raises(OutOfMemory):
        device.pipeline("add")
    device.pipeline("add")


@pytest.mark.parametrize("function", ["vkCreateDevice", "vkCreatePipelineCache"])
def test_a_device_that_cannot_be_opened_leaves_nothing(machine: Machine, faults: Faults, function: str) -> None:
    before = dict(machine.vulkan.live)
    faults.fail(function, NO_MEMORY)
    with pytest.raises(OutOfMemory):
        machine.open()
    assert dict(machine.vulkan.live) == before


def test_a_limit_is_kept(machine: Machine) -> None:
    with machine.open(memory_limit=10 * MIB) as device:
        with device.buffer(8 * MIB), pytest.raises(OutOfMemory, match=f"the limit is {10 * MIB} bytes"):
            device.buffer(4 * MIB)
        assert device.memory.limit_bytes == 10 * MIB


def test_a_buffer_beyond_the_largest_allocation_is_refused(machine: Machine) -> None:
    with machine.open(lambda physical: limited(physical, maxMemoryAllocationSize=MIB)) as device:
        with pytest.raises(OutOfMemory, match=f"allocates at most {MIB} at once"):
            device.buffer(MIB + 1)
        with device.buffer(MIB // 4):
            assert device.memory.in_use_bytes + device.memory.idle_bytes == MIB


def test_what_is_left_is_freed_with_the_device(machine: Machine) -> None:
    device = machine.open()
    device.buffer(1000)
    if device.import_alignment:
        import mmap

        device.import_host(np.frombuffer(mmap.mmap(-1, device.import_alignment), np.uint8))
    device.close()
    device.close()


def test_arrays_that_cannot_be_imported_are_refused(machine: Machine) -> None:
    with machine.open() as device:
        whole = np.zeros(3 * 4096, np.uint8)
        first = -whole.ctypes.data % 4096 + 1
        with pytest.raises(Unsupported, match="whole units"):
            device.import_host(whole[first : first + 4096])
    with (
        machine.open(lambda physical: limited(physical, minImportedHostPointerAlignment=0)) as device,
        pytest.raises(Unsupported, match="cannot work in memory of the host's"),
    ):
        device.import_host(whole)


CARD = (
    MemoryType(0, 0, local=True, visible=False, coherent=False, cached=False),
    MemoryType(1, 1, local=False, visible=True, coherent=True, cached=False),
    MemoryType(2, 1, local=False, visible=True, coherent=True, cached=True),
    MemoryType(3, 0, local=True, visible=True, coherent=True, cached=False),
)


@pytest.mark.parametrize(
    ("sort", "purpose", "best"),
    [
        ("discrete", "device", 0),
        ("discrete", "upload", 1),
        ("discrete", "download", 2),
        ("integrated", "device", 2),
        ("integrated", "upload", 2),
    ],
)
def test_memory_is_chosen_by_where_the_device_works(sort: str, purpose: str, best: int) -> None:
    physical = made_up(sort=sort, memory_types=CARD)
    assert suitable(physical, purpose)[0].index == best  # type: ignore[arg-type]


def test_an_integrated_gpu_takes_cached_memory_though_it_needs_flushing() -> None:
    mali = (CARD[3], dataclasses.replace(CARD[3], index=4, coherent=False, cached=True))
    assert suitable(made_up(sort="integrated", memory_types=mali), "device")[0].index == 4


def test_nothing_is_written_outside_the_cache_folder(machine: Machine, tmp_path: Path) -> None:
    with machine.open() as device:
        device.pipeline("add")
    assert {path.parent.name for path in tmp_path.rglob("*.bin")} == {"vulkan"}
