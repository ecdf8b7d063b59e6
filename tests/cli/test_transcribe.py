"""`hetero transcribe`: what goes to stdout, stderr and files, several files with a bad one, and bad usage."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hetero.cli.console import clock
from hetero.cli.root import cli
from hetero.errors import AllDevicesFailed, AudioError, ModelError
from hetero.explain import Explanation
from hetero.whisper.transcript import Segment, Transcript
from tests.cli.conftest import Line
from tests.fakes import raises

pytest.importorskip("av", reason="av is not installed")
pytest.importorskip("tokenizers", reason="tokenizers is not installed")

SPEECH = Path(__file__).parent.parent / "data" / "speech"


class FakeTranscription:
    """Two segments, and an account of 10 s of audio in 2 s of work."""

    def __init__(self, progress: Callable[[float, float], None], simulated: bool) -> None:
        segment = Segment(0, 0.0, 4.5, "To be", (1,), -0.1, 0.0, 1.0, 0.0)
        self._segments = (segment, Segment(1, 4.5, 10.0, "or not.", (2,), -0.1, 0.0, 1.0, 0.0))
        self._progress = progress
        self._simulated = simulated

    def __iter__(self) -> Iterator[Segment]:
        self._progress(4.5, 10.0)
        yield from self._segments
        self._progress(10.0, 10.0)

    def transcript(self) -> Transcript:
        return Transcript(
            segments=self._segments,
            language="en",
            language_probability=0.9,
            duration=10.0,
            seconds=2.0,
            timings={"audio": 0.25, "encoder": 1.5},
            devices={"encoder": {"npu": 3, "cpu": 1}},
            simulated=("npu",) if self._simulated else (),
            fell_back=1,
            passed_over={"encoder": {"npu: run failed: gone": 1}},
            model="tiny.en",
        )


class FakeTranscriber:
    """Takes any file that exists; notes how it was made and asked."""

    made: dict[str, Any]
    asked: dict[str, Any]
    fails: Exception | None = None

    def __init__(self, model: Any, **options: Any) -> None:
        type(self).made = options
        self.model = model
        gone = ("npu: no driver",)
        story = Explanation("the story of a part", "cpu", "allow", "chain", (), gone, None)
        part = SimpleNamespace(explain=lambda: story)
        self.sessions = SimpleNamespace(encoder=part, cross=part, decoder=part)

    def segments(self, file: str, *, progress: Callable[[float, float], None], **options: Any) -> FakeTranscription:
        type(self).asked = options
        if self.fails is not None:
            raise self.fails
        if not Path(file).exists():
            raise AudioError(f"cannot open {file}", fix="check the path")
        return FakeTranscription(progress, simulated=True)

    def __enter__(self) -> FakeTranscriber:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture(autouse=True)
def whisper(monkeypatch: pytest.MonkeyPatch) -> type[FakeTranscriber]:
    """The pipeline, replaced."""
    fake = type("Fake", (FakeTranscriber,), {})
    model = SimpleNamespace(name="tiny.en", origin="a test")
    monkeypatch.setattr("hetero.whisper.Transcriber", fake)
    monkeypatch.setattr("hetero.whisper.open_model", lambda name, progress: progress("convert", 1.0) or model)
    return fake


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    """An audio file, to the fake."""
    path = tmp_path / "talk.mp3"
    path.write_bytes(b"")
    return path


def test_text_alone_goes_to_a_pipe_and_the_summary_to_stderr(line: Line, talk: Path) -> None:
    result = line("transcribe", talk)
    assert result.exit_code == 0, result.output
    assert result.stdout == "To be\nor not.\n"
    assert "00:10.0 of audio (en) in 2.00 s: 5.0x real time; tiny.en ready in " in result.stderr
    rows = [row.split() for row in result.stderr.splitlines()]
    assert ["encoder", "npu", "(simulated)", "x3,", "cpu", "x1", "1.50"] in rows
    assert ["audio", "host", "0.25"] in rows
    assert ["other", "host", "0.25"] in rows
    assert "encoder: passed over for 1 requests: npu: run failed: gone" in result.stderr


def test_quiet_leaves_stderr_empty(line: Line, talk: Path) -> None:
    result = line("transcribe", talk, "--quiet")
    assert (result.stdout, result.stderr) == ("To be\nor not.\n", "")


def test_verbose_adds_times_and_the_story_of_each_part(line: Line, talk: Path) -> None:
    result = line("transcribe", talk, "--verbose")
    assert result.stdout == "[00:00.000 --> 00:04.500] To be\n[00:04.500 --> 00:10.000] or not.\n"
    assert result.stderr.count("the story of a part") == 3
    assert result.stderr.count("npu: no driver") == 1, "what is not on this machine is the same for all parts"


@pytest.mark.parametrize(
    ("form", "begins"), [("txt", "To be\n"), ("srt", "1\n00:00:00,000"), ("vtt", "WEBVTT\n"), ("tsv", "start\tend")]
)
def test_a_format_goes_to_stdout_whole(line: Line, talk: Path, form: str, begins: str) -> None:
    result = line("transcribe", talk, "-f", form)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(begins)
    assert result.stdout.count("or not.") == 1


def test_files_are_written_in_every_format_that_is_asked_for(line: Line, talk: Path, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "texts"
    result = line("transcribe", talk, "--output-dir", folder, "-f", "all")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in folder.iterdir()) == [f"talk.{e}" for e in ("json", "srt", "tsv", "txt", "vtt")]
    assert f"wrote {folder / 'talk.srt'}" in result.stderr
    assert json.loads((folder / "talk.json").read_text(encoding="utf-8"))["text"] == "To be or not."


def test_without_a_format_the_text_is_written(line: Line, talk: Path, tmp_path: Path) -> None:
    assert line("transcribe", talk, "--output-dir", tmp_path / "texts").exit_code == 0
    assert (tmp_path / "texts" / "talk.txt").read_text(encoding="utf-8") == "To be\nor not.\n"


def test_files_of_one_stem_keep_their_endings(line: Line, talk: Path, tmp_path: Path) -> None:
    other = tmp_path / "talk.wav"
    other.write_bytes(b"")
    assert line("transcribe", talk, other, "--output-dir", tmp_path / "texts").exit_code == 0
    assert sorted(path.name for path in (tmp_path / "texts").iterdir()) == ["talk.mp3.txt", "talk.wav.txt"]


def test_a_bad_file_is_told_and_the_others_are_done(line: Line, talk: Path, tmp_path: Path) -> None:
    missing = tmp_path / "missing.mp3"
    result = line("transcribe", missing, talk, "--output-dir", tmp_path / "texts")
    assert result.exit_code == 1
    assert f"{missing}:\nerror: cannot open {missing}\nfix: check the path" in result.stderr
    assert result.stdout == "To be\nor not.\n\n"
    assert [path.name for path in (tmp_path / "texts").iterdir()] == ["talk.txt"]


def test_a_transcript_that_cannot_be_written_is_told(line: Line, talk: Path, tmp_path: Path) -> None:
    (tmp_path / "texts" / "talk.txt").mkdir(parents=True)
    result = line("transcribe", talk, "--output-dir", tmp_path / "texts")
    assert result.exit_code == 1
    assert "error: " in result.stderr
    assert "Traceback" not in result.stderr
    assert [path.name for path in (tmp_path / "texts").iterdir()] == ["talk.txt"]


def test_the_json_is_one_document_with_the_documented_keys(line: Line, talk: Path, tmp_path: Path) -> None:
    missing = tmp_path / "missing.mp3"
    document = line.json("transcribe", talk, missing, code=1)
    assert list(document) == ["model", "files", "stages", "load_seconds", "audio_seconds", "seconds", "speed"]
    assert document["model"] == {"name": "tiny.en", "origin": "a test"}
    good, bad = document["files"]
    assert list(good) == ["file", "transcript", "written", "error"]
    assert good["transcript"]["text"] == "To be or not."
    assert (bad["transcript"], bad["error"]["error"]) == (None, "AudioError")
    assert document["speed"] == 5.0
    assert document["stages"][1] == {
        "stage": "encoder",
        "devices": [
            {"device": "npu", "simulated": True, "count": 3},
            {"device": "cpu", "simulated": False, "count": 1},
        ],
        "seconds": 1.5,
    }


def test_devices_can_be_chosen_by_part(line: Line, talk: Path, whisper: type[FakeTranscriber]) -> None:
    for arguments, device in [
        ((), None),
        (("--device", "cpu"), "cpu"),
        (("--encoder-device", "npu"), {"encoder": "npu", "cross": "npu"}),
        (("--device", "gpu", "--decoder-device", "cpu"), {"encoder": "gpu", "cross": "gpu", "decoder": "cpu"}),
    ]:
        assert line("transcribe", talk, *arguments, "--fallback", "forbid").exit_code == 0
        assert whisper.made["device"] == device
        assert whisper.made["fallback"] == "forbid"


def test_options_of_the_decoding_arrive(line: Line, talk: Path, whisper: type[FakeTranscriber]) -> None:
    arguments = ("--language", "de", "--task", "translate", "--initial-prompt", "Hamlet", "--max-tokens", "50")
    assert line("transcribe", talk, *arguments, "--temperature", "0,0.4", "--without-timestamps").exit_code == 0
    assert whisper.asked == {
        "language": "de",
        "task": "translate",
        "initial_prompt": "Hamlet",
        "max_tokens": 50,
        "temperature": (0.0, 0.4),
        "without_timestamps": True,
    }
    assert line("transcribe", talk).exit_code == 0
    assert "temperature" not in whisper.asked


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("-f", "srt", "-f", "vtt"), "several formats do not fit into stdout"),
        (("-f", "all"), "several formats do not fit into stdout"),
        (("-f", "docx"), "'docx' is not one of"),
        (("--task", "sing"), "'sing' is not one of"),
        (("--temperature", "hot"), "'hot' is no temperature"),
        (("--temperature", "0,3"), "a temperature lies between 0 and 2"),
        (("--max-tokens", "0"), "0 is not in the range x>=1"),
        (("--option", "cpu.thread=1"), "has no option 'thread'"),
        (("--output-dir", __file__), "cannot write to the folder"),
    ],
)
def test_bad_usage_is_refused(line: Line, talk: Path, arguments: tuple[str, ...], says: str) -> None:
    line.refuses("transcribe", talk, *arguments, says=says)


def test_files_that_collide_are_refused(line: Line, talk: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "talk.mp3"
    line.refuses("transcribe", says="Missing argument 'FILES...'")
    line.refuses("transcribe", talk, talk, says="a file is given twice")
    line.refuses("transcribe", talk, other, "--output-dir", tmp_path / "texts", says="two files have one name")
    line.refuses("transcribe", talk, other, "-f", "srt", says="several files do not fit into one srt")
    assert not (tmp_path / "texts").exists()
    document = line.json("transcribe", talk, "-f", "srt", code=2)
    assert document["problem"] == "--json and --output-format both go to stdout: add --output-dir"


def test_a_model_or_package_that_is_missing_is_not_here(
    line: Line, talk: Path, monkeypatch: pytest.MonkeyPatch, whisper: type[FakeTranscriber]
) -> None:
    def opens(error: Exception) -> None:
        monkeypatch.setattr("hetero.whisper.open_model", lambda name, progress: raises(error)())

    opens(ModelError("there is no model 'huge'", fix="choose base"))
    line.refuses("transcribe", talk, code=3, says="there is no model 'huge'\nfix: choose base")
    for package in ("av", "tokenizers"):
        with monkeypatch.context() as patch:
            patch.setattr("importlib.util.find_spec", lambda name, gone=package: None if name == gone else name)
            said = line.refuses("transcribe", talk, code=3, says=f"the Python package {package!r} is not installed")
        assert said.endswith('fix: pip install "hetero[whisper]"\n')


def test_devices_that_fail_are_told_file_by_file(line: Line, talk: Path, whisper: type[FakeTranscriber]) -> None:
    whisper.fails = AllDevicesFailed("no device answered", fix="see hetero doctor")
    result = line("transcribe", talk)
    assert result.exit_code == 1
    assert f"{talk}:\nerror: no device answered\nfix: see hetero doctor" in result.stderr


def test_an_interruption_leaves_no_file(
    line: Line, talk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeTranscription, "transcript", raises(KeyboardInterrupt()))
    result = line("transcribe", talk, "--output-dir", tmp_path / "texts", "-f", "all")
    assert result.exit_code == 130
    assert list((tmp_path / "texts").iterdir()) == []


def test_clocks_carry_over_to_minutes_and_hours() -> None:
    assert clock(0) == "00:00"
    assert clock(59.99, 1) == "01:00.0"
    assert clock(3599.9999, 3) == "1:00:00.000"
    assert clock(3725.25, 3) == "1:02:05.250"


def test_real_speech_becomes_subtitles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    from click.testing import CliRunner

    from hetero.whisper import known_models

    state = next(known.state for known in known_models() if known.name == "tiny.en")
    if state == "download":
        pytest.skip("the weights of tiny.en are not installed")
    result = CliRunner().invoke(cli, ["transcribe", str(SPEECH / "librivox-0880.flac"), "-f", "srt", "--device", "cpu"])
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("1\n00:00:00,")
    assert "young man" in result.stdout
    assert "x real time" in result.stderr
    assert [row for row in result.stderr.splitlines() if row.startswith("encoder  cpu ")]
