"""What a kernel is: its inputs and outputs, its exact answer, and the float32 operation that it approximates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from hetero.program import Artifact, Program
from hetero.tensors import Array, Dim, TensorSpec

Function = Callable[..., dict[str, Array]]


@dataclass(frozen=True)
class Kernel:
    """One kernel, independent of a device. Can be compared, hashed and pickled; called, it gives its exact answer.

    Attributes:
        name: As in `rt.load(name)`; operation, dtype and tile.
        title: A few words for a listing.
        description: The formula, in a sentence or two.
        scales: What one step of each integer stands for.
        inputs: In the order of positional arguments. Their leading dimension is symbolic and may be 0.
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


def exact_matmul(a: Array, b: Array) -> Array:
    """The product of integer matrices as int32, exact, at the speed of float32 BLAS.

    Exact in whichever order it is summed, since every partial sum is an integer that float32 holds: 64 products of
    int8 stay within 2**20 in magnitude, and float32 holds every integer up to 2**24. numpy's own integer product is an
    order of magnitude slower.

    Args:
        a: `[..., m, k]`, integers of magnitude up to 128, k up to 1024.
        b: `[..., k, n]`, likewise.

    Returns:
        `[..., m, n]`, int32.
    """
    product: Array = np.matmul(a.astype(np.float32), b.astype(np.float32)).astype(np.int32)
    return product


def clip_int8(values: Array) -> Array:
    """Integers saturated to -128 .. 127, as int8."""
    clipped: Array = np.clip(values, -128, 127).astype(np.int8)
    return clipped
