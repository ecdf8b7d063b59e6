"""A picture of a trace, drawn with matplotlib: lanes as rows, runs as bars, and below how many requests waited."""

from __future__ import annotations

import importlib.util
from collections import Counter
from itertools import pairwise
from typing import IO, TYPE_CHECKING, Any

from hetero.errors import Unavailable
from hetero.telemetry.spans import Layout

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PICTURES = (".png", ".svg")

# The colours of Okabe and Ito, which people of every colour vision tell apart; the red one is kept for failures.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#F0E442", "#999999")
_FAILED = "#D55E00"
_PASSED = "#555555"

_LONGEST_NAME = 40
_SETTINGS: dict[Any, Any] = {"text.parse_math": False, "svg.hashsalt": "hetero", "hatch.linewidth": 0.6, "font.size": 9}

_MARKS = {
    "failed": ("failed", "X", _FAILED),
    "cancelled": ("cancelled", "s", _FAILED),
    "unsupported": ("refused", "v", _PASSED),
    "unavailable": ("not on this machine", "v", _PASSED),
    "set aside": ("set aside", "|", _PASSED),
}


def check_matplotlib() -> None:
    """Refuse to promise a picture.

    Raises:
        Unavailable: matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise Unavailable("a picture needs matplotlib, which is not installed", fix='pip install "hetero[plot]"')


def draw(layout: Layout, file: IO[bytes], form: str) -> None:
    """Draw a trace.

    Args:
        layout: What is drawn.
        file: Where the picture goes.
        form: `png` or `svg`.

    Raises:
        Unavailable: matplotlib is not installed.
    """
    check_matplotlib()
    import matplotlib
    from matplotlib.figure import Figure

    rows = max(1, len(layout.rows))
    with matplotlib.rc_context(_SETTINGS):
        # Not pyplot: that would choose a window system and keep the figure.
        figure = Figure(figsize=(11, 2.6 + 0.36 * rows), dpi=150, layout="constrained")
        lanes, queue = figure.subplots(2, 1, sharex=True, height_ratios=(0.36 * rows + 0.4, 0.8))
        scale, unit = (1e3, "ms") if layout.seconds < 2 else (1.0, "s")
        handles = _draw_lanes(lanes, layout, scale)
        _draw_queue(queue, layout, scale)
        queue.set_xlabel(f"time since the first {'load' if layout.loads else 'request'} [{unit}]")
        queue.set_xlim(0, max(layout.seconds * scale, 1e-6) * 1.01)
        for axes in (lanes, queue):
            axes.spines[["top", "right"]].set_visible(False)
        figure.suptitle(_title(layout), fontsize=10, x=0.01, ha="left")
        if handles:
            figure.legend(handles=handles, loc="outside lower left", ncols=min(len(handles), 5), frameon=False)
        metadata = {"Date": None} if form == "svg" else {"Software": None}
        figure.savefig(file, format=form, metadata=metadata)


def _draw_lanes(axes: Axes, layout: Layout, scale: float) -> list[Any]:
    """The bars and the marks.

    Returns:
        What the legend shows.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    colours = {program: _COLOURS[place % len(_COLOURS)] for place, program in enumerate(layout.programs)}
    bars: dict[tuple[int, str], list[tuple[float, float]]] = {}
    for span in layout.spans:
        bar = (span.start * scale, (span.end - span.start) * scale)
        bars.setdefault((span.row, span.record.program), []).append(bar)
    # The picture's width has about 1500 pixels: a shorter run would not be seen at all.
    shortest = layout.seconds * scale / 1500
    for (row, program), places in bars.items():
        axes.broken_barh(
            [(start, max(width, shortest)) for start, width in places],
            (row - 0.36, 0.72),
            facecolor=colours[program],
            edgecolor="white",
            # An edge would cover the whole of a narrow bar.
            linewidth=[0.4 if width > 5 * shortest else 0.0 for _, width in places],
            hatch="////" if layout.rows[row].simulated else None,
        )
    seen: dict[str, Any] = {}
    for outcome, (label, marker, colour) in _MARKS.items():
        marks = [mark for mark in layout.marks if mark.attempt.outcome == outcome]
        if marks:
            look: dict[str, Any] = {"marker": marker, "color": colour, "linestyle": "", "markersize": 6}
            if marker != "|":
                look |= {"markeredgecolor": "white", "markeredgewidth": 0.6}
            axes.plot([mark.time * scale for mark in marks], [mark.row for mark in marks], zorder=3, **look)
            seen[label] = Line2D([], [], label=f"{label} ({len(marks)})", **look)
    axes.set_yticks(range(len(layout.rows)), [f"{row.device}  {row.label}" for row in layout.rows])
    axes.set_ylim(max(1, len(layout.rows)) - 0.4, -0.6)
    for place, (above, below) in enumerate(pairwise(layout.rows), start=1):
        if above.device != below.device:
            axes.axhline(place - 0.5, color="#cccccc", linewidth=0.6)
    axes.tick_params(axis="x", labelbottom=False)
    programs = [Patch(facecolor=colours[program], label=_short(program)) for program in layout.programs]
    simulated = [Patch(facecolor="#bbbbbb", edgecolor="white", hatch="////", label="on a simulated device: modelled")]
    return [*programs, *(simulated if any(row.simulated for row in layout.rows) else []), *seen.values()]


def _draw_queue(axes: Axes, layout: Layout, scale: float) -> None:
    from matplotlib.ticker import MaxNLocator

    steps = layout.waiting()
    times = [time * scale for time, _ in steps] + [layout.seconds * scale]
    depths = [depth for _, depth in steps] + [steps[-1][1]]
    axes.fill_between(times, depths, step="post", color="#bbbbbb", linewidth=0)
    if not layout.waits:
        axes.text(0.5, 0.5, "no request waited", transform=axes.transAxes, ha="center", va="center", color=_PASSED)
    axes.set_ylabel("waiting")
    axes.set_ylim(0, max(1, *depths) * 1.1)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=3))


def _title(layout: Layout) -> str:
    loads = f"{len(layout.loads)} load{'s' if len(layout.loads) != 1 else ''}"
    if not layout.records:
        return f"no requests, {loads}" if layout.loads else "no requests"
    answered: Counter[str] = Counter()
    for record in layout.records:
        if record.device is not None:
            answered[f"{record.device} (simulated)" if record.simulated else record.device] += 1
    devices = ", ".join(f"{device} {answered[device]}" for device in layout.devices) or "no device"
    count = len(layout.records)
    unanswered = count - sum(answered.values())
    return (
        f"{count} request{'s' if count != 1 else ''}, answered by {devices}"
        + (f"; {unanswered} unanswered" if unanswered else "")
        + f"; {sum(record.fell_back for record in layout.records)} fell back"
        + (f"; {loads}" if layout.loads else "")
    )


def _short(name: str) -> str:
    text = name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
    # matplotlib leaves labels with an underscore in front out of the legend.
    return f" {text}" if text.startswith("_") else text
