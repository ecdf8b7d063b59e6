"""The one path of a request: a lane by the policy's choice, the next device on a failure, the record of it all.

A request with nothing to time it runs in the caller's thread. Everything else, and whatever is submitted, runs in
worker threads, so that a deadline or a hung device need not take the caller down.
"""

from __future__ import annotations

import concurrent.futures
import functools
import logging
import queue
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hetero.backend import NO_OPTIONS
from hetero.errors import AllDevicesFailed, ClosedError, FallbackForbidden, OptionError
from hetero.scheduler.board import Assignment, Board
from hetero.scheduler.candidate import Candidate
from hetero.scheduler.flight import Flight
from hetero.scheduler.heat import freed
from hetero.scheduler.lanes import Unit
from hetero.scheduler.request import Request
from hetero.scheduler.tally import Tally
from hetero.scheduler.timers import Timers
from hetero.scheduler.workers import Workers
from hetero.telemetry.records import Attempt, Record, Records
from hetero.tensors import Array

_log = logging.getLogger(__name__)

Fallback = Literal["allow", "forbid"]
Outputs = Mapping[str, Array]

_DOCTOR = "`hetero doctor` tells what each device needs"


@dataclass(frozen=True)
class Limits:
    """What a session allows.

    Attributes:
        max_waiting: How many requests may wait for a lane.
        max_waiting_bytes: How many bytes of inputs may wait.
        on_full: `wait` for room, or `raise` QueueFull.
        timeout: Seconds after which a call on a device counts as hung; None for never.

    Raises:
        OptionError: A value out of its range.
    """

    max_waiting: int = 1024
    max_waiting_bytes: int = 1 << 30
    on_full: Literal["wait", "raise"] = "wait"
    timeout: float | None = None

    def __post_init__(self) -> None:
        if self.max_waiting < 1 or self.max_waiting_bytes < 1:
            raise OptionError("max_waiting and max_waiting_bytes must be at least 1")
        if self.on_full not in ("wait", "raise"):
            raise OptionError(f"on_full is {self.on_full!r}, expected 'wait' or 'raise'")
        if self.timeout is not None and not self.timeout > 0:
            raise OptionError(f"timeout is {self.timeout!r}, expected seconds, more than 0")


def load_first(program: str, candidates: Sequence[Candidate], fallback: Fallback) -> list[Attempt]:
    """Load a program on the first candidate that takes it.

    Returns:
        What was tried, the last attempt being the one that loaded.

    Raises:
        AllDevicesFailed: None takes it.
        FallbackForbidden: The first does not, and `fallback` is `forbid`.
        ProgramError: The program is broken for every device.
    """
    attempts: list[Attempt] = []
    for candidate in candidates:
        attempts.append(candidate.load() or candidate.passed_over or candidate.attempt("load", "ok"))
        if candidate.ready:
            return attempts
        if fallback == "forbid":
            raise FallbackForbidden(
                f"{program!r} could not be loaded on {candidate.name}, and fallback is forbidden",
                attempts,
                fix=f"allow it, and the next device is taken; {_DOCTOR}",
            )
    raise AllDevicesFailed(f"no device can run {program!r}", attempts, fix=_DOCTOR)


