"""The conformance kit passes what keeps the contract, and finds each fault by the case that is there for it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.testing import broken_backends
from tests.testing.kit import PATH, Case, plugin_arguments, run_kit

FAULTY = {
    name: case
    for name, case in vars(broken_backends).items()
    if isinstance(case, type) and issubclass(case, broken_backends.Faulty) and case is not broken_backends.Faulty
}
NEVER_TO_BE_SKIPPED = (
    "::test_answers_are_right[add]",
    "::test_calls_at_once_are_never_mixed_up[matmul]",
    "::test_loading_and_closing_leaves_nothing_behind",
    "::test_a_call_that_must_fail_raises_an_error_of_hetero_and_does_no_harm",
)


REFERENCE = """
from hetero.testing import BackendConformance
from hetero_reference import ReferenceBackend

class TestReference(BackendConformance):
    backend = ReferenceBackend
"""


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    # Options that were meant for this run of pytest are not meant for those that it starts.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    return {**kept, "PYTHONPATH": PATH, "HETERO_CACHE_DIR": str(tmp_path_factory.mktemp("cache"))}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, environ: Mapping[str, str]) -> dict[str, Case]:
    """What the kit finds in the good backends (all cases) and in the faulty ones (the case that each one names)."""
    file = broken_backends.__file__
    nodes = [f"{file}::{name}" for name in ("TestGood", "TestGoodPolled")]
    nodes += [f"{file}::{name}::{case.found_by}" for name, case in FAULTY.items()]
    return run_kit(tmp_path_factory.mktemp("kit"), *nodes, environ=environ)


def assert_green(cases: Mapping[str, Case]) -> None:
    assert len(cases) > 80
    assert {name: case for name, case in cases.items() if case.outcome == "failed"} == {}
    for needed in NEVER_TO_BE_SKIPPED:
        assert [case.outcome for name, case in cases.items() if needed in name] == ["passed"], needed


@pytest.mark.parametrize("name", ["TestGood", "TestGoodPolled"])
def test_a_backend_without_faults_passes(found: Mapping[str, Case], name: str) -> None:
    assert_green({key: case for key, case in found.items() if key.startswith(f"{name}::")})


@pytest.mark.parametrize("name", FAULTY)
def test_a_fault_is_found_by_its_case_and_told_of(found: Mapping[str, Case], name: str) -> None:
    fault = FAULTY[name]
    case = found[f"{name}::{fault.found_by}"]
    assert case.outcome == "failed"
    assert fault.says in case.text
    assert "the contract asks: " in case.text
    assert "to do: " in case.text


def test_the_cpu_backend_passes(tmp_path: Path, environ: Mapping[str, str]) -> None:
    cases = run_kit(tmp_path, "--hetero-backend", "cpu", "--pyargs", "hetero.testing.conformance", environ=environ)
    assert_green(cases)
    assert cases["TestBackend::test_is_found_by_its_name"].outcome == "passed"
    assert cases["TestBackend::test_answers_are_right[kernel-gelu_i8]"].outcome == "passed"


def test_the_backend_of_the_docs_passes(tmp_path: Path, environ: Mapping[str, str]) -> None:
    test = tmp_path / "test_reference.py"
    test.write_text(REFERENCE)
    assert_green(run_kit(tmp_path, str(test), environ=environ))


def test_a_backend_that_is_not_available_is_skipped_with_its_reason(tmp_path: Path, environ: Mapping[str, str]) -> None:
    test = tmp_path / "test_reference.py"
    test.write_text(REFERENCE)
    off = {**environ, "HETERO_REFERENCE": "off"}
    cases = run_kit(tmp_path, str(test), environ=off)
    assert not [name for name, case in cases.items() if case.outcome == "failed"]
    answer = cases["TestReference::test_answers_are_right[add]"]
    assert answer.outcome == "skipped"
    assert "HETERO_REFERENCE is off (fix: unset HETERO_REFERENCE)" in answer.text
    required = run_kit(tmp_path, str(test), "--hetero-require", "-k", "answers_are_right", environ=off)
    assert {case.outcome for case in required.values()} == {"failed"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--hetero-backend", "nix"], "no installed plugin gives a backend 'nix'; there are: "),
        (["--pyargs", "hetero.testing.conformance"], "TestBackend has no backend"),
    ],
)
def test_a_backend_that_is_not_named_or_not_there_fails_and_tells_which_there_are(
    tmp_path: Path, environ: Mapping[str, str], arguments: list[str], says: str
) -> None:
    cases = run_kit(tmp_path, *arguments, environ=environ)
    assert [case.outcome for case in cases.values()] == ["failed"]
    assert says in next(iter(cases.values())).text


def test_pytest_runs_of_others_import_next_to_nothing(tmp_path: Path, environ: Mapping[str, str]) -> None:
    test = tmp_path / "test_theirs.py"
    test.write_text(
        "import sys\n"
        "def test_theirs():\n"
        "    assert 'hetero.testing.pytest_plugin' in sys.modules\n"
        "    mine = {name for name in sys.modules if name.partition('.')[0] in ('hetero', 'hetero_cpu')}\n"
        "    assert mine == {'hetero', 'hetero.testing', 'hetero.testing.pytest_plugin'}\n"
        "    assert not {'numpy', 'onnx'} & set(sys.modules)\n"
    )
    cases = run_kit(tmp_path, "-p", "no:cov", str(test), environ=environ)
    assert [case.outcome for case in cases.values()] == ["passed"], cases


def test_the_plugin_is_announced_to_pytest() -> None:
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert '[project.entry-points.pytest11]\nhetero = "hetero.testing.pytest_plugin"' in text
    assert plugin_arguments() in ([], ["-p", "hetero.testing.pytest_plugin"])
