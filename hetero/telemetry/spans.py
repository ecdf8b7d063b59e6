"""Records laid out in time: which run held which lane when, what waited, what failed. Pictures and traces draw this."""

from __future__ import annotations

import bisect
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hetero.telemetry.records import Attempt, LoadRecord, Record

SHORTEST_WAIT = 10e-6
"""Seconds; what is shorter is the way from the call to the device, not a wait for it."""

_SAME_CLOCK = 1.0

Told = Record | LoadRecord


@dataclass(frozen=True)
class Row:
    """A lane of a device, or a part of one: sessions have lanes of their own, which share a device's number.

    Attributes:
        device: The device's name, with the mark of a simulated one.
        label: `lane 0`; `loads`; with a number behind it where calls of several sessions overlap.
        simulated: The device is a simulator.
    """

    device: str
    label: str
    simulated: bool


@dataclass(frozen=True)
class Span:
    """A run, or a load.

    Attributes:
        row: Where it is drawn; an index of `Layout.rows`.
        start: Seconds since the trace began.
        end: The same, of its end.
        record: Of the request, or of the load.
        attempt: The part of it that it shows.
    """

    row: int
    start: float
    end: float
    record: Told
    attempt: Attempt


@dataclass(frozen=True)
class Mark:
    """A moment at which a device failed a request, refused it, or was passed over; or failed to load a program.

    Attributes:
        row: An index of `Layout.rows`.
        time: Seconds since the trace began.
        record: Of the request, or of the load.
        attempt: What tells the reason.
    """

    row: int
    time: float
    record: Told
    attempt: Attempt


@dataclass(frozen=True)
class Wait:
    """A time in which a request waited for a lane.

    Attributes:
        start: Seconds since the trace began.
        end: The same, of its end.
        record: Of the request.
    """

    start: float
    end: float
    record: Record


def shown_name(attempt: Attempt) -> str:
    """A device's name, with the mark that every simulated one carries."""
    return f"{attempt.device} (simulated)" if attempt.simulated else attempt.device


class Layout:
    """Records laid out in time.

    Args:
        records: Of requests, in any order.
        loads: Of loads, in any order.

    Attributes:
        records: By arrival.
        loads: By their beginning.
        began: Wall-clock time of the first arrival or load, seconds since the epoch; 0 when there is none.
        seconds: From then to the last end.
        devices: The devices' names as they are shown, in the order of their first appearance.
        programs: The programs' names in the same order.
        rows: Device after device, lane after lane.
        spans: By start.
        marks: By time.
        waits: By start.
    """

    def __init__(self, records: Iterable[Record], loads: Iterable[LoadRecord] = ()) -> None:
        given: list[Told] = [*records, *loads]
        shifts = _shifts(given)
        shifted = sorted(zip(given, shifts, strict=True), key=lambda pair: pair[0].arrived + pair[1])
        told = [record for record, _ in shifted]
        self.records = [record for record in told if isinstance(record, Record)]
        self.loads = [record for record in told if isinstance(record, LoadRecord)]
        self.began = told[0].started if told else 0.0
        # Seconds since the trace began are the scheduler's less this.
        zeros = [shifted[0][0].arrived + shifted[0][1] - shift for _, shift in shifted]
        self.seconds = max(
            (record.arrived - zero + _seconds(record) for record, zero in zip(told, zeros, strict=True)), default=0.0
        )
        self.programs = list(dict.fromkeys(record.program for record in told))
        simulated = {shown_name(attempt): attempt.simulated for record in told for attempt in _attempts(record)}
        self.devices = list(simulated)
        drawn: list[tuple[str, Attempt, Told, float, float]] = []
        passed: list[tuple[str, Attempt, Record, float]] = []
        self.waits: list[Wait] = []
        loaded = {_load_key(load.program, load.attempt) for load in self.loads}
        for zero, record in zip(zeros, told, strict=True):
            at = record.arrived - zero
            if isinstance(record, LoadRecord):
                attempt = record.attempt
                drawn.append((shown_name(attempt), attempt, record, at, at + attempt.seconds))
                continue
            began = [(attempt, attempt.started - zero) for attempt in record.attempts]
            spans = [
                (shown_name(attempt), attempt, record, start, start + attempt.seconds + attempt.verify_seconds)
                for attempt, start in began
                if _took_time(attempt) and attempt.started >= record.arrived
            ]
            # A load that a request had to wait for is told by the request too.
            drawn += [span for span in spans if _load_key(record.program, span[1]) not in loaded]
            shown = {id(attempt) for _, attempt, *_ in spans}
            end = at + record.total_seconds
            passed += [
                # What was decided before the request came is told at its arrival.
                (shown_name(attempt), attempt, record, min(max(start, at), end))
                for attempt, start in began
                if id(attempt) not in shown
            ]
            self.waits += _waits(record, at, end, sorted((start, end) for *_, start, end in spans))
        self.rows, places = _rows(self.devices, simulated, drawn)
        self.spans = sorted(
            (
                Span(row, start, end, record, attempt)
                for row, (_, attempt, record, start, end) in zip(places, drawn, strict=True)
            ),
            key=lambda span: span.start,
        )
        first_rows = {row.device: place for place, row in reversed(list(enumerate(self.rows)))}
        self.marks = sorted(
            [
                *(
                    Mark(span.row, span.end, span.record, span.attempt)
                    for span in self.spans
                    if span.attempt.outcome != "ok"
                ),
                *(
                    Mark(first_rows[device], time, record, attempt)
                    for device, attempt, record, time in passed
                    if attempt.outcome != "ok"
                ),
            ],
            key=lambda mark: mark.time,
        )
        self.waits.sort(key=lambda wait: wait.start)

    def waiting(self) -> list[tuple[float, int]]:
        """How many requests wait, as steps: seconds since the trace began, and how many from then on."""
        changes: dict[float, int] = {}
        for wait in self.waits:
            changes[wait.start] = changes.get(wait.start, 0) + 1
            changes[wait.end] = changes.get(wait.end, 0) - 1
        steps = [(0.0, 0)]
        for time in sorted(changes):
            if changes[time]:
                steps.append((time, steps[-1][1] + changes[time]))
        return steps


