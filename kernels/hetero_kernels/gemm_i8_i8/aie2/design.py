"""gemm_i8_i8_{K}x{N} on the whole array."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hetero.tensors import Array
from hetero_kernels.aie2.whole_array import SIDE, WholeArray, most_columns
from hetero_kernels.gemm_i8_i8.spec import GEMM_I8_I8


def design(depth: int, channels: int, *, columns: int | None = None, rows: int = 4, strips: int = 1) -> WholeArray:
    """The design for a weight of that size, whose host's buffer `packed` makes; see `WholeArray` for the others.

    Args:
        depth: K.
        channels: N.
        columns: As many as can share N evenly, when not given.
        rows: Cores of a column.
        strips: Blocks of 64 rows of `a` for each row of cores in one launch.
    """
    return WholeArray(
        kernel=GEMM_I8_I8.build(depth, channels),
        source=Path(__file__).with_name("kernel.cc"),
        depth=depth,
        channels=channels,
        columns=columns or most_columns(channels),
        rows=rows,
        strips=strips,
        frame=2560,
        limits=(
            "the weight is read from the host's memory once for each strip of rows, not kept in the memory tiles, and "
            "with it 4,096 bytes for each 64 channels; channels that are no multiple of 256 leave columns idle; never "
            "run on an NPU"
        ),
        scaled=True,
    )


def packed(*, w: Array, bias: Array, multiplier: Array, shift: Array) -> Array:
    """The weight and what belongs to its channels, as the design takes them.

    Args:
        w: As the kernel takes it, int8 `[K, N]`.
        bias: Likewise, int32 `[N]`.
        multiplier: Likewise, int16 `[N]`.
        shift: Likewise, int8 `[1]`.

    Returns:
        int8 `[K + 64, N]`. For each 64 channels, blocks of 8 x 8 of its last 64 rows are the biases, the multipliers
        and the shift, one behind the other.
    """
    groups = w.shape[1] // SIDE
    about = np.zeros((groups, SIDE * SIDE), np.int8)
    about[:, : 4 * SIDE] = np.ascontiguousarray(bias).reshape(groups, SIDE).view(np.int8)
    about[:, 4 * SIDE : 6 * SIDE] = np.ascontiguousarray(multiplier).reshape(groups, SIDE).view(np.int8)
    about[:, 6 * SIDE] = shift[0]
    # [group][row of blocks][column of blocks][8][8] -> [row of blocks][8][group][column of blocks][8]
    rows = about.reshape(groups, 8, 8, 8, 8).transpose(1, 3, 0, 2, 4).reshape(SIDE, groups * SIDE)
    return np.concatenate([w, rows])
