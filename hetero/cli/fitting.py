"""Tables that fit: columns that matter less give way on a narrow terminal, and one of them is cut short."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

_GAP = 2
_ELASTIC = 20


@dataclass(frozen=True)
class Column:
    """A column that may give way.

    Attributes:
        name: The key of its cells, and its heading.
        rank: Columns of the highest rank go first; those of 0 stay.
        right: Its cells are numbers.
        elastic: Its cells may be cut short.
        headed: Its heading is shown; what is in it goes with the column before.
    """

    name: str
    rank: int = 0
    right: bool = False
    elastic: bool = False
    headed: bool = True

    @property
    def heading(self) -> str:
        """What stands above it."""
        return self.name if self.headed else ""


def fitted(columns: Sequence[Column], rows: Sequence[Mapping[str, Text]], width: int) -> Table:
    """A table of the columns that have something to show and room to show it.

    Args:
        columns: From left to right.
        rows: Cells by the columns' names.
        width: Characters.
    """
    kept = [column for column in columns if column.rank == 0 or any(row[column.name].plain for row in rows)]
    natural = {
        column.name: max([len(column.heading), *(row[column.name].cell_len for row in rows)], default=0)
        for column in kept
    }

    def least(column: Column) -> int:
        return min(natural[column.name], _ELASTIC) if column.elastic else natural[column.name]

    def taken() -> int:
        return sum(least(column) for column in kept) + _GAP * (len(kept) - 1)

    while taken() > width and any(column.rank for column in kept):
        kept.remove(max(reversed(kept), key=lambda column: column.rank))
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    spare = width - taken()
    for column in kept:
        size = least(column)
        if column.elastic:
            size = min(natural[column.name], max(1, size + spare))
            spare -= size - least(column)
        table.add_column(
            column.heading,
            justify="right" if column.right else "left",
            no_wrap=True,
            overflow="ellipsis",
            width=max(1, size),
        )
    for row in rows:
        table.add_row(*(row[column.name] for column in kept))
    return table
