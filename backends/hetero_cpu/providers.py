"""Execution providers of ONNX Runtime as devices: `ort:vitisai`, `ort:dml`, `ort:openvino-npu`, ...

A provider is built into the installed onnxruntime (`onnxruntime-directml` brings DirectML's, for example), or comes in
a plugin library of a package of its own (`onnxruntime-ep-webgpu`), which has to be registered before it is listed.
For those ONNX Runtime (1.22 and later) also tells the hardware; a built-in one is listed whether or not its hardware
is there, and only loading a program shows it.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hetero.backend import Device, Kind
from hetero_cpu.library import Installed

_log = logging.getLogger(__name__)

# The hardware that a provider is for, where its name alone tells; by short name.
_KINDS: dict[str, Kind] = {
    **dict.fromkeys(("vitisai", "qnn", "cann", "rknpu", "vsinpu", "nnapi", "coreml"), "npu"),
    **dict.fromkeys(("dml", "openvino", "cuda", "rocm", "migraphx", "webgpu", "tensorrt", "nvtensorrtrtx"), "gpu"),
}
# Behind the backends that are made for one device, before the plain CPU.
_RANKS: dict[Kind, int] = {"npu": 150, "gpu": 250, "cpu": 290}

# Not a device of this machine: the CPU's is the backend `cpu`, Azure's sends inputs to a server.
_LEFT_OUT = ("CPUExecutionProvider", "AzureExecutionProvider")

_registering = threading.Lock()


@dataclass(frozen=True)
class Provider:
    """An execution provider on one kind of hardware.

    Attributes:
        name: As ONNX Runtime calls it: `VitisAIExecutionProvider`.
        kind: Of its hardware.
        plugin_devices: ONNX Runtime's handles of a plugin's devices; empty for a built-in provider.
    """

    name: str
    kind: Kind
    plugin_devices: tuple[Any, ...] = ()

    @property
    def short(self) -> str:
        """The name that users write: `vitisai`."""
        return short_name(self.name)

    def device(self, version: str) -> Device:
        """The hetero device; with the hardware in its name where that is not what the provider is usually for."""
        usual = not self.plugin_devices or _KINDS.get(self.short) == self.kind
        notes = () if self.plugin_devices else ("whether its hardware is here shows when a program is loaded",)
        return Device(
            f"ort:{self.short}" if usual else f"ort:{self.short}-{self.kind}",
            kind=self.kind,
            description=f"ONNX Runtime {version}, {self.name}",
            rank=_RANKS[self.kind],
            properties={"provider": self.name, "onnxruntime": version},
            notes=notes,
        )


def short_name(provider: str) -> str:
    """`vitisai` for `VitisAIExecutionProvider`."""
    return provider.removesuffix("ExecutionProvider").lower()


def may_have_providers(found: Installed) -> bool:
    """Whether importing onnxruntime could show more than the CPU; a look at file names that spares the import.

    The plain distribution has the CPU alone, except on macOS (CoreML). Every other distribution, of whatever name, has
    more. Where one was installed over the plain one, the plain one's metadata are still there, but the other's
    libraries are, too. And what is imported already can be asked for nothing.
    """
    return (
        "onnxruntime" in sys.modules
        or sys.platform == "darwin"
        or found.distribution != "onnxruntime"
        or (found.folder is not None and any(_provider_libraries(found.folder / "capi")))
        or any(_plugin_packages())
    )


def find_providers(ort: Any) -> list[Provider]:
    """The providers of an imported onnxruntime, the CPU's and remote ones left out; registers plugins first."""
    plugins: dict[tuple[str, Kind], list[Any]] = {}
    register_plugins(ort)
    for device in ort.get_ep_devices() if hasattr(ort, "get_ep_devices") else ():
        # A name with a dot is a provider's own way to choose among its devices, which hetero's chain does.
        if "library_path" in device.ep_metadata and "." not in device.ep_name:
            plugins.setdefault((device.ep_name, _hardware(device)), []).append(device)
    found = [Provider(name, kind, tuple(devices)) for (name, kind), devices in plugins.items()]
    from_plugins = {name.partition(".")[0] for name, _ in plugins}
    for name in ort.get_available_providers():
        if name not in _LEFT_OUT and name.partition(".")[0] not in from_plugins:
            found.append(Provider(name, _KINDS.get(short_name(name), "cpu")))
    return found


def register_plugins(ort: Any) -> None:
    """Make the provider libraries of installed plugin packages known to onnxruntime, once per process."""
    if not hasattr(ort, "register_execution_provider_library"):
        return
    with _registering:
        for package in _plugin_packages():
            try:
                module = importlib.import_module(package)
                name, library = module.get_ep_name(), module.get_library_path()
                if name not in {device.ep_name for device in ort.get_ep_devices()}:
                    ort.register_execution_provider_library(name, library)
            except Exception as error:  # of a foreign package; the other providers are not its business
                if "already registered" not in str(error):
                    _log.warning("the ONNX Runtime plugin %s cannot be used: %s", package, error)


def _plugin_packages() -> Iterator[str]:
    """Packages with a provider library, named as ONNX Runtime's packaging guide for plugins has it."""
    # By name first: `pkgutil.iter_modules` looks into each of hundreds of folders, in every start of a Runtime.
    seen: set[str] = set()
    for place in sys.path:
        try:
            names = sorted(name for name in os.listdir(place or ".") if name.startswith("onnxruntime_"))
        except OSError:  # a zip file, or a folder that is not there
            continue
        for name in names:
            folder = Path(place) / name
            if name in seen or not (folder / "__init__.py").is_file():
                continue
            seen.add(name)
            if any(_provider_libraries(folder)):
                yield name


def _provider_libraries(folder: Path) -> Iterator[Path]:
    for pattern in ("*onnxruntime_providers_*", "DirectML*"):
        for file in folder.glob(pattern):
            if "providers_shared" not in file.name:
                yield file


def _hardware(device: Any) -> Kind:
    kind = str(getattr(device.device.type, "name", device.device.type)).lower()
    return "npu" if kind == "npu" else "gpu" if kind == "gpu" else "cpu"
