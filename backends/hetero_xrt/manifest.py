"""`kernel.toml`: what a compiled kernel takes, in which order, and how tiles are laid out in its buffers.

An xclbin does not tell this, and a wrong order or size is no error on an NPU but a wrong answer. `reading` has what
checks it. Version 1::

    [kernel]
    format = 1
    name = "MLIR_AIE"                       # in the xclbin
    logical = "attention_i8_64x64"          # the kernel that it computes
    target = "npu1"                         # the generation of NPU that it was built for
    xclbin = "attention_i8_64x64.xclbin"    # beside this file
    instructions = "attention_i8_64x64.insts.bin"
    opcode = 3                              # optional
    columns = 4                             # of the array that it takes
    rows = 1                                # optional: cores of a column that work on tiles
    worker = "core"                         # optional: who works on one tile: a core, a "column", the whole "array"
    tiles_per_launch = 64                   # in all columns together

    [batch]                                 # optional: how tiles become launches
    order = "columns"                       # or "interleaved": tile i goes to column i modulo columns
    fill = "zeros"                          # or "repeat": what fills a launch that is not full
    tiles = "stacked"                       # or "joined": a tile is several entries of the leading dimension

    [[argument]]                            # every buffer, in the kernel's order; data begins at 3
    index = 3
    name = "in"
    role = "in"                             # "in", "out", "inout", "weight", "scratch", "constant"
    layout = "packed"                       # optional: [column][tile][tensors]; or "separate": one column's tiles
    column = 0                              # for "separate"
    group = 65536                           # optional: what kernel.group_id(index) is to answer
    file = "kernel.matrices.bin"            # of a "constant": its content, beside this file
    pieces = 4                              # optional: a tile is dealt out in so many, each with a part of every tensor
    padding = 60                            # optional: bytes behind each piece
    tensors = [                             # of one tile, one behind the other; of the whole where there are no tiles
        { name = "q", dtype = "int8", shape = [64, 64] },
        { name = "gamma", dtype = "int8", shape = [256], shared = true },   # the same in every tile
        { name = "w", dtype = "int8", shape = [64, 256], axis = 1 },        # pieces are cut along that dimension
        { name = "keys", dtype = "int32", shape = [1], repeated = true },   # not cut: every piece has it
    ]
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hetero.kernel_manifest import Fill, Order, Worker
from hetero_xrt.arguments import Argument
from hetero_xrt.xclbin import XclbinFile

Tiles = Literal["stacked", "joined"]


@dataclass(frozen=True)
class Batch:
    """How tiles become launches.

    Attributes:
        order: `columns`: the first tiles of a launch go to the first column, the next ones to the next; `interleaved`:
            tile i goes to column i modulo columns.
        fill: What fills a launch that is not full.
        tiles: `stacked`: a tile is one entry of the logical kernel's leading dimension; `joined`: as many as the tile's
            first dimension says.
    """

    order: Order = "columns"
    fill: Fill = "zeros"
    tiles: Tiles = "stacked"


@dataclass(frozen=True)
class Manifest:
    """A compiled kernel, ready to be loaded: what was read was checked.

    Attributes:
        path: The `kernel.toml`.
        name: Of the kernel in the xclbin.
        logical: The kernel that it computes.
        target: The generation of NPU that it was built for.
        xclbin: What the header of the xclbin says.
        instructions: The instruction file.
        opcode: The kernel's first argument.
        columns: Of the array that it takes.
        rows: Cores of a column that work on tiles.
        tiles_per_launch: In all columns together.
        arguments: In order of index.
        batch: How tiles become launches.
        worker: Who works on one tile: a core, the cores of a column together, or all of them.
    """

    path: Path
    name: str
    logical: str
    target: str
    xclbin: XclbinFile
    instructions: Path
    opcode: int
    columns: int
    rows: int
    tiles_per_launch: int
    arguments: tuple[Argument, ...]
    batch: Batch
    worker: Worker = "core"

    @property
    def tiles_per_column(self) -> int:
        """Tiles that each column works on in one launch."""
        return self.tiles_per_launch // self.columns

    def size_of(self, argument: Argument) -> int:
        """Bytes of an argument's buffer."""
        if not argument.tiled:
            return argument.tile_size
        return argument.tile_size * (self.tiles_per_launch if argument.layout == "packed" else self.tiles_per_column)

    def launches(self, tiles: int) -> int:
        """Launches that so many tiles take."""
        return -(-tiles // self.tiles_per_launch)
