"""The one path of a request: a lane by the policy's choice, the next device on a failure, the record of it all.

A request with nothing to time it runs in the caller's thread. Everything else, and whatever is submitted, runs in
worker threads, so that a deadline or a hung device need not take the caller down.
"""

from __future__ import annotations

import concurrent.futures
import functools
import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hetero.backend import Call
from hetero.errors import AllDevicesFailed, ClosedError, DeadlineExceeded, DeviceTimeout, FallbackForbidden, QueueFull
from hetero.scheduler.board import Assignment, Board
from hetero.scheduler.candidate import Candidate
from hetero.scheduler.request import Request
from hetero.scheduler.timers import Timer, Timers
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
    """

    max_waiting: int = 1024
    max_waiting_bytes: int = 1 << 30
    on_full: Literal["wait", "raise"] = "wait"
    timeout: float | None = None


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
                f"{program!r} could not be loaded on {candidate.name}, and fallback is forbidden", attempts
            )
    raise AllDevicesFailed(f"no device can run {program!r}", attempts, fix=_DOCTOR)


class RequestFuture(concurrent.futures.Future[Any]):
    """The future of a submitted request; `cancel` reaches a running call where the vendor can."""

    def __init__(self, interrupt: Callable[[], bool], withdrawn: Callable[[], None]) -> None:
        super().__init__()
        self._interrupt = interrupt
        self._withdrawn = withdrawn

    def cancel(self) -> bool:
        """Cancel, also a call that is running if its runtime can be interrupted.

        Returns:
            Whether the request is or will be cancelled.
        """
        if self.cancelled():
            return True
        if super().cancel():
            self._withdrawn()
            return True
        return not self.done() and self._interrupt()

    def let_go(self) -> None:
        """Forget whoever works for the request, which has ended, and could not be kept from it any more."""
        self._interrupt, self._withdrawn = _too_late, _nothing


def _too_late() -> bool:
    return False


def _nothing() -> None:
    pass


class Dispatcher:
    """Runs the requests of one session.

    Args:
        candidates: In the chain's order.
        board: Lanes and waiting requests.
        workers: Threads for what is submitted.
        timers: Deadlines and time-outs.
        records: Where finished records go.
        limits: What the session allows.
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
        self._workers = workers
        self._timers = timers
        self._records = records
        self._limits = limits
        for candidate in self.candidates:
            candidate.give_back = functools.partial(board.give_back, candidate)
            candidate.shut = functools.partial(self._shut, candidate)
        self._first_is_best = board.policy.prefers_first or len(candidates) == 1

    def call_first(self, inputs: Outputs, record: Record) -> Outputs | None:
        """Run on the first candidate if that is healthy, has a lane, and nobody waits: the way of most calls.

        Returns:
            The outputs; None when the request has to go the long way, with what the first candidate did in its record.
        """
        first = self.candidates[0]
        if not self._first_is_best or self.board.waiting or not first.usable:
            return None
        try:
            call = first.free.popleft()
        except IndexError:
            return None
        clock = self.board.clock
        started = record.arrived = clock()
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
        started = time.perf_counter()
        record = request.record
        try:
            while True:
                self.prepare(request)
                waiting = time.perf_counter()
                taken = self.board.take(request) or self._wait_here(request)
                record.wait_seconds += time.perf_counter() - waiting
                if taken is None:
                    continue
                candidate, call = taken
                if request.delivery is not None:
                    candidate.offer(call, request.delivery.arrays)
                try:
                    outputs = candidate.run(request.inputs, call, record.attempts)
                finally:
                    call.outputs = None
                    self.board.give_back(candidate, call)
                if outputs is not None:
                    return request.deliver(outputs, self.board.clock)
                self.after_failure(request, candidate)
        except BaseException as error:
            record.error = f"{type(error).__name__}: {error}"
            raise
        finally:
            record.total_seconds = time.perf_counter() - started
            self._records.add(record)

    def submit(self, request: Request, give: Callable[[Outputs], Any]) -> concurrent.futures.Future[Any]:
        """Run a request in a worker.

        Args:
            request: What to run.
            give: Makes the future's result of the outputs.

        Raises:
            QueueFull: Too many wait already, and `on_full` is `raise`.
        """
        flight = _Flight(self, request, give, self._workers, self._timers)
        flight.seek()
        return flight.future

    def close(self, reason: str) -> None:
        """Turn away whoever waits."""
        for request in self.board.close(reason):
            assert request.turned_away is not None
            request.turned_away(ClosedError(reason))

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

    def check_health(self) -> None:
        """Send a canary to each candidate whose pause is over."""
        for candidate in self.candidates:
            if candidate.ready and candidate.breaker.state == "open" and candidate.breaker.due():
                self._workers.do(functools.partial(self._canary, candidate))

    def prepare(self, request: Request) -> None:
        """See that somebody is left who can take the request; note in its record who is shut out, and why.

        Raises:
            AllDevicesFailed: Nobody is left.
            FallbackForbidden: The only candidate allowed is not.
        """
        self.check_health()
        for candidate in request.candidates:
            if candidate in request.tried:
                continue
            if candidate.loadable and not any(c.usable and c not in request.tried for c in request.candidates):
                candidate.load()
            if candidate.usable:
                return
            reason = candidate.shut_out()
            if reason is not None:
                request.tried.add(candidate)
                request.record.attempts.append(reason)
        # Rather the last device standing, though it failed a moment ago, than no answer; a hung one would take longer.
        for candidate in request.candidates:
            if candidate not in request.failed and candidate.ready and not candidate.breaker.hung:
                request.forced = candidate
                return
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
                f"{record.program!r} did not run on {name}, and fallback is forbidden", record.attempts
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

    def _canary(self, candidate: Candidate) -> None:
        candidate.answer_canary()
        if candidate.usable:
            _log.warning("%s has recovered", candidate.name)
            self.board.changed(candidate)
        else:
            self._ask_again(candidate)

    def _shut(self, candidate: Candidate) -> None:
        self.board.changed(candidate)
        self._ask_again(candidate)

    def _ask_again(self, candidate: Candidate) -> None:
        """Send a canary when the pause is over, whether or not requests come by then."""
        self._timers.at(self.board.clock() + candidate.breaker.retry_in, self.check_health)

    @property
    def timeout(self) -> float | None:
        """Seconds after which a call counts as hung."""
        return self._limits.timeout

    def finish(self, request: Request, error: BaseException | None) -> None:
        """Close a request's record."""
        record = request.record
        record.total_seconds = self.board.clock() - request.arrived
        at_work = sum(a.seconds + a.verify_seconds for a in record.attempts if a.stage == "run")
        record.wait_seconds = max(0.0, record.total_seconds - at_work)
        if error is not None:
            record.error = f"{type(error).__name__}: {error}"
        if request.recorded:
            self._records.add(record)


