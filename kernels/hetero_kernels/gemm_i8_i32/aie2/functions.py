"""What runs on a core for `gemm_i8_i32_{K}x{N}`: 64 x 64 blocks, in 8 x 8 blocks each, summed along K."""

from __future__ import annotations

from pathlib import Path

from hetero_kernels.aie2.function import Buffer, CoreFunction

TILE = 64 * 64

_SOURCE = Path(__file__).with_name("kernel.cc")

BEGIN = CoreFunction("gemm_i8_i32_begin", _SOURCE, (Buffer("c", "int32", (TILE,), "out"),), frame=1024)

BLOCK = CoreFunction(
    "gemm_i8_i32_block",
    _SOURCE,
    (Buffer("a", "int8", (TILE,), "in"), Buffer("w", "int8", (TILE,), "in"), Buffer("c", "int32", (TILE,), "inout")),
    frame=2048,
)
