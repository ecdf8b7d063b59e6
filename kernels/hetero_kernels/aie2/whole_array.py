"""A matrix product on the whole array: activations broadcast along rows of cores, weights along columns.

Core (row r, column c) sums 64 x 64 blocks of the result along K in its own memory: the blocks of strips of 64 rows that
are r modulo `rows`, and of channels that are c modulo `columns`. Each row's activations come in by one column's shim
and go to the cores of all columns; each column's weights go to all of its cores; a column's results are joined in its
memory tile. Memory tiles put blocks of 64 x 64 into blocks of 8 x 8, and back.

A product that is scaled back to int8 keeps its sums in a core's own memory. Its weights come in pieces of 64 channels:
the weight's columns, then what else belongs to them (bias, multipliers, shift), which takes the place of a block more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from hetero.errors import OptionError
from hetero.kernel_manifest import TileTensor, Worker
from hetero.tensors import Array
from hetero_kernels import get
from hetero_kernels.aie2 import examples
from hetero_kernels.aie2.array_design import ArrayDesign, HostArgument
from hetero_kernels.aie2.function import Buffer, CoreFunction, flat_type
from hetero_kernels.aie2.geometry import MOST_COLUMNS
from hetero_kernels.aie2.iron import Iron
from hetero_kernels.aie2.pattern import blocked, places, unblocked
from hetero_kernels.aie2.rows import join

SIDE = 64
"""Rows and columns of a block."""

_BLOCK = SIDE * SIDE
# Strips whose transfers are under way together; a shim has 16 descriptors, and each strip takes up to three.
_TOGETHER = 4
# Bytes of a row of a transfer of weights in pieces; a shim's innermost dimension has 1,023 words at most.
_ROW = 2048
# Bias, multiplier and shift of 64 channels.
_ABOUT = 4 * SIDE + 2 * SIDE + 1
# Of K and N of the product that is checked in place of a larger one.
_SMALL = 128


@dataclass(frozen=True, kw_only=True)
class WholeArray(ArrayDesign):
    """An int8 matrix product on the whole array.

    Its kernel has the inputs `a` and `w`, the output `c`, and what belongs to channels when it is scaled. A tile is 64
    rows of `a`. So many columns have to divide N / 64, and the geometry's `tiles_per_core` is strips: blocks of 64 rows
    of `a` that each row of cores has in one launch.

    Attributes:
        depth: K.
        channels: N.
        scaled: The sums are scaled to int8 by a third function, else they are the result.
    """

    worker: ClassVar[Worker] = "array"

    depth: int
    channels: int
    scaled: bool = False
    joined: bool = True
    cycles: int = 1500

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.channels // SIDE % self.columns:
            raise OptionError(
                f"{self.columns} columns cannot share {self.channels // SIDE} blocks of channels evenly",
                fix=f"take {most_columns(self.channels)} columns",
            )

    @property
    def strips(self) -> int:
        """Blocks of 64 rows of `a` that each row of cores has in one launch."""
        return self.geometry.tiles_per_core

    @property
    def length(self) -> int:
        """Rows of `a` in one launch."""
        return SIDE * self.tiles

    @property
    def tiles(self) -> int:
        """Of 64 rows, in one launch."""
        return self.rows * self.strips

    @property
    def blocks(self) -> int:
        """What cores answer in one launch: blocks of 64 x 64."""
        return self.tiles * (self.channels // SIDE)

    @property
    def calls(self) -> int:
        """Of the function that is called most, in one launch."""
        return self.blocks * (self.depth // SIDE)

    @property
    def stack(self) -> int:
        """Bytes of a core's stack: the frame's, beside which there is no room for more."""
        return self.geometry.stack or self.frame

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

    @property
    def arguments(self) -> tuple[HostArgument, ...]:
        """The rows of `a`, the weight with what belongs to it, and the rows of `c`."""
        depth, channels = self.depth, self.channels
        about: tuple[TileTensor, ...] = ()
        if self.scaled:
            about = (
                TileTensor("bias", "int32", (channels,)),
                TileTensor("multiplier", "int16", (channels,)),
                TileTensor("shift", "int8", (1,), repeated=True),
            )
        return (
            HostArgument("in", "in", (TileTensor("a", "int8", (SIDE, depth)),), self.tiles),
            HostArgument(
                "weights",
                "weight",
                (TileTensor("w", "int8", (depth, channels), axis=1 if self.scaled else 0), *about),
                pieces=channels // SIDE if self.scaled else 1,
                padding=_BLOCK - _ABOUT if self.scaled else 0,
            ),
            HostArgument(
                "out", "out", (TileTensor("c", "int8" if self.scaled else "int32", (SIDE, channels)),), self.tiles
            ),
        )

    @property
    def weight_size(self) -> int:
        """Bytes of the host's buffer of weights."""
        return self.arguments[1].size

    def small(self) -> WholeArray:
        """A product of 128 x 128 for each column, or what it has when that is less."""
        columns = self.columns
        depth, channels = min(self.depth, _SMALL), min(self.channels, _SMALL * columns)
        kernel = get(f"{self.kernel.name.rpartition('_')[0]}_{depth}x{channels}")
        return replace(self, kernel=kernel, depth=depth, channels=channels)

    def examples(self, rng: np.random.Generator) -> dict[str, Array]:
        """Inputs of one launch. Most scaled products come to values all over int8, some to any."""
        drawn = {
            "a": examples.mixed(rng, "int8", (self.length, self.depth)),
            "w": np.ascontiguousarray(examples.mixed(rng, "int8", (self.channels, self.depth)).T),
        }
        if not self.scaled:
            return drawn
        bias = examples.mixed(rng, "int32", (self.channels,))
        multiplier = examples.mixed(rng, "int16", (self.channels,))
        shift = int(rng.integers(-128, 128))
        if rng.random() < 0.75:
            # For 7 of 8 channels: as large as it takes, of either sign.
            spread = np.std(drawn["a"].astype(np.float32) @ drawn["w"].astype(np.float32), axis=0).astype(float) + 1
            # By which most of their multipliers fit 16 bits.
            shift = int(np.log2(32767 / 100 * np.median(spread)))
            suiting = 2.0**shift * rng.uniform(10, 100, self.channels) / spread * rng.choice([-1, 1], self.channels)
            suited = rng.random(self.channels) < 0.875
            multiplier = np.where(suited, np.clip(np.rint(suiting), -32768, 32767), multiplier).astype(np.int16)
            bias = np.where(suited, np.rint(rng.normal(0, 1, self.channels) * spread), bias).astype(np.int32)
        return {**drawn, "bias": bias, "multiplier": multiplier, "shift": np.array([shift], np.int8)}

    def program(self, iron: Iron) -> Any:
        """See `ArrayDesign.program`."""
        operand, answer = flat_type(_BLOCK, "int8"), "int8" if self.scaled else "int32"
        kernels = self.core_kernels(iron)
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
                iron.ObjectFifo(flat_type(self.rows * _BLOCK, answer), name=f"c{column}", dims_to_stream=from_blocks)
            )
            shares_c.append(join(results[-1], f"c{column}", self.rows, _BLOCK, answer, tile=place))
        core = self._core(iron)
        workers = []
        for column in range(self.columns):
            for row in range(self.rows):
                ends = [shares_a[row].cons(), shares_w[column].cons(), shares_c[column][row].prod()]
                own = [iron.Buffer(flat_type(_BLOCK, "int32"), name=f"sums{column}_{row}")] if self.scaled else []
                workers.append(iron.Worker(core, fn_args=[*ends, *own, *kernels], stack_size=self.stack))
        types = [
            flat_type(self.length * self.depth, "int8"),
            flat_type(self.weight_size, "int8"),
            flat_type(self.length * self.channels, answer),
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
        whole, piece = self.weight_size, self.arguments[1].piece_size
        turns, steps = channels // SIDE // self.columns, depth // SIDE

        def activation_blocks(strip: int, row: int) -> Any:
            """A strip's blocks along K, once for each block of channels."""
            offset = (strip * self.rows + row) * SIDE * depth
            return iron.TensorAccessPattern((length * depth,), offset, [turns, steps, SIDE, SIDE], [0, SIDE, depth, 1])

        def weight_blocks(column: int) -> Any:
            """A column's blocks of channels, each along K."""
            if self.scaled:
                # Its pieces, each of which is whole.
                sizes = [1, turns, piece // _ROW, _ROW]
                return iron.TensorAccessPattern((whole,), column * piece, sizes, [0, self.columns * piece, _ROW, 1])
            strides = [SIDE * self.columns, SIDE * channels, channels, 1]
            return iron.TensorAccessPattern((whole,), column * SIDE, [turns, steps, SIDE, SIDE], strides)

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

    def alone(self, functions: Mapping[str, Callable[..., None]], buffers: Sequence[Array]) -> None:
        """Each block of 64 x 64 of the result by itself."""
        begin, block, *end = (functions[function.name] for function in self.functions)
        into, outof = places(blocked(SIDE, SIDE)), places(unblocked(SIDE, SIDE))
        a = buffers[0].view(np.int8).reshape(self.length, self.depth)
        results = buffers[2].view(np.int8 if self.scaled else np.int32).reshape(self.length, self.channels)
        sums, answer = np.empty(_BLOCK, np.int32), np.empty(_BLOCK, np.int8)
        for group in range(self.channels // SIDE):
            weights = self._blocks_of(buffers[1].view(np.int8), group)
            for row in range(0, self.length, SIDE):
                begin(sums)
                for step in range(self.depth // SIDE):
                    some = a[row : row + SIDE, step * SIDE : (step + 1) * SIDE].reshape(-1)
                    block(some[into], weights[step].reshape(-1)[into], sums)
                for finish in end:
                    finish(sums, weights[-1].reshape(-1)[into], answer)
                found = (answer if self.scaled else sums)[outof].reshape(SIDE, SIDE)
                results[row : row + SIDE, group * SIDE : (group + 1) * SIDE] = found

    def _blocks_of(self, weights: Array, group: int) -> Array:
        """What a core gets of the weights for 64 channels: `[blocks, 64, 64]`."""
        if self.scaled:
            dealt: Array = weights.reshape(self.channels // SIDE, -1, SIDE, SIDE)[group]
            return dealt
        start = group * SIDE
        plain: Array = weights.reshape(self.depth // SIDE, SIDE, self.channels)[:, :, start : start + SIDE]
        return plain


def most_columns(channels: int) -> int:
    """The most columns that share blocks of 64 channels evenly."""
    return max(columns for columns in range(1, MOST_COLUMNS + 1) if channels // SIDE % columns == 0)
