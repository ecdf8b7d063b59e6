"""Buffers of a Runtime in memory that a device works in: see `hetero.backend.Allocator`."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from hetero.backend import Access
from hetero.errors import Unsupported
from hetero.memory.host import alignment_of
from hetero_vulkan.buffers import Buffer
from hetero_vulkan.holder import DeviceHolder


class VulkanAllocator:
    """Gives memory that the host sees; on a graphics card of its own, memory of the host's that the card can copy from.

    Args:
        holder: The device, which is opened when memory is first asked for.
    """

    def __init__(self, holder: DeviceHolder) -> None:
        self._holder = holder
        self._lock = threading.Lock()
        self._given: dict[int, Buffer] = {}

    def allocate(self, nbytes: int, access: Access) -> Any:
        """See `Allocator.allocate`."""
        device = self._holder.take()
        try:
            buffer = device.buffer(nbytes, "download", alignment=alignment_of(access))
        except BaseException:
            device.returned()
            raise
        memory = buffer.array(np.uint8, nbytes) if buffer.mapped else None
        if memory is None or memory.ctypes.data % alignment_of(access):
            buffer.free()
            device.returned()
            raise Unsupported(f"{device.name} maps no memory that is aligned to {alignment_of(access)} bytes")
        with self._lock:
            self._given[memory.ctypes.data] = buffer
        return memory

    def free(self, memory: Any) -> None:
        """See `Allocator.free`."""
        with self._lock:
            buffer = self._given.pop(memory.ctypes.data)
        buffer.free()
        buffer.device.returned()

    def buffer_at(self, address: int) -> Buffer | None:
        """The buffer that begins at an address, as `array.ctypes.data` gives it; None for memory from elsewhere.

        Before the device works with it, `flush` it; before the host reads what the device wrote, `invalidate` it.
        """
        return self._given.get(address)
