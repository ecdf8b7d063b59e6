"""attention_i8_exact_{T} on the array: a column has a head at a time, each of its cores 64 of the head's queries.

A column's keys and values come through its memory tile once for every round of query packets, block by block, and go to
all of its cores at the same time; each core keeps the sums of its 64 queries from the first block to the last. Memory
tiles put queries, keys and values into blocks of 8 x 8.

Two inputs are dealt out in pieces of 64 rows, so that a transfer brings what belongs together::

    queries  [head][T / 64][Q 64 x 64 | 64 temperatures | number of keys | padding]
    keys     [head][T / 64][K 64 x 64 | V 64 x 64]
    out      [head][T][64]                                          int16
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from hetero.errors import OptionError
from hetero.kernel_manifest import TileTensor, Worker
from hetero.tensors import Array
from hetero_kernels.aie2 import examples
from hetero_kernels.aie2.array_design import ArrayDesign, HostArgument
from hetero_kernels.aie2.function import Buffer, CoreFunction, flat_type
from hetero_kernels.aie2.geometry import MOST_ROWS, Geometry
from hetero_kernels.aie2.iron import Iron
from hetero_kernels.aie2.pattern import blocked, places
from hetero_kernels.aie2.rows import deal, join
from hetero_kernels.attention_i8_exact.spec import ATTENTION_I8_EXACT

SIDE = 64
_TILE = SIDE * SIDE
_SOURCE = Path(__file__).with_name("kernel.cc")

# A strip of 8 rows of 64 bytes more than Q: what the memory tile's pattern takes.
QUERIES = _TILE + 8 * SIDE
"""Bytes of a query packet: 64 queries, their temperatures, the number of keys."""

KEYS = 2 * _TILE
"""Bytes of a key packet: 64 keys and their values."""

STATE = _TILE + SIDE + SIDE + 16
"""int32 of a core's state: sums, totals, scales, the number of the block."""

# Positions of the kernel that is checked in place of a larger one.
_SMALL = 256


