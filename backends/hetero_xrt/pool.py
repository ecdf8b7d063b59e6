"""The launches of one kernel that may be in flight: contexts, the launches in each, and who may take the next one."""

from __future__ import annotations

import logging
import threading
import weakref
from collections import Counter
from collections.abc import Hashable
from typing import Protocol

from hetero.backend import DeviceLost, DeviceTimeout
from hetero.errors import BackendError
from hetero_xrt.failures import exhausted
from hetero_xrt.flights import FLIGHTS
from hetero_xrt.flow import Context, Flow, Launch
from hetero_xrt.layout import Tiles
from hetero_xrt.manifest import Manifest
from hetero_xrt.weights import Weights

_log = logging.getLogger(__name__)


class Request(Protocol):
    """What holds launches while it lasts."""

    def collect(self) -> None:
        """Give back the launches that are over."""


class LaunchPool:
    """Contexts of one xclbin, with some launches in each.

    Args:
        flow: The vendor's.
        manifest: The kernel.
        tiles: How tensors lie in buffers.
        contexts: How many to make.
        in_flight: Launches in each, 1 to 4.
        strict: Fail when not all contexts can be had; else go on with those that can.

    Attributes:
        contexts: Those that were made, at least one.
        refused: Why there are not more.
        generation: The flow's, when they were made: of another one they are dead.

    Raises:
        BackendError: Not even one can be had, or not all and `strict`.
    """

    def __init__(
        self, flow: Flow, manifest: Manifest, tiles: Tiles, *, contexts: int, in_flight: int, strict: bool
    ) -> None:
        self.flow = flow
        self.generation = flow.generation
        self.contexts: list[Context] = []
        self.refused = ""
        self._requests: weakref.WeakSet[Request] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._free: list[Launch] = []
        self._users = 0
        self._size = 0
        for number in range(contexts):
            try:
                context = flow.context(manifest)
                launches = [Launch(context, tiles) for _ in range(in_flight)]
            except BackendError as error:
                if isinstance(error, DeviceLost):
                    flow.lost()
                if strict or not number:
                    raise
                self.refused = error.problem
                _log.info("%d contexts in place of %d: %s", number, contexts, error.problem)
                break
            self.contexts.append(context)
            self._free += launches
            self._size += in_flight

    def join(self) -> None:
        """One more call shares the launches.

        Raises:
            DeviceTimeout: In every context a launch hangs.
        """
        FLIGHTS.sweep()
        late = sum(context.late for context in self.contexts)
        if late and all(context.late for context in self.contexts):
            raise DeviceTimeout(
                f"{late} launches have not ended so far: the NPU hangs",
                fix="reload the driver: sudo modprobe -r amdxdna; sudo modprobe amdxdna",
            )
        with self._lock:
            self._users += 1

    def leave(self) -> None:
        """A call has ended."""
        with self._lock:
            self._users -= 1

    def take(self, held: int) -> Launch | None:
        """A launch that is free, in the context with the fewest in flight.

        Args:
            held: How many the call has already: it gets no more than its share.

        Returns:
            None when there is none, or none for this call.
        """
        FLIGHTS.sweep()
        with self._lock:
            if held >= max(1, self._size // max(1, self._users)):
                return None
            free = [launch for launch in self._free if not launch.context.late]
            if not free:
                return None
            busy = {id(context): 0 for context in self.contexts}
            for launch in self._free:
                busy[id(launch.context)] -= 1
            launch = min(free, key=lambda launch: busy[id(launch.context)])
            self._free.remove(launch)
            return launch

    def collect(self) -> None:
        """Have every request give back what is over, also one that nobody polls just now."""
        with self._lock:
            requests = list(self._requests)
        for request in requests:
            request.collect()

    def enlist(self, request: Request) -> None:
        """Ask this request too in `collect`, as long as somebody holds it."""
        with self._lock:
            self._requests.add(request)

    def give(self, launch: Launch) -> None:
        """A launch is over, or was never started."""
        launch.rest()
        with self._lock:
            self._free.append(launch)

    def abandon(self, launch: Launch, *, late: bool = False) -> None:
        """Nobody waits for a launch any more; it comes back when it is over.

        Args:
            launch: One in flight.
            late: It has taken too long: its context is not used before it has ended.
        """
        context = launch.context
        if late:
            with self._lock:
                context.late += 1

        def landed() -> None:
            launch.forget()
            launch.rest()
            with self._lock:
                context.late -= late
                self._free.append(launch)

        FLIGHTS.park(launch, landed)

    def drop(self, weights: Weights) -> None:
        """Free a set of weights; a launch in flight that reads it holds its buffers until it reads another."""
        self.flow.weights.drop(weights)
        with self._lock:
            for launch in self._free:
                if launch.bears(weights):
                    launch.unload()

    @property
    def idle(self) -> bool:
        """Nothing is in flight."""
        with self._lock:
            return len(self._free) == self._size


class PoolCache:
    """Pools by kernel: sessions of one kernel share them, and they are kept for the next when none is left.

    A context takes 35 ms to make and the NPU has six at most, so pools without a session go when another kernel finds
    no context.

    Args:
        flow: The vendor's.
    """

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self._lock = threading.RLock()
        self._pools: dict[Hashable, LaunchPool] = {}
        self._users: Counter[Hashable] = Counter()

    def get(
        self, manifest: Manifest, tiles: Tiles, program: str, *, contexts: int, in_flight: int, strict: bool
    ) -> tuple[Hashable, LaunchPool]:
        """The pool of a kernel, for one more user, and its key for `release`.

        Args:
            manifest: The kernel.
            tiles: How tensors lie in buffers.
            program: Identity of the program.
            contexts: As for `LaunchPool`, as are the rest.
            in_flight: Launches in each.
            strict: Fail when not all contexts can be had.
        """
        stat = manifest.xclbin.path.stat()
        key = (program, manifest.path, manifest.xclbin.uuid, stat.st_mtime_ns, contexts, in_flight)
        with self._lock:
            pool = self._pools.get(key)
            if pool is None or pool.generation != self.flow.generation:
                pool = self._made(manifest, tiles, contexts, in_flight, strict)
                self._pools[key] = pool
            self._users[key] += 1
            return key, pool

    def release(self, key: Hashable) -> None:
        """One user less."""
        with self._lock:
            self._users[key] -= 1
            if self._users[key] <= 0:
                del self._users[key]

    def close(self) -> None:
        """Let go of all of them; what is in flight is held until it has ended."""
        with self._lock:
            self._pools.clear()

    def _made(self, manifest: Manifest, tiles: Tiles, contexts: int, in_flight: int, strict: bool) -> LaunchPool:
        spare = [key for key, pool in self._pools.items() if not self._users[key] and pool.idle]
        # Whole or not at all, as long as there is another kernel's context to give up for it.
        while True:
            try:
                return LaunchPool(
                    self.flow, manifest, tiles, contexts=contexts, in_flight=in_flight, strict=strict or bool(spare)
                )
            except BackendError as error:
                if not spare or not exhausted(error):
                    raise
                del self._pools[spare.pop(0)]
