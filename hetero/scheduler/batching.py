"""Requests of one program put together: one launch for several callers, each of whom gets its own rows back.

A program can be batched when every input and output has the same symbolic first dimension. Requests whose other
dimensions agree are gathered until a launch is full or the first of them has waited long enough; the batch then goes
the way of any request. When it fails, each of its requests is tried by itself, so that a bad one spoils no other.
"""

from __future__ import annotations

import concurrent.futures
import functools
import logging
import math
import threading
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from hetero.errors import ClosedError, OutOfMemory
from hetero.memory.pool import Pool
from hetero.program import Program
from hetero.scheduler.dispatch import Dispatcher, Outputs
from hetero.scheduler.flight import RequestFuture, too_late
from hetero.scheduler.heat import what_held
from hetero.scheduler.request import Request
from hetero.scheduler.timers import Timer, Timers
from hetero.telemetry.records import Attempt, Record
from hetero.tensors import Array

_log = logging.getLogger(__name__)

# Smaller blocks the C library itself uses again, at a lower cost than a pool; from here on it maps new pages each time
# (glibc's largest M_MMAP_THRESHOLD), and a batch takes 1.7 times as long to put together.
_POOLED_BYTES = 32 << 20


def batch_dimension(program: Program) -> str | None:
    """The name of the first dimension that all inputs and outputs share; None when the program cannot be batched."""
    specs = [*program.inputs, *program.outputs]
    names = {spec.shape[0] if spec.shape else None for spec in specs}
    name = next(iter(names)) if len(names) == 1 else None
    # The name must stand nowhere else, or putting rows together would change what a row means.
    again = any(dim == name for spec in specs for dim in (spec.shape or ())[1:])
    return name if isinstance(name, str) and program.inputs and not again else None


class _Member:
    """One request in a batch that is being gathered, or under way."""

    def __init__(self, request: Request, give: Callable[[Outputs], Any], leave: Callable[[_Member], None]) -> None:
        self.request = request
        self.give = give
        self.rows = next(iter(request.inputs.values())).shape[0]
        self.future = RequestFuture(lambda: False, lambda: leave(self))
        self.timer: Timer | None = None
        self.batch: Request | None = None
        self.ended = False


