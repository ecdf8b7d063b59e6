"""The child as the parent sees it: started, asked, ended; and why it died.

It is a fresh interpreter (`python -c`), not a fork and not `multiprocessing`: no lock of a thread is copied, and the
user's main module is not imported there, so a script needs no `if __name__ == "__main__"`. It imports what this process
would, because it gets this process's `sys.path`.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing.spawn
import os
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hetero.backend import Option
from hetero.compiling.report import Progress
from hetero.errors import ClosedError, DeviceLost, DeviceTimeout, HeteroError, Unavailable
from hetero.isolation.channel import Channel, Told
from hetero.isolation.failures import Failure
from hetero.isolation.memory import anonymous_file
from hetero.tensors import Array

_log = logging.getLogger(__name__)

# sys.path is replaced before anything is imported by it, so that nothing in the current folder is taken for a module.
_MAIN = "import sys; sys.path[:] = sys.argv[5:]; from hetero.isolation.worker import main; main()"

# Seconds that a child is given: to be gone after its pipe broke, to take a channel that it is handed when its queue of
# them is full, and at the end to leave by itself, then by SIGTERM.
_DEATH = 10.0
_ACCEPT = 10.0
_LEAVE = 2.0
_TERMINATE = 1.0

_NOTHING: Mapping[str, Array] = {}


@dataclass(frozen=True)
class Made:
    """What a backend declares; see `Backend`."""

    name: str
    options: tuple[Option, ...] = ()
    simulates: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    compile_options: tuple[Option, ...] = ()


class Process:
    """One child process. Usable from any thread.

    Args:
        backend: The backend's name, for messages.

    Attributes:
        backend: As given.
        pid: Its process id.
        made: What it told of its backend.
        dead: It has ended, or is being ended.

    Raises:
        Unavailable: No process can be started.
    """

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self.dead = False
        self.made = Made(backend)
        self._closing = ""
        self._abandoned = False
        self._reason = ""
        self._ended = threading.Event()
        self._lock = threading.RLock()
        self._idle: deque[Channel] = deque()
        self._channels: set[Channel] = set()
        self._control, theirs = socket.socketpair()
        # It is used under the lock, which `close` needs too.
        self._control.settimeout(_ACCEPT)
        self._report = anonymous_file()
        # Nothing is ever written to this pipe: that it was closed is how the child hears of this process's death.
        listening, self._lifeline = os.pipe()
        passed = (theirs.fileno(), listening, self._report)
        try:
            self._popen = subprocess.Popen(_command(passed), stdin=subprocess.DEVNULL, pass_fds=passed)
        except Exception as error:
            self._close_files()
            if isinstance(error, HeteroError):
                raise
            raise Unavailable(f"no process can be started for the backend {backend!r}: {error}") from error
        finally:
            theirs.close()
            os.close(listening)
        self.pid = self._popen.pid
        self._watcher = threading.Thread(target=self._watch, name=f"hetero-isolation-{backend}", daemon=True)
        self._watcher.start()
        _live.add(self)

    def ask(
        self,
        request: Any,
        arrays: Mapping[str, Array] = _NOTHING,
        timeout: float | None = None,
        progress: Progress | None = None,
    ) -> tuple[Any, dict[str, Array]]:
        """Have the child do something, and wait for the answer.

        Args:
            request: The name of one of the worker's methods, and its arguments.
            arrays: Go through shared memory.
            timeout: Seconds; unlimited by default.
            progress: Told what the child tells before its answer; may raise, and the child is then not heard any more.
                With it, the memory for the arrays is not kept for the next request.

        Returns:
            The value and the arrays of the answer, which may be kept.

        Raises:
            HeteroError: What the child raised.
            DeviceLost: The child died, before or during this.
            DeviceTimeout: No answer in time.
            ClosedError: This process ended the child.
        """
        try:
            channel = self._idle.pop()
        except IndexError:
            channel = self._open()
        try:
            channel.send(request, arrays)
            answer, layout = channel.receive(timeout)
            while isinstance(answer, Told):
                if progress is not None:
                    progress(answer.stage, answer.done)
                answer, layout = channel.receive(timeout)
            outputs = channel.arrays(layout, copy=True)
        except TimeoutError:
            self._drop(channel)
            raise DeviceTimeout(
                f"the process of backend {self.backend!r} did not answer {request[0]!r} within {timeout:g} s"
            ) from None
        except (EOFError, OSError):
            self._drop(channel)
            raise self._lost() from None
        except BaseException:
            # An interrupted wait leaves an answer behind that nobody collects, and so an unusable channel.
            self._drop(channel)
            raise
        if progress is None:
            self._idle.append(channel)
        else:
            self._drop(channel)
        if isinstance(answer, Failure):
            raise answer.error()
        return answer, outputs

    def close(self, timeout: float = 5.0) -> None:
        """End the child: ask it to free what it holds and to leave, then terminate it, then kill it. Bounded.

        Args:
            timeout: Seconds that its backend has for freeing what it holds.
        """
        with self._lock:
            if self._closing:
                return
            self._closing = f"the backend {self.backend!r} was closed"
        if self._watcher is threading.current_thread():
            # The garbage collector has come upon the backend of a child that has died, while this thread was telling of
            # its end. It must not wait for itself.
            self._abandoned = True
            if self._ended.is_set():
                self._close_files()
            return
        if not self._ended.is_set():
            try:
                self.ask(("close",), timeout=timeout)
            except HeteroError as error:
                if not isinstance(error, ClosedError | DeviceLost):
                    _log.warning("closing the backend %s in its process failed: %s", self.backend, error)
        self.dead = True
        self._control.close()
        for end, seconds in ((None, _LEAVE), (self._popen.terminate, _TERMINATE), (self._popen.kill, _DEATH)):
            if end is not None:
                end()
            if self._ended.wait(seconds):
                break
        else:
            _log.error("the process of backend %s (pid %d) cannot be killed", self.backend, self.pid)
        self._watcher.join(_DEATH)
        self._close_files()

    def kill(self) -> None:
        """End the child at once; pending calls raise DeviceLost."""
        if not self._ended.is_set():
            self._popen.kill()

    def _open(self) -> Channel:
        ours, theirs = socket.socketpair()
        channel = Channel(ours)
        try:
            with theirs, self._lock:
                if self._ended.is_set():
                    raise EOFError
                socket.send_fds(self._control, [b"c"], [theirs.fileno()])
                self._channels.add(channel)
        except (EOFError, OSError):
            channel.close()
            raise self._lost() from None
        return channel

    def _drop(self, channel: Channel) -> None:
        with self._lock:
            self._channels.discard(channel)
            channel.close()

    def _lost(self) -> HeteroError:
        if not self._ended.wait(_DEATH):
            # Alive, and yet its pipe is broken: whatever it is doing, nobody can ask it any more.
            self.kill()
            self._ended.wait(_DEATH)
        return ClosedError(self._closing) if self._closing else DeviceLost(self._reason or "the process is gone")

    def _watch(self) -> None:
        """Wait for the child's end, and wake whoever waits for an answer of it.

        A broken pipe alone would not do: processes that the child has started may hold the other end.
        """
        code = self._popen.wait()
        self.dead = True
        self._reason = f"the process of backend {self.backend!r} {_how(code)}"
        try:
            if not self._closing:
                where = os.pread(self._report, 1 << 16, 0).decode(errors="replace").rstrip()
                _log.warning("%s (pid %d)%s", self._reason, self.pid, where and f"; it was at\n{where}")
        finally:
            self._ended.set()
            with self._lock:
                for channel in list(self._channels):
                    channel.shut()
            if self._abandoned:
                self._close_files()

    def _close_files(self, forked: bool = False) -> None:
        self._control.close()
        with self._lock:
            for channel in list(self._channels):
                if not forked:
                    channel.shut()  # whoever still waits for a child that cannot be killed
                channel.close()
            self._channels.clear()
            self._idle.clear()
            descriptors = self._report, self._lifeline
            self._report = self._lifeline = -1
            for descriptor in descriptors:
                if descriptor >= 0:
                    os.close(descriptor)

    def _forked(self) -> None:
        """In the child of a fork: this is the parent's process, and must not be kept alive from here."""
        # New ones: another thread may have held those at the moment of the fork, and nobody would ever release them.
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._ended.set()
        self._closing = "this Runtime was made before a fork and cannot be used in the child process"
        self.dead = True
        self._close_files(forked=True)  # closed, not shut down: the parent still uses the other ends
        self._popen.returncode = 0  # not to be waited for here


def _command(passed: tuple[int, ...]) -> list[str]:
    executable = multiprocessing.spawn.get_executable()
    if not executable or getattr(sys, "frozen", False):
        raise Unavailable(
            "there is no Python interpreter to start a process with",
            fix="multiprocessing.set_executable(PATH) names one; or leave isolate= out",
        )
    path = [entry for entry in sys.path if isinstance(entry, str)]
    return [os.fsdecode(executable), "-c", _MAIN, *map(str, passed), str(os.getpid()), *path]


def _how(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name} (signal {-code})"
    except ValueError:
        return f"was killed by signal {-code}"


_live: weakref.WeakSet[Process] = weakref.WeakSet()


def _mark_all_forked() -> None:
    for process in list(_live):
        with contextlib.suppress(Exception):
            process._forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_mark_all_forked)
