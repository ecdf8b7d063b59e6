"""Which device answered each stage of one transcription, and how long the stages took.

The records are taken from the results of the transcription's own requests and not from the Runtime's listeners: others
may use the same Runtime, and even the same sessions, at the same time and from any thread.
"""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from hetero.session import Session
    from hetero.telemetry.records import Record
    from hetero.whisper.sessions import SpeechSessions


class Account:
    """Stages, devices and seconds of one transcription.

    Attributes:
        timings: Seconds of work by stage.
        devices: How many requests each device answered, by stage.
        simulated: Those of the devices that are simulators.
        fell_back: How many requests were not answered by the first choice of devices.
        passed_over: What devices did that were asked before the one that answered, and for how many requests, by stage.
    """

    def __init__(self) -> None:
        self.timings: dict[str, float] = {}
        self.devices: dict[str, dict[str, int]] = {}
        self.simulated: set[str] = set()
        self.fell_back = 0
        self.passed_over: dict[str, dict[str, int]] = {}

    @contextlib.contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Count the block's time as work of that stage."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.timings[stage] = self.timings.get(stage, 0.0) + time.perf_counter() - begun

    def add(self, stage: str, record: Record) -> None:
        """Count a request."""
        self.timings[stage] = self.timings.get(stage, 0.0) + record.total_seconds
        self.fell_back += record.fell_back
        for attempt in record.attempts:
            if attempt.outcome != "ok":
                told = self.passed_over.setdefault(stage, {})
                told[str(attempt)] = told.get(str(attempt), 0) + 1
        if record.device is not None:
            devices = self.devices.setdefault(stage, {})
            devices[record.device] = devices.get(record.device, 0) + 1
            if record.simulated:
                self.simulated.add(record.device)

    def watch(self, sessions: SpeechSessions) -> SpeechSessions:
        """The same sessions, with each request through what is returned counted here."""
        watched = copy.copy(sessions)
        for stage in ("encoder", "cross", "decoder"):
            setattr(watched, stage, cast("Session", _Watched(getattr(sessions, stage), stage, self)))
        return watched


class _Watched:
    """A session's synchronous door."""

    def __init__(self, session: Session, stage: str, account: Account) -> None:
        self._session = session
        self._stage = stage
        self._account = account

    def __call__(self, *inputs: Any) -> Any:
        result = self._session.run(*inputs)
        self._account.add(self._stage, result.record)
        return result.value
