"""Buffers: ranges of a device's memory."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike

from hetero.errors import ClosedError, OptionError
from hetero.tensors import Array
from hetero_vulkan.memory import Block, Purpose

if TYPE_CHECKING:
    from hetero_vulkan.device import VulkanDevice


class Buffer:
    """A range of a device's memory. Made by `VulkanDevice.buffer`; a context manager.

    Free it only when no commands that use it are running.

    Attributes:
        device: Whose it is.
        nbytes: Bytes.
        offset: First byte in the VkBuffer.
        purpose: What it is for.
    """

    def __init__(
        self,
        device: VulkanDevice,
        block: Block,
        offset: int,
        nbytes: int,
        purpose: Purpose,
        *,
        size: int = 0,
        whole: Buffer | None = None,
        keeps: Any = None,
    ) -> None:
        self.device = device
        self.nbytes = nbytes
        self.offset = offset
        self.purpose = purpose
        self._block: Block | None = block
        self._size = size
        self._whole = whole
        self._keeps = keeps

    @property
    def block(self) -> Block:
        """The memory that it is in.

        Raises:
            ClosedError: It was freed.
        """
        block = self._block if self._whole is None else self._whole.block
        if block is None or block.handle is None:
            raise ClosedError("the buffer was freed", fix="make another one")
        return block

    @property
    def mapped(self) -> bool:
        """The host sees it: `array` works, and `write` and `read` copy nothing on the device."""
        return self.block.address != 0

    @property
    def device_address(self) -> int:
        """Where shaders see it; of use only where the device tells addresses."""
        return self.block.device_address + self.offset

    def view(self, offset: int, nbytes: int) -> Buffer:
        """A part of it, which is freed with it.

        Raises:
            OptionError: It reaches beyond, or begins where a binding may not.
        """
        step = self.device.physical.limits["minStorageBufferOffsetAlignment"]
        if offset < 0 or nbytes < 1 or offset + nbytes > self.nbytes or offset % step:
            raise OptionError(
                f"bytes {offset} to {offset + nbytes} of a buffer of {self.nbytes}, expected a part of it that begins "
                f"at a multiple of {step}"
            )
        return Buffer(self.device, self.block, self.offset + offset, nbytes, self.purpose, whole=self)

    def parts(self, row: int) -> list[Buffer]:
        """Views of it, each small enough to be bound, of whole rows.

        Args:
            row: Bytes of a row.

        Raises:
            OptionError: A row is too large, or begins where a binding may not.
        """
        step = self.device.physical.limits["minStorageBufferOffsetAlignment"]
        most = self.device.physical.limits["maxStorageBufferRange"]
        rows = most // row
        while rows and rows * row % step:
            rows -= 1
        if not rows:
            raise OptionError(f"rows of {row} bytes cannot be bound: at most {most} bytes, at a multiple of {step}")
        length = rows * row
        return [self.view(at, min(length, self.nbytes - at)) for at in range(0, self.nbytes, length)]

    def array(self, dtype: DTypeLike, shape: int | tuple[int, ...]) -> Array:
        """An array over mapped memory; it must not be used after the buffer was freed.

        The device sees what was written after `flush`, the host what the device wrote after `invalidate`.

        Raises:
            OptionError: It is not mapped, or too small.
        """
        block = self.block
        if not block.address:
            raise OptionError("the host does not see this buffer", fix="use write and read")
        memory = self.device.vulkan.ffi.buffer(
            self.device.vulkan.ffi.cast("char *", block.address + self.offset), self.nbytes
        )
        kind = np.dtype(dtype)
        count = int(np.prod(shape, dtype=np.int64))
        if count * kind.itemsize > self.nbytes:
            raise OptionError(f"{shape} of {kind} in a buffer of {self.nbytes} bytes, expected at most that many")
        array: Array = np.frombuffer(memory, kind, count).reshape(shape)
        return array

    def flush(self) -> None:
        """Let the device see what the host wrote."""
        if not self.block.kind.coherent:
            self.block.synchronise("vkFlushMappedMemoryRanges", self.offset, self.nbytes)

    def invalidate(self) -> None:
        """Let the host see what the device wrote."""
        if not self.block.kind.coherent:
            self.block.synchronise("vkInvalidateMappedMemoryRanges", self.offset, self.nbytes)

    def write(self, data: Array) -> None:
        """Fill its beginning with an array.

        Raises:
            OptionError: It is too small.
            ExecutionError: Copying to the device failed.
        """
        if data.nbytes > self.nbytes:
            raise OptionError(f"{data.nbytes} bytes for a buffer of {self.nbytes}")
        if not data.nbytes:
            return
        if self.mapped:
            np.copyto(self.array(data.dtype, data.shape), data)
            self.flush()
            return
        with self.device.buffer(data.nbytes, "upload") as staging:
            staging.write(data)
            self.device.copy(staging, self.view(0, data.nbytes))

    def read(self, dtype: DTypeLike, shape: int | tuple[int, ...]) -> Array:
        """A copy of its beginning.

        Raises:
            OptionError: It is too small.
            ExecutionError: Copying from the device failed.
        """
        if self.mapped:
            self.invalidate()
            answer: Array = self.array(dtype, shape).copy()
            return answer
        nbytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        if nbytes > self.nbytes:
            raise OptionError(f"{nbytes} bytes of a buffer of {self.nbytes}")
        if not nbytes:
            return np.empty(shape, dtype)
        with self.device.buffer(nbytes, "download") as staging:
            self.device.copy(self.view(0, nbytes), staging)
            return staging.read(dtype, shape)

    def free(self) -> None:
        """Give the memory back. A second time does nothing, as does freeing a view."""
        block, self._block = self._block, None
        if block is not None and self._whole is None:
            self.device.freed(block, self.offset, self._size)
            self._keeps = None

    def __enter__(self) -> Buffer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.free()

    def __repr__(self) -> str:
        return f"<Buffer of {self.nbytes} bytes of {self.device.name} for {self.purpose}>"


class PlacedLater(Buffer):
    """A buffer whose size is known before its place: steps are made of it, and it is placed before they are recorded.

    Args:
        device: Whose it will be.
        nbytes: Bytes, at least 1.
    """

    def __init__(self, device: VulkanDevice, nbytes: int) -> None:
        self.device = device
        self.nbytes = nbytes
        self.offset = 0
        self.purpose = "device"
        self._block = None
        self._size = 0
        self._whole = None
        self._keeps = None

    def place(self, whole: Buffer, offset: int) -> None:
        """It is a part of this one from now on, as a view is.

        Raises:
            OptionError: It reaches beyond, or begins where a binding may not.
        """
        self.offset = whole.view(offset, self.nbytes).offset
        self._whole = whole
