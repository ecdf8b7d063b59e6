"""A function in C++ that runs on one core: its name, its buffers in order, the stack that it needs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

INCLUDE = Path(__file__).parent / "include"
"""Headers that kernels include; on the include path for every compiler."""

STAND_IN = Path(__file__).parent / "stand_in"
"""Holds the stand-in `aie_api/aie.hpp`; on the include path for the host only."""


@dataclass(frozen=True)
class Buffer:
    """One pointer argument of a core's function.

    Attributes:
        name: For people.
        dtype: Of its elements, as numpy names it.
        shape: As the core sees it; elements lie in C order.
        role: `in`: read only; `out`: written whole; `inout`: both.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    role: Literal["in", "out", "inout"]

    @property
    def elements(self) -> int:
        """How many elements it has."""
        return math.prod(self.shape)

    @property
    def size(self) -> int:
        """In bytes."""
        return self.elements * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class CoreFunction:
    """A function with C linkage in a C++ source.

    Attributes:
        name: Its symbol.
        source: The `.cc`.
        buffers: Its pointer arguments, in order.
        frame: Bytes of stack that it takes at most, calls included. Held against what the compilers report.
        defines: Macros that give the source its name or sizes: `-D NAME=VALUE` for every compiler.
    """

    name: str
    source: Path
    buffers: tuple[Buffer, ...]
    frame: int
    defines: tuple[tuple[str, int | str], ...] = ()

    @property
    def flags(self) -> list[str]:
        """The macros as a compiler takes them."""
        return [f"-D{name}={value}" for name, value in self.defines]

    @property
    def types(self) -> list[Any]:
        """Its arguments' types as IRON writes them."""
        return [array_type(buffer.shape, buffer.dtype) for buffer in self.buffers]


def array_type(shape: tuple[int, ...], dtype: str) -> Any:
    """The type of a buffer as IRON writes it: `np.ndarray[(64, 64), np.dtype[np.int8]]`."""
    # Made from values, which a type checker takes for no type.
    arrays: Any = np.ndarray
    dtypes: Any = np.dtype
    return arrays[shape, dtypes[np.dtype(dtype).type]]


def flat_type(size: int, dtype: str) -> Any:
    """The type of a buffer of one dimension."""
    return array_type((size,), dtype)
