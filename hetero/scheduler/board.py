"""The board of a session: who waits, which lanes are free, and who gets the next one.

All lanes of all devices hang on one board. A free lane is taken without waking anybody. A request that has to wait is
queued for the device that the policy plans for it, or for whichever is free first; a lane that is given back goes
straight to the request whose turn it is, and a device with nothing queued helps out where it would end one sooner.
Heat may hold a request back, or send it elsewhere than the policy did; see `heat`.
"""

from __future__ import annotations

import bisect
import functools
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from hetero.backend import Call
from hetero.errors import ClosedError, QueueFull
from hetero.scheduler import heat

if TYPE_CHECKING:
    from hetero.scheduler.candidate import Candidate
    from hetero.scheduler.policy import Policy
    from hetero.scheduler.request import Request

_LOOK = 64

Assignment = tuple["Candidate", Call]


class Board:
    """Lanes and waiting requests of one session. Safe to use from several threads.

    Args:
        policy: Says which of the candidates with a free lane a request takes, or that it waits.
        max_waiting: How many requests may wait.
        max_waiting_bytes: How many bytes of inputs may wait.
        clock: Seconds, for tests.

    Attributes:
        waiting: How many requests wait for a lane.
        later: Has something done after some seconds; the board serves a device with it whose pace held a call back.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        max_waiting: int = 1024,
        max_waiting_bytes: int = 1 << 30,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.clock = clock
        self.policy = policy
        self._max_waiting = max_waiting
        self._max_bytes = max_waiting_bytes
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._queues: dict[Candidate | None, list[Request]] = {}
        self.waiting = 0
        self.later: Callable[[float, Callable[[], None]], object] = lambda seconds, callback: None
        self._held: set[Candidate] = set()
        self._bytes = 0
        self._closed = ""

    def take(self, request: Request) -> Assignment | None:
        """A lane for a request at once, unless somebody waits who comes before it; None when it has to wait."""
        with self._lock:
            self.check_open()
            return None if self._waits_before(request) else self._assign(request)

    def enter(self, request: Request, wait: float | None, *, again: bool = False) -> None:
        """Let a request wait; `request.assigned` is called with its lane, possibly before this returns.

        Args:
            request: Its `assigned` is set.
            wait: Seconds to wait for room in the queue; 0 raises at once when it is full, None waits for ever.
            again: It had been let in before, and a device has failed it: there is always room.

        Raises:
            QueueFull: There was no room in time, or the pace of the device that the policy chose holds it back and it
                is not to wait.
            ClosedError: The board was closed.
        """
        nbytes = request.nbytes
        with self._room:
            self.check_open()
            if (
                not again
                and not self._fits(nbytes)
                and not self._room.wait_for(lambda: self._closed or self._fits(nbytes), wait)
            ):
                raise QueueFull(
                    f"{self.waiting} requests ({self._bytes} bytes) wait already; at most "
                    f"{self._max_waiting} requests and {self._max_bytes} bytes may",
                    fix="send slower, wait for room (on_full='wait'), or raise max_waiting",
                )
            self.check_open()
            # A lane may be free that those before it were not told of yet: it is theirs, see below.
            assignment = self._assign(request, may_take=not self._waits_before(request))
            if assignment is None and wait == 0 and not again:
                self._refuse_paced(request)
            stranded = [request] if assignment is None and self._hopeless(request) else []
            ready: list[tuple[Request, Assignment]] = []
            if stranded:
                self._unplan(request)
            elif assignment is None:
                bisect.insort(self._queues.setdefault(request.planned, []), request)
                self.waiting += 1
                self._bytes += nbytes
                # A lane that was given back before `waiting` was raised has woken nobody.
                ready = [
                    found for candidate in request.candidates if candidate.free for found in self._serve(candidate)
                ]
                self._hold(request)
            else:
                ready = [(request, assignment)]
        _tell(ready, stranded)

    def leave(self, request: Request) -> bool:
        """Take a request out of the queue.

        Returns:
            Whether it was still there; if not, it has a lane.
        """
        with self._room:
            queue = self._queues.get(request.planned, [])
            place = bisect.bisect_left(queue, request)
            if place == len(queue) or queue[place] is not request:
                return False
            self._remove(queue, place)
            return True

    def give_back(self, candidate: Candidate, call: Call) -> None:
        """A lane is free again. Takes no lock while nobody waits."""
        if candidate.heat is not None:
            candidate.heat.ended(call, 0.0)  # of a call that has not begun after all
        candidate.lanes.give_back(call)
        if self.waiting:
            with self._room:
                ready = self._serve(candidate)
            _tell(ready)

    def changed(self, candidate: Candidate) -> None:
        """A candidate became usable, or is no longer: plan anew for those who wait."""

        def prepare(request: Request) -> None:
            # Whoever was to be asked for want of a better one may have hung meanwhile, or have company.
            request.forced = None
            if candidate.usable and candidate not in request.failed:
                # It was passed over when the request came; now it may have it.
                request.tried.discard(candidate)

        self._plan_anew(prepare)

    def heat_changed(self) -> None:
        """The governor has looked at the temperatures: plan anew for those who wait, if heat has a part in that."""
        with self._room:
            concerned = any(
                request.held_since is not None or any(candidate.hot for candidate in request.candidates)
                for queue in self._queues.values()
                for request in queue
            )
        if concerned:
            self._plan_anew(lambda request: None)

    def _plan_anew(self, prepare: Callable[[Request], None]) -> None:
        stranded: list[Request] = []
        with self._room:
            waiting = sorted(request for queue in self._queues.values() for request in queue)
            self._queues.clear()
            for request in waiting:
                self._unplan(request)
                prepare(request)
            ready: list[tuple[Request, Assignment]] = []
            for request in waiting:
                assignment = self._assign(request)
                if assignment is not None:
                    self.waiting -= 1
                    self._bytes -= request.nbytes
                    ready.append((request, assignment))
                elif self._hopeless(request):
                    self.waiting -= 1
                    self._bytes -= request.nbytes
                    self._unplan(request)
                    stranded.append(request)
                else:
                    bisect.insort(self._queues.setdefault(request.planned, []), request)
                    self._hold(request)
            self._room.notify_all()
        _tell(ready, stranded)

    def close(self, reason: str) -> list[Request]:
        """Turn everybody away.

        Returns:
            The requests that waited.
        """
        with self._room:
            self._closed = reason
            waiting = sorted(request for queue in self._queues.values() for request in queue)
            self._queues, self.waiting, self._bytes = {}, 0, 0
            self._room.notify_all()
        return waiting

    def _waits_before(self, request: Request) -> bool:
        """Somebody waits who comes before the request."""
        return bool(self.waiting) and any(queue and queue[0] < request for queue in self._queues.values())

    def check_open(self) -> None:
        """Raise ClosedError when the board was closed."""
        if self._closed:
            raise ClosedError(self._closed)

    def _assign(self, request: Request, may_take: bool = True) -> Assignment | None:
        """A free lane by the policy's choice, if it may have one; else the plan is noted in it."""
        first, chosen = request.candidates[0], request.forced
        if chosen is None and self.policy.prefers_first and not request.tried and first.usable and first.idle:
            chosen = first
        if chosen is None:
            chosen = self.policy.choose(request, _usable(request), self.clock())
        chosen, held = self._after_heat(request, chosen)
        if request.held_since is not None and not held:
            heat.freed(request, self.clock())
        call = chosen.take() if chosen is not None and may_take and not held else None
        if chosen is not None and call is not None:
            return chosen, call
        request.planned = chosen
        if chosen is not None:
            request.planned_seconds = chosen.expected(request) or 0.0
            chosen.backlog += request.planned_seconds
        return None

    def _after_heat(self, request: Request, chosen: Candidate | None) -> tuple[Candidate | None, bool]:
        """The policy's choice, or where heat sends the request; and whether heat holds it back there."""
        if chosen is None:
            options = _usable(request)
            if options and all(candidate.stopped for candidate in options):
                chosen = options[0]  # whoever waits for any device would wait for none
            else:
                idle = [candidate for candidate in options if candidate.idle]
                return None, bool(idle) and heat.hold(request, idle, self.clock())
        if not chosen.hot:
            return chosen, False
        return heat.settle(request, chosen, [chosen] if request.forced is not None else _usable(request), self.clock())

    def _hopeless(self, request: Request) -> bool:
        """Nobody is left whose lane it could get; or heat stops them all, and another one can be loaded."""
        if request.forced is not None:
            return False
        usable = _usable(request)
        return all(c.stopped and not heat.is_last_resort(request, c) for c in usable) and (
            not usable or any(c.loadable and c not in request.tried for c in request.candidates)
        )

    def _serve(self, candidate: Candidate) -> list[tuple[Request, Assignment]]:
        ready: list[tuple[Request, Assignment]] = []
        while True:
            # The lane first: calls that take the short way past the board, and canaries, take lanes without its lock.
            pace = candidate.pace
            call = candidate.lanes.take() if pace is None or pace.due_in() <= 0 else None
            if call is None:
                if pace is not None:
                    self._serve_later(candidate)
                return ready
            found = self._next_for(candidate) or self._help_out(candidate)
            if found is None:
                candidate.lanes.give_back(call)
                if candidate.hot:
                    self._look_again(candidate)
                return ready
            queue, place = found
            request = queue[place]
            self._remove(queue, place)
            if request.held_since is not None or candidate.hot:
                heat.begins(request, candidate, self.clock())
            candidate.begins(call)
            ready.append((request, (candidate, call)))

    def _refuse_paced(self, request: Request) -> None:
        """Refuse a request that comes before the pace of its device lets the next call begin."""
        chosen = [request.planned] if request.planned else [c for c in request.candidates if _may_take(c, request)]
        seconds = [candidate.paced for candidate in chosen]
        if not seconds or min(seconds) <= 0:
            return
        self._unplan(request)
        raise QueueFull(
            f"{chosen[0].name} is paced: the next request may come in {min(seconds) * 1e3:.3g} ms",
            fix="send slower, or let requests wait (on_full='wait')",
        )

    def _hold(self, request: Request) -> None:
        """See that a request is served whose device has a lane for it and only keeps its pace."""
        for candidate in request.candidates:
            if candidate.pace is not None and candidate.free:
                self._serve_later(candidate)
        if request.held_since is not None:
            for candidate in request.candidates if request.planned is None else (request.planned,):
                if candidate.hot:
                    self._look_again(candidate)

    def _look_again(self, candidate: Candidate) -> None:
        """Serve a device again when heat lets the next of those who wait for it begin."""
        if candidate in self._held:
            return
        now = self.clock()
        times = [
            heat.look_again_in(request, candidate, now)
            for key in (candidate, None)
            for request in self._queues.get(key, [])
            if _may_take(candidate, request)
        ]
        seconds = min((time for time in times if time is not None), default=None)
        if seconds is not None:
            self._held.add(candidate)
            self.later(seconds, functools.partial(self._serve_held, candidate))

    def _serve_later(self, candidate: Candidate) -> None:
        seconds = candidate.paced
        if seconds > 0 and candidate not in self._held and self.waiting:
            self._held.add(candidate)
            self.later(seconds, functools.partial(self._serve_held, candidate))

    def _serve_held(self, candidate: Candidate) -> None:
        with self._room:
            self._held.discard(candidate)
            ready = [] if candidate.stopped else self._serve(candidate)
        _tell(ready)
        if candidate.stopped:
            self.heat_changed()  # who has waited long enough for it may go elsewhere

    def _next_for(self, candidate: Candidate) -> tuple[list[Request], int] | None:
        """The first of those who wait for this candidate or for any."""
        best: tuple[list[Request], int] | None = None
        for key in (candidate, None):
            queue = self._queues.get(key, [])
            place = next((i for i, request in enumerate(queue) if self._may_begin(candidate, request)), None)
            if place is not None and (best is None or queue[place] < best[0][best[1]]):
                best = queue, place
        return best

    def _help_out(self, candidate: Candidate) -> tuple[list[Request], int] | None:
        """A request planned for another candidate that this one would finish sooner."""
        if not self.policy.helps_out or not candidate.usable:
            return None
        now = self.clock()
        for other, queue in self._queues.items():
            if other is None or other is candidate:
                continue
            # From the end of the queue: those have the longest wait ahead, and nobody is overtaken on the other device.
            for place in range(len(queue) - 1, max(-1, len(queue) - 1 - _LOOK), -1):
                request = queue[place]
                if candidate not in request.candidates or candidate in request.tried:
                    continue
                if request.held_since is not None:  # where it goes is for heat to say
                    continue
                if candidate.hot and not candidate.admits(request):
                    continue
                here, there = candidate.expected(request), other.wait(now)
                if here is not None and there is not None and here < there:
                    return queue, place
        return None

    def _may_begin(self, candidate: Candidate, request: Request) -> bool:
        return _may_take(candidate, request) and (not candidate.hot or candidate.admits(request))

    def _remove(self, queue: list[Request], place: int) -> None:
        request = queue.pop(place)
        self._unplan(request)
        self.waiting -= 1
        self._bytes -= request.nbytes
        self._room.notify()

    def _unplan(self, request: Request) -> None:
        if request.planned is not None:
            request.planned.backlog = max(0.0, request.planned.backlog - request.planned_seconds)
            request.planned = None

    def _fits(self, nbytes: int) -> bool:
        # A request that is larger than the bound may wait alone, else it could never run.
        return self.waiting < self._max_waiting and (not self.waiting or self._bytes + nbytes <= self._max_bytes)


def _usable(request: Request) -> list[Candidate]:
    return [candidate for candidate in request.candidates if candidate.usable and candidate not in request.tried]


def _may_take(candidate: Candidate, request: Request) -> bool:
    if request.forced is not None:
        return request.forced is candidate
    return candidate.usable and candidate in request.candidates and candidate not in request.tried


def _tell(ready: Sequence[tuple[Request, Assignment]], stranded: Sequence[Request] = ()) -> None:
    # Outside the lock: what is told may come back to the board.
    for request in stranded:
        assert request.stranded is not None
        request.stranded()
    for request, (candidate, call) in ready:
        assert request.assigned is not None
        request.assigned(candidate, call)
