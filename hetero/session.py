"""Session: a program ready to run, and the doors to it. All of them lead to `dispatch`."""

from __future__ import annotations

import concurrent.futures
import contextvars
import weakref
from collections import deque
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

from hetero.errors import ClosedError, OptionError
from hetero.explain import CandidateReport, Explanation
from hetero.lifetime import keep_after_fork
from hetero.memory.arrays import PooledArray
from hetero.options import Options
from hetero.program import Program
from hetero.scheduler.batching import Batcher
from hetero.scheduler.candidate import Candidate
from hetero.scheduler.delivery import Delivery
from hetero.scheduler.dispatch import Dispatcher, Fallback
from hetero.scheduler.policy import pick
from hetero.scheduler.request import Request
from hetero.telemetry.records import Attempt, Record
from hetero.tensors import Array

if TYPE_CHECKING:
    from hetero.runtime import Runtime
    from hetero.scheduler.reserve import Reserve

Out = Array | PooledArray | Mapping[str, Array | PooledArray] | None
"""The caller's own arrays for an answer; see `Session`."""


@dataclass(frozen=True, slots=True)
class Result:
    """An answer with the record of how it came about.

    Attributes:
        outputs: The arrays by output name.
        record: Which devices were tried, and for how long.
    """

    outputs: Mapping[str, Array]
    record: Record

    @property
    def value(self) -> Any:
        """The array, when there is one output; else the outputs by name."""
        return _value(self.outputs)


