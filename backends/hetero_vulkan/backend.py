"""The backend: what it finds, and what it can say about it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from hetero.backend import Allocator, Backend, Device, Executable, Host, Option, Program
from hetero_vulkan.allocator import VulkanAllocator
from hetero_vulkan.api import Vulkan, Wrap
from hetero_vulkan.choosing import VARIABLE, Choice, check_kernel, choose, find_devices
from hetero_vulkan.device import MOST_LANES
from hetero_vulkan.holder import DeviceHolder
from hetero_vulkan.instance import Instance
from hetero_vulkan.physical import Physical
from hetero_vulkan.precision import PRECISIONS

_SORTS = {"discrete": "graphics card", "integrated": "integrated GPU", "virtual": "virtual GPU", "cpu": "software"}


class VulkanBackend(Backend):
    """GPUs with a Vulkan driver.

    Args:
        host: The machine.
        wrap: Put around Vulkan's functions, for tests.
        validate: Told what the validation layer finds, for tests.
        clock: Seconds, for time-outs.
    """

    name = "vulkan"
    options: ClassVar[tuple[Option, ...]] = (
        Option(
            "timeout",
            float,
            None,
            "Seconds after which work on the device is given up; by default 10, and more for long work.",
            minimum=0.001,
        ),
        Option(
            "partition",
            str,
            "forbid",
            "Whether the CPU runs, in numpy, the nodes that the device does not; else such a model is refused.",
            choices=("forbid", "allow"),
        ),
        Option(
            "plans",
            int,
            4,
            "Combinations of shapes that a lane is kept ready for; others wait until those were used four times each.",
            minimum=1,
        ),
        Option(
            "precision",
            str,
            "fp32",
            "How numbers are stored on the device: weights as fp16, or the matrices of products as int8, with values "
            "in between in fp32 (fp16, int8) or fp16 (fp16-fp16, int8-fp16). Sums are always of fp32.",
            choices=tuple(PRECISIONS),
        ),
        Option("tune", bool, None, "Measure what suits the device, once; by default where it is no software."),
    )

    def __init__(
        self,
        host: Host,
        *,
        wrap: Wrap | None = None,
        validate: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(host)
        self._wrap = wrap
        self._validate = validate
        self._clock = clock
        self._lock = threading.Lock()
        self._instance: Instance | None = None
        self._holders: dict[str, DeviceHolder] = {}
        self._allocators: dict[str, VulkanAllocator] = {}

    def probe(self) -> Sequence[Device]:
        """The GPUs; software only where `HETERO_VK_DEVICE` names it. No device is opened."""
        self.close()
        check_kernel(self.host.sysroot, self.host.environ)
        instance = Instance(Vulkan(self._wrap), self._validate)
        try:
            chosen = choose(find_devices(instance), self.host.environ)
        except BaseException:
            instance.close()
            raise
        self._instance = instance
        self._holders = {
            choice.name: DeviceHolder(instance, choice, self.host.cache / "vulkan", self._clock) for choice in chosen
        }
        return [described(choice) for choice in chosen]

    def load(self, program: Program, device: Device, options: Mapping[str, Any]) -> Executable:
        """See `Backend.load`."""
        # All of the executor: a Runtime that only looks for devices need not wait for it.
        from hetero_vulkan.onnx_program import load_onnx

        defaults = {option.name: option.default for option in self.options}
        chosen = {name: defaults[name] if value is None else value for name, value in options.items()}
        return load_onnx(program, self.holder(device), self.host.cache / "vulkan", {**defaults, **chosen})

    def allocator(self, device: Device) -> Allocator | None:
        """See `Backend.allocator`."""
        with self._lock:
            if device.name not in self._allocators:
                self._allocators[device.name] = VulkanAllocator(self.holder(device))
            return self._allocators[device.name]

    def holder(self, device: Device) -> DeviceHolder:
        """What opens one of the devices that `probe` gave."""
        return self._holders[device.name]

    def close(self) -> None:
        """See `Backend.close`."""
        holders, self._holders, self._allocators = self._holders, {}, {}
        for holder in holders.values():
            holder.close()
        if self._instance is not None:
            self._instance.close()
            self._instance = None


def described(choice: Choice) -> Device:
    """A device for the user."""
    physical = choice.physical
    notes = list(choice.notes)
    if physical.software:
        notes.insert(0, f"software: it computes on the CPU; used because {VARIABLE} names it")
    return Device(
        choice.name,
        kind="gpu",
        description=f"{physical.name}, {_SORTS.get(physical.sort, 'GPU')}",
        lanes=min(physical.queues[0].count, MOST_LANES),
        properties=_properties(physical),
        notes=tuple(notes),
    )


def _properties(physical: Physical) -> dict[str, Any]:
    limits, features = physical.limits, physical.features
    least, greatest = physical.subgroup_range
    stored = {"fp16": "storageBuffer16BitAccess", "int8": "storageBuffer8BitAccess"}
    computed = {"fp16": "shaderFloat16", "int8": "shaderInt8", "int8 dot product": "shaderIntegerDotProduct"}
    family = physical.queues[0]
    return {
        "Vulkan": ".".join(map(str, physical.version)),
        "driver": f"{physical.driver} {physical.driver_info}".strip() or f"version {physical.driver_version}",
        "type": physical.sort,
        "software": physical.software,
        "vendor": f"{physical.vendor:#06x}",
        "model": f"{physical.model:#06x}",
        "UUID": str(physical.uuid) if physical.uuid else "",
        "queues": f"{family.count} for compute" + (" and graphics" if family.graphics else " alone"),
        "subgroups": str(physical.subgroup) + ("" if least == greatest else f" ({least} to {greatest})"),
        "storage": ", ".join(["fp32", *(name for name, feature in stored.items() if features[feature])]),
        "arithmetic": ", ".join(["fp32", *(name for name, feature in computed.items() if features[feature])]),
        "cooperative matrices": ", ".join(map(str, physical.matrices)) or "none",
        "shared memory": limits["maxComputeSharedMemorySize"],
        "workgroup": limits["maxComputeWorkGroupInvocations"],
        "largest binding": limits["maxStorageBufferRange"],
        "largest allocation": limits["maxMemoryAllocationSize"],
        "imports host memory": bool(limits["minImportedHostPointerAlignment"]),
        "timeline semaphores": features["timelineSemaphore"],
        "memory": ", ".join(f"{size >> 20} MiB{' of its own' if own else ''}" for size, own in physical.heaps),
    }
