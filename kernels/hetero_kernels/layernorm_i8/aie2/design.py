"""layernorm_i8_{D} on the array: some rows a tile, with their own copy of gamma and beta behind them."""

from __future__ import annotations

from pathlib import Path

from hetero.kernel_manifest import TileTensor
from hetero_kernels.aie2.column_map import ColumnMap
from hetero_kernels.layernorm_i8.reference import root
from hetero_kernels.layernorm_i8.spec import LAYERNORM_I8

# Values of a tile: its buffers, twice each, leave room for gamma, beta and the stack.
_VALUES = 6144


def design(width: int) -> ColumnMap:
    """The design for rows of that width: as many rows a tile as make up 6,144 values, at least 1."""
    rows = max(_VALUES // width, 1)
    mantissa, bits = root(width)
    name = LAYERNORM_I8.name(D=width)
    return ColumnMap(
        kernel=LAYERNORM_I8.build(width),
        source=Path(__file__).with_name("kernel.cc"),
        inputs=(
            TileTensor("x", "int16", (rows, width)),
            TileTensor("gamma", "int16", (width,), shared=True),
            TileTensor("beta", "int16", (width,), shared=True),
        ),
        outputs=(TileTensor("y", "int8", (rows, width)),),
        joined=True,
        frame=4096,
        cycles=rows * (width // 4 + 250),
        limits="gamma and beta travel with every tile; never run on an NPU",
        defines=(("FUNCTION", name), ("ROWS", rows), ("WIDTH", width), ("ROOT", mantissa), ("ROOT_BITS", bits)),
    )
