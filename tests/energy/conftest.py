from __future__ import annotations

import pytest

import hetero
from tests.energy.machine import Machine


@pytest.fixture
def machine(host: hetero.Host) -> Machine:
    """The machine of `make_runtime`, without any meter."""
    return Machine(host.sysroot)
