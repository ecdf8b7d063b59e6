"""Arrays that are always the same, in a device's memory: each once, whichever graphs have it."""

from __future__ import annotations

import hashlib
import math
import threading
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hetero.graph.node import ValueType
from hetero.tensors import Array
from hetero_vulkan.buffers import Buffer
from hetero_vulkan.ops.packing import Packed, pack, packed_shape
from hetero_vulkan.ops.tensors import Kind, Tensor, words
from hetero_vulkan.storage import HALF, bytes_of, halves, kind_of, on_device, quantised, rounding, tensor_of
from hetero_vulkan.warming import warm_up

if TYPE_CHECKING:
    from hetero_vulkan.device import VulkanDevice


@dataclass(frozen=True)
class Matrix:
    """The right side of a product.

    Attributes:
        tensor: Its elements, packed or not.
        scale: f32 `[n]`, which multiplies its columns; None for 1.
    """

    tensor: Tensor | Packed
    scale: Tensor | None = None


class Weights:
    """The constants of a program's graphs. Usable from any thread.

    Args:
        device: Where they lie.
        timeout: Seconds that preparing one may take.

    Attributes:
        rounding: By how much float16 changed the numbers of one at most, as a share of its largest.
    """

    def __init__(self, device: VulkanDevice, timeout: float) -> None:
        self._device = device
        self._timeout = timeout
        self._lock = threading.Lock()
        self._kept: dict[tuple[bytes, str, Kind], Buffer] = {}
        self.rounding = 0.0

    def get(self, array: Array, dtype: np.dtype[Any] | None = None) -> Tensor:
        """An array on the device, copied there when it is first asked for.

        Args:
            array: It.
            dtype: How floats are stored, float32 or float16; None: as they are.

        Raises:
            OutOfMemory: There is no room for it.
            ExecutionError: Copying it failed.
        """
        kind = on_device(ValueType(array.dtype if dtype is None else dtype, array.shape))
        with self._lock:
            key = (_digest(array), "in order", kind_of(kind.dtype))
            buffer = self._kept.get(key)
            if buffer is None:
                data = self._halves(array) if kind.dtype == HALF else array.astype(kind.dtype, copy=False)
                buffer = self._kept[key] = self._copied(np.ascontiguousarray(data), bytes_of(kind))
        return tensor_of(buffer, kind)

    def matrix(self, array: Array, kind: Kind, packed: bool) -> Matrix:
        """A matrix `[k, n]` for products, made when it is first asked for; only what is made of it is kept.

        Args:
            array: It, float32 or float16; or int8, whose scales are the caller's affair.
            kind: How it is stored; `i8` has a scale for each column.
            packed: Packed, for the family `subgroup`.

        Raises:
            OutOfMemory: There is no room for it.
            ExecutionError: Copying or packing it failed.
        """
        k, n = array.shape
        shape = packed_shape(self._device.physical, k, n) if packed else (k, n)
        digest = _digest(array)
        form = (digest, "packed" if packed else "in order", kind)
        scales = (digest, "scales", kind)
        with self._lock:
            if form not in self._kept:
                given = array.dtype == np.int8
                data, columns = quantised(array) if kind == "i8" and not given else (self._as(array, kind), None)
                if columns is not None and scales not in self._kept:
                    self._kept[scales] = self._copied(columns, columns.nbytes)
                data = np.ascontiguousarray(data)
                nbytes = max(4, 4 * words(data.size, kind))
                self._kept[form] = self._packed(data, shape, kind) if packed else self._copied(data, nbytes)
            buffer = self._kept[form]
            scale = Tensor(self._kept[scales], (n,)) if scales in self._kept else None
        whole = Tensor(buffer, shape, kind)
        return Matrix(Packed(whole, n, k) if packed else whole, scale)

    @property
    def nbytes(self) -> int:
        """Bytes of all of them."""
        return sum(self.sizes.values())

    @property
    def sizes(self) -> dict[Kind, int]:
        """Bytes of all of them, by how elements are stored; scales of int8 count as `f32`."""
        with self._lock:
            found: Counter[Kind] = Counter()
            for (_, form, kind), buffer in self._kept.items():
                found["f32" if form == "scales" else kind] += buffer.nbytes
        return dict(found)

    def close(self) -> None:
        """Free them; nothing that uses them runs any more."""
        with self._lock:
            for buffer in self._kept.values():
                buffer.free()
            self._kept.clear()

    def _as(self, array: Array, kind: Kind) -> Array:
        if kind == "i8":
            return array
        return self._halves(array) if kind == "f16" else array.astype(np.float32, copy=False)

    def _halves(self, array: Array) -> Array:
        if array.dtype != HALF:
            self.rounding = max(self.rounding, rounding(array))
        return halves(array)

    def _copied(self, data: Array, nbytes: int) -> Buffer:
        buffer = self._device.buffer(nbytes)
        try:
            buffer.write(data)
        except BaseException:
            buffer.free()
            raise
        return buffer

    def _packed(self, data: Array, shape: tuple[int, ...], kind: Kind) -> Buffer:
        buffer = self._device.buffer(4 * words(math.prod(shape), kind))
        try:
            with self._copied(data, 4 * words(data.size, kind)) as plain:
                steps = pack(self._device, Tensor(plain, data.shape, kind), Tensor(buffer, shape, kind))
                warm_up(self._device, steps)
                with self._device.record(steps) as commands:
                    commands.run(self._timeout)
        except BaseException:
            buffer.free()
            raise
        return buffer


def _digest(array: Array) -> bytes:
    """Of the elements, their type and, for what they are packed into, their shape."""
    data = np.ascontiguousarray(array)
    digest = hashlib.blake2b(data.reshape(-1).view(np.uint8).data, digest_size=16)
    digest.update(f"{data.dtype.str}{data.shape}".encode())
    return digest.digest()
