"""Records made by hand, so that a test knows each time in them."""

from __future__ import annotations

from typing import Any

from hetero.telemetry.records import Attempt, LoadRecord, Record

WALL = 1_700_000_000.0
CLOCK = 500.0


def attempt(device: str, start: float, seconds: float, outcome: Any = "ok", **others: Any) -> Attempt:
    """A run on lane 0 that began `start` seconds after the story did."""
    others = {"reason": "" if outcome == "ok" else f"{outcome} for a reason", "lane": 0, **others}
    stage = others.pop("stage", "run")
    return Attempt(device, stage, outcome, seconds=seconds, started=CLOCK + start, **others)


def record(
    arrived: float, total: float, *attempts: Attempt, program: str = "double", error: str | None = None
) -> Record:
    """A request that came `arrived` seconds after the story began."""
    made = Record(program)
    made.started = WALL + arrived
    made.arrived = CLOCK + arrived
    made.total_seconds = total
    made.wait_seconds = max(0.0, total - sum(attempt.seconds for attempt in attempts))
    made.attempts = list(attempts)
    made.error = error
    return made


def story() -> list[Record]:
    """An NPU that is simulated answers, fails, and is set aside; the CPU steps in; one request is too late."""
    aside = attempt("npu", 5.0, 0.0, "set aside", simulated=True, lane=None)
    return [
        record(0.0, 1.0, attempt("npu", 0.0, 1.0, simulated=True)),
        record(
            0.5,
            4.5,
            attempt("npu", 1.0, 1.0, "failed", simulated=True),
            attempt("cpu", 2.5, 2.5),
        ),
        record(5.0, 1.0, aside, attempt("cpu", 5.0, 1.0, verify_seconds=0.25), program="other"),
        record(5.25, 0.5, error="DeadlineExceeded: no answer within 0.5 s"),
    ]


def load(start: float, seconds: float, device: str = "npu", outcome: str = "ok", **others: Any) -> LoadRecord:
    """A load that began `start` seconds after the story did."""
    cached = others.pop("cached", None)
    made = attempt(device, start, seconds, outcome, stage="load", lane=None, **others)
    return LoadRecord("double", made, WALL + start, cached)
