"""The pools of a Runtime: one of the host's memory, one for each device whose backend gives an allocator."""

from __future__ import annotations

import logging
import math
import operator
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

import numpy as np
from numpy.typing import DTypeLike

from hetero.backend import Access, Backend, Device
from hetero.errors import InputError, OptionError, Unsupported
from hetero.memory.arrays import PooledArray
from hetero.memory.host import HostAllocator
from hetero.memory.pool import Pool
from hetero.memory.statistics import PoolStatistics

_log = logging.getLogger(__name__)

HOST = "host"

Where = tuple[Backend, Device]


class Pools:
    """The memory of a Runtime, and what is known about it: `print(runtime.memory)`, or iterate over it.

    Args:
        devices: The Runtime's, with their backends.
        limit: Bytes that each pool may hold, or by the pool's name: `host`, or a device's.

    Raises:
        OptionError: A limit that is no number of bytes, or of a pool that is not known.
    """

    def __init__(self, devices: Sequence[Where], limit: int | Mapping[str, int] | None = None) -> None:
        self._devices = tuple(devices)
        self._limits = _limits(limit, [HOST, *(device.name for _, device in devices)])
        self._lock = threading.Lock()
        self.host = Pool(HOST, HostAllocator(), limit_bytes=self._limits[HOST])
        # None for a device without an allocator.
        self._pools: dict[str, Pool | None] = {}
        self._closed = False

    def array(
        self, shape: int | tuple[int, ...], dtype: DTypeLike, access: Access, devices: Sequence[Where], wait: float
    ) -> PooledArray:
        """An array in the memory of the first of the devices that has some for this access, else in the host's.

        Raises:
            InputError: A shape or dtype that cannot be.
            OptionError: An unknown access.
            OutOfMemory: The pool's limit is reached, or there is no more.
            ClosedError: The Runtime is closed.
        """
        if access not in get_args(Access):
            raise OptionError(f"access is {access!r}, expected one of {', '.join(get_args(Access))}")
        kind, sizes = _form(shape, dtype)
        nbytes = math.prod(sizes) * kind.itemsize
        for backend, device in devices:
            pool = self._of(backend, device)
            if pool is None:
                continue
            try:
                return PooledArray(pool.take(nbytes, access, wait=wait), sizes, kind)
            except Unsupported as error:
                _log.info("%s has no memory for %s: %s", device.name, access, error.problem)
        return PooledArray(self.host.take(nbytes, access, wait=wait), sizes, kind)

    def trim(self, keep_bytes: int = 0) -> None:
        """Free idle memory until no pool keeps more than so many bytes of it."""
        for pool in self._made():
            pool.trim(keep_bytes)

    def close(self) -> None:
        """Free what is idle, and what is in use when it comes back."""
        with self._lock:
            self._closed = True
        for pool in self._made():
            pool.close()

    def abandon(self) -> None:
        """In the child of a fork: see `Pool.abandon`."""
        self._lock = threading.Lock()
        self._closed = True
        for pool in self._made():
            pool.abandon()

    def __iter__(self) -> Iterator[PoolStatistics]:
        return iter([pool.statistics for pool in self._made()])

    def glance(self) -> list[PoolStatistics]:
        """As iterating gives it, without waiting for anybody who takes or gives back memory."""
        return [pool.glance() for pool in self._made()]

    def __getitem__(self, name: str) -> PoolStatistics:
        if name not in self._limits:
            raise OptionError(f"no pool is called {name!r}", fix=f"known: {', '.join(self._limits)}")
        unused = PoolStatistics(name, 0, 0, 0, self._limits[name], 0, 0, 0)
        return next((told for told in self if told.name == name), unused)

    def __str__(self) -> str:
        return "\n".join(map(str, self))

    def _made(self) -> list[Pool]:
        return [self.host, *(pool for pool in list(self._pools.values()) if pool is not None)]

    def _of(self, backend: Backend, device: Device) -> Pool | None:
        """The device's pool, made when it is first asked for."""
        with self._lock:
            if device.name not in self._pools and not self._closed:
                allocator = backend.allocator(device)
                self._pools[device.name] = (
                    None if allocator is None else Pool(device.name, allocator, limit_bytes=self._limits[device.name])
                )
            return self._pools.get(device.name)


def _form(shape: Any, dtype: DTypeLike) -> tuple[np.dtype[Any], tuple[int, ...]]:
    try:
        kind = np.dtype(dtype)
        sizes = tuple(map(operator.index, shape)) if isinstance(shape, Sequence) else (operator.index(shape),)
    except (TypeError, ValueError) as error:
        raise InputError(f"no array of shape {shape!r} and dtype {dtype!r}: {error}") from None
    if any(size < 0 for size in sizes):
        raise InputError(f"the shape is {shape!r}, expected sizes of 0 or more")
    return kind, sizes


def _limits(limit: int | Mapping[str, int] | None, pools: Sequence[str]) -> dict[str, int | None]:
    given: dict[str, int | None] = dict.fromkeys(pools)
    given |= limit if isinstance(limit, Mapping) else dict.fromkeys(pools, limit)
    for name, value in given.items():
        if name not in pools:
            raise OptionError(f"memory_limit names {name!r}, which is no pool here", fix=f"known: {', '.join(pools)}")
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise OptionError(f"memory_limit is {value!r}, expected bytes, at least 1")
    return given
