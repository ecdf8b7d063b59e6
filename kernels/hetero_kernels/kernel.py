"""What a kernel is: its inputs and outputs, its exact answer, and the float32 operation that it approximates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from hetero.program import Artifact, Program
from hetero.tensors import Array, Dim, TensorSpec

Function = Callable[..., dict[str, Array]]

# Products of int8 whose sum float32 holds exactly, in any order.
_EXACT = 1024


@dataclass(frozen=True)
class Kernel:
    """One kernel, independent of a device. Can be compared, hashed and pickled; called, it gives its exact answer.

    Attributes:
        name: As in `rt.load(name)`; operation, dtype and tile.
        title: A few words for a listing.
        description: The formula, in a sentence or two.
        scales: What one step of each integer stands for.
        inputs: In the order of positional arguments. Those that differ from item to item have a symbolic leading
            dimension, which may be 0; the others (weights) are the same for all items.
        outputs: Of the reference and, in other dtypes, of the model.
        reference: The exact answer, bit for bit what every device must give: `reference(**inputs) -> {name: array}`.
            It trusts its inputs to fit the specs, as they do when a Runtime or `__call__` has checked them.
        model: The operation that the integers approximate, in float32, called likewise. Its outputs are in steps of the
            integer outputs, neither rounded nor clipped, so that the two can be compared directly.
    """

    name: str
    title: str
    description: str
    scales: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    reference: Function
    model: Function

    def __call__(self, *args: Any) -> dict[str, Array]:
        """The exact answer, of inputs that are checked first.

        Args:
            args: One array per input, in order, or one mapping from input name to array.

        Returns:
            The outputs by name.

        Raises:
            InputError: They do not fit the specs.
        """
        return self.reference(**self.program().signature.feed(args))

    def program(self) -> Program:
        """The kernel as a Program, with this object as the payload of its one artifact."""
        artifact = Artifact(kind="kernel", name=self.name, payload=self)
        return Program(self.name, self.inputs, self.outputs, (artifact,), source=self.name)


def int8(name: str, *shape: Dim) -> TensorSpec:
    """The spec of an int8 tensor."""
    return TensorSpec(name, np.dtype(np.int8), shape)


def int16(name: str, *shape: Dim) -> TensorSpec:
    """The spec of an int16 tensor."""
    return TensorSpec(name, np.dtype(np.int16), shape)


def int32(name: str, *shape: Dim) -> TensorSpec:
    """The spec of an int32 tensor."""
    return TensorSpec(name, np.dtype(np.int32), shape)


def exact_matmul(a: Array, b: Array) -> Array:
    """The product of matrices of int8 values as int32, exact, at the speed of float32 BLAS.

    Exact in whichever order it is summed, since every partial sum is an integer that float32 holds: 1024 products of
    int8 stay within 2**24 in magnitude, up to which float32 holds every integer. Longer sums are split, and the parts
    are added as integers. numpy's own integer product is an order of magnitude slower.

    Args:
        a: `[..., m, k]`, integers of magnitude up to 128, k up to 2**17 - 1.
        b: `[..., k, n]`, likewise.

    Returns:
        `[..., m, n]`, int32.
    """
    left, right = a.astype(np.float32), b.astype(np.float32)
    total: Array = np.matmul(left[..., :_EXACT], right[..., :_EXACT, :]).astype(np.int32)
    for start in range(_EXACT, a.shape[-1], _EXACT):
        part = slice(start, start + _EXACT)
        total += np.matmul(left[..., part], right[..., part, :]).astype(np.int32)
    return total


def shift_round(values: Array, shift: int) -> Array:
    """Integers over 2**shift, rounded to the nearest integer and halves up: ⌊values / 2**shift + 1/2⌋.

    What an AIE core's accumulators do on their way to vectors in rounding mode `positive_inf`.

    Args:
        values: Integers of a dtype that holds them with `2**(shift - 1)` added.
        shift: 0 or more.
    """
    rounded: Array = (values + ((1 << shift) >> 1)) >> shift
    return rounded


def clip_int8(values: Array) -> Array:
    """Integers saturated to -128 .. 127, as int8."""
    clipped: Array = np.clip(values, -128, 127).astype(np.int8)
    return clipped
