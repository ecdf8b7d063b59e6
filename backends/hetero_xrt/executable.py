"""A tile kernel as an executable: any number of tiles, in full launches, several of them in flight, all polled."""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal

from hetero.backend import (
    Call,
    DeviceLost,
    DeviceTimeout,
    ExecutionError,
    PolledExecutable,
    Program,
    Ticket,
    Unsupported,
)
from hetero.errors import ClosedError
from hetero.tensors import Array
from hetero_xrt.flow import Launch
from hetero_xrt.instructions import IN_TURN, columns_in_turn
from hetero_xrt.layout import Tiles
from hetero_xrt.manifest import Manifest
from hetero_xrt.pool import LaunchPool, PoolCache
from hetero_xrt.weights import Weights

Pipeline = Literal["auto", "contexts", "threads", "off"]
THREADS = 4
_PAUSE = 50e-6


class TileExecutable(PolledExecutable):
    """A tile kernel on the NPU.

    A request is cut into launches. Those that find a place are in flight at once, in whichever contexts there are; the
    thread that polls the request copies the next tiles in, and answers out, while they run. Calls on several lanes
    share the places evenly.

    Args:
        cache: Gives the contexts.
        manifest: The kernel.
        program: What it is run for.
        pipeline: `auto`, `contexts`, `threads` or `off`; see docs: xrt.
        columns: That the NPU has.
        contexts: How many; None for as many as find columns of their own.
        in_flight: Launches in each context at once.
        timeout: Seconds after which a launch is given up.
        details: What is known beside.
    """

    def __init__(
        self,
        cache: PoolCache,
        manifest: Manifest,
        program: Program,
        *,
        pipeline: Pipeline = "auto",
        columns: int = 4,
        contexts: int | None = None,
        in_flight: int = 2,
        timeout: float = 10.0,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        self._cache = cache
        self._manifest = manifest
        self._identity = program.identity
        self._tiles = Tiles(manifest, program)
        if manifest.columns > columns:
            raise Unsupported(
                f"{manifest.path} takes {manifest.columns} columns, the NPU has {columns}",
                fix=f"build the kernel for {columns} columns or fewer",
            )
        self._timeout = timeout
        self._lock = threading.Lock()
        # Weak, so that a request that nobody waits for any more is found out at once.
        self._running: weakref.WeakValueDictionary[int, _Request] = weakref.WeakValueDictionary()
        wanted = 1 if pipeline == "off" or not cache.flow.contextual else contexts or columns // manifest.columns
        self._shape = {
            "contexts": wanted,
            "in_flight": 1 if pipeline in ("off", "threads") else in_flight,
            "strict": pipeline == "contexts",
        }
        self._held: tuple[Hashable, LaunchPool] | None = self._borrowed()
        pool = self._held[1]
        self._workers = ThreadPoolExecutor(THREADS, "hetero-xrt") if pipeline == "threads" else None
        made = len(pool.contexts)
        self.lanes = made * self._shape["in_flight"]
        # What goes out at once costs no more than one launch.
        self.batch = self._tiles.per_launch * made
        each = f"{manifest.columns} column{'s' if manifest.columns > 1 else ''}"
        self.details = {
            "kernel": str(manifest.path),
            "flow": cache.flow.way,
            "pipeline": "threads" if self._workers else "off" if pipeline == "off" else "contexts",
            "contexts": f"{made} of {each}, {self._shape['in_flight']} in flight in each",
            "tiles per launch": manifest.tiles_per_launch,
            **({"columns": IN_TURN} if columns_in_turn(manifest.instructions) else {}),
            **({"fewer contexts": pool.refused} if pool.refused else {}),
            **(details or {}),
        }

    def start(self, inputs: Mapping[str, Array], call: Call) -> Ticket:
        """See `PolledExecutable.start`."""
        if self._workers is None:
            ticket: TileTicket | ThreadedTicket = self.begin(inputs, call)
        else:
            weights = Weights(self._tiles.weights(inputs))
            ticket = ThreadedTicket(self._usable(), self._tiles, inputs, weights, call, self._timeout, self._workers)
        self._running[call.lane] = ticket
        return ticket

    def begin(self, inputs: Mapping[str, Array], call: Call, weights: Weights | None = None) -> TileTicket:
        """Start a run, of which there may be several in one call; arguments and errors as for `start`.

        Args:
            inputs: As for `start`; without those that are in `weights`.
            call: The call that it is part of.
            weights: A set that stays on the NPU until `drop`; None when the weights are among the inputs.
        """
        if weights is None:
            weights = Weights(self._tiles.weights(inputs))
        return TileTicket(self._usable(), self._tiles, inputs, weights, call, self._timeout, None)

    def drop(self, weights: Weights) -> None:
        """Free a set of weights that was handed to `begin`."""
        with self._lock:
            if self._held is not None:
                self._held[1].drop(weights)

    def cancel(self, call: Call) -> bool:
        """See `PolledExecutable.cancel`: launches in flight run to their end, no more are started."""
        ticket = self._running.get(call.lane)
        if ticket is None or ticket.over:
            return False
        ticket.cancelled = True
        return True

    def close(self) -> None:
        """See `PolledExecutable.close`: the contexts stay, for the next session with this kernel."""
        with self._lock:
            if self._held is None:
                return
            self._cache.release(self._held[0])
            self._held = None
            self._running.clear()
        if self._workers is not None:
            self._workers.shutdown()

    def _usable(self) -> LaunchPool:
        """The pool; another one where the device was lost since this one was made."""
        with self._lock:
            if self._held is None:
                raise ClosedError("the kernel is closed")
            key, pool = self._held
            if pool.generation != self._cache.flow.generation:
                self._held = self._borrowed()
                self._cache.release(key)
            return self._held[1]

    def _borrowed(self) -> tuple[Hashable, LaunchPool]:
        shape: Any = self._shape
        return self._cache.get(self._manifest, self._tiles, self._identity, **shape)


class _Request:
    """What both kinds of tickets share: the launches of one call, and what came of them."""

    def __init__(
        self,
        pool: LaunchPool,
        tiles: Tiles,
        inputs: Mapping[str, Array],
        weights: Weights,
        call: Call,
        timeout: float,
        workers: ThreadPoolExecutor | None,
    ) -> None:
        self.cancelled = False
        self._pool = pool
        self._inputs = inputs
        self._weights = weights
        self._call = call
        self._timeout = timeout
        self._workers = workers
        self._error: Exception | None = None
        self._copying = 0.0
        self._left = True
        entries = tiles.count(inputs)
        self._outputs = tiles.empty_outputs(entries)
        step = tiles.per_launch
        self._ranges = [(first, min(first + step, entries)) for first in range(0, entries, step)]
        pool.join()
        self._left = False

    @property
    def copying(self) -> float:
        """Seconds that went into copying to the device and from it."""
        return self._copying

    @property
    def over(self) -> bool:
        """It has its answer, or its error."""
        return self._left

    def _copied(self, copy: Callable[..., None], *args: Any) -> None:
        started = time.perf_counter()
        copy(*args)
        self._copying += time.perf_counter() - started

    def _begin(self, launch: Launch, first: int, last: int) -> None:
        try:
            self._copied(launch.fill, self._inputs, first, last, self._weights)
            launch.start()
        except Exception:
            self._pool.give(launch)
            raise
        except BaseException:
            # An interrupt says nothing about whether the launch was started.
            self._pool.abandon(launch)
            raise

    def _late(self, launch: Launch) -> bool:
        return self._pool.flow.clock() - launch.started > self._timeout

    def _timed_out(self) -> DeviceTimeout:
        return DeviceTimeout(
            f"a launch has not ended within {self._timeout:g} s",
            fix="allow more with the option timeout, or look for what hangs: `sudo dmesg | grep amdxdna`",
        )

    def _leave(self) -> None:
        if not self._left:
            self._left = True
            self._pool.leave()
        if isinstance(self._error, DeviceLost) and self._pool.generation == self._pool.flow.generation:
            self._pool.flow.lost()

    def result(self) -> Mapping[str, Array]:
        """See `Ticket.result`."""
        self._call.copy_seconds = self._copying
        self._inputs = {}
        if self._error is not None:
            raise self._error
        return self._outputs


class TileTicket(_Request):
    """A request whose launches are started and collected by whoever polls it."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._waiting = deque(self._ranges)
        self._aloft: list[Launch] = []
        self._moved = self._pool.flow.clock()
        self._stepping = threading.Lock()
        self._pool.enlist(self)
        with self._stepping:
            self._step()

    def done(self) -> bool:
        """See `Ticket.done`: each call moves the request on as far as it goes without waiting."""
        if not self._left:
            with self._stepping:
                self._step()
        return self._left

    def collect(self) -> None:
        """Collect what has ended, for another request that waits for a place: nobody may be polling this one."""
        if self._stepping.acquire(blocking=False):
            try:
                if not self._left:
                    self._step(submit=False)
            finally:
                self._stepping.release()

    def __del__(self) -> None:
        """Whoever polled has gone away."""
        if not getattr(self, "_left", True):
            self._give_up(late=False)
            self._leave()

    def _step(self, *, submit: bool = True) -> None:
        try:
            if self.cancelled:
                raise ExecutionError("the call was cancelled")
            self._collect()
            if submit:
                self._submit()
        except Exception as error:
            self._error = error
            self._give_up(late=isinstance(error, DeviceTimeout))
        if self._error is not None or not (self._aloft or self._waiting):
            self._leave()

    def _collect(self) -> None:
        for launch in list(self._aloft):
            if launch.over():
                self._moved = self._pool.flow.clock()
                self._aloft.remove(launch)
                try:
                    launch.collect()
                    self._copied(launch.take, self._outputs)
                finally:
                    self._pool.give(launch)
            elif self._late(launch):
                raise self._timed_out()

    def _submit(self) -> None:
        while self._waiting:
            launch = self._pool.take(len(self._aloft))
            if launch is None and not self._aloft:
                self._pool.collect()
                launch = self._pool.take(0)
            if launch is None:
                if not self._aloft and self._pool.flow.clock() - self._moved > self._timeout:
                    raise self._timed_out()
                return
            self._begin(launch, *self._waiting.popleft())
            self._aloft.append(launch)

    def _give_up(self, *, late: bool) -> None:
        """Leave launches in flight to themselves."""
        self._waiting.clear()
        for launch in self._aloft:
            self._pool.abandon(launch, late=late and self._late(launch))
        self._aloft.clear()


class ThreadedTicket(_Request):
    """A request whose launches are worked off by threads, one launch each at a time: the first design's way.

    The first design waited in the vendor's `wait`, where each thread holds up all others; these poll.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        assert self._workers is not None
        self._futures: list[Future[None]] = [self._workers.submit(self._one, *cover) for cover in self._ranges]
        self._finish()

    def done(self) -> bool:
        """See `Ticket.done`."""
        return self._left or self._finish()

    def _finish(self) -> bool:
        if not all(future.done() for future in self._futures):
            return False
        self._leave()
        return True

    def _one(self, first: int, last: int) -> None:
        try:
            launch = self._place()
            if launch is not None:
                self._run(launch, first, last)
        except Exception as error:
            self._error = self._error or error

    def _place(self) -> Launch | None:
        """A free launch; None when the request has failed meanwhile."""
        clock = self._pool.flow.clock
        since = clock()
        while self._error is None:
            if self.cancelled:
                raise ExecutionError("the call was cancelled")
            # Threads stand for places here: nobody takes more than one at a time.
            launch = self._pool.take(0)
            if launch is not None:
                return launch
            if clock() - since > self._timeout * max(1, len(self._ranges)):
                raise self._timed_out()
            time.sleep(_PAUSE)
        return None

    def _run(self, launch: Launch, first: int, last: int) -> None:
        self._begin(launch, first, last)
        while not launch.over():
            if self._late(launch):
                self._pool.abandon(launch, late=True)
                raise self._timed_out()
            if self.cancelled:
                self._pool.abandon(launch)
                raise ExecutionError("the call was cancelled")
            time.sleep(_PAUSE)
        try:
            launch.collect()
            self._copied(launch.take, self._outputs)
        finally:
            self._pool.give(launch)
