"""A circuit breaker per executable: which failures shut it, for how long, and how it comes back.

Closed: requests pass. Open: they do not, until a back-off is over. Then half-open: one canary is run, off the way of
any request; a right answer closes the breaker, anything else opens it for longer. (M. Nygard, Release It!, 2007.)
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from hetero.errors import DeviceLost, DeviceTimeout, OutOfMemory, WrongAnswer

State = Literal["closed", "open", "half-open"]


@dataclass(frozen=True)
class BreakerSettings:
    """When a breaker opens and how long it stays open.

    Attributes:
        tolerated: How many failures of a kind that may pass by itself, in a row, open it. A lost device, a time-out
            and a wrong answer open it at once.
        first_pause: Seconds until the first canary.
        longest_pause: Seconds; each failed canary doubles the pause up to this.
        jitter: Share of the pause that is drawn at random, so that several programs do not retry in step.
        wrong_answer_factor: How much longer the pause is after a wrong answer.
    """

    tolerated: int = 2
    first_pause: float = 0.5
    longest_pause: float = 60.0
    jitter: float = 0.2
    wrong_answer_factor: float = 8.0


class Breaker:
    """The health of one executable. Safe to use from several threads.

    Attributes:
        state: `closed`, `open` or `half-open`.
        reason: What opened it.
        hung: It was a time-out that opened it.

    Args:
        settings: When it opens and for how long.
        clock: Seconds, for tests.
        draw: Uniform in [0, 1), for tests.
    """

    def __init__(
        self,
        settings: BreakerSettings | None = None,
        clock: Callable[[], float] = time.perf_counter,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._settings = settings or BreakerSettings()
        self._clock = clock
        self._draw = draw
        self._lock = threading.Lock()
        self._in_a_row = 0
        self._pause = 0.0
        self._retry_at = 0.0
        self._opened = 0
        self.state: State = "closed"
        self.reason = ""
        self.hung = False

    @property
    def closed(self) -> bool:
        """Requests may pass."""
        return self.state == "closed"

    def succeeded(self) -> None:
        """A request was answered. Cheap when all is well: no lock is taken."""
        if self._in_a_row:
            with self._lock:
                self._in_a_row = 0

    def failed(self, error: BaseException, reason: str) -> bool:
        """A request, or the canary, failed.

        Returns:
            Whether the breaker is open now.
        """
        with self._lock:
            self._in_a_row += 1
            at_once = isinstance(error, DeviceLost | DeviceTimeout | WrongAnswer) and not isinstance(error, OutOfMemory)
            if self.state == "closed" and not at_once and self._in_a_row < self._settings.tolerated:
                return False
            self._open(error, reason)
            return True

    def trip(self, error: BaseException, reason: str) -> None:
        """Open, whatever would be tolerated."""
        with self._lock:
            self._open(error, reason)

    def due(self) -> bool:
        """Whether the caller is to run the canary now. True for one caller per pause: the breaker is then half-open."""
        if self.state != "open" or self._clock() < self._retry_at:
            return False
        with self._lock:
            if self.state != "open" or self._clock() < self._retry_at:
                return False
            self.state = "half-open"
            return True

    def recovered(self) -> None:
        """The canary was answered rightly: requests pass again."""
        with self._lock:
            self.state, self.reason, self._in_a_row, self._opened = "closed", "", 0, 0

    @property
    def retry_in(self) -> float:
        """Seconds until the next canary; 0 when none is waited for."""
        return max(0.0, self._retry_at - self._clock()) if self.state == "open" else 0.0

    def _open(self, error: BaseException, reason: str) -> None:
        settings = self._settings
        self._opened += 1
        pause = min(settings.first_pause * 2 ** (self._opened - 1), settings.longest_pause)
        if isinstance(error, WrongAnswer):
            pause *= settings.wrong_answer_factor
        pause *= 1 + settings.jitter * (2 * self._draw() - 1)
        self._retry_at = self._clock() + pause
        self.state, self.reason, self.hung = "open", reason, isinstance(error, DeviceTimeout)
