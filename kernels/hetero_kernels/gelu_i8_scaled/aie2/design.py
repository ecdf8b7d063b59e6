"""gelu_i8_scaled on the array: 4,096 values a tile, with the table behind them."""

from __future__ import annotations

from pathlib import Path

from hetero.kernel_manifest import TileTensor
from hetero_kernels.aie2.column_map import ColumnMap
from hetero_kernels.gelu_i8_scaled.spec import GELU_I8_SCALED

DESIGN = ColumnMap(
    kernel=GELU_I8_SCALED,
    source=Path(__file__).with_name("kernel.cc"),
    inputs=(TileTensor("x", "int8", (4096,)), TileTensor("table", "int8", (256,), shared=True)),
    outputs=(TileTensor("y", "int8", (4096,)),),
    joined=True,
    frame=3072,
    cycles=1800,
    limits=(
        "the table travels with every tile; its two copies lie on the stack, where a build has to see to it that they "
        "are in different banks; never run on an NPU"
    ),
)
