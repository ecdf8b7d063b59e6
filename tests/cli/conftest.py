"""The command line in this process, on backends that a test chooses."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner, Result

import hetero
import hetero_kernels
from hetero.cli.root import cli
from tests.cli.backends import reference


class Line:
    """Calls `hetero ...` and gives click's Result; the Runtimes that it makes have `backends`."""

    def __init__(self) -> None:
        self.backends: list[Any] = [reference("cpu", description="the only one")]

    def __call__(self, *arguments: object) -> Result:
        return CliRunner().invoke(cli, [str(argument) for argument in arguments])

    def json(self, *arguments: object, code: int = 0) -> Any:
        """The document that a call with `--json` prints; it must be all that is on stdout."""
        result = self(*arguments, "--json")
        assert result.exit_code == code, result.output
        return json.loads(result.stdout)

    def refuses(self, *arguments: object, code: int = 2, says: str = "") -> str:
        """Stderr of a call that must fail with that exit code, say that, and show no traceback."""
        result = self(*arguments)
        assert result.exit_code == code, result.output
        assert says in result.stderr
        assert "Traceback" not in result.output
        assert result.stdout == ""
        return result.stderr


@pytest.fixture
def line(make_runtime: Callable[..., hetero.Runtime], monkeypatch: pytest.MonkeyPatch) -> Line:
    """The command line on a machine with one CPU and the kernels; a test may change `line.backends`."""
    line = Line()

    def make(*, chain: Any = None, simulate: Any = (), options: Any = None, thermal: Any = True) -> hetero.Runtime:
        runtime = make_runtime(*line.backends, chain=chain, simulate=simulate or None, options=options, thermal=thermal)
        runtime._plugins.register(hetero_kernels, "hetero.programs:kernels")
        return runtime

    monkeypatch.setattr("hetero.cli.runtime.make_runtime", make)
    return line
