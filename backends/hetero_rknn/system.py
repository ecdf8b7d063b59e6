"""What the system tells about the NPU: driver, library, device nodes, frequency, load; and what is wrong with them.

Everything is read from files, nothing wakes the NPU up and nothing needs root; what only root may read is said to be
so. `/sys/kernel/debug/rknpu/freq` is left alone: reading it powers the NPU on.
"""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hetero.backend import Host
from hetero.sysfs import text_of
from hetero.thermal.npu import Frequency, devfreq_folder, npu_frequency, npu_load
from hetero_rknn.platforms import Platform, compatibles, platform_in

# Where distributions put librknnrt.so. The vendor's Python class knows the first place only.
LIBRARY_PLACES = (
    "usr/lib/librknnrt.so",
    "usr/lib64/librknnrt.so",
    "usr/lib/aarch64-linux-gnu/librknnrt.so",
    "usr/local/lib/librknnrt.so",
)

# Versions of the kernel driver that were reported to fail, with what was seen (on github.com). 0.9.2: any core but 0
# hangs (airockchip/rknn-toolkit2 issue 294). 0.9.3: "failed to submit" in the vendor's own demo, gone with 0.9.6 (the
# same, issue 38; radxa/kernel issue 312); before 0.9.5 "the system would instantly crash" (armbian/linux-rockchip
# pull request 158).
_BAD_DRIVERS = {
    "0.9.2": "runs jobs on core 0 only, the other cores hang",
    "0.9.3": 'fails with "failed to submit" or takes the kernel down',
}
_GOOD_DRIVER = "0.9.6"

# Of these, the ones that do no harm on a chip with one core.
_BAD_ON_CORES = ("0.9.2",)

# Governors under which the frequency stays where it is, load or no load: `rknpu_ondemand` in spite of its name forwards
# what was last asked for (`rknpu_devfreq.c`).
_FIXED_GOVERNORS = ("rknpu_ondemand", "userspace", "powersave")

_VERSION = re.compile(r"(\d+\.\d+\.\d+)")
_LIBRARY_MARK = b"librknnrt version: "
_LIBRARY_VERSION = re.compile(rb"(\d+\.\d+\.\d+[0-9A-Za-z]*)")


@dataclass(frozen=True)
class SystemReport:
    """What the system tells about the NPU.

    Attributes:
        platform: The SoC; None when it is not one that hetero knows.
        driver_version: Of the kernel's rknpu driver, such as `0.9.8`; None when it is not there or does not say.
        library: The `librknnrt.so` that is loaded by default; None when there is none in the usual places.
        library_version: Its version, such as `2.3.2`; None when it does not contain one.
        nodes: The NPU's device nodes, such as `/dev/dri/renderD129`, by their path below the sysroot.
        frequency: The NPU's clock; None where the kernel does not show it (mainline kernels).
        load: Percent by core; None when nobody but root may read it, or the kernel does not show it.
        properties: The same for `Device.properties`.
        notes: What is wrong, and what to do about it.
    """

    platform: Platform | None
    driver_version: str | None
    library: Path | None
    library_version: str | None
    nodes: tuple[Path, ...]
    frequency: Frequency | None
    load: tuple[int, ...] | None
    properties: Mapping[str, Any]
    notes: tuple[str, ...]


def system_report(host: Host) -> SystemReport:
    """Look at the system. Reads some small files and searches the library for its version; never raises."""
    compatible = compatibles(host)
    platform = platform_in(compatible)
    driver = driver_version(host)
    libraries = [(path, library_version(path)) for path in _libraries(host)]
    library, version = libraries[0] if libraries else (None, None)
    nodes = _nodes(host)
    frequency = npu_frequency(host.sysroot)
    busy = npu_load(host.sysroot)
    load = busy.percents
    properties: dict[str, Any] = {}
    if platform is not None:
        properties["soc"] = f"{platform.title}, {platform.cores} NPU core{'s' if platform.cores > 1 else ''}"
    elif compatible:
        properties["soc"] = f"unknown ({', '.join(compatible)})"
    board = text_of(host.sysroot / "proc/device-tree/model")
    properties |= {"board": board} if board else {}
    properties["kernel driver"] = f"rknpu {driver}" if driver else "unknown"
    properties["librknnrt"] = f"{version or 'unknown version'} ({_shown(host, library)})" if library else "not found"
    properties["device nodes"] = ", ".join(_shown(host, node) for node in nodes) or "none"
    properties |= {"frequency": str(frequency)} if frequency else {}
    if load is not None:
        properties["load"] = ", ".join(f"core{core} {percent} %" for core, percent in enumerate(load))
    elif busy.hidden:
        properties["load"] = "only root may read it"
    notes = (
        *_driver_notes(host, platform, driver),
        *_library_notes(host, libraries),
        *_node_notes(host, nodes),
        *_frequency_notes(host, frequency),
        *_core_notes(platform, load),
    )
    return SystemReport(platform, driver, library, version, nodes, frequency, load, properties, notes)


