"""What commands write: JSON documents, tables for people, numbers with their units."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

if TYPE_CHECKING:
    from rich.console import Console

# Wide enough that a table in a file or a pipe is never wrapped.
UNWRAPPED = 10_000


def echo_json(value: Any) -> None:
    """One JSON document on stdout. Numbers that JSON does not have (NaN, infinities) become null."""
    click.echo(json.dumps(plain(value), indent=2, allow_nan=False))


def plain(value: Any) -> Any:
    """A value as JSON has them; what has no such form as its text."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, np.generic | np.ndarray):
        return plain(value.tolist())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Iterable) and not isinstance(value, bytes | os.PathLike):
        return [plain(entry) for entry in value]
    return str(value)


def echo_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, err: bool = False) -> None:
    """A table for people: headings and left-aligned cells; numbers to the right."""
    from rich.table import Table
    from rich.text import Text

    cells = [[str(cell) for cell in row] for row in rows]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for place, heading in enumerate(columns):
        numeric = bool(cells) and all(_numeric(row[place]) for row in cells)
        table.add_column(heading, justify="right" if numeric else "left", overflow="fold")
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    console = terminal(err=err)
    if not console.is_terminal:
        console.width = UNWRAPPED
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        click.echo(line.rstrip(), err=err)


def terminal(*, err: bool = False) -> Console:
    """The stream as rich sees it; a pipe is no terminal, whatever FORCE_COLOR says."""
    from rich.console import Console

    return Console(stderr=err, highlight=False, force_terminal=(sys.stderr if err else sys.stdout).isatty())


def milliseconds(seconds: float | None) -> str:
    """A duration in ms with three significant digits; `-` for none."""
    if seconds is None:
        return "-"
    value = seconds * 1e3
    digits = 3 if value < 1 else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f} ms"


def clock(seconds: float, digits: int = 0) -> str:
    """A time in audio: `02:07`, `1:02:07.250`."""
    whole = round(seconds * 10**digits)
    minutes, rest = divmod(whole, 60 * 10**digits)
    hours, minutes = divmod(minutes, 60)
    width = 3 + digits if digits else 2
    return (f"{hours}:" if hours else "") + f"{minutes:02}:{rest / 10**digits:0{width}.{digits}f}"


def size(number: int) -> str:
    """A number of bytes: `812 B`, `1.4 MB`."""
    if number < 1000:
        return f"{number} B"
    value = float(number)
    for unit in ("kB", "MB", "GB"):
        value /= 1000
        if value < 1000:
            return f"{value:.1f} {unit}"
    return f"{value / 1000:.1f} TB"


def folder_size(folder: Path) -> int:
    """The bytes of a folder's files; links are not followed."""
    found = (Path(place) / name for place, _, names in os.walk(folder) for name in names)
    return sum(file.lstat().st_size for file in found if file.is_file())


def marked(device: str, simulated: bool) -> str:
    """A device's name, with the mark that every simulated one carries."""
    return f"{device} (simulated)" if simulated else device


def _numeric(cell: str) -> bool:
    head = cell.split(" ")[0].rstrip("x%")
    try:
        float(head)
    except ValueError:
        return cell in ("", "-")
    return True
