"""Opening a device in one call, for whoever works on kernels."""

from __future__ import annotations

from collections.abc import Callable

from hetero.backend import Host
from hetero_vulkan.api import Vulkan, Wrap
from hetero_vulkan.choosing import VARIABLE, choose, find_devices
from hetero_vulkan.device import VulkanDevice
from hetero_vulkan.instance import Instance


def open_device(
    which: str = "",
    *,
    host: Host | None = None,
    validate: Callable[[str], None] | None = None,
    wrap: Wrap | None = None,
) -> VulkanDevice:
    """The first of the devices, opened; close it.

    Args:
        which: As in `HETERO_VK_DEVICE`: an index, a part of its name, its UUID; `all` counts software too. Else what
            that variable says.
        host: The machine; None for this one.
        validate: As for `Instance`.
        wrap: As for `Vulkan`.

    Raises:
        Unavailable: There is none.
    """
    host = host or Host()
    instance = Instance(Vulkan(wrap), validate)
    try:
        chosen = choose(find_devices(instance), {VARIABLE: which} if which else host.environ)[0]
        return VulkanDevice(instance, chosen.physical, name=chosen.name, cache=host.cache / "vulkan")
    finally:
        instance.close()
