"""A submitted request on its way: waiting for a lane, running on one, or done."""

from __future__ import annotations

import concurrent.futures
import functools
import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hetero.backend import NO_OPTIONS, Call
from hetero.errors import DeadlineExceeded, DeviceTimeout, QueueFull
from hetero.scheduler.board import Assignment
from hetero.scheduler.candidate import Candidate
from hetero.scheduler.heat import what_held
from hetero.scheduler.request import Request
from hetero.scheduler.timers import Timer, Timers
from hetero.scheduler.workers import Workers
from hetero.telemetry.records import Attempt

if TYPE_CHECKING:
    from hetero.scheduler.dispatch import Dispatcher, Outputs

_log = logging.getLogger(__name__)


class RequestFuture(concurrent.futures.Future[Any]):
    """The future of a submitted request; `cancel` reaches a running call where the vendor can."""

    def __init__(
        self,
        interrupt: Callable[[], bool],
        withdrawn: Callable[[], None],
        help_out: Callable[[], bool] | None = None,
        before_callbacks: Callable[[], None] | None = None,
    ) -> None:
        super().__init__()
        self._interrupt = interrupt
        self._withdrawn = withdrawn
        self._help_out = help_out
        self._before_callbacks = before_callbacks
        self._beginning = threading.Lock()
        self._begun: bool | None = None

    def begin(self) -> bool:
        """Begin the request, or tell those who wait that it was cancelled; whoever comes second learns what came of it.

        Returns:
            Whether it goes on; False when it was cancelled.
        """
        with self._beginning:
            if self._begun is None:
                self._begun = self.set_running_or_notify_cancel()
            return self._begun

    def add_done_callback(self, fn: Callable[[concurrent.futures.Future[Any]], object]) -> None:
        """See `concurrent.futures.Future.add_done_callback`."""
        before = self._before_callbacks
        if before is None:
            super().add_done_callback(fn)
            return

        def call(future: concurrent.futures.Future[Any]) -> None:
            before()
            fn(future)

        super().add_done_callback(call)

    def result(self, timeout: float | None = None) -> Any:
        """The answer, waited for; see `concurrent.futures.Future.result`.

        A request that has its lane and was not begun is run here, by whoever would only wait for it: that saves two
        changes of thread (as `Task.Wait` of .NET does, and the joins of work-stealing pools). Only where nothing has to
        be timed, since a call that hangs would hang its caller.
        """
        help_out = self._help_out
        if timeout is None and help_out is not None:
            while help_out():
                pass
        return super().result(timeout)

    def cancel(self) -> bool:
        """Cancel, also a call that is running if its runtime can be interrupted.

        Returns:
            Whether the request is or will be cancelled.
        """
        if self.cancelled():
            return True
        if super().cancel():
            self.begin()
            self._withdrawn()
            return True
        return not self.done() and self._interrupt()

    def let_go(self) -> None:
        """Forget whoever works for the request, which has ended, and could not be kept from it any more."""
        self._interrupt, self._withdrawn, self._help_out = _too_late, _nothing, None


def too_late(request: Request, fix: str, held: str = "") -> DeadlineExceeded:
    """The error for a request whose deadline has passed, which names the heat where that held it back.

    Args:
        request: Whose.
        fix: What helps where it was not heat.
        held: What held it back; what its record says, when empty.
    """
    told = f"{request.record.program!r}: no answer within {(request.deadline or 0) - request.arrived:g} s"
    held = held or what_held(request)
    if not held:
        return DeadlineExceeded(told, fix=fix)
    return DeadlineExceeded(
        f"{told}: {held}", fix="allow more time or another device, or cool the machine; `hetero thermal` shows its heat"
    )


def _too_late() -> bool:
    return False


def _nothing() -> None:
    pass


