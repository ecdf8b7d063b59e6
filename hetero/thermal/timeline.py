"""What heat did to a Runtime's requests, second by second, as a picture: temperatures, duties, what ran where."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hetero.errors import OptionError
from hetero.telemetry.timeline import PICTURES, check_matplotlib

if TYPE_CHECKING:
    from hetero.runtime import Runtime
    from hetero.telemetry.records import Record

_COLOURS = {"npu": "#0072B2", "gpu": "#009E73", "cpu": "#E69F00"}
_BINS = 400


def check_picture(file: Path) -> None:
    """Refuse a picture that could not be drawn, before any work is done.

    Raises:
        OptionError: A suffix that is not known.
        Unavailable: matplotlib is not installed.
    """
    if file.suffix.lower() not in PICTURES:
        raise OptionError(f"{file} is no picture that can be drawn", fix=f"choose {' or '.join(PICTURES)}")
    check_matplotlib()


@dataclass(frozen=True)
class Moment:
    """A device at one tick of the governor.

    Attributes:
        at: Seconds since the timeline began.
        celsius: Its temperature; None where it is unknown.
        duty: What the governor granted, 0 to 1.
        state: `cool`, `warn`, ...
    """

    at: float
    celsius: float | None
    duty: float
    state: str


class HeatTimeline:
    """Collects what happens on a Runtime from now on, until `close`. A context manager.

    Args:
        runtime: With a governor.

    Attributes:
        moments: By device.
        runs: Program, device, start and seconds of each run, on the timeline's clock.
        held: Device, action, end and seconds of each time that heat held a request back or sent it elsewhere.

    Raises:
        OptionError: The Runtime does not look at heat.
    """

    def __init__(self, runtime: Runtime) -> None:
        if runtime.governor is None:
            raise OptionError("a timeline of heat needs a governor", fix="leave thermal=False (--thermal off) out")
        self.moments: dict[str, list[Moment]] = defaultdict(list)
        self.runs: list[tuple[str, str, float, float]] = []
        self.held: list[tuple[str, str, float, float]] = []
        self._runtime = runtime
        self._governor = runtime.governor
        self._kinds = {device.name: device.kind for device in runtime.devices}
        self._begun = runtime.now
        self._lock = threading.Lock()
        self._unsubscribe = runtime.records.subscribe(self._ended)
        runtime.listen_to_heat(self)

    def heat_changed(self) -> None:
        """The governor has looked; see `hetero.thermal.watching.Listener`."""
        at = self._runtime.now - self._begun
        for name, sample in self._governor.samples.items():
            moment = Moment(at, sample.reading.celsius, sample.grant.duty, sample.grant.state)
            with self._lock:
                self.moments[name].append(moment)

    def close(self) -> None:
        """Collect no more."""
        self._unsubscribe()
        self._closed_at = self._runtime.now - self._begun

    def __enter__(self) -> HeatTimeline:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ended(self, record: Record) -> None:
        with self._lock:
            for attempt in record.attempts:
                if attempt.stage == "run" and attempt.seconds:
                    self.runs.append((record.program, attempt.device, attempt.started - self._begun, attempt.seconds))
            for decision in record.heat:
                if decision.held or decision.action == "steer":
                    at = record.arrived - self._begun
                    self.held.append((decision.device, decision.action, at, decision.held or 0.0))

    @property
    def seconds(self) -> float:
        """How long it is."""
        ends = [start + seconds for _, _, start, seconds in self.runs]
        return max([*ends, *(moment.at for moments in self.moments.values() for moment in moments[-1:])], default=0.0)

    def to_dict(self) -> dict[str, Any]:
        """The sum of it, JSON-ready."""
        with self._lock:
            devices = {}
            for name, moments in self.moments.items():
                known = [moment.celsius for moment in moments if moment.celsius is not None]
                devices[name] = {
                    "highest": max(known, default=None),
                    "mean_duty": sum(moment.duty for moment in moments) / len(moments),
                    "paced_seconds": sum(moment.duty < 1 for moment in moments),
                    "work_seconds": sum(run[3] for run in self.runs if run[1] == name),
                    "runs": sum(run[1] == name for run in self.runs),
                }
            return {
                "seconds": self.seconds,
                "modelled": self._runtime.modelled.description if self._runtime.modelled is not None else None,
                "devices": devices,
                "held_requests": sum(action != "steer" for _, action, _, _ in self.held),
                "held_seconds": sum(seconds for _, _, _, seconds in self.held),
                "steered_requests": sum(action == "steer" for _, action, _, _ in self.held),
            }

    def draw(self, file: Path, title: str = "") -> None:
        """Draw it.

        Args:
            file: `.png` or `.svg`.
            title: Above the picture.

        Raises:
            OptionError: Another suffix.
            Unavailable: matplotlib is not installed.
        """
        check_picture(file)
        from matplotlib.figure import Figure

        used = [name for name in self._kinds if name in self.moments or any(run[1] == name for run in self.runs)]
        figure = Figure(figsize=(10, 8), layout="constrained")
        heat, duty, work, held = figure.subplots(4, 1, sharex=True, height_ratios=(4, 2, 3, 1.5))
        heat.set_title(title, fontsize=10)
        for name in used:
            moments, colour = self.moments[name], _COLOURS[self._kinds[name]]
            known = [(moment.at / 60, moment.celsius) for moment in moments if moment.celsius is not None]
            if known:
                heat.plot(*zip(*known, strict=True), lw=1.0, color=colour, label=name)
                maximum = self._governor.limits(name).maximum
                heat.axhline(maximum, color=colour, lw=0.8, ls="--", label=f"maximum of {name}, {maximum:g} C")
            duty.plot([m.at / 60 for m in moments], [m.duty for m in moments], lw=1.0, color=colour, label=name)
        modelled = " (modelled)" if self._runtime.modelled is not None else ""
        heat.set_ylabel(f"C{modelled}")
        duty.set_ylabel("duty granted")
        duty.set_ylim(-0.05, 1.05)
        self._draw_work(work)
        work.set_ylabel("at work, share\nof a lane")
        self._draw_held(held)
        held.set_ylabel("requests held,\nmean number")
        held.set_xlabel(f"minutes{modelled}")
        for axes in (heat, duty, work, held):
            if axes.get_legend_handles_labels()[0]:
                axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
        figure.savefig(file, dpi=110)

    def _draw_work(self, axes: Any) -> None:
        """Stacked: what ran where."""
        width, bins = self._bins()
        shares: dict[tuple[str, str], list[float]] = {}
        for program, device, start, seconds in self.runs:
            _spread(shares.setdefault((device, program), [0.0] * bins), start, seconds, width)
        middles = [(place + 0.5) * width / 60 for place in range(bins)]
        names = sorted(shares)
        if names:
            axes.stackplot(middles, *(shares[n] for n in names), labels=[f"{p} on {d}" for d, p in names], lw=0)

    def _draw_held(self, axes: Any) -> None:
        width, bins = self._bins()
        middles = [(place + 0.5) * width / 60 for place in range(bins)]
        for device in sorted({each[0] for each in self.held}):
            counts = [0.0] * bins
            for name, _, start, seconds in self.held:
                if name == device:
                    _spread(counts, start, seconds, width)
            axes.plot(middles, counts, lw=1.0, color=_COLOURS[self._kinds[device]], label=f"for {device}")

    def _bins(self) -> tuple[float, int]:
        bins = max(1, min(_BINS, round(self.seconds)))
        return max(self.seconds, 1e-9) / bins, bins


def _spread(bins: list[float], start: float, seconds: float, width: float) -> None:
    """Add a span of time to the bins that it covers, as shares of their width."""
    first, last = max(0, int(start / width)), min(len(bins) - 1, int((start + seconds) / width))
    for place in range(first, last + 1):
        covered = min(start + seconds, (place + 1) * width) - max(start, place * width)
        bins[place] += max(0.0, covered) / width


def summary(told: dict[str, Any]) -> Sequence[str]:
    """What a timeline comes to, in lines for people."""
    place = f" on the modelled {told['modelled']}" if told["modelled"] else ""
    minutes, seconds = divmod(round(told["seconds"]), 60)
    lines = [f"heat: {minutes}:{seconds:02d} min{place}"]
    for name, each in told["devices"].items():
        if each["highest"] is not None:
            lines.append(
                f"  {name}: {each['highest']:.1f} C at most, {each['mean_duty']:.0%} granted in the mean, "
                f"{each['runs']} runs, {each['work_seconds']:.0f} s of work"
            )
    lines.append(
        f"  {told['held_requests']} requests held back by heat, {told['held_seconds']:.1f} s in all; "
        f"{told['steered_requests']} sent elsewhere"
    )
    return lines
