"""Answers whoever asks what this process's Runtimes are doing: a thread that sleeps until somebody does.

The socket takes a connection, writes one JSON document, and closes it; nothing is read from whoever asks. It is there
as long as a published Runtime is. In the child of a fork it is not: a Runtime that is made there has its own.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import selectors
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hetero.errors import Unavailable
from hetero.monitor.places import address, make_folder, new_name

if TYPE_CHECKING:
    from hetero.backend import Host
    from hetero.runtime import Runtime

_log = logging.getLogger(__name__)

FORMAT = 1
"""Of the document. It changes when a field goes or means something else, not when one is added."""

MARK = "hetero monitor"
"""The key of the format's number, by which the document is known."""

RUN_VARIABLE = "HETERO_MONITOR_RUN"
"""The environment variable with the token by which whoever starts a program knows it again."""

# For one who asks and then does not read; the next one waits that long.
_PATIENCE = 1.0


class Publisher:
    """The socket of this process and the thread behind it.

    Args:
        host: Says where the socket is made.
        runtimes: Gives those that are told about.

    Attributes:
        path: Of the socket.

    Raises:
        Unavailable: There can be no socket here; why.
    """

    def __init__(self, host: Host, runtimes: Callable[[], list[Runtime]]) -> None:
        if not hasattr(socket, "AF_UNIX"):
            raise Unavailable("this system's Python has no Unix-domain sockets")
        self.path = make_folder(host) / new_name()
        self._runtimes = runtimes
        self._closed = False
        self._run = host.environ.get(RUN_VARIABLE, "")
        self._began = time.time()
        self._listener = _listening(self.path)
        self._wakes, self._waker = socket.socketpair()
        self._waker.setblocking(False)
        self._thread = threading.Thread(target=self._loop, name="hetero-monitor", daemon=True)
        self._thread.start()

    def look(self) -> None:
        """Have the thread see whether there is still a Runtime to tell about. Takes no lock: for finalizers."""
        with contextlib.suppress(OSError):
            self._waker.send(b"\0")

    def close(self) -> None:
        """Take the socket away, then end the thread, which may still be answering."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)
        self.look()

    def forget(self) -> None:
        """In the child of a fork: the socket is the parent's, and would seem alive while the child holds it."""
        self._closed = True
        for end in (self._listener, self._wakes, self._waker):
            end.close()

    def document(self) -> dict[str, Any]:
        """What is told."""
        from hetero import __version__

        return {
            MARK: FORMAT,
            "hetero": __version__,
            "pid": os.getpid(),
            "command": sys.orig_argv,
            "run": self._run,
            "began": self._began,
            "runtimes": [runtime.status().to_dict() for runtime in self._runtimes()],
        }

    def _loop(self) -> None:
        with self._listener, self._wakes, self._waker, selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._wakes, selectors.EVENT_READ)
            while not self._closed:
                ready = [key.fileobj for key, _ in selector.select()]
                if self._wakes in ready:
                    self._wakes.recv(64)
                    if not self._closed and not self._runtimes():
                        _end_unused(self)
                elif self._listener in ready:
                    self._answer()

    def _answer(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return  # whoever asked has left before
        with connection:
            try:
                connection.settimeout(_PATIENCE)
                if is_own(connection):
                    connection.sendall(json.dumps(self.document(), allow_nan=False).encode() + b"\n")
            except OSError:
                pass  # the same
            except Exception:
                _log.exception("a snapshot for `hetero top` could not be made")


def publish(runtime: Runtime) -> Callable[[], None]:
    """Have this process tell about a Runtime until it is closed or gone. A process that cannot says so in the log.

    Returns:
        What ends it.
    """
    global _publisher
    with _lock:
        _published.add(runtime)
        weakref.finalize(runtime, _look).atexit = False
        if _publisher is None:
            try:
                _publisher = Publisher(runtime.host, _runtimes)
            except (Unavailable, OSError) as error:
                problem = error.problem if isinstance(error, Unavailable) else str(error)
                fix = f" (fix: {error.fix})" if isinstance(error, Unavailable) and error.fix else ""
                _log.warning("`hetero top` cannot look at this program: %s%s", problem, fix)
    reference = weakref.ref(runtime)
    return lambda: _withdraw(reference)


def published_at() -> Path | None:
    """The socket of this process; None when it has none."""
    publisher = _publisher
    return None if publisher is None else publisher.path


def _withdraw(reference: weakref.ref[Runtime]) -> None:
    with _lock:
        runtime = reference()
        if runtime is not None:
            _published.discard(runtime)
        _close_unused()


def _end_unused(publisher: Publisher) -> None:
    with _lock:
        if _publisher is publisher:
            _close_unused()


def _close_unused() -> None:
    global _publisher
    if _publisher is not None and not _open_runtimes():
        _publisher.close()
        _publisher = None


def _runtimes() -> list[Runtime]:
    with _lock:
        return _open_runtimes()


def _open_runtimes() -> list[Runtime]:
    return sorted(_published, key=lambda runtime: runtime._number)


def _look() -> None:
    publisher = _publisher
    if publisher is not None:
        publisher.look()


def _listening(path: Path) -> socket.socket:
    """A socket that appears under its name when it can be connected to, so that nobody takes it for a dead one."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    early = path.with_suffix(".new")
    try:
        with address(early) as where:
            listener.bind(where)
        early.chmod(0o600)
        listener.listen(16)
        listener.setblocking(False)
        early.rename(path)
    except BaseException:
        listener.close()
        early.unlink(missing_ok=True)
        raise
    return listener


def is_own(connection: socket.socket) -> bool:
    """Whether this user is at the other end; true where the system does not tell, and the folder keeps guard."""
    return user_of(connection) in (None, os.geteuid())


def user_of(connection: socket.socket) -> int | None:
    """The number of the user at the other end; None where the system does not tell."""
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    import struct

    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, user, _ = struct.unpack("3i", credentials)
    return int(user)


def _forked() -> None:
    global _publisher, _lock
    _lock = threading.Lock()
    _published.clear()
    if _publisher is not None:
        _publisher.forget()
        _publisher = None


_lock = threading.Lock()
_publisher: Publisher | None = None
_published: weakref.WeakSet[Runtime] = weakref.WeakSet()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
