"""Memory of a device: large blocks of it, cut into ranges."""

from __future__ import annotations

import threading
from bisect import insort
from typing import TYPE_CHECKING, Any, Literal

from hetero.errors import OutOfMemory, Unsupported
from hetero.memory.statistics import PoolStatistics
from hetero_vulkan.failures import failure
from hetero_vulkan.physical import MemoryType, Physical

if TYPE_CHECKING:
    from hetero_vulkan.device import VulkanDevice

Purpose = Literal["device", "upload", "download"]
"""What memory is for: `device`, for what the device works on; `upload`, for the host to write and the device to copy
from; `download`, for the device to copy to and the host to read. Where the device works in the host's memory, all three
are the same."""

_USES = (
    "VK_BUFFER_USAGE_STORAGE_BUFFER_BIT",
    "VK_BUFFER_USAGE_TRANSFER_SRC_BIT",
    "VK_BUFFER_USAGE_TRANSFER_DST_BIT",
)
_WHOLE = 0xFFFFFFFFFFFFFFFF  # VK_WHOLE_SIZE

BLOCK_BYTES = 64 << 20
ALIGNMENT = 256
"""Bytes: a multiple of every alignment that a device may ask for, and of a cache line."""


def suitable(physical: Physical, purpose: Purpose) -> list[MemoryType]:
    """The memory types for a purpose, the best first."""

    def merit(kind: MemoryType) -> tuple[bool, ...]:
        if purpose == "device" and not physical.unified:
            # Memory of a graphics card that the host can map as well may be a small window.
            return (kind.local, not kind.visible)
        if purpose == "upload" and not physical.unified:
            return (not kind.local, kind.coherent, not kind.cached)
        # On an integrated GPU "the device's own" may be a small carve-out, and slow for the host.
        return (kind.cached, kind.coherent, kind.local)

    mapped = physical.unified or purpose != "device"
    able = [kind for kind in physical.memory_types if (kind.visible if mapped else kind.local)]
    return sorted(able, key=merit, reverse=True)


