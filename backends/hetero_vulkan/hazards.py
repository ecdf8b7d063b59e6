"""Barriers between steps, set where one touches what an earlier one wrote, or writes what it read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from hetero_vulkan.buffers import Buffer

if TYPE_CHECKING:
    from hetero_vulkan.device import VulkanDevice

_Range = tuple[int, int, int]


class Hazards:
    """What was read and written since the last barrier, by ranges of memory, whichever buffer they belong to.

    Attributes:
        count: Barriers so far.
    """

    def __init__(self, device: VulkanDevice, target: Any) -> None:
        vulkan = device.vulkan
        self.count = 0
        self._functions = device.functions
        self._null = vulkan.NULL
        self._target = target
        self._read: list[_Range] = []
        self._written: list[_Range] = []
        self._stages = vulkan.flags("VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT", "VK_PIPELINE_STAGE_TRANSFER_BIT")
        self._host_stage = vulkan.constant("VK_PIPELINE_STAGE_HOST_BIT")
        writes = ("VK_ACCESS_SHADER_WRITE_BIT", "VK_ACCESS_TRANSFER_WRITE_BIT")
        reads = ("VK_ACCESS_SHADER_READ_BIT", "VK_ACCESS_TRANSFER_READ_BIT")
        self._between = vulkan.new(
            "VkMemoryBarrier", srcAccessMask=vulkan.flags(*writes), dstAccessMask=vulkan.flags(*writes, *reads)
        )
        self._towards_host = vulkan.new(
            "VkMemoryBarrier",
            srcAccessMask=vulkan.flags(*writes),
            dstAccessMask=vulkan.constant("VK_ACCESS_HOST_READ_BIT"),
        )

    def into(self, target: Any) -> None:
        """Go on in another command buffer, which is submitted after the one before."""
        self._target = target

    def before(self, read: Iterable[Buffer], written: Iterable[Buffer]) -> None:
        """A step comes that reads and writes these."""
        reads, writes = [*map(_range, read)], [*map(_range, written)]
        if _touch(reads, self._written) or _touch(writes, self._written) or _touch(writes, self._read):
            self.barrier()
        self._read += reads
        self._written += writes

    def barrier(self) -> None:
        """All steps before end before those after it begin."""
        self._functions.vkCmdPipelineBarrier(
            self._target, self._stages, self._stages, 0, 1, self._between, 0, self._null, 0, self._null
        )
        self.count += 1
        self._read, self._written = [], []

    def to_host(self) -> None:
        """The host will read what was written."""
        self._functions.vkCmdPipelineBarrier(
            self._target, self._stages, self._host_stage, 0, 1, self._towards_host, 0, self._null, 0, self._null
        )


def _range(buffer: Buffer) -> _Range:
    return id(buffer.block), buffer.offset, buffer.offset + buffer.nbytes


def _touch(some: list[_Range], others: list[_Range]) -> bool:
    return any(
        block == other and first < end and start < last for block, first, last in some for other, start, end in others
    )