@dataclass(frozen=True, kw_only=True)
class ExactAttention(ArrayDesign):
    """Attention of all queries to all keys on the array.

    A tile is one head, whose queries the cores of a column share. So many rows have to divide T / 64, and the
    geometry's `tiles_per_core` is heads that each column works on in one launch.

    Attributes:
        length: T.
    """

    worker: ClassVar[Worker] = "column"

    length: int
    source: Path = _SOURCE
    frame: int = 11264
    cycles: int = 14000
    limits: str = (
        "a head's keys are read from the host's memory once for every round of query packets, and blocks of keys that "
        "are not valid travel too; never run on an NPU"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.packets % self.rows:
            raise OptionError(
                f"{self.rows} rows cannot share {self.packets} packets of 64 queries evenly",
                fix=f"take {most_rows(self.length)} rows",
            )

    @property
    def packets(self) -> int:
        """Of queries, and of keys, of a head."""
        return self.length // SIDE

    @property
    def tiles(self) -> int:
        """Heads of one launch."""
        return self.columns * self.geometry.tiles_per_core

    @property
    def blocks(self) -> int:
        """What cores answer in one launch: 64 queries at a time."""
        return self.tiles * self.packets

    @property
    def calls(self) -> int:
        """Of the function that is called most, in one launch."""
        return self.blocks * self.packets

    @property
    def arguments(self) -> tuple[HostArgument, ...]:
        """Queries, keys, answers."""
        length, heads = self.length, self.tiles
        matrix = (length, SIDE)
        queries = (
            TileTensor("q", "int8", matrix),
            TileTensor("temperature", "int32", (length,)),
            TileTensor("keys", "int32", (1,), repeated=True),
        )
        padding = QUERIES - _TILE - 4 * SIDE - 4
        pairs = (TileTensor("k", "int8", matrix), TileTensor("v", "int8", matrix))
        return (
            HostArgument("queries", "in", queries, heads, pieces=self.packets, padding=padding),
            HostArgument("keys", "in", pairs, heads, pieces=self.packets),
            HostArgument("out", "out", (TileTensor("o", "int16", matrix),), heads),
        )

    def small(self) -> ExactAttention:
        """Attention to 256 keys, or to so many as it has, when these are fewer or its rows do not share 256."""
        shorter = _SMALL // SIDE % self.rows == 0
        length = min(self.length, _SMALL if shorter else SIDE * self.rows)
        return replace(self, kernel=ATTENTION_I8_EXACT.build(length), length=length)

    def examples(self, rng: np.random.Generator) -> dict[str, Array]:
        """Heads of all magnitudes, from far too cold to far too hot, with any number of valid keys."""
        shape = (self.tiles, self.length, SIDE)
        spread = np.exp(rng.uniform(0, np.log(200), (3, self.tiles, 1, 1)))
        drawn = np.clip(np.rint(rng.normal(0, 1, (3, *shape)) * spread), -128, 127).astype(np.int8)
        ends = rng.random((3, self.tiles, 1, 1)) < 0.1
        q, k, v = np.where(ends, np.where(rng.random((3, *shape)) < 0.5, -128, 127), drawn).astype(np.int8)
        temperature = (2.0 ** rng.uniform(8, 31, (self.tiles, self.length))).astype(np.int32)
        some = rng.random(temperature.shape) < 0.1
        temperature[some] = examples.mixed(rng, "int32", temperature.shape)[some]
        keys = rng.integers(0, self.length, (self.tiles, 1), endpoint=True).astype(np.int32)
        keys[rng.random(self.tiles) < 0.25] = self.length
        return {"q": q, "k": k, "v": v, "temperature": temperature, "keys": keys}

    @property
    def functions(self) -> tuple[CoreFunction, CoreFunction, CoreFunction]:
        """What runs on a core: before the first block of keys, for each, and after the last."""
        source, frame = self.source, self.frame
        state = ("state", "int32", (STATE,))
        queries, keys = Buffer("queries", "int8", (QUERIES,), "in"), Buffer("keys", "int8", (KEYS,), "in")
        return (
            CoreFunction("attention_i8_exact_begin", source, (Buffer(*state, "inout"),), frame),
            CoreFunction("attention_i8_exact_block", source, (queries, keys, Buffer(*state, "inout")), frame),
            CoreFunction(
                "attention_i8_exact_end", source, (Buffer(*state, "in"), Buffer("o", "int16", (_TILE,), "out")), frame
            ),
        )

    def program(self, iron: Iron) -> Any:
        """See `ArrayDesign.program`."""
        rows, core, kernels = self.rows, self._core(iron), self.core_kernels(iron)
        query_fifos, key_fifos, answer_fifos, workers = [], [], [], []
        for column in range(self.columns):
            # A core holds one packet of queries for all blocks of keys: another one beside it would have no room.
            queries = iron.ObjectFifo(flat_type(rows * QUERIES, "int8"), name=f"queries{column}")
            by_blocks = blocked(QUERIES // SIDE, SIDE)
            packets = deal(queries, f"queries{column}", rows, QUERIES, "int8", depth=1, pattern=by_blocks)
            keys = iron.ObjectFifo(flat_type(KEYS, "int8"), name=f"keys{column}")
            shared = keys.cons().forward(
                obj_type=flat_type(KEYS, "int8"),
                name=f"keys{column}_blocks",
                dims_to_stream=list(blocked(KEYS // SIDE, SIDE)),
            )
            answers = iron.ObjectFifo(flat_type(rows * _TILE, "int16"), name=f"o{column}")
            parts = join(answers, f"o{column}", rows, _TILE, "int16", depth=1)
            query_fifos.append(queries)
            key_fifos.append(keys)
            answer_fifos.append(answers)
            for row in range(rows):
                state = iron.Buffer(self.functions[0].types[0], name=f"state{column}_{row}")
                ends = [packets[row].cons(), shared.cons(), parts[row].prod()]
                workers.append(iron.Worker(core, fn_args=[*ends, state, *kernels], stack_size=self.stack))
        types = [
            flat_type(self.blocks * QUERIES, "int8"),
            flat_type(self.blocks * KEYS, "int8"),
            flat_type(self.blocks * _TILE, "int16"),
        ]
        handles = [*(f.prod() for f in query_fifos), *(f.prod() for f in key_fifos), *(f.cons() for f in answer_fifos)]
        runtime = iron.Runtime(self._sequence(iron), [*types, *handles])
        return iron.Program(iron.device(), runtime, workers=workers)

    def _core(self, iron: Iron) -> Callable[..., None]:
        packets = self.packets

        def core(queries: Any, keys: Any, answers: Any, state: Any, begin: Any, block: Any, end: Any) -> None:
            packet = queries.acquire(1)
            begin(state)
            for _ in iron.range_(packets):
                some = keys.acquire(1)
                block(packet, some, state)
                keys.release(1)
            queries.release(1)
            answer = answers.acquire(1)
            end(state, answer)
            answers.release(1)

        return core

    def _sequence(self, iron: Iron) -> Callable[..., None]:
        columns, packets, turns = self.columns, self.packets, self.packets // self.rows

        def head_of(head: int, size: int, times: int = 1) -> Any:
            """All of a head's packets of that size, so many times over."""
            whole = packets * size
            # A shim's innermost dimension has 1,023 words at most.
            return iron.TensorAccessPattern(
                (self.tiles * whole,), head * whole, [times, packets, size // 512, 512], [0, size, 512, 1]
            )

        def sequence(queries: Any, keys: Any, o: Any, *fifos: Any) -> None:
            query_fifos, key_fifos, answer_fifos = (fifos[i * columns : (i + 1) * columns] for i in range(3))
            for start in range(0, self.tiles, columns):
                group = iron.TaskGroup()
                for column in range(columns):
                    query_fifos[column].fill(queries, tap=head_of(start + column, QUERIES), group=group)
                    key_fifos[column].fill(keys, tap=head_of(start + column, KEYS, turns), group=group)
                for column in range(columns):
                    answer_fifos[column].drain(o, tap=head_of(start + column, _TILE), group=group, wait=True)
                group.finish()

        return sequence

    def alone(self, functions: Mapping[str, Callable[..., None]], buffers: Sequence[Array]) -> None:
        """Each packet of queries by itself, with all of its head's keys."""
        begin, block, end = (functions[function.name] for function in self.functions)
        sent, pairs = (buffer.view(np.int8).reshape(self.tiles, self.packets, -1) for buffer in buffers[:2])
        answers = buffers[2].view(np.int16).reshape(self.tiles, self.packets, _TILE)
        of_queries, of_keys = places(blocked(QUERIES // SIDE, SIDE)), places(blocked(KEYS // SIDE, SIDE))
        state = np.zeros(STATE, np.int32)
        for head in range(self.tiles):
            keys = [pair[of_keys] for pair in pairs[head]]
            for packet, answer in zip(sent[head], answers[head], strict=True):
                queries = packet[of_queries]
                begin(state)
                for some in keys:
                    block(queries, some, state)
                end(state, answer)


def design(length: int, *, columns: int = 4, rows: int | None = None, rounds: int = 1) -> ExactAttention:
    """The design for so many positions.

    Args:
        length: T.
        columns: Of the array.
        rows: Cores of a column; when not given, as many as share T / 64.
        rounds: Heads that each column works on in one launch.
    """
    geometry = Geometry(columns, rows or most_rows(length), rounds)
    return ExactAttention(kernel=ATTENTION_I8_EXACT.build(length), length=length, geometry=geometry)


def most_rows(length: int) -> int:
    """The most rows of cores that share packets of 64 queries evenly."""
    return max(rows for rows in range(1, MOST_ROWS + 1) if length // SIDE % rows == 0)
