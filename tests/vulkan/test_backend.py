"""The backend: what it finds, what it says when there is nothing, and its place in a Runtime."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

import hetero
from hetero.errors import DeviceLost, OutOfMemory, Unavailable, Unsupported
from hetero.scheduler.reasons import reason_of
from hetero_cpu.backend import CpuBackend
from hetero_kernels import get
from hetero_vulkan.backend import VulkanBackend, described
from hetero_vulkan.choosing import VARIABLE, Choice
from hetero_vulkan.physical import CooperativeMatrix, QueueFamily
from tests.models import double, save, tensor
from tests.vulkan.machine import LOST, NO_MEMORY, WHICH, Faults, made_up

MakeBackend = Callable[..., VulkanBackend]


@pytest.fixture
def make_backend(host: hetero.Host, validated: bool, faults: Faults, messages: list[str]) -> Iterator[MakeBackend]:
    """Makes backends for this machine; when the test ends nothing of theirs may be left."""
    made: list[VulkanBackend] = []
    node = host.sysroot / "dev/dri/renderD128"
    node.parent.mkdir(parents=True)
    node.touch()

    def make(host: hetero.Host = host, **environ: str) -> VulkanBackend:
        host = hetero.Host(environ={VARIABLE: WHICH, **environ}, sysroot=host.sysroot, cache=host.cache)
        made.append(
            VulkanBackend(host, wrap=faults, validate=messages.append if validated else None, clock=faults.clock)
        )
        return made[-1]

    yield make
    for backend in made:
        backend.close()
    ended = {name: count for name, count in faults.calls.items() if name in ("vkCreateInstance", "vkDestroyInstance")}
    assert ended.get("vkCreateInstance", 0) == ended.get("vkDestroyInstance", 0)
    assert faults.calls.get("vkCreateDevice", 0) == faults.calls.get("vkDestroyDevice", 0)
    assert messages == []


def test_a_device_is_told_with_what_people_ask_for(make_backend: MakeBackend) -> None:
    device = make_backend().probe()[0]
    assert device.name == "vulkan:0"
    assert device.kind == "gpu"
    assert not device.simulated
    assert device.lanes >= 1
    told = device.properties
    assert {"Vulkan", "driver", "type", "UUID", "subgroups", "storage", "arithmetic", "memory"} <= told.keys()
    assert told["software"] == (told["type"] == "cpu")
    assert any("software" in note for note in device.notes) == told["software"]
    json.dumps(dict(told))


def test_software_is_used_only_when_it_is_named(make_backend: MakeBackend) -> None:
    named = make_backend(**{VARIABLE: "all"}).probe()
    gpus = [device for device in named if not device.properties["software"]]
    unnamed = make_backend(**{VARIABLE: ""})
    if gpus:
        assert unnamed.probe() == gpus
    else:
        with pytest.raises(Unavailable, match="only software"):
            unnamed.probe()


def test_looking_for_devices_opens_none_and_may_be_repeated(make_backend: MakeBackend, faults: Faults) -> None:
    backend = make_backend()
    assert backend.probe() == backend.probe()
    assert "vkCreateDevice" not in faults.calls


def test_a_card_is_described_by_its_queues_and_matrices() -> None:
    card = made_up(
        sort="discrete",
        queues=(QueueFamily(1, 8, False, 64), QueueFamily(0, 1, True, 64)),
        matrices=(CooperativeMatrix(16, 16, 16, "f16", "f16", "f32"),),
        features=dict.fromkeys(
            (
                "storageBuffer16BitAccess",
                "storageBuffer8BitAccess",
                "shaderFloat16",
                "shaderInt8",
                "shaderIntegerDotProduct",
                "timelineSemaphore",
            ),
            True,
        ),
        limits=dict.fromkeys(
            (
                "maxComputeSharedMemorySize",
                "maxComputeWorkGroupInvocations",
                "maxStorageBufferRange",
                "maxMemoryAllocationSize",
                "minImportedHostPointerAlignment",
            ),
            4096,
        ),
    )
    device = described(Choice(0, card, ("also served by amdvlk, which is not used",)))
    assert device.lanes == 4
    assert device.properties["queues"] == "8 for compute alone"
    assert device.properties["cooperative matrices"] == "16x16x16 f16*f16+f32"
    assert device.properties["subgroups"] == "64 (32 to 64)"
    assert device.properties["arithmetic"] == "fp32, fp16, int8, int8 dot product"
    assert device.notes == ("also served by amdvlk, which is not used",)


def test_a_machine_without_a_gpu_loads_no_driver(host: hetero.Host, faults: Faults) -> None:
    backend = VulkanBackend(host, wrap=faults)
    with pytest.raises(Unavailable, match="the kernel shows no GPU"):
        backend.probe()
    assert faults.calls == {}


@pytest.fixture
def named(host: hetero.Host) -> hetero.Host:
    """A machine whose user has named a device."""
    return hetero.Host(environ={VARIABLE: "all"}, sysroot=host.sysroot, cache=host.cache)


def test_no_python_package_is_told(named: hetero.Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vulkan", None)
    monkeypatch.delitem(sys.modules, "vulkan._vulkan", raising=False)
    with pytest.raises(Unavailable, match="package vulkan cannot be imported") as caught:
        VulkanBackend(named).probe()
    assert "hetero[vulkan]" in caught.value.fix


def test_no_loader_is_told(named: hetero.Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "vulkan"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "_vulkan.py").write_text("raise OSError('Cannot find Vulkan SDK version.')")
    for name in [name for name in sys.modules if name.split(".")[0] == "vulkan"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(Unavailable, match="no Vulkan loader") as caught:
        VulkanBackend(named).probe()
    assert "libvulkan1" in caught.value.fix
    sys.modules.pop("vulkan", None)


def test_a_loader_that_is_too_old_is_told(make_backend: MakeBackend, faults: Faults) -> None:
    def version_1_0(number: Any) -> int:
        number[0] = 1 << 22
        return 0

    faults.replace("vkEnumerateInstanceVersion", version_1_0)
    with pytest.raises(Unavailable, match=r"of version 1\.0, expected 1\.1"):
        make_backend().probe()


def test_no_driver_is_told(make_backend: MakeBackend, faults: Faults) -> None:
    def none(instance: Any, count: Any, found: Any) -> int:
        count[0] = 0
        return 0

    faults.replace("vkEnumeratePhysicalDevices", none)
    with pytest.raises(Unavailable, match="no Vulkan device here"):
        make_backend().probe()
    with pytest.raises(Unavailable, match="shows no device"):
        make_backend(**{VARIABLE: ""}).probe()


@pytest.mark.parametrize(
    ("function", "result", "error"),
    [
        ("vkCreateInstance", -9, Unavailable),
        ("vkCreateInstance", NO_MEMORY, OutOfMemory),
        ("vkEnumeratePhysicalDevices", -3, Unavailable),
        ("vkEnumerateDeviceExtensionProperties", LOST, DeviceLost),
    ],
)
def test_a_driver_that_fails_while_it_is_looked_at_leaves_nothing(
    make_backend: MakeBackend, faults: Faults, function: str, result: int, error: type
) -> None:
    backend = make_backend()
    faults.fail(function, result)
    if function == "vkCreateInstance":
        faults.calls["vkDestroyInstance"] = 1  # the one that was not made
    with pytest.raises(error):
        backend.probe()
    faults.heal()


def test_a_model_that_the_device_does_not_do_goes_on_to_the_cpu_and_says_why(
    make_backend: MakeBackend, make_runtime: Callable[..., hetero.Runtime], tmp_path: Path
) -> None:
    runtime = make_runtime(lambda host: make_backend(host), CpuBackend)
    assert next(device.name for device in runtime.devices) == "vulkan:0"
    node = helper.make_node("Cast", ["x"], ["y"], to=helper.np_dtype_to_tensor_dtype(np.dtype(np.float64)))
    session = runtime.load(save(tmp_path / "wide.onnx", [node], [tensor("x", (4,))], [tensor("y", (4,), np.float64)]))
    result = session.run({"x": np.ones(4, np.float32)})
    assert result.record.device == "cpu"
    (refused,) = [candidate for candidate in session.explain().candidates if candidate.device == "vulkan:0"]
    assert "Cast (float32 is not made float64 on the device)" in str(refused)


def test_a_model_runs_on_the_device_through_a_runtime(
    make_backend: MakeBackend, make_runtime: Callable[..., hetero.Runtime], tmp_path: Path
) -> None:
    runtime = make_runtime(lambda host: make_backend(host), CpuBackend)
    session = runtime.load(double(tmp_path / "double.onnx", ("n",)))
    for count in (4, 7):
        result = session.run({"x": np.arange(count, dtype=np.float32)})
        assert result.record.device == "vulkan:0"
        np.testing.assert_array_equal(result.outputs["y"], 2 * np.arange(count, dtype=np.float32))


def test_programs_without_onnx_are_refused_as_unsupported(make_backend: MakeBackend) -> None:
    backend = make_backend()
    (device, *_) = backend.probe()
    with pytest.raises(Unsupported, match="has no artifact of kind onnx; it has kernel"):
        backend.load(get("gelu_i8").program(), device, {})


@pytest.mark.parametrize("access", ["default", "npu_primary", "streaming"])
def test_a_runtimes_buffers_lie_in_memory_that_the_device_works_in(
    make_backend: MakeBackend, make_runtime: Callable[..., hetero.Runtime], access: str
) -> None:
    made: list[VulkanBackend] = []

    def backend(host: hetero.Host) -> VulkanBackend:
        made.append(make_backend(host))
        return made[-1]

    runtime = make_runtime(backend, CpuBackend)
    with runtime.buffer((10, 100), np.float32, access=access, device="vulkan:0") as array:
        assert array.pool == "vulkan:0"
        array[...] = 5
        seen = np.asarray(array)
        assert (seen == 5).all()
        assert seen.ctypes.data % (4096 if access == "streaming" else 64) == 0
        allocator = made[0].allocator(runtime.devices[0])
        found = allocator.buffer_at(seen.ctypes.data)  # type: ignore[union-attr]
        assert found is not None
        assert (found.read(np.float32, (10, 100)) == 5).all()
        assert allocator.buffer_at(1) is None  # type: ignore[union-attr]
        del seen


def test_memory_that_a_user_still_looks_at_outlives_the_runtime(make_backend: MakeBackend) -> None:
    backend = make_backend()
    (device, *_) = backend.probe()
    allocator = backend.allocator(device)
    assert allocator is not None
    memory = allocator.allocate(5000, "default")
    backend.close()
    memory[:] = 1
    assert memory.sum() == 5000
    allocator.free(memory)


def test_no_room_for_a_users_buffer_is_told(make_backend: MakeBackend, faults: Faults) -> None:
    backend = make_backend()
    (device, *_) = backend.probe()
    allocator = backend.allocator(device)
    assert allocator is not None
    backend.holder(device).take().returned()
    faults.fail("vkAllocateMemory", NO_MEMORY, times=1000)
    with pytest.raises(OutOfMemory) as caught:
        allocator.allocate(1 << 27, "default")
    assert "VK_ERROR_OUT_OF_DEVICE_MEMORY" in reason_of(caught.value)