class _Flight:
    """A submitted request: waiting for a lane, running on one, or done. Each step is taken under its lock."""

    def __init__(
        self, dispatcher: Dispatcher, request: Request, give: Callable[[Outputs], Any], workers: Workers, timers: Timers
    ) -> None:
        self.future = RequestFuture(self._interrupt, self._withdrawn)
        self._dispatcher = dispatcher
        self._request = request
        self._give = give
        self._workers = workers
        self._timers = timers
        self._lock = threading.Lock()
        self._turn = 0
        self._running: Assignment | None = None
        self._done = False
        self._timer: Timer | None = None
        request.assigned = lambda candidate, call: workers.do(functools.partial(self._run, candidate, call))
        request.turned_away = self._finish
        request.stranded = lambda: workers.do(self.seek)
        self._deadline = None if request.deadline is None else timers.at(request.deadline, self._too_late)

    def seek(self) -> None:
        """Find a lane, at once or by waiting."""
        dispatcher, request = self._dispatcher, self._request
        try:
            dispatcher.prepare(request)
            taken = dispatcher.board.take(request)
            if taken is not None:
                self._workers.do(functools.partial(self._run, *taken))
            else:
                dispatcher.enter(request)
        except QueueFull as error:
            self._finish(error)
            raise
        except Exception as error:
            self._finish(error)

    def _run(self, candidate: Candidate, call: Call) -> None:
        dispatcher, request = self._dispatcher, self._request
        with self._lock:
            # A future that was cancelled meanwhile has its own way out: `_withdrawn`.
            if self._done or (self._turn == 0 and not self.future.set_running_or_notify_cancel()):
                started = False
            else:
                started = True
                self._turn += 1
                turn = self._turn
                self._running = (candidate, call)
                inputs = request.inputs
                if dispatcher.timeout is not None:
                    self._timer = self._timers.at(
                        dispatcher.board.clock() + dispatcher.timeout, functools.partial(self._hung, turn)
                    )
        if not started:
            dispatcher.board.give_back(candidate, call)
            return
        attempts: list[Attempt] = []
        failure: Exception | None = None
        outputs: Outputs | None = None
        try:
            outputs = candidate.run(inputs, call, attempts)
        except Exception as error:
            failure = error
        del inputs
        dispatcher.board.give_back(candidate, call)
        with self._lock:
            if self._turn != turn or self._done:
                return  # given up while it ran: somebody else answers, or has been told
            self._running = None
            if self._timer is not None:
                self._timer.cancel()
        request.record.attempts.extend(attempts)
        if failure is not None:
            self._finish(failure)
        elif outputs is not None:
            self._finish(None, outputs)
        else:
            self._go_on(candidate)

    def _go_on(self, candidate: Candidate) -> None:
        try:
            self._dispatcher.after_failure(self._request, candidate)
        except Exception as error:
            self._finish(error)
        else:
            self.seek()

    def _finish(self, error: BaseException | None, outputs: Outputs | None = None) -> None:
        with self._lock:
            if self._done:
                return
            self._done = True
        if self._deadline is not None:
            self._deadline.cancel()
        if outputs is not None:
            try:
                outputs = self._request.deliver(outputs, self._dispatcher.board.clock)
            except Exception as mismatch:
                error = mismatch
        self._dispatcher.finish(self._request, error)
        self._let_go()
        # A future that nobody has begun is begun here, so that it can be given its error.
        if not self.future.running() and not self.future.set_running_or_notify_cancel():
            return
        if error is not None:
            self.future.set_exception(error)
        else:
            assert outputs is not None
            self.future.set_result(self._give(outputs))

    def _hung(self, turn: int) -> None:
        """The call takes longer than any healthy one: leave it, and go on elsewhere."""
        given_up = self._give_up(turn)
        if given_up is None:
            return
        candidate, call = given_up
        limit = self._dispatcher.timeout or 0.0
        error = DeviceTimeout(f"no answer within {limit:g} s")
        candidate.failed(error, limit, self._request.record.attempts, call)
        _cancel(candidate, call)
        self._workers.do(functools.partial(self._go_on, candidate))

    def _too_late(self) -> None:
        request = self._request
        error = DeadlineExceeded(
            f"{request.record.program!r}: no answer within {(request.deadline or 0) - request.arrived:g} s",
            fix="allow more time, or add a faster device",
        )
        if self._dispatcher.board.leave(request):
            self._finish(error)
            return
        given_up = self._give_up(self._turn)
        if given_up is not None:
            candidate, call = given_up
            request.record.attempts.append(candidate.cancelled(call, "the deadline passed"))
            _cancel(*given_up)
        self._finish(error)

    def _interrupt(self) -> bool:
        """Cancel a running call, where the vendor can."""
        with self._lock:
            running, turn = self._running, self._turn
        if running is None or not _cancel(*running):
            return False
        if self._give_up(turn) is None:
            # It has ended in this moment: for the cancellation, or with an answer that came first.
            concurrent.futures.wait([self.future], timeout=1.0)
            return self.future.done() and isinstance(self.future.exception(), concurrent.futures.CancelledError)
        candidate, call = running
        self._request.record.attempts.append(candidate.cancelled(call, "the caller cancelled it"))
        self._finish(concurrent.futures.CancelledError())
        return True

    def _withdrawn(self) -> None:
        """The future was cancelled before it ran."""
        self._dispatcher.board.leave(self._request)
        with self._lock:
            if self._done:
                return
            self._done = True
        if self._deadline is not None:
            self._deadline.cancel()
        self._dispatcher.finish(self._request, concurrent.futures.CancelledError())
        self._let_go()

    def _let_go(self) -> None:
        self._request.let_go(self._dispatcher.board.give_back)
        self.future.let_go()

    def _give_up(self, turn: int) -> Assignment | None:
        """Take the running call's part in this request away from it."""
        with self._lock:
            running = self._running
            if self._done or running is None or self._turn != turn:
                return None
            self._turn += 1
            self._running = None
            if self._timer is not None:
                self._timer.cancel()
        return running


def _cancel(candidate: Candidate, call: Call) -> bool:
    executable = candidate.executable
    try:
        if executable is None:
            return False
        call.cancelled = True
        call.cancelled = executable.cancel(call)
        return call.cancelled
    except Exception:
        _log.exception("%s: cancelling a call failed", candidate.name)
        return False
