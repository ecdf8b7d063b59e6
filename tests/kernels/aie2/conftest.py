"""The host's compilers, and one cache of compiled kernels for a whole run of the tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from hetero.errors import Unavailable
from hetero_kernels.aie2.host import COMPILERS, compiler


@pytest.fixture(scope="session")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where compiled kernels are kept; shared by the workers of a parallel run. Without g++ there are none."""
    try:
        compiler("g++")
    except Unavailable as missing:
        pytest.skip(str(missing))
    base = tmp_path_factory.getbasetemp()
    return (base.parent if base.name.startswith("popen-") else base) / "aie2-libraries"


@pytest.fixture(scope="session", params=COMPILERS)
def compiler_name(request: pytest.FixtureRequest) -> str:
    """Each compiler that is here; the others are skipped with the reason."""
    name = str(request.param)
    try:
        compiler(name)
    except Unavailable as missing:
        pytest.skip(str(missing))
    return name
