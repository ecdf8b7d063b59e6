"""Which devices are told the addresses of what they read (`address_1_low` and so on, see `hetero_vulkan.spirv`).

A shader that reads by an address is not kept within its binding: it must never read beyond what it was given.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hetero_vulkan.physical import Physical

_LAVAPIPE = 13  # VK_DRIVER_ID_MESA_LLVMPIPE


def can_address(physical: Physical) -> bool:
    """Whether shaders can be told addresses, and compute with them."""
    return all(physical.features.get(feature, False) for feature in ("bufferDeviceAddress", "shaderInt64"))


def gathers(physical: Physical) -> bool:
    """Whether what lanes load by addresses is known to come faster than what they load from bindings.

    Lavapipe gathers it; that of Mesa 22.3 went from lane to lane, five times as slowly. Versions in between were not
    tried: `hetero_vulkan.ops.tuning` finds out.
    """
    version = re.match(r"Mesa (\d+)", physical.driver_info)
    return can_address(physical) and physical.driver_id == _LAVAPIPE and version is not None and int(version[1]) >= 25
