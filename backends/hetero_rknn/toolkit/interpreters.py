"""A Python that the toolkit has wheels for."""

from __future__ import annotations

import functools
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from hetero.backend import Host
from hetero.errors import Unavailable
from hetero_rknn.toolkit.releases import MACHINES, PYTHONS

# `import ensurepip` fails where a distribution keeps it in a package of its own.
_ASK = "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2], sys.implementation.name)"


def find_python(host: Host) -> tuple[Path, str]:
    """A suitable interpreter: the running one, else one on the PATH, or that pyenv or uv has installed.

    Returns:
        It, and its version: `3.11`.

    Raises:
        Unavailable: There is none, or the toolkit does not run on this kind of machine at all.
    """
    machine = platform.machine()
    if not sys.platform.startswith("linux") or machine not in MACHINES:
        raise Unavailable(
            f"rknn-toolkit2 runs on Linux on {' or '.join(MACHINES)}, this is {sys.platform} on {machine}",
            fix="compile on such a machine and copy the bundle",
        )
    seen: list[str] = []
    for candidate in _candidates(host):
        version = _version(candidate)
        if version in PYTHONS:
            return candidate, version
        if version:
            seen.append(version)
    found = f"; found {', '.join(dict.fromkeys(seen))}" if seen else ""
    wanted = sorted(PYTHONS, key=lambda version: int(version.partition(".")[2]))
    raise Unavailable(
        f"rknn-toolkit2 needs Python {', '.join(wanted)} (with venv and ensurepip){found}",
        fix=f"install one (apt install python{PYTHONS[0]}-venv, uv python install {PYTHONS[0]}), or name an "
        "environment that has the toolkit in HETERO_RKNN_TOOLKIT",
    )


def _candidates(host: Host) -> Iterator[Path]:
    """Interpreters that may do, the likeliest first."""
    yield Path(getattr(sys, "_base_executable", None) or sys.executable)
    for version in PYTHONS:
        found = shutil.which(f"python{version}", path=host.environ.get("PATH"))
        if found:
            yield Path(found)
    home = host.environ.get("HOME")
    for version in PYTHONS if home else ():
        for pattern in (
            f".pyenv/versions/{version}.*/bin/python{version}",
            f".local/share/uv/python/cpython-{version}.*/bin/python{version}",
        ):
            yield from sorted(Path(home or "/").glob(pattern), reverse=True)


@functools.cache
def _version(python: Path) -> str:
    """An interpreter's version, when it is CPython and can make virtual environments, else empty."""
    try:
        answer = subprocess.run(
            [python, "-I", "-c", _ASK], capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    version, _, implementation = answer.stdout.strip().partition(" ")
    return version if answer.returncode == 0 and implementation == "cpython" else ""
