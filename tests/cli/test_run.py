"""`hetero run`: what it prints and writes, and that bad usage is refused before anything is written."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hetero
from hetero.backend import Array
from hetero.cli import outputs as outputs_of
from tests import models
from tests.cli.backends import reference
from tests.cli.conftest import Line
from tests.fakes import raises

GONE_NPU = reference("npu", "npu", spoil=raises(hetero.errors.DeviceLost("it went away")))


@pytest.fixture
def double(tmp_path: Path) -> Path:
    """y = x + x, float32 [4]."""
    return models.double(tmp_path / "double.onnx")


@pytest.fixture
def dynamic(tmp_path: Path) -> Path:
    """y = x + x, float32 [batch, width]."""
    return models.dynamic(tmp_path / "dynamic.onnx")


@pytest.fixture
def untouched(tmp_path: Path) -> Iterator[Path]:
    """A folder in which a refused command must leave nothing."""
    folder = tmp_path / "untouched"
    folder.mkdir()
    yield folder
    assert list(folder.rglob("*")) == []


def test_outputs_are_shown_with_the_device_that_made_them(line: Line, double: Path) -> None:
    result = line("run", double, "--input", "x=1,2,3,4.5")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("double ran on cpu: ")
    assert "input x: float32[4] from values" in result.stdout
    shown = next(row.split() for row in result.stdout.splitlines() if row.startswith("y "))
    assert shown == ["y", "float32", "[4]", "2", "5.25", "9", "2", "4", "6", "9"]


def test_npy_npz_and_an_archive_of_all_inputs_are_read(line: Line, tmp_path: Path) -> None:
    model = models.two_outputs(tmp_path / "two.onnx")
    x, y = np.arange(4, dtype=np.float32), np.full(4, 3, np.float32)
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "all.npz", x=x, y=y)
    for inputs in (
        [f"x={tmp_path}/x.npy", f"y={tmp_path}/all.npz"],
        [f"{tmp_path}/all.npz"],
        [f"{tmp_path}/all.npz", "x=0,1,2,3"],
    ):
        arguments = [part for text in inputs for part in ("--input", text)]
        told = {entry["name"]: entry for entry in line.json("run", model, *arguments)["outputs"]}
        assert told["total"]["first"] == [3, 4, 5, 6]
        assert told["product"]["max"] == 9


def test_output_dir_gets_every_output_and_output_names_a_file(line: Line, tmp_path: Path) -> None:
    model = models.two_outputs(tmp_path / "two.onnx")
    folder = tmp_path / "new" / "out"
    arguments = ("--input", "x=1,2,3,4", "--input", "y=ones", "--output-dir", folder)
    document = line.json("run", model, *arguments, "--output", f"total={tmp_path}/sum.npy")
    assert [entry["file"] for entry in document["outputs"]] == [f"{tmp_path}/sum.npy", f"{folder}/product.npy"]
    assert np.load(tmp_path / "sum.npy").tolist() == [2, 3, 4, 5]
    assert [path.name for path in folder.iterdir()] == ["product.npy"]


def test_a_seed_makes_random_inputs_the_same(line: Line, dynamic: Path) -> None:
    def first(*arguments: str) -> list[float]:
        document = line.json("run", dynamic, "--input", "random", "--shape", "width=3", *arguments)
        assert document["outputs"][0]["shape"] == [1, 3]
        assert document["assumed"] == {"batch": 1}
        values: list[float] = document["outputs"][0]["first"]
        return values

    assert first("--seed", "5") == first("--seed", "5") != first("--seed", "6")


def test_an_assumed_size_is_said(line: Line, dynamic: Path) -> None:
    result = line("run", dynamic, "--input", "random", "--shape", "batch=2")
    assert "note: the size of width was not given: 1 is used" in result.stderr
    assert "batch" not in result.stderr


def test_repeat_tells_of_all_runs(line: Line, double: Path) -> None:
    document = line.json("run", double, "--input", "zeros", "--repeat", 5)
    assert document["runs"] == 5
    assert document["answered"] == {"cpu": 5}
    assert "5 runs, median" in line("run", double, "--input", "zeros", "--repeat", 5).stdout


def test_a_fallback_is_told(line: Line, double: Path) -> None:
    line.backends.append(GONE_NPU)
    result = line("run", double, "--input", "zeros")
    assert result.exit_code == 0
    assert "double ran on cpu" in result.stdout
    assert "passed over: npu: run failed: DeviceLost: it went away" in result.stdout
    document = line.json("run", double, "--input", "zeros")
    assert (document["device"], document["fell_back"]) == ("cpu", True)
    assert [attempt["outcome"] for attempt in document["record"]["attempts"]] == ["failed", "ok"]


@pytest.fixture
def hanging() -> Iterator[type[Any]]:
    """An NPU that never answers, until the test has ended."""
    over = threading.Event()

    def hang(outputs: Mapping[str, Array]) -> Mapping[str, Array]:
        over.wait()
        return outputs

    yield reference("npu", "npu", spoil=hang)
    over.set()


def test_a_device_that_hangs_is_left_alone_and_the_next_one_answers(
    line: Line, double: Path, hanging: type[Any]
) -> None:
    line.backends.insert(0, hanging)
    result = line("run", double, "--input", "ones", "--timeout", 2)
    assert result.exit_code == 0, result.output
    assert "double ran on cpu" in result.stdout
    hung = "npu: run failed: DeviceTimeout: no answer within 2 s"
    assert f"passed over: {hung}; the call was left alone (--timeout gives it longer)" in result.stdout


@pytest.mark.parametrize("forbid", [False, True])
def test_a_hang_that_nobody_makes_good_is_told_with_what_to_do_and_ends_with_1(
    line: Line, double: Path, hanging: type[Any], forbid: bool
) -> None:
    line.backends = [hanging, reference("cpu")] if forbid else [hanging]
    arguments = ("--fallback", "forbid") if forbid else ()
    said = line.refuses(
        "run", double, "--input", "ones", "--timeout", 2, *arguments, code=1, says="no answer within 2 s"
    )
    assert "fix: --timeout gives it longer, and 0 waits for ever" in said


def test_no_timeout_is_kept_where_it_is_0(line: Line, double: Path) -> None:
    assert line.json("run", double, "--input", "ones", "--timeout", 0)["device"] == "cpu"
    line.refuses("run", double, "--timeout", -1, says="--timeout")


def test_a_simulated_device_is_marked(line: Line, double: Path) -> None:
    line.backends = [reference("npu", "npu", simulated=True)]
    assert "double ran on npu (simulated): " in line("run", double, "--input", "zeros").stdout
    assert line.json("run", double, "--input", "zeros")["simulated"] is True


def test_explain_tells_of_every_candidate(line: Line, double: Path) -> None:
    result = line("run", double, "--input", "zeros", "--explain")
    assert "candidates:\n  1. cpu: ready" in result.stdout
    assert line.json("run", double, "--input", "zeros", "--explain")["explanation"]["device"] == "cpu"


def test_options_reach_the_backend(line: Line, double: Path) -> None:
    assert line("run", double, "--input", "zeros", "--option", "cpu.threads=3", "--option", "cpu.mode=b").exit_code == 0


def test_a_kernel_runs_by_name(line: Line) -> None:
    document = line.json("run", "attention_i8_64x64", "--input", "random", "--shape", "tiles=2")
    assert document["outputs"][0]["shape"] == [2, 64, 64]


def test_values_that_are_not_finite_are_counted_and_the_json_stays_valid(line: Line, double: Path) -> None:
    document = line.json("run", double, "--input", "x=nan,1,2,inf")
    told = document["outputs"][0]
    assert (told["not_finite"], told["min"], told["max"], told["first"]) == (2, 2, 4, [None, 2, 4, None])
    assert "note: y has 2 values that are not finite" in line("run", double, "--input", "x=nan,1,2,inf").stderr


def test_strings_run_and_are_written(line: Line, tmp_path: Path) -> None:
    model = models.strings(tmp_path / "strings.onnx")
    document = line.json("run", model, "--input", "x=to,be", "--output", tmp_path / "y.npy")
    assert document["outputs"][0]["first"] == ["to", "be"]
    assert np.load(tmp_path / "y.npy", allow_pickle=False).tolist() == ["to", "be"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "'double' needs values for x: float32[4]"),
        (("--input", "q=zeros"), "'double' has no input 'q'"),
        (("--input", "x=missing.npy"), "there is no file missing.npy"),
        (("--input", "x=1,2,3"), "3 values do not fill x: float32[4]"),
        (("--input", "x=1,two,3,4"), "cannot read '1,two,3,4'"),
        (("--input", "x=[1,[2,3]]"), "cannot read '[1,[2,3]]'"),
        (("--input", "x="), "not of the form NAME=VALUE"),
        (("--input", "x=zeros", "--input", "x=ones"), "x is given twice"),
        (("--input", "zeros", "--shape", "x=3"), "has shape [3], expected [4]"),
        (("--input", "zeros", "--shape", "batch=3"), "no input or free dimension 'batch'"),
        (("--input", "zeros", "--shape", "x=4by4"), "'4by4' is no shape"),
        (("--input", "zeros", "--shape", "x=-4"), "'-4' is no shape"),
        (("--input", "zeros", "--option", "threads=2"), "not of the form BACKEND.OPTION=VALUE"),
        (("--input", "zeros", "--option", "cpu.threads"), "not of the form BACKEND.OPTION=VALUE"),
        (("--input", "zeros", "--option", "cpu.thread=2"), "has no option 'thread'"),
        (("--input", "zeros", "--option", "cpu.threads=many"), "cpu.threads is 'many', expected int"),
        (("--input", "zeros", "--option", "cpu.threads=0"), "expected at least 1"),
        (("--input", "zeros", "--option", "toaster.threads=1"), "backend 'toaster', which is not known"),
        (("--input", "zeros", "--device", "toaster"), "device='toaster' is none of the candidates here: cpu"),
        (("--input", "zeros", "--chain", "toaster"), "the chain names 'toaster'"),
        (("--input", "zeros", "--fallback", "maybe"), "'maybe' is not one of"),
        (("--input", "zeros", "--repeat", "0"), "0 is not in the range x>=1"),
        (("--input", "zeros", "--seed", "pi"), "'pi' is not a valid integer"),
    ],
)
def test_bad_usage_is_refused_with_a_reason_and_nothing_is_written(
    line: Line, double: Path, untouched: Path, arguments: tuple[str, ...], says: str
) -> None:
    line.refuses("run", double, *arguments, "--output", f"y={untouched}/y.npy", says=says)


@pytest.mark.parametrize("value", ["q=q.npy", "y=y.txt", "q"])
def test_an_output_that_cannot_be_is_refused(line: Line, double: Path, untouched: Path, value: str) -> None:
    name, _, file = value.rpartition("=")
    line.refuses("run", double, "--input", "zeros", "--output", f"{name or 'y'}={untouched / file}", says="--output: ")


def test_two_outputs_for_one_file_are_refused(line: Line, tmp_path: Path, untouched: Path) -> None:
    model = models.two_outputs(tmp_path / "two.onnx")
    both = [part for name in ("total", "product") for part in ("--output", f"{name}={untouched}/same.npy")]
    line.refuses("run", model, "--input", "zeros", *both, says="two outputs would go to one file")


def test_a_folder_that_cannot_be_written_is_refused_before_the_program_runs(line: Line, double: Path) -> None:
    line.backends = [reference("cpu", spoil=raises(AssertionError("it ran")))]
    below_a_file = double / "out"
    said = line.refuses(
        "run", double, "--input", "zeros", "--output-dir", below_a_file, says="cannot write to the folder"
    )
    assert "it ran" not in said


def test_files_of_a_wrong_dtype_shape_or_content_are_refused(line: Line, double: Path, tmp_path: Path) -> None:
    file = tmp_path / "x.npy"
    np.save(file, np.zeros(4))
    assert "array.astype(numpy.float32)" in line.refuses("run", double, "-i", f"x={file}", says="has dtype float64")
    np.save(file, np.zeros(5, np.float32))
    line.refuses("run", double, "-i", f"x={file}", says="has shape [5], expected [4]")
    np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    line.refuses("run", double, "-i", f"x={file}", says="cannot be read")
    file.write_bytes(b"\x93NUMPY\x01\x00\x00\x00")
    line.refuses("run", double, "-i", f"x={file}", says="cannot be read")
    archive = tmp_path / "x.npz"
    archive.write_bytes(b"PK\x03\x04 truncated")
    line.refuses("run", double, "-i", f"x={archive}", says="cannot be read")
    np.savez(archive, other=np.zeros(4, np.float32))
    line.refuses("run", double, "-i", f"x={archive}", says="holds no array 'x'")
    line.refuses("run", double, "-i", str(archive), says="holds other, no inputs of the program")


def test_a_program_that_is_not_there_or_broken_is_refused(line: Line, tmp_path: Path) -> None:
    line.refuses("run", tmp_path / "no.onnx", says="there is no file, folder or program")
    assert "did you mean attention_i8_64x64" in line.refuses("run", "attention_i8_64x46", says="there is no file")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"\x08\x08garbage")
    line.refuses("run", broken, says="broken.onnx")


def test_no_device_for_the_program_is_not_here(line: Line) -> None:
    line.backends = [reference("cpu", kernels=False)]
    said = line.refuses("run", "gelu_i8", "--input", "random", code=3, says="no device can run 'gelu_i8'")
    assert "  - cpu: load unsupported: kernels are not for this device" in said


def test_a_failing_device_is_a_failure_that_names_every_attempt(line: Line, double: Path, untouched: Path) -> None:
    line.backends = [GONE_NPU, reference("cpu")]
    arguments = ("run", double, "--input", "zeros", "--fallback", "forbid", "--output-dir", untouched)
    assert "npu: run failed: DeviceLost" in line.refuses(*arguments, code=1, says="fallback is forbidden")
    document = line.json(*arguments, code=1)
    assert list(document) == ["error", "problem", "fix", "attempts"]
    assert document["error"] == "FallbackForbidden"
    assert document["attempts"][0]["reason"] == "DeviceLost: it went away"


def test_when_one_output_cannot_be_written_none_is(tmp_path: Path, untouched: Path) -> None:
    unwritable = np.array([object()], dtype=[("a", object)])
    with pytest.raises(ValueError, match="allow_pickle"):
        outputs_of.save_all({untouched / "a.npy": np.zeros(3), untouched / "b.npy": unwritable})


def test_a_written_file_replaces_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(b"old")
    outputs_of.save_all({tmp_path / "a.npy": np.arange(3)})
    assert np.load(tmp_path / "a.npy").tolist() == [0, 1, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]


def test_names_of_outputs_become_names_of_files_in_the_folder(tmp_path: Path) -> None:
    paths = outputs_of.output_paths(["/model/last:0", "../up"], tmp_path, {})
    assert sorted(path.name for path in paths.values()) == ["_model_last_0.npy", "_up.npy"]
    assert all(path.parent == tmp_path for path in paths.values())
