"""The toolkit's virtual environment: one in the cache folder, made on first use, or one that the user names."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hetero.backend import Host
from hetero.cache import building
from hetero.errors import Unavailable
from hetero_rknn.toolkit import torch_standin
from hetero_rknn.toolkit.interpreters import find_python
from hetero_rknn.toolkit.process import SCRATCH_PREFIX, Worker
from hetero_rknn.toolkit.releases import NEWEST, Release

_log = logging.getLogger(__name__)

#: Names an environment (a folder, or its interpreter) that is used in place of hetero's own.
VARIABLE = "HETERO_RKNN_TOOLKIT"
#: In the cache folder.
FOLDER = "rknn-toolkit2"

# Bytes: the environment takes 0.65 GB, what pip downloads and unpacks for a while 0.35 GB more.
_NEEDED = 1_000_000_000
_MARK = "hetero-environment.json"
_LINES = 12
_KEPT_LOGS = 20
_ABANDONED = 24 * 3600.0  # seconds
_NETWORK = (
    "Temporary failure in name resolution",
    "Name or service not known",
    "Failed to establish a new connection",
    "Network is unreachable",
    "Connection refused",
    "Could not fetch URL",
    "Read timed out",
    "ProxyError",
)

#: Told about a stage and how much of it is done, from 0 to 1.
Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Environment:
    """A Python environment with the toolkit.

    Attributes:
        python: Its interpreter.
        version: Of the toolkit.
    """

    python: Path
    version: str


def version_of(host: Host) -> str:
    """The version of the toolkit that would be used; nothing is made or started.

    Raises:
        Unavailable: The environment that the user names holds no toolkit.
    """
    named = _named(host)
    return named.version if named is not None else NEWEST.version


def find(host: Host) -> Environment | None:
    """The environment, when it is there; nothing is made.

    Raises:
        Unavailable: The environment that the user names holds no toolkit, or there is no Python to make one with.
    """
    named = _named(host)
    if named is not None:
        return named
    return _ready(_place(host, NEWEST, find_python(host)[1]), NEWEST)


def prepare(host: Host, progress: Progress) -> Environment:
    """The environment, made when it is not there: minutes and 0.65 GB, once.

    Any number of processes may ask at once; one makes it, the others wait. What was left half-made is made again.

    Raises:
        Unavailable: It cannot be made: no Python, network or space; the reason, the fix, and where pip's log is.
    """
    found = find(host)
    if found is not None:
        return found
    python, python_version = find_python(host)
    place = _place(host, NEWEST, python_version)
    place.parent.mkdir(parents=True, exist_ok=True)
    with _alone(place, progress):
        found = _ready(place, NEWEST)
        if found is None:
            _remove_half_made(place)
            found = _make(host, place, NEWEST, python, progress)
    return found


def new_log(host: Host, name: str) -> Path:
    """A file for what the toolkit prints; old ones are removed."""
    folder = host.cache / FOLDER / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    logs = sorted(folder.glob("*.log"), key=_modified)
    for old in logs[: max(0, len(logs) - _KEPT_LOGS + 1)]:
        old.unlink(missing_ok=True)
    return folder / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}-{time.monotonic_ns() % 1_000_000:06}.log"


def _modified(file: Path) -> float:
    """Seconds; 0 for a file that another process has just removed."""
    try:
        return file.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def scratch(host: Host) -> Path:
    """A folder for working folders, which may take gigabytes; what processes that were killed have left goes first."""
    folder = host.cache / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(f"{SCRATCH_PREFIX}*"):
        with contextlib.suppress(OSError):  # another process may be at it too
            if time.time() - left.stat().st_mtime > _ABANDONED:
                shutil.rmtree(left)
    return folder


def _named(host: Host) -> Environment | None:
    """The environment that the user names."""
    text = host.environ.get(VARIABLE, "")
    if not text:
        return None
    path = Path(text).expanduser()
    python = path / "bin" / "python" if path.is_dir() else path
    if not python.is_file():
        raise Unavailable(
            f"{VARIABLE} is {text!r}: there is no {python}", fix="name a virtual environment's folder, or unset it"
        )
    found = sorted(python.parent.parent.glob("lib/python3*/site-packages/rknn_toolkit2-*.dist-info"))
    if not found:
        raise Unavailable(
            f"{VARIABLE} is {text!r}: rknn-toolkit2 is not installed there",
            fix=f"{python} -m pip install rknn-toolkit2, or unset {VARIABLE}: hetero then makes an environment",
        )
    return Environment(python, found[-1].name.removeprefix("rknn_toolkit2-").removesuffix(".dist-info"))


def _place(host: Host, release: Release, python_version: str) -> Path:
    return host.cache / FOLDER / f"{release.version}-py{python_version}"


def _ready(place: Path, release: Release) -> Environment | None:
    """The environment at that place, when it is whole: the mark is written last."""
    python = place / "bin" / "python"
    return Environment(python, release.version) if (place / _MARK).is_file() and python.exists() else None


@contextlib.contextmanager
def _alone(place: Path, progress: Progress) -> Iterator[None]:
    """Keep other processes (and threads) from making the same environment. The lock ends with the process."""
    with (place.parent / f".{place.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("wait for another process, which makes the environment", 0.0)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _remove_half_made(place: Path) -> None:
    """What processes that were killed have left: nobody else is at work while the lock is held."""
    for half in [*place.parent.glob(f".{place.name}.*"), place]:
        if half.is_dir():
            shutil.rmtree(half, ignore_errors=True)


def _make(host: Host, place: Path, release: Release, python: Path, progress: Progress) -> Environment:
    free = shutil.disk_usage(place.parent).free
    if free < _NEEDED:
        raise Unavailable(
            f"rknn-toolkit2 needs {_NEEDED / 1e9:.0f} GB for its environment, {place.parent} has {free / 1e9:.1f} GB",
            fix="make room, or set HETERO_CACHE_DIR to a folder elsewhere",
        )
    log = new_log(host, "install")
    _log.info("making an environment for rknn-toolkit2 %s in %s, log in %s", release.version, place, log)
    started = time.monotonic()
    with building(place) as workspace:
        progress(f"make an environment for rknn-toolkit2 {release.version}", 0.0)
        _run([str(python), "-I", "-m", "venv", str(workspace)], log, lambda line: None)
        pip = [str(workspace / "bin" / "python"), "-I", "-m", "pip", "install", "--no-input", "--progress-bar", "off"]
        pip += ["--disable-pip-version-check", "--no-compile", "--only-binary", ":all:"]
        # `--no-deps` for the toolkit, whose list has PyTorch and an OpenCV with windows in it.
        wanted: tuple[tuple[list[str], tuple[str, ...]], ...]
        wanted = ([], release.requirements), (["--no-deps"], (f"rknn-toolkit2=={release.version}",))
        count = sum(len(names) for _, names in wanted) * 2
        told = 0

        def follow(line: str) -> None:
            nonlocal told
            if line.startswith(("Collecting ", "Installing ")):
                told += 1
                what = line.split()[1] if line.startswith("Collecting ") else "unpack"
                progress(f"install rknn-toolkit2 {release.version}: {what}", min(0.9, told / count))

        for flags, names in wanted:
            _run([*pip, *flags, *names], log, follow)
        _stand_in(workspace)
        progress("try the toolkit", 0.95)
        with Worker(workspace / "bin" / "python", log, place.parent) as worker:
            versions = worker.try_toolkit()
        content = {**versions, "seconds": round(time.monotonic() - started, 1)}
        (workspace / _MARK).write_text(json.dumps(content, indent=1), encoding="utf-8")
    progress("try the toolkit", 1.0)
    return Environment(place / "bin" / "python", release.version)


def _stand_in(environment: Path) -> None:
    """Put the stand-in for PyTorch where PyTorch would be."""
    (packages,) = environment.glob("lib/python3*/site-packages")
    source = Path(torch_standin.__file__).read_text(encoding="utf-8")
    for module in ("torch", "torch/nn"):
        (packages / module).mkdir()
        (packages / module / "__init__.py").write_text(source, encoding="utf-8")


def _run(command: list[str], log: Path, follow: Callable[[str], None]) -> None:
    """Run a step, its output to the log and line by line to `follow`.

    Raises:
        Unavailable: It failed; why, as far as its words tell.
    """
    # pip's own settings (an index, a proxy) count; what would lead Python elsewhere does not.
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    lines: list[str] = []
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ {' '.join(command)}\n")
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environ,
        ) as process:
            try:
                for line in process.stdout or ():
                    file.write(line)
                    lines.append(line.rstrip())
                    follow(line.strip())
            except BaseException:
                process.kill()
                raise
    if process.returncode:
        raise _cannot_install("\n".join(lines), lines, log)


def _cannot_install(said: str, lines: list[str], log: Path) -> Unavailable:
    if "No space left on device" in said:
        return Unavailable(
            f"there is no space left for the environment of rknn-toolkit2 (log: {log})",
            fix="make room, or set HETERO_CACHE_DIR to a folder elsewhere",
        )
    if any(words in said for words in _NETWORK):
        return Unavailable(
            f"the packages of rknn-toolkit2 cannot be fetched: no network, or the index does not answer (log: {log})",
            fix=f"try again with a network (pip's settings count), or name an environment that has it in {VARIABLE}",
        )
    last = [line for line in lines if line][-_LINES:]
    errors = [line.removeprefix("ERROR: ") for line in last if line.startswith("ERROR: ")]
    return Unavailable(
        f"the environment of rknn-toolkit2 cannot be made: {'; '.join(errors) or last[-1] if last else 'no word why'} "
        f"(log: {log})",
        fix=f"the log tells more; or name an environment that has the toolkit in {VARIABLE}",
    )
