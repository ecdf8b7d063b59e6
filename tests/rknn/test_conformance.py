"""The conformance kit on a simulated RK3588, over both drivers."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, ClassVar

import pytest

from hetero.backend import Host
from hetero.cache import cache_dir
from hetero.testing import BackendConformance
from hetero.testing.programs import reference_programs
from hetero_rknn.backend import RknnBackend
from tests.rknn.sim_models import simulated_library

pytest.importorskip("onnxruntime")

# An NPU takes fixed shapes, and no kernels.
PROGRAMS = [
    program
    for program in reference_programs()
    if program.name not in ("dynamic-batch", "zero-size") and not program.name.startswith("kernel-")
]


class OnBoard(BackendConformance):
    backend = RknnBackend
    simulate = ("rk3588",)
    programs = PROGRAMS

    # Its executables block, and its lengths are fixed.
    test_a_ticket_can_be_polled = None  # type: ignore[assignment]
    test_a_call_that_must_fail_raises_an_error_of_hetero_and_does_no_harm = None  # type: ignore[assignment]


class TestLite(OnBoard):
    options: ClassVar[dict[str, Any]] = {"driver": "lite"}
    # The vendor's class takes no inputs without a dimension.
    programs = tuple(program for program in PROGRAMS if program.name != "scalar")


class TestCapi(OnBoard):
    options: ClassVar[dict[str, Any]] = {"driver": "capi"}

    @pytest.fixture
    def host(self, tmp_path: Path) -> Host:
        """With the library that is built once for all tests."""
        simulated_library()
        shutil.copytree(cache_dir() / "simulators", tmp_path / "cache" / "rknn")
        return Host(environ={}, cache=tmp_path / "cache", simulate=("rk3588",))