def driver_version(host: Host) -> str | None:
    """The rknpu driver's version, from the first of its files that may be read; None when there is none.

    The module's file is there for built-in drivers too and readable by all; the others say `RKNPU driver: v0.9.8`.
    """
    for place in ("sys/module/rknpu/version", "proc/rknpu/version", "sys/kernel/debug/rknpu/version"):
        found = _VERSION.search(text_of(host.sysroot / place))
        if found:
            return found[1]
    return None


def library_version(path: Path) -> str | None:
    """The version in a `librknnrt.so`, read from its bytes: the library is not loaded.

    Returns:
        Such as `2.3.2`; None when the file cannot be read or contains no version.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            at = content.find(_LIBRARY_MARK)
            while at >= 0:
                # A format string of the same beginning stands in the library too.
                start = at + len(_LIBRARY_MARK)
                found = _LIBRARY_VERSION.match(content[start : start + 40])
                if found:
                    return found[1].decode()
                at = content.find(_LIBRARY_MARK, start)
    except (OSError, ValueError):  # ValueError: an empty file cannot be mapped.
        return None
    return None


def _libraries(host: Host) -> list[Path]:
    """The librknnrt.so files in the usual places, the one that is used by default first."""
    return [host.sysroot / place for place in LIBRARY_PLACES if (host.sysroot / place).is_file()]


def _nodes(host: Host) -> tuple[Path, ...]:
    """The device nodes that the kernel made for the NPU, present under /dev or not.

    Vendor kernels make a card and a render node, next to those of the display and the GPU, and name the driver in the
    device's `uevent`; the same driver as a module on a mainline kernel sits on a virtual device whose `uevent` is
    empty. Kernels without DRM for the NPU have `/dev/rknpu`.
    """
    own, anonymous = [], []
    for folder in _sorted(host.sysroot / "sys/class/drm", "*"):
        if not re.fullmatch(r"(card|renderD)\d+", folder.name):
            continue
        uevent = folder / "device/uevent"
        if "DRIVER=RKNPU" in text_of(uevent):
            own.append(folder.name)
        elif uevent.is_file() and not text_of(uevent):
            anonymous.append(folder.name)
    if not own and _platform_driver(host, "RKNPU"):
        own = anonymous
    nodes = [host.sysroot / "dev/dri" / name for name in own]
    misc = host.sysroot / "dev/rknpu"
    return (*nodes, misc) if misc.exists() else tuple(nodes)


def _platform_driver(host: Host, driver: str) -> bool:
    """Whether a driver is bound to one of the NPU's platform devices."""
    return any(
        f"DRIVER={driver}" in text_of(device / "uevent").splitlines()
        for device in _sorted(host.sysroot / "sys/bus/platform/devices", "*.npu*")
    )


def _driver_notes(host: Host, platform: Platform | None, driver: str | None) -> Iterator[str]:
    one_core = platform is not None and platform.cores == 1
    if driver in _BAD_DRIVERS and not (driver in _BAD_ON_CORES and one_core):
        yield (
            f"the kernel driver rknpu {driver} is known to be bad: it {_BAD_DRIVERS[driver]}; "
            f"install a kernel with rknpu {_GOOD_DRIVER} or later"
            + ("" if one_core else ", or keep to one core: schedule=0")
        )
    if driver is not None or platform is None:
        return
    if _rocket(host):
        yield (
            "the NPU is driven by the mainline kernel's `rocket` driver, which Rockchip's librknnrt cannot use; "
            "boot the vendor's kernel, or install the rknpu driver as a module and disable rocket"
        )
    elif _disabled(host):
        yield (
            "the NPU is switched off in the device tree (status = disabled); "
            "enable the board's NPU overlay (armbian-config, rsetup) and reboot"
        )
    else:
        yield (
            "the kernel shows no rknpu driver; boot the vendor's kernel (Rockchip's 5.10 or 6.1), "
            "or install the rknpu driver as a module"
        )


def _rocket(host: Host) -> bool:
    accel = (text_of(folder / "device/uevent") for folder in _sorted(host.sysroot / "sys/class/accel", "*"))
    return _platform_driver(host, "rocket") or any("DRIVER=rocket" in text for text in accel)


