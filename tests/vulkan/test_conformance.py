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
PROGRAMS = [program for program in reference_programs() if not program.name.startswith("kernel-")]


class TestWhole(BackendConformance):
    backend = VulkanBackend
    programs = PROGRAMS

    @pytest.fixture
    def host(self, tmp_path: Path, validated: bool) -> Host:
        return Host(environ={VARIABLE: WHICH}, cache=tmp_path / "cache")


class TestInParts(TestWhole):
    options: ClassVar[dict[str, Any]] = {"partition": "allow"}
