"""How long a launch takes. Modelled: nothing here was measured on a laptop.

The cycle model's numbers are of an instruction-level model of public AIE2 binaries: a shim's DMA moves 0.99 words of
4 bytes a cycle and channel, of which a column has two each way; the first word takes 1,155 cycles in and 570 out. A
core does 256 int8 multiply-adds a cycle at most.
"""

from __future__ import annotations

import math

from hetero.testing.xrt.design import Design
from hetero.testing.xrt.phoenix import SimulatedPhoenix

WORDS_PER_CYCLE = 0.99
CHANNELS = 2
CYCLES_IN, CYCLES_OUT = 1155, 570
MULTIPLY_ADDS_PER_CYCLE = 256


def seconds_of(design: Design, phoenix: SimulatedPhoenix) -> float:
    """Modelled seconds of one launch, without what dispatching it costs."""
    if phoenix.timing == "cycles" or design.by_cycles:
        column = cycles_of(design, phoenix.utilisation) / (phoenix.clock_mhz * 1e6)
    else:
        column = math.ceil(design.tiles_per_column / design.rows) * phoenix.tile_seconds
    return column * design.columns if design.serial else column


def cycles_of(design: Design, utilisation: float) -> float:
    """Modelled cycles of one column in one launch: transfers and computing overlap, the slowest decides."""
    bytes_in = bytes_out = 0.0
    for argument in design.arguments:
        size = design.size_of(argument) / (design.columns if argument.column is None else 1)
        if argument.column in (None, 0):
            bytes_in += argument.tile_size if argument.role == "weight" else 0
            bytes_in += size if argument.role in ("in", "inout") else 0
            bytes_out += size if argument.role in ("out", "inout") else 0
    rate = 4 * WORDS_PER_CYCLE * CHANNELS
    rounds = math.ceil(design.tiles_per_column / design.rows)
    compute = rounds * design.multiply_adds / (MULTIPLY_ADDS_PER_CYCLE * utilisation)
    return CYCLES_IN + max(bytes_in / rate, compute, bytes_out / rate) + CYCLES_OUT
