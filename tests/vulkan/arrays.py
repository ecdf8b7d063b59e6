"""Arrays to and from tensors of a device, and what operators give, run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from hetero.tensors import Array
from hetero_vulkan.buffers import Buffer
from hetero_vulkan.commands import Dispatch
from hetero_vulkan.device import VulkanDevice
from hetero_vulkan.ops.tensors import DTYPES, SIZES, Kind, Tensor, words

_KINDS: dict[Any, Kind] = {np.dtype(dtype): kind for kind, dtype in DTYPES.items()}

GUARD = 64
"""Bytes behind each tensor that must stay as they are."""


class Bench:
    """Buffers of one test, each with a guard behind it."""

    def __init__(self, device: VulkanDevice) -> None:
        self.device = device
        self._buffers: list[Buffer] = []
        self._guarded: list[tuple[Buffer, int]] = []

    def scratch(self, nbytes: int) -> Buffer:
        buffer = self.device.buffer(nbytes)
        self._buffers.append(buffer)
        return buffer

    def put(self, array: Array) -> Tensor:
        array = np.asarray(array)
        kind = _KINDS[array.dtype]
        tensor = self.empty(array.shape, kind)
        if array.size:
            tensor.buffer.write(np.ascontiguousarray(array))
        return tensor

    def empty(self, shape: Sequence[int], kind: Kind = "f32") -> Tensor:
        nbytes = max(4, 4 * words(int(np.prod(shape, dtype=int)), kind))
        buffer = self.device.buffer(nbytes + GUARD)
        buffer.write(np.full(nbytes + GUARD, 0xAB, np.uint8))
        self._buffers.append(buffer)
        self._guarded.append((buffer, nbytes))
        return Tensor(buffer, tuple(shape), kind)

    def get(self, tensor: Tensor) -> Array:
        whole = tensor.buffer.read(DTYPES[tensor.kind], tensor.buffer.nbytes // SIZES[tensor.kind])
        strides = [step * whole.itemsize for step in tensor.steps]
        return np.lib.stride_tricks.as_strided(whole[tensor.offset :], tensor.shape, strides).copy()

    def run(self, steps: Sequence[Dispatch]) -> None:
        if steps:
            with self.device.record(list(steps)) as commands:
                commands.run(60)

    def answer(self, steps: Sequence[Dispatch], tensor: Tensor) -> Array:
        self.run(steps)
        return self.get(tensor)

    def free(self) -> None:
        for buffer, nbytes in self._guarded:
            behind = buffer.read(np.uint8, nbytes + GUARD)[nbytes:]
            assert (behind == 0xAB).all(), "something was written behind a tensor"
        for buffer in self._buffers:
            buffer.free()


@contextmanager
def bench(device: VulkanDevice) -> Iterator[Bench]:
    made = Bench(device)
    yield made
    made.free()


def close(answer: Array, expected: Array, scale: Array | float, bound: float) -> None:
    """No error is above `bound` times `scale`; NaN and infinity are where they are expected."""
    answer, expected = np.asarray(answer, np.float64), np.asarray(expected, np.float64)
    assert answer.shape == expected.shape
    np.testing.assert_array_equal(np.isnan(answer), np.isnan(expected))
    infinite = np.isinf(expected)
    np.testing.assert_array_equal(answer[infinite], expected[infinite])
    known = np.isfinite(expected)
    error = np.abs(np.where(known, answer, 0) - np.where(known, expected, 0))
    worst = float((error / np.broadcast_to(np.asarray(scale, np.float64), error.shape)).max(initial=0.0))
    assert worst <= bound, f"an error of {worst:.3g}, expected at most {bound:.3g}"
