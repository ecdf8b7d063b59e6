"""Logging: one logger for each module, nothing on the root logger, nothing printed."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Rockchip's Python class breaks `logging` and has a logger of its own: one mends the first and listens to the second,
# the other imitates both.
VENDORS = {ROOT / "backends/hetero_rknn/drivers/lite_log.py", ROOT / "hetero/testing/rknn/rknnlite.py"}
SOURCES = sorted(
    path
    for folder in ("hetero", "backends", "kernels")
    for path in (ROOT / folder).rglob("*.py")
    if "import logging" in path.read_text(encoding="utf-8") and path not in VENDORS
)
CLI = ROOT / "hetero" / "cli"

PROGRAM = """
import logging, sys
import numpy as np
import hetero
from hetero.errors import DeviceLost
from hetero.telemetry.trace import Trace
from tests.fakes import DOUBLE, fake, raises

before = logging.root.level
npu, cpu = fake("npu", run=raises(DeviceLost("gone"))), fake("cpu", kind="cpu")
with hetero.Runtime(backends=[npu, cpu], plugins=False, learn=False) as runtime:
    runtime.load(DOUBLE, canary=False)(np.ones(4, np.float32))
    Trace(runtime.records).write(sys.argv[1])
assert logging.root.handlers == [], logging.root.handlers
assert logging.root.level == before
loggers = [name for name in logging.root.manager.loggerDict if name.split(".")[0] == "hetero"]
assert "hetero.scheduler.candidate" in loggers
assert all(not logging.getLogger(name).handlers for name in loggers)
assert all(logging.getLogger(name).level == logging.NOTSET for name in loggers)
assert all(logging.getLogger(name).propagate for name in loggers)
"""


def test_a_run_with_a_failure_puts_nothing_on_the_root_logger_and_prints_nothing(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "trace.json")], cwd=ROOT, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == ""
    # What logging itself writes for an application that has set up nothing.
    assert "npu: run failed: DeviceLost: gone" in ran.stderr


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_module_logs_under_its_own_name(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        if not (isinstance(node.func.value, ast.Name) and node.func.value.id == "logging"):
            continue
        assert node.func.attr not in ("basicConfig", "debug", "info", "warning", "error", "exception", "critical")
        if node.func.attr == "getLogger" and CLI not in path.parents:
            assert [ast.unparse(argument) for argument in node.args] == ["__name__"]
