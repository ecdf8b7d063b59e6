"""gelu_i8 on the array: 4,096 values a tile, as they lie."""

from __future__ import annotations

from pathlib import Path

from hetero.kernel_manifest import TileTensor
from hetero_kernels.aie2.column_map import ColumnMap
from hetero_kernels.gelu_i8.spec import GELU_I8

DESIGN = ColumnMap(
    kernel=GELU_I8,
    source=Path(__file__).with_name("kernel.cc"),
    inputs=(TileTensor("x", "int8", (4096,)),),
    outputs=(TileTensor("y", "int8", (4096,)),),
    joined=True,
    frame=512,
    data=2304,
    cycles=1600,
    limits="never run on an NPU",
)
