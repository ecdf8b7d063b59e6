"""`hetero compile` says what was compiled and how good it is, refuses with a reason, and never leaves half a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from hetero.backend import CompileReport, CompileRequest, Option
from hetero.bundle import open_bundle
from hetero.compiling.report import LayerLoss, OutputError, Progress
from hetero.errors import CompileError
from tests import models
from tests.cli.backends import ReferenceBackend, reference
from tests.cli.conftest import Line


class Toy(ReferenceBackend):
    """Compiles for two targets; on the second, int8 is poor."""

    name = "toy"
    device = reference("toy", "npu", simulated=True).device
    kernels = False
    spoil = staticmethod(lambda outputs: outputs)
    targets: ClassVar[tuple[str, ...]] = ("toy1", "toy2")
    compile_options: ClassVar[tuple[Option, ...]] = (Option("level", int, 1, "How much.", choices=(0, 1)),)
    asked: ClassVar[list[CompileRequest]] = []

    def compiler(self, options: Mapping[str, Any]) -> str:
        return "toycc 1.0"

    def compile(self, request: CompileRequest, out: Path, progress: Progress) -> CompileReport:
        self.asked.append(request)
        progress("cook", 0.5)
        if request.program.name == "uncookable":
            raise CompileError("toycc has no Foo", fix="leave Foo out")
        (out / "m.toy").write_text(f"{request.target} {request.options}")
        poor = request.int8 and request.target == "toy2"
        return CompileReport(
            target=request.target,
            kind="toy",
            file="m.toy",
            compiler="toycc 1.0",
            precision="int8" if request.int8 else "fp16",
            shapes=request.shapes,
            outputs=(OutputError("y", 0.5 if poor else 0.999, 0.25, 3.0),),
            samples=len(request.checks),
            layers=(LayerLoss("[Mul] m", 0.6, 0.5),) if poor else (),
            notes=("mind the gap",),
            seconds=1.25,
        )


@pytest.fixture
def toy(line: Line) -> Line:
    Toy.asked = []
    line.backends = [Toy, reference("cpu")]
    return line


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return models.double(tmp_path / "double.onnx")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    np.save(tmp_path / "sample.npy", np.ones(4, np.float32))
    return tmp_path / "sample.npy"


def test_people_are_told_what_was_compiled_how_close_it_is_and_where_it_lies(
    toy: Line, model: Path, tmp_path: Path
) -> None:
    result = toy("compile", model, "--target", "toy1,toy2", "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["toy1", "fp16", "4", "y", "0.9990000", "0.25", "3", "1.2", "s"] in rows
    assert "on random inputs (1 sample)" in result.stdout
    assert f"{tmp_path / 'out'}: " in result.stdout
    assert "note: toy1: mind the gap" in result.stderr
    assert [artifact.target for artifact in open_bundle(tmp_path / "out").artifacts_of("toy")] == ["toy1", "toy2"]
    again = toy("compile", model, "--target", "toy1", "-o", tmp_path / "out")
    assert "from the cache" in again.stdout


def test_scripts_get_the_same_as_json(toy: Line, model: Path, tmp_path: Path) -> None:
    document = toy.json("compile", model, "--target", "toy1", "-o", tmp_path / "out")
    assert document["bundle"] == str(tmp_path / "out")
    (told,) = document["artifacts"]
    assert told["outputs"] == [{"name": "y", "cosine": 0.999, "max_abs_error": 0.25, "largest": 3.0}]
    assert (told["target"], told["shapes"], told["sampled"]) == ("toy1", {"x": [4]}, "random inputs")
    assert told["cached"] is False
    assert toy.json("compile", model, "--target", "toy1", "-o", tmp_path / "out")["artifacts"][0]["cached"] is True


def test_the_bundle_is_named_after_the_model_by_default(
    toy: Line, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert toy.json("compile", model, "--target", "toy1")["bundle"] == "double.hetero"
    assert open_bundle(tmp_path / "here" / "double.hetero").name == "double"


def test_shapes_options_and_data_reach_the_compiler(toy: Line, tmp_path: Path) -> None:
    model = models.dynamic(tmp_path / "dynamic.onnx")
    np.save(tmp_path / "a.npy", np.ones((1, 8), np.float32))
    np.save(tmp_path / "b.npy", np.ones((1, 16), np.float32))
    arguments = ["--shape", "batch=1", "--shape", "width=8", "--shape", "width=16", "--int8"]
    arguments += ["--calibration", tmp_path / "a.npy", "--calibration", tmp_path / "b.npy"]
    result = toy("compile", model, "--target", "toy1", "--option", "toy.level=0", *arguments, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert [request.shapes for request in Toy.asked] == [{"x": (1, 8)}, {"x": (1, 16)}]
    assert [request.options for request in Toy.asked] == [{"level": 0}] * 2
    assert [request.calibration[0]["x"].shape for request in Toy.asked] == [(1, 8), (1, 16)]


def test_the_comparison_can_use_data_of_its_own(toy: Line, model: Path, data: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "other.npy", np.full(4, 7, np.float32))
    arguments = ["--int8", "--calibration", data, "--check", tmp_path / "other.npy", "-o", tmp_path / "out"]
    assert "on check data (1 sample)" in toy("compile", model, "--target", "toy1", *arguments).stdout
    assert Toy.asked[0].checks[0]["x"].max() == 7
    assert Toy.asked[0].calibration[0]["x"].max() == 1


def test_what_is_not_good_enough_is_refused_and_nothing_written_unless_forced(
    toy: Line, model: Path, data: Path, tmp_path: Path
) -> None:
    arguments = ["compile", model, "--target", "toy1,toy2", "--int8", "--calibration", data, "-o", tmp_path / "out"]
    told = toy.refuses(*arguments, code=1, says="toy2 (int8): y has cosine 0.50000")
    assert "loses most: [Mul] m, alone to 0.60000" in told
    assert "good enough: toy1" in told
    assert "--force" in told
    assert not (tmp_path / "out").exists()
    forced = toy(*arguments, "--force")
    assert forced.exit_code == 0, forced.output
    assert "warning: toy2: below 0.99, written because of --force" in forced.stderr
    assert len(Toy.asked) == 2, "what was compiled before is not compiled again"


def test_a_compilers_refusal_is_an_error_with_its_words(toy: Line, tmp_path: Path) -> None:
    model = models.double(tmp_path / "uncookable.onnx")
    told = toy.refuses("compile", model, "--target", "toy1", "-o", tmp_path / "out", code=1, says="toycc has no Foo")
    assert "leave Foo out" in told
    document = toy.json("compile", model, "--target", "toy1", "-o", tmp_path / "out", code=1)
    assert document["error"] == "CompileError"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--target", "toy3"], "did you mean"),
        ([], "--target is missing"),
        (["--target", "toy1", "--shape", "x"], "NAME=VALUE"),
        (["--target", "toy1", "--shape", "x=a,b"], "is no shape for 'x'"),
        (["--target", "toy1", "--int8"], "int8 needs calibration data"),
        (["--target", "toy1", "--option", "toy.level=7"], "expected one of 0, 1"),
        (["--target", "toy1", "--calibration", "missing.npy"], "there is no file missing.npy"),
        (["--target", "toy1", "--min-cosine", "2"], "0<=x<=1"),
    ],
)
def test_wrong_usage_says_what_was_expected(toy: Line, model: Path, arguments: list[str], says: str) -> None:
    toy.refuses("compile", model, *arguments, says=says)
    assert Toy.asked == []


def test_targets_and_options_are_listed(toy: Line) -> None:
    listing = toy("compile", "--list-targets").stdout
    assert "toy: toy1, toy2" in listing
    assert "toy.level" in listing
    assert toy.json("compile", "--list-targets")["toy"]["targets"] == ["toy1", "toy2"]


def test_where_nothing_compiles_that_is_said(line: Line, model: Path) -> None:
    assert "no installed backend compiles" in line("compile", "--list-targets").stdout
    line.refuses("compile", model, "--target", "rk3588", says="no installed backend compiles")


def test_what_was_compiled_is_in_the_cache_and_can_be_removed(
    toy: Line, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HETERO_CACHE_DIR", str(tmp_path / "cache"))
    toy("compile", model, "--target", "toy1", "-o", tmp_path / "out")
    (entry,) = [entry for entry in toy.json("cache", "ls")["entries"] if entry["name"].startswith("compiled/")]
    assert entry["what"] == "compiled models: toy for toy1, fp16, 4, by toycc 1.0"
    assert toy("cache", "rm", entry["name"]).exit_code == 0
    assert toy.json("compile", model, "--target", "toy1", "-o", tmp_path / "out")["artifacts"][0]["cached"] is False
