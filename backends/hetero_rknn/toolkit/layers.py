"""The toolkit's table of layers and what each of them loses."""

from __future__ import annotations

import math
import re

from hetero.compiling.report import LayerLoss

# `[Conv] h_mm      0.99975 | 0.41761   0.99980 | 0.41761`: so far (cosine, distance), then alone.
_ROW = re.compile(r"^(?P<layer>\[.+?\] .+?)\s+(?P<so_far>\S+) \| \S+\s+(?P<own>\S+) \| \S+", re.MULTILINE)


def worst_layers(table: str, most: int = 5) -> tuple[LayerLoss, ...]:
    """The layers that lose most by themselves, the worst first; those that lose nothing are left out.

    Args:
        table: The content of `error_analysis.txt`.
        most: How many.
    """
    losses = [LayerLoss(row["layer"], _cosine(row["own"]), _cosine(row["so_far"])) for row in _ROW.finditer(table)]
    lossy = [loss for loss in losses if not loss.own >= 0.99999]
    return tuple(sorted(lossy, key=lambda loss: -1.0 if math.isnan(loss.own) else loss.own)[:most])


def _cosine(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
