"""attention_i8_64x64 on the array: Q, K and V of a tile in one buffer, in blocks of 8 x 8 for the cores."""

from __future__ import annotations

from pathlib import Path

from hetero.kernel_manifest import TileTensor
from hetero_kernels.aie2.column_map import ColumnMap
from hetero_kernels.aie2.pattern import blocked, unblocked
from hetero_kernels.attention_i8_64x64.spec import ATTENTION_I8_64X64

DESIGN = ColumnMap(
    kernel=ATTENTION_I8_64X64,
    source=Path(__file__).with_name("kernel.cc"),
    inputs=tuple(TileTensor(name, "int8", (64, 64)) for name in ("q", "k", "v")),
    outputs=(TileTensor("o", "int8", (64, 64)),),
    in_pattern=blocked(3 * 64, 64),
    out_pattern=unblocked(64, 64),
    frame=6144,
    data=640,
    cycles=6500,
    limits="a tile sees its own 64 keys only; never run on an NPU",
)
