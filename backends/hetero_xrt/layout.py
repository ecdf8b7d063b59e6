"""Tiles in a kernel's buffers: views of mapped memory, and the copies to and from them.

The copies are numpy's, which let go of the GIL; pyxrt's `bo.write` and `bo.read` hold it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hetero.backend import Program, TensorSpec, Unsupported
from hetero.tensors import Array
from hetero_xrt.arguments import Argument, Tensor
from hetero_xrt.manifest import Manifest


@dataclass(frozen=True)
class Piece:
    """One tensor's place in one buffer.

    Attributes:
        tensor: What lies there.
        view: `[tiles, *cells]` of mapped memory; without tiles for a weight. Repeated tensors have more of it.
        tiles: Which of a launch's tiles; None for a weight.
        cells: The shape that the tensor of a tile takes there: that of the tensor, with its pieces apart.
    """

    tensor: Tensor
    view: Array
    tiles: slice | None
    cells: tuple[int, ...]


class Tiles:
    """How arrays of a program become tiles of launches.

    Args:
        manifest: Of the kernel.
        program: Whose inputs and outputs it takes and gives.

    Attributes:
        entries: Entries of the leading dimension in one tile.
        per_launch: Entries of the leading dimension in one full launch.

    Raises:
        Unsupported: The kernel does not take what the program has.
    """

    def __init__(self, manifest: Manifest, program: Program) -> None:
        self.manifest = manifest
        self._outputs = program.outputs
        tensors = [(argument, tensor) for argument in manifest.arguments for tensor in argument.tensors]
        self._tiled = {t.name: t for a, t in tensors if a.tiled and not t.shared}
        self._weights = {t.name for a, t in tensors if a.role == "weight"}
        read = {t.name: t for a, t in tensors if a.role in ("in", "inout", "weight")}
        written = {t.name: t for a, t in tensors if a.role in ("out", "inout")}
        joined = manifest.batch.tiles == "joined"
        sizes: set[int] = {t.shape[0] for t in self._tiled.values() if t.shape} if joined else {1}
        if len(sizes) != 1:
            raise self._differs(f"its tiles join {sorted(sizes)} entries")
        self.entries: int = min(sizes)
        self.per_launch = self.entries * manifest.tiles_per_launch
        self._check("inputs", program.inputs, read)
        self._check("outputs", program.outputs, written)
        self._leading = next((spec.name for spec in program.inputs if spec.name in self._tiled), "")
        if not self._leading:
            raise self._differs("none of the program's inputs comes in tiles")

    def count(self, inputs: Mapping[str, Array]) -> int:
        """Entries of the leading dimension that a call brings.

        Raises:
            Unsupported: The inputs bring different numbers.
        """
        counts = {name: array.shape[0] for name, array in inputs.items() if name in self._tiled}
        if len(set(counts.values())) > 1:
            raise Unsupported(f"the inputs bring different numbers of tiles: {counts}")
        return int(counts[self._leading])

    def empty_outputs(self, entries: int) -> dict[str, Array]:
        """Memory for the answer to so many entries."""
        return {
            spec.name: np.empty((entries, *self._rest(self._tiled[spec.name])), spec.dtype) for spec in self._outputs
        }

    def weights(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Those of the inputs that go into weight arguments."""
        return {name: array for name, array in inputs.items() if name in self._weights}

    def pieces(self, argument: Argument, memory: Any) -> list[Piece]:
        """The tensors of an argument in its mapped memory."""
        manifest = self.manifest
        if argument.role in ("scratch", "constant"):
            return []
        made: list[Piece] = []
        offset = 0
        for tensor in argument.tensors:
            dealt = tensor.dealt(argument.pieces)
            if not argument.tiled:
                view = dealt.view(memory, offset, argument.piece_size, 1)[0]
                made.append(Piece(tensor, view, None, dealt.cells))
            else:
                for first, column_tiles in self._columns(argument):
                    count = manifest.tiles_per_launch if column_tiles is None else manifest.tiles_per_column
                    begin = first * argument.tile_size + offset
                    view = dealt.view(memory, begin, argument.piece_size, count)
                    made.append(Piece(tensor, view, column_tiles or slice(0, count), dealt.cells))
            offset += dealt.part_size
        return made

    def fill(self, pieces: Sequence[Piece], inputs: Mapping[str, Array], first: int, last: int) -> None:
        """Copy the entries `first` to `last` of the inputs, and fill the rest of the launch; weights as they are."""
        for piece in pieces:
            array = inputs[piece.tensor.name]
            if piece.tiles is None or piece.tensor.shared:
                np.copyto(piece.view, array.reshape(piece.cells))
                continue
            chunk = self._chunk(array[first:last], piece)
            part = chunk[piece.tiles]
            np.copyto(piece.view[: len(part)], part)
            if len(part) < len(piece.view):
                np.copyto(piece.view[len(part) :], chunk[-1] if self.manifest.batch.fill == "repeat" else 0)

    def take(self, pieces: Sequence[Piece], outputs: Mapping[str, Array], first: int, last: int) -> None:
        """Copy a launch's answer to the entries `first` to `last` of the outputs."""
        for piece in pieces:
            target = outputs[piece.tensor.name][first:last]
            whole = len(target) // self.entries
            tiles = target[: whole * self.entries].reshape(whole, *piece.cells)
            part = tiles[piece.tiles]
            np.copyto(part, piece.view[: len(part)])
            rest = len(target) - whole * self.entries
            at = range(self.manifest.tiles_per_launch)[piece.tiles] if rest and piece.tiles is not None else range(0)
            if whole in at:
                last_tile = piece.view[at.index(whole)].reshape(piece.tensor.shape)
                np.copyto(target[whole * self.entries :], last_tile[:rest])

    def _chunk(self, array: Array, piece: Piece) -> Array:
        """Entries as tiles `[tiles, *cells]`; a last tile that is not whole is filled up."""
        short = -len(array) % self.entries
        if short:
            last = array[-1:] if self.manifest.batch.fill == "repeat" else np.zeros_like(array[:1])
            array = np.concatenate([array, *[last] * short])
        return array.reshape(-1, *piece.cells)

    def _columns(self, argument: Argument) -> list[tuple[int, slice | None]]:
        """Runs of tiles in an argument: the first one's place in the buffer, and which of the launch's they are."""
        manifest = self.manifest
        each, columns = manifest.tiles_per_column, manifest.columns
        if manifest.batch.order == "columns":
            where = [slice(column * each, (column + 1) * each) for column in range(columns)]
        else:
            where = [slice(column, manifest.tiles_per_launch, columns) for column in range(columns)]
        if argument.column is not None:
            return [(0, where[argument.column])]
        if manifest.batch.order == "columns":
            return [(0, None)]
        return [(column * each, tiles) for column, tiles in enumerate(where)]

    def _rest(self, tensor: Tensor) -> tuple[int, ...]:
        """The dimensions behind the leading one, in the program."""
        return tensor.shape[1:] if self.manifest.batch.tiles == "joined" else tensor.shape

    def _check(self, what: str, specs: Sequence[TensorSpec], tensors: Mapping[str, Tensor]) -> None:
        names = [spec.name for spec in specs]
        if sorted(names) != sorted(tensors):
            raise self._differs(f"its {what} are {sorted(tensors)}, the program's {sorted(names)}")
        for spec in specs:
            tensor = tensors[spec.name]
            told = (None, *self._rest(tensor)) if spec.name in self._tiled else tensor.shape
            shape = spec.shape
            fits = shape is None or (
                len(shape) == len(told)
                and all(
                    mine is None or not isinstance(size, int) or size == mine
                    for mine, size in zip(told, shape, strict=True)
                )
            )
            if spec.dtype != tensor.dtype or not fits:
                raise self._differs(
                    f"{spec.name} is {tensor.dtype} {list(tensor.shape)} a tile, the program's is {spec}"
                )

    def _differs(self, how: str) -> Unsupported:
        return Unsupported(
            f"{self.manifest.path} does not describe this program: {how}",
            fix="name the kernel.toml that belongs to the program (docs: kernels)",
        )
