"""Whether a device computes rightly: its answers are compared with numpy's before anything else runs on it.

Drivers have answered wrongly without an error; the inputs are those on which they did: numbers near the ends of
float32, infinity, denormal ones, large arguments of exp and tanh.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hetero.errors import Unavailable
from hetero.tensors import Array
from hetero_vulkan.commands import Dispatch
from hetero_vulkan.warming import COMPILING

if TYPE_CHECKING:
    from hetero_vulkan.device import VulkanDevice

_SUBGROUP_OPERATIONS = 1 | 4 | 16
"""VkSubgroupFeatureFlags: basic, arithmetic, shuffle."""

_ROWS = (
    "x + y",
    "x * y",
    "fma(x, y, x)",
    "x / y",
    "max(x, y)",
    "min(x, y)",
    "floor(x)",
    "exp(x)",
    "tanh(x)",
    "inversesqrt(|y|)",
    "int(x)",
    "the bits of -x",
    "exp of any x",
    "tanh of any x",
    "x itself",
)
_FUSED, _TANGENT, _EXPONENTIAL_OF_ANY, _TANGENT_OF_ANY, _ITSELF = 2, 8, 12, 13, 14
_MUST = 12
"""So many rows must be right for every finite x; the rest are told as quirks."""

_TOLERANCE = 2e-5
"""Relative: exp may be off by 3 + 2 |x| units in the last place, and others less (Vulkan specification, chapter
"Precision and Operation of SPIR-V Instructions")."""

TIMEOUT = 30.0
"""Seconds; a software driver compiles besides, see `hetero_vulkan.warming`."""


def check_device(device: VulkanDevice) -> frozenset[str]:
    """Compare a device's answers with numpy's.

    Returns:
        Where it differs from numpy as Vulkan allows: `exp` (of large numbers), `tanh` (of large numbers), `infinity`
        (is not kept), `denormals` (become 0).

    Raises:
        Unavailable: It answers wrongly.
        BackendError: It does not answer.
    """
    x, y = _numbers()
    results, sums, whole = _asked(device, x, y)
    expected = _expected(x, y)
    scales = _scales(x, y, expected)
    for row in range(_MUST):
        wrong = _wrong(results[row], expected[row], scales[row]) & np.isfinite(x)
        if wrong.any():
            at = int(np.argmax(wrong))
            raise _refused(device, _ROWS[row], f"({x[at]:g}, {y[at]:g})", results[row, at], expected[row, at])
    right = whole.reshape(-1, 64).sum(axis=1)
    if not np.array_equal(sums, right):
        at = int(np.argmax(sums != right))
        raise _refused(device, "a sum through shared memory", f"workgroup {at}", sums[at], right[at])
    if device.physical.subgroup_operations & _SUBGROUP_OPERATIONS == _SUBGROUP_OPERATIONS:
        _check_subgroups(device, whole)
    return _quirks(x, results, expected, scales)


def _numbers() -> tuple[Array, Array]:
    tiny, huge = np.finfo(np.float32).tiny, np.finfo(np.float32).max
    extreme = [
        0.0,
        1e-40,
        tiny,
        1e-20,
        1.0,
        3.5,
        8.0,
        9.5,
        20.0,
        44.0,
        80.0,
        88.0,
        89.0,
        104.0,
        1e5,
        1e30,
        huge,
        np.inf,
    ]
    random = np.random.default_rng(0)
    ends = np.array([*extreme, *(-value for value in extreme)], np.float32)
    x = np.concatenate([ends, random.normal(0, 4, 200 - len(ends)).astype(np.float32)])
    y = random.uniform(0.5, 2, len(x)).astype(np.float32) * np.where(np.arange(len(x)) % 2, 1, -1).astype(np.float32)
    return x, y


def _asked(device: VulkanDevice, x: Array, y: Array) -> tuple[Array, Array, Array]:
    whole = np.zeros(256, np.int32)
    whole[: len(x)] = np.arange(len(x)) * 7919 - 500_000
    arrays = (x, y, whole, np.full((len(_ROWS), len(x)), np.nan, np.float32), np.full(4, -1, np.int32))
    pipeline = device.pipeline("selftest")
    buffers = [device.buffer(array.nbytes) for array in arrays]
    try:
        for buffer, array in zip(buffers, arrays, strict=True):
            buffer.write(array)
        with device.record([Dispatch(pipeline, buffers, (4, 1, 1), {"count": len(x)})]) as commands:
            commands.run(_patience(device))
        return buffers[3].read(np.float32, arrays[3].shape), buffers[4].read(np.int32, 4), whole
    finally:
        for buffer in buffers:
            buffer.free()


def _patience(device: VulkanDevice) -> float:
    return COMPILING if device.physical.software else TIMEOUT


def _check_subgroups(device: VulkanDevice, whole: Array) -> None:
    size = max(64, device.physical.subgroup)
    pipeline = device.pipeline("selftest_subgroup", {"local_size_x": size})
    groups = len(whole) // size
    with device.buffer(whole.nbytes) as source, device.buffer(16 * groups) as target:
        source.write(whole)
        with device.record([Dispatch(pipeline, [source, target], (groups, 1, 1))]) as commands:
            commands.run(_patience(device))
        answer = target.read(np.int32, (groups, 4))
    right = whole.reshape(groups, size).sum(axis=1)
    for column, what in enumerate(("a sum within subgroups", "a shuffle within subgroups")):
        if not np.array_equal(answer[:, column], right):
            at = int(np.argmax(answer[:, column] != right))
            raise _refused(device, what, f"workgroup {at}", answer[at, column], right[at])
    if answer[:, 2].any():
        raise _refused(device, "a shuffle within subgroups", "its lanes", answer[:, 2].max(), 0)


def _expected(x: Array, y: Array) -> Array:
    wide, other = x.astype(np.float64), y.astype(np.float64)
    with np.errstate(all="ignore"):
        rows = (
            wide + other,
            wide * other,
            wide * other + wide,
            wide / other,
            np.maximum(wide, other),
            np.minimum(wide, other),
            np.floor(wide),
            np.exp(np.clip(wide, -80, 80)),
            np.tanh(np.clip(wide, -9, 9)),
            1 / np.sqrt(np.abs(other)),
            np.trunc(np.clip(wide, -1000, 1000)),
            -wide,
            np.exp(wide),
            np.tanh(wide),
            wide,
        )
        expected: Array = np.stack(rows).astype(np.float32)
    return expected


def _scales(x: Array, y: Array, expected: Array) -> Array:
    """What an error is relative to."""
    scales: Array = np.abs(expected)
    # Vulkan's fma may round, and overflow, in between; its tanh is a quotient of sums of exponentials.
    with np.errstate(over="ignore"):
        scales[_FUSED] = np.abs(x * y) + np.abs(x)
    scales[[_TANGENT, _TANGENT_OF_ANY]] = 1
    return scales


def _wrong(answer: Array, expected: Array, scale: Array) -> Array:
    with np.errstate(all="ignore"):
        close = np.abs(answer - expected) <= _TOLERANCE * scale + np.finfo(np.float32).tiny
    # Beyond float32 a driver may give its largest number or infinity.
    beyond = np.isinf(expected) & (np.sign(answer) == np.sign(expected)) & (np.abs(answer) > 3e38)
    wrong: Array = ~(close | beyond)
    return wrong


def _quirks(x: Array, results: Array, expected: Array, scales: Array) -> frozenset[str]:
    exponential, tangent, itself = _EXPONENTIAL_OF_ANY, _TANGENT_OF_ANY, _ITSELF
    infinite, small = np.isinf(x), (np.abs(x) < np.finfo(np.float32).tiny) & (x != 0)
    found = {
        "exp": _wrong(results[exponential], expected[exponential], scales[exponential]).any(),
        "tanh": _wrong(results[tangent], expected[tangent], scales[tangent]).any(),
        "infinity": not np.array_equal(results[itself, infinite], expected[itself, infinite]),
        "denormals": not np.array_equal(results[itself, small], expected[itself, small]),
    }
    return frozenset(name for name, there in found.items() if there)


def _refused(device: VulkanDevice, what: str, where: str, answer: object, right: object) -> Unavailable:
    physical = device.physical
    return Unavailable(
        f"{device.name} ({physical.name}) computes wrongly: {what} of {where} is {answer}, expected {right}",
        fix=f"update the GPU's driver, which is {physical.driver} {physical.driver_info}".rstrip(),
    )
