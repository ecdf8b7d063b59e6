"""Arrays that are always the same, in a device's memory: each once, whichever graphs have it."""

from __future__ import annotations

import hashlib
import math
import threading
from typing import TYPE_CHECKING

import numpy as np

from hetero.graph.node import ValueType
from hetero.tensors import Array
from hetero_vulkan.buffers import Buffer
from hetero_vulkan.nodes.lowering import bytes_of, on_device, tensor_of
from hetero_vulkan.ops.packing import Packed, pack, packed_shape
from hetero_vulkan.ops.tensors import Tensor
from hetero_vulkan.warming import warm_up

if TYPE_CHECKING:
    from hetero_vulkan.device import VulkanDevice


class Weights:
    """The constants of a program's graphs. Usable from any thread.

    Args:
        device: Where they lie.
        timeout: Seconds that preparing one may take.
    """

    def __init__(self, device: VulkanDevice, timeout: float) -> None:
        self._device = device
        self._timeout = timeout
        self._lock = threading.Lock()
        self._kept: dict[tuple[bytes, bool], Buffer] = {}

    def get(self, array: Array) -> Tensor:
        """An array on the device, copied there when it is first asked for.

        Raises:
            OutOfMemory: There is no room for it.
            ExecutionError: Copying it failed.
        """
        kind = ValueType.of(array)
        data = np.ascontiguousarray(array, on_device(kind).dtype)
        with self._lock:
            buffer = self._kept.get((_digest(data), False))
            if buffer is None:
                buffer = self._kept[_digest(data), False] = self._copied(data, bytes_of(kind))
        return tensor_of(buffer, kind)

    def packed(self, array: Array) -> Packed:
        """A matrix `[k, n]` of float32, packed for products when it is first asked for; only that is kept.

        Raises:
            OutOfMemory: There is no room for it.
            ExecutionError: Packing it failed.
        """
        k, n = array.shape
        shape = packed_shape(self._device.physical, k, n)
        data = np.ascontiguousarray(array)
        with self._lock:
            buffer = self._kept.get((_digest(data), True))
            if buffer is None:
                buffer = self._kept[_digest(data), True] = self._packed(data, shape)
        return Packed(Tensor(buffer, shape), n, k)

    @property
    def nbytes(self) -> int:
        """Bytes of all of them."""
        with self._lock:
            return sum(buffer.nbytes for buffer in self._kept.values())

    def close(self) -> None:
        """Free them; nothing that uses them runs any more."""
        with self._lock:
            for buffer in self._kept.values():
                buffer.free()
            self._kept.clear()

    def _copied(self, data: Array, nbytes: int) -> Buffer:
        buffer = self._device.buffer(nbytes)
        try:
            buffer.write(data)
        except BaseException:
            buffer.free()
            raise
        return buffer

    def _packed(self, data: Array, shape: tuple[int, ...]) -> Buffer:
        buffer = self._device.buffer(4 * math.prod(shape))
        try:
            with self._copied(data, data.nbytes) as plain:
                steps = pack(self._device, Tensor(plain, data.shape), Tensor(buffer, shape))
                warm_up(self._device, steps)
                with self._device.record(steps) as commands:
                    commands.run(self._timeout)
        except BaseException:
            buffer.free()
            raise
        return buffer


def _digest(data: Array) -> bytes:
    """Of the elements, their type and, for what they are packed into, their shape."""
    digest = hashlib.blake2b(data.reshape(-1).view(np.uint8).data, digest_size=16)
    digest.update(f"{data.dtype.str}{data.shape}".encode())
    return digest.digest()
