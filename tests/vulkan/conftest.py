"""Devices that must end without a message of the validation layer and without a handle that is left."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hetero.errors import BackendError
from hetero_kernels.vulkan import spirv
from hetero_vulkan.api import Vulkan
from hetero_vulkan.device import VulkanDevice
from hetero_vulkan.instance import VALIDATION, Instance
from tests.vulkan.machine import Faults, Machine


@pytest.fixture(scope="session")
def validated() -> bool:
    """Whether the validation layer is here; skips where Vulkan or a driver is not."""
    try:
        instance = Instance(Vulkan())
    except BackendError as error:
        pytest.skip(f"no Vulkan here: {error.problem}")
    there = bool(instance.physical_devices())
    vulkan = instance.vulkan
    layers = vulkan.enumerate(
        "VkLayerProperties",
        lambda count, found: vulkan.functions.vkEnumerateInstanceLayerProperties(count, found),
        "asking for layers",
    )
    instance.close()
    if not there:
        pytest.skip("no Vulkan driver here (apt install mesa-vulkan-drivers)")
    return VALIDATION in {vulkan.text(layer.layerName) for layer in layers}


@pytest.fixture
def messages() -> list[str]:
    """What the validation layer said."""
    return []


@pytest.fixture
def faults() -> Faults:
    """What goes wrong in this test."""
    return Faults()


@pytest.fixture
def machine(tmp_path: Path, validated: bool, messages: list[str], faults: Faults) -> Iterator[Machine]:
    """Vulkan; when the test ends nothing of it may be left."""
    machine = Machine(tmp_path, messages.append if validated else None, faults)
    yield machine
    faults.heal()
    machine.instance.close()
    assert dict(machine.vulkan.live) == {}
    assert messages == []


@pytest.fixture
def device(machine: Machine) -> Iterator[VulkanDevice]:
    """The device, opened."""
    with machine.open() as device:
        yield device


@pytest.fixture
def without_barriers() -> Callable[[str], bytes]:
    """Gives the SPIR-V of a shader with every OpControlBarrier taken out."""

    def cut(name: str) -> bytes:
        code = spirv(name)
        words = struct.unpack(f"<{len(code) // 4}I", code)
        kept, at, barriers = list(words[:5]), 5, 0
        while at < len(words):
            length = words[at] >> 16
            if words[at] & 0xFFFF == 224:
                barriers += 1
            else:
                kept += words[at : at + length]
            at += length
        assert barriers
        return struct.pack(f"<{len(kept)}I", *kept)

    return cut


MakeDevice = Callable[..., VulkanDevice]
