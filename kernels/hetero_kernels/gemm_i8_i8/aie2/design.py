"""gemm_i8_i8_{K}x{N} on the whole array."""

from __future__ import annotations

from pathlib import Path

from hetero_kernels.aie2.geometry import Geometry
from hetero_kernels.aie2.whole_array import WholeArray, most_columns
from hetero_kernels.gemm_i8_i8.spec import GEMM_I8_I8


def design(
    depth: int, channels: int, *, columns: int | None = None, rows: int = 4, strips: int | None = None
) -> WholeArray:
    """The design for a weight of that size; see `WholeArray` for the others.

    Args:
        depth: K.
        channels: N.
        columns: As many as can share N evenly, when not given.
        rows: Cores of a column.
        strips: Blocks of 64 rows of `a` for each row of cores in one launch; as many as columns, when not given.
    """
    taken = columns or most_columns(channels)
    return WholeArray(
        kernel=GEMM_I8_I8.build(depth, channels),
        source=Path(__file__).with_name("kernel.cc"),
        depth=depth,
        channels=channels,
        geometry=Geometry(taken, rows, taken if strips is None else strips),
        frame=2560,
        limits=(
            "the weight is read from the host's memory once for each strip of rows, not kept in the memory tiles, and "
            "with it 4,096 bytes for each 64 channels; channels that are no multiple of 256 leave columns idle; never "
            "run on an NPU"
        ),
        scaled=True,
    )
