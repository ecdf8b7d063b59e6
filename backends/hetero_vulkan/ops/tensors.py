"""Tensors in a device's buffers, and what operators share: checks, broadcasting, how many workgroups."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import DTypeLike

from hetero.errors import OptionError, Unsupported
from hetero_vulkan.buffers import Buffer

if TYPE_CHECKING:
    from hetero_vulkan.device import VulkanDevice

Kind = Literal["f32", "f16", "i8", "i32"]

CODES: dict[Kind, int] = {"f32": 0, "f16": 1, "i8": 2, "i32": 3}
"""The numbers that shaders know the types by (words.glsl)."""

SIZES: dict[Kind, int] = {"f32": 4, "f16": 2, "i8": 1, "i32": 4}
DTYPES: dict[Kind, DTypeLike] = {"f32": np.float32, "f16": np.float16, "i8": np.int8, "i32": np.int32}

Scratch = Callable[[int], Buffer]
"""Gives a buffer of so many bytes, which must live as long as the dispatches do."""


@dataclass(frozen=True)
class Tensor:
    """Elements in a buffer. A boolean tensor is an `i32` of 0 and 1.

    Attributes:
        buffer: Where they are.
        shape: Any, of dimensions from 0.
        kind: Their type.
        offset: The first one's place in the buffer, in elements.
        strides: In elements, one for each dimension, 0 or more; None: they lie in order.
    """

    buffer: Buffer
    shape: tuple[int, ...]
    kind: Kind = "f32"
    offset: int = 0
    strides: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.strides is not None and len(self.strides) != len(self.shape):
            raise OptionError(f"strides {self.strides} of a tensor of shape {self.shape}, expected one a dimension")
        if any(size < 0 for size in self.shape) or self.offset < 0 or any(step < 0 for step in self.steps):
            raise OptionError(
                f"shape {self.shape}, offset {self.offset}, strides {self.strides}: expected none below 0"
            )
        if self.size and self.end > self.words * 4 // SIZES[self.kind]:
            raise OptionError(
                f"{self.end} elements of {self.kind} in a buffer of {self.buffer.nbytes} bytes",
                fix=f"make it of {words(self.end, self.kind) * 4} bytes, which are whole words",
            )

    @property
    def words(self) -> int:
        """Whole 32-bit words of the buffer."""
        return self.buffer.nbytes // 4

    @property
    def size(self) -> int:
        """How many elements."""
        return math.prod(self.shape)

    @property
    def steps(self) -> tuple[int, ...]:
        """The strides, given or not."""
        return in_order(self.shape) if self.strides is None else self.strides

    @property
    def end(self) -> int:
        """One more than the last element's place in the buffer."""
        if not self.size:
            return self.offset
        return self.offset + sum((size - 1) * step for size, step in zip(self.shape, self.steps, strict=True)) + 1

    @property
    def contiguous(self) -> bool:
        """The elements lie in order."""
        pairs = zip(self.shape, self.steps, in_order(self.shape), strict=True)
        return not self.size or all(size == 1 or step == ordered for size, step, ordered in pairs)

    def transposed(self, *order: int) -> Tensor:
        """The same elements with other dimensions first; nothing is moved."""
        if sorted(order) != list(range(len(self.shape))):
            raise OptionError(f"order {order} of {len(self.shape)} dimensions")
        return replace(self, shape=tuple(self.shape[i] for i in order), strides=tuple(self.steps[i] for i in order))

    def reshaped(self, *shape: int) -> Tensor:
        """The same elements in another shape; nothing is moved.

        Raises:
            OptionError: Of another size, or they do not lie in order.
        """
        if math.prod(shape) != self.size or not self.contiguous:
            raise OptionError(f"{self.shape} with strides {self.steps} cannot be seen as {shape}", fix="copy it first")
        return replace(self, shape=shape, strides=None)

    def sliced(self, axis: int, start: int, stop: int, step: int = 1) -> Tensor:
        """Some of an axis; nothing is moved. `step` is 1 or more."""
        size = self.shape[axis]
        if not (0 <= start <= stop <= size and step >= 1):
            raise OptionError(f"{start}:{stop}:{step} of an axis of {size}")
        axis %= len(self.shape)
        shape, steps = list(self.shape), list(self.steps)
        shape[axis] = -(-(stop - start) // step)
        offset = self.offset + start * steps[axis] if self.size and shape[axis] else self.offset
        steps[axis] *= step
        return replace(self, shape=tuple(shape), offset=offset, strides=tuple(steps))

    def broadcast(self, shape: Sequence[int]) -> Tensor:
        """Seen as `shape`, as numpy does; nothing is moved.

        Raises:
            OptionError: It does not fit.
        """
        lead = len(shape) - len(self.shape)
        steps = [0] * lead + [0 if size == 1 else step for size, step in zip(self.shape, self.steps, strict=True)]
        fits = lead >= 0 and all(
            mine in (1, theirs) for mine, theirs in zip(self.shape, shape[max(lead, 0) :], strict=True)
        )
        if not fits:
            raise OptionError(f"{self.shape} cannot be broadcast to {tuple(shape)}")
        return replace(self, shape=tuple(shape), strides=tuple(steps))


def in_order(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides of elements that lie in order."""
    steps = [1] * len(shape)
    for axis in range(len(shape) - 2, -1, -1):
        steps[axis] = steps[axis + 1] * max(shape[axis + 1], 1)
    return tuple(steps)


def rounded(value: int, unit: int) -> int:
    """The next multiple of a unit."""
    return -(-value // unit) * unit


def words(count: int, kind: Kind) -> int:
    """32-bit words that hold so many elements."""
    return -(-count * SIZES[kind] // 4)


def merged(shape: Sequence[int], *strides: Sequence[int]) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """The same elements in the same order with as few dimensions as can be.

    Returns:
        The shape, and the strides of each tensor.
    """
    kept: list[tuple[int, list[int]]] = []
    for axis, size in enumerate(shape):
        if size == 1:
            continue
        steps = [steps[axis] for steps in strides]
        if kept and all(before == size * step for before, step in zip(kept[-1][1], steps, strict=True)):
            kept[-1] = (kept[-1][0] * size, steps)
        else:
            kept.append((size, steps))
    if not kept:
        kept = [(1, [0] * len(strides))]
    return tuple(size for size, _ in kept), [tuple(steps[i] for _, steps in kept) for i in range(len(strides))]


def padded(values: Sequence[int], count: int, fill: int) -> list[int]:
    """Values with others in front, up to a count."""
    return [fill] * (count - len(values)) + list(values)


def spread(device: VulkanDevice, count: int, local: int) -> tuple[int, int, int]:
    """Workgroups in x for so many invocations; shaders go on in a loop where a device takes fewer."""
    most = int(device.physical.limits["maxComputeWorkGroupCount"][0])
    return max(1, min(-(-count // local), most, 65535)), 1, 1


def lanes(device: VulkanDevice) -> int:
    """The size of a workgroup whose invocations have nothing to do with each other."""
    physical = device.physical
    return 64 if physical.software else max(64, physical.subgroup)


def whole_words(tensor: Tensor, what: str) -> None:
    """Refuse a tensor that an invocation cannot write in words of its own.

    Raises:
        Unsupported: It does not lie in order, or begins within a word.
    """
    each = 4 // SIZES[tensor.kind]
    if not tensor.contiguous or tensor.offset % each:
        raise Unsupported(
            f"{what} of {tensor.kind} at element {tensor.offset} with strides {tensor.steps}, expected elements in "
            f"order that begin at a multiple of {each}",
            fix="copy it to a tensor of its own",
        )


def matrices(shape: Sequence[int], what: str) -> tuple[int, int, int, int]:
    """A shape of matrices in a batch, or a batch of batches, with both.

    Raises:
        OptionError: Of fewer than 2 or more than 4 dimensions.
    """
    if not 2 <= len(shape) <= 4:
        raise OptionError(f"{what} of shape {tuple(shape)}, expected 2 to 4 dimensions")
    if len(shape) == 3:
        return shape[0], 1, shape[1], shape[2]
    outer, inner, rows, columns = padded(shape, 4, 1)
    return outer, inner, rows, columns


def matrix_steps(tensor: Tensor) -> tuple[int, int, int, int]:
    """The strides that go with `matrices`; 0 for a batch of 1."""
    steps = tensor.steps
    if len(steps) == 3:
        return steps[0], 0, steps[1], steps[2]
    outer, inner, row, column = padded(steps, 4, 0)
    return outer, inner, row, column
