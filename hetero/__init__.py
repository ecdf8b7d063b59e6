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

from hetero.backend import Backend, Call, Device, Executable, Host, Option, PolledExecutable, Ticket
from hetero.errors import HeteroError, Unavailable, Unsupported
from hetero.program import Artifact, Program
from hetero.tensors import TensorSpec

if TYPE_CHECKING:
    from hetero.explain import Explanation
    from hetero.plugins import hookimpl
    from hetero.runtime import Absent, Runtime
    from hetero.session import Result, Session
    from hetero.telemetry.records import Attempt, Record

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
    "Ticket",
    "Unavailable",
    "Unsupported",
    "__version__",
    "hookimpl",
]

_LATE = {
    "Absent": "hetero.runtime",
    "Attempt": "hetero.telemetry.records",
    "Explanation": "hetero.explain",
    "Record": "hetero.telemetry.records",
    "Result": "hetero.session",
    "Runtime": "hetero.runtime",
    "Session": "hetero.session",
    "hookimpl": "hetero.plugins",
}


def __getattr__(name: str) -> Any:
    # What needs pluggy, thread pools or installed metadata comes in when it is first used: `import hetero` stays cheap.
    if name == "__version__":
        from importlib.metadata import version

        return version("hetero")
    if name in _LATE:
        from importlib import import_module

        value = getattr(import_module(_LATE[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'hetero' has no attribute {name!r}")
