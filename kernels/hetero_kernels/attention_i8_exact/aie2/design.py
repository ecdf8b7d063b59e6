"""attention_i8_exact_{T} on the array: a column has a head at a time, each of its cores 64 of the head's queries.

A column's keys and values come through its memory tile once for every round of query packets, block by block, and go to
all of its cores at the same time; each core keeps the sums of its 64 queries from the first block to the last. Memory
tiles put queries, keys and values into blocks of 8 x 8.

The host packs two inputs, pieces of 64 rows one behind the other::

    queries  [head][T / 64][Q 64 x 64 | what belongs to them]       see `pack`
    keys     [head][T / 64][K 64 x 64 | V 64 x 64]
    o        [head][T][64]                                          int16
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hetero.errors import OptionError
from hetero.tensors import Array
from hetero_kernels.aie2.function import Buffer, CoreFunction, array_type
from hetero_kernels.aie2.iron import Iron
from hetero_kernels.aie2.pattern import blocked
from hetero_kernels.attention_i8_exact.spec import ATTENTION_I8_EXACT
from hetero_kernels.kernel import Kernel

SIDE = 64
_TILE = SIDE * SIDE

# A strip of 8 rows of 64 bytes more than Q: temperatures and the number of keys, spread as the pattern wants them.
QUERIES = _TILE + 8 * SIDE
"""Bytes of a query packet: 64 queries, their temperatures, the number of keys."""

KEYS = 2 * _TILE
"""Bytes of a key packet: 64 keys and their values."""

STATE = _TILE + SIDE + SIDE + 16
"""int32 of a core's state: sums, totals, scales, the number of the block."""

_MOST_COLUMNS, _MOST_ROWS = 4, 4


