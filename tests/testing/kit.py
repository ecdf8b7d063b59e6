"""Running the conformance kit in a process of its own, and reading what it found."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

from tests.packaging.test_packages import ROOT

PATH = ":".join(str(ROOT / folder) for folder in (".", "backends", "kernels", "docs/examples/hetero-reference"))
PLUGIN = "hetero.testing.pytest_plugin"


@dataclass(frozen=True)
class Case:
    """A case's outcome: `passed`, `failed` or `skipped`, and what it said."""

    outcome: str
    text: str


def plugin_arguments() -> list[str]:
    """What makes pytest load the plugin where the installed metadata is older than its entry point."""
    return [] if any(point.value == PLUGIN for point in entry_points(group="pytest11")) else ["-p", PLUGIN]


def run_kit(folder: Path, *arguments: str, environ: Mapping[str, str]) -> dict[str, Case]:
    """Run pytest with the plugin.

    Returns:
        The cases by `Class::name`.
    """
    report = folder / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:randomly"]
    command += [*plugin_arguments(), "-c", str(folder / "pytest.ini"), f"--junitxml={report}", *arguments]
    (folder / "pytest.ini").write_text("[pytest]\n")
    done = subprocess.run(
        command, cwd=folder, env=dict(environ), capture_output=True, text=True, timeout=300, check=False
    )
    assert report.exists(), done.stdout + done.stderr
    return read_report(report)


def read_report(report: Path) -> dict[str, Case]:
    """The cases of a JUnit report."""
    cases = {}
    for entry in ElementTree.parse(report).iter("testcase"):
        children = {child.tag: child.get("message", "") + (child.text or "") for child in entry}
        outcome = "passed"
        for tag, name in (("skipped", "skipped"), ("failure", "failed"), ("error", "failed")):
            if tag in children:
                outcome = name
        key = f"{entry.get('classname', '').rpartition('.')[2]}::{entry.get('name')}"
        cases[key] = Case(outcome, "\n".join(children.values()))
    return cases
