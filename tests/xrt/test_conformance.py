"""The conformance kit on a simulated Phoenix: each way into XRT, each layout of buffers, each way to pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest

from hetero.backend import Host
from hetero.testing import BackendConformance
from hetero.testing.programs import reference_programs
from hetero.testing.xrt.stand_in import write_stand_in
from hetero_kernels import get, names
from hetero_xrt.backend import XrtBackend

# An NPU behind XRT takes compiled kernels, and no ONNX.
PROGRAMS = [program for program in reference_programs() if program.name.startswith("kernel-")]


class OnPhoenix(BackendConformance):
    backend = XrtBackend
    simulate = ("phoenix",)
    programs = PROGRAMS
    xrt = "2.20"
    stand_ins: ClassVar[dict[str, Any]] = {}
    """What compiled kernels there are; empty for those that the backend makes itself."""

    # The program that must fail is an ONNX model.
    test_a_call_that_must_fail_raises_an_error_of_hetero_and_does_no_harm = None  # type: ignore[assignment]

    @pytest.fixture
    def host(self, tmp_path: Path) -> Host:
        """A laptop with that version of XRT, whose tiles take little time."""
        environ = {"HETERO_SIM_XRT": f"xrt={self.xrt};tile_us=300;context_us=1000;switch_us=100"}
        if self.stand_ins:
            for kernel in names():
                write_stand_in(tmp_path / "kernels" / kernel, get(kernel).program(), **self.stand_ins)
            environ["HETERO_XRT_KERNELS"] = str(tmp_path / "kernels")
        return Host(environ=environ, cache=tmp_path / "cache", simulate=("phoenix",))


class TestWithoutContexts(OnPhoenix):
    """XRT up to 2.15: `load_xclbin`, a context that XRT makes itself."""

    xrt = "2.13"


class TestFirstContexts(OnPhoenix):
    xrt = "2.16"


class TestNewest(OnPhoenix):
    xrt = "2.23"


class TestABufferForEachColumn(OnPhoenix):
    stand_ins: ClassVar[dict[str, Any]] = {"columns": 4, "tiles_per_launch": 8, "layout": "separate"}


class TestABufferForEachColumnWithoutContexts(OnPhoenix):
    xrt = "2.13"
    stand_ins: ClassVar[dict[str, Any]] = {
        "columns": 2,
        "tiles_per_launch": 4,
        "layout": "separate",
        "order": "interleaved",
        "fill": "repeat",
    }


class TestFourContextsOfOneColumn(OnPhoenix):
    xrt = "2.23"
    options: ClassVar[dict[str, Any]] = {"pipeline": "contexts"}
    stand_ins: ClassVar[dict[str, Any]] = {"columns": 1, "tiles_per_launch": 1}


class TestThreads(OnPhoenix):
    options: ClassVar[dict[str, Any]] = {"pipeline": "threads"}
    stand_ins: ClassVar[dict[str, Any]] = {"columns": 1, "tiles_per_launch": 2}


class TestOneAtATime(OnPhoenix):
    options: ClassVar[dict[str, Any]] = {"pipeline": "off"}
