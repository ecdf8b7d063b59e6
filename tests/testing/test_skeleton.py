"""What `hetero plugins new` writes: installed in a fresh environment it is found, works and is green."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from tests.core.test_bundle import write_model
from tests.packaging.test_packages import build
from tests.testing.environment import Environment
from tests.testing.kit import read_report


@pytest.fixture(scope="module")
def skeleton(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a new backend, its wheel installed."""
    folder = tmp_path_factory.mktemp("skeleton")
    environment.run("hetero plugins new acme-npu", folder)
    environment.run(f"pip install {build(folder / 'hetero-acme-npu', folder)}", folder)
    return folder / "hetero-acme-npu"


def test_the_skeleton_is_found(environment: Environment, skeleton: Path) -> None:
    listed = json.loads(environment.run("hetero plugins --json", skeleton))["plugins"]
    mine = next(plugin for plugin in listed if plugin["name"] == "acme-npu")
    assert mine == {
        "group": "hetero.backends",
        "name": "acme-npu",
        "value": "hetero_acme_npu",
        "distribution": "hetero-acme-npu",
        "version": "0.1.0",
        "state": "ok",
        "reason": "",
        "fix": "",
        "backends": ["acme-npu"],
        "programs": [],
    }
    devices = json.loads(environment.run("hetero devices --json", skeleton))["devices"]
    assert [device["name"] for device in devices] == ["cpu", "acme-npu"]


def test_the_skeleton_computes(environment: Environment, skeleton: Path, tmp_path: Path) -> None:
    model = write_model(tmp_path / "m.onnx")
    command = f"hetero run {model} --device acme-npu --input x=1,2 --shape x=1x2 --json"
    told = json.loads(environment.run(command, tmp_path))
    assert told["device"] == "acme-npu"
    assert told["outputs"][0]["first"] == [6.0, 9.0, 12.0]


@pytest.mark.parametrize(
    "command",
    ["pytest --hetero-backend acme-npu", "pytest --hetero-backend acme-npu --pyargs hetero.testing.conformance"],
)
def test_the_skeleton_is_green_under_the_kit_by_name(
    environment: Environment, skeleton: Path, tmp_path: Path, command: str
) -> None:
    environment.run(f"{command} --junitxml={tmp_path}/report.xml", tmp_path)
    cases = read_report(tmp_path / "report.xml")
    assert len(cases) > 80
    assert cases["TestBackend::test_is_found_by_its_name"].outcome == "passed"
    assert cases["TestBackend::test_answers_are_right[matmul]"].outcome == "passed"
    skipped = {name for name, case in cases.items() if case.outcome == "skipped"}
    assert all("kernel-" in name or "ticket" in name for name in skipped), "it skips only what it does not support"


def test_the_tests_of_the_skeleton_are_green(environment: Environment, skeleton: Path, tmp_path: Path) -> None:
    environment.run(f"pytest --junitxml={tmp_path}/report.xml", skeleton)
    cases = read_report(tmp_path / "report.xml")
    assert cases["TestAcmeNpuBackend::test_is_found_by_its_name"].outcome == "passed"


def test_the_skeleton_is_clean_for_ruff_and_mypy(environment: Environment, skeleton: Path) -> None:
    environment.run("ruff check --no-cache . && ruff format --no-cache --check .", skeleton)
    environment.run("mypy --cache-dir=/dev/null", skeleton)


def test_the_skeleton_can_be_switched_off(environment: Environment, skeleton: Path) -> None:
    told = json.loads(environment.run("hetero devices --json", skeleton, HETERO_DISABLE_PLUGINS="1"))
    assert [device["name"] for device in told["devices"]] == ["cpu"]
    absent = {entry["backend"]: entry["reason"] for entry in told["absent"]}
    assert absent["acme-npu"].startswith("disabled by HETERO_DISABLE_PLUGINS, with every backend")
    order = json.loads(environment.run("hetero devices --json", skeleton, HETERO_BACKENDS="acme-npu,cpu"))
    assert [device["name"] for device in order["devices"]] == ["acme-npu", "cpu"]


def test_the_folder_can_be_read_by_others(skeleton: Path) -> None:
    assert stat.S_IMODE(skeleton.stat().st_mode) == 0o755
