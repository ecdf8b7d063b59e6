"""A pool: memory that is allocated once and used again.

One rule keeps it safe: memory comes back to the pool when nobody looks at it any more, neither its `Buffer` nor an
array over it, a slice of one included. Giving a buffer back says that its owner no longer does; a device that hangs in
a call, or a caller who keeps a view, holds the memory all the same, and it is neither handed out nor freed under them.
"""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike

from hetero.errors import ClosedError, InputError, OptionError, OutOfMemory, PluginError
from hetero.memory.host import alignment_of
from hetero.memory.statistics import PoolStatistics

if TYPE_CHECKING:
    from hetero.backend import Access, Allocator
    from hetero.tensors import Array

_log = logging.getLogger(__name__)

KEEP_BYTES = 256 << 20
"""How much idle memory a pool keeps, when nobody says."""


def size_class(nbytes: int, alignment: int) -> int:
    """The size that a request is rounded up to, so that similar ones share memory.

    Multiples of the alignment, and from eight of them on four sizes for each power of two: at most a quarter is wasted.
    """
    least = max(nbytes, 1)
    step = max(alignment, 1 << max(0, (least - 1).bit_length() - 3))
    return -(-least // step) * step


@dataclass(frozen=True, eq=False)
class _Piece:
    """Memory of the allocator."""

    memory: Any
    address: int
    size: int
    access: Access


class _Lease:
    """What a buffer and all arrays over it hold on to; when it is gone, nobody looks at the memory any more."""

    __slots__ = ("__array_interface__", "__weakref__", "pool")

    def __init__(self, pool: Pool, piece: _Piece) -> None:
        self.pool = pool  # memory that is out keeps its pool alive, which frees it
        self.__array_interface__ = {
            "shape": (piece.size,),
            "typestr": "|u1",
            "data": (piece.address, False),
            "version": 3,
        }


class _Watch(weakref.ref[_Lease]):
    """Tells the pool when a lease has ended."""

    __slots__ = ("piece",)

    piece: _Piece


class Buffer:
    """Memory of a pool, until it is given back. Made by `Pool.take`; a context manager.

    Attributes:
        nbytes: As asked for.
        pool: Where it comes from.
    """

    def __init__(self, pool: Pool, lease: _Lease, nbytes: int) -> None:
        self.pool = pool
        self.nbytes = nbytes
        self._lease: _Lease | None = lease

    def array(self, shape: int | tuple[int, ...], dtype: DTypeLike = np.uint8) -> Array:
        """A C-contiguous array over the buffer, from its beginning; it holds whatever was there.

        Raises:
            InputError: It is larger than the buffer, or made of Python objects.
            ClosedError: The buffer was given back.
        """
        lease = self._lease
        if lease is None:
            raise ClosedError("the buffer was given back", fix="take another one")
        kind = np.dtype(dtype)
        if kind.hasobject:
            raise InputError(f"a buffer cannot hold Python objects, which {kind} is made of")
        try:
            array: Array = np.ndarray(shape, kind, np.asarray(lease)[: self.nbytes])
            return array
        except (TypeError, ValueError) as error:
            raise InputError(f"no array of shape {shape} and {kind} in {self.nbytes} bytes: {error}") from None

    def release(self) -> None:
        """Give it back; see `Pool.give_back`."""
        self.pool.give_back(self)

    def __enter__(self) -> Buffer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lease is not None:
            self.release()

    def __repr__(self) -> str:
        return f"<Buffer of {self.nbytes} bytes of {self.pool.name}{'' if self._lease else ', given back'}>"


class Pool:
    """Aligned memory of one allocator, used again and again. Usable from any thread.

    Args:
        name: For people and statistics.
        allocator: Gives the memory and frees it.
        limit_bytes: What is in use and what is idle may come to this together; None for no limit.
        keep_bytes: Idle memory beyond this is freed, what was used longest ago first.

    Raises:
        OptionError: A negative number of bytes.
    """

    def __init__(
        self, name: str, allocator: Allocator, *, limit_bytes: int | None = None, keep_bytes: int = KEEP_BYTES
    ) -> None:
        if keep_bytes < 0 or (limit_bytes is not None and limit_bytes < 0):
            raise OptionError(f"the limit of a pool is {limit_bytes!r} and it keeps {keep_bytes!r}, expected bytes")
        self.name = name
        self._allocator = allocator
        self._limit = limit_bytes
        self._keep = keep_bytes
        self._lock = threading.Lock()
        # By access and size; those used last at the end.
        self._idle: OrderedDict[tuple[Access, int], list[_Piece]] = OrderedDict()
        self._out: set[_Watch] = set()
        self._waiting: list[queue.SimpleQueue[None]] = []
        # A lease may end in the garbage collector, which may run anywhere, so with the lock held by the same thread:
        # what ended is only noted then, and sorted in by whoever lets go of the lock. See `_settle`.
        self._ended: deque[_Watch] = deque()
        self._doomed: deque[_Piece] = deque()
        # What the allocator has given and not yet got back: in use, idle, and doomed.
        self._held = 0
        self._in_use = self._idle_bytes = self._high_water = self._hits = self._misses = 0
        self._closed = False
        self._abandoned = False

    def take(self, nbytes: int, access: Access = "default", *, wait: float = 0.0) -> Buffer:
        """A buffer of at least so many bytes; it holds whatever was there.

        Args:
            nbytes: Bytes, 0 or more.
            access: Who reads and writes it; its address and size are a multiple of 64 bytes, for `streaming` of a page.
            wait: Seconds to wait for others to give memory back when the limit is reached; `math.inf` for as long as it
                takes.

        Raises:
            OutOfMemory: The limit is reached, or the allocator has no more.
            ClosedError: The pool is closed.
            OptionError: A negative number of bytes.
        """
        if nbytes < 0:
            raise OptionError(f"a buffer of {nbytes} bytes, expected 0 or more")
        size = size_class(nbytes, alignment_of(access))
        if self._limit is not None and size > self._limit:
            raise OutOfMemory(
                f"a buffer of {nbytes} bytes is more than {self.name} may hold ({self._limit})",
                fix="raise memory_limit=",
            )
        until = time.monotonic() + wait
        while True:
            piece: _Piece | None = None
            turn: queue.SimpleQueue[None] | None = None
            with self._lock:
                self._check_open()
                self._sort_in()
                idle = self._idle.get((access, size))
                if idle:
                    piece = idle.pop()
                    self._idle_bytes -= size
                    self._hits += 1
                elif self._limit is None or self._held + size <= self._limit:
                    self._held += size
                    self._misses += 1
                else:
                    turn = queue.SimpleQueue()
                    self._waiting.append(turn)
                    comes = self._make_room(size)
                if turn is None:
                    self._in_use += size
                    self._high_water = max(self._high_water, self._in_use)
            self._settle()
            if turn is None:
                return self._lease(piece or self._allocate(size, access), nbytes)
            self._await(turn, math.inf if comes else until - time.monotonic(), nbytes)

    def give_back(self, buffer: Buffer) -> None:
        """Take a buffer back. Its memory is used again once no array over it is left.

        Raises:
            ClosedError: It was given back before.
            InputError: It is another pool's.
        """
        if buffer.pool is not self:
            raise InputError(
                f"the buffer is of the pool {buffer.pool.name}, not of {self.name}", fix="give it back there: release()"
            )
        with self._lock:
            lease, buffer._lease = buffer._lease, None
        self._settle()
        if lease is None:
            raise ClosedError("the buffer was given back before", fix="give each buffer back once")
        del lease

    def trim(self, keep_bytes: int = 0) -> None:
        """Free idle memory until no more than `keep_bytes` is left, what was used longest ago first."""
        with self._lock:
            self._sort_in()
            self._evict(lambda: self._idle_bytes > keep_bytes)
        self._settle()

    def close(self) -> None:
        """Free what is idle, and what is in use as soon as it comes back. Whoever waits gets ClosedError."""
        with self._lock:
            self._closed = True
            self._sort_in()
            self._wake()
        self._settle()

    def abandon(self) -> None:
        """In the child of a fork: hand out nothing, and free nothing, which is the parent's to do."""
        self._lock = threading.Lock()
        self._closed = self._abandoned = True

    @property
    def statistics(self) -> PoolStatistics:
        """The pool as it is now."""
        with self._lock:
            self._sort_in()
            told = self.glance()
        self._settle()
        return told

    def glance(self) -> PoolStatistics:
        """The pool without waiting for anybody: numbers that change meanwhile may be of different moments."""
        return PoolStatistics(
            self.name,
            self._in_use,
            self._idle_bytes,
            self._high_water,
            self._limit,
            len(self._out),
            self._hits,
            self._misses,
        )

    def __repr__(self) -> str:
        return f"<hetero.memory.Pool {self.statistics}>"

    def _allocate(self, size: int, access: Access) -> _Piece:
        """New memory for which there is room; the room is given up when there is none."""
        try:
            memory = self._allocator.allocate(size, access)
            try:
                return self._checked(memory, size, access)
            except PluginError:
                self._allocator.free(memory)
                raise
        except BaseException:
            with self._lock:
                self._in_use -= size
                self._held -= size
                self._wake()
            self._settle()
            raise

    def _checked(self, memory: Any, size: int, access: Access) -> _Piece:
        try:
            seen = np.frombuffer(memory, np.uint8)
        except (TypeError, ValueError, BufferError) as error:
            raise PluginError(f"the allocator of {self.name} gave {memory!r}, expected a buffer: {error}") from error
        address = seen.ctypes.data
        if seen.nbytes < size or not seen.flags.writeable or address % alignment_of(access):
            raise PluginError(
                f"the allocator of {self.name} gave {seen.nbytes} bytes at {address:#x}, expected {size} writable "
                f"bytes at a multiple of {alignment_of(access)}"
            )
        return _Piece(memory, address, size, access)

    def _lease(self, piece: _Piece, nbytes: int) -> Buffer:
        lease = _Lease(self, piece)
        watch = _Watch(lease, self._lease_ended)
        watch.piece = piece
        with self._lock:
            self._out.add(watch)
        self._settle()
        return Buffer(self, lease, nbytes)

    def _lease_ended(self, watch: weakref.ref[_Lease]) -> None:
        assert isinstance(watch, _Watch)
        self._ended.append(watch)
        self._settle()

    def _settle(self) -> None:
        """Sort in what has ended and free what is too much. Called whenever this thread has let go of the lock."""
        while (self._ended or self._doomed) and not self._abandoned:
            # Whoever has the lock comes here after it.
            if not self._lock.acquire(blocking=False):
                return
            try:
                self._sort_in()
            finally:
                self._lock.release()
            self._free_doomed()

    def _sort_in(self) -> None:
        """Make what has ended idle, and doom what is beyond the limits; with the lock held."""
        while self._ended:
            watch = self._ended.popleft()
            piece = watch.piece
            self._out.discard(watch)
            self._in_use -= piece.size
            self._idle_bytes += piece.size
            key = (piece.access, piece.size)
            self._idle.setdefault(key, []).append(piece)
            self._idle.move_to_end(key)
            self._wake()
        self._evict(lambda: self._idle_bytes > (0 if self._closed else self._keep))

    def _make_room(self, size: int) -> bool:
        """Doom idle memory so that so much more may be allocated; with the lock held. False when that is not enough."""
        limit = self._limit or 0
        if self._in_use + size > limit:
            return False
        self._evict(lambda: self._in_use + self._idle_bytes + size > limit)
        return True

    def _evict(self, too_much: Callable[[], bool]) -> None:
        while self._idle and too_much():
            key, pieces = next(iter(self._idle.items()))
            if pieces:
                piece = pieces.pop()
                self._idle_bytes -= piece.size
                self._doomed.append(piece)
            else:
                del self._idle[key]

    def _free_doomed(self) -> None:
        while True:
            try:
                piece = self._doomed.popleft()
            except IndexError:
                return
            try:
                self._allocator.free(piece.memory)
            except Exception:
                _log.exception("%s: freeing %d bytes failed", self.name, piece.size)
            with self._lock:
                self._held -= piece.size
                self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for turn in waiting:
            turn.put(None)

    def _await(self, turn: queue.SimpleQueue[None], seconds: float, nbytes: int) -> None:
        """Wait until memory has come back or was freed."""
        try:
            turn.get(seconds > 0, min(seconds, threading.TIMEOUT_MAX) if seconds > 0 else None)
        except queue.Empty:
            with self._lock:
                self._waiting = [other for other in self._waiting if other is not turn]
                in_use = self._in_use
            self._settle()
            raise OutOfMemory(
                f"{self.name} has no room for {nbytes} bytes: {in_use} of {self._limit} are in use",
                fix="give buffers back (release()), wait for others to do so (wait=), or raise memory_limit=",
            ) from None

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"the memory of {self.name} is closed", fix="make a new Runtime")
