"""`kernel.toml`, written: what stands beside an xclbin and says what a compiled kernel takes.

The designs of kernels and the simulator's stand-ins write it through here, in the words below; the XRT backend reads
it, and says at the top of its `manifest` what each key means.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from hetero.pieces import Dealt

KERNEL_TOML = "kernel.toml"
FORMAT = 1

FIRST_DATA_ARGUMENT = 3
"""Before the data come the opcode, the instructions and their number of words."""

Role = Literal["in", "out", "inout", "weight", "scratch", "constant"]
"""What the kernel does with a buffer. `weight`: the same for all tiles; `scratch`: the kernel's own, of no content;
`constant`: of a content that is not the caller's, but belongs to the kernel."""

Layout = Literal["packed", "separate"]
"""`packed`: `[column][tile][tensors]`; `separate`: the tiles of one column."""

Worker = Literal["core", "column", "array"]
"""Who works on one tile: a core, the cores of a column together, or all of them."""

Order = Literal["columns", "interleaved"]
"""`columns`: the first tiles of a launch go to the first column, the next ones to the next; `interleaved`: tile i goes
to column i modulo columns."""

Fill = Literal["zeros", "repeat"]
"""What fills a launch that is not full."""


@dataclass(frozen=True)
class TileTensor:
    """One tensor in a buffer.

    Attributes:
        name: As the kernel's spec has it.
        dtype: A numpy name.
        shape: Of one tile; of the whole in a `weight`, `scratch` or `constant`.
        shared: The kernel takes it once for all tiles, and every tile brings its own copy.
        axis: That it is cut along, where its buffer is dealt out in pieces.
        repeated: It is not cut: each of them has a copy.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    shared: bool = False
    axis: int = 0
    repeated: bool = False

    @property
    def size(self) -> int:
        """In bytes."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def dealt(self, pieces: int) -> Dealt:
        """How it lies in a tile of so many pieces."""
        return Dealt(self.shape, np.dtype(self.dtype), pieces, self.axis, self.repeated)


class KernelBuffer(Protocol):
    """A buffer argument, as far as a manifest tells of it."""

    @property
    def name(self) -> str:
        """For people."""

    @property
    def role(self) -> Role:
        """What the kernel does with it."""

    @property
    def tensors(self) -> tuple[TileTensor, ...]:
        """One behind the other: of one tile, or of the whole where there are no tiles."""

    @property
    def column(self) -> int | None:
        """Whose tiles it holds; None for all columns."""

    @property
    def pieces(self) -> int:
        """That a tile is dealt out in: each holds a part of every tensor."""

    @property
    def padding(self) -> int:
        """Bytes behind each piece."""


@dataclass(frozen=True)
class KernelManifest:
    """What a `kernel.toml` says.

    Attributes:
        name: Of the kernel in the xclbin.
        logical: The kernel that it computes.
        xclbin: The file's name, beside the manifest.
        instructions: Likewise.
        columns: Of the array that it takes.
        rows: Cores of a column that work on tiles.
        worker: Who works on one tile.
        tiles_per_launch: In all columns together.
        joined: A tile is several entries of the leading dimension, as its first dimension says; else it is one.
        buffers: In the order of the compiled design.
        order: How tiles are dealt to columns.
        fill: What fills a launch that is not full.
        description: A few words; empty for none.
        opcode: The kernel's first argument; None for what the reader takes by itself.
        comment: A line at the top; empty for none.
    """

    name: str
    logical: str
    xclbin: str
    instructions: str
    columns: int
    rows: int
    worker: Worker
    tiles_per_launch: int
    joined: bool
    buffers: Sequence[KernelBuffer]
    order: Order = "columns"
    fill: Fill = "zeros"
    description: str = ""
    opcode: int | None = None
    comment: str = ""

    def text(self) -> str:
        """The file's content; its strings are written as JSON, which TOML reads alike."""
        lines = [
            *([f"# {self.comment}"] if self.comment else []),
            "[kernel]",
            f"format = {FORMAT}",
            f"name = {json.dumps(self.name)}",
            f"logical = {json.dumps(self.logical)}",
            *([f"description = {json.dumps(self.description)}"] if self.description else []),
            'target = "npu1"',
            f"xclbin = {json.dumps(self.xclbin)}",
            f"instructions = {json.dumps(self.instructions)}",
            *([] if self.opcode is None else [f"opcode = {self.opcode}"]),
            f"columns = {self.columns}",
            f"rows = {self.rows}",
            f"worker = {json.dumps(self.worker)}",
            f"tiles_per_launch = {self.tiles_per_launch}",
            "",
            "[batch]",
            f"order = {json.dumps(self.order)}",
            f"fill = {json.dumps(self.fill)}",
            f"tiles = {json.dumps('joined' if self.joined else 'stacked')}",
        ]
        for index, buffer in enumerate(self.buffers, FIRST_DATA_ARGUMENT):
            lines += ["", "[[argument]]", f"index = {index}", *self._of(buffer)]
        return "\n".join(lines) + "\n"

    def _of(self, buffer: KernelBuffer) -> list[str]:
        lines = [f"name = {json.dumps(buffer.name)}", f"role = {json.dumps(buffer.role)}"]
        if buffer.column is not None:
            lines += ['layout = "separate"', f"column = {buffer.column}"]
        if buffer.role == "constant":
            lines.append(f"file = {json.dumps(constant_name(self.logical, buffer.name))}")
        if buffer.pieces > 1:
            lines.append(f"pieces = {buffer.pieces}")
        if buffer.padding:
            lines.append(f"padding = {buffer.padding}")
        return [*lines, "tensors = [", *(f"    {_tensor(tensor)}," for tensor in buffer.tensors), "]"]


def constant_name(logical: str, buffer: str) -> str:
    """The name of the file, beside the manifest, with the content of a constant.

    Args:
        logical: The kernel's.
        buffer: The constant's.
    """
    return f"{logical}.{buffer}.bin"


def _tensor(tensor: TileTensor) -> str:
    parts = [
        f"name = {json.dumps(tensor.name)}",
        f"dtype = {json.dumps(np.dtype(tensor.dtype).name)}",
        f"shape = {json.dumps(list(tensor.shape))}",
    ]
    if tensor.shared:
        parts.append("shared = true")
    if tensor.axis:
        parts.append(f"axis = {tensor.axis}")
    if tensor.repeated:
        parts.append("repeated = true")
    return "{ " + ", ".join(parts) + " }"
