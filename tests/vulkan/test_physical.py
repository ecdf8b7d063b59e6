"""What is read of drivers that are not here, and the opening of a device in one call."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import pytest

import hetero
from hetero.errors import Unavailable
from hetero_vulkan.choosing import VARIABLE
from hetero_vulkan.opening import open_device
from hetero_vulkan.physical import CooperativeMatrix, _matrices
from tests.vulkan.machine import WHICH, Faults, Machine

SUBGROUP, WORKGROUP = 3, 2


def test_shapes_of_cooperative_matrices_are_read_with_their_types(machine: Machine) -> None:
    told = [(16, 16, 16, 0, 0, 1, SUBGROUP), (8, 8, 32, 3, 3, 5, SUBGROUP), (32, 32, 16, 0, 0, 0, WORKGROUP)]

    def answer(handle: Any, count: Any, entries: Any) -> int:
        count[0] = len(told)
        for index, (m, n, k, a, b, c, scope) in enumerate(told if entries != machine.vulkan.NULL else ()):
            entry = entries[index]
            assert entry.sType == machine.vulkan.constant("VK_STRUCTURE_TYPE_COOPERATIVE_MATRIX_PROPERTIES_KHR")
            entry.MSize, entry.NSize, entry.KSize, entry.AType, entry.BType, entry.CType = m, n, k, a, b, c
            entry.ResultType, entry.scope = c, scope
        return 0

    functions = types.SimpleNamespace(vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR=answer)
    instance: Any = types.SimpleNamespace(vulkan=machine.vulkan, functions=functions)
    assert _matrices(instance, None) == (
        CooperativeMatrix(16, 16, 16, "f16", "f16", "f32"),
        CooperativeMatrix(8, 8, 32, "i8", "i8", "i32"),
    )


def test_more_entries_than_a_driver_told_at_first_are_asked_for_again(machine: Machine) -> None:
    answers = iter([(2, 0), (1, 5), (3, 0), (3, 0)])  # counts and results; 5: VK_INCOMPLETE

    def answer(count: Any, found: Any) -> int:
        count[0], result = next(answers)
        return result

    assert len(machine.vulkan.enumerate("VkPhysicalDevice", answer, "looking")) == 3


def test_a_device_is_opened_in_one_call_and_takes_all_with_it(
    validated: bool, messages: list[str], tmp_path: Path
) -> None:
    host = hetero.Host(environ={VARIABLE: WHICH}, sysroot=tmp_path, cache=tmp_path)
    with open_device(host=host, validate=messages.append if validated else None) as device:
        live = device.vulkan.live
        device.pipeline("add")
    assert dict(live) == {}
    assert messages == []


def test_a_device_that_is_not_there_is_told(validated: bool, faults: Faults) -> None:
    with pytest.raises(Unavailable, match="names 'no such GPU'"):
        open_device("no such GPU", wrap=faults)
    assert faults.calls["vkCreateInstance"] == faults.calls["vkDestroyInstance"]


def test_the_validation_layer_is_heard(machine: Machine, validated: bool, messages: list[str]) -> None:
    """Every other test here counts on it: a message fails them."""
    if not validated:
        pytest.skip("no validation layer here (apt install vulkan-validationlayers)")
    vulkan = machine.vulkan
    with machine.open() as device:
        made = vulkan.ffi.new("VkFence *")
        info = vulkan.new("VkFenceCreateInfo", flags=0xF0)
        device.check(device.functions.vkCreateFence(device.handle, info, vulkan.NULL, made), "making a fence")
        device.functions.vkDestroyFence(device.handle, made[0], vulkan.NULL)
    assert "VkFenceCreateInfo" in messages[0]
    messages.clear()
