"""What every design for the array has, whatever it does inside: checks, manifest and tools need no more of one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from hetero.pieces import Dealt
from hetero.tensors import Array
from hetero_kernels.aie2.function import CoreFunction
from hetero_kernels.aie2.geometry import Geometry
from hetero_kernels.aie2.iron import Iron
from hetero_kernels.kernel import Kernel

Worker = Literal["core", "column", "array"]
"""Who works on one tile: a core, the cores of a column together, or all of them."""

Role = Literal["in", "out", "weight", "constant"]


@dataclass(frozen=True)
class TileTensor:
    """One tensor in a buffer of the host.

    Attributes:
        name: As the kernel's spec has it.
        dtype: A numpy name.
        shape: Of one tile; of the whole in a `weight` or a `constant`.
        shared: The kernel takes it once for all tiles, and every tile brings its own copy.
        axis: That it is cut along, where its argument is dealt out in pieces.
        repeated: It is whole in each of them.
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


@dataclass(frozen=True, eq=False)
class HostArgument:
    """One buffer of the host, as `kernel.toml` describes it.

    Attributes:
        name: For people.
        role: `in`, `out`; `weight`: the same for all tiles; `constant`: not the caller's, but the design's.
        tensors: Of one tile, one behind the other; of the whole for `weight` and `constant`.
        tiles: How many it holds; 1 for `weight` and `constant`.
        column: Whose tiles it holds; None for all columns.
        pieces: That a tile is dealt out in: each holds a part of every tensor.
        padding: Bytes behind each piece.
        content: Of a constant, C-contiguous.
    """

    name: str
    role: Role
    tensors: tuple[TileTensor, ...]
    tiles: int = 1
    column: int | None = None
    pieces: int = 1
    padding: int = 0
    content: Array | None = None

    @property
    def piece_size(self) -> int:
        """Bytes of a piece, with what is behind it."""
        return sum(tensor.dealt(self.pieces).part_size for tensor in self.tensors) + self.padding

    @property
    def size(self) -> int:
        """Bytes of the buffer."""
        return self.tiles * self.pieces * self.piece_size


class ArrayDesign(Protocol):
    """A kernel on the array, of one geometry."""

    @property
    def name(self) -> str:
        """The kernel's."""

    @property
    def kernel(self) -> Kernel:
        """What it computes."""

    @property
    def source(self) -> Path:
        """The `.cc` with all of its functions."""

    @property
    def functions(self) -> tuple[CoreFunction, ...]:
        """What its cores call."""

    @property
    def data(self) -> int:
        """Bytes of tables that the source keeps in a core's memory."""

    @property
    def stack(self) -> int:
        """Bytes of a core's stack."""

    @property
    def cycles(self) -> int:
        """Of one call, estimated; used for modelled time only."""

    @property
    def limits(self) -> str:
        """What it does not do, for the listing."""

    @property
    def geometry(self) -> Geometry:
        """How much of the array it takes, and how much work a launch is."""

    @property
    def joined(self) -> bool:
        """A tile is several entries of the kernel's leading dimension, as its first dimension says; else it is one."""

    @property
    def worker(self) -> Worker:
        """Who works on a tile."""

    @property
    def tiles(self) -> int:
        """Of one launch."""

    @property
    def blocks(self) -> int:
        """What cores answer in one launch, counted in what one of them gives at a time."""

    @property
    def calls(self) -> int:
        """Of the function that is called most, in one launch: how long a launch takes on the stand-in."""

    @property
    def arguments(self) -> tuple[HostArgument, ...]:
        """The buffers in the order of the compiled design."""

    def at(self, geometry: Geometry) -> ArrayDesign:
        """The same of another geometry.

        Raises:
            OptionError: It cannot be of that one.
        """

    def small(self) -> ArrayDesign:
        """The same kernel of a size that stands for this one in checks; itself, when it is small."""

    def examples(self, rng: np.random.Generator) -> dict[str, Array]:
        """Inputs of one launch to check it with, extreme and random."""

    def program(self, iron: Iron) -> Any:
        """The design, made of IRON's names.

        Args:
            iron: The real ones, or the stand-in's.

        Returns:
            A `Program` of those names.
        """

    def alone(self, functions: Mapping[str, Callable[..., None]], buffers: Sequence[Array]) -> None:
        """Do a launch's work by calling the cores' functions one after the other, without an array around them.

        Args:
            functions: By name; each takes arrays of its buffers' dtypes.
            buffers: As `packing.pack` makes them; the outputs are written.
        """
