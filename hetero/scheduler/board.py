"""The board of a session: who waits, which lanes are free, and who gets the next one.

All lanes of all devices hang on one board, so that a request can wait for whichever device suits it first. A free lane is
taken without waking anybody; a lane that is given back goes straight to the request whose turn it is.
"""

from __future__ import annotations

import bisect
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from hetero.backend import Call
from hetero.errors import ClosedError, QueueFull

if TYPE_CHECKING:
    from hetero.scheduler.candidate import Candidate
    from hetero.scheduler.policy import Policy
    from hetero.scheduler.request import Request

Assignment = tuple["Candidate", Call]


class Board:
    """Lanes and waiting requests of one session. Safe to use from several threads.

    Args:
        policy: Says which of the candidates with a free lane a request takes, or that it waits.
        max_waiting: How many requests may wait.
        max_waiting_bytes: How many bytes of inputs may wait.
        clock: Seconds, for tests.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        max_waiting: int = 1024,
        max_waiting_bytes: int = 1 << 30,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock = clock
        self._policy = policy
        self._max_waiting = max_waiting
        self._max_bytes = max_waiting_bytes
        self._room = threading.Condition(threading.Lock())
        self._waiting: list[Request] = []
        self._bytes = 0
        self._closed = ""

    @property
    def waiting(self) -> int:
        """How many requests wait for a lane."""
        return len(self._waiting)

    def take(self, request: Request) -> Assignment | None:
        """A lane for a request at once, ahead of nobody who has waited longer; None when it has to wait."""
        with self._room:
            self._check_open()
            if self._waiting and self._waiting[0] < request:
                return None
            return self._choose(request)

    def enter(self, request: Request, wait: float | None) -> None:
        """Let a request wait; `request.assigned` is called with its lane, possibly before this returns.

        Args:
            request: Its `assigned` is set.
            wait: Seconds to wait for room in the queue; 0 raises at once when it is full, None waits for ever.

        Raises:
            QueueFull: There was no room in time.
            ClosedError: The board was closed.
        """
        nbytes = request.nbytes
        with self._room:
            self._check_open()
            if not self._fits(nbytes) and not self._room.wait_for(lambda: self._closed or self._fits(nbytes), wait):
                raise QueueFull(
                    f"{len(self._waiting)} requests ({self._bytes} bytes) wait already; at most "
                    f"{self._max_waiting} requests and {self._max_bytes} bytes may",
                    fix="send slower, wait for room (on_full='wait'), or raise max_waiting",
                )
            self._check_open()
            bisect.insort(self._waiting, request)
            self._bytes += nbytes
            ready = self._match()
        _tell(ready)

    def leave(self, request: Request) -> bool:
        """Take a request out of the queue.

        Returns:
            Whether it was still there; if not, it has a lane.
        """
        with self._room:
            if request not in self._waiting:
                return False
            self._remove(request)
            return True

    def give_back(self, candidate: Candidate, call: Call) -> None:
        """A lane is free again."""
        with self._room:
            candidate.free.append(call)
            ready = self._match() if self._waiting else ()
        _tell(ready)

    def changed(self) -> None:
        """A candidate became usable: those who wait may want it."""
        with self._room:
            ready = self._match()
        _tell(ready)

    def close(self, reason: str) -> list[Request]:
        """Turn everybody away.

        Returns:
            The requests that waited.
        """
        with self._room:
            self._closed = reason
            waiting, self._waiting, self._bytes = self._waiting, [], 0
            self._room.notify_all()
        return waiting

    def _match(self) -> list[tuple[Request, Assignment]]:
        ready: list[tuple[Request, Assignment]] = []
        for request in list(self._waiting):
            assignment = self._choose(request)
            if assignment is not None:
                self._remove(request)
                ready.append((request, assignment))
            elif not any(candidate.free for candidate in request.candidates):
                break
        return ready

    def _choose(self, request: Request) -> Assignment | None:
        options = [c for c in request.candidates if c.usable and c not in request.tried]
        chosen = self._policy.choose(request, options, self.clock())
        if chosen is None or not chosen.free:
            return None
        return chosen, chosen.free.popleft()

    def _remove(self, request: Request) -> None:
        del self._waiting[bisect.bisect_left(self._waiting, request)]
        self._bytes -= request.nbytes
        self._room.notify()

    def _fits(self, nbytes: int) -> bool:
        # A request that is larger than the bound may wait alone, else it could never run.
        return len(self._waiting) < self._max_waiting and (not self._waiting or self._bytes + nbytes <= self._max_bytes)

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(self._closed)


def _tell(ready: Sequence[tuple[Request, Assignment]]) -> None:
    # Outside the lock: what is told may come back to the board.
    for request, (candidate, call) in ready:
        assert request.assigned is not None
        request.assigned(candidate, call)