class Block:
    """A VkDeviceMemory with one VkBuffer over all of it.

    Attributes:
        handle: The VkBuffer.
        size: Bytes.
        kind: The memory type.
        address: Where the host sees it; 0: it does not.
        device_address: Where shaders see it; 0: this device does not tell.
        alone: Made for one buffer.
    """

    def __init__(self, device: VulkanDevice, size: int, kind: MemoryType, *, alone: bool, host: int = 0) -> None:
        self.device = device
        self.size = size
        self.kind = kind
        self.alone = alone
        self.address = 0
        self.device_address = 0
        self.handle: Any = None
        self._memory: Any = None
        self._free: list[tuple[int, int]] = [(0, size)]
        try:
            self._make(host)
        except BaseException:
            self.destroy()
            raise

    def take(self, size: int, alignment: int) -> int | None:
        """Offset of a free range, the smallest that is large enough; None when there is none."""
        best: tuple[int, int, int] | None = None
        for index, (offset, length) in enumerate(self._free):
            start = -(-offset // alignment) * alignment
            if start + size <= offset + length and (best is None or length < best[0]):
                best = (length, index, start)
        if best is None:
            return None
        _, index, start = best
        offset, length = self._free.pop(index)
        if start > offset:
            insort(self._free, (offset, start - offset))
        if start + size < offset + length:
            insort(self._free, (start + size, offset + length - start - size))
        return start

    def give(self, offset: int, size: int) -> None:
        """A range is free again."""
        insort(self._free, (offset, size))
        index = self._free.index((offset, size))
        if index + 1 < len(self._free) and offset + size == self._free[index + 1][0]:
            size += self._free.pop(index + 1)[1]
            self._free[index] = (offset, size)
        if index and sum(self._free[index - 1]) == offset:
            before = self._free[index - 1]
            self._free[index - 1 : index + 1] = [(before[0], before[1] + size)]

    @property
    def empty(self) -> bool:
        """Nothing of it is in use."""
        return self._free == [(0, self.size)]

    def destroy(self) -> None:
        """Free it."""
        functions, handle, null = self.device.functions, self.device.handle, self.device.vulkan.NULL
        if self.handle is not None:
            functions.vkDestroyBuffer(handle, self.handle, null)
        if self._memory is not None:
            functions.vkFreeMemory(handle, self._memory, null)
        self.handle = self._memory = None
        self.address = self.device_address = 0

    def _make(self, host: int) -> None:
        device, vulkan = self.device, self.device.vulkan
        doing = f"allocating {self.size} bytes"
        addressed = device.physical.features.get("bufferDeviceAddress", False)
        imported = vulkan.constant("VK_EXTERNAL_MEMORY_HANDLE_TYPE_HOST_ALLOCATION_BIT_EXT")
        external = vulkan.new("VkExternalMemoryBufferCreateInfo", handleTypes=imported) if host else None
        info = vulkan.new(
            "VkBufferCreateInfo",
            pNext=external,
            size=self.size,
            usage=vulkan.flags(*_USES, *(["VK_BUFFER_USAGE_SHADER_DEVICE_ADDRESS_BIT"] if addressed else [])),
        )
        made = vulkan.ffi.new("VkBuffer *")
        device.check(device.functions.vkCreateBuffer(device.handle, info, vulkan.NULL, made), doing)
        self.handle = made[0]
        needs = vulkan.ffi.new("VkMemoryRequirements *")
        device.functions.vkGetBufferMemoryRequirements(device.handle, self.handle, needs)
        if not needs.memoryTypeBits >> self.kind.index & 1:
            raise Unsupported(f"{doing}: memory type {self.kind.index} does not take buffers")
        source = (
            vulkan.new(
                "VkImportMemoryHostPointerInfoEXT", handleType=imported, pHostPointer=vulkan.ffi.cast("void *", host)
            )
            if host
            else None
        )
        if addressed:
            flag = vulkan.constant("VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT")
            source = vulkan.new("VkMemoryAllocateFlagsInfo", pNext=source, flags=flag)
        info = vulkan.new(
            "VkMemoryAllocateInfo",
            pNext=source,
            allocationSize=self.size if host else needs.size,
            memoryTypeIndex=self.kind.index,
        )
        memory = vulkan.ffi.new("VkDeviceMemory *")
        device.check(device.functions.vkAllocateMemory(device.handle, info, vulkan.NULL, memory), doing)
        self._memory = memory[0]
        device.check(device.functions.vkBindBufferMemory(device.handle, self.handle, self._memory, 0), doing)
        if addressed:
            asked = vulkan.new("VkBufferDeviceAddressInfo", buffer=self.handle)
            self.device_address = int(device.functions.vkGetBufferDeviceAddress(device.handle, asked))
        if host:
            self.address = host
        elif self.kind.visible:
            where = vulkan.ffi.new("void **")
            result = device.functions.vkMapMemory(device.handle, self._memory, 0, _WHOLE, 0, where)
            device.check(result, f"mapping {self.size} bytes")
            self.address = int(vulkan.ffi.cast("uintptr_t", where[0]))

    def synchronise(self, name: str, offset: int, size: int) -> None:
        """Flush or invalidate a range of memory that is not coherent.

        Args:
            name: `vkFlushMappedMemoryRanges` or `vkInvalidateMappedMemoryRanges`.
            offset: First byte.
            size: Bytes.
        """
        device, atom = self.device, self.device.physical.limits["nonCoherentAtomSize"]
        first = offset // atom * atom
        last = min(-(-(offset + size) // atom) * atom, self.size)
        info = device.vulkan.new(
            "VkMappedMemoryRange",
            memory=self._memory,
            offset=first,
            size=last - first if last < self.size else _WHOLE,
        )
        device.check(getattr(device.functions, name)(device.handle, 1, info), "synchronising memory with the host")


class Arena:
    """All blocks of a device.

    Args:
        device: The device.
        limit: Bytes that it may come to; None for no limit.
    """

    def __init__(self, device: VulkanDevice, limit: int | None) -> None:
        self._device = device
        self._limit = limit
        self._lock = threading.Lock()
        self._blocks: dict[Purpose, list[Block]] = {}
        self._held = self._in_use = self._high_water = self._buffers = self._hits = self._misses = 0

    def take(self, nbytes: int, purpose: Purpose, alignment: int = ALIGNMENT) -> tuple[Block, int, int]:
        """A range for a buffer: its block, offset and size.

        Raises:
            OutOfMemory: There is no more, or no more within the limit.
        """
        size = -(-nbytes // ALIGNMENT) * ALIGNMENT
        purpose = "device" if self._device.physical.unified else purpose
        with self._lock:
            for block in self._blocks.setdefault(purpose, []):
                offset = None if block.alone else block.take(size, alignment)
                if offset is not None:
                    self._hits += 1
                    break
            else:
                block, offset = self._new_block(size, purpose), 0
                block.take(size, alignment)
                self._blocks[purpose].append(block)
                self._misses += 1
            self._in_use += size
            self._high_water = max(self._high_water, self._in_use)
            self._buffers += 1
            return block, offset, size

    def give(self, block: Block, offset: int, size: int) -> None:
        """A range is free again. The last empty block is kept, others go back to the driver."""
        with self._lock:
            block.give(offset, size)
            self._in_use -= size
            self._buffers -= 1
            if block.empty:
                for blocks in self._blocks.values():
                    spare = [other for other in blocks if other.empty and not other.alone]
                    if block in blocks and (block.alone or len(spare) > 1):
                        blocks.remove(block)
                        self._held -= block.size
                        block.destroy()

    def trim(self) -> None:
        """Give empty blocks back to the driver."""
        with self._lock:
            self._trim()

    def close(self) -> None:
        """Free all of it, whatever is in use."""
        with self._lock:
            for blocks in self._blocks.values():
                for block in blocks:
                    block.destroy()
            self._blocks.clear()

    @property
    def statistics(self) -> PoolStatistics:
        """Bytes in use and idle; hits are buffers that found room in a block that was there."""
        with self._lock:
            return PoolStatistics(
                self._device.name,
                self._in_use,
                self._held - self._in_use,
                self._high_water,
                self._limit,
                self._buffers,
                self._hits,
                self._misses,
            )

    def _trim(self) -> None:
        for blocks in self._blocks.values():
            for block in [block for block in blocks if block.empty]:
                blocks.remove(block)
                self._held -= block.size
                block.destroy()

    def _new_block(self, size: int, purpose: Purpose) -> Block:
        most = self._device.physical.limits["maxMemoryAllocationSize"]
        if size > most:
            raise OutOfMemory(
                f"a buffer of {size} bytes, {self._device.name} allocates at most {most} at once",
                fix="use a smaller model or smaller shapes, or another device",
            )
        alone = size > BLOCK_BYTES // 2
        last: OutOfMemory | None = None
        # A whole block if there is room for it, else what is needed; before that, what nobody uses is given up.
        for wanted in (size,) if alone else (min(BLOCK_BYTES, most), size):
            for attempt in range(2):
                try:
                    return self._block(wanted, size, purpose, alone=alone or wanted == size)
                except OutOfMemory as error:
                    last = error
                    if attempt == 0:
                        self._trim()
        assert last is not None
        raise OutOfMemory(
            f"{self._device.name} has no room for {size} bytes, {self._in_use} are in use: {last.problem}", fix=last.fix
        )

    def _block(self, wanted: int, size: int, purpose: Purpose, *, alone: bool) -> Block:
        if self._limit is not None and self._held + wanted > self._limit:
            raise OutOfMemory(
                f"the limit is {self._limit} bytes", fix="raise the limit, or use smaller or fewer models at once"
            )
        failed: OutOfMemory | None = None
        for kind in suitable(self._device.physical, purpose):
            try:
                block = Block(self._device, wanted, kind, alone=alone)
            except OutOfMemory as error:
                failed = error
                continue
            self._held += wanted
            return block
        raise failed or failure(-2, f"allocating {size} bytes for {purpose}")
