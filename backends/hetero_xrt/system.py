"""What the system tells about the NPU without the vendor's library: sysfs, device nodes, limits, where pyxrt is."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import re
import resource
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hetero.backend import Host
from hetero.sysfs import text_of

XRT_PLACES = ("opt/xilinx/xrt/python", "usr/lib/python3/dist-packages", "usr/local/xrt/python")
"""Where XRT's packages put pyxrt; the first is AMD's own, which only `setup.sh` puts on Python's path."""

_BDF = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")

# What drivers and firmware call the generations.
_GENERATIONS = {"npu1": "npu1", "phoenix": "npu1", "hawk point": "npu1"}
_TITLES = {"npu1": "Phoenix"}

# Launches in flight need some buffers of a MiB or so; the driver's own heap takes 64 MiB.
_ENOUGH_MEMLOCK = 128 << 20


@dataclass(frozen=True)
class SystemReport:
    """What the system tells about the NPU.

    Attributes:
        node: Its device node below the sysroot; None when the kernel shows no NPU of AMD's.
        generation: `npu1`; None when it is not one that hetero knows.
        name: What the driver calls it.
        bdf: Its address on the PCI bus, such as `0000:c5:00.1`; None when the kernel does not tell.
        module: pyxrt can be imported by this Python.
        module_fix: What to do when it cannot.
        properties: For `Device.properties`.
        notes: What is wrong, and what to do about it.
    """

    node: Path | None
    generation: str | None
    name: str
    bdf: str | None
    module: bool
    module_fix: str
    properties: Mapping[str, Any]
    notes: tuple[str, ...]


def system_report(host: Host) -> SystemReport:
    """Look at the system. Reads small files; imports nothing, wakes nothing up, never raises."""
    folder = _sysfs(host)
    if folder is None:
        return SystemReport(None, None, "", None, _importable(), _module_fix(host), {}, ())
    node = host.sysroot / "dev/accel" / folder.name
    name = text_of(folder / "device/vbnv") or "unknown NPU"
    generation = next((known for sign, known in _GENERATIONS.items() if sign in name.lower()), None)
    properties: dict[str, Any] = {"name": name, "device node": f"/dev/accel/{folder.name}"}
    for key, file in (("firmware", "fw_version"), ("device type", "device_type")):
        text = text_of(folder / "device" / file)
        properties |= {key: text} if text else {}
    driver = text_of(host.sysroot / "sys/module/amdxdna/version")
    properties["kernel driver"] = f"amdxdna {driver}".strip()
    properties["memory lock limit"] = memory_lock_limit()[0]
    notes = (*_node_notes(node, folder.name), *_memlock_notes(), *_generation_notes(name, generation))
    return SystemReport(node, generation, name, _bdf(folder), _importable(), _module_fix(host), properties, notes)


def title_of(generation: str | None) -> str:
    """What a person calls a generation."""
    return _TITLES.get(generation or "", "XDNA")


def _sysfs(host: Host) -> Path | None:
    """The first accelerator that is AMD's: others (Intel's, Habana's) are in the same class."""
    try:
        folders = sorted((host.sysroot / "sys/class/accel").glob("accel*"))
    except OSError:
        return None
    for folder in folders:
        uevent = text_of(folder / "device/uevent").splitlines()
        if "DRIVER=amdxdna" in uevent or text_of(folder / "device/vbnv"):
            return folder
    return None


def _bdf(folder: Path) -> str | None:
    for line in text_of(folder / "device/uevent").splitlines():
        if line.startswith("PCI_SLOT_NAME="):
            return line.partition("=")[2].strip()
    target = (folder / "device").resolve().name
    return target if _BDF.fullmatch(target) else None


def _importable() -> bool:
    if "pyxrt" in sys.modules:
        return sys.modules["pyxrt"] is not None
    try:
        return importlib.util.find_spec("pyxrt") is not None
    except (ImportError, ValueError):
        return False


def _module_fix(host: Host) -> str:
    """How pyxrt comes within reach of this Python."""
    mine = importlib.machinery.EXTENSION_SUFFIXES
    for place in XRT_PLACES:
        for file in _found(host.sysroot / place):
            if any(file.name == f"pyxrt{suffix}" for suffix in mine):
                return f"put it on Python's path: export PYTHONPATH=/{place}:$PYTHONPATH (XRT's setup.sh does that)"
            built = _built_for(file)
            if built is not None:
                return (
                    f"the pyxrt in /{place} is for {built}, this is "
                    f"{sys.version_info[0]}.{sys.version_info[1]}: use {built}, or build XRT with this one"
                )
            return f"the pyxrt in /{place} ({file.name}) is not for this Python: build XRT with it"
    return "install XRT with its Python module (package xrt-base or libxrt, and python3-xrt where it is apart)"


def _built_for(file: Path) -> str | None:
    """`Python 3.12`, as the file's name has it."""
    built = file.name.removeprefix("pyxrt.").split("-")
    return f"Python {built[1][0]}.{built[1][1:]}" if len(built) > 1 and built[0] == "cpython" else None


def _found(folder: Path) -> list[Path]:
    try:
        return sorted(folder.glob("pyxrt*.so"))
    except OSError:
        return []


def _node_notes(node: Path, name: str) -> Iterator[str]:
    if not node.exists():
        yield (
            f"the kernel has the NPU as /dev/accel/{name}, but that is not here; in a container pass it in: "
            f"--device /dev/accel/{name}"
        )
    elif not os.access(node, os.R_OK | os.W_OK):
        try:
            group = node.group()
        except (KeyError, OSError):
            group = "render"
        yield (
            f"this user may not open /dev/accel/{name}; join the group {group}: sudo usermod -aG {group} $USER, "
            "then log in again"
        )


def memory_lock_limit() -> tuple[str, bool]:
    """How much memory this process may lock, in words, and whether that is enough."""
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    if limit == resource.RLIM_INFINITY:
        return "none", True
    return f"{limit >> 10} KiB", limit >= _ENOUGH_MEMLOCK


def built_pyxrts(host: Host) -> list[tuple[str, str]]:
    """The pyxrt files in XRT's usual places, and the Python that each was built for."""
    files = [file for place in XRT_PLACES for file in _found(host.sysroot / place)]
    return [(f"/{file.relative_to(host.sysroot)}", _built_for(file) or "an unknown Python") for file in files]


def _memlock_notes() -> Iterator[str]:
    told, enough = memory_lock_limit()
    if not enough:
        yield (
            f"only {told} of memory may be locked, which the NPU's buffers need: put "
            "`* - memlock unlimited` into /etc/security/limits.d/99-npu.conf and log in again"
        )


def _generation_notes(name: str, generation: str | None) -> Iterator[str]:
    if generation is None:
        yield f"{name} is no NPU that hetero has kernels for; it knows {', '.join(sorted(set(_GENERATIONS.values())))}"
