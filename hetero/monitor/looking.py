"""Makes a snapshot of a Runtime. Everything is read as it stands, with no lock that a request could wait for."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hetero.monitor.heat import governor_status, heat_of
from hetero.monitor.status import (
    CandidateStatus,
    DeviceStatus,
    FallbackStatus,
    HeatDecision,
    HeatStatus,
    RuntimeStatus,
    SessionStatus,
)

if TYPE_CHECKING:
    from hetero.backend import Device
    from hetero.runtime import Runtime
    from hetero.scheduler.candidate import Candidate
    from hetero.scheduler.tally import Tally
    from hetero.session import Session
    from hetero.telemetry.records import Record
    from hetero.thermal.steering import Decision

WINDOW = 5.0
"""Seconds that rates, loads and latencies are of."""

_LEAST = 1.0
_SHOWN = 8


def status_of(runtime: Runtime) -> RuntimeStatus:
    """A Runtime as it is now."""
    now, wall = runtime._clock(), time.time()
    sessions = [session for session in runtime._sessions.all() if not session._closed]
    sessions.sort(key=lambda session: session._tally.number)
    looks = [_Look(session, now) for session in sessions]
    candidates = [candidate for look in looks for candidate in look.session._candidates]
    fallen = sorted((record for look in looks for record in list(look.tally.fallbacks)), key=_ended)
    heated = sorted((record for look in looks for record in list(look.tally.heated)), key=_ended)
    governor = runtime.governor
    return RuntimeStatus(
        number=runtime._number,
        at=wall,
        age=now - runtime._made,
        devices=tuple(
            _device(
                backend, device, [c for c in candidates if c.name == device.name], looks, heat_of(governor, device.name)
            )
            for backend, device in runtime.select()
        ),
        absent=tuple(map(str, runtime.absent)),
        sessions=tuple(look.status() for look in looks),
        memory=tuple(runtime.memory.glance()),
        governor=governor_status(governor, now),
        fallbacks=tuple(_fallback(record, now) for record in fallen[-_SHOWN:]),
        heat=tuple(_decision(record, decision, now) for record in heated[-_SHOWN:] for decision in list(record.heat)),
        closed=runtime._sessions.closed,
    )


class _Look:
    """A session, and those of its requests that ended in the last seconds."""

    def __init__(self, session: Session, now: float) -> None:
        self.session = session
        self.tally: Tally = session._tally
        self.now = now
        records = list(self.tally.recent)
        # Where more have ended in the window than are remembered, it is shorter.
        full = len(records) == self.tally.recent.maxlen
        oldest = _ended(records[0]) if full else now - max(_LEAST, now - session._made)
        self.seconds = min(WINDOW, now - oldest)
        since = now - self.seconds
        self.records = [record for record in records if _ended(record) > since]

    def status(self) -> SessionStatus:
        session, tally = self.session, self.tally
        answered = [record for record in self.records if record.device is not None]
        times = sorted(record.total_seconds for record in answered)
        by_device = Counter(record.device for record in answered)
        gathering = session._batcher.gathering if session._batcher is not None else 0
        return SessionStatus(
            number=tally.number,
            program=session.program.name,
            policy=session.policy,
            fallback=session.fallback,
            device=session.device,
            waiting=session._dispatcher.board.waiting + gathering,
            ended=tally.ended,
            failed=tally.failed,
            cancelled=tally.cancelled,
            too_late=tally.too_late,
            fell_back=tally.fell_back,
            heated=tally.decided,
            seconds=self.seconds,
            per_second=len(self.records) / self.seconds if self.seconds > 0 else 0.0,
            latency=statistics.median(times) if times else None,
            latency_95=times[-(-len(times) * 95 // 100) - 1] if times else None,
            wait=statistics.median(record.wait_seconds for record in answered) if answered else None,
            candidates=tuple(_candidate(c, by_device[c.name]) for c in session._candidates),
        )

    def work(self, device: str) -> float:
        """Lane-seconds that a device has worked for the session, of each second."""
        since = self.now - self.seconds
        # The members of a batch share their launches.
        spans = {
            (attempt.started, attempt.lane, attempt.thread): attempt.seconds
            for record in self.records
            for attempt in record.attempts
            if attempt.device == device and attempt.stage == "run" and attempt.lane is not None
        }
        done = sum(seconds - max(0.0, since - started) for (started, _, _), seconds in spans.items())
        running = sum(
            self.now - max(since, started)
            for candidate in self.session._candidates
            if candidate.name == device
            for started in _running(candidate)
        )
        return (done + running) / self.seconds if self.seconds > 0 else 0.0


def _ended(record: Record) -> float:
    return record.arrived + record.total_seconds


def _running(candidate: Candidate) -> list[float]:
    """When the calls that are in it began."""
    return [started for started in [call.started for call in candidate.lanes.calls] if started]


def _candidate(candidate: Candidate, answered: int) -> CandidateStatus:
    over, aside = candidate.passed_over, candidate.lanes.reason
    if over is not None:
        state, reason = str(over.outcome), over.reason
    elif not candidate.ready:
        state, reason = "not loaded", ""
    else:
        state = ("degraded" if candidate.lanes.healthy else "set aside") if aside else "ready"
        reason = aside
    return CandidateStatus(
        device=candidate.name,
        simulated=candidate.simulated,
        state=state,
        reason=reason,
        retry_in=candidate.lanes.retry_in if aside else 0.0,
        lanes=len(candidate.lanes.calls),
        busy=len(_running(candidate)),
        answered=answered,
    )


def _device(
    backend: str, device: Device, candidates: Sequence[Candidate], looks: Sequence[_Look], heat: HeatStatus | None
) -> DeviceStatus:
    known = [_candidate(candidate, 0) for candidate in candidates]
    loaded = [each for each in known if each.state in ("ready", "degraded", "set aside")]
    refused = [each for each in known if each.state in ("unsupported", "failed")]
    aside = [each for each in loaded if each.state == "set aside"]
    if loaded and len(aside) == len(loaded):
        state = "set aside"
    elif any(each.state != "ready" for each in loaded):
        state = "degraded"
    elif loaded:
        state = "ok"
    else:
        state = "refused" if refused else "not used"
    told = refused if state == "refused" else loaded
    lanes = max(1, device.lanes)
    return DeviceStatus(
        name=device.name,
        backend=backend,
        kind=device.kind,
        description=device.description,
        simulated=device.simulated,
        lanes=device.lanes,
        busy=sum(each.busy for each in loaded),
        load=min(1.0, max(0.0, sum(look.work(device.name) for look in looks) / lanes)),
        state=state,
        reason="; ".join(dict.fromkeys(each.reason for each in told if each.reason)),
        retry_in=min((each.retry_in for each in loaded if each.reason), default=0.0),
        heat=heat,
    )


def _decision(record: Record, decision: Decision, now: float) -> HeatDecision:
    return HeatDecision(
        ago=now - _ended(record),
        program=record.program,
        device=decision.device,
        action=decision.action,
        to=decision.to,
        held=decision.held,
        reason=decision.reason,
    )


def _fallback(record: Record, now: float) -> FallbackStatus:
    passed = tuple(str(attempt) for attempt in list(record.attempts) if attempt.outcome != "ok")
    error = (record.error or "").partition("\n")[0]
    return FallbackStatus(now - _ended(record), record.program, record.device, record.simulated, passed, error)
