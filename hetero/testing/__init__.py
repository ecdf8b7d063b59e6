"""For authors of backends: the conformance kit, as a pytest plugin and as a class to inherit from.

| module | subject |
|---|---|
| `pytest_plugin` | the options of pytest: `--hetero-backend NAME` |
| `conformance` | the cases: what the contract asks of a backend that runs programs |
| `loading` | the cases before anything is run: what it says, finds and loads |
| `fixtures` | what the cases are given, and what a test class can set |
| `programs` | small programs with known answers |
| `choice` | which backend is tested |
| `checks` | what several cases share: hammering executables from threads, bad models |
| `harness` | calling a backend as the scheduler does, with a limit on every call; failures in words |
| `leaks` | counting threads, file descriptors and memory |

::

    from hetero.testing import BackendConformance

    class TestToy(BackendConformance):
        backend = ToyBackend
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hetero.testing.conformance import BackendConformance
    from hetero.testing.programs import ReferenceProgram

__all__ = ["BackendConformance", "ReferenceProgram"]

_LATE = {"BackendConformance": "hetero.testing.conformance", "ReferenceProgram": "hetero.testing.programs"}


def __getattr__(name: str) -> Any:
    # pytest imports this package in every run of an environment in which hetero is installed.
    if name in _LATE:
        from importlib import import_module

        return getattr(import_module(_LATE[name]), name)
    raise AttributeError(f"module 'hetero.testing' has no attribute {name!r}")
