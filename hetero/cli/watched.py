"""Work that may never end: done in a thread that is left alone when it shows no sign of life for too long."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from hetero.errors import DeviceTimeout

T = TypeVar("T")

Beat = Callable[[], None]
"""Called by work now and then: it is alive."""


class Watched:
    """A thread that does one piece of work after another. Used by one thread at a time.

    What is timed within a piece is not lengthened by the change of threads around it.

    Args:
        name: Of the thread.
    """

    def __init__(self, name: str) -> None:
        self._pieces: queue.SimpleQueue[_Piece[Any] | None] = queue.SimpleQueue()
        # A daemon, so that a hung vendor call cannot keep the interpreter from ending.
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
        self._thread.start()

    def do(self, work: Callable[[Beat], T], patience: float) -> T:
        """Have a piece of work done, and wait for it.

        Args:
            work: What to do.
            patience: Seconds that it may take, counted anew from each of its beats.

        Returns:
            What it returns. Raises what it raises.

        Raises:
            DeviceTimeout: It was silent for that long. It goes on, and nothing more can be done in this thread.
        """
        piece = _Piece(work)
        self._pieces.put(piece)
        while True:
            left = piece.alive + patience - time.monotonic()
            if piece.done.wait(max(0.0, left)):
                return piece.result()
            if piece.alive + patience <= time.monotonic():
                raise DeviceTimeout(f"no answer within {patience:g} s")

    def close(self) -> None:
        """End the thread after the piece that it is at. Does not wait."""
        self._pieces.put(None)

    def _loop(self) -> None:
        while (piece := self._pieces.get()) is not None:
            piece.run()


class _Piece(Generic[T]):
    def __init__(self, work: Callable[[Beat], T]) -> None:
        self.alive = time.monotonic()
        self.done = threading.Event()
        self._work = work
        self._answers: list[T] = []
        self._error: BaseException | None = None

    def run(self) -> None:
        self._beat()
        try:
            self._answers.append(self._work(self._beat))
        except BaseException as error:  # for the thread that waits
            self._error = error
        finally:
            self.done.set()

    def result(self) -> T:
        if self._error is not None:
            raise self._error
        return self._answers[0]

    def _beat(self) -> None:
        self.alive = time.monotonic()
