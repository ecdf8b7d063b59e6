"""How a tensor lies in a buffer that it shares with others: whole, or dealt out in pieces between them.

A buffer for an accelerator is often a row of packets, each with a part of every tensor: 64 queries and what belongs to
them, then the next 64. `Dealt` says where the parts of one tensor are, and gives a view of them that numpy copies to
and from in one step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from hetero.tensors import Array


@dataclass(frozen=True)
class Dealt:
    """One tensor of a tile, as it lies in the tile's pieces.

    Attributes:
        shape: Of the tensor.
        dtype: Of its elements.
        pieces: Of a tile. Each holds a part of every tensor, in the tensors' order, and then the next piece begins.
        axis: That the tensor is cut along, into `pieces` equal parts.
        repeated: It is not cut: every piece has all of it.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    pieces: int = 1
    axis: int = 0
    repeated: bool = False

    @property
    def possible(self) -> bool:
        """Whether it can be cut so."""
        whole = self.repeated or self.pieces == 1
        return whole or (0 <= self.axis < len(self.shape) and self.shape[self.axis] % self.pieces == 0)

    @property
    def part(self) -> tuple[int, ...]:
        """The shape of what a piece has of it."""
        if self.repeated or self.pieces == 1:
            return self.shape
        return (*self.shape[: self.axis], self.shape[self.axis] // self.pieces, *self.shape[self.axis + 1 :])

    @property
    def part_size(self) -> int:
        """Bytes of that."""
        return math.prod(self.part) * self.dtype.itemsize

    @property
    def cells(self) -> tuple[int, ...]:
        """The shape that a tensor takes to be copied to or from a view of one tile: it broadcasts to the view's."""
        if self.pieces == 1:
            return self.shape
        if self.repeated:
            return (1, *self.shape)
        return (*self.shape[: self.axis], self.pieces, *self.part[self.axis :])

    def view(self, memory: Any, offset: int, piece_size: int, tiles: int) -> Array:
        """The tensor's parts in a buffer.

        Args:
            memory: The buffer, as numpy takes one.
            offset: Of the first part, in bytes.
            piece_size: Bytes from one piece to the next.
            tiles: How many tiles of `pieces` pieces there are, one behind the other.

        Returns:
            `[tiles, *cells]` of that memory; of a repeated tensor `[tiles, pieces, *shape]`.
        """
        inner = list(np.empty(self.part, self.dtype).strides)
        shape = list(self.cells)
        if self.pieces > 1:
            place = 0 if self.repeated else self.axis
            shape[place] = self.pieces
            inner.insert(place, piece_size)
        parts: Array = np.ndarray((tiles, *shape), self.dtype, memory, offset, (self.pieces * piece_size, *inner))
        return parts
