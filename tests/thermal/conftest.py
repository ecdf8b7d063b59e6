"""Boards made of files, on a clock that tests move."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hetero.backend import Device, Host
from hetero.testing.thermal.machine import ThermalMachine
from hetero.testing.thermal.sysroots import Sysroot

NPU = Device("npu", "npu", lanes=3)
GPU = Device("gpu", "gpu")
CPU = Device("cpu", "cpu")


@pytest.fixture
def board(tmp_path: Path) -> Callable[[str], Sysroot]:
    """The files of a board, by its name."""
    return lambda name: Sysroot(tmp_path / "root", name)


@pytest.fixture
def machine(tmp_path: Path) -> Callable[..., ThermalMachine]:
    """A board that gets warm, by its name; its time moves in `advance` alone."""
    return lambda name, **options: ThermalMachine(tmp_path / "root", name, **options)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """The machine whose files are in the fixtures' root."""
    return Host(environ={}, sysroot=tmp_path / "root", cache=tmp_path / "cache")


class Faults:
    """Makes reading some files fail, or temperatures in them be others, by the name of the file or its end."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.errors: dict[str, OSError] = {}
        self.degrees: dict[str, float] = {}
        self.read: list[str] = []
        read = Path.read_text

        def text(path: Path, *args: object, **options: object) -> str:
            self.read.append(path.as_posix())
            for end, error in self.errors.items():
                if path.as_posix().endswith(end):
                    raise error
            said = read(path, *args, **options)  # type: ignore[arg-type]
            for end, more in self.degrees.items():
                if path.as_posix().endswith(end):
                    return str(int(said) + round(1000 * more))
            return said

        monkeypatch.setattr(Path, "read_text", text)


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Faults:
    """Reading fails where a test says so; and what was read is noted."""
    return Faults(monkeypatch)
