"""Pacing: no more jobs begun than the NPU can end.

The law is that of EZ RKNN Async: an exponential moving average of the time of a job, 0.95 of the old and 0.05 of the
new, and between two jobs at least the average divided by the number of cores. What comes too soon is not dropped, as
there, but waits or is refused with QueueFull, as the session was loaded.
"""

from __future__ import annotations

import time
from collections.abc import Callable

_KEPT = 0.95


class Pacing:
    """When the next job may begin; see `hetero.backend.Pace`.

    Args:
        cores: Over how many cores jobs are spread.
        clock: Seconds, for tests.
    """

    def __init__(self, cores: int, clock: Callable[[], float] = time.perf_counter) -> None:
        self._cores = cores
        self._clock = clock
        self._average: float | None = None
        self._next = 0.0

    @property
    def interval(self) -> float:
        """Seconds between two jobs; 0 until one has ended."""
        return (self._average or 0.0) / self._cores

    def took(self, seconds: float) -> None:
        """A job has ended after so many seconds in the NPU."""
        average = self._average
        self._average = seconds if average is None else _KEPT * average + (1 - _KEPT) * seconds

    def due_in(self) -> float:
        """Seconds until a job may begin."""
        return max(0.0, self._next - self._clock())

    def began(self) -> None:
        """A job begins now."""
        self._next = self._clock() + self.interval
