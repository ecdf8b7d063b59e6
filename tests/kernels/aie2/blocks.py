"""How a memory tile's DMA lays matrices out for a core: in blocks of 8 x 8, one row of blocks behind the other."""

from __future__ import annotations

import numpy as np

from hetero.tensors import Array


def blocked(matrix: Array) -> Array:
    """`[rows, columns]` as the flat blocks `[rows / 8][columns / 8][8][8]`."""
    rows, columns = matrix.shape
    return np.ascontiguousarray(matrix.reshape(rows // 8, 8, columns // 8, 8).swapaxes(1, 2)).reshape(-1)


def unblocked(flat: Array, rows: int, columns: int) -> Array:
    """The matrix `[rows, columns]` of flat blocks."""
    return flat.reshape(rows // 8, columns // 8, 8, 8).swapaxes(1, 2).reshape(rows, columns)
