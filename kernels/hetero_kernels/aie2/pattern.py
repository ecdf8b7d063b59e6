"""Access patterns of a DMA: sizes and strides, outermost first, as IRON's `dims_to_stream` has them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from hetero.tensors import Array

Pattern = Sequence[Sequence[int]]
"""`[(size, stride), ...]`, outermost first, in elements."""


def blocked(rows: int, columns: int) -> tuple[tuple[int, int], ...]:
    """Reads a row-major matrix as blocks of 8 x 8: `[row of blocks][column of blocks][8][8]`.

    Args:
        rows: Of the matrix, a multiple of 8.
        columns: Likewise.
    """
    return ((rows // 8, 8 * columns), (columns // 8, 8), (8, columns), (8, 1))


def unblocked(rows: int, columns: int) -> tuple[tuple[int, int], ...]:
    """Reads what `blocked` gave back into row-major order."""
    return ((rows // 8, 8 * columns), (8, 8), (columns // 8, 64), (8, 1))


def places(pattern: Pattern) -> Array:
    """The elements that a pattern reads, in order: int64 `[elements]`."""
    found = np.zeros(1, np.int64)
    for size, stride in pattern:
        found = (found[:, None] + np.arange(size, dtype=np.int64) * stride).reshape(-1)
    return found


def elements(pattern: Pattern) -> int:
    """How many elements a pattern reads."""
    return math.prod(size for size, _ in pattern)


def is_linear(pattern: Pattern) -> bool:
    """It reads elements that lie one behind the other, which hardware does without dimensions."""
    expected = 1
    for size, stride in reversed(pattern):
        if size > 1 and stride != expected:
            return False
        expected *= size
    return True
