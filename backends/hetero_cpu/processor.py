"""What the system tells about the processor: its name for people, its features for the keys of caches."""

from __future__ import annotations

import platform
from pathlib import Path


def processor_name(sysroot: Path) -> str:
    """What a person calls the processor, or the board where only that is known: `AMD Ryzen 9 7940HS`."""
    info = _cpuinfo(sysroot)
    for key in ("model name", "Model", "Hardware"):
        if info.get(key):
            return info[key]
    board = _read(sysroot / "proc/device-tree/model").strip("\0 \n")
    return board or platform.processor() or platform.machine()


def processor_features(sysroot: Path) -> str:
    """Architecture and feature flags, sorted; the architecture alone where the system tells no more."""
    info = _cpuinfo(sysroot)
    flags = info.get("flags") or info.get("Features") or ""
    return " ".join([platform.machine(), *sorted(flags.split())])


def _cpuinfo(sysroot: Path) -> dict[str, str]:
    """The first value of each key in /proc/cpuinfo."""
    info: dict[str, str] = {}
    for line in _read(sysroot / "proc/cpuinfo").splitlines():
        key, colon, value = line.partition(":")
        if colon:
            info.setdefault(key.strip(), value.strip())
    return info


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
