from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import hetero
from hetero.backend import Backend, Executable, Program
from hetero.isolation import isolated
from hetero.options import check_options
from tests.isolation.backends import Crashing, Pipes, echo


@pytest.fixture
def pipes(tmp_path: Path) -> Pipes:
    return Pipes(tmp_path)


@pytest.fixture
def make_backend(host: hetero.Host) -> Iterator[Callable[..., Backend]]:
    """Makes isolated backends, and closes them."""
    made: list[Backend] = []

    def make(factory: Any = Crashing, **settings: Any) -> Backend:
        made.append(isolated(factory, **settings)(host))
        return made[-1]

    yield make
    for backend in made:
        backend.close()


@pytest.fixture
def backend(make_backend: Callable[..., Backend]) -> Backend:
    return make_backend()


def load(backend: Backend, program: Program | None = None, **options: Any) -> Executable:
    executable = backend.load(
        program or echo(), backend.probe()[0], check_options(backend.name, backend.options, options)
    )
    assert isinstance(executable, Executable)
    return executable


def wait_for_end(pid: int, limit: float = 60.0) -> None:
    """Until the process has ended; it need not be a child of this one."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        ended, _, _ = select.select([descriptor], [], [], limit)
        assert ended, f"process {pid} is still running"
    finally:
        os.close(descriptor)


def shared_blocks() -> int:
    """How many blocks of shared memory this process has mapped or open."""
    mapped = sum("memfd:hetero-isolation" in line for line in Path("/proc/self/maps").read_text().splitlines())
    opened = 0
    for entry in Path("/proc/self/fd").iterdir():
        try:
            opened += "memfd:hetero-isolation" in os.readlink(entry)
        except OSError:
            continue
    return mapped + opened
