"""Which backend is tested: the test class's own, or the installed one that the command line names."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import pytest

from hetero.backend import Backend
from hetero.plugins import Plugins


@functools.cache
def installed_backends() -> Mapping[str, type[Backend]]:
    """The backends of the installed plugins by name."""
    plugins = Plugins()
    plugins.discover()
    return {backend.name: backend for backend in plugins.backends()}


def chosen_backend(case: str, own: type[Backend] | None, config: pytest.Config) -> type[Backend]:
    """The test class's own backend, else the one that `--hetero-backend` names.

    Args:
        case: The test class's name.
        own: Its attribute `backend`.
        config: Of this pytest run.

    Raises:
        CollectError: There is none, or none of that name; tells which there are, and which plugins are out of order.
    """
    if own is not None:
        return own
    name = config.getoption("hetero_backend", None)
    if not name:
        raise pytest.Collector.CollectError(
            f"{case} has no backend: set the class attribute `backend`, or give --hetero-backend NAME"
        )
    found = installed_backends()
    if name in found:
        return found[name]
    plugins = Plugins()
    plugins.discover()
    lines = [f"no installed plugin gives a backend {name!r}; there are: {', '.join(sorted(found)) or 'none'}"]
    lines += [f"  {plugin.name}: {plugin.state}: {plugin.reason}" for plugin in plugins.installed() if plugin.reason]
    raise pytest.Collector.CollectError("\n".join(lines))
