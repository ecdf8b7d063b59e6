"""Machines with the toolkit's stand-in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hetero
from tests.rknn.toolkit.environments import Rknn, host_with, make_environment

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="session")
def toolkit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the stand-in for rknn-toolkit2."""
    return make_environment(tmp_path_factory.mktemp("toolkit") / "environment")


@pytest.fixture
def toolkit_host(toolkit: Path, tmp_path: Path) -> hetero.Host:
    """A machine on which the user names that environment."""
    return host_with(toolkit, tmp_path)


@pytest.fixture
def runtime(make_runtime: Callable[..., hetero.Runtime], toolkit_host: hetero.Host) -> hetero.Runtime:
    """A Runtime that compiles with the stand-in."""
    return make_runtime(Rknn, host=toolkit_host)


@pytest.fixture
def compile_here(runtime: hetero.Runtime, tmp_path: Path) -> Callable[..., Any]:
    """Compiles for RK3588 into a folder of the test's own."""

    def compile_it(source: Any, target: Any = "rk3588", **options: Any) -> Any:
        return runtime.compile(source, target, out=options.pop("out", tmp_path / "bundle"), **options)

    return compile_it
