"""A duty made into admissions: lane-seconds that come in at the duty's pace and are spent by calls."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Protocol

_BURST = 0.5
_TYPICAL_KEPT = 0.9


class Meter(Protocol):
    """Counts the work of some calls by itself, which costs them less than to tell of each."""

    def worked(self, now: float) -> tuple[float, float, int]:
        """Lane-seconds so far of the calls that run now; those of all calls that have ended; how many these are."""


class Admission:
    """The tokens of one device, in lane-seconds. Safe to use from several threads; a `hetero.backend.Pace`.

    At full duty everything is let in. Below, a call begins when there is something left, and what it takes is taken
    off: its expected time when it begins, the rest when it ends. So long calls are followed by long pauses, and over
    time the lanes work for the duty's share of it.

    Several may grant it a duty, each for itself: the least counts, for as long as who has granted it is there.

    Args:
        lanes: How many calls the device works on at once.
        clock: Seconds.

    Attributes:
        duty: The share of its time in which it may work, 0 to 1.
        stopped_at: Since when that is nothing, on the clock; None while it is something.
        told: Somebody tells of calls.
    """

    def __init__(self, lanes: int, clock: Callable[[], float]) -> None:
        self.lanes = max(1, lanes)
        self.duty = 1.0
        self.stopped_at: float | None = None
        self._clock = clock
        self._lock = threading.Lock()
        self._tokens = _BURST * self.lanes
        self._at = clock()
        self.told = False
        self._typical: float | None = None
        self._running = 0
        self._busy = 0.0
        self._busy_at = self._at
        self._used: weakref.WeakKeyDictionary[object, tuple[float, float]] = weakref.WeakKeyDictionary()
        self._since = 0.0, self._at
        self._grants: weakref.WeakKeyDictionary[object, float] = weakref.WeakKeyDictionary()
        self._meters: weakref.WeakKeyDictionary[Meter, tuple[float, float, int]] = weakref.WeakKeyDictionary()

    @property
    def tokens(self) -> float:
        """Lane-seconds that may be spent now. Takes no lock, for whoever only looks: it may be a moment old."""
        return self._filled(self._clock())

    def grant(self, duty: float, by: object = None) -> None:
        """Another duty, from now on.

        Args:
            duty: 0 to 1.
            by: Who grants it; others that grant less prevail. None speaks for all of them.
        """
        with self._lock:
            self._fill()
            duty = min(1.0, max(0.0, duty))
            for who in list(self._grants) if by is None else [by]:
                self._grants[who] = duty
            self._set(min(self._grants.values(), default=duty))

    def withdraw(self, by: object) -> None:
        """What somebody has granted counts no more; that of the others does."""
        with self._lock:
            self._fill()
            self._used.pop(by, None)
            if self._grants.pop(by, None) is not None:
                self._set(min(self._grants.values(), default=1.0))

    @property
    def grants(self) -> dict[object, float]:
        """What each has granted."""
        with self._lock:
            return dict(self._grants)

    def admits(self) -> bool:
        """Whether a call may begin now. Free of any lock at full duty."""
        return self.duty >= 1.0 or self.due_in() == 0.0

    def due_in(self) -> float:
        """Seconds until a call may begin; 0 for now, infinite at no duty at all."""
        if self.duty >= 1.0:
            return 0.0
        with self._lock:
            self._fill()
            if self.duty <= 0:
                return float("inf")
            return max(0.0, -self._tokens) / (self.duty * self.lanes) if self._tokens <= 0 else 0.0

    def began(self) -> None:
        """A call begins now."""
        with self._lock:
            self.told = True
            self._work()
            self._running += 1
            if self.duty < 1.0:
                self._fill()
                self._tokens -= self._typical or 0.0

    def ended(self, seconds: float) -> None:
        """A call has ended after so many seconds on its lane."""
        with self._lock:
            self._work()
            self._running = max(0, self._running - 1)
            if self.duty < 1.0:
                self._fill()
                self._tokens -= seconds - (self._typical or 0.0)
            typical = self._typical
            self._typical = seconds if typical is None else _TYPICAL_KEPT * typical + (1 - _TYPICAL_KEPT) * seconds

    def read(self, meter: Meter) -> None:
        """Count the work that a meter tells of, too, for as long as somebody keeps that."""
        with self._lock:
            self.told = True
            self._meters[meter] = (0.0, 0.0, 0)

    def reserve(self) -> float:
        """Take off what a metered call is expected to take, which begins now.

        Returns:
            What was taken off, for `spend`.
        """
        with self._lock:
            self._fill()
            self._count()
            reserved = self._typical or 0.0
            self._tokens -= reserved
            return reserved

    def spend(self, seconds: float) -> None:
        """Take off what a metered call has taken on top of what was reserved for it."""
        with self._lock:
            self._fill()
            self._tokens -= seconds

    def used(self, by: object = None) -> float:
        """The share of its lanes' time that was at work since this was asked last, 0 to 1.

        Args:
            by: Who asks; each has a time of its own since which it is told.
        """
        with self._lock:
            self._work()
            self._count()
            busy, at = self._since if by is None else self._used.get(by, self._since)
            passed = self._busy_at - at
            share = (self._busy - busy) / (passed * self.lanes) if passed > 0 else float(self._running > 0)
            if by is None:
                self._since = self._busy, self._busy_at
            else:
                self._used[by] = self._busy, self._busy_at
            return min(1.0, share)

    def _set(self, duty: float) -> None:
        self.duty = duty
        if duty > 0:
            self.stopped_at = None
        elif self.stopped_at is None:
            self.stopped_at = self._at

    def _fill(self) -> None:
        now = self._clock()
        self._tokens, self._at = self._filled(now), now

    def _filled(self, now: float) -> float:
        gained = self.duty * self.lanes * max(0.0, now - self._at)
        return min(_BURST * self.lanes, self._tokens + gained)

    def _count(self) -> None:
        """Take in what the meters have counted."""
        now = self._clock()
        for meter, (running, seconds, calls) in list(self._meters.items()):
            told = meter.worked(now)
            self._meters[meter] = told
            # A call that ends takes what it had worked before from those that run to those that have ended.
            self._busy += max(0.0, told[0] + told[1] - running - seconds)
            ended = told[2] - calls
            if ended > 0:
                mean, kept = (told[1] - seconds) / ended, _TYPICAL_KEPT**ended
                self._typical = mean if self._typical is None else kept * self._typical + (1 - kept) * mean

    def _work(self) -> None:
        now = self._clock()
        self._busy += self._running * max(0.0, now - self._busy_at)
        self._busy_at = now
