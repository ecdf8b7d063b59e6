"""attention_i8_64x64_v2 on the array: Q, K, V and the temperature of a tile in one buffer, as they lie."""

from __future__ import annotations

from pathlib import Path

from hetero.kernel_manifest import TileTensor
from hetero_kernels.aie2.column_map import ColumnMap
from hetero_kernels.aie2.pattern import unblocked
from hetero_kernels.attention_i8_64x64_v2.spec import ATTENTION_I8_64X64_V2

DESIGN = ColumnMap(
    kernel=ATTENTION_I8_64X64_V2,
    source=Path(__file__).with_name("kernel.cc"),
    inputs=(
        *(TileTensor(name, "int8", (64, 64)) for name in ("q", "k", "v")),
        TileTensor("temperature", "int32", (1,)),
    ),
    outputs=(TileTensor("o", "int8", (64, 64)),),
    out_pattern=unblocked(64, 64),
    frame=24576,
    cycles=14000,
    limits="a tile sees its own 64 keys only; never run on an NPU",
)
