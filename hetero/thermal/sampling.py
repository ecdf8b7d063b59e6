"""A thread that has a governor look at the machine once a second."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from hetero.thermal.governor import Governor

_log = logging.getLogger(__name__)

_SYSTEM = (time.monotonic, time.perf_counter)


class Sampler:
    """Ticks a governor, in a thread of its own that is started on `start`. A context manager.

    Args:
        governor: What is ticked.
        interval: Seconds between two ticks.
        clock: Seconds. With a clock other than one of the system's no thread is started: call `run_due` yourself.

    Attributes:
        ticks: How many there were.
    """

    def __init__(self, governor: Governor, interval: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.ticks = 0
        self._governor = governor
        self._interval = interval
        self._clock = clock
        self._next = clock()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> Sampler:
        """Begin. A second call does nothing."""
        if self._thread is None and self._clock in _SYSTEM and not self._stopped.is_set():
            self._thread = threading.Thread(target=self._loop, name="hetero-thermal", daemon=True)
            self._thread.start()
        return self

    def run_due(self) -> float:
        """Tick if it is time to.

        Returns:
            Seconds until the next tick.
        """
        now = self._clock()
        if now >= self._next:
            # A machine that slept, or a sensor that took long, is not made up for.
            self._next = max(self._next + self._interval, now)
            try:
                self._governor.tick()
            except Exception:
                # A governor that dies would leave every device at its last duty for ever.
                _log.exception("sampling the machine's heat failed; it goes on")
            self.ticks += 1
        return max(0.0, self._next - self._clock())

    def stop(self) -> None:
        """Have the thread end, without waiting for it, which may hang in a sensor's driver."""
        self._stopped.set()

    def close(self, timeout: float | None = None) -> None:
        """End the thread, then the governor.

        Args:
            timeout: Seconds to wait for the thread, which may hang in a sensor's driver; None for as long as it takes.
        """
        self.stop()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)
        self._governor.close()

    def __enter__(self) -> Sampler:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _loop(self) -> None:
        while not self._stopped.wait(self.run_due()):
            pass
