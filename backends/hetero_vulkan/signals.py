"""How the host learns that work has ended: a timeline semaphore, or a fence where the driver has none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hetero_vulkan.failures import NOT_READY, SUCCESS, TIMEOUT

if TYPE_CHECKING:
    from hetero_vulkan.device import VulkanDevice


def signal_of(device: VulkanDevice) -> TimelineSignal | FenceSignal:
    """The better one that the device has."""
    return TimelineSignal(device) if device.physical.features["timelineSemaphore"] else FenceSignal(device)


class TimelineSignal:
    """A semaphore that counts up by one with each submission."""

    def __init__(self, device: VulkanDevice) -> None:
        vulkan = device.vulkan
        self._device = device
        suffix = "" if device.physical.version >= (1, 2) else "KHR"
        self._wait = getattr(device.functions, f"vkWaitSemaphores{suffix}")
        kind = vulkan.new(
            "VkSemaphoreTypeCreateInfo", semaphoreType=vulkan.constant("VK_SEMAPHORE_TYPE_TIMELINE"), initialValue=0
        )
        made = vulkan.ffi.new("VkSemaphore *")
        info = vulkan.new("VkSemaphoreCreateInfo", pNext=kind)
        result = device.functions.vkCreateSemaphore(device.handle, info, vulkan.NULL, made)
        device.check(result, "making a semaphore")
        self._handle = made[0]
        self._value = vulkan.ffi.new("uint64_t *", 0)
        self._semaphore = vulkan.ffi.new("VkSemaphore *", self._handle)
        self._waited = vulkan.new(
            "VkSemaphoreWaitInfo", semaphoreCount=1, pSemaphores=self._semaphore, pValues=self._value
        )

    def attach(self, info: Any) -> None:
        """Signal it when a submission ends."""
        vulkan = self._device.vulkan
        values = vulkan.new(
            "VkTimelineSemaphoreSubmitInfo", signalSemaphoreValueCount=1, pSignalSemaphoreValues=self._value
        )
        info.signalSemaphoreCount = 1
        info.pSignalSemaphores = self._semaphore
        info.pNext = vulkan.ffi.cast("void *", values)
        vulkan.hold(info, values, self._semaphore)

    def arm(self) -> Any:
        """Get ready for the next submission; the fence to hand over, NULL here."""
        self._value[0] += 1
        return self._device.vulkan.NULL

    def disarm(self) -> None:
        """The submission was refused."""
        self._value[0] -= 1

    def wait(self, nanoseconds: int) -> int:
        """SUCCESS when the last submission has ended, else TIMEOUT."""
        result: int = self._wait(self._device.handle, self._waited, nanoseconds)
        if result not in (SUCCESS, TIMEOUT):
            self._device.check(result, "waiting for work")
        return result

    def close(self) -> None:
        """Destroy it."""
        self._device.functions.vkDestroySemaphore(self._device.handle, self._handle, self._device.vulkan.NULL)


class FenceSignal:
    """A fence, set back before each submission."""

    def __init__(self, device: VulkanDevice) -> None:
        vulkan = device.vulkan
        self._device = device
        made = vulkan.ffi.new("VkFence *")
        info = vulkan.new("VkFenceCreateInfo")
        device.check(device.functions.vkCreateFence(device.handle, info, vulkan.NULL, made), "making a fence")
        self._fences = vulkan.ffi.new("VkFence[]", [made[0]])

    def attach(self, info: Any) -> None:
        """Nothing: it is handed over with each submission."""

    def arm(self) -> Any:
        """Get ready for the next submission; the fence to hand over."""
        self._device.check(
            self._device.functions.vkResetFences(self._device.handle, 1, self._fences), "setting back a fence"
        )
        return self._fences[0]

    def disarm(self) -> None:
        """Nothing: a fence that is not signalled may be set back again."""

    def wait(self, nanoseconds: int) -> int:
        """SUCCESS when the last submission has ended, else TIMEOUT."""
        result: int = self._device.functions.vkWaitForFences(self._device.handle, 1, self._fences, 1, nanoseconds)
        if result not in (SUCCESS, TIMEOUT, NOT_READY):
            self._device.check(result, "waiting for work")
        return result

    def close(self) -> None:
        """Destroy it."""
        self._device.functions.vkDestroyFence(self._device.handle, self._fences[0], self._device.vulkan.NULL)
