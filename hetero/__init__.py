"""hetero: one API for Rockchip NPUs, Ryzen AI NPUs, integrated GPUs and CPUs, and a scheduler that falls back.

::

    import hetero

    with hetero.Runtime() as rt:
        session = rt.load("model.onnx")
        y = session(x)
        print(session.explain())
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hetero.backend import Backend, Call, Device, Executable, Host, Option, PolledExecutable, Ticket
    from hetero.errors import HeteroError, Unavailable, Unsupported
    from hetero.explain import Explanation
    from hetero.machine import Absent
    from hetero.plugins import hookimpl
    from hetero.program import Artifact, Program
    from hetero.runtime import Runtime
    from hetero.session import Result, Session
    from hetero.telemetry.records import Attempt, Record
    from hetero.tensors import TensorSpec
    from hetero.thermal.settings import ThermalSettings

    __version__: str

__all__ = [
    "Absent",
    "Artifact",
    "Attempt",
    "Backend",
    "Call",
    "Device",
    "Executable",
    "Explanation",
    "HeteroError",
    "Host",
    "Option",
    "PolledExecutable",
    "Program",
    "Record",
    "Result",
    "Runtime",
    "Session",
    "TensorSpec",
    "ThermalSettings",
    "Ticket",
    "Unavailable",
    "Unsupported",
    "__version__",
    "hookimpl",
]

_LATE = {
    "Absent": "hetero.machine",
    "Artifact": "hetero.program",
    "Attempt": "hetero.telemetry.records",
    "Backend": "hetero.backend",
    "Call": "hetero.backend",
    "Device": "hetero.backend",
    "Executable": "hetero.backend",
    "Explanation": "hetero.explain",
    "HeteroError": "hetero.errors",
    "Host": "hetero.backend",
    "Option": "hetero.backend",
    "PolledExecutable": "hetero.backend",
    "Program": "hetero.program",
    "Record": "hetero.telemetry.records",
    "Result": "hetero.session",
    "Runtime": "hetero.runtime",
    "Session": "hetero.session",
    "TensorSpec": "hetero.tensors",
    "ThermalSettings": "hetero.thermal.settings",
    "Ticket": "hetero.backend",
    "Unavailable": "hetero.errors",
    "Unsupported": "hetero.errors",
    "hookimpl": "hetero.plugins",
}

_MODULES = ("backend", "errors", "program", "tensors")


def __getattr__(name: str) -> Any:
    # Everything comes in when it is first used, numpy too: the pytest plugin of `hetero.testing` is imported by every
    # pytest run of an environment in which hetero is installed, and must not slow it down.
    if name == "__version__":
        from importlib.metadata import version

        return version("hetero")
    from importlib import import_module

    if name in _LATE:
        value = getattr(import_module(_LATE[name]), name)
        globals()[name] = value
        return value
    if name in _MODULES:
        return import_module(f"hetero.{name}")
    raise AttributeError(f"module 'hetero' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
