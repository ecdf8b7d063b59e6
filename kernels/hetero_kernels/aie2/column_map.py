"""One design for every kernel that works tile by tile: columns of cores, each with its share of the tiles.

Per column the shim brings `rows` tiles at a time to the memory tile, which deals one to each core and blocks it on the
way; what the cores answer is joined there, unblocked on the way out, and taken away by the shim. `rows = 1` is one core
a column, `rows = 4` all sixteen. The sequence starts every column's transfers before it waits for any.

A kernel brings a `.cc`, its tensors with their patterns, and a frame: see `hetero_kernels/gelu_i8/aie2/design.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hetero.errors import OptionError
from hetero.tensors import Array
from hetero_kernels.aie2.function import Buffer, CoreFunction, array_type
from hetero_kernels.aie2.iron import Iron
from hetero_kernels.kernel import Kernel

Layout = Literal["packed", "separate"]
MOST_COLUMNS, MOST_ROWS = 4, 4


@dataclass(frozen=True)
class Geometry:
    """How much of the array a design takes, and how much work a launch is.

    Attributes:
        columns: 1 to 4.
        rows: Cores of a column, 1 to 4.
        tiles_per_core: That each core works on in one launch.
        layout: `packed`: one input and one output buffer, `[column][tile][tensors]`; `separate`: a buffer for each
            column, all inputs first, then all outputs.
        stack: Bytes of a core's stack; None for what the design says.
    """

    columns: int = 4
    rows: int = 4
    tiles_per_core: int = 4
    layout: Layout = "packed"
    stack: int | None = None

    def __post_init__(self) -> None:
        for name, value, most in (
            ("columns", self.columns, MOST_COLUMNS),
            ("rows", self.rows, MOST_ROWS),
            ("tiles_per_core", self.tiles_per_core, None),
        ):
            if value < 1 or (most is not None and value > most):
                limits = f"1 to {most}" if most else "1 or more"
                raise OptionError(f"{name} is {value}, expected {limits}", fix="Phoenix has 4 columns of 4 cores")
        if self.layout not in ("packed", "separate"):
            raise OptionError(f"layout is {self.layout!r}", fix="take packed or separate")

    @property
    def tiles(self) -> int:
        """Of one launch, in all columns together."""
        return self.columns * self.tiles_per_column

    @property
    def tiles_per_column(self) -> int:
        """Of one launch."""
        return self.rows * self.tiles_per_core


@dataclass(frozen=True)
class TileTensor:
    """One tensor of a tile.

    Attributes:
        name: As the kernel's spec has it.
        dtype: A numpy name.
        shape: Of one tile.
        shared: The kernel takes it once for all tiles, and every tile brings its own copy.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    shared: bool = False

    @property
    def size(self) -> int:
        """In bytes."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class HostArgument:
    """One buffer of the host, as `kernel.toml` describes it.

    Attributes:
        name: For people.
        role: `in` or `out`.
        tensors: Of one tile, one behind the other.
        column: Whose tiles it holds; None for all columns.
    """

    name: str
    role: Literal["in", "out"]
    tensors: tuple[TileTensor, ...]
    column: int | None

    @property
    def tile_size(self) -> int:
        """Bytes of one tile."""
        return sum(tensor.size for tensor in self.tensors)


@dataclass(frozen=True)
class ColumnMap:
    """A kernel on the array, tile by tile.

    Attributes:
        kernel: What it computes.
        source: The `.cc` with the function of that kernel's name: `(const int8_t *in, int8_t *out)`.
        inputs: The tensors of a tile in its input buffer, one behind the other.
        outputs: Likewise of its output buffer.
        frame: Bytes of stack that a core's function takes at most.
        data: Bytes of tables that it keeps in a core's memory.
        in_pattern: How the memory tile reads an input tile, in bytes, outermost first; empty for as it is.
        out_pattern: How it reads an output tile on the way out.
        joined: A tile is several entries of the kernel's leading dimension, as its tensors' first dimension says; else
            it is one entry.
        cycles: Of one call, estimated from the instructions of its inner loops; used for modelled time only.
        limits: What it does not do, for the listing.
        geometry: What it is built for unless the caller says otherwise.
        defines: Macros that give the source its name or sizes, of a design for many sizes.
    """

    kernel: Kernel
    source: Path
    inputs: tuple[TileTensor, ...]
    outputs: tuple[TileTensor, ...]
    frame: int
    data: int = 0
    in_pattern: tuple[tuple[int, int], ...] = ()
    out_pattern: tuple[tuple[int, int], ...] = ()
    joined: bool = False
    cycles: int = 0
    limits: str = ""
    geometry: Geometry = field(default_factory=Geometry)
    defines: tuple[tuple[str, int | str], ...] = ()

    @property
    def name(self) -> str:
        """The kernel's."""
        return self.kernel.name

    @property
    def stack(self) -> int:
        """Bytes of a core's stack unless the caller says otherwise: the frame, that of the core's loop, rounded up."""
        return -(-(self.frame + 256) // 512) * 512

    @property
    def in_size(self) -> int:
        """Bytes of an input tile."""
        return sum(tensor.size for tensor in self.inputs)

    @property
    def out_size(self) -> int:
        """Bytes of an output tile."""
        return sum(tensor.size for tensor in self.outputs)

    @property
    def function(self) -> CoreFunction:
        """What runs on a core."""
        buffers = (Buffer("in", "int8", (self.in_size,), "in"), Buffer("out", "int8", (self.out_size,), "out"))
        return CoreFunction(self.name, self.source, buffers, self.frame, self.defines)

    def functions(self) -> tuple[CoreFunction, ...]:
        """All functions of its cores."""
        return (self.function,)

    def settled(self, geometry: Geometry) -> Geometry:
        """The geometry with this design's stack, where it says none."""
        return geometry if geometry.stack is not None else replace(geometry, stack=self.stack)

    def program(self, iron: Iron, geometry: Geometry) -> Any:
        """The design, made of IRON's names.

        Args:
            iron: The real ones, or the stand-in's.
            geometry: How large.

        Returns:
            A `Program` of those names.
        """
        geometry = self.settled(geometry)
        rows = geometry.rows
        in_tile, out_tile = _bytes(self.in_size), _bytes(self.out_size)
        function = iron.Kernel(self.name, f"{self.name}.o", [in_tile, out_tile])
        loads, stores, workers = [], [], []
        for column in range(geometry.columns):
            load = iron.ObjectFifo(_bytes(rows * self.in_size), name=f"load{column}")
            shares = load.cons().split(
                [row * self.in_size for row in range(rows)],
                obj_types=[in_tile] * rows,
                names=[f"in{column}_{row}" for row in range(rows)],
                dims_to_stream=[list(self.in_pattern)] * rows,
            )
            store = iron.ObjectFifo(
                _bytes(rows * self.out_size), name=f"store{column}", dims_to_stream=list(self.out_pattern)
            )
            answers = store.prod().join(
                [row * self.out_size for row in range(rows)],
                obj_types=[out_tile] * rows,
                names=[f"out{column}_{row}" for row in range(rows)],
            )
            loads.append(load)
            stores.append(store)
            workers += [
                iron.Worker(_core, fn_args=[share.cons(), answer.prod(), function], stack_size=geometry.stack)
                for share, answer in zip(shares, answers, strict=True)
            ]
        sequence = self._sequence(iron, geometry)
        handles = [*(load.prod() for load in loads), *(store.cons() for store in stores)]
        types = [_bytes(size) for size in self.argument_sizes(geometry)]
        return iron.Program(iron.device(), iron.Runtime(sequence, [*types, *handles]), workers=workers)

    def _sequence(self, iron: Iron, geometry: Geometry) -> Any:
        columns, packed = geometry.columns, geometry.layout == "packed"
        buffers = 1 if packed else columns

        def run_of(column: int, size: int) -> Any:
            """The part of a buffer that is this column's."""
            share = geometry.tiles_per_column * size
            whole = share * columns if packed else share
            return iron.TensorAccessPattern((whole,), column * share if packed else 0, [1, 1, 1, share], [0, 0, 0, 1])

        def sequence(*arguments: Any) -> None:
            ins, outs = arguments[:buffers], arguments[buffers : 2 * buffers]
            loads = arguments[2 * buffers : 2 * buffers + columns]
            stores = arguments[2 * buffers + columns :]
            group = iron.TaskGroup()
            for column in range(columns):
                loads[column].fill(ins[0 if packed else column], tap=run_of(column, self.in_size), group=group)
            for column in range(columns):
                stores[column].drain(
                    outs[0 if packed else column], tap=run_of(column, self.out_size), group=group, wait=True
                )
            # Only now, so that no column waits for another.
            group.finish()

        return sequence

    def arguments(self, geometry: Geometry) -> tuple[HostArgument, ...]:
        """The buffers in the order of the compiled design: all inputs, then all outputs."""
        places = [None] if geometry.layout == "packed" else list(range(geometry.columns))
        kinds: tuple[tuple[Literal["in", "out"], tuple[TileTensor, ...]], ...] = (
            ("in", self.inputs),
            ("out", self.outputs),
        )
        return tuple(
            HostArgument(role if place is None else f"{role}{place}", role, tensors, place)
            for role, tensors in kinds
            for place in places
        )

    def argument_sizes(self, geometry: Geometry) -> list[int]:
        """Bytes of each of them."""
        return [
            argument.tile_size * (geometry.tiles if argument.column is None else geometry.tiles_per_column)
            for argument in self.arguments(geometry)
        ]

    def pack(self, inputs: Mapping[str, Array], geometry: Geometry) -> list[Array]:
        """One launch's inputs as the host's buffers, and empty ones for its outputs.

        Args:
            inputs: As the kernel takes them, of as many tiles as a launch has.
            geometry: Of the design.

        Returns:
            One uint8 array for each argument.
        """
        parts = []
        for tensor in self.inputs:
            array = inputs[tensor.name].astype(tensor.dtype, copy=False)
            if tensor.shared:
                array = np.broadcast_to(array, (geometry.tiles, *array.shape))
            parts.append(np.ascontiguousarray(array).reshape(geometry.tiles, -1).view(np.uint8))
        tiles = np.concatenate(parts, axis=1)
        columns = tiles.reshape(geometry.columns, -1)
        buffers = [tiles.reshape(-1)] if geometry.layout == "packed" else [np.ascontiguousarray(c) for c in columns]
        sizes = self.argument_sizes(geometry)[len(buffers) :]
        return [*buffers, *(np.zeros(size, np.uint8) for size in sizes)]

    def unpack(self, buffers: Sequence[Array], geometry: Geometry) -> dict[str, Array]:
        """The kernel's outputs, from the buffers of `pack` after a launch."""
        tiles = np.concatenate(buffers[len(buffers) // 2 :]).reshape(geometry.tiles, -1)
        found, offset = {}, 0
        for tensor in self.outputs:
            part = np.ascontiguousarray(tiles[:, offset : offset + tensor.size]).view(tensor.dtype)
            shape = tensor.shape[1:] if self.joined else tensor.shape
            found[tensor.name] = part.reshape(-1, *shape)
            offset += tensor.size
        return found


def _core(source: Any, target: Any, function: Any) -> None:
    tile = source.acquire(1)
    answer = target.acquire(1)
    function(tile, answer)
    source.release(1)
    target.release(1)


def _bytes(size: int) -> Any:
    return array_type((size,), "int8")
