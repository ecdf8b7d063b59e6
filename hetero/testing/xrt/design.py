"""What a stand-in xclbin computes: how the bytes of its buffers are laid out, and the kernel behind them.

A design is what a real xclbin has in its configuration and nobody can read out of it; a stand-in carries it as JSON in
a section of its own. One launch takes `tiles_per_launch` tiles, as many in each column.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from hetero.kernel_manifest import Role, TileTensor, Worker
from hetero.tensors import Array

Reference = Callable[..., Mapping[str, Array]]
"""A kernel's exact answer: `reference(**inputs) -> {output name: array}`, all its tiles at once."""


@dataclass(frozen=True)
class DesignArgument:
    """One buffer argument of the kernel.

    Attributes:
        index: Among all arguments; data begins at 3, after opcode, instructions and their count.
        name: For people.
        role: What the kernel does with it. A `scratch` is the kernel's own, of no content.
        tensors: What a tile has in it, one behind the other.
        column: The column whose tiles it holds; None for all columns, one behind the other.
        pieces: That a tile is dealt out in, one behind the other: each has a part of every tensor.
        padding: Bytes behind each piece.
        content: Of a `constant`: what it has to hold, as hexadecimal digits.
    """

    index: int
    name: str
    role: Role
    tensors: tuple[TileTensor, ...]
    column: int | None = None
    pieces: int = 1
    padding: int = 0
    content: str = ""

    @property
    def piece_size(self) -> int:
        """Bytes of one piece of a tile, with what is behind it."""
        return sum(tensor.dealt(self.pieces).part_size for tensor in self.tensors) + self.padding

    @property
    def tile_size(self) -> int:
        """Bytes of one tile."""
        return self.pieces * self.piece_size

    def views(self, content: Array, tiles: int) -> Iterator[tuple[TileTensor, Array]]:
        """Each tensor and its parts in so many tiles: `[tiles, *cells]`; of a repeated one the first piece's."""
        offset = 0
        for tensor in self.tensors:
            dealt = tensor.dealt(self.pieces)
            view = dealt.view(content.data, offset, self.piece_size, tiles)
            yield tensor, view[:, :1] if tensor.repeated and self.pieces > 1 else view
            offset += dealt.part_size


