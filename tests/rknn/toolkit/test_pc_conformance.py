"""The simulator as a device keeps the contract: the conformance kit on the stand-in for the toolkit."""

from __future__ import annotations

from pathlib import Path

import pytest

from hetero.testing import BackendConformance
from hetero.testing.programs import reference_programs
from hetero_rknn.toolkit import environment, pc
from tests.rknn.toolkit.environments import Rknn


class TestPc(BackendConformance):
    backend = Rknn
    simulate = (pc.MACHINE,)
    # Kernels are no ONNX models, and the toolkit takes no inputs without a dimension.
    programs = tuple(p for p in reference_programs() if p.name != "scalar" and not p.name.startswith("kernel-"))

    # The installed `rknn` is another class; and nothing is polled.
    test_is_found_by_its_name = None  # type: ignore[assignment]
    test_a_ticket_can_be_polled = None  # type: ignore[assignment]

    @pytest.fixture(autouse=True)
    def _named(self, toolkit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(environment.VARIABLE, str(toolkit))