class Session:
    """A program, ready on its first choice of devices. Made by `Runtime.load`; usable from any thread.

    Inputs are given as one array per input, in the program's order, or as a single mapping from input name to array.
    Arrays must have the declared dtype; numbers and lists are converted. What comes back is the array, or for a program
    of several outputs a mapping by name.

    Every door takes

    - `device`: a device or backend of this session, or several in order; all, when not given;
    - `fallback`: `"forbid"` makes the first candidate's failure an error; as set at load, when not given;
    - `priority`: higher goes first among those that wait; a step outweighs a second of waiting;
    - `deadline`: seconds from now after which the answer is of no use: a request that waits then is not started, one
      that runs is cancelled or left behind, and DeadlineExceeded is raised;
    - `options`: by backend, those of its options that may change from call to call: `{"rknn": {"core_mask": "0_1"}}`.
    - `out` (but for `map`): where the answer is to be written: an array, or arrays by output name, each C-contiguous,
      writable, of the output's dtype and shape, and apart from the inputs. What comes back is that array. It belongs
      to the request until that has ended; then nobody writes to it any more. See the page on memory.

    Attributes:
        program: What is run.
        fallback: As set at load.
    """

    def __init__(
        self,
        runtime: Runtime,
        program: Program,
        dispatcher: Dispatcher,
        batcher: Batcher | None,
        fallback: Fallback,
        loaded: Sequence[Attempt],
        policy: str,
        reserve: Reserve | None = None,
    ) -> None:
        self.program = program
        self.fallback: Fallback = fallback
        self.policy = policy
        self._runtime = runtime
        self._dispatcher = dispatcher
        self._batcher = batcher
        self._submit = batcher.submit if batcher is not None else dispatcher.submit
        self._candidates = dispatcher.candidates
        self._loaded = tuple(loaded)
        self._reserve = reserve
        self._records = runtime.records
        self._clock = dispatcher.board.clock
        self._tally = dispatcher.tally
        self._made = self._clock()
        self._plain = fallback == "allow" and dispatcher.timeout is None and batcher is None
        self._closed = ""
        # A session that is dropped without close() frees its executables too; no call can be running then.
        self._finalizer = weakref.finalize(self, _close_candidates, self._candidates, 0.0)
        self._finalizer.atexit = False

    def __call__(
        self,
        *inputs: Any,
        device: str | Sequence[str] | None = None,
        fallback: Fallback | None = None,
        priority: int = 0,
        deadline: float | None = None,
        options: Options | None = None,
        out: Out = None,
    ) -> Any:
        """Run here: in this thread, unless a deadline or the session's timeout has to be kept.

        Raises:
            InputError: The inputs do not fit the program, or the answer does not fit `out`.
            AllDevicesFailed: No device answered; `attempts` tells each one's reason.
            FallbackForbidden: The first candidate did not answer.
            DeadlineExceeded: The deadline passed.
            QueueFull: Too many requests wait already, and the session was loaded with `on_full="raise"`.
            ClosedError: The session is closed.
        """
        plain = out is None and device is None and fallback is None and deadline is None and options is None
        if plain and self._plain:
            return _value(self._run_plain(inputs, priority)[0])
        return _value(self._run(self._request(inputs, device, fallback, priority, deadline, options, out)))

    def run(
        self,
        *inputs: Any,
        device: str | Sequence[str] | None = None,
        fallback: Fallback | None = None,
        priority: int = 0,
        deadline: float | None = None,
        options: Options | None = None,
        out: Out = None,
    ) -> Result:
        """Run here and give the record with the answer. Errors as for a call."""
        plain = out is None and device is None and fallback is None and deadline is None and options is None
        if plain and self._plain:
            return Result(*self._run_plain(inputs, priority))
        request = self._request(inputs, device, fallback, priority, deadline, options, out)
        return Result(self._run(request), request.record)

    def submit(
        self,
        *inputs: Any,
        device: str | Sequence[str] | None = None,
        fallback: Fallback | None = None,
        priority: int = 0,
        deadline: float | None = None,
        options: Options | None = None,
        out: Out = None,
    ) -> concurrent.futures.Future[Any]:
        """Run in a thread of the Runtime, or in that of whoever waits for it with `result()` before one has begun it.

        The second only where neither a deadline nor the session's timeout has to be kept, and no timeout is given to
        `result()`. Inputs are checked before this returns, and must not be changed until the future is done; nor may
        `out` be used until then. Cancelling the future ends a running call where the device's runtime can be
        interrupted.

        Returns:
            A future of what a call would return.
        """
        return self._submit(self._request(inputs, device, fallback, priority, deadline, options, out), _value)

    async def arun(
        self,
        *inputs: Any,
        device: str | Sequence[str] | None = None,
        fallback: Fallback | None = None,
        priority: int = 0,
        deadline: float | None = None,
        options: Options | None = None,
        out: Out = None,
    ) -> Any:
        """Run in a thread of the Runtime while the event loop goes on. Returns what a call would."""
        import asyncio

        request = self._request(inputs, device, fallback, priority, deadline, options, out)
        try:
            return await asyncio.wrap_future(self._submit(request, _value))
        except BaseException:
            # Whoever cancels the task is told that it is over, also where the device cannot be interrupted.
            request.withdraw()
            raise

    def map(
        self,
        items: Iterable[Any],
        *,
        in_flight: int | None = None,
        ordered: bool = True,
        device: str | Sequence[str] | None = None,
        fallback: Fallback | None = None,
        priority: int = 0,
        deadline: float | None = None,
        options: Options | None = None,
    ) -> Generator[Any, None, None]:
        """Run one item after another, several at a time, and give the answers in the items' order.

        Args:
            items: For each request the array, a tuple of arrays, or a mapping by name; taken as they are needed.
            in_flight: How many requests are under way at most; by default two full launches per lane of its devices.
            ordered: False gives the answers as they are completed.
            device: As for every door.
            fallback: As for every door.
            priority: As for every door.
            deadline: As for every door, for each item by itself.
            options: As for every door.

        Yields:
            What a call with that item would return. A failed request raises here, in its turn; those not begun are
            then cancelled.
        """
        if in_flight is None:
            lanes = sum(c.executable.lanes for c in self._candidates if c.executable is not None)
            in_flight = max(2, 2 * lanes * (self._batcher.size if self._batcher is not None else 1))
        elif in_flight < 1:
            raise OptionError(f"in_flight is {in_flight}, expected at least 1")
        pending: deque[concurrent.futures.Future[Any]] = deque()
        try:
            for item in items:
                inputs = item if isinstance(item, tuple) else (item,)
                request = self._request(inputs, device, fallback, priority, deadline, options)
                pending.append(self._submit(request, _value))
                if len(pending) >= in_flight:
                    yield _next(pending, ordered).result()
            while pending:
                yield _next(pending, ordered).result()
        finally:
            for future in pending:
                future.cancel()

    @property
    def device(self) -> str | None:
        """The device that the next request goes to; None when the session is closed."""
        return next((candidate.name for candidate in self._candidates if candidate.usable), None)

    @property
    def waiting(self) -> int:
        """How many requests wait for a device now."""
        return self._dispatcher.board.waiting

    @property
    def activity(self) -> tuple[int, bool]:
        """How many runs of requests its devices have begun, and whether one goes on or waits. Takes no lock."""
        calls = [call for candidate in self._candidates for call in candidate.lanes.calls]
        return sum(call.turn for call in calls), self.waiting > 0 or any(call.started for call in calls)

    def units(self, device: str) -> Sequence[str]:
        """The part of a device that each of its lanes is on, such as the core of an NPU; empty where it has none.

        Raises:
            OptionError: The session has no such device.
        """
        candidate = pick(device, self._candidates, [(c.backend, c.name) for c in self._candidates])[0]
        return tuple(candidate.executable.units) if candidate.executable is not None else ()

    def rows(self, device: str) -> int:
        """How many rows (tiles, windows) a device takes in one launch for the price of one; 1 before it has loaded.

        Raises:
            OptionError: The session has no such device.
        """
        candidate = pick(device, self._candidates, [(c.backend, c.name) for c in self._candidates])[0]
        return candidate.executable.batch if candidate.executable is not None else 1

    def explain(self) -> Explanation:
        """The candidates, why each was or was not taken, and what ran where so far."""
        counts: dict[str, int] = {}
        for record in self._records:
            if record.program == self.program.name and record.device is not None:
                counts[record.device] = counts.get(record.device, 0) + 1
        reserve = self._reserve
        loads = {attempt.device: attempt for attempt in (*self._loaded, *(reserve.loaded if reserve else ()))}
        reports = [
            CandidateReport.of(
                candidate,
                loads.get(candidate.name),
                counts.get(candidate.name, 0),
                reserve.told(candidate.name) if reserve else "",
            )
            for candidate in self._candidates
        ]
        absent = (
            ()
            if any(c.passed_over and c.passed_over.stage == "probe" for c in self._candidates)
            else self._runtime.absent
        )
        return Explanation(
            self.program.name,
            self.device,
            self.fallback,
            self.policy,
            tuple(reports),
            tuple(map(str, absent)),
            self._records.last_of(self.program.name),
        )

    def close(self, timeout: float = 10.0) -> bool:
        """Wait for running requests, at most `timeout` seconds each, and free the executables.

        Submitted requests that wait, and those that are still running by then, end with ClosedError.

        Returns:
            Whether no request is running any more; an executable that hangs is not freed.
        """
        if self._closed:
            return True
        self._closed = "the session is closed"
        self._finalizer.detach()
        if self._reserve is not None:
            self._reserve.close()
        if self._batcher is not None:
            self._batcher.close(self._closed)
        self._dispatcher.close(self._closed)
        ended = _close_candidates(self._candidates, timeout)
        if not ended:
            self._dispatcher.abandon(f"{self._closed}; a device had not answered {timeout:g} s after that")
        self._runtime._sessions.remove(self)
        return ended

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<hetero.Session {self.program.name} on {self._closed or self.device}>"

    def _request(
        self,
        inputs: Sequence[Any],
        device: str | Sequence[str] | None,
        fallback: Fallback | None,
        priority: int,
        deadline: float | None,
        options: Options | None,
        out: Out = None,
    ) -> Request:
        if self._closed:
            self._check_open()
        feed = self.program.signature.feed(inputs)
        candidates = self._candidates
        if device is not None:
            candidates = tuple(pick(device, candidates, [(c.backend, c.name) for c in candidates]))
        forbid = (fallback or self.fallback) == "forbid"
        if deadline is not None and not deadline > 0:
            raise OptionError(f"deadline is {deadline!r}, expected seconds from now, more than 0")
        if options is not None:
            options = self._runtime.call_options(options)
        delivery = None if out is None else Delivery(out, self.program.signature, feed)
        record = Record(self.program.name)
        if self._records.wants_context:
            record.context = contextvars.copy_context()
        return self._request_of(feed, record, candidates, forbid, priority, deadline, options, delivery)

    def _request_of(
        self,
        feed: dict[str, Array],
        record: Record,
        candidates: tuple[Candidate, ...],
        forbid: bool,
        priority: int,
        deadline: float | None,
        options: Options | None = None,
        delivery: Delivery | None = None,
    ) -> Request:
        now = self._clock()
        return Request(
            feed,
            record,
            candidates[:1] if forbid else candidates,
            arrived=now,
            priority=priority,
            deadline=None if deadline is None else now + deadline,
            forbid_fallback=forbid,
            owner=self,
            options=options,
            delivery=delivery,
        )

    def _run_plain(self, inputs: Sequence[Any], priority: int) -> tuple[Mapping[str, Array], Record]:
        """With nothing asked for besides an answer; straight to the first device when that is idle."""
        if self._closed:
            self._check_open()
        feed = self.program.signature.feed(inputs)
        record = Record(self.program.name)
        outputs = self._dispatcher.call_first(feed, record)
        if outputs is None:
            request = self._request_of(feed, record, self._candidates, False, priority, None)
            if record.attempts:
                self._dispatcher.after_failure(request, self._candidates[0])
            outputs = self._dispatcher.call(request)
        return outputs, record

    def _run(self, request: Request) -> Mapping[str, Array]:
        if request.deadline is None and self._dispatcher.timeout is None and self._batcher is None:
            return self._dispatcher.call(request)
        future = self._submit(request, lambda outputs: outputs)
        try:
            outputs: Mapping[str, Array] = future.result()
        except BaseException:
            request.withdraw()  # interrupted, this thread leaves a request that goes on
            raise
        return outputs

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(
                self._closed, fix="make a new Runtime" if "fork" in self._closed else "load the program again"
            )

    def _forked(self, reason: str) -> None:
        self._closed = reason
        self._finalizer.detach()
        keep_after_fork(self)


def _close_candidates(candidates: Iterable[Candidate], timeout: float) -> bool:
    ended = [candidate.close(timeout) for candidate in candidates]
    return all(ended)


def _next(pending: deque[concurrent.futures.Future[Any]], ordered: bool) -> concurrent.futures.Future[Any]:
    if ordered:
        return pending.popleft()
    done, _ = concurrent.futures.wait(pending, return_when=concurrent.futures.FIRST_COMPLETED)
    first = next(future for future in pending if future in done)
    pending.remove(first)
    return first


def _value(outputs: Mapping[str, Array]) -> Any:
    if len(outputs) == 1:
        return next(iter(outputs.values()))
    return dict(outputs)