@dataclass(frozen=True)
class Design:
    """What a stand-in xclbin computes.

    Attributes:
        kernel: The logical kernel, by whose name its reference is found.
        arguments: In order of index, from 3.
        columns: That it takes.
        tiles_per_launch: In all columns together.
        rows: Cores of a column that work on tiles at the same time.
        name: Of the kernel in the xclbin.
        opcode: That its first argument has to be.
        joined: The reference takes tiles joined along their first axis; else stacked along a new one.
        serial: Its instructions wait for each column before the next begins.
        multiply_adds: Of one tile, for modelled time; of a tile that the cores of a column share, of each core's part.
        by_cycles: Modelled time is that of the size of its work, also where the Phoenix says how long a tile takes:
            that is known of tiles of 64x64 alone.
        worker: Who works on one tile: a core, a column's cores together, or the whole array.
    """

    kernel: str
    arguments: tuple[DesignArgument, ...]
    columns: int
    tiles_per_launch: int
    rows: int = 1
    name: str = "MLIR_AIE"
    opcode: int = 3
    joined: bool = False
    serial: bool = False
    multiply_adds: int = 0
    by_cycles: bool = False
    worker: Worker = "core"

    @property
    def tiles_per_column(self) -> int:
        """Tiles that each column works on in one launch."""
        return self.tiles_per_launch // self.columns

    def size_of(self, argument: DesignArgument) -> int:
        """Bytes that the kernel reads or writes at an argument."""
        if argument.role in ("weight", "scratch", "constant"):
            return argument.tile_size
        return argument.tile_size * self.tiles_of(argument)

    def tiles_of(self, argument: DesignArgument) -> int:
        """Tiles that an argument holds."""
        return self.tiles_per_launch if argument.column is None else self.tiles_per_column

    def to_json(self) -> str:
        """As it stands in a stand-in's section; the same design gives the same text."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Design:
        """Read what `to_json` writes."""
        content: dict[str, Any] = json.loads(text)
        content["arguments"] = tuple(
            DesignArgument(
                **{
                    **entry,
                    "tensors": tuple(TileTensor(**{**t, "shape": tuple(t["shape"])}) for t in entry["tensors"]),
                }
            )
            for entry in content["arguments"]
        )
        return cls(**content)

    def compute(self, contents: Mapping[int, Array], reference: Reference) -> dict[int, Array]:
        """What one launch writes.

        Args:
            contents: What the device finds in each argument that is read, by index: uint8 `[size_of(argument)]`.
            reference: The kernel.

        Returns:
            What it leaves in each argument that is written, by index: uint8 `[size_of(argument)]`.
        """
        inputs: dict[str, Array] = {}
        shared: dict[str, Array] = {}
        for argument in self.arguments:
            if argument.role == "weight":
                for tensor, view in argument.views(np.ascontiguousarray(contents[argument.index]), 1):
                    inputs[tensor.name] = view.reshape(tensor.shape)
            elif argument.role == "constant":
                if contents[argument.index].tobytes() != bytes.fromhex(argument.content):
                    raise RuntimeError(f"simulated XRT: argument {argument.name} does not hold the design's constant")
            elif argument.role in ("in", "inout"):
                self._unpack(argument, contents[argument.index], inputs, shared)
        outputs = self._call(inputs, shared, reference)
        return {
            argument.index: self._packed(argument, outputs)
            for argument in self.arguments
            if argument.role in ("out", "inout")
        }

    def _tiles(self, argument: DesignArgument) -> slice:
        if argument.column is None:
            return slice(0, self.tiles_per_launch)
        return slice(argument.column * self.tiles_per_column, (argument.column + 1) * self.tiles_per_column)

    def _unpack(
        self, argument: DesignArgument, content: Array, inputs: dict[str, Array], shared: dict[str, Array]
    ) -> None:
        for tensor, view in argument.views(np.ascontiguousarray(content), self.tiles_of(argument)):
            into = shared if tensor.shared else inputs
            whole = into.setdefault(tensor.name, np.zeros((self.tiles_per_launch, *tensor.shape), tensor.dtype))
            whole[self._tiles(argument)] = view.reshape(-1, *tensor.shape)

    def _call(self, inputs: dict[str, Array], shared: dict[str, Array], reference: Reference) -> dict[str, Array]:
        """The outputs with a leading axis of tiles."""
        tiled = {t.name for a in self.arguments if a.role in ("in", "inout") for t in a.tensors if not t.shared}
        # Copies of a shared tensor may differ between tiles; then each tile is a call of its own.
        alike = all((copies == copies[0]).all() for copies in shared.values())
        groups = [slice(0, self.tiles_per_launch)] if alike else [slice(i, i + 1) for i in range(self.tiles_per_launch)]
        answers: list[Mapping[str, Array]] = []
        for some in groups:
            feed: dict[str, Array] = {name: copies[some.start] for name, copies in shared.items()}
            for name, array in inputs.items():
                if name not in tiled:
                    feed[name] = array
                else:
                    part = array[some]
                    feed[name] = part.reshape(-1, *part.shape[2:]) if self.joined else part
            answers.append(reference(**feed))
        return {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}

    def _packed(self, argument: DesignArgument, outputs: Mapping[str, Array]) -> Array:
        packed = np.zeros(self.size_of(argument), np.uint8)
        for tensor, view in argument.views(packed, self.tiles_of(argument)):
            tiles = outputs[tensor.name].astype(tensor.dtype, copy=False).reshape(self.tiles_per_launch, *tensor.shape)
            view[:] = tiles[self._tiles(argument)].reshape(view.shape)
        return packed
