"""Time for a simulated NPU: real, or controlled by a test; and waiting as pyxrt does it, with the GIL held."""

from __future__ import annotations

import ctypes
import threading
import time
from typing import Protocol

# Functions of a PyDLL are called without releasing the GIL: no other thread of Python runs in the meantime.
libc_with_gil = ctypes.PyDLL(None)


class Clock(Protocol):
    """What a simulated NPU asks of time."""

    def now(self) -> float:
        """Seconds from some fixed moment."""

    def hold(self, seconds: float) -> None:
        """Wait with the GIL held: all other threads of Python stand still."""

    def pause(self, seconds: float) -> None:
        """Wait with the GIL released."""

    def polled(self) -> None:
        """Somebody asked whether a run is done, and it was not."""


class RealClock:
    """Real time: modelled seconds pass as such."""

    def now(self) -> float:
        """Seconds of the monotonic clock."""
        return time.monotonic()

    def hold(self, seconds: float) -> None:
        """Sleep in C without letting go of the GIL."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            # useconds_t has 32 bits; a signal ends the sleep early, and its Python handler runs before the next one.
            libc_with_gil.usleep(ctypes.c_uint(min(max(1, round(left * 1e6)), 1_000_000_000)))

    def pause(self, seconds: float) -> None:
        """Sleep as Python does."""
        time.sleep(seconds)

    def polled(self) -> None:
        """Real time passes by itself."""


class ControlledClock:
    """Time that stands still until it is told to pass, or until a call of the vendor's waits: then it jumps.

    Args:
        poll_seconds: What each poll of an unfinished run adds; 0 leaves all to `advance`.

    Attributes:
        held: Modelled seconds that were waited with the GIL held.
    """

    def __init__(self, poll_seconds: float = 0.0) -> None:
        self._lock = threading.Lock()
        self._now = 0.0
        self._poll_seconds = poll_seconds
        self.held = 0.0

    def now(self) -> float:
        """Modelled seconds since the clock was made."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        with self._lock:
            self._now += seconds

    def hold(self, seconds: float) -> None:
        """Let time pass, and note that the GIL would have been held."""
        with self._lock:
            self._now += seconds
            self.held += seconds

    def pause(self, seconds: float) -> None:
        """Let time pass."""
        self.advance(seconds)

    def polled(self) -> None:
        """Let as much time pass as a poll is worth."""
        if self._poll_seconds:
            self.advance(self._poll_seconds)
