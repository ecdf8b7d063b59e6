"""The conformance kit as a pytest plugin.

::

    pytest --hetero-backend NAME                       # the kit alone, on an installed backend
    pytest --hetero-backend NAME --pyargs hetero.testing.conformance

Without `--hetero-backend` this plugin does nothing, and imports nothing: it is loaded in every pytest run of an
environment in which hetero is installed.
"""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """The kit's options."""
    group = parser.getgroup("hetero", "conformance of a backend of hetero")
    group.addoption("--hetero-backend", metavar="NAME", help="The installed backend to test.")
    group.addoption("--hetero-device", metavar="NAME", help="The device to test; by default the backend's first.")
    group.addoption(
        "--hetero-simulate",
        metavar="MACHINE",
        action="append",
        help="Test the backend's simulator of this machine; may be repeated.",
    )
    group.addoption(
        "--hetero-require",
        action="store_true",
        help="Fail instead of skip when the backend is not available here: for the machine that has the device.",
    )


def pytest_configure(config: pytest.Config) -> None:
    """With a backend and without a path, the kit is what is run."""
    if not config.getoption("hetero_backend") or config.args_source == pytest.Config.ArgsSource.ARGS:
        return
    from importlib.util import find_spec

    spec = find_spec("hetero.testing.conformance")
    if spec is not None and spec.origin is not None:
        config.args = [spec.origin]
