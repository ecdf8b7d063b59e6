"""The host's part, row by row: in blocks that fit a core's cache, shared among threads.

A layer's activations are larger than a cache and most of what the host does with them takes several passes, so that a
block at a time is quicker even in one thread. numpy lets go of the GIL in each pass.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

_ELEMENTS = 1 << 15
"""Of a block: 128 KiB of floats."""

_MOST_THREADS = 8


class Blocks:
    """Work on rows, done in blocks by some threads.

    Args:
        threads: How many; None for as many as there are cores, at most 8. With 1 the caller's does all.
    """

    def __init__(self, threads: int | None = 1) -> None:
        self.threads = threads or min(_cores(), _MOST_THREADS)
        self._pool = ThreadPoolExecutor(self.threads, "hetero-xrt-host") if self.threads > 1 else None

    def each(self, rows: int, width: int, work: Callable[[slice], None]) -> None:
        """Do some work on every row; no two blocks share one.

        Args:
            rows: How many.
            width: Elements of a row.
            work: Called with a block's rows, in any thread. What it raises is raised here.
        """
        step = max(1, _ELEMENTS // max(1, width))
        blocks = [slice(first, min(first + step, rows)) for first in range(0, rows, step)]
        if self._pool is None or len(blocks) < 2:
            for block in blocks:
                work(block)
        else:
            for _ in self._pool.map(work, blocks):
                pass

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