class Dispatcher:
    """Runs the requests of one session.

    Args:
        candidates: In the chain's order.
        board: Lanes and waiting requests.
        workers: Threads for what is submitted.
        timers: Deadlines and time-outs.
        records: Where finished records go.
        limits: What the session allows.

    Attributes:
        flights: The submitted requests that are in a call.
        tally: What has come of the session's requests.
    """

    def __init__(
        self,
        candidates: Sequence[Candidate],
        board: Board,
        workers: Workers,
        timers: Timers,
        records: Records,
        limits: Limits,
    ) -> None:
        self.candidates = tuple(candidates)
        self.board = board
        self.flights: set[Flight] = set()
        self._workers = workers
        self._timers = timers
        self._records = self.tally = Tally(records)
        self._limits = limits
        board.later = lambda seconds, callback: timers.at(board.clock() + seconds, callback)
        for candidate in self.candidates:
            candidate.give_back = functools.partial(board.give_back, candidate)
            candidate.shut = functools.partial(self._shut, candidate)
        self._sick = {candidate for candidate in self.candidates if candidate.ready and candidate.lanes.reason}
        self._first_is_best = board.policy.prefers_first or len(candidates) == 1

    def call_first(self, inputs: Outputs, record: Record) -> Outputs | None:
        """Run on the first candidate if that is healthy, has a lane, and nobody waits: the way of most calls.

        Returns:
            The outputs; None when the request has to go the long way, with what the first candidate did in its record.
        """
        first = self.candidates[0]
        heat = first.heat
        if (
            not self._first_is_best
            or self.board.waiting
            or not first.usable
            or first.pace is not None
            or (heat is not None and heat.admission.duty < 1.0)
        ):
            return None
        call = first.lanes.take()
        if call is None:
            return None
        call.number = first.lanes.next_number()
        clock = self.board.clock
        started = record.arrived = clock()
        if heat is not None:
            heat.inside[call] = started
        try:
            outputs = first.run(inputs, call, record.attempts)
        except BaseException as error:
            record.error = f"{type(error).__name__}: {error}"
            self._records.add(record)
            raise
        finally:
            self.board.give_back(first, call)
        if outputs is not None:
            record.total_seconds = clock() - started
            self._records.add(record)
        return outputs

    def call(self, request: Request) -> Outputs:
        """Run a request in this thread.

        Raises:
            AllDevicesFailed: None answered.
            FallbackForbidden: The first did not, and the request forbids fallback.
            QueueFull: Too many wait already.
            InputError: A backend found the input to be wrong.
        """
        clock = self.board.clock
        started = clock()
        record = request.record
        try:
            while True:
                self.prepare(request)
                waiting = clock()
                taken = self.board.take(request) or self._wait_here(request)
                record.wait_seconds += clock() - waiting
                if taken is None:
                    continue
                candidate, call = taken
                if request.delivery is not None:
                    candidate.offer(call, request.delivery.arrays)
                try:
                    if request.options is not None:
                        call.options = request.options.get(candidate.backend, NO_OPTIONS)
                    outputs = candidate.run(request.inputs, call, record.attempts)
                finally:
                    call.outputs = None
                    self.board.give_back(candidate, call)
                if outputs is not None:
                    return request.deliver(outputs, clock)
                self.after_failure(request, candidate)
        except BaseException as error:
            record.error = f"{type(error).__name__}: {error}"
            raise
        finally:
            record.total_seconds = clock() - started
            self._records.add(record)

    def submit(self, request: Request, give: Callable[[Outputs], Any]) -> concurrent.futures.Future[Any]:
        """Run a request in a worker.

        Args:
            request: What to run.
            give: Makes the future's result of the outputs.

        Raises:
            QueueFull: Too many wait already, and `on_full` is `raise`.
        """
        flight = Flight(self, request, give, self._workers, self._timers)
        flight.seek()
        return flight.future

    def close(self, reason: str) -> None:
        """Turn away whoever waits."""
        for request in self.board.close(reason):
            assert request.turned_away is not None
            request.turned_away(ClosedError(reason))

    def abandon(self, reason: str) -> None:
        """End the submitted requests whose calls go on though the session is closed."""
        for flight in list(self.flights):
            flight.abandon(ClosedError(reason))

    def load_rest(self, every: bool) -> None:
        """Load, in a worker, what a warm start has left out: the first candidate that takes the program, or all."""
        for candidate in self.candidates[:-1]:
            try:
                candidate.load()
            except Exception as error:
                _log.warning("%s: loading failed: %s", candidate.name, error)
                continue
            if candidate.usable:
                self.board.changed(candidate)
                if not every:
                    return

    def heat_changed(self) -> None:
        """The governor has looked at the temperatures: others may have their turn now."""
        if self.board.waiting:
            self.board.heat_changed()
        if self._sick:
            self.check_health()

    def check_health(self) -> None:
        """Send a canary to each candidate, or unit of one, whose pause is over."""
        for candidate in list(self._sick):
            if candidate.ready and not candidate.stopped:
                for unit in candidate.lanes.due():
                    self._workers.do(functools.partial(self._canary, candidate, unit))

    def prepare(self, request: Request) -> None:
        """See that somebody is left who can take the request; note in its record who is shut out, and why.

        Raises:
            AllDevicesFailed: Nobody is left.
            FallbackForbidden: The only candidate allowed is not.
            ClosedError: The session was closed meanwhile.
        """
        if self._sick:
            self.check_health()
        elif not request.tried and request.candidates[0].usable and not request.candidates[0].stopped:
            return
        stopped = False
        for candidate in request.candidates:
            if candidate in request.tried:
                continue
            if candidate.loadable and not any(
                c.usable and not c.stopped and c not in request.tried for c in request.candidates
            ):
                candidate.load()
            if candidate.usable:
                if not candidate.stopped:
                    return
                stopped = True
                continue
            reason = candidate.shut_out()
            if reason is not None:
                request.tried.add(candidate)
                request.record.attempts.append(reason)
        if stopped:
            return
        # Rather the last device standing, though it failed a moment ago, than no answer; a hung one would take longer.
        for candidate in request.candidates:
            if candidate not in request.failed and candidate.ready and not candidate.lanes.hung:
                request.forced = candidate
                return
        self.board.check_open()
        raise self.nobody_left(request)

    def after_failure(self, request: Request, candidate: Candidate) -> None:
        """A candidate failed or refused the request: it is not asked again, and others may want its queue."""
        request.tried.add(candidate)
        request.failed.add(candidate)
        request.forced = None
        if request.forbid_fallback:
            raise self.nobody_left(request)

    def nobody_left(self, request: Request) -> AllDevicesFailed | FallbackForbidden:
        """The error for a request that no device answered."""
        record = request.record
        if request.forbid_fallback:
            name = request.candidates[0].name
            return FallbackForbidden(
                f"{record.program!r} did not run on {name}, and fallback is forbidden",
                record.attempts,
                fix=f"allow it, and the next device answers; {_DOCTOR}",
            )
        return AllDevicesFailed(f"no device answered for {record.program!r}", record.attempts, fix=_DOCTOR)

    def enter(self, request: Request) -> None:
        """Have a request wait for its lane."""
        again, request.admitted = request.admitted or bool(request.failed), True
        self.board.enter(request, None if self._limits.on_full == "wait" else 0, again=again)

    def _wait_here(self, request: Request) -> Assignment | None:
        """Wait for a lane; None when nobody is left to wait for, and it has to be seen who can take the request now."""
        lane: queue.SimpleQueue[Assignment | Exception | None] = queue.SimpleQueue()
        request.assigned = lambda candidate, call: lane.put((candidate, call))
        request.turned_away = lane.put
        request.stranded = lambda: lane.put(None)
        self.enter(request)
        given = lane.get()
        if isinstance(given, Exception):
            raise given
        return given

    def _canary(self, candidate: Candidate, unit: Unit) -> None:
        recovered = candidate.answer_canary(unit)
        if not candidate.lanes.reason:
            self._sick.discard(candidate)
            if candidate.lanes.reason:  # a failure in between must not be forgotten
                self._sick.add(candidate)
        if recovered:
            _log.warning("%s has recovered", f"{candidate.name} {unit.name}".strip())
            self.board.changed(candidate)
        else:
            self._ask_again(candidate)

    def _shut(self, candidate: Candidate) -> None:
        self._sick.add(candidate)
        self.board.changed(candidate)
        self._ask_again(candidate)

    def _ask_again(self, candidate: Candidate) -> None:
        """Send a canary when the pause is over, whether or not requests come by then."""
        self._timers.at(self.board.clock() + candidate.lanes.retry_in, self.check_health)

    @property
    def timeout(self) -> float | None:
        """Seconds after which a call counts as hung."""
        return self._limits.timeout

    def finish(self, request: Request, error: BaseException | None) -> None:
        """Close a request's record."""
        record = request.record
        if request.held_since is not None:
            freed(request, self.board.clock())
        record.total_seconds = self.board.clock() - request.arrived
        at_work = 0.0
        for attempt in record.attempts:
            if attempt.stage == "run":
                at_work += attempt.seconds + attempt.verify_seconds
        record.wait_seconds = max(0.0, record.total_seconds - at_work)
        if error is not None:
            record.error = f"{type(error).__name__}: {error}"
        if request.recorded:
            if self._records.heard:
                self._workers.pass_on()
            self._records.add(record)
