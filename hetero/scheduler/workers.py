"""The threads in which submitted requests run: as many as there is work on lanes, kept for the next piece."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable

_log = logging.getLogger(__name__)

Work = Callable[[], None]

PREFIX = "hetero-worker"


class Workers:
    """Threads that do one piece of work after another.

    A piece never waits behind another one: when no thread is idle, one more is started. How many there are is bounded
    by the lanes, since work is only handed over once it has a lane; a call that hangs keeps its thread and costs nobody
    else one.
    """

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0
        self._threads: list[threading.Thread] = []
        self._closed = False

    def do(self, work: Work) -> None:
        """Have `work` done in a thread. It must not raise."""
        with self._lock:
            if self._idle > 0:
                self._idle -= 1
            else:
                self._threads = [thread for thread in self._threads if thread.is_alive()]
                # Daemon threads, so that a hung vendor call cannot keep the interpreter from ending.
                thread = threading.Thread(target=self._loop, name=f"{PREFIX}-{len(self._threads)}", daemon=True)
                thread.start()
                self._threads.append(thread)
        self._work.put(work)

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
        while True:
            work = self._work.get()
            if work is None:
                return
            try:
                work()
            except BaseException:
                _log.exception("a piece of work raised, which it must not")
            del work  # an idle thread must keep no request alive
            with self._lock:
                self._idle += 1
