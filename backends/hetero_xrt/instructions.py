"""What a kernel's instructions do first and what they wait for, read without a device.

They are a transaction for the NPU's command processor: a header, then operations (mlir-aie: `AIETargetNPU.cpp`; the
structs of the older form: aie-rt, `xaie_txn.h`). A shim's transfer begins with a write to one of its task queues; a
wait names the column whose token it is for.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_HEADER = struct.Struct("<BBBB BB2x I I")
"""Major, minor, generation, rows, columns, rows of memory tiles, operations, bytes."""

IN_TURN = "work one after the other: the design waits for each before the next begins (docs: xrt)"
"""What is told of a kernel of which `columns_in_turn` is true."""

_WRITE, _BLOCK_WRITE, _MASK_WRITE, _WAIT, _PATCH = 0x00, 0x01, 0x03, 0x80, 0x81

# Bytes of an operation, or the word that holds them, in the two forms that compilers have written.
_BOTH: dict[int, tuple[int, int | None]] = {_WAIT: (0, 1), _PATCH: (0, 1)}
_SHORT = {**_BOTH, _WRITE: (12, None), _BLOCK_WRITE: (0, 2), _MASK_WRITE: (16, None)}
_LONG = {**_BOTH, _WRITE: (0, 5), _BLOCK_WRITE: (0, 3), _MASK_WRITE: (0, 6)}

# Task queues of a shim's four DMA channels.
_QUEUES = (0x1D204, 0x1D20C, 0x1D214, 0x1D21C)
_COLUMN_SHIFT, _ADDRESS_MASK = 25, (1 << 25) - 1


@dataclass(frozen=True)
class Step:
    """One operation that matters for the order of things.

    Attributes:
        kind: `push`: a transfer is put into a column's queue; `wait`: nothing goes on before a column is done.
        columns: Which ones.
    """

    kind: Literal["push", "wait"]
    columns: range


def columns_in_turn(path: Path) -> bool | None:
    """Whether a kernel's columns work one after the other: some get their first transfer after a wait for others.

    Such a kernel gives right answers and takes as many times as long as it has columns.

    Args:
        path: The instruction file.

    Returns:
        None when the file is not in a form that this reads.
    """
    try:
        steps = list(_steps(path.read_bytes()))
    except (ValueError, struct.error):
        return None
    waited: set[int] = set()
    begun: set[int] = set()
    for step in steps:
        if step.kind == "wait":
            waited.update(step.columns)
            continue
        if any(waited - {column} for column in step.columns if column not in begun):
            return True
        begun.update(step.columns)
    return False


def _steps(content: bytes) -> Iterator[Step]:
    major, minor, *_, count, size = _HEADER.unpack_from(content)
    if (major, minor) not in ((0, 1), (1, 0)) or size != len(content):
        raise ValueError("no transaction")
    short = (major, minor) == (1, 0)
    address_at = 1 if short else 2
    at = _HEADER.size
    for _ in range(count):
        code = _word(content, at, 0) & 0xFF
        fixed, size_at = (_SHORT if short else _LONG).get(code, (0, None))
        length = fixed if size_at is None else _word(content, at, size_at)
        if length < 8 or at + length > size:
            raise ValueError(f"operation {code} of {length} bytes")
        if code == _WAIT:
            first, number = content[at + 10], content[at + 14]
            yield Step("wait", range(first, first + max(1, number)))
        elif code == _WRITE:
            address = _word(content, at, address_at)
            if address & _ADDRESS_MASK in _QUEUES:
                column = address >> _COLUMN_SHIFT
                yield Step("push", range(column, column + 1))
        at += length


def _word(content: bytes, at: int, place: int) -> int:
    (value,) = struct.unpack_from("<I", content, at + 4 * place)
    return int(value)
