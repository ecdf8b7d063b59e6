"""What runs on a core for `attention_i8_64x64_v2`."""

from __future__ import annotations

from pathlib import Path

from hetero_kernels.aie2.function import Buffer, CoreFunction

PACKET = 3 * 64 * 64 + 32
"""Bytes of a tile's input: Q, K, V in blocks of 8 x 8, and the temperature, an int32 in 32 bytes."""

ATTEND = CoreFunction(
    "attention_i8_64x64_v2",
    Path(__file__).with_name("kernel.cc"),
    (Buffer("in", "int8", (PACKET,), "in"), Buffer("out", "int8", (64 * 64,), "out")),
    frame=8192,
)
