"""The conformance kit on a Vulkan device: the whole model on the device, and with parts of it on the host."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest

from hetero.backend import Host
from hetero.testing import BackendConformance
from hetero.testing.programs import reference_programs
from hetero_vulkan.backend import VulkanBackend
from hetero_vulkan.choosing import VARIABLE
from tests.vulkan.machine import WHICH

# Kernels of plugins are programs without ONNX.
PROGRAMS = [p for p in reference_programs() if not p.name.startswith("kernel-")]
# Without matrices a program in int8 or with weights in fp16 is what it is without.
OF_MATRICES = [p for p in PROGRAMS if p.name in ("matmul", "dynamic-batch")]


class TestWhole(BackendConformance):
    backend = VulkanBackend
    programs = PROGRAMS
    test_a_ticket_can_be_polled = None  # type: ignore[assignment]  # executables block in run()

    @pytest.fixture
    def host(self, tmp_path: Path, validated: bool) -> Host:
        return Host(environ={VARIABLE: WHICH}, cache=tmp_path / "cache")


class TestInParts(TestWhole):
    options: ClassVar[dict[str, Any]] = {"partition": "allow"}


class TestHalf(TestWhole):
    options: ClassVar[dict[str, Any]] = {"precision": "fp16-fp16"}


class TestHalfWeights(TestWhole):
    programs = OF_MATRICES
    options: ClassVar[dict[str, Any]] = {"precision": "fp16"}


class TestEight(TestWhole):
    programs = OF_MATRICES
    options: ClassVar[dict[str, Any]] = {"precision": "int8-fp16"}
    tolerance = 0.02
