"""What runs on a core for `gemm_i8_i8_{K}x{N}`: 64 x 64 blocks summed along K, then scaled."""

from __future__ import annotations

from pathlib import Path

from hetero_kernels.aie2.function import Buffer, CoreFunction

TILE = 64 * 64

CHANNELS = 64 * 4 + 64 * 2 + 32
"""Bytes of what belongs to 64 channels: biases int32, multipliers int16, the shift int8 in 32 bytes."""

_SOURCE = Path(__file__).with_name("kernel.cc")

BEGIN = CoreFunction("gemm_i8_i8_begin", _SOURCE, (Buffer("sums", "int32", (TILE,), "out"),), frame=1024)

BLOCK = CoreFunction(
    "gemm_i8_i8_block",
    _SOURCE,
    (
        Buffer("a", "int8", (TILE,), "in"),
        Buffer("w", "int8", (TILE,), "in"),
        Buffer("sums", "int32", (TILE,), "inout"),
    ),
    frame=2048,
)

END = CoreFunction(
    "gemm_i8_i8_end",
    _SOURCE,
    (
        Buffer("sums", "int32", (TILE,), "in"),
        Buffer("channels", "int8", (CHANNELS,), "in"),
        Buffer("c", "int8", (TILE,), "out"),
    ),
    frame=1024,
)