def _seconds(record: Told) -> float:
    return record.attempt.seconds if isinstance(record, LoadRecord) else record.total_seconds


def _attempts(record: Told) -> list[Attempt]:
    return [record.attempt] if isinstance(record, LoadRecord) else record.attempts


def _load_key(program: str, attempt: Attempt) -> tuple[str, str, float] | None:
    return (program, attempt.device, attempt.started) if attempt.stage == "load" else None


def _took_time(attempt: Attempt) -> bool:
    return attempt.stage == "load" or (attempt.stage == "run" and (attempt.lane is not None or attempt.seconds > 0))


def _shifts(records: Sequence[Told]) -> list[float]:
    """For each record what has to be added to its times, so that those of several processes have one clock.

    One number for all records of a process, so that lanes fit to the nanosecond, and 0 where there is but one. Another
    one after a machine was asleep, too.
    """
    differences = sorted(record.started - record.arrived for record in records)
    groups: list[list[float]] = []
    for difference in differences:
        if not groups or difference - groups[-1][-1] > _SAME_CLOCK:
            groups.append([])
        groups[-1].append(difference)
    ends = [group[-1] for group in groups]
    medians = [statistics.median(group) for group in groups]
    shifts = [median - medians[0] for median in medians]
    return [shifts[bisect.bisect_left(ends, record.started - record.arrived)] for record in records]


def _waits(record: Record, arrived: float, end: float, busy: Sequence[tuple[float, float]]) -> list[Wait]:
    """The times in which nobody worked for the request, though it wanted to go on."""
    waits: list[Wait] = []
    idle_since = arrived
    for start, stop in busy:
        waits.append(Wait(idle_since, start, record))
        idle_since = max(idle_since, stop)
    gave_up = record.outcome in ("cancelled", "too late")
    if gave_up or not busy:
        waits.append(Wait(idle_since, end, record))
    return [wait for wait in waits if wait.end - wait.start >= SHORTEST_WAIT]


def _rows(
    devices: Sequence[str],
    simulated: dict[str, bool],
    drawn: Sequence[tuple[str, Attempt, Told, float, float]],
) -> tuple[list[Row], list[int]]:
    """The rows, and for each span the index of its row; spans in one row never overlap."""
    order = sorted(range(len(drawn)), key=lambda place: (drawn[place][3], drawn[place][4]))
    parts: dict[tuple[str, str], list[tuple[float, str]]] = {}
    placed: dict[int, tuple[str, str, int]] = {}
    for place in order:
        device, attempt, record, start, end = drawn[place]
        lane = "loads" if attempt.stage == "load" else f"lane {'?' if attempt.lane is None else attempt.lane}"
        mine = parts.setdefault((device, lane), [])
        free = [part for part, (busy_until, _) in enumerate(mine) if busy_until <= start]
        # A program stays in its row as long as it can: two that overlap change places else.
        same = [part for part in free if mine[part][1] == record.program]
        part = (same or free or [len(mine)])[0]
        mine[part : part + 1] = [(end, record.program)]
        placed[place] = (device, lane, part)
    keys: list[tuple[str, str, int]] = []
    rows: list[Row] = []
    for device in devices:
        used = sorted({key for key in placed.values() if key[0] == device}, key=_by_lane) or [(device, "not used", 0)]
        keys += used
        rows += [Row(device, lane + (f" ({part + 1})" if part else ""), simulated[device]) for _, lane, part in used]
    index = {key: place for place, key in enumerate(keys)}
    return rows, [index[placed[place]] for place in range(len(drawn))]


def _by_lane(key: tuple[str, str, int]) -> tuple[bool, int, str, int]:
    _, lane, part = key
    return (lane == "loads", len(lane), lane, part)
