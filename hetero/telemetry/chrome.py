"""The Trace Event Format, which Perfetto and chrome://tracing open.

Source: "Trace Event Format", the document of the Chromium project. Times are in microseconds since the first arrival
or load.
"""

from __future__ import annotations

from typing import Any

from hetero.telemetry.records import Attempt, LoadRecord
from hetero.telemetry.spans import Layout, Told

Event = dict[str, Any]

_WAITING = 1
"""The process of the queue; devices come after it."""


def chrome_trace(layout: Layout) -> dict[str, Any]:
    """A trace as a JSON-ready document."""
    pids = {device: pid for pid, device in enumerate(layout.devices, start=_WAITING + 1)}
    places = [(pids[row.device], tid) for tid, row in enumerate(layout.rows, start=1)]
    events = [*_process(_WAITING, "waiting for a lane"), *_thread(_WAITING, 0, "queue")]
    for device, pid in pids.items():
        events += _process(pid, device)
    for row, (pid, tid) in zip(layout.rows, places, strict=True):
        events += _thread(pid, tid, row.label)
    timed: list[Event] = []
    for span in layout.spans:
        pid, tid = places[span.row]
        timed.append(
            {
                "name": span.record.program if span.attempt.stage == "run" else f"load {span.record.program}",
                "cat": span.attempt.stage,
                "ph": "X",
                "ts": _us(span.start),
                "dur": _us(span.end - span.start),
                "pid": pid,
                "tid": tid,
                "args": _args(span.record, span.attempt),
            }
        )
    for mark in layout.marks:
        pid, tid = places[mark.row]
        timed.append(
            {
                "name": f"{mark.attempt.outcome}: {mark.record.program}",
                "cat": mark.attempt.outcome,
                "ph": "i",
                "s": "t",
                "ts": _us(mark.time),
                "pid": pid,
                "tid": tid,
                "args": _args(mark.record, mark.attempt),
            }
        )
    for number, wait in enumerate(layout.waits, start=1):
        common = {"name": wait.record.program, "cat": "wait", "id": number, "pid": _WAITING, "tid": 0}
        timed.append({**common, "ph": "b", "ts": _us(wait.start), "args": _args(wait.record, None)})
        timed.append({**common, "ph": "e", "ts": _us(wait.end)})
    for time, waiting in layout.waiting():
        counter = {"name": "waiting requests", "ph": "C", "pid": _WAITING, "tid": 0, "args": {"waiting": waiting}}
        timed.append({**counter, "ts": _us(time)})
    timed.sort(key=lambda event: event["ts"])
    return {
        "traceEvents": events + timed,
        "displayTimeUnit": "ms",
        "otherData": {
            "began": layout.began,
            "requests": len(layout.records),
            "loads": len(layout.loads),
            "devices": layout.devices,
            "programs": layout.programs,
        },
    }


def _process(pid: int, name: str) -> list[Event]:
    return [
        {"name": "process_name", "ph": "M", "pid": pid, "tid": 0, "args": {"name": name}},
        {"name": "process_sort_index", "ph": "M", "pid": pid, "tid": 0, "args": {"sort_index": pid}},
    ]


def _thread(pid: int, tid: int, name: str) -> list[Event]:
    return [
        {"name": "thread_name", "ph": "M", "pid": pid, "tid": tid, "args": {"name": name}},
        {"name": "thread_sort_index", "ph": "M", "pid": pid, "tid": tid, "args": {"sort_index": tid}},
    ]


def _us(seconds: float) -> float:
    return round(seconds * 1e6, 3)


def _args(record: Told, attempt: Attempt | None) -> dict[str, Any]:
    """What a click on an event shows."""
    told: dict[str, Any] = {"program": record.program}
    if isinstance(record, LoadRecord):
        if record.cached is not None:
            told["cached"] = record.cached
    else:
        told |= {"request": record.id, "ended": record.outcome}
        if record.error is not None:
            told["error"] = record.error
        told["wait_ms"] = round(record.wait_seconds * 1e3, 6)
        told["total_ms"] = round(record.total_seconds * 1e3, 6)
    if attempt is not None:
        told |= {"outcome": attempt.outcome, f"{attempt.stage}_ms": round(attempt.seconds * 1e3, 6)}
        if attempt.reason:
            told["reason"] = attempt.reason
        if attempt.copy_seconds:
            told["copy_ms"] = round(attempt.copy_seconds * 1e3, 6)
        if attempt.verify_seconds:
            told["verify_ms"] = round(attempt.verify_seconds * 1e3, 6)
        if attempt.thread:
            told["thread"] = attempt.thread
        if attempt.simulated:
            told["simulated"] = True
    if not isinstance(record, LoadRecord) and record.fell_back:
        told["attempts"] = [str(attempt) for attempt in record.attempts]
    if not isinstance(record, LoadRecord) and record.heat:
        told["heat"] = [str(decision) for decision in record.heat]
    return told
