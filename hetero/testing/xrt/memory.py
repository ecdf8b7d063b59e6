"""Buffers: host memory, and device memory that only a sync makes equal to it.

Stricter than the laptop, where both are the same DRAM behind caches: what works here without a forgotten sync works
there with any state of the caches.
"""

from __future__ import annotations

import threading
import weakref

import numpy as np

from hetero.tensors import Array
from hetero.testing.xrt.crash import Ledger

POISON = 0xDD


class Memory:
    """The buffers of one machine.

    Args:
        ledger: Where mistakes go.
        limit: Bytes that may be locked; None for no limit.

    Attributes:
        buffers: How many are alive.
        locked: Their bytes.
    """

    def __init__(self, ledger: Ledger, limit: int | None) -> None:
        self.ledger = ledger
        self.buffers = 0
        self.locked = 0
        self._limit = limit
        # Buffers die in any thread, also in one that is in here.
        self._lock = threading.RLock()
        self._next_address = 0x4000000
        self._graves: list[weakref.ref[Array]] = []

    def allocate(self, size: int, group: int) -> Buffer:
        """A buffer of zeros.

        Raises:
            RuntimeError: The limit of locked memory is reached.
        """
        with self._lock:
            address = self._next_address
            if self._limit is not None and self.locked + size > self._limit:
                raise RuntimeError(
                    f"mmap(addr=0x0, len={size}, prot=3, flags=8193, offset={address:#x}) failed (err=-11): "
                    "Resource temporarily unavailable"
                )
            self._next_address += (size + 4095) // 4096 * 4096
            self.buffers += 1
            self.locked += size
        return Buffer(self, size, group, address)

    def bury(self, host: Array, size: int) -> None:
        """Take back the memory of a buffer that was collected; whoever still maps it reads poison."""
        host.fill(POISON)
        with self._lock:
            self.buffers -= 1
            self.locked -= size
            self._graves.append(weakref.ref(host))

    def visit_graves(self) -> None:
        """Count the freed memory that was written to."""
        with self._lock:
            graves, self._graves = self._graves, []
            for grave in graves:
                host = grave()
                if host is not None and (host == POISON).all():
                    self._graves.append(grave)
                elif host is not None:
                    self.ledger.note("write_after_free")


class Buffer:
    """One buffer, or a part of one.

    Attributes:
        host: What the program sees, uint8.
        device: What the NPU sees, uint8.
        size: In bytes.
        group: The group id that it was made with.
        address: On the device.
    """

    def __init__(self, memory: Memory, size: int, group: int, address: int, parent: Buffer | None = None) -> None:
        self.size = size
        self.group = group
        self.address = address
        self._memory = memory
        self._parent = parent
        if parent is None:
            self.host, self.device = np.zeros(size, np.uint8), np.zeros(size, np.uint8)
            # The host's side as it was at the last sync; and whether the device's side was ever written to.
            self._synced, self._written = np.zeros(size, np.uint8), [False]
        else:
            some = slice(address - parent.address, address - parent.address + size)
            self.host, self.device = parent.host[some], parent.device[some]
            self._synced, self._written = parent._synced[some], parent._written

    def part(self, size: int, offset: int) -> Buffer:
        """A buffer that shares a range of this one's memory and keeps it alive."""
        return Buffer(self._memory, size, self.group, self.address + offset, self)

    def __del__(self) -> None:
        if self._parent is None and hasattr(self, "host"):
            self._memory.bury(self.host, self.size)

    def overlaps(self, other: Buffer) -> bool:
        """Whether the two share memory."""
        return self.address < other.address + other.size and other.address < self.address + self.size

    @property
    def written(self) -> bool:
        """Whether anybody wrote to the device's side: a sync or a run."""
        return self._written[0]

    def stale(self) -> bool:
        """Whether the host's side was written since the last sync."""
        return not np.array_equal(self.host, self._synced)

    def to_device(self, size: int, offset: int) -> None:
        """Make the device see a range of what the host wrote."""
        some = slice(offset, offset + size)
        self.device[some] = self._synced[some] = self.host[some]
        self._written[0] = True

    def from_device(self, size: int, offset: int) -> None:
        """Make the host see a range of what the device wrote."""
        some = slice(offset, offset + size)
        self.host[some] = self._synced[some] = self.device[some]

    def put(self, content: Array, offset: int) -> None:
        """The device writes; what does not fit is left out."""
        fitting = content[: max(0, self.size - offset)]
        self.device[offset : offset + len(fitting)] = fitting
        self._written[0] = True

    def get(self, size: int, offset: int) -> Array:
        """The device reads a copy; beyond the end it finds zeros."""
        content = np.zeros(size, np.uint8)
        found = self.device[offset : offset + size]
        content[: len(found)] = found
        return content