class Batcher:
    """Gathers the requests of one session.

    Args:
        dispatcher: Takes the batches.
        program: Its padding is used for batches that are not full.
        size: Rows of a full launch.
        delay: Seconds that the first request of a batch waits for others, at most.
        timers: Tells when.
        pool: Gives the memory for large batches.
    """

    def __init__(
        self, dispatcher: Dispatcher, program: Program, size: int, delay: float, timers: Timers, pool: Pool
    ) -> None:
        self.size = size
        self._pool = pool
        self._dispatcher = dispatcher
        self._padding = program.padding
        self._delay = delay
        self._timers = timers
        self._clock = dispatcher.board.clock
        self._lock = threading.Lock()
        self._open: dict[Hashable, list[_Member]] = {}
        self._closed = ""

    def submit(self, request: Request, give: Callable[[Outputs], Any]) -> concurrent.futures.Future[Any]:
        """Put a request into a batch, or on its way alone when it fills a launch by itself.

        Raises:
            ClosedError: The session is closed.
        """
        member = _Member(request, give, self._left)
        if member.rows >= self.size or member.rows == 0 or request.options is not None:
            return self._dispatcher.submit(request, give)
        key = self._key(request)
        full: list[_Member] = []
        with self._lock:
            if self._closed:
                raise ClosedError(self._closed)
            gathered = self._open.setdefault(key, [])
            if sum(other.rows for other in gathered) + member.rows > self.size:
                full, gathered = gathered, []
                self._open[key] = gathered
            gathered.append(member)
            first = len(gathered) == 1
            complete = sum(other.rows for other in gathered) == self.size
            ready = self._open.pop(key) if complete else []
        if first and not complete:
            self._timers.at(self._clock() + self._delay, functools.partial(self._due, key, gathered))
        if request.deadline is not None:
            member.timer = self._timers.at(request.deadline, functools.partial(self._too_late, member))
        for batch in (full, ready):
            if batch:
                self._launch(batch)
        return member.future

    def close(self, reason: str) -> None:
        """Turn away whoever is still being gathered."""
        with self._lock:
            self._closed = reason
            waiting = [member for gathered in self._open.values() for member in gathered]
            self._open.clear()
        for member in waiting:
            self._fail(member, ClosedError(reason))

    def _key(self, request: Request) -> Hashable:
        shapes = tuple([shape[1:] for shape in request.shapes])
        return shapes, request.candidates, request.forbid_fallback, request.priority

    def _due(self, key: Hashable, gathered: list[_Member]) -> None:
        with self._lock:
            if self._open.get(key) is not gathered:
                return
            del self._open[key]
        self._launch(gathered)

    def _left(self, member: _Member) -> None:
        """A future was cancelled before its batch was launched."""
        self._take_out(member)
        self._end(member, (), concurrent.futures.CancelledError())

    def _take_out(self, member: _Member) -> None:
        with self._lock:
            for key, gathered in self._open.items():
                if member in gathered:
                    gathered.remove(member)
                    if not gathered:
                        del self._open[key]
                    return

    def _launch(self, gathered: list[_Member]) -> None:
        with self._lock:
            # One that has ended, for its deadline say, has let go of its inputs.
            members = [member for member in gathered if not member.ended and member.future.begin()]
            feeds = [member.request.inputs for member in members]
        if not members:
            return
        first = members[0].request
        try:
            joined = {name: self._joined([feed[name] for feed in feeds]) for name in feeds[0]}
        except (OutOfMemory, MemoryError) as error:
            _log.info("no memory for a batch of %d (%s); its requests run one by one", len(members), error)
            for member in members:
                self._alone(member)
            return
        batch = Request(
            joined,
            Record(first.record.program),
            first.candidates,
            arrived=self._clock(),
            priority=first.priority,
            forbid_fallback=first.forbid_fallback,
            owner=first.owner,
            recorded=False,
            answer_by=min((m.request.deadline for m in members if m.request.deadline is not None), default=None),
        )
        for member in members:
            member.batch = batch
        try:
            future = self._dispatcher.submit(batch, dict)
        except Exception as error:
            for member in members:
                self._fail(member, error)
        else:
            future.add_done_callback(functools.partial(self._answered, members, batch))

    def _joined(self, arrays: Sequence[Array]) -> Array:
        """The rows of all, filled up as the program says; of one alone that needs no filling, its own array."""
        rows = sum(array.shape[0] for array in arrays)
        full = rows if self._padding == "none" else max(rows, self.size)
        if len(arrays) == 1 and full == rows:
            return arrays[0]
        joined = self._memory((full, *arrays[0].shape[1:]), arrays[0].dtype)
        np.concatenate(arrays, out=joined[:rows])
        if full > rows:
            joined[rows:] = 0 if self._padding == "zeros" else arrays[-1][-1:]
        return joined

    def _memory(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        nbytes = math.prod(shape) * dtype.itemsize
        if nbytes < _POOLED_BYTES or dtype.hasobject:
            return np.empty(shape, dtype)
        # The array alone holds the memory from here on: it goes back when no run reads it any more, hung ones included.
        with self._pool.take(nbytes) as buffer:
            return buffer.array(shape, dtype)

    def _answered(self, launched: list[_Member], batch: Request, future: concurrent.futures.Future[Outputs]) -> None:
        members = list(launched)
        launched.clear()  # the future keeps it, and its error the future
        error = future.exception()
        attempts = batch.record.attempts
        for member in members:
            member.batch = None
            member.request.record.heat.extend(batch.record.heat)
        if error is not None:
            if len(members) == 1 or isinstance(error, ClosedError):
                for member in members:
                    self._fail(member, error, attempts)
                return
            _log.info("a batch of %d failed (%s); its requests are tried one by one", len(members), error)
            for member in members:
                self._alone(member)
            return
        outputs = future.result()
        row = 0
        for member in members:
            own = {name: array[row : row + member.rows] for name, array in outputs.items()}
            row += member.rows
            self._give(member, attempts, own)

    def _give(self, member: _Member, attempts: Sequence[Attempt], rows: Outputs) -> None:
        """Give a member its rows of the answer."""
        if not self._claim(member):
            return
        request = member.request
        request.record.attempts.extend(attempts)
        try:
            own = request.deliver(rows, self._clock)
            # A copy, so that one caller who keeps its rows does not keep everybody's.
            own = {name: array.copy() if array is rows[name] else array for name, array in own.items()}
        except Exception as error:
            self._dispatcher.finish(request, error)
            self._let_go(member)
            member.future.set_exception(error)
            return
        self._dispatcher.finish(request, None)
        self._let_go(member)
        member.future.set_result(member.give(own))

    def _alone(self, member: _Member) -> None:
        """Send one request of a failed batch on its way by itself; its record and deadline are then its own."""
        if not self._claim(member):
            return

        def copy(future: concurrent.futures.Future[Any]) -> None:
            error = future.exception()
            member.future.let_go()
            if error is not None:
                member.future.set_exception(error)
            else:
                member.future.set_result(future.result())

        try:
            self._dispatcher.submit(member.request, member.give).add_done_callback(copy)
        except Exception as error:
            member.future.set_exception(error)

    def _too_late(self, member: _Member) -> None:
        request = member.request
        batch = member.batch
        if batch is not None:
            request.record.heat.extend(batch.record.heat)
        error = too_late(
            request,
            "allow more time, a shorter batch_delay, or add a faster device",
            what_held(batch) if batch is not None else "",
        )
        self._take_out(member)
        self._fail(member, error)

    def _fail(self, member: _Member, error: BaseException, attempts: Sequence[Attempt] = ()) -> None:
        if not self._end(member, attempts, error):
            return
        if member.future.begin():
            member.future.set_exception(error)

    def _end(self, member: _Member, attempts: Sequence[Attempt], error: BaseException | None) -> bool:
        """Close a member's record, once: what its batch went through, it went through."""
        if not self._claim(member):
            return False
        member.request.record.attempts.extend(attempts)
        self._dispatcher.finish(member.request, error)
        self._let_go(member)
        return True

    def _let_go(self, member: _Member) -> None:
        member.request.let_go(self._dispatcher.board.give_back)
        member.future.let_go()

    def _claim(self, member: _Member) -> bool:
        """Take it upon oneself to end a member; whether nobody has done so before."""
        with self._lock:
            if member.ended:
                return False
            member.ended = True
        if member.timer is not None:
            member.timer.cancel()
        return True
