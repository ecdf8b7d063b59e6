"""The buffers of a compiled kernel: which tensors lie in each, and how."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hetero.kernel_manifest import Layout, Role
from hetero.pieces import Dealt


@dataclass(frozen=True)
class Tensor:
    """One tensor in a buffer.

    Attributes:
        name: As the logical kernel calls it.
        dtype: Of its elements.
        shape: Of one tile; of the whole in a `weight`, `scratch` or `constant`.
        shared: The kernel has it once for all tiles, and each tile gets a copy.
        axis: That it is cut along, in an argument of several pieces.
        repeated: It is not cut: each of them has a copy.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    shared: bool = False
    axis: int = 0
    repeated: bool = False

    @property
    def size(self) -> int:
        """In bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def dealt(self, pieces: int) -> Dealt:
        """How it lies in a tile of so many pieces."""
        return Dealt(self.shape, self.dtype, pieces, self.axis, self.repeated)


@dataclass(frozen=True)
class Argument:
    """One buffer argument.

    Attributes:
        index: Among all arguments of the kernel.
        name: For people.
        role: What the kernel does with it.
        tensors: One behind the other: of one tile, or of the whole for `weight`, `scratch` and `constant`.
        layout: `packed`: `[column][tile][tensors]`; `separate`: the tiles of one column.
        column: That column.
        group: What `kernel.group_id(index)` is to answer; None for whatever it does.
        pieces: That a tile is dealt out in, one behind the other: each has a part of every tensor.
        padding: Bytes behind each piece.
        file: With the content of a `constant`.
    """

    index: int
    name: str
    role: Role
    tensors: tuple[Tensor, ...]
    layout: Layout = "packed"
    column: int | None = None
    group: int | None = None
    pieces: int = 1
    padding: int = 0
    file: Path | None = None

    @property
    def piece_size(self) -> int:
        """Bytes of one piece of a tile, with what is behind it."""
        return sum(tensor.dealt(self.pieces).part_size for tensor in self.tensors) + self.padding

    @property
    def tile_size(self) -> int:
        """Bytes of one tile, or of the whole where there are no tiles."""
        return self.pieces * self.piece_size

    @property
    def tiled(self) -> bool:
        """It holds tiles, so that its size goes with their number."""
        return self.role in ("in", "out", "inout")
