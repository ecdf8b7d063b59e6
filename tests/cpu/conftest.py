"""Programs loaded by the CPU backend itself, without a Runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hetero
from hetero.onnx_file import open_onnx
from hetero_cpu.backend import CpuBackend
from hetero_cpu.executable import OrtExecutable

Load = Callable[..., OrtExecutable]


@pytest.fixture
def load(host: hetero.Host) -> Iterator[Load]:
    """`load(path, threads=1, ...)` gives the executable of an .onnx file; closed when the test ends."""
    pytest.importorskip("onnxruntime")
    made: list[OrtExecutable] = []

    def make(path: Path, *, host: hetero.Host = host, **options: Any) -> OrtExecutable:
        backend = CpuBackend(host)
        (device,) = backend.probe()
        executable = backend.load(open_onnx(path), device, options)
        assert isinstance(executable, OrtExecutable)
        made.append(executable)
        return executable

    yield make
    for executable in made:
        executable.close()


def call(executable: hetero.Executable, lane: int = 0, **inputs: Any) -> dict[str, np.ndarray[Any, Any]]:
    return dict(executable.run(inputs, hetero.Call(lane)))
