"""The threads in which submitted requests run: as many as there is work on lanes, kept for the next piece."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable

_log = logging.getLogger(__name__)

Work = Callable[[], object]

PREFIX = "hetero-worker"


class _Own(threading.local):
    """What a thread knows of itself."""

    works = False
    keeps = False
    kept: Work | None = None


class Workers:
    """Threads that do one piece of work after another.

    A piece never waits behind another one: when no thread is idle, one more is started. How many there are is bounded
    by the lanes, since work is only handed over once it has a lane; a call that hangs keeps its thread and costs nobody
    else one.

    A worker that makes room for the next piece by ending its own may keep that piece (`keep_next`) and do it itself,
    which saves a change of thread. Whatever else it does in between must be short, or come after `pass_on`.
    """

    def __init__(self) -> None:
        self._own = _Own()
        self._work: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0
        self._threads: list[threading.Thread] = []
        self._closed = False

    def do(self, work: Work) -> None:
        """Have `work` done in a thread. It must not raise."""
        own = self._own
        if own.keeps:
            own.keeps, own.kept = False, work
            return
        with self._lock:
            if self._closed:
                # The threads have ended, or are about to; what comes now, of a call that hung say, must not be lost.
                threading.Thread(target=_do, args=(work,), name=f"{PREFIX}-late", daemon=True).start()
                return
            if self._idle > 0:
                self._idle -= 1
            else:
                self._threads = [thread for thread in self._threads if thread.is_alive()]
                # Daemon threads, so that a hung vendor call cannot keep the interpreter from ending.
                thread = threading.Thread(target=self._loop, name=f"{PREFIX}-{len(self._threads)}", daemon=True)
                thread.start()
                self._threads.append(thread)
        self._work.put(work)

    def keep_next(self, keep: bool) -> None:
        """Whether a worker keeps, for itself, the first piece that is handed over in its thread from now on."""
        own = self._own
        own.keeps = keep and own.works and own.kept is None

    def pass_on(self) -> None:
        """Hand the piece that this thread has kept, if any, to another one: what comes now may take long."""
        own = self._own
        kept, own.kept, own.keeps = own.kept, None, False
        if kept is not None:
            self.do(kept)

    def close(self, timeout: float) -> bool:
        """End the threads once they are idle.

        Returns:
            Whether all of them ended in time.
        """
        with self._lock:
            self._closed = True
            threads = list(self._threads)
        for _ in threads:
            self._work.put(None)
        deadline = time.monotonic() + timeout
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in threads if thread is not threading.current_thread())

    def _loop(self) -> None:
        own = self._own
        own.works = True
        while True:
            work = self._work.get()
            if work is None:
                return
            while work is not None:
                _do(work)
                work, own.kept = own.kept, None  # an idle thread must keep no request alive
            with self._lock:
                self._idle += 1


def _do(work: Work) -> None:
    try:
        work()
    except BaseException:
        _log.exception("a piece of work raised, which it must not")
