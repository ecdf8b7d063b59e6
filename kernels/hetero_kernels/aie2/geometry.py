"""How much of the array a design takes, and how much work a launch is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from hetero.errors import OptionError
from hetero.kernel_manifest import Layout

MOST_COLUMNS, MOST_ROWS = 4, 4


@dataclass(frozen=True)
class Geometry:
    """How much of the array a design takes, and how much work a launch is.

    Attributes:
        columns: 1 to 4.
        rows: Cores of a column, 1 to 4.
        tiles_per_core: That each core works on in one launch. Of a matrix product on the whole array: strips of 64 rows
            for each row of cores; of attention to all keys: heads for each column.
        layout: `packed`: one input and one output buffer, `[column][tile][tensors]`; `separate`: a buffer for each
            column, all inputs first, then all outputs.
        stack: Bytes of a core's stack; None for what the design says.
    """

    columns: int = 4
    rows: int = 4
    tiles_per_core: int = 4
    layout: Layout = "packed"
    stack: int | None = None

    def __post_init__(self) -> None:
        for name, value, most in (
            ("columns", self.columns, MOST_COLUMNS),
            ("rows", self.rows, MOST_ROWS),
            ("tiles_per_core", self.tiles_per_core, None),
        ):
            if value < 1 or (most is not None and value > most):
                limits = f"1 to {most}" if most else "1 or more"
                raise OptionError(f"{name} is {value}, expected {limits}", fix="Phoenix has 4 columns of 4 cores")
        if self.layout not in get_args(Layout):
            raise OptionError(f"layout is {self.layout!r}", fix="take packed or separate")

    @property
    def cores(self) -> int:
        """All of them."""
        return self.columns * self.rows

    @property
    def tiles(self) -> int:
        """Of one launch, in all columns together, where every tile is one core's."""
        return self.columns * self.tiles_per_column

    @property
    def tiles_per_column(self) -> int:
        """Of one launch, likewise."""
        return self.rows * self.tiles_per_core
