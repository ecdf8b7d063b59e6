"""Where the machine's power comes from, and which platform profile its firmware follows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hetero.thermal import sysfs

Source = Literal["mains", "battery", "unknown"]


@dataclass(frozen=True)
class Power:
    """How a machine is fed.

    Attributes:
        source: `unknown` on boards that have no supply the kernel knows of.
        platform_profile: Such as `balanced`; None where the firmware has none.
        platform_profiles: Those that it could be.
    """

    source: Source
    platform_profile: str | None
    platform_profiles: tuple[str, ...]


def read_power(sysroot: Path) -> Power:
    """How a machine is fed. Never raises.

    Args:
        sysroot: Root of `/sys`.
    """
    firmware = sysroot / "sys/firmware/acpi"
    profile = sysfs.text_or(firmware / "platform_profile") or None
    return Power(_source(sysroot), profile, tuple(sysfs.text_or(firmware / "platform_profile_choices").split()))


def _source(sysroot: Path) -> Source:
    mains: list[bool] = []
    batteries: list[str] = []
    for folder in sysfs.entries(sysroot / "sys/class/power_supply", "*"):
        kind = sysfs.text_or(folder / "type")
        if kind in ("Mains", "USB", "Wireless"):
            mains.append(sysfs.integer_or_none(folder / "online") == 1)
        # Those of a mouse or a keyboard have the scope `Device`.
        elif kind == "Battery" and sysfs.text_or(folder / "scope") != "Device":
            batteries.append(sysfs.text_or(folder / "status"))
    if any(mains):
        return "mains"
    if "Discharging" in batteries:
        return "battery"
    return "mains" if batteries else "unknown"
