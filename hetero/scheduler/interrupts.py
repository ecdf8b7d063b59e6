"""Asking a running call to end soon, so that the lane's next one is not hit."""

from __future__ import annotations

import logging
import threading

from hetero.backend import AnyExecutable, Call

_log = logging.getLogger(__name__)


class Interrupts:
    """Those of one executable.

    Attributes:
        busy: Somebody is being interrupted: a run that ends waits for that to be over (`wait`).
    """

    def __init__(self) -> None:
        self.busy = False
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Let an interruption that is under way pass: else the lane's next run might be hit."""
        with self._lock:
            pass

    def interrupt(self, device: str, executable: AnyExecutable | None, call: Call, turn: int) -> bool:
        """Ask a run to end soon.

        Args:
            device: Its name, for the log.
            executable: What runs; None when that was closed.
            call: Its lane.
            turn: Which run on the lane it is; one that has ended is let be, and so is the next.

        Returns:
            Whether the vendor's runtime could be asked.
        """
        with self._lock:
            self.busy = True  # a run that ends from now on waits for this to be over
            try:
                if executable is None or call.turn != turn or not call.started:
                    return False
                call.cancelled = True
                call.cancelled = bool(executable.cancel(call))
                return call.cancelled
            except Exception:
                _log.exception("%s: cancelling a call failed", device)
                return False
            finally:
                self.busy = False
