"""Environments with a toolkit: one with the stand-in, and the real one where it is installed."""

from __future__ import annotations

import functools
import sys
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy
import pytest

import hetero
from hetero.backend import Device, Executable, Option, Program, Unavailable
from hetero_rknn.toolkit import environment, pc
from hetero_rknn.toolkit.backend import CompilingBackend

STAND_IN = Path(__file__).parent / "stand_in"


class Rknn(CompilingBackend):
    """A backend with the compiler and the simulator of the toolkit."""

    name = "rknn"
    simulates = (pc.MACHINE,)
    options: tuple[Option, ...] = pc.OPTIONS  # type: ignore[misc]

    def probe(self) -> Sequence[Device]:
        device = pc.probe(self.host)
        if device is None:
            raise Unavailable("this is no Rockchip board", fix="compile here, run there")
        return [device]

    def load(self, program: Program, device: Device, options: Mapping[str, Any]) -> Executable:
        return pc.load(program, device, options, self.host)


def make_environment(folder: Path, version: str = "2.5.0") -> Path:
    """A virtual environment with the stand-in, and with this environment's numpy, onnx and onnxruntime."""
    venv.create(folder, with_pip=False, symlinks=True)
    (packages,) = folder.glob("lib/python3*/site-packages")
    here = Path(numpy.__file__).parent.parent
    (packages / "stand_in.pth").write_text(f"{STAND_IN}\n{here}\n", encoding="utf-8")
    told = packages / f"rknn_toolkit2-{version}.dist-info"
    told.mkdir()
    (told / "METADATA").write_text(f"Metadata-Version: 2.1\nName: rknn-toolkit2\nVersion: {version}\n")
    return folder


def host_with(toolkit: Path, tmp_path: Path, **environ: str) -> hetero.Host:
    """A machine on which the user names that environment."""
    return hetero.Host(
        environ={environment.VARIABLE: str(toolkit), **environ}, sysroot=tmp_path / "root", cache=tmp_path / "cache"
    )


@functools.cache
def _real() -> str:
    """Why the real toolkit cannot be tested; empty when it can."""
    if not sys.platform.startswith("linux"):
        return "rknn-toolkit2 runs on Linux"
    try:
        found = environment.find(hetero.Host())
    except Unavailable as error:
        return error.problem
    return "" if found else "rknn-toolkit2 is not installed: HETERO_RKNN_TOOLKIT names no environment with it"


needs_toolkit = pytest.mark.skipif(bool(_real()), reason=_real() or "it is here")
