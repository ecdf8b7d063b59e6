"""Who is open: the sessions of a Runtime, and the Runtimes of this process, for its end and for a fork."""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

from hetero.errors import ClosedError

if TYPE_CHECKING:
    from hetero.runtime import Runtime
    from hetero.session import Session


class OpenSessions:
    """The sessions of one Runtime that are in use, and whether it may have more.

    A session leaves when it is closed, or when nobody holds it any more.

    Attributes:
        closed: Why there may be no more; empty while there may.
    """

    def __init__(self) -> None:
        self.closed = ""
        self._sessions: weakref.WeakSet[Session] = weakref.WeakSet()
        self._lock = threading.Lock()  # held for moments

    def check(self) -> None:
        """Raise ClosedError when there may be no more."""
        if self.closed:
            raise ClosedError(self.closed, fix="make a new Runtime")

    def add(self, session: Session, begin: Callable[[], None]) -> None:
        """Take a session in, and have begun what is still to be done for it before anybody can close it.

        Raises:
            ClosedError: There may be no more; the session was closed.
        """
        with self._lock:
            if not self.closed:
                self._sessions.add(session)
                begin()
                return
        session.close()
        self.check()

    def remove(self, session: Session) -> None:
        """A session has been closed."""
        with self._lock:
            self._sessions.discard(session)

    def all(self) -> list[Session]:
        """Those in use now."""
        with self._lock:
            return list(self._sessions)

    def close(self, reason: str) -> list[Session] | None:
        """Let no more in.

        Returns:
            Those to be closed; None when this was done before.
        """
        with self._lock:
            if self.closed:
                return None
            self.closed = reason
            return list(self._sessions)

    def abandon(self, reason: str) -> list[Session]:
        """In the child of a fork: let no more in. The lock may have been held by a thread that is not there."""
        self._lock = threading.Lock()
        self.closed = reason
        return list(self._sessions)


def keep_track(runtime: Runtime) -> None:
    """Have a Runtime closed at the end of the interpreter, and told of a fork, for as long as it lives."""
    _live.add(runtime)


def keep_after_fork(thing: object) -> None:
    """In the child of a fork: let it live for ever, since nothing of a vendor's runtime may be freed there."""
    _kept.append(thing)


def _close_all() -> None:
    for runtime in list(_live):
        runtime.close(timeout=2.0)


def _tell_of_fork() -> None:
    for runtime in list(_live):
        runtime._forked()


_live: weakref.WeakSet[Runtime] = weakref.WeakSet()
_kept: list[object] = []

atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_tell_of_fork)