@dataclass(frozen=True)
class ExactAttention:
    """Attention of all queries to all keys on the array.

    Attributes:
        length: T.
        columns: Of the array, 1 to 4: heads at a time.
        rows: Cores of a column, 1 to 4; so many have to divide T / 64.
        rounds: Heads that each column works on in one launch.
        limits: What it does not do, for the listing.
    """

    length: int
    columns: int = 4
    rows: int = 4
    rounds: int = 1
    limits: str = (
        "a head's keys are read from the host's memory once for every round of query packets, and blocks of keys that "
        "are not valid travel too; never run on an NPU"
    )

    def __post_init__(self) -> None:
        for name, value, most in (("columns", self.columns, _MOST_COLUMNS), ("rows", self.rows, _MOST_ROWS)):
            if not 1 <= value <= most:
                raise OptionError(f"{name} is {value}, expected 1 to {most}", fix="Phoenix has 4 columns of 4 cores")
        if self.rounds < 1:
            raise OptionError(f"rounds is {self.rounds}, expected 1 or more", fix="take as many as there are heads")
        if self.blocks % self.rows:
            raise OptionError(
                f"{self.rows} rows cannot share {self.blocks} packets of 64 queries evenly",
                fix=f"take {max(rows for rows in range(1, _MOST_ROWS + 1) if self.blocks % rows == 0)} rows",
            )

    @property
    def kernel(self) -> Kernel:
        """What it computes."""
        return ATTENTION_I8_EXACT.build(self.length)

    @property
    def blocks(self) -> int:
        """Packets of queries, and of keys, of a head."""
        return self.length // SIDE

    @property
    def heads(self) -> int:
        """Of one launch."""
        return self.columns * self.rounds

    @property
    def functions(self) -> tuple[CoreFunction, CoreFunction, CoreFunction]:
        """What runs on a core: before the first block of keys, for each, and after the last."""
        source, frame = Path(__file__).with_name("kernel.cc"), 11264
        state = ("state", "int32", (STATE,))
        queries, keys = Buffer("queries", "int8", (QUERIES,), "in"), Buffer("keys", "int8", (KEYS,), "in")
        return (
            CoreFunction("attention_i8_exact_begin", source, (Buffer(*state, "inout"),), frame),
            CoreFunction("attention_i8_exact_block", source, (queries, keys, Buffer(*state, "inout")), frame),
            CoreFunction(
                "attention_i8_exact_end", source, (Buffer(*state, "in"), Buffer("o", "int16", (_TILE,), "out")), frame
            ),
        )

    @property
    def stack(self) -> int:
        """Bytes of a core's stack."""
        return max(function.frame for function in self.functions) + 512

    def program(self, iron: Iron) -> Any:
        """The design, made of IRON's names.

        Args:
            iron: The real ones, or the stand-in's.

        Returns:
            A `Program` of those names.
        """
        kernels = [iron.Kernel(function.name, f"{self.kernel.name}.o", function.types) for function in self.functions]
        rows, core = self.rows, self._core(iron)
        query_fifos, key_fifos, answer_fifos, workers = [], [], [], []
        for column in range(self.columns):
            # A core holds one packet of queries for all blocks of keys: another one beside it would have no room.
            queries = iron.ObjectFifo(_bytes(rows * QUERIES), name=f"queries{column}")
            packets = queries.cons().split(
                [row * QUERIES for row in range(rows)],
                obj_types=[_bytes(QUERIES)] * rows,
                names=[f"queries{column}_{row}" for row in range(rows)],
                depths=[1] * rows,
                dims_to_stream=[list(blocked(QUERIES // SIDE, SIDE))] * rows,
            )
            keys = iron.ObjectFifo(_bytes(KEYS), name=f"keys{column}")
            shared = keys.cons().forward(
                obj_type=_bytes(KEYS), name=f"keys{column}_blocks", dims_to_stream=list(blocked(KEYS // SIDE, SIDE))
            )
            answers = iron.ObjectFifo(_shorts(rows * _TILE), name=f"o{column}")
            parts = answers.prod().join(
                [row * _TILE for row in range(rows)],
                obj_types=[_shorts(_TILE)] * rows,
                names=[f"o{column}_{row}" for row in range(rows)],
                depths=[1] * rows,
            )
            query_fifos.append(queries)
            key_fifos.append(keys)
            answer_fifos.append(answers)
            for row in range(rows):
                state = iron.Buffer(self.functions[0].types[0], name=f"state{column}_{row}")
                ends = [packets[row].cons(), shared.cons(), parts[row].prod()]
                workers.append(iron.Worker(core, fn_args=[*ends, state, *kernels], stack_size=self.stack))
        types = [
            _bytes(self.heads * self.blocks * QUERIES),
            _bytes(self.heads * self.blocks * KEYS),
            _shorts(self.heads * self.blocks * _TILE),
        ]
        handles = [*(f.prod() for f in query_fifos), *(f.prod() for f in key_fifos), *(f.cons() for f in answer_fifos)]
        runtime = iron.Runtime(self._sequence(iron), [*types, *handles])
        return iron.Program(iron.device(), runtime, workers=workers)

    def _core(self, iron: Iron) -> Callable[..., None]:
        blocks = self.blocks

        def core(queries: Any, keys: Any, answers: Any, state: Any, begin: Any, block: Any, end: Any) -> None:
            packet = queries.acquire(1)
            begin(state)
            for _ in iron.range_(blocks):
                some = keys.acquire(1)
                block(packet, some, state)
                keys.release(1)
            queries.release(1)
            answer = answers.acquire(1)
            end(state, answer)
            answers.release(1)

        return core

    def _sequence(self, iron: Iron) -> Callable[..., None]:
        columns, blocks, turns = self.columns, self.blocks, self.blocks // self.rows

        def head_of(head: int, size: int, times: int = 1) -> Any:
            """All of a head's packets of that size, so many times over."""
            whole = blocks * size
            # A shim's innermost dimension has 1,023 words at most.
            return iron.TensorAccessPattern(
                (self.heads * whole,), head * whole, [times, blocks, size // 512, 512], [0, size, 512, 1]
            )

        def sequence(queries: Any, keys: Any, o: Any, *fifos: Any) -> None:
            query_fifos, key_fifos, answer_fifos = (fifos[i * columns : (i + 1) * columns] for i in range(3))
            for start in range(0, self.heads, columns):
                group = iron.TaskGroup()
                for column in range(columns):
                    query_fifos[column].fill(queries, tap=head_of(start + column, QUERIES), group=group)
                    key_fifos[column].fill(keys, tap=head_of(start + column, KEYS, turns), group=group)
                for column in range(columns):
                    answer_fifos[column].drain(o, tap=head_of(start + column, _TILE), group=group, wait=True)
                group.finish()

        return sequence

    def pack(self, *, q: Array, k: Array, v: Array, temperature: Array, keys: Array) -> list[Array]:
        """One launch's inputs as the host's buffers, and an empty one for its output.

        Args:
            q: As the kernel takes it, of as many heads as a launch has.
            k: Likewise.
            v: Likewise.
            temperature: Likewise.
            keys: Likewise.

        Returns:
            int8 `queries` and `keys`, int16 `o`, each flat.
        """
        heads, blocks = self.heads, self.blocks
        queries = np.zeros((heads, blocks, QUERIES), np.int8)
        queries[..., :_TILE] = q.reshape(heads, blocks, _TILE)
        # What the pattern makes of a strip of 8 rows is 8 blocks of 8 x 8: this is its inverse.
        extra = np.zeros((heads, blocks, 8 * SIDE), np.int8)
        extra[..., : 4 * SIDE] = np.ascontiguousarray(temperature).reshape(heads, blocks, SIDE).view(np.int8)
        extra[..., 4 * SIDE : 4 * SIDE + 4] = np.ascontiguousarray(keys).view(np.int8)[:, np.newaxis]
        spread = extra.reshape(heads, blocks, 8, 8, 8).swapaxes(2, 3)
        queries[..., _TILE:] = spread.reshape(heads, blocks, 8 * SIDE)
        pairs = np.stack([part.reshape(heads, blocks, _TILE) for part in (k, v)], axis=2)
        return [queries.reshape(-1), pairs.reshape(-1), np.zeros(heads * blocks * _TILE, np.int16)]

    def unpack(self, o: Array) -> Array:
        """The kernel's output, int16 `[heads, T, 64]`, from the buffer of `pack` after a launch."""
        return o.reshape(self.heads, self.length, SIDE)


def design(length: int, *, columns: int = 4, rows: int | None = None, rounds: int = 1) -> ExactAttention:
    """The design for so many positions; see `ExactAttention`. When not given, `rows` is as many as share T / 64."""
    blocks = length // SIDE
    return ExactAttention(length, columns, rows or max(r for r in range(1, _MOST_ROWS + 1) if blocks % r == 0), rounds)


def _bytes(size: int) -> Any:
    return array_type((size,), "int8")


def _shorts(size: int) -> Any:
    return array_type((size,), "int16")
