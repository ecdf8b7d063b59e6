"""What runs on a core for `attention_i8_exact_{T}`: the state's begin, a block of keys, the end."""

from __future__ import annotations

from pathlib import Path

from hetero_kernels.aie2.function import Buffer, CoreFunction

QUERIES = 64 * 64 + 64 * 4 + 32
"""Bytes of a query packet: 64 queries in blocks of 8 x 8, their temperatures, the number of keys in 32 bytes."""

KEYS = 2 * 64 * 64
"""Bytes of a key packet: 64 keys and their values, each in blocks of 8 x 8."""

STATE = 64 * 64 + 64 + 64 + 16
"""int32 of the state: sums, totals, scales, the number of the block."""

_SOURCE = Path(__file__).with_name("kernel.cc")
_STATE = ("state", "int32", (STATE,))

BEGIN = CoreFunction("attention_i8_exact_begin", _SOURCE, (Buffer(*_STATE, "inout"),), frame=8192)

ATTEND = CoreFunction(
    "attention_i8_exact_block",
    _SOURCE,
    (Buffer("queries", "int8", (QUERIES,), "in"), Buffer("keys", "int8", (KEYS,), "in"), Buffer(*_STATE, "inout")),
    frame=8192,
)

END = CoreFunction(
    "attention_i8_exact_end",
    _SOURCE,
    (Buffer(*_STATE, "in"), Buffer("out", "int16", (64 * 64,), "out")),
    frame=8192,
)
