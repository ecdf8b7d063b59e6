"""Launches in flight: kept alive until they have ended, whoever lets go of them, at the interpreter's end too.

The vendor's library aborts the process when a run is dropped while it is in flight, and a run keeps none of its
buffers: so a launch is held here from before its start until its state says that it is over.
"""

from __future__ import annotations

import atexit
import ctypes
import threading
from collections.abc import Callable
from typing import Protocol


class Flight(Protocol):
    """A launch that holds its run, buffers and maps."""

    def over(self) -> bool:
        """Whether it has ended; never blocks."""


class Flights:
    """The launches in flight of one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._aloft: set[Flight] = set()
        self._parked: dict[Flight, Callable[[], None]] = {}

    def begin(self, flight: Flight) -> None:
        """Hold a launch from now on."""
        with self._lock:
            self._aloft.add(flight)

    def end(self, flight: Flight) -> None:
        """Let go of a launch that is over, or that was never started."""
        with self._lock:
            self._aloft.discard(flight)

    def park(self, flight: Flight, landed: Callable[[], None]) -> None:
        """Take over a launch that nobody waits for any more; `landed` is called once it was seen to be over."""
        with self._lock:
            self._parked[flight] = landed

    def sweep(self) -> None:
        """Look which of the parked launches are over, and let go of them."""
        if not self._parked:
            return
        with self._lock:
            over = [flight for flight in self._parked if flight.over()]
            landed = [self._parked.pop(flight) for flight in over]
            self._aloft.difference_update(over)
        for call in landed:
            call()

    @property
    def parked(self) -> int:
        """Launches that nobody waits for and that are not over yet."""
        return len(self._parked)

    def leave(self) -> None:
        """Make what is still in flight outlive the interpreter."""
        self.sweep()
        with self._lock:
            for flight in self._aloft:
                # A reference that is never given back: no destructor of the vendor's runs for what this one holds.
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(flight))


FLIGHTS = Flights()
atexit.register(FLIGHTS.leave)