class Flight:
    """A submitted request: waiting for a lane, running on one, or done. Each step is taken under its lock."""

    def __init__(
        self, dispatcher: Dispatcher, request: Request, give: Callable[[Outputs], Any], workers: Workers, timers: Timers
    ) -> None:
        untimed = request.deadline is None and dispatcher.timeout is None
        help_out = self._run_assigned if untimed else None
        self.future = RequestFuture(self._interrupt, self._withdrawn, help_out, workers.pass_on)
        self._dispatcher = dispatcher
        self._request = request
        self._give = give
        self._workers = workers
        self._timers = timers
        self._lock = threading.Lock()
        self._turn = 0
        self._lane_turn = 0
        self._assigned: Assignment | None = None
        self._running: Assignment | None = None
        self._done = False
        self._timer: Timer | None = None
        request.assigned = self._begin
        request.turned_away = self._finish
        request.stranded = self._seek_later
        self._deadline = None if request.deadline is None else timers.at(request.deadline, self._too_late)

    def seek(self) -> None:
        """Find a lane, at once or by waiting."""
        dispatcher, request = self._dispatcher, self._request
        try:
            dispatcher.prepare(request)
            # Where others wait, a lane comes by queueing; to try for one first would only cost each of a burst time.
            taken = None if dispatcher.board.waiting else dispatcher.board.take(request)
            if taken is not None:
                self._begin(*taken)
            else:
                dispatcher.enter(request)
        except QueueFull as error:
            self._finish(error)
            raise
        except Exception as error:
            self._finish(error)

    def _seek_later(self) -> None:
        self._workers.do(self.seek)

    def _begin(self, candidate: Candidate, call: Call) -> None:
        """The request has a lane: have it run in a worker, or by whoever waits for it, whichever comes first."""
        self._assigned = (candidate, call)
        self._workers.do(self._run_assigned)

    def _run_assigned(self) -> bool:
        """Run on the lane that was assigned.

        Returns:
            Whether there was one; if not, somebody else has taken that on.
        """
        with self._lock:
            assigned, self._assigned = self._assigned, None
        if assigned is None:
            return False
        self._run(*assigned)
        return True

    def _run(self, candidate: Candidate, call: Call) -> None:
        request = self._request
        with self._lock:
            # A future that was cancelled meanwhile has its own way out: `_withdrawn`.
            if self._done or not self.future.begin():
                started = False
            else:
                started = True
                self._turn += 1
                turn = self._turn
                self._running = (candidate, call)
                self._dispatcher.flights.add(self)
                self._lane_turn = call.turn + 1
                inputs = request.inputs
                if self._dispatcher.timeout is not None:
                    self._timer = self._timers.at(
                        self._dispatcher.board.clock() + self._dispatcher.timeout, functools.partial(self._hung, turn)
                    )
        if not started:
            self._dispatcher.board.give_back(candidate, call)
            return
        attempts: list[Attempt] = []
        failure: BaseException | None = None
        outputs: Outputs | None = None
        try:
            if request.options is not None:
                call.options = request.options.get(candidate.backend, NO_OPTIONS)
            outputs = candidate.run(inputs, call, attempts)
        except BaseException as error:
            failure = error
        del inputs
        self._dispatcher.flights.discard(self)
        workers = self._workers
        if outputs is not None:
            workers.keep_next(True)
            self._dispatcher.board.give_back(candidate, call)
            workers.keep_next(False)
        else:
            self._dispatcher.board.give_back(candidate, call)
        with self._lock:
            given_up = self._turn != turn or self._done
            if not given_up:
                self._running = None
                if self._timer is not None:
                    self._timer.cancel()
        if not given_up:  # else somebody else answers, or has been told
            request.record.attempts.extend(attempts)
            if failure is not None:
                self._finish(failure)
            elif outputs is not None:
                self._finish(None, outputs)
            else:
                self._go_on(candidate)
        try:
            if failure is not None and not isinstance(failure, Exception):
                raise failure  # KeyboardInterrupt and the like, in a thread that has helped out
        finally:
            # Its traceback has this frame, and with it the answer that another device may have given meanwhile.
            failure = None

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
        # A future that nobody has begun is begun here, so that it can be given its error.
        begun = self.future.begin()
        if not begun:
            error = concurrent.futures.CancelledError()
        elif outputs is not None:
            try:
                outputs = self._request.deliver(outputs, self._dispatcher.board.clock)
            except Exception as mismatch:
                error = mismatch
        self._dispatcher.finish(self._request, error)
        self._let_go()
        if begun and error is not None:
            self.future.set_exception(error)
        elif begun:
            assert outputs is not None
            self.future.set_result(self._give(outputs))

    def _hung(self, turn: int) -> None:
        """The call takes longer than any healthy one: leave it, and go on elsewhere."""
        limit = self._dispatcher.timeout or 0.0
        with self._lock:
            running, lane_turn = self._running, self._lane_turn
            if running is not None and self._turn == turn and not running[1].started:
                # It has not begun, or the device has answered and the answer is being checked.
                at = self._dispatcher.board.clock() + limit
                self._timer = self._timers.at(at, functools.partial(self._hung, turn))
                return
        given_up = self._give_up(turn)
        if given_up is None:
            return
        candidate, call = given_up
        error = DeviceTimeout(f"no answer within {limit:g} s")
        candidate.failed(error, limit, self._request.record.attempts, call)
        candidate.cancel(call, lane_turn)
        self._workers.do(functools.partial(self._go_on, candidate))

    def _too_late(self) -> None:
        request = self._request
        error = too_late(request, "allow more time, or add a faster device")
        if self._dispatcher.board.leave(request):
            self._finish(error)
            return
        self._leave("the deadline passed")
        self._finish(error)

    def abandon(self, error: Exception) -> None:
        """End the request, whose session is closed, though its call goes on."""
        self._leave("the session was closed")
        self._finish(error)

    def _leave(self, reason: str) -> None:
        """Leave a call that may be running, and have it end where the vendor can."""
        with self._lock:
            turn, lane_turn = self._turn, self._lane_turn
        given_up = self._give_up(turn)
        if given_up is not None:
            candidate, call = given_up
            self._request.record.attempts.append(candidate.cancelled(call, reason))
            candidate.cancel(call, lane_turn)

    def _interrupt(self) -> bool:
        """Cancel a running call, where the vendor can."""
        with self._lock:
            running, turn, lane_turn = self._running, self._turn, self._lane_turn
        if running is None or not running[0].cancel(running[1], lane_turn):
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
