"""A row of numbers as a row of small bars."""

from __future__ import annotations

from collections.abc import Sequence

_BARS = "▁▂▃▄▅▆▇█"
_ASCII = "_.-=+*#@"


def sparkline(values: Sequence[float | None], *, width: int, low: float, high: float, ascii_only: bool = False) -> str:
    """The last values as bars, oldest first.

    Args:
        values: Oldest first; None where there is none, which is left blank.
        width: How many are shown at most.
        low: The value of the least bar.
        high: The value of the greatest.
        ascii_only: For terminals that have no other characters.
    """
    bars = _ASCII if ascii_only else _BARS
    span = max(high - low, 1e-12)
    shown = []
    for value in values[-width:]:
        if value is None:
            shown.append(" ")
        else:
            share = min(1.0, max(0.0, (value - low) / span))
            shown.append(bars[min(len(bars) - 1, int(share * len(bars)))])
    return "".join(shown)
