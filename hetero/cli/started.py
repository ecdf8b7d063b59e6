"""A program that is started to be looked at: its output goes to a file, its exit code is passed on."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from hetero.errors import InputError
from hetero.monitor.publishing import RUN_VARIABLE
from hetero.monitor.switch import VARIABLE

_GRACE = 5.0
_TAIL = 1 << 14


class Started:
    """A program in a session of its own, so that what is typed into the terminal does not reach it. A context manager.

    It is never ended by this, but for an interruption, which is passed on.

    Args:
        command: The program and its arguments.
        output: Where its stdout and stderr go; a new file in the folder for temporary ones when not given.

    Attributes:
        command: As given.
        output: The file.
        run: The token by which its Runtimes are known.

    Raises:
        InputError: It cannot be started, or the file not be written.
    """

    def __init__(self, command: Sequence[str], output: Path | None = None) -> None:
        self.command = tuple(command)
        self.run = secrets.token_hex(8)
        try:
            if output is None:
                number, name = tempfile.mkstemp(prefix="hetero-top-", suffix=".log")
                self.output, self._file = Path(name), os.fdopen(number, "wb")
            else:
                self.output, self._file = output, output.open("wb")
        except OSError as error:
            raise InputError(f"its output cannot be written to {output}: {error.strerror}") from None
        try:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL if sys.stdin is None or sys.stdin.isatty() else None,
                stdout=self._file,
                stderr=subprocess.STDOUT,
                env={**os.environ, VARIABLE: "1", RUN_VARIABLE: self.run},
                start_new_session=True,
            )
        except OSError as error:
            self._file.close()
            if output is None:
                self.output.unlink()
            raise InputError(
                f"{self.command[0]!r} cannot be started: {error.strerror}",
                fix="write it as on a shell's command line: hetero top -- python app.py",
            ) from None

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self._process.pid

    @property
    def code(self) -> int | None:
        """Its exit code, 128 and the signal's number for one that a signal has ended; None while it runs."""
        code = self._process.poll()
        return 128 - code if code is not None and code < 0 else code

    def wait(self) -> int:
        """Wait for its end, and give its exit code."""
        self._process.wait()
        code = self.code
        assert code is not None
        return code

    def interrupt(self) -> None:
        """Pass Ctrl-C on and wait; whoever does not end for some seconds, or at a second Ctrl-C, is killed."""
        try:
            self._signal(signal.SIGINT)
            self._process.wait(_GRACE)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            self._signal(getattr(signal, "SIGKILL", signal.SIGTERM))
            self._process.wait()

    def tail(self, lines: int) -> list[str]:
        """The last lines of its output."""
        with contextlib.suppress(OSError), self.output.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL))
            return file.read().decode(errors="replace").splitlines()[-lines:]
        return []

    def __enter__(self) -> Started:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and self._process.poll() is None:
            self.interrupt()
        self._file.close()

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            if hasattr(os, "killpg"):
                os.killpg(self._process.pid, number)
            else:
                self._process.send_signal(number)
