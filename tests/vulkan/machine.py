"""Devices for tests: the first that Vulkan shows, software too, under the validation layer, and made to fail."""

from __future__ import annotations

import dataclasses
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hetero_vulkan.api import Vulkan, Wrap
from hetero_vulkan.choosing import VARIABLE, choose, find_devices
from hetero_vulkan.device import VulkanDevice
from hetero_vulkan.instance import Instance
from hetero_vulkan.physical import CooperativeMatrix, MemoryType, Physical, QueueFamily

LOST, NO_MEMORY, TIMED_OUT = -4, -2, 2

WHICH = os.environ.get(VARIABLE, "all")


class Clock:
    """Seconds, which pass when somebody waits on the device in vain."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Faults:
    """Makes Vulkan's functions answer what they should not.

    Attributes:
        calls: How often each function was called, those that failed included.
        clock: Goes on by the time that a wait was given, when the wait is made to end in vain.
    """

    def __init__(self) -> None:
        self.calls: dict[str, int] = {}
        self.clock = Clock()
        self._rules: dict[str, Callable[[int], Any]] = {}
        self._watched: dict[str, Callable[..., None]] = {}

    def fail(self, name: str, result: int, *, at: int = 1, times: int = 1) -> None:
        """From the `at`-th call from now on, so many times."""
        first = self.calls.get(name, 0) + at
        self._rules[name] = lambda call: result if first <= call < first + times else None

    def replace(self, name: str, answer: Callable[..., Any]) -> None:
        """Call another function instead."""
        self._rules[name] = lambda call: answer

    def replace_from(self, name: str, at: int, answer: Callable[..., Any]) -> None:
        """Call another function instead, from the `at`-th call from now on."""
        first = self.calls.get(name, 0) + at
        self._rules[name] = lambda call: answer if call >= first else None

    def compile_slowly(self, seconds: float) -> None:
        """What was submitted with a pipeline that was not bound before takes so long by the clock, and then ends."""
        known: set[int] = set()
        late = False

        def bound(target: Any, point: Any, pipeline: Any) -> None:
            nonlocal late
            late = late or hash(pipeline) not in known
            known.add(hash(pipeline))

        def wait(call: int) -> int | None:
            nonlocal late
            if not late:
                return None
            late = False
            self.clock.now += seconds
            return TIMED_OUT

        self._watched["vkCmdBindPipeline"] = bound
        self._rules["vkWaitSemaphores"] = wait

    def heal(self) -> None:
        self._rules.clear()
        self._watched.clear()

    def __call__(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any) -> Any:
            self.calls[name] = self.calls.get(name, 0) + 1
            if name in self._watched:
                self._watched[name](*arguments)
            rule = self._rules.get(name)
            answer = rule(self.calls[name]) if rule else None
            if answer is None:
                return function(*arguments)
            if callable(answer):
                return answer(*arguments)
            if name.startswith("vkWait"):
                self.clock.now += arguments[-1] * 1e-9
            return answer

        return called


class Machine:
    """Vulkan on this machine.

    Args:
        folder: For caches.
        validate: Told what the validation layer finds; None without it.
        wrap: Put around its functions.
    """

    def __init__(self, folder: Path, validate: Callable[[str], None] | None, wrap: Wrap | None = None) -> None:
        self.folder = folder
        self.vulkan = Vulkan(wrap)
        self.instance = Instance(self.vulkan, validate)
        self.choice = choose(find_devices(self.instance), {VARIABLE: WHICH})[0]

    def open(self, change: Callable[[Physical], Physical] = lambda physical: physical, **options: Any) -> VulkanDevice:
        options.setdefault("cache", self.folder / "vulkan")
        return VulkanDevice(self.instance, change(self.choice.physical), name=self.choice.name, **options)


def graphics_card(physical: Physical) -> Physical:
    """The device as if it had memory that the host does not see, and memory of the host's that needs flushing."""
    visible = next(kind for kind in physical.memory_types if kind.visible)
    own = dataclasses.replace(visible, local=True, visible=False)
    host = dataclasses.replace(visible, local=False, coherent=False)
    return dataclasses.replace(physical, sort="discrete", memory_types=(own, host))


def without(physical: Physical, *features: str) -> Physical:
    """The device without some features."""
    return dataclasses.replace(physical, features={**physical.features, **dict.fromkeys(features, False)})


def limited(physical: Physical, **limits: Any) -> Physical:
    """The device with other limits."""
    return dataclasses.replace(physical, limits={**physical.limits, **limits})


def with_matrices(**told: Any) -> Physical:
    """A device that is not there and lists cooperative matrices."""
    features = ("cooperativeMatrix", "shaderFloat16", "storageBuffer16BitAccess", "vulkanMemoryModel", "shaderInt64")
    return made_up(
        **{
            "matrices": (CooperativeMatrix(16, 16, 16, "f16", "f16", "f32"),),
            "features": dict.fromkeys(features, True),
            **told,
        }
    )


def made_up(name: str = "GPU", **told: Any) -> Physical:
    """A device that is not there."""
    known: dict[str, Any] = {
        "handle": None,
        "name": name,
        "sort": "discrete",
        "vendor": 0x1002,
        "model": 0x15BF,
        "uuid": uuid.uuid4(),
        "cache_uuid": bytes(16),
        "driver": "radv",
        "driver_id": 3,
        "driver_info": "Mesa 25",
        "driver_version": 1,
        "version": (1, 3),
        "subgroup": 64,
        "subgroup_range": (32, 64),
        "subgroup_operations": 255,
        "features": {"timelineSemaphore": True},
        "limits": {},
        "extensions": (),
        "memory_types": (MemoryType(0, 0, True, True, True, True),),
        "heaps": ((1 << 30, True),),
        "queues": (QueueFamily(0, 4, False, 64),),
    }
    return Physical(**{**known, **told})
