"""An `onnxruntime` with providers that this machine has not: enough of its interface for the provider backend."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


class Value:
    def __init__(self, name: str) -> None:
        self.name, self.type, self.shape = name, "tensor(float)", [4]


class SessionOptions:
    def __init__(self) -> None:
        self.config: dict[str, str] = {}
        self.devices: list[EpDevice] = []
        self.device_options: dict[str, str] = {}
        self.enable_mem_pattern = True

    def add_session_config_entry(self, key: str, value: str) -> None:
        self.config[key] = value

    def add_provider_for_devices(self, devices: Sequence[EpDevice], options: Mapping[str, str]) -> None:
        self.devices, self.device_options = list(devices), dict(options)


class RunOptions:
    terminate = False


class EpDevice:
    """A device of a plugin provider, as `get_ep_devices` gives it."""

    def __init__(self, ep_name: str, hardware: str, *, plugin: bool = True) -> None:
        self.ep_name = ep_name
        self.device = types.SimpleNamespace(type=types.SimpleNamespace(name=hardware))
        self.ep_metadata = {"library_path": "/plugins/lib.so"} if plugin else {}


class FakeOrt(types.ModuleType):
    """The module.

    Attributes:
        available: What `get_available_providers` gives.
        devices: What `get_ep_devices` gives.
        missing: Providers that do not start: the session comes up without them, as onnxruntime's does.
        nodes: Nodes by provider of every session; None for an onnxruntime that cannot tell.
        refuses: Raised by every new session.
        sessions: Those that were made, with what they were made of.
        registered: Plugin libraries by name.
    """

    __version__ = "1.99.0"

    def __init__(self, *available: str, devices: Sequence[EpDevice] = ()) -> None:
        super().__init__("onnxruntime")
        self.available = [*available, "CPUExecutionProvider"]
        self.devices = list(devices)
        self.missing: set[str] = set()
        self.nodes: dict[str, int] | None = None
        self.refuses: Exception | None = None
        self.sessions: list[FakeSession] = []
        self.registered: dict[str, str] = {}
        self.SessionOptions = SessionOptions
        self.RunOptions = RunOptions
        self.GraphOptimizationLevel = types.SimpleNamespace(
            ORT_ENABLE_ALL="all", ORT_ENABLE_EXTENDED="extended", ORT_ENABLE_BASIC="basic", ORT_DISABLE_ALL="off"
        )

    def get_available_providers(self) -> list[str]:
        return self.available

    def get_ep_devices(self) -> list[EpDevice]:
        return self.devices

    def register_execution_provider_library(self, name: str, path: str) -> None:
        self.registered[name] = path
        self.devices.append(EpDevice(name, "GPU"))

    def InferenceSession(self, path: str, options: SessionOptions, **arguments: Any) -> FakeSession:  # noqa: N802
        if self.refuses is not None:
            raise self.refuses
        self.sessions.append(FakeSession(self, options, **arguments))
        return self.sessions[-1]


class FakeSession:
    def __init__(
        self, ort: FakeOrt, options: SessionOptions, providers: Sequence[Any] | None = None, enable_fallback: int = 1
    ) -> None:
        self.options = options
        self.enable_fallback = enable_fallback
        self.providers = list(providers or [])
        wanted = [device.ep_name for device in options.devices] or [
            entry if isinstance(entry, str) else entry[0] for entry in self.providers
        ]
        self.active = [name for name in dict.fromkeys(wanted) if name not in ort.missing] + ["CPUExecutionProvider"]
        if ort.nodes is not None:
            nodes = ort.nodes
            self.get_provider_graph_assignment_info = lambda: [
                types.SimpleNamespace(ep_name=name, get_nodes=lambda count=count: [None] * count)
                for name, count in nodes.items()
            ]

    def get_providers(self) -> list[str]:
        return self.active

    def get_inputs(self) -> list[Value]:
        return [Value("x")]

    def get_outputs(self) -> list[Value]:
        return [Value("y")]

    def run(self, names: Sequence[str], inputs: Mapping[str, Any], options: RunOptions) -> list[Any]:
        return [np.add(inputs["x"], inputs["x"])]
