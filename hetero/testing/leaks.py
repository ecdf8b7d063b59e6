"""What the process holds: threads, file descriptors, memory. All on Linux; elsewhere only threads are known."""

from __future__ import annotations

import gc
import os
import threading
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc/self")


@dataclass(frozen=True)
class Holdings:
    """What the process holds at one time.

    Attributes:
        python_threads: Names of the threads that Python knows.
        threads: All threads, those of libraries included; None where that is not known.
        files: Open file descriptors; None where that is not known.
        memory: Resident bytes; None where that is not known.
    """

    python_threads: tuple[str, ...]
    threads: int | None
    files: int | None
    memory: int | None


def holdings() -> Holdings:
    """Count, after garbage was collected."""
    gc.collect()
    names = tuple(sorted(thread.name for thread in threading.enumerate()))
    if not (_PROC / "task").is_dir():
        return Holdings(names, None, None, None)
    pages = int((_PROC / "statm").read_text().split()[1])
    # The descriptor that lists the folder is among those that are counted, each time.
    files = len(os.listdir(_PROC / "fd"))
    return Holdings(names, len(os.listdir(_PROC / "task")), files, pages * os.sysconf("SC_PAGE_SIZE"))


def growth(before: Holdings, after: Holdings, *, threads: int, files: int, memory: int) -> list[str]:
    """In words, what grew by more than is allowed.

    Args:
        before: Counted first.
        after: Counted later.
        threads: How many more threads of libraries are no leak; of Python's none may be left.
        files: How many more file descriptors are no leak.
        memory: How many more bytes are no leak.
    """
    found = []
    new = list(after.python_threads)
    for name in before.python_threads:
        if name in new:
            new.remove(name)
    if new:
        found.append(f"{len(new)} more Python threads: {', '.join(new[:3])}{', ...' if len(new) > 3 else ''}")
    elif _more(before.threads, after.threads) > threads:
        found.append(f"{_more(before.threads, after.threads)} more threads")
    if _more(before.files, after.files) > files:
        found.append(f"{_more(before.files, after.files)} more open files")
    if _more(before.memory, after.memory) > memory:
        found.append(f"{_more(before.memory, after.memory) / 2**20:.0f} MiB more memory")
    return found


def _more(before: int | None, after: int | None) -> int:
    return 0 if before is None or after is None else after - before
