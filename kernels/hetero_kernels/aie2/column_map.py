"""One design for every kernel that works tile by tile: columns of cores, each with its share of the tiles.

Per column the shim brings `rows` tiles at a time to the memory tile, which deals one to each core and blocks it on the
way; what the cores answer is joined there, unblocked on the way out, and taken away by the shim. `rows = 1` is one core
a column, `rows = 4` all sixteen. The sequence starts every column's transfers before it waits for any.

A kernel brings a `.cc`, its tensors with their patterns, and a frame: see `hetero_kernels/gelu_i8/aie2/design.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from hetero.kernel_manifest import Layout, Role, TileTensor
from hetero.tensors import Array
from hetero_kernels.aie2 import examples
from hetero_kernels.aie2.array_design import ArrayDesign, HostArgument
from hetero_kernels.aie2.function import Buffer, CoreFunction, flat_type
from hetero_kernels.aie2.geometry import Geometry
from hetero_kernels.aie2.iron import Iron
from hetero_kernels.aie2.pattern import places
from hetero_kernels.aie2.rows import deal, join

__all__ = ["ColumnMap", "Geometry", "TileTensor"]


@dataclass(frozen=True, kw_only=True)
class ColumnMap(ArrayDesign):
    """A kernel on the array, tile by tile.

    Its source has the function of the kernel's name: `(const int8_t *in, int8_t *out)`.

    Attributes:
        inputs: The tensors of a tile in its input buffer, one behind the other.
        outputs: Likewise of its output buffer.
        in_pattern: How the memory tile reads an input tile, in bytes, outermost first; empty for as it is.
        out_pattern: How it reads an output tile on the way out.
        defines: Macros that give the source its name or sizes, of a design for many sizes.
    """

    layouts: ClassVar[tuple[Layout, ...]] = ("packed", "separate")

    inputs: tuple[TileTensor, ...]
    outputs: tuple[TileTensor, ...]
    in_pattern: tuple[tuple[int, int], ...] = ()
    out_pattern: tuple[tuple[int, int], ...] = ()
    defines: tuple[tuple[str, int | str], ...] = ()

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

    @property
    def functions(self) -> tuple[CoreFunction, ...]:
        """All functions of its cores."""
        return (self.function,)

    def examples(self, rng: np.random.Generator) -> dict[str, Array]:
        """Inputs of one launch; the first tiles are extreme, the others random and of all magnitudes."""
        return examples.inputs(self, rng)

    def program(self, iron: Iron) -> Any:
        """The design, made of IRON's names.

        Args:
            iron: The real ones, or the stand-in's.

        Returns:
            A `Program` of those names.
        """
        geometry = self.geometry
        rows = geometry.rows
        (function,) = self.core_kernels(iron)
        loads, stores, workers = [], [], []
        for column in range(geometry.columns):
            load = iron.ObjectFifo(flat_type(rows * self.in_size, "int8"), name=f"load{column}")
            shares = deal(load, f"in{column}", rows, self.in_size, "int8", pattern=self.in_pattern)
            store = iron.ObjectFifo(
                flat_type(rows * self.out_size, "int8"), name=f"store{column}", dims_to_stream=list(self.out_pattern)
            )
            answers = join(store, f"out{column}", rows, self.out_size, "int8")
            loads.append(load)
            stores.append(store)
            workers += [
                iron.Worker(_core, fn_args=[share.cons(), answer.prod(), function], stack_size=self.stack)
                for share, answer in zip(shares, answers, strict=True)
            ]
        sequence = self._sequence(iron)
        handles = [*(load.prod() for load in loads), *(store.cons() for store in stores)]
        types = [flat_type(argument.size, "int8") for argument in self.arguments]
        return iron.Program(iron.device(), iron.Runtime(sequence, [*types, *handles]), workers=workers)

    def _sequence(self, iron: Iron) -> Any:
        geometry = self.geometry
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

    @property
    def arguments(self) -> tuple[HostArgument, ...]:
        """The buffers in the order of the compiled design: all inputs, then all outputs."""
        geometry = self.geometry
        packed = geometry.layout == "packed"
        columns = [None] if packed else list(range(geometry.columns))
        tiles = geometry.tiles if packed else geometry.tiles_per_column
        kinds: tuple[tuple[Role, tuple[TileTensor, ...]], ...] = (("in", self.inputs), ("out", self.outputs))
        return tuple(
            HostArgument(role if column is None else f"{role}{column}", role, tensors, tiles, column)
            for role, tensors in kinds
            for column in columns
        )

    def alone(self, functions: Mapping[str, Callable[..., None]], buffers: Sequence[Array]) -> None:
        """Each tile by itself, of one buffer in and one out."""
        sent, answers = (buffer.reshape(self.tiles, -1) for buffer in buffers)
        out = np.zeros(self.out_size, np.int8)
        for tile, answer in zip(sent, answers, strict=True):
            functions[self.name](_ordered(tile, self.in_pattern).view(np.int8), out)
            answer[:] = _ordered(out.view(np.uint8), self.out_pattern)


def _ordered(tile: Array, pattern: tuple[tuple[int, int], ...]) -> Array:
    """A tile as a memory tile sends it on."""
    return np.ascontiguousarray(tile[places(pattern)]) if pattern else tile


def _core(source: Any, target: Any, function: Any) -> None:
    tile = source.acquire(1)
    answer = target.acquire(1)
    function(tile, answer)
    source.release(1)
    target.release(1)