def _disabled(host: Host) -> bool:
    """Whether the device tree has an NPU and every one of its nodes is switched off."""
    states = [
        text_of(folder / "status")
        for folder in _sorted(host.sysroot / "proc/device-tree", "npu@*")
        if (folder / "compatible").is_file()
    ]
    return bool(states) and all(state == "disabled" for state in states)


def _library_notes(host: Host, libraries: list[tuple[Path, str | None]]) -> Iterator[str]:
    if not libraries:
        yield (
            f"librknnrt.so was not found in {', '.join('/' + place.rpartition('/')[0] for place in LIBRARY_PLACES)}; "
            "copy it from github.com/airockchip/rknn-toolkit2 (rknpu2/runtime/Linux/librknn_api/aarch64) to /usr/lib"
        )
    elif libraries[0][0] != host.sysroot / LIBRARY_PLACES[0]:
        yield (
            f"librknnrt.so is at {_shown(host, libraries[0][0])}; the vendor's Python class looks at "
            f"/{LIBRARY_PLACES[0]} only: link it there"
        )
    if len({version for _, version in libraries}) > 1:
        listed = ", ".join(f"{_shown(host, path)} ({version or 'unknown'})" for path, version in libraries)
        yield f"there are librknnrt.so files of several versions: {listed}; remove all but the newest"


def _node_notes(host: Host, nodes: tuple[Path, ...]) -> Iterator[str]:
    absent = [node for node in nodes if not node.exists()]
    if absent:
        listed = [_shown(host, node) for node in absent]
        yield (
            f"the kernel has the NPU as {', '.join(listed)}, but that is not here; in a container pass it in: "
            + " ".join(f"--device {name}" for name in listed)
        )
    locked = [node for node in nodes if node not in absent and not os.access(node, os.R_OK | os.W_OK)]
    if locked:
        groups = sorted({_group(node) for node in locked})
        yield (
            f"this user may not open {', '.join(_shown(host, node) for node in locked)}; join the "
            f"group{'s' if len(groups) > 1 else ''} {', '.join(groups)}: sudo usermod -aG {','.join(groups)} $USER, "
            "then log in again"
        )


def _group(node: Path) -> str:
    """The group that owns a node: its name, or its number where it has none (containers)."""
    try:
        return node.group()
    except (KeyError, NotImplementedError):
        return str(node.stat().st_gid)


def _frequency_notes(host: Host, frequency: Frequency | None) -> Iterator[str]:
    folder = devfreq_folder(host.sysroot)
    if folder is None or frequency is None or not frequency.current or not frequency.highest:
        return
    if frequency.limit and frequency.limit < frequency.highest:
        yield (
            f"the NPU is limited to {_mhz(frequency.limit)} of {_mhz(frequency.highest)} MHz: by heat (that limit goes "
            f"when it has cooled), or by a setting: echo {frequency.highest} | sudo tee {_shown(host, folder)}/max_freq"
        )
    if frequency.governor in _FIXED_GOVERNORS and 2 * frequency.current <= (frequency.limit or frequency.highest):
        # A governor that the driver does not offer must not be set: it has taken systems down.
        offered = text_of(folder / "available_governors").split()
        value, file = ("performance", "governor") if "performance" in offered else (frequency.highest, "min_freq")
        yield (
            f"the NPU is stuck at {_mhz(frequency.current)} of {_mhz(frequency.highest)} MHz: the governor "
            f"{frequency.governor} does not look at the load; echo {value} | sudo tee {_shown(host, folder)}/{file}"
        )


def _core_notes(platform: Platform | None, load: tuple[int, ...] | None) -> Iterator[str]:
    if platform is not None and load is not None and len(load) < platform.cores:
        yield (
            f"the kernel driver has {len(load)} NPU core{'s' if len(load) > 1 else ''}, the {platform.title} has "
            f"{platform.cores}: a variant of the chip with fewer of them; "
            f"use schedule={','.join(str(core) for core in range(len(load)))}"
        )


def _sorted(folder: Path, pattern: str) -> list[Path]:
    try:
        return sorted(folder.glob(pattern))
    except OSError:
        return []


def _mhz(hertz: int | None) -> str:
    return "?" if hertz is None else f"{hertz / 1e6:.0f}"


def _shown(host: Host, path: Path) -> str:
    """A path as it is on the machine that the sysroot is the root of."""
    try:
        return "/" + str(path.relative_to(host.sysroot))
    except ValueError:
        return str(path)
