"""One thread that calls back at given times: deadlines and time-outs."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable

_log = logging.getLogger(__name__)


class Timer:
    """A call that is to come; `cancel` it when it is no longer needed."""

    __slots__ = ("_callback", "at", "number")

    def __init__(self, at: float, callback: Callable[[], None], number: int) -> None:
        self.at = at
        self.number = number
        self._callback: Callable[[], None] | None = callback

    def __lt__(self, other: Timer) -> bool:
        return (self.at, self.number) < (other.at, other.number)

    def cancel(self) -> None:
        """Do not call back."""
        self._callback = None

    def fire(self) -> None:
        """Call back, unless it was cancelled or has fired."""
        callback, self._callback = self._callback, None
        if callback is not None:
            try:
                callback()
            except Exception:
                _log.exception("a timer's callback raised")


class Timers:
    """Calls back at given times, from one thread that is started on first use.

    Args:
        clock: Seconds. With a clock other than the system's no thread is started: call `run_due` yourself.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._heap: list[Timer] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition(threading.Lock())
        self._thread: threading.Thread | None = None
        self._closed = False

    def at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Have `callback` called at a time; it must be short."""
        timer = Timer(when, callback, next(self._numbers))
        with self._changed:
            heapq.heappush(self._heap, timer)
            if self._thread is None and self._clock is time.perf_counter and not self._closed:
                self._thread = threading.Thread(target=self._loop, name="hetero-timers", daemon=True)
                self._thread.start()
            elif self._heap[0] is timer:
                self._changed.notify()
        return timer

    def run_due(self) -> float | None:
        """Call back whatever is due.

        Returns:
            The time of the next call; None when there is none.
        """
        while True:
            with self._changed:
                if not self._heap or self._heap[0].at > self._clock():
                    return self._heap[0].at if self._heap else None
                timer = heapq.heappop(self._heap)
            timer.fire()

    def close(self) -> None:
        """Call nobody back any more."""
        with self._changed:
            self._closed = True
            self._heap.clear()
            self._changed.notify()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _loop(self) -> None:
        while True:
            following = self.run_due()
            with self._changed:
                if self._closed:
                    return
                if not self._heap or self._heap[0].at == following:
                    self._changed.wait(None if following is None else max(0.0, following - self._clock()))
