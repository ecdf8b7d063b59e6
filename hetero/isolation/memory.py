"""Memory that two processes share, for tensors: written on one side, mapped on the other.

The blocks have no names: a block is a file descriptor (`memfd_create`) that travels over the socket. There is nothing
to unlink and nothing is left when both processes are killed; neither Python's resource tracker nor the size of /dev/shm
has a say in it. The kernel frees a block when nobody maps it any more.
"""

from __future__ import annotations

import mmap
import os
import pickle
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hetero.errors import OutOfMemory, Unsupported
from hetero.tensors import Array

# Name, dtype, shape, offset; for an array of objects: name, its pickle, (), -1.
Layout = Sequence[tuple[str, Any, tuple[int, ...], int]]

_ALIGN = 64
_NAME = "hetero-isolation"


class Outgoing:
    """The block that this side writes its tensors into, one call after the other; grown as needed.

    Attributes:
        unsent: Descriptor of a block that the other side does not have yet; None when it has the current one. Whoever
            sends it calls `sent`.
        size: Bytes of the current block.
    """

    def __init__(self) -> None:
        self.unsent: int | None = None
        self.size = 0
        self._map: mmap.mmap | None = None

    def write(self, arrays: Mapping[str, Array]) -> Layout:
        """Copy arrays of any layout into the block.

        Returns:
            Where they lie. Arrays of objects (strings) lie nowhere: they are pickled into the layout.

        Raises:
            OutOfMemory: There is no memory for them.
            Unsupported: Objects that cannot be pickled.
        """
        layout: list[tuple[str, Any, tuple[int, ...], int]] = []
        total = 0
        for name, array in arrays.items():
            dtype = array.dtype
            if dtype.hasobject:
                layout.append((name, _pickled(name, array), (), -1))
            else:
                layout.append((name, dtype.str if dtype.isbuiltin == 1 else dtype, array.shape, total))
                total += -(-array.nbytes // _ALIGN) * _ALIGN
        if total > self.size:
            self._grow(total)
        for (_, _, shape, offset), array in zip(layout, arrays.values(), strict=True):
            if offset >= 0 and array.size:
                np.ndarray(shape, array.dtype, self._map, offset)[...] = array
        return layout

    def sent(self) -> None:
        """The other side has the current block."""
        # Forgotten before it is closed: an interruption in between must not have it closed twice, as its number may be
        # another file's by then.
        unsent, self.unsent = self.unsent, None
        if unsent is not None:
            os.close(unsent)

    def close(self) -> None:
        """Let go of the block."""
        self.sent()
        self._map, self.size = None, 0

    def _grow(self, least: int) -> None:
        size = max(least, self.size * 3 // 2)
        size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        self.close()
        descriptor = -1
        try:
            descriptor = anonymous_file()
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(descriptor, 0, size)  # an error here rather than a SIGBUS in the middle of a copy
            else:
                os.ftruncate(descriptor, size)
            self._map = mmap.mmap(descriptor, size)
        except OSError as error:
            if descriptor >= 0:
                os.close(descriptor)
            raise OutOfMemory(f"no shared memory of {size} bytes: {error}") from error
        self.unsent, self.size = descriptor, size


class Incoming:
    """The other side's block, as it is seen here."""

    def __init__(self) -> None:
        self._map: mmap.mmap | None = None

    def accept(self, descriptor: int, size: int) -> None:
        """Map a new block in place of the last one; the descriptor is closed.

        Raises:
            OutOfMemory: It cannot be mapped.
        """
        # Arrays that still look at the last block keep it mapped until they are gone.
        self._map = None
        try:
            self._map = mmap.mmap(descriptor, size)
        except OSError as error:
            raise OutOfMemory(f"shared memory of {size} bytes cannot be mapped: {error}") from error
        finally:
            os.close(descriptor)

    def read(self, layout: Layout, *, copy: bool) -> dict[str, Array]:
        """The arrays of a layout.

        Args:
            layout: As `Outgoing.write` gave it.
            copy: Give arrays that may be kept; else they change with the next message.

        Raises:
            Unsupported: Objects whose classes cannot be imported here.
        """
        arrays: dict[str, Array] = {}
        for name, dtype, shape, offset in layout:
            if offset < 0:
                arrays[name] = _unpickled(name, dtype)
                continue
            array: Array = np.ndarray(shape, dtype, self._map, offset) if 0 not in shape else np.empty(shape, dtype)
            arrays[name] = array.copy() if copy else array
        return arrays


def anonymous_file() -> int:
    """The descriptor of a new file without a name, in memory where the system can do that."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create(_NAME)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _pickled(name: str, array: Array) -> bytes:
    try:
        return pickle.dumps(array, pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        raise Unsupported(f"{name!r} holds objects that cannot be handed to another process: {error}") from error


def _unpickled(name: str, data: bytes) -> Array:
    try:
        array: Array = pickle.loads(data)
    except Exception as error:
        raise Unsupported(f"{name!r} holds objects that cannot be read in another process: {error}") from error
    return array
