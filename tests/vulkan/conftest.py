"""Devices that must end without a message of the validation layer and without a handle that is left."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from hetero.errors import BackendError
from hetero.tensors import Array
from hetero_kernels.vulkan import spirv
from hetero_vulkan.api import Vulkan
from hetero_vulkan.device import VulkanDevice
from hetero_vulkan.executable import GraphExecutable
from hetero_vulkan.holder import DeviceHolder
from hetero_vulkan.instance import VALIDATION, Instance
from tests.vulkan.machine import Faults, Machine

WHOLE = {"timeout": None, "partition": "forbid", "plans": 4, "tune": False}
"""Options of the backend, for a model that must run on the device alone."""


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
def load(machine: Machine, faults: Faults) -> Iterator[Callable[..., GraphExecutable]]:
    """Loads an ONNX file for the shapes of some inputs, wholly on the device, and closes it when the test ends."""
    from hetero.onnx_file import open_onnx
    from hetero_vulkan.onnx_program import load_onnx

    holder = DeviceHolder(machine.instance, machine.choice, machine.folder, faults.clock)
    made: list[GraphExecutable] = []

    def load(path: Path, inputs: Mapping[str, Array], **options: Any) -> GraphExecutable:
        program = open_onnx(path)
        sizes = {
            dim: size
            for spec in program.inputs
            for dim, size in zip(spec.shape or (), inputs[spec.name].shape, strict=True)
            if isinstance(dim, str)
        }
        made.append(load_onnx(dataclasses.replace(program, sizes=sizes), holder, None, {**WHOLE, **options}))
        return made[-1]

    yield load
    for executable in made:
        executable.close()
    holder.close()


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
