"""Programs and machines as tables for people."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.text import Text

from hetero.cli.console import clock, marked, milliseconds, size
from hetero.cli.fitting import Column, fitted
from hetero.cli.sparkline import sparkline
from hetero.monitor.asking import Process, Silent

if TYPE_CHECKING:
    from hetero.cli.viewer import History, Viewer, Warmth
    from hetero.memory.statistics import PoolStatistics
    from hetero.monitor.status import (
        DeviceStatus,
        FallbackStatus,
        HeatDecision,
        HeatStatus,
        RuntimeStatus,
        SessionStatus,
    )

# For tests: seconds since the epoch.
wall: Callable[[], float] = time.time

_SPARK = 16
_LEAST_SPAN = 10.0
_EVENTS = 4
_FOLDED = 2
_STYLES = {"warn": "yellow", "hot": "red", "stop": "bold red"}
_HEALTH = {"ok": "green", "degraded": "yellow", "set aside": "red", "refused": "dim", "not used": "dim"}

_DEVICES = (
    Column("device"),
    Column("kind", 6),
    Column("lanes", right=True),
    Column("load", right=True),
    Column("loads", 5, headed=False),
    Column("temp", 1, right=True),
    Column("temps", 4, headed=False),
    Column("heat", 2),
    Column("duty", 2, right=True),
    Column("tokens", 5, right=True),
    Column("health", elastic=True),
)
_SESSIONS = (
    Column("program", elastic=True),
    Column("policy", 7),
    Column("next", 3),
    Column("queue", right=True),
    Column("per s", right=True),
    Column("rates", 4, headed=False),
    Column("latency", 1, right=True),
    Column("95 %", 5, right=True),
    Column("waits", 6, right=True),
    Column("ended", 2, right=True),
    Column("fell back", 1, right=True),
    Column("failed", 1, right=True),
    Column("for heat", 3, right=True),
    Column("answered by", 8, elastic=True),
)
_PROCESSES = (
    Column("pid", right=True),
    Column("up", 3, right=True),
    Column("busy", 1, right=True),
    Column("queue", right=True),
    Column("per s", right=True),
    Column("rates", 4, headed=False),
    Column("hottest", 2, right=True),
    Column("failed", 2, right=True),
    Column("fell back", 2, right=True),
    Column("health", 1),
    Column("command", elastic=True),
)
_POOLS = (
    Column("memory"),
    Column("in use", right=True),
    Column("idle", right=True),
    Column("most", 1, right=True),
    Column("limit", 1, right=True),
    Column("reused", 2, right=True),
)
_MACHINE = (
    Column("device"),
    Column("temp", right=True),
    Column("temps", 3, headed=False),
    Column("heat"),
    Column("duty", 1, right=True),
    Column("tokens", 5, right=True),
    Column("in use", 4, right=True),
    Column("sensor", 2),
    Column("why", elastic=True),
)

Row = Mapping[str, Text]


def ascii_only(console: Console) -> bool:
    """Whether a terminal has no bars and dots."""
    return not console.encoding.startswith("utf")


class Panels:
    """Draws for a width.

    Args:
        width: Characters in a line.
        ascii_only: The terminal has no other characters.
    """

    def __init__(self, width: int, ascii_only: bool = False) -> None:
        self._width = width
        self._ascii = ascii_only

    def process(self, process: Process, viewer: Viewer) -> RenderableType:
        """All of one program."""
        parts: list[RenderableType] = [self._title(process)]
        for status in process.runtimes:
            parts.append(Text())
            if len(process.runtimes) > 1:
                parts.append(Text(f"Runtime {status.number}", "bold"))
            parts += self._runtime(status, viewer.history(process, status))
        if not process.runtimes:
            parts += [Text(), Text("its Runtimes are closed")]
        return Group(*parts)

    def overview(self, answers: Sequence[Process | Silent], viewer: Viewer) -> RenderableType:
        """A line for each program."""
        rows = [self._overview_row(answer, viewer) for answer in answers if isinstance(answer, Process)]
        parts: list[RenderableType] = [fitted(_PROCESSES, rows, self._width)] if rows else []
        return Group(*parts, *(self.silent(answer) for answer in answers if isinstance(answer, Silent)))

    def silent(self, answer: Silent) -> Text:
        """A program that gave no answer."""
        return self._line(f"{answer.pid}: {answer.reason}", "yellow")

    def machine(self, devices: Sequence[Warmth]) -> RenderableType:
        """Devices with their temperatures, without any program."""
        rows = [
            {
                "device": Text(marked(each.device, each.simulated)),
                **_heat_cells(each.heat),
                "temps": Text(self._warmth(each.celsius)),
                "in use": Text("-" if each.heat.used is None else f"{each.heat.used:.0%}"),
                "sensor": Text(sensor_of(each.heat)),
                "why": Text(each.heat.why),
            }
            for each in devices
        ]
        return fitted(_MACHINE, rows, self._width)

    def _title(self, process: Process) -> Text:
        title = Text(f"pid {process.pid}", "bold")
        title.append(f"  up {_up(process)}  {_command(process)}", "none")
        return self._cut(title)

    def _runtime(self, status: RuntimeStatus, history: History) -> list[RenderableType]:
        parts: list[RenderableType] = []
        if status.closed:
            parts.append(Text(status.closed, "yellow"))
        parts.append(fitted(_DEVICES, [self._device(each, history) for each in status.devices], self._width))
        if any(device.simulated for device in status.devices):
            parts.append(self._line("simulated devices: their times and temperatures are modelled", "dim"))
        parts.append(Text())
        if status.sessions:
            parts.append(fitted(_SESSIONS, [self._session(each, history) for each in status.sessions], self._width))
        else:
            parts.append(Text("no program is loaded"))
        pools = [_pool(each) for each in status.memory if each.high_water_bytes]
        if pools:
            parts += [Text(), fitted(_POOLS, pools, self._width)]
        events = status.governor.events[-_EVENTS:] if status.governor is not None else ()
        parts += self._listed(_heat_title(status), [f"{_ago(event.ago)}  {event.text}" for event in reversed(events)])
        parts += self._listed("last decisions for heat", decisions_told(status.heat))
        parts += self._listed("last fallbacks", fallbacks_told(status.fallbacks))
        return parts

    def _listed(self, title: str, lines: Sequence[str]) -> list[RenderableType]:
        if not lines:
            return []
        folded = [
            Text(line, no_wrap=True)
            for text in lines
            for line in textwrap.wrap(
                text,
                max(20, self._width),
                initial_indent="  ",
                subsequent_indent=" " * 6,
                max_lines=_FOLDED,
                placeholder=" ..." if self._ascii else " …",
            )
        ]
        return [Text(), self._line(title, "bold"), *folded]

    def _device(self, device: DeviceStatus, history: History) -> Row:
        loads, celsius = list(history.loads[device.name]), list(history.celsius[device.name])
        return {
            "device": Text(marked(device.name, device.simulated)),
            "kind": Text(device.kind),
            "lanes": Text(f"{device.busy}/{device.lanes}"),
            "load": Text(f"{device.load:.0%}"),
            "loads": Text(self._spark(loads, 0.0, 1.0)),
            **_heat_cells(device.heat),
            "temps": Text(self._warmth(celsius)),
            "health": Text(_health(device), _HEALTH.get(device.state, "")),
        }

    def _session(self, session: SessionStatus, history: History) -> Row:
        rates = list(history.rates[session.number])
        answered = [f"{each.device} {each.answered}" for each in session.candidates if each.answered]
        lost = session.failed + session.too_late
        return {
            "program": Text(session.program),
            "policy": Text(session.policy),
            "next": Text(session.device or "nobody"),
            "queue": Text(str(session.waiting)),
            "per s": Text(_number(history.rate(session.number))),
            "rates": Text(self._spark(rates, 0.0, max(rates, default=0.0))),
            "latency": Text(milliseconds(session.latency)),
            "95 %": Text(milliseconds(session.latency_95)),
            "waits": Text(milliseconds(session.wait)),
            "ended": Text(str(session.ended)),
            "fell back": Text(str(session.fell_back), "yellow" if session.fell_back else ""),
            "failed": Text(str(lost), "red" if lost else ""),
            "for heat": Text(str(session.heated) if session.heated else ""),
            "answered by": Text(", ".join(answered)),
        }

    def _overview_row(self, process: Process, viewer: Viewer) -> Row:
        devices = [device for status in process.runtimes for device in status.devices]
        sessions = [session for status in process.runtimes for session in status.sessions]
        histories = [(status, viewer.history(process, status)) for status in process.runtimes]
        known = [history.rates[each.number] for status, history in histories for each in status.sessions]
        looks = max(map(len, known), default=0)
        rates = [sum(rate[place] for rate in known if -place <= len(rate)) for place in range(-looks, 0)]
        warm = [device.heat.celsius for device in devices if device.heat and device.heat.celsius is not None]
        ill = [device for device in devices if device.state in ("degraded", "set aside")]
        lost = sum(session.failed + session.too_late for session in sessions)
        return {
            "pid": Text(str(process.pid)),
            "up": Text(_up(process)),
            "busy": Text(f"{sum(device.busy for device in devices)}/{sum(device.lanes for device in devices)}"),
            "queue": Text(str(sum(session.waiting for session in sessions))),
            "per s": Text(_number(rates[-1] if rates else 0.0)),
            "rates": Text(self._spark(rates, 0.0, max(rates, default=0.0))),
            "hottest": Text(f"{max(warm):.1f} C" if warm else ""),
            "failed": Text(str(lost), "red" if lost else ""),
            "fell back": Text(str(sum(session.fell_back for session in sessions))),
            "health": Text(", ".join(f"{device.name} {device.state}" for device in ill) or "ok"),
            "command": Text(_command(process)),
        }

    def _spark(self, values: Sequence[float | None], low: float, high: float) -> str:
        return sparkline(values, width=_SPARK, low=low, high=high, ascii_only=self._ascii)

    def _warmth(self, celsius: Sequence[float | None]) -> str:
        known = [value for value in celsius if value is not None]
        if not known:
            return ""
        spare = max(0.0, _LEAST_SPAN - (max(known) - min(known))) / 2
        return self._spark(celsius, min(known) - spare, max(known) + spare)

    def _line(self, text: str, style: str = "") -> Text:
        return self._cut(Text(text, style))

    def _cut(self, text: Text) -> Text:
        text.truncate(self._width, overflow="ellipsis")
        text.no_wrap = True
        return text


def _heat_cells(heat: HeatStatus | None) -> dict[str, Text]:
    if heat is None:
        return {name: Text() for name in ("temp", "heat", "duty", "tokens")}
    style = _STYLES.get(heat.state, "")
    return {
        "temp": Text("unknown" if heat.celsius is None else f"{heat.celsius:.1f} C", style),
        "heat": Text(heat.state, style),
        "duty": Text(f"{heat.duty:.0%}", style),
        "tokens": Text(lane_seconds(heat.tokens)),
    }


def lane_seconds(tokens: float) -> str:
    """What a device may spend, without the minus of a zero."""
    return f"{round(tokens, 2) + 0.0:.2f} s"


def sensor_of(heat: HeatStatus) -> str:
    """The sensor that tells a temperature, with a mark where it sits in a neighbour."""
    return heat.source + ("" if heat.direct else " (proxy)") if heat.source else "none"


def _health(device: DeviceStatus) -> str:
    again = f", asked again in {device.retry_in:.0f} s" if device.retry_in > 0 else ""
    reason = f": {device.reason}" if device.reason else ""
    held = ""
    if device.heat is not None and device.heat.duty < 1:
        held = f"; {device.heat.why}"
    return f"{device.state}{again}{reason}{held}"


def _pool(told: PoolStatistics) -> Row:
    taken = told.hits + told.misses
    return {
        "memory": Text(told.name),
        "in use": Text(size(told.in_use_bytes)),
        "idle": Text(size(told.idle_bytes)),
        "most": Text(size(told.high_water_bytes)),
        "limit": Text("none" if told.limit_bytes is None else size(told.limit_bytes)),
        "reused": Text(f"{told.hits / taken:.0%}" if taken else "-"),
    }


def _heat_title(status: RuntimeStatus) -> str:
    governor = status.governor
    return f"heat (profile {governor.profile}, when hot: {governor.on_hot})" if governor is not None else "heat"


def decisions_told(decisions: Sequence[HeatDecision]) -> list[str]:
    """Newest first; alike ones once, with how many there were and the newest one's reason."""
    alike: dict[tuple[str, ...], list[HeatDecision]] = {}
    for each in sorted(decisions, key=lambda each: each.ago):
        alike.setdefault((each.program, each.device, each.action, each.to), []).append(each)
    lines = []
    for same in alike.values():
        newest = same[0]
        does = {"run": "let through", "pace": "paced", "steer": f"sent to {newest.to}", "stop": "stopped"}
        held = [each.held for each in same if each.held is not None]
        long = f", held back for {milliseconds(max(held))} at most" if held else ""
        said = f"{newest.program} on {newest.device}: {does.get(newest.action, newest.action)}{long}: {newest.reason}"
        lines.append(f"{_ago(newest.ago)}  {_times(same)}{said}")
    return lines


def fallbacks_told(fallbacks: Sequence[FallbackStatus]) -> list[str]:
    """Newest first; equal ones once, with how many there were."""
    alike: dict[tuple[object, ...], list[FallbackStatus]] = {}
    for each in sorted(fallbacks, key=lambda each: each.ago):
        alike.setdefault((each.program, each.passed, each.device, each.error), []).append(each)
    lines = []
    for same in alike.values():
        newest = same[0]
        end = f"answered by {marked(newest.device, newest.simulated)}" if newest.device else newest.error
        lines.append(f"{_ago(newest.ago)}  {_times(same)}{newest.program}: {'; '.join(newest.passed)}; {end}")
    return lines


def _times(same: Sequence[object]) -> str:
    return f"{len(same)} times, " if len(same) > 1 else ""


def _ago(seconds: float) -> str:
    if seconds < 60:
        return f"{max(0.0, seconds):.0f} s ago"
    return f"{seconds / 60:.0f} min ago" if seconds < 3600 else f"{seconds / 3600:.0f} h ago"


def _up(process: Process) -> str:
    return clock(max(0.0, wall() - process.began))


def _command(process: Process) -> str:
    import shlex

    return shlex.join(process.command)


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"
