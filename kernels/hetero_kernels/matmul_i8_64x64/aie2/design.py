"""matmul_i8_64x64 on the array: A and B of a pair in one buffer, in blocks of 8 x 8 for the cores."""

from __future__ import annotations

from pathlib import Path

from hetero.kernel_manifest import TileTensor
from hetero_kernels.aie2.column_map import ColumnMap
from hetero_kernels.aie2.pattern import blocked, unblocked
from hetero_kernels.matmul_i8_64x64.spec import MATMUL_I8_64X64

DESIGN = ColumnMap(
    kernel=MATMUL_I8_64X64,
    source=Path(__file__).with_name("kernel.cc"),
    inputs=tuple(TileTensor(name, "int8", (64, 64)) for name in ("a", "b")),
    outputs=(TileTensor("c", "int8", (64, 64)),),
    in_pattern=blocked(2 * 64, 64),
    out_pattern=unblocked(64, 64),
    frame=1024,
    cycles=1400,
    limits="independent pairs of tiles: nothing is shared between cores; never run on an NPU",
)
