"""What the tests of skeleton and tutorial share."""

from __future__ import annotations

import pytest

from tests.testing.environment import Environment, fresh_environment


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """A fresh environment with hetero's wheel, for one module: what a test installs there is seen by no other."""
    return fresh_environment(tmp_path_factory.mktemp("environment"))
