"""What has come of a session's requests so far: exact counts, and the last requests."""

from __future__ import annotations

import itertools
import threading
from collections import deque

from hetero.telemetry.records import Record, Records

RECENT = 512
"""How many requests of a session are remembered for rates and latencies."""

_KEPT = 20

_numbers = itertools.count(1)


class Tally:
    """Counts the requests of one session on their way to the records. Safe to use from several threads.

    A request that the first device has answered takes no lock here. Whoever reads takes none that such a request, or
    any other, would wait for.

    Args:
        records: Where finished records go on to.

    Attributes:
        number: Counts up within the process, with each session.
        recent: The last records, oldest first.
        fallbacks: The last of those that fell back, oldest first.
        heated: The last of those for which heat has decided something, oldest first.
        failed: How many ended with an error.
        cancelled: How many the caller has cancelled.
        too_late: How many have missed their deadline.
        fell_back: How many the first device did not answer.
        decided: For how many heat has decided something.
    """

    def __init__(self, records: Records) -> None:
        self.number = next(_numbers)
        self.recent: deque[Record] = deque(maxlen=RECENT)
        self.fallbacks: deque[Record] = deque(maxlen=_KEPT)
        self.heated: deque[Record] = deque(maxlen=_KEPT)
        self.failed = self.cancelled = self.too_late = self.fell_back = self.decided = 0
        self._records = records
        self._lock = threading.Lock()
        # One step of a counter is atomic where `+= 1` is not. Looking at it is a step too, and is taken off again.
        self._ended = itertools.count()
        self._count = self._ended.__next__
        self._looks = 0
        self._looking = threading.Lock()

    @property
    def heard(self) -> bool:
        """Somebody listens to the records."""
        return self._records.heard

    @property
    def ended(self) -> int:
        """How many requests have ended, however they did."""
        with self._looking:
            ended = next(self._ended) - self._looks
            self._looks += 1
            return ended

    def add(self, record: Record) -> None:
        """Count a finished record and pass it on."""
        self._count()
        self.recent.append(record)
        if record.error is not None or record.heat or len(record.attempts) != 1:
            self._note(record)
        self._records.add(record)

    def _note(self, record: Record) -> None:
        with self._lock:
            outcome = record.outcome
            self.failed += outcome == "failed"
            self.cancelled += outcome == "cancelled"
            self.too_late += outcome == "too late"
            self.fell_back += record.fell_back
            self.decided += bool(record.heat)
        if record.fell_back:
            self.fallbacks.append(record)
        if record.heat:
            self.heated.append(record)
