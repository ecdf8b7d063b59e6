"""The instance: the loader's door to the drivers, with the validation layer where tests ask for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from hetero.errors import Unavailable
from hetero_vulkan.api import Vulkan
from hetero_vulkan.failures import failure

VALIDATION = "VK_LAYER_KHRONOS_validation"

_WANTED = (1, 3)
_LEAST = (1, 1)


def version_number(version: tuple[int, int]) -> int:
    """A version as Vulkan packs it."""
    return version[0] << 22 | version[1] << 12


def version_of(number: int) -> tuple[int, int, int]:
    """Major, minor and patch of a packed version."""
    return number >> 22 & 0x7F, number >> 12 & 0x3FF, number & 0xFFF


class Instance:
    """A VkInstance.

    Args:
        vulkan: The library.
        validate: Told what the validation layer finds; None: the layer is not loaded.

    Attributes:
        handle: The VkInstance.
        functions: Its functions.
        version: What the loader and we both know, major and minor.

    Raises:
        Unavailable: No driver, a loader that is too old, or no validation layer where it was asked for.
    """

    def __init__(self, vulkan: Vulkan, validate: Callable[[str], None] | None = None) -> None:
        self.vulkan = vulkan
        self._callback: Any = None
        self._messenger: Any = None
        self._lock = threading.Lock()
        self._users = 1
        self._closed = False
        self.version = self._known_version()
        application = vulkan.new(
            "VkApplicationInfo",
            pApplicationName=b"hetero",
            pEngineName=b"hetero",
            apiVersion=version_number(self.version),
        )
        layers = [] if validate is None else [VALIDATION.encode()]
        extensions = [] if validate is None else [b"VK_EXT_debug_utils"]
        info = vulkan.new(
            "VkInstanceCreateInfo",
            pApplicationInfo=application,
            enabledLayerCount=len(layers),
            ppEnabledLayerNames=layers,
            enabledExtensionCount=len(extensions),
            ppEnabledExtensionNames=extensions,
        )
        made = vulkan.ffi.new("VkInstance *")
        result = vulkan.functions.vkCreateInstance(info, vulkan.NULL, made)
        if result:
            raise failure(result, "opening Vulkan")
        self.handle: Any = made[0]
        self.functions = vulkan.functions_of(self.handle, "libvulkan")
        if validate is not None:
            self._listen(validate)

    def physical_devices(self) -> list[Any]:
        """The handles of the drivers' devices, in the loader's order."""
        return self.vulkan.enumerate(
            "VkPhysicalDevice",
            lambda count, found: self.functions.vkEnumeratePhysicalDevices(self.handle, count, found),
            "looking for devices",
        )

    def retain(self) -> None:
        """A device is of it: it stays until `release` was called as often."""
        with self._lock:
            self._users += 1

    def release(self) -> None:
        """A device of it is destroyed."""
        with self._lock:
            self._users -= 1
            if self._users:
                return
        if self._messenger is not None:
            self.functions.vkDestroyDebugUtilsMessengerEXT(self.handle, self._messenger, self.vulkan.NULL)
        self.functions.vkDestroyInstance(self.handle, self.vulkan.NULL)

    def close(self) -> None:
        """Destroy it when its last device is. A second time does nothing."""
        if not self._closed:
            self._closed = True
            self.release()

    def _known_version(self) -> tuple[int, int]:
        vulkan = self.vulkan
        number = vulkan.ffi.new("uint32_t *")
        try:
            vulkan.functions.vkEnumerateInstanceVersion(number)
        except Unavailable as error:
            raise Unavailable(
                "the Vulkan loader is of version 1.0, expected 1.1 or later", fix="update libvulkan1"
            ) from error
        known = version_of(number[0])[:2]
        if known < _LEAST:
            raise Unavailable(
                f"the Vulkan loader is of version {known[0]}.{known[1]}, expected 1.1 or later", fix="update libvulkan1"
            )
        return min(known, _WANTED)

    def _listen(self, validate: Callable[[str], None]) -> None:
        vulkan = self.vulkan

        def heard(severity: int, types: int, data: Any, user: Any) -> int:
            validate(vulkan.text(data.pMessage))
            return 0

        self._callback = vulkan.ffi.callback(
            "VkBool32(VkDebugUtilsMessageSeverityFlagBitsEXT, VkDebugUtilsMessageTypeFlagsEXT, "
            "const VkDebugUtilsMessengerCallbackDataEXT *, void *)",
            heard,
        )
        severities, types = "VK_DEBUG_UTILS_MESSAGE_SEVERITY", "VK_DEBUG_UTILS_MESSAGE_TYPE"
        info = vulkan.new(
            "VkDebugUtilsMessengerCreateInfoEXT",
            messageSeverity=vulkan.flags(f"{severities}_WARNING_BIT_EXT", f"{severities}_ERROR_BIT_EXT"),
            messageType=vulkan.flags(
                f"{types}_GENERAL_BIT_EXT", f"{types}_VALIDATION_BIT_EXT", f"{types}_PERFORMANCE_BIT_EXT"
            ),
            pfnUserCallback=self._callback,
        )
        made = vulkan.ffi.new("VkDebugUtilsMessengerEXT *")
        result = self.functions.vkCreateDebugUtilsMessengerEXT(self.handle, info, vulkan.NULL, made)
        if result:
            raise failure(result, "listening to the validation layer")
        self._messenger = made[0]
