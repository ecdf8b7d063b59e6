"""The host's memory, as an allocator of buffers."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

import numpy as np

from hetero.errors import OutOfMemory

if TYPE_CHECKING:
    from hetero.backend import Access
    from hetero.tensors import Array

ALIGNMENT = 64
"""Bytes: a cache line, and the widest vector register."""

PAGE = mmap.PAGESIZE
"""Bytes: what a device's driver can map."""


def alignment_of(access: Access) -> int:
    """The alignment of a buffer's address and size, in bytes."""
    return PAGE if access == "streaming" else ALIGNMENT


class HostAllocator:
    """Gives aligned memory of this process; see `hetero.backend.Allocator`."""

    def allocate(self, nbytes: int, access: Access) -> Array:
        """An array of `nbytes` bytes that begins at a cache line; for `streaming` at a page."""
        alignment = alignment_of(access)
        try:
            whole = np.empty(nbytes + alignment - 1, np.uint8)
        except MemoryError as error:
            raise OutOfMemory(
                f"the system has no {nbytes} bytes: {error}", fix="use smaller or fewer buffers"
            ) from None
        first = -whole.ctypes.data % alignment
        return whole[first : first + nbytes]

    def free(self, memory: Array) -> None:
        """Nothing: the memory goes with its last array."""
