"""A column's buffers in pieces, one for each row of its cores: dealt out and joined in its memory tile."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hetero_kernels.aie2.function import flat_type


def deal(
    fifo: Any,
    name: str,
    rows: int,
    size: int,
    dtype: str,
    *,
    depth: int | None = None,
    pattern: Iterable[tuple[int, int]] | None = None,
) -> list[Any]:
    """FIFOs by which each row of cores takes its piece of every buffer of `fifo`.

    Args:
        fifo: Of IRON, whose buffers have `rows * size` elements.
        name: Of the FIFOs, with the row's number behind it.
        rows: Of cores.
        size: Elements of a piece.
        dtype: Of the elements.
        depth: Pieces that a core has room for; IRON's own, when not given.
        pattern: In which a piece leaves the memory tile; as it lies there, when not given.
    """
    given: list[Any] = fifo.cons().split(_offsets(rows, size), **_pieces(name, rows, size, dtype, depth, pattern))
    return given


def join(
    fifo: Any, name: str, rows: int, size: int, dtype: str, *, depth: int | None = None, tile: Any = None
) -> list[Any]:
    """FIFOs by which each row of cores brings its piece of every buffer of `fifo`.

    Args:
        fifo: Of IRON, whose buffers have `rows * size` elements.
        name: Of the FIFOs, with the row's number behind it.
        rows: Of cores.
        size: Elements of a piece.
        dtype: Of the elements.
        depth: Pieces that a core has room for; IRON's own, when not given.
        tile: Where they are joined; IRON finds a memory tile, when not given.
    """
    place = {} if tile is None else {"tile": tile}
    brought: list[Any] = fifo.prod().join(_offsets(rows, size), **_pieces(name, rows, size, dtype, depth), **place)
    return brought


def _offsets(rows: int, size: int) -> list[int]:
    return [row * size for row in range(rows)]


def _pieces(
    name: str,
    rows: int,
    size: int,
    dtype: str,
    depth: int | None,
    pattern: Iterable[tuple[int, int]] | None = None,
) -> dict[str, Any]:
    pieces: dict[str, Any] = {
        "obj_types": [flat_type(size, dtype)] * rows,
        "names": [f"{name}_{row}" for row in range(rows)],
    }
    if depth is not None:
        pieces["depths"] = [depth] * rows
    if pattern is not None:
        pieces["dims_to_stream"] = [list(pattern)] * rows
    return pieces
