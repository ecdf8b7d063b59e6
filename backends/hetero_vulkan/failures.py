"""What Vulkan answers, in hetero's errors."""

from __future__ import annotations

from hetero.errors import (
    BackendError,
    DeviceLost,
    DeviceTimeout,
    ExecutionError,
    OutOfMemory,
    Unavailable,
    Unsupported,
)

SUCCESS = 0
NOT_READY = 1
TIMEOUT = 2
INCOMPLETE = 5

_Kind = tuple[str, type[BackendError], str]

_MEMORY = "use smaller or fewer models at once, or give the device less: memory_limit="
_UPDATE = "update the GPU's driver"

_RESULTS: dict[int, _Kind] = {
    TIMEOUT: ("VK_TIMEOUT", DeviceTimeout, "raise the option vulkan.timeout, or use another device"),
    -1: ("VK_ERROR_OUT_OF_HOST_MEMORY", OutOfMemory, _MEMORY),
    -2: ("VK_ERROR_OUT_OF_DEVICE_MEMORY", OutOfMemory, _MEMORY),
    -3: ("VK_ERROR_INITIALIZATION_FAILED", Unavailable, _UPDATE),
    -4: ("VK_ERROR_DEVICE_LOST", DeviceLost, "look into the kernel's log (dmesg): the driver has reset the GPU"),
    -5: ("VK_ERROR_MEMORY_MAP_FAILED", OutOfMemory, _MEMORY),
    -6: ("VK_ERROR_LAYER_NOT_PRESENT", Unavailable, "install the layer, or do not ask for it"),
    -7: ("VK_ERROR_EXTENSION_NOT_PRESENT", Unavailable, _UPDATE),
    -8: ("VK_ERROR_FEATURE_NOT_PRESENT", Unsupported, _UPDATE),
    -9: ("VK_ERROR_INCOMPATIBLE_DRIVER", Unavailable, "install a Vulkan driver: mesa-vulkan-drivers on Debian"),
    -10: ("VK_ERROR_TOO_MANY_OBJECTS", OutOfMemory, _MEMORY),
    -12: ("VK_ERROR_FRAGMENTED_POOL", OutOfMemory, _MEMORY),
    -13: ("VK_ERROR_UNKNOWN", ExecutionError, _UPDATE),
    -1000069000: ("VK_ERROR_OUT_OF_POOL_MEMORY", OutOfMemory, _MEMORY),
    -1000072003: ("VK_ERROR_INVALID_EXTERNAL_HANDLE", Unsupported, ""),
    -1000161000: ("VK_ERROR_FRAGMENTATION", OutOfMemory, _MEMORY),
    -1000174001: ("VK_ERROR_NOT_PERMITTED", Unavailable, "run it as a user who may use the GPU (group render)"),
    -1000012000: ("VK_ERROR_INVALID_SHADER_NV", Unsupported, _UPDATE),
}


def failure(result: int, doing: str) -> BackendError:
    """The error for a VkResult.

    Args:
        result: One that is no success.
        doing: What was tried: `allocating 4096 bytes`.
    """
    name, kind, fix = _RESULTS.get(result, (f"VkResult {result}", ExecutionError, ""))
    return kind(f"{doing}: {name}", fix=fix)
