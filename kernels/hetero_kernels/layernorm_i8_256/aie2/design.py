"""layernorm_i8_256 on the array: 16 rows a tile, with their own copy of gamma and beta behind them."""

from __future__ import annotations

from pathlib import Path

from hetero.kernel_manifest import TileTensor
from hetero_kernels.aie2.column_map import ColumnMap
from hetero_kernels.layernorm_i8_256.spec import LAYERNORM_I8_256

DESIGN = ColumnMap(
    kernel=LAYERNORM_I8_256,
    source=Path(__file__).with_name("kernel.cc"),
    inputs=(
        TileTensor("x", "int8", (16, 256)),
        TileTensor("gamma", "int8", (256,), shared=True),
        TileTensor("beta", "int8", (256,), shared=True),
    ),
    outputs=(TileTensor("y", "int8", (16, 256)),),
    joined=True,
    frame=2048,
    cycles=3500,
    limits="gamma and beta travel with every tile; never run on an NPU",
)
