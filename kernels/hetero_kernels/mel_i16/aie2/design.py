"""mel_i16_{M} on the array: each core has 8 windows at a time, and the transform's matrices pass by in slices.

A column's slices come through its memory tile once for each round of windows and go to all of its cores at the same
time. Filters and the logarithm's table are part of a core's memory from the start.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hetero.kernel_manifest import TileTensor
from hetero.tensors import Array
from hetero_kernels.aie2 import examples
from hetero_kernels.aie2.array_design import ArrayDesign, HostArgument
from hetero_kernels.aie2.function import Buffer, CoreFunction, flat_type
from hetero_kernels.aie2.geometry import Geometry
from hetero_kernels.aie2.iron import Iron
from hetero_kernels.aie2.rows import deal, join
from hetero_kernels.mel_i16.spec import MEL_I16
from hetero_kernels.mel_i16.tables import BINS, HALF, LOG2, WINDOW, filters, matrices, offsets

WINDOWS = 8
"""Windows of one call."""

SLICES = 25
"""Slices of 8 bins that the matrices are cut into; the last has a bin of zeros."""

PARTS = 2 * HALF * WINDOWS
SPECTRUM = 2 * 8 * SLICES * WINDOWS
SLICE = 2 * 8 * HALF

FRAME = 3584
"""Bytes of stack that a core's functions take at most."""

_SOURCE = Path(__file__).with_name("kernel.cc")


