"""Which devices are used: their order, one driver for each, and what the user asked for."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hetero.errors import Unavailable
from hetero_vulkan.instance import Instance
from hetero_vulkan.physical import Physical, Sort, describe

VARIABLE = "HETERO_VK_DEVICE"

_NODES = ("dri/renderD*", "nvidia[0-9]*", "mali*", "kgsl-3d*", "dxg")
"""Under /dev: DRM's, and those of NVIDIA's, Arm's and Qualcomm's own drivers, and of WSL."""

_ORDER: tuple[Sort, ...] = ("discrete", "integrated", "virtual", "other", "cpu")

_PREFERRED_DRIVERS = (
    3,  # Mesa's RADV, before AMD's open one and its closed one
    2,
    1,
    6,  # Mesa's for Intel, before Intel's own
    5,
    4,  # NVIDIA's own, before Mesa's NVK
    24,
    9,  # Arm's own, before Mesa's PanVK
    20,
)
"""VkDriverId of drivers that may serve the same device, the better one first."""


@dataclass(frozen=True)
class Choice:
    """A device that may be used.

    Attributes:
        index: Its place among all devices that were found; `vulkan:INDEX` is its name.
        physical: The device.
        notes: Remarks for people: another driver that serves it too.
    """

    index: int
    physical: Physical
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The device's name in hetero."""
        return f"vulkan:{self.index}"

    def __str__(self) -> str:
        physical = self.physical
        return f"{self.index}: {physical.name} ({physical.sort}" + (
            f", UUID {physical.uuid})" if physical.uuid else ")"
        )


def check_kernel(sysroot: Path, environ: Mapping[str, str]) -> None:
    """Look for a GPU's node first: without one there is no need to load drivers, which takes a tenth of a second.

    Args:
        sysroot: Root of `/dev`.
        environ: With `HETERO_VK_DEVICE`, which may name software.

    Raises:
        Unavailable: This is Linux, it shows no GPU, and none is named.
    """
    if sys.platform != "linux" or environ.get(VARIABLE, "").strip():
        return
    if not any(next((sysroot / "dev").glob(pattern), None) for pattern in _NODES):
        raise Unavailable(
            "the kernel shows no GPU: there is no /dev/dri/renderD*",
            fix="load the GPU's driver (amdgpu, i915, panthor, ...); in a container, pass /dev/dri on; "
            f"to use a software driver: {VARIABLE}=all",
        )


def find_devices(instance: Instance) -> list[Choice]:
    """All devices that can compute, GPUs first, each once."""
    described = (describe(instance, handle) for handle in instance.physical_devices())
    return ordered([physical for physical in described if physical is not None])


def ordered(found: Sequence[Physical]) -> list[Choice]:
    """Discrete before integrated, software last; of several drivers for one device the better one."""
    by_device: dict[uuid.UUID | int, list[Physical]] = {}
    for physical in found:
        by_device.setdefault(physical.uuid or id(physical), []).append(physical)
    best = []
    for same in by_device.values():
        same.sort(key=_driver_rank)
        others = tuple(f"also served by {other.driver or other.name}, which is not used" for other in same[1:])
        best.append((same[0], others))
    best.sort(key=lambda pair: _ORDER.index(pair[0].sort))
    return [Choice(index, physical, others) for index, (physical, others) in enumerate(best)]


def choose(devices: Sequence[Choice], environ: Mapping[str, str]) -> list[Choice]:
    """Those to use: what `HETERO_VK_DEVICE` names, in its order; else every one that is no software.

    Args:
        devices: All.
        environ: With `HETERO_VK_DEVICE`: indices, parts of names or drivers, UUIDs, `all`; separated by commas.

    Raises:
        Unavailable: There is none, or none of that name.
    """
    wanted = [word.strip() for word in environ.get(VARIABLE, "").split(",") if word.strip()]
    if not wanted:
        chosen = [device for device in devices if not device.physical.software]
        if chosen:
            return chosen
        if not devices:
            raise Unavailable("Vulkan shows no device", fix="install the GPU's driver: apt install mesa-vulkan-drivers")
        raise Unavailable(
            f"Vulkan shows no GPU, only software: {', '.join(device.physical.name for device in devices)}",
            fix=f"install the GPU's driver, and join the group render; to use the software: {VARIABLE}=all",
        )
    chosen = []
    for word in wanted:
        matching = [device for device in devices if _matches(device, word)]
        if not matching:
            raise Unavailable(
                f"{VARIABLE} names {word!r}, which is no Vulkan device here",
                fix=f"there are: {'; '.join(map(str, devices))}" if devices else "install the GPU's driver",
            )
        chosen += [device for device in matching if device not in chosen]
    return chosen


def _matches(device: Choice, word: str) -> bool:
    physical, lower = device.physical, word.lower()
    if lower == "all":
        return True
    if word.isdecimal():
        return device.index == int(word)
    try:
        return physical.uuid == uuid.UUID(word)
    except ValueError:
        return lower in physical.name.lower() or lower in physical.driver.lower()


def _driver_rank(physical: Physical) -> int:
    ranks = {driver: rank for rank, driver in enumerate(_PREFERRED_DRIVERS)}
    return ranks.get(physical.driver_id, len(ranks))
