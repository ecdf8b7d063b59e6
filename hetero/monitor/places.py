"""Where the sockets of programs are, and who may have put them there.

A socket is in a folder that only its owner can enter, under the name `HOST-PID-TOKEN.sock`: the cache folder may be on
a file system that several machines share, and a number of a process may have been another's before.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from hetero.backend import Host
from hetero.errors import Unavailable

# `sun_path` has 108 bytes on Linux and 104 on others, the final zero among them.
_LONGEST = 103

_NAME = re.compile(r"(?P<host>.+)-(?P<pid>[0-9]+)-[0-9a-f]{8}\.sock")


def folders(host: Host) -> list[Path]:
    """Where sockets may be, first choice first: `XDG_RUNTIME_DIR/hetero`, else `monitor` in the cache folder."""
    runtime = host.environ.get("XDG_RUNTIME_DIR", "")
    places = [Path(runtime) / "hetero"] if os.path.isabs(runtime) else []
    return [*places, host.cache / "monitor"]


def folders_to_search(host: Host) -> list[Path]:
    """As `folders`; also the one that a login session would have, where this process is in none."""
    places = folders(host)
    if len(places) == 1 and hasattr(os, "getuid"):
        places.insert(0, host.sysroot / f"run/user/{os.getuid()}" / "hetero")
    return places


def make_folder(host: Host) -> Path:
    """The folder for a new socket.

    Raises:
        Unavailable: None of them can be used; why.
    """
    problems = []
    for folder in folders(host):
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            problems.append(f"{folder}: {error.strerror}")
            continue
        problem = _refusal(folder)
        if not problem:
            return folder
        problems.append(f"{folder}: {problem}")
    raise Unavailable(f"there is no folder for its socket: {'; '.join(problems)}", fix="set XDG_RUNTIME_DIR")


def new_name() -> str:
    """The name of this process's next socket."""
    return f"{_this_host()}-{os.getpid()}-{secrets.token_hex(4)}.sock"


def pid_of(path: Path) -> int:
    """The number of the process that has made a socket."""
    match = _NAME.fullmatch(path.name)
    return int(match["pid"]) if match else 0


def sockets(host: Host) -> list[Path]:
    """The sockets of this machine's programs of this user; some may belong to programs that have ended."""
    found = []
    for folder in folders_to_search(host):
        if not folder.is_dir() or _refusal(folder):
            continue
        for path in sorted(folder.iterdir()):
            match = _NAME.fullmatch(path.name)
            if match and match["host"] == _this_host() and _is_own_socket(path):
                found.append(path)
    return found


@contextlib.contextmanager
def address(path: Path) -> Iterator[str]:
    """What a socket of that path is bound or connected to: the path, or a shorter way there.

    Raises:
        Unavailable: The path is too long here.
    """
    if len(os.fsencode(path)) <= _LONGEST:
        yield str(path)
        return
    if not Path("/proc/self/fd").is_dir():
        raise Unavailable(
            f"the path of its socket is longer than the {_LONGEST} bytes that a socket's may have: {path}",
            fix="set XDG_RUNTIME_DIR or HETERO_CACHE_DIR to a shorter path",
        )
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _this_host() -> str:
    return re.sub(r"[^A-Za-z0-9.]", "_", socket.gethostname())[:32] or "host"


def _refusal(folder: Path) -> str:
    """Why a folder is not trusted: others may put sockets into it. Empty when all is well."""
    try:
        found = folder.lstat()
    except OSError as error:
        return error.strerror or str(error)
    if not stat.S_ISDIR(found.st_mode):
        return "it is no folder"
    if found.st_uid != os.geteuid():
        return "it belongs to another user"
    if found.st_mode & 0o022:
        return "others may write to it (chmod 700)"
    return "" if os.access(folder, os.W_OK | os.X_OK) else "it cannot be written to"


def _is_own_socket(path: Path) -> bool:
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISSOCK(found.st_mode) and found.st_uid == os.geteuid()