@dataclass(frozen=True, kw_only=True)
class MelArray(ArrayDesign):
    """The log-mel spectrum on the array.

    A tile is 8 windows. The tables are no data of the source, but a buffer of the design's own.

    Attributes:
        bands: 80 or 128.
    """

    bands: int
    source: Path = _SOURCE
    frame: int = FRAME
    geometry: Geometry = field(default_factory=lambda: Geometry(tiles_per_core=1))
    joined: bool = True
    cycles: int = 500
    limits: str = (
        "the matrices, 160,000 bytes, are read from the host's memory once for each round of windows; even and odd "
        "parts are made value by value; never run on an NPU"
    )

    @property
    def functions(self) -> tuple[CoreFunction, ...]:
        """What runs on a core."""
        return functions(self.bands)

    @property
    def rounds(self) -> int:
        """Times 8 windows that each core has in one launch."""
        return self.geometry.tiles_per_core

    @property
    def frames(self) -> int:
        """Windows of one launch."""
        return WINDOWS * self.tiles

    @property
    def calls(self) -> int:
        """Of the function that is called most, in one launch."""
        return self.tiles * SLICES

    @property
    def arguments(self) -> tuple[HostArgument, ...]:
        """Windows, the transform's matrices, spectra."""
        matrices = TileTensor("matrices", "int16", slices().shape)
        return (
            HostArgument("in", "in", (TileTensor("x", "int16", (WINDOWS, WINDOW)),), self.tiles),
            HostArgument("matrices", "constant", (matrices,), content=slices()),
            HostArgument("out", "out", (TileTensor("y", "int16", (WINDOWS, self.bands)),), self.tiles),
        )

    def examples(self, rng: np.random.Generator) -> dict[str, Array]:
        """Noise of all magnitudes, constants, and both ends of the range."""
        return {"x": examples.mixed(rng, "int16", (self.frames, WINDOW))}

    def alone(self, functions: Mapping[str, Callable[..., None]], buffers: Sequence[Array]) -> None:
        """Eight windows at a time."""
        begin, each, end = (functions[function.name] for function in self.functions)
        parts, ups = np.empty(PARTS, np.int16), np.empty(WINDOWS, np.int32)
        spectrum, number = np.empty(SPECTRUM, np.int32), np.zeros(1, np.int32)
        stream = buffers[1].view(np.int16).reshape(SLICES, SLICE)
        answers = buffers[2].view(np.int16).reshape(self.tiles, -1)
        for windows, answer in zip(buffers[0].view(np.int16).reshape(self.tiles, -1), answers, strict=True):
            begin(windows, parts, ups)
            for one in stream:
                each(one, parts, spectrum, number)
            end(spectrum, ups, number, tables(self.bands), answer)

    def program(self, iron: Iron) -> Any:
        """The design, made of IRON's names: the sequence takes `x`, `slices()` and `y`.

        Args:
            iron: The real ones, or the stand-in's.

        Returns:
            A `Program` of those names.
        """
        rows, parts, kernels = self.rows, self.functions, self.core_kernels(iron)
        windows, answers, core = WINDOWS * WINDOW, WINDOWS * self.bands, self._core(iron)
        loads, streams, stores, workers = [], [], [], []
        for column in range(self.columns):
            load = iron.ObjectFifo(flat_type(rows * windows, "int16"), name=f"x{column}")
            shares = deal(load, f"x{column}", rows, windows, "int16", depth=1)
            stream = iron.ObjectFifo(flat_type(SLICE, "int16"), name=f"slices{column}")
            shared = stream.cons().forward(obj_type=flat_type(SLICE, "int16"), name=f"slices{column}_shared")
            store = iron.ObjectFifo(flat_type(rows * answers, "int16"), name=f"y{column}")
            results = join(store, f"y{column}", rows, answers, "int16", depth=1)
            loads.append(load)
            streams.append(stream)
            stores.append(store)
            for row in range(rows):
                own = [
                    iron.Buffer(parts[0].types[1], name=f"parts{column}_{row}"),
                    iron.Buffer(parts[0].types[2], name=f"ups{column}_{row}"),
                    iron.Buffer(parts[1].types[2], name=f"spectrum{column}_{row}"),
                    iron.Buffer(parts[1].types[3], np.zeros(1, np.int32), name=f"number{column}_{row}"),
                    iron.Buffer(parts[2].types[3], tables(self.bands), name=f"tables{column}_{row}"),
                ]
                ends = [shares[row].cons(), shared.cons(), results[row].prod()]
                workers.append(iron.Worker(core, fn_args=[*ends, *own, *kernels], stack_size=self.stack))
        types = [
            flat_type(self.frames * WINDOW, "int16"),
            flat_type(SLICES * SLICE, "int16"),
            flat_type(self.frames * self.bands, "int16"),
        ]
        handles = [*(f.prod() for f in loads), *(f.prod() for f in streams), *(f.cons() for f in stores)]
        return iron.Program(iron.device(), iron.Runtime(self._sequence(iron), [*types, *handles]), workers=workers)

    def _core(self, iron: Iron) -> Callable[..., None]:
        def core(
            windows: Any,
            stream: Any,
            answers: Any,
            parts: Any,
            ups: Any,
            spectrum: Any,
            number: Any,
            about: Any,
            begin: Any,
            each: Any,
            end: Any,
        ) -> None:
            some = windows.acquire(1)
            begin(some, parts, ups)
            windows.release(1)
            for _ in iron.range_(SLICES):
                one = stream.acquire(1)
                each(one, parts, spectrum, number)
                stream.release(1)
            answer = answers.acquire(1)
            end(spectrum, ups, number, about, answer)
            answers.release(1)

        return core

    def _sequence(self, iron: Iron) -> Callable[..., None]:
        columns, rounds = self.columns, self.rounds

        def share_of(column: int, item: int) -> Any:
            """A column's part of all windows, in pieces that a shim's innermost dimension holds."""
            share = WINDOWS * self.rows * rounds
            return iron.TensorAccessPattern(
                (self.frames * item,), column * share * item, [1, 1, share, item], [0, 0, item, 1]
            )

        def matrices_again() -> Any:
            """All slices, once for each round."""
            return iron.TensorAccessPattern(
                (SLICES * SLICE,), 0, [rounds, SLICES, SLICE // HALF, HALF], [0, SLICE, HALF, 1]
            )

        def sequence(x: Any, matrix: Any, y: Any, *fifos: Any) -> None:
            loads, streams, stores = (fifos[i * columns : (i + 1) * columns] for i in range(3))
            group = iron.TaskGroup()
            for column in range(columns):
                loads[column].fill(x, tap=share_of(column, WINDOW), group=group)
                streams[column].fill(matrix, tap=matrices_again(), group=group)
            for column in range(columns):
                stores[column].drain(y, tap=share_of(column, self.bands), group=group, wait=True)
            group.finish()

        return sequence


def design(bands: int) -> MelArray:
    """The design for so many bands."""
    return MelArray(kernel=MEL_I16.build(bands), bands=bands)


def functions(bands: int) -> tuple[CoreFunction, CoreFunction, CoreFunction]:
    """Begin, slice and end; `end` takes the tables of that many bands."""
    parts, spectrum = ("parts", "int16", (PARTS,)), ("spectrum", "int32", (SPECTRUM,))
    ups = ("ups", "int32", (WINDOWS,))
    arguments = {
        "begin": (Buffer("windows", "int16", (WINDOWS * WINDOW,), "in"), Buffer(*parts, "out"), Buffer(*ups, "out")),
        "slice": (
            Buffer("slice", "int16", (SLICE,), "in"),
            Buffer(*parts, "in"),
            # Each call writes its own bins.
            Buffer(*spectrum, "inout"),
            Buffer("number", "int32", (1,), "inout"),
        ),
        "end": (
            Buffer(*spectrum, "inout"),
            Buffer(*ups, "in"),
            Buffer("number", "int32", (1,), "inout"),
            Buffer("tables", "int32", (len(tables(bands)),), "in"),
            Buffer("y", "int16", (WINDOWS * bands,), "out"),
        ),
    }
    defines = (("BANDS", bands),)
    begin, each, end = (
        CoreFunction(f"mel_i16_{name}", _SOURCE, buffers, FRAME, defines) for name, buffers in arguments.items()
    )
    return begin, each, end


@functools.cache
def slices() -> Array:
    """The matrices as a core takes them: int16 `[25, 6400 / 2]`; read-only."""
    padded = np.zeros((2, HALF, 8 * SLICES), np.int16)
    padded[:, :, :BINS] = matrices()
    # [part][step][4 samples][slice][group][4 bins] -> [slice][part][group][step][4 bins][4 samples]
    parts = padded.reshape(2, HALF // 4, 4, SLICES, 2, 4).transpose(3, 0, 4, 1, 5, 2)
    made: Array = np.ascontiguousarray(parts).reshape(SLICES, -1)
    made.setflags(write=False)
    return made


@functools.cache
def tables(bands: int) -> Array:
    """Filters, offsets and the logarithm's table as `end` takes them: int32, flat; read-only."""
    about, weights = [], []
    for row, offset in zip(filters(bands), offsets(bands), strict=True):
        (places,) = np.nonzero(row)
        first, count = int(places[0]), int(places[-1] - places[0] + 1)
        about += [first, count, int(offset)]
        weights.append(row[first : first + count])
    flat = np.concatenate(weights)
    flat = np.pad(flat, (0, len(flat) % 2)).view(np.int32)
    made: Array = np.concatenate([about, np.pad(LOG2, (0, 3)), flat]).astype(np.int32)
    made.setflags(write=False)
    return made
