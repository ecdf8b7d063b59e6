"""Finds the programs of this user that can be looked at, and asks them. Nobody is waited for longer than said."""

from __future__ import annotations

import contextlib
import errno
import json
import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hetero.backend import Host
from hetero.errors import HeteroError, InputError, Unavailable
from hetero.monitor.forms import of_json
from hetero.monitor.places import address, pid_of, sockets
from hetero.monitor.publishing import FORMAT, MARK, is_own
from hetero.monitor.status import RuntimeStatus

PATIENCE = 1.0
"""Seconds for which one program is waited for."""

_LARGEST = 16 << 20
_AT_ONCE = 16


@dataclass(frozen=True)
class Process:
    """A program, as it has answered.

    Attributes:
        pid: The number of its process.
        command: What it was started with.
        hetero: The version of hetero in it.
        run: The token of whoever has started it; empty for none.
        began: When it could first be asked, seconds since the epoch.
        runtimes: What its Runtimes are doing.
    """

    pid: int
    command: tuple[str, ...]
    hetero: str
    run: str
    began: float
    runtimes: tuple[RuntimeStatus, ...]


@dataclass(frozen=True)
class Silent:
    """A program that gave no answer, or none that can be read.

    Attributes:
        pid: The number of its process.
        reason: What came instead.
    """

    pid: int
    reason: str


def ask_all(host: Host, pid: int | None = None, patience: float = PATIENCE) -> list[Process | Silent]:
    """Ask every program of this user, or one, all at the same time.

    Sockets whose processes have ended are removed on the way.

    Args:
        host: The machine to look at.
        pid: Only this one.
        patience: Seconds for which each is waited for.

    Returns:
        In the order of their numbers.
    """
    found = [path for path in sockets(host) if pid is None or pid_of(path) == pid]
    answers = [answer for answer in _at_once(lambda path: _answer_of(path, patience), found) if answer is not None]
    return sorted(answers, key=lambda answer: answer.pid)


def ask(path: Path, patience: float = PATIENCE, clock: Callable[[], float] = time.monotonic) -> Process:
    """Ask one program.

    Args:
        path: Of its socket.
        patience: Seconds for the whole answer.
        clock: Seconds, for tests.

    Raises:
        ConnectionRefusedError: Nobody is behind the socket any more.
        Unavailable: No answer, or none in time.
        InputError: An answer that cannot be read.
    """
    until = clock() + patience
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(patience)
        try:
            with address(path) as where:
                connection.connect(where)
            if not is_own(connection):
                raise Unavailable("it is a process of another user")
            pieces, size = [], 0
            while True:
                left = until - clock()
                if left <= 0:
                    raise TimeoutError
                connection.settimeout(left)
                piece = connection.recv(1 << 16)
                if not piece:
                    break
                pieces.append(piece)
                size += len(piece)
                if size > _LARGEST:
                    raise InputError(f"its answer is longer than {_LARGEST} bytes")
        except (ConnectionRefusedError, FileNotFoundError) as error:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "nobody is there") from error
        except (TimeoutError, BlockingIOError):
            raise Unavailable(f"it did not answer within {patience:g} s: it is stopped, or very busy") from None
        except ConnectionError as error:
            raise Unavailable(f"it has ended, or broke off: {error.strerror}") from None
    return process_of(b"".join(pieces))


def process_of(answer: bytes) -> Process:
    """What a program has answered.

    Raises:
        InputError: It cannot be read; why.
    """
    if not answer:
        raise InputError("it broke off before it said anything")
    try:
        document: Any = json.loads(answer)
    except ValueError as error:
        raise InputError(f"its answer is no JSON: {error}") from None
    if not isinstance(document, dict) or MARK not in document:
        raise InputError("its answer is none of hetero's")
    if document[MARK] != FORMAT:
        raise InputError(
            f"it speaks format {document[MARK]!r} (hetero {document.get('hetero')}), this hetero knows {FORMAT}",
            fix="use the same version of hetero for both",
        )
    return of_json(Process, document, "its answer")


def _answer_of(path: Path, patience: float) -> Process | Silent | None:
    try:
        return ask(path, patience)
    except ConnectionRefusedError:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        return None
    except HeteroError as error:
        return Silent(pid_of(path), error.problem)
    except OSError as error:
        return Silent(pid_of(path), error.strerror or str(error))


def _at_once(asked: Callable[[Path], Process | Silent | None], paths: Sequence[Path]) -> list[Process | Silent | None]:
    if len(paths) <= 1:
        return [asked(path) for path in paths]
    with ThreadPoolExecutor(min(len(paths), _AT_ONCE), thread_name_prefix="hetero-top") as pool:
        return list(pool.map(asked, paths))
