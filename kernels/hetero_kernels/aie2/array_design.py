"""What every design for the array has, whatever it does inside: checks, manifest and tools need no more of one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from hetero.errors import OptionError
from hetero.kernel_manifest import Layout, Role, TileTensor, Worker
from hetero.tensors import Array
from hetero_kernels.aie2.function import CoreFunction
from hetero_kernels.aie2.geometry import Geometry
from hetero_kernels.aie2.iron import Iron
from hetero_kernels.kernel import Kernel

Design = TypeVar("Design", bound="ArrayDesign")


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


@dataclass(frozen=True, kw_only=True)
class ArrayDesign(ABC):
    """A kernel on the array, of one geometry.

    Attributes:
        kernel: What it computes.
        source: The `.cc` with all of its functions.
        frame: Bytes of stack that a core's functions take at most.
        data: Bytes of tables that the source keeps in a core's memory.
        geometry: How much of the array it takes, and how much work a launch is.
        joined: A tile is several entries of the kernel's leading dimension, as its tensors' first dimension says; else
            it is one.
        cycles: Of one call, estimated; used for modelled time only.
        limits: What it does not do, for the listing.
    """

    worker: ClassVar[Worker] = "core"
    """Who works on a tile."""

    layouts: ClassVar[tuple[Layout, ...]] = ("packed",)
    """Those that its geometry may have."""

    kernel: Kernel
    source: Path
    frame: int
    data: int = 0
    geometry: Geometry = field(default_factory=Geometry)
    joined: bool = False
    cycles: int = 0
    limits: str = ""

    def __post_init__(self) -> None:
        layout = self.geometry.layout
        if layout not in self.layouts:
            raise OptionError(
                f"{self.name} has buffers for all columns together, and the layout is {layout!r}",
                fix=f"take the layout {' or '.join(self.layouts)}",
            )

    @property
    def name(self) -> str:
        """The kernel's."""
        return self.kernel.name

    @property
    def columns(self) -> int:
        """Of the array."""
        return self.geometry.columns

    @property
    def rows(self) -> int:
        """Cores of a column."""
        return self.geometry.rows

    @property
    def stack(self) -> int:
        """Bytes of a core's stack: what the geometry says, else the frame and that of the core's loop, rounded up."""
        return self.geometry.stack or -(-(self.frame + 256) // 512) * 512

    @property
    def tiles(self) -> int:
        """Of one launch."""
        return self.geometry.tiles

    @property
    def blocks(self) -> int:
        """What cores answer in one launch, counted in what one of them gives at a time: tiles."""
        return self.tiles

    @property
    def calls(self) -> int:
        """Of the function that is called most, in one launch: how long a launch takes on the stand-in."""
        return self.blocks

    @property
    @abstractmethod
    def functions(self) -> tuple[CoreFunction, ...]:
        """What its cores call."""

    @property
    @abstractmethod
    def arguments(self) -> tuple[HostArgument, ...]:
        """The buffers in the order of the compiled design."""

    def at(self: Design, geometry: Geometry) -> Design:
        """The same of another geometry.

        Raises:
            OptionError: It cannot be of that one.
        """
        return replace(self, geometry=geometry)

    def small(self: Design) -> Design:
        """The same kernel of a size that stands for this one in checks; itself, when it is small."""
        return self

    @abstractmethod
    def examples(self, rng: np.random.Generator) -> dict[str, Array]:
        """Inputs of one launch to check it with, extreme and random."""

    @abstractmethod
    def program(self, iron: Iron) -> Any:
        """The design, made of IRON's names.

        Args:
            iron: The real ones, or the stand-in's.

        Returns:
            A `Program` of those names.
        """

    def core_kernels(self, iron: Iron) -> list[Any]:
        """The cores' functions, as IRON's `Kernel`s of one object file."""
        return [iron.Kernel(function.name, f"{self.name}.o", function.types) for function in self.functions]

    @abstractmethod
    def alone(self, functions: Mapping[str, Callable[..., None]], buffers: Sequence[Array]) -> None:
        """Do a launch's work by calling the cores' functions one after the other, without an array around them.

        Args:
            functions: By name; each takes arrays of its buffers' dtypes.
            buffers: As `packing.pack` makes them; the outputs are written.
        """
