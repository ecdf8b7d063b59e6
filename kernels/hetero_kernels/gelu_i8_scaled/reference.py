"""The exact answer of `gelu_i8_scaled`: the table's. `gelu_table` makes one for steps of any size."""

from __future__ import annotations

import math

import numpy as np

from hetero.errors import InputError
from hetero.tensors import Array


def gelu_table(step_x: float, step_y: float) -> Array:
    """clip(round(gelu(x step_x) / step_y)) of every x; gelu(t) = t/2 (1 + erf(t / sqrt(2))), as Whisper has it.

    Args:
        step_x: What a step of the input stands for.
        step_y: The same of the output.

    Returns:
        int8 `[256]`, by the bits of x: 0 .. 127, then -128 .. -1.

    Raises:
        InputError: A step that is not a finite number above 0.
    """
    if not (0 < step_x < math.inf and 0 < step_y < math.inf):
        raise InputError(
            f"the steps of GELU are {step_x:g} and {step_y:g}, expected finite numbers above 0",
            fix="take the largest activation over 127",
        )
    table = []
    for x in (*range(128), *range(-128, 0)):
        t = x * step_x
        # A product with a far negative t must not meet the rounding of 1 + erf.
        gelu = t / 2 * math.erfc(-t / math.sqrt(2))
        table.append(max(-128, min(127, round(gelu / step_y))))
    return np.array(table, np.int8)


def reference(*, x: Array, table: Array) -> dict[str, Array]:
    """The table's entry for every value.

    Args:
        x: int8 `[n]`.
        table: int8 `[256]`, by the bits of x: 0 .. 127, then -128 .. -1.

    Returns:
        `y`, int8 `[n]`.
    """
    return {"y": table[x.view(np.uint8)]}


def model(*, x: Array, table: Array) -> dict[str, Array]:
    """The same in float32: which function the table has is the host's choice; arguments as for `reference`."""
    return {"y": table.astype(np.float32)[x.view(np.uint8)]}
