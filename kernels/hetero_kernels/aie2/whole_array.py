"""A matrix product on the whole array: activations broadcast along rows of cores, weights along columns.

Core (row r, column c) sums 64 x 64 blocks of the result along K in its own memory: the blocks of strips of 64 rows that
are r modulo `rows`, and of channels that are c modulo `columns`. Each row's activations come in by one column's shim
and go to the cores of all columns; each column's weights go to all of its cores; a column's results are joined in its
memory tile. Memory tiles put blocks of 64 x 64 into blocks of 8 x 8, and back.

A product that is scaled back to int8 keeps its sums in a core's own memory. What belongs to the channels (bias,
multipliers, shift) follows the weight as 64 rows more, in the form that blocks of 8 x 8 bring it to a core in order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hetero.errors import OptionError
from hetero_kernels.aie2.function import Buffer, CoreFunction, array_type
from hetero_kernels.aie2.iron import Iron
from hetero_kernels.aie2.pattern import blocked, unblocked
from hetero_kernels.kernel import Kernel

SIDE = 64
"""Rows and columns of a block."""

_BLOCK = SIDE * SIDE
_MOST_COLUMNS, _MOST_ROWS = 4, 4
# Strips whose transfers are under way together; a shim has 16 descriptors, and each strip takes up to three.
_TOGETHER = 4


@dataclass(frozen=True)
class WholeArray:
    """An int8 matrix product on the whole array.

    Attributes:
        kernel: What it computes: inputs `a` and `w`, output `c`; and what belongs to channels, when it is scaled.
        source: The `.cc`.
        depth: K.
        channels: N.
        columns: Of the array, 1 to 4; so many have to divide N / 64.
        rows: Cores of a column, 1 to 4.
        strips: Blocks of 64 rows of `a` that each row of cores has in one launch.
        frame: Bytes of stack that a core's functions take at most.
        limits: What it does not do, for the listing.
        scaled: The sums are scaled to int8 by a third function, else they are the result.
    """

    kernel: Kernel
    source: Path
    depth: int
    channels: int
    columns: int
    rows: int
    strips: int
    frame: int
    limits: str = ""
    scaled: bool = False

    def __post_init__(self) -> None:
        for name, value, most in (("columns", self.columns, _MOST_COLUMNS), ("rows", self.rows, _MOST_ROWS)):
            if not 1 <= value <= most:
                raise OptionError(f"{name} is {value}, expected 1 to {most}", fix="Phoenix has 4 columns of 4 cores")
        if self.strips < 1:
            raise OptionError(f"strips is {self.strips}, expected 1 or more", fix="take as many as the caller has rows")
        if self.channels // SIDE % self.columns:
            raise OptionError(
                f"{self.columns} columns cannot share {self.channels // SIDE} blocks of channels evenly",
                fix=f"take {most_columns(self.channels)} columns",
            )

    @property
    def length(self) -> int:
        """Rows of `a` in one launch."""
        return SIDE * self.rows * self.strips

    @property
    def weight_rows(self) -> int:
        """Rows of the host's buffer of weights."""
        return self.depth + (SIDE if self.scaled else 0)

    @property
    def functions(self) -> tuple[CoreFunction, ...]:
        """What runs on a core: before the first block along K, for each, and after the last of a scaled product."""
        name = self.kernel.name.rpartition("_")[0]
        sums, operand = ("sums", "int32", (_BLOCK,)), ("int8", (_BLOCK,))
        arguments = {
            "begin": (Buffer(*sums, "out"),),
            "block": (Buffer("a", *operand, "in"), Buffer("w", *operand, "in"), Buffer(*sums, "inout")),
        }
        if self.scaled:
            arguments["end"] = (Buffer(*sums, "in"), Buffer("channels", *operand, "in"), Buffer("c", *operand, "out"))
        return tuple(
            CoreFunction(f"{name}_{part}", self.source, buffers, self.frame) for part, buffers in arguments.items()
        )

    def program(self, iron: Iron) -> Any:
        """The design, made of IRON's names.

        Args:
            iron: The real ones, or the stand-in's.

        Returns:
            A `Program` of those names.
        """
        results_of = _int8s if self.scaled else _int32s
        operand, result = _int8s(_BLOCK), results_of(_BLOCK)
        kernels = [iron.Kernel(function.name, f"{self.kernel.name}.o", function.types) for function in self.functions]
        to_blocks, from_blocks = list(blocked(SIDE, SIDE)), list(unblocked(SIDE, SIDE))
        activations, weights, results = [], [], []
        shares_a, shares_w, shares_c = [], [], []
        for row in range(self.rows):
            activations.append(iron.ObjectFifo(operand, name=f"a{row}"))
            # Also where the product takes fewer columns: with results and weights, one memory tile has no room for two.
            place = iron.Tile(row, 1)
            shares_a.append(
                activations[-1]
                .cons()
                .forward(obj_type=operand, name=f"a{row}_blocks", dims_to_stream=to_blocks, tile=place)
            )
        for column in range(self.columns):
            place = iron.Tile(column, 1)
            weights.append(iron.ObjectFifo(operand, name=f"w{column}"))
            shares_w.append(
                weights[-1]
                .cons()
                .forward(obj_type=operand, name=f"w{column}_blocks", dims_to_stream=to_blocks, tile=place)
            )
            results.append(
                iron.ObjectFifo(results_of(self.rows * _BLOCK), name=f"c{column}", dims_to_stream=from_blocks)
            )
            shares_c.append(
                results[-1]
                .prod()
                .join(
                    [row * _BLOCK for row in range(self.rows)],
                    obj_types=[result] * self.rows,
                    names=[f"c{column}_{row}" for row in range(self.rows)],
                    tile=place,
                )
            )
        core = self._core(iron)
        workers = []
        for column in range(self.columns):
            for row in range(self.rows):
                ends = [shares_a[row].cons(), shares_w[column].cons(), shares_c[column][row].prod()]
                own = [iron.Buffer(_int32s(_BLOCK), name=f"sums{column}_{row}")] if self.scaled else []
                workers.append(iron.Worker(core, fn_args=[*ends, *own, *kernels], stack_size=self.frame))
        types = [
            _int8s(self.length * self.depth),
            _int8s(self.weight_rows * self.channels),
            results_of(self.length * self.channels),
        ]
        handles = [*(f.prod() for f in activations), *(f.prod() for f in weights), *(f.cons() for f in results)]
        runtime = iron.Runtime(self._sequence(iron), [*types, *handles])
        return iron.Program(iron.device(), runtime, workers=workers)

    def _core(self, iron: Iron) -> Callable[..., None]:
        steps = self.depth // SIDE

        def scaled_core(a: Any, w: Any, c: Any, sums: Any, begin: Any, block: Any, end: Any) -> None:
            begin(sums)
            for _ in iron.range_(steps):
                left = a.acquire(1)
                right = w.acquire(1)
                block(left, right, sums)
                a.release(1)
                w.release(1)
            channels = w.acquire(1)
            answer = c.acquire(1)
            end(sums, channels, answer)
            w.release(1)
            c.release(1)

        def core(a: Any, w: Any, c: Any, begin: Any, block: Any) -> None:
            sums = c.acquire(1)
            begin(sums)
            for _ in iron.range_(steps):
                left = a.acquire(1)
                right = w.acquire(1)
                block(left, right, sums)
                a.release(1)
                w.release(1)
            c.release(1)

        return scaled_core if self.scaled else core

    def _sequence(self, iron: Iron) -> Callable[..., None]:
        depth, channels, length = self.depth, self.channels, self.length
        turns, steps = channels // SIDE // self.columns, depth // SIDE

        def activation_blocks(strip: int, row: int) -> Any:
            """A strip's blocks along K, once for each block of channels."""
            offset = (strip * self.rows + row) * SIDE * depth
            return iron.TensorAccessPattern((length * depth,), offset, [turns, steps, SIDE, SIDE], [0, SIDE, depth, 1])

        def weight_blocks(column: int) -> Any:
            """A column's blocks of channels, each along K."""
            return iron.TensorAccessPattern(
                (self.weight_rows * channels,),
                column * SIDE,
                [turns, self.weight_rows // SIDE, SIDE, SIDE],
                [SIDE * self.columns, SIDE * channels, channels, 1],
            )

        def result_blocks(strip: int, column: int) -> Any:
            """A column's blocks of channels of all its cores' strips."""
            return iron.TensorAccessPattern(
                (length * channels,),
                strip * self.rows * SIDE * channels + column * SIDE,
                [1, turns, self.rows * SIDE, SIDE],
                [0, SIDE * self.columns, channels, 1],
            )

        def sequence(a: Any, w: Any, c: Any, *fifos: Any) -> None:
            activations, weights = fifos[: self.rows], fifos[self.rows : self.rows + self.columns]
            results = fifos[self.rows + self.columns :]
            for first in range(0, self.strips, _TOGETHER):
                group = iron.TaskGroup()
                for strip in range(first, min(first + _TOGETHER, self.strips)):
                    for row, fifo in enumerate(activations):
                        fifo.fill(a, tap=activation_blocks(strip, row), group=group)
                    for column, fifo in enumerate(weights):
                        fifo.fill(w, tap=weight_blocks(column), group=group)
                    for column, fifo in enumerate(results):
                        fifo.drain(c, tap=result_blocks(strip, column), group=group, wait=True)
                group.finish()

        return sequence


def most_columns(channels: int) -> int:
    """The most columns that share blocks of 64 channels evenly."""
    return max(columns for columns in range(1, _MOST_COLUMNS + 1) if channels // SIDE % columns == 0)


def _int8s(size: int) -> Any:
    return array_type((size,), "int8")


def _int32s(size: int) -> Any:
    return array_type((size,), "int32")
