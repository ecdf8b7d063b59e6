"""`hetero trace`: it writes what happened, failures included, and refuses bad usage before it runs anything."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

import hetero
from hetero.cli.root import cli
from hetero.telemetry.jsonl import line_of, read_records
from hetero.telemetry.trace import Trace
from tests import models
from tests.cli.backends import reference
from tests.cli.conftest import Line
from tests.fakes import raises
from tests.telemetry.stories import story

SPEECH = Path(__file__).parents[1] / "data" / "speech" / "librivox-0880.flac"


@pytest.fixture
def double(tmp_path: Path) -> Path:
    """y = x + x, float32 [4]."""
    return models.double(tmp_path / "double.onnx")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def test_a_model_runs_as_often_as_asked_and_each_file_is_written(line: Line, double: Path, out: Path) -> None:
    line.backends = [reference("npu", "npu", simulated=True), reference("cpu")]
    files = [out / "trace.json", out / "records.jsonl"]
    document = line.json("trace", double, "--requests", 7, "--in-flight", 1, "-o", files[0], "-o", files[1])
    assert document == {
        "programs": ["double"],
        "requests": 7,
        "outcomes": {"ok": 7},
        "answered": {"npu": 7},
        "simulated": ["npu"],
        "fell_back": 0,
        "wait_seconds": document["wait_seconds"],
        "heat": {},
        "heat_held_seconds": 0,
        "loads": document["loads"],
        "written": [str(file) for file in files],
    }
    events = json.loads(files[0].read_text())["traceEvents"]
    assert sum(event["ph"] == "X" and event["cat"] == "run" for event in events) == 7
    assert [(load["program"], load["device"], load["outcome"]) for load in document["loads"]] == [
        ("double", "cpu", "ok"),
        ("double", "npu", "ok"),
    ]
    assert [event["name"] for event in events if event["ph"] == "X" and event["cat"] == "load"] == ["load double"] * 2
    assert [record.device for record in read_records(files[1])] == ["npu"] * 7


def test_loads_are_told_also_those_that_failed_and_can_be_left_out(line: Line, out: Path) -> None:
    line.backends = [reference("npu", "npu", kernels=False), reference("cpu")]
    arguments = ("trace", "gelu_i8", "--requests", 1, "-o", out / "records.jsonl")
    result = line(*arguments)
    assert result.exit_code == 0, result.output
    assert "not loaded: gelu_i8 on npu: unsupported: kernels are not for this device" in result.stdout
    assert "loaded gelu_i8 on cpu in " in result.stdout
    assert {load.attempt.device for load in Trace.read(out / "records.jsonl").loads} == {"npu", "cpu"}
    assert line.json("trace", "--from", out / "records.jsonl", "--no-loads", "-o", out / "a.json")["loads"] == []
    assert line.json(*arguments, "--no-loads")["loads"] == []
    assert Trace.read(out / "records.jsonl").loads == []


def test_a_program_that_no_device_takes_leaves_its_loads(line: Line, out: Path) -> None:
    line.backends = [reference("npu", "npu", kernels=False)]
    line.refuses("trace", "gelu_i8", "-o", out / "records.jsonl", code=3, says="no device can run")
    (load,) = Trace.read(out / "records.jsonl").loads
    assert (load.attempt.outcome, load.attempt.reason) == ("unsupported", "kernels are not for this device")


def test_records_are_shown_without_running_anything(line: Line, out: Path) -> None:
    line.backends = [reference("cpu", spoil=raises(AssertionError("it ran")))]
    (out / "records.jsonl").write_text("".join(map(line_of, story())))
    result = line("trace", "--from", out / "records.jsonl", "-o", out / "trace.json")
    assert result.exit_code == 0, result.output
    assert "double, other: 4 requests, answered by npu (simulated) 1, cpu 2; 2 fell back" in result.stdout
    assert "https://ui.perfetto.dev" in result.stdout
    assert json.loads((out / "trace.json").read_text())["otherData"]["requests"] == 4


def test_a_picture_is_drawn(line: Line, double: Path, out: Path) -> None:
    if importlib.util.find_spec("matplotlib") is None:
        pytest.skip("matplotlib is not installed")
    result = line("trace", double, "--requests", 3, "-o", out / "timeline.svg")
    assert result.exit_code == 0, result.output
    assert (out / "timeline.svg").read_text().startswith("<?xml")


def test_a_failing_run_is_written_too(line: Line, double: Path, out: Path) -> None:
    line.backends = [reference("cpu", spoil=raises(hetero.errors.DeviceLost("it went away")))]
    said = line.refuses("trace", double, "-o", out / "records.jsonl", code=1, says="no device answered for 'double'")
    assert "DeviceLost: it went away" in said
    records = read_records(out / "records.jsonl")
    assert records[0].outcome == "failed"
    assert records[0].attempts[0].reason == "DeviceLost: it went away"


def test_a_damaged_file_is_told_and_can_be_read_all_the_same(line: Line, out: Path) -> None:
    (out / "records.jsonl").write_text(line_of(story()[0]) + '{"id": 1, "pro')
    arguments = ("trace", "--from", out / "records.jsonl", "-o", out / "trace.json")
    assert "--skip-damaged" in line.refuses(*arguments, says="line 2 is no record: no JSON")
    assert not (out / "trace.json").exists()
    result = line(*arguments, "--skip-damaged")
    assert result.exit_code == 0, result.output
    assert "1 damaged lines are left out" in result.stderr
    assert (out / "trace.json").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "Missing option '-o'"),
        (("-o", "{out}/a.pdf"), "expected .json, .jsonl, .png, .svg"),
        (("-o", "{out}"), "expected .json, .jsonl, .png, .svg"),
        (("-o", "{out}/a.json", "-o", "{out}/a.json"), "two outputs would go to one file"),
        (("-o", "{out}/a.json", "--from", "{out}/r.jsonl"), "one of the two"),
        (("-o", "{out}/a.json", "--requests", "0"), "0 is not in the range x>=1"),
        (("-o", "{out}/a.json", "--policy", "psychic"), "psychic"),
        (("-o", "{out}/a.json", "--device", "toaster"), "'toaster'"),
        (("-o", "{out}/a.json", "--input", "q=zeros"), "has no input 'q'"),
    ],
)
def test_bad_usage_is_refused_and_nothing_is_written(
    line: Line, double: Path, out: Path, arguments: tuple[str, ...], says: str
) -> None:
    line.refuses("trace", double, *(argument.format(out=out) for argument in arguments), says=says)
    assert list(out.iterdir()) == []


def test_a_model_or_records_are_needed(line: Line, out: Path) -> None:
    line.refuses("trace", "-o", out / "a.json", says="one of the two")
    line.refuses("trace", "--from", out / "no.jsonl", "-o", out / "a.json", says="there is no file")


def test_a_picture_without_matplotlib_is_refused_before_anything_runs(
    line: Line, double: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hetero.telemetry.timeline.importlib.util.find_spec", lambda name: None)
    line.backends = [reference("cpu", spoil=raises(AssertionError("it ran")))]
    said = line.refuses("trace", double, "-o", out / "a.png", code=3, says="a picture needs matplotlib")
    assert 'pip install "hetero[plot]"' in said
    assert list(out.iterdir()) == []


def test_a_transcription_can_be_traced(line: Line, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "talk.flac").touch()
    line.refuses("transcribe", tmp_path / "talk.flac", "--trace", out / "a.pdf", says="expected .json, .jsonl")
    for package in ("onnxruntime", "av", "tokenizers"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    from hetero.whisper import known_models

    if next(known.state for known in known_models() if known.name == "tiny.en") == "download":
        pytest.skip("the weights of tiny.en are not installed")
    monkeypatch.undo()
    result = CliRunner().invoke(cli, ["transcribe", str(SPEECH), "--quiet", "--trace", str(out / "records.jsonl")])
    assert result.exit_code == 0, result.output
    programs = [record.program for record in read_records(out / "records.jsonl")]
    assert programs[0] == "whisper-tiny.en-encoder"
    assert programs[-1] == "whisper-tiny.en-decoder"
