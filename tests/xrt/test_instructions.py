"""Instructions, read without a device: whether columns work at the same time."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hetero.testing.xrt.stand_in import write_stand_in
from hetero_kernels import get
from hetero_xrt.instructions import columns_in_turn
from hetero_xrt.reading import read_manifest
from tests.xrt.machine import KERNEL

IN, OUT = 0x1D214, 0x1D204


def push(column: int, queue: int = IN, *, short: bool = True) -> bytes:
    address = column << 25 | queue
    return struct.pack("<3I", 0, address, 7) if short else struct.pack("<6I", 0, 0, address, 0, 7, 24)


def wait(column: int, columns: int = 1) -> bytes:
    return struct.pack("<4I", 0x80, 16, column << 16, columns << 16 | 1 << 8)


def other(*, short: bool = True) -> list[bytes]:
    """Operations that have nothing to do with the order: a block of words, a masked write, an address to patch in."""
    block = [1, 0x0601D0C0, 44, *range(8)] if short else [1, 0, 0x0601D0C0, 48, *range(8)]
    masked = [3, 0x1D200, 1, 0xF00] if short else [3, 0, 0x1D200, 0, 1, 0xF00, 28]
    patch = [0x81, 24, 0x1D004, 0, 0, 0] if short else [0x81, 48, *range(10)]
    return [struct.pack(f"<{len(words)}I", *words) for words in (block, masked, patch)]


def written(path: Path, steps: Sequence[bytes], *, short: bool = True) -> Path:
    version = (1, 0) if short else (0, 1)
    header = struct.pack("<BBBBBB2xII", *version, 3, 6, 5, 1, len(steps), 16 + sum(map(len, steps)))
    path.write_bytes(header + b"".join(steps))
    return path


@pytest.mark.parametrize("short", [True, False])
def test_columns_that_all_begin_before_anything_is_waited_for_work_together(tmp_path: Path, short: bool) -> None:
    begin = [step for column in range(4) for step in (*other(short=short), push(column, short=short))]
    # Those that have begun may go on between the waits: a second round of tiles.
    again = [step for column in range(4) for step in (wait(column), push(column, short=short))]
    path = written(tmp_path / "i.bin", [*begin, *again, wait(0, 4)], short=short)
    assert columns_in_turn(path) is False


@pytest.mark.parametrize("short", [True, False])
def test_a_column_that_begins_after_a_wait_for_another_one_is_noticed(tmp_path: Path, short: bool) -> None:
    steps = [
        step
        for column in range(4)
        for step in (*other(short=short), push(column, short=short), push(column, OUT, short=short), wait(column))
    ]
    assert columns_in_turn(written(tmp_path / "i.bin", steps, short=short)) is True


def test_a_single_column_may_wait_for_itself(tmp_path: Path) -> None:
    assert columns_in_turn(written(tmp_path / "i.bin", [push(0), wait(0)] * 3)) is False


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 64,
        bytes(range(64)),
        struct.pack("<BBBBBB2xII", 1, 0, 3, 6, 5, 1, 3, 28) + push(0),
        struct.pack("<BBBBBB2xII", 1, 0, 3, 6, 5, 1, 1, 28) + struct.pack("<3I", 77, 0, 0),
        struct.pack("<BBBBBB2xII", 1, 0, 3, 6, 5, 1, 1, 28) + struct.pack("<3I", 1, 0, 0),
    ],
)
def test_what_cannot_be_read_is_not_judged(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "i.bin"
    path.write_bytes(content)
    assert columns_in_turn(path) is None


@pytest.mark.parametrize("serial", [False, True])
def test_stand_ins_have_the_instructions_of_their_design(tmp_path: Path, serial: bool) -> None:
    shape: dict[str, Any] = {"columns": 4, "tiles_per_launch": 8, "serial": serial}
    manifest = read_manifest(write_stand_in(tmp_path, get(KERNEL).program(), **shape))
    assert columns_in_turn(manifest.instructions) is serial
