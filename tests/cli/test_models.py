"""`hetero models`: what is listed, and fetching, finding and removing a converted model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hetero.errors import ModelError
from hetero.whisper import models as speech
from hetero.whisper.models.dims import Dims
from hetero.whisper.models.model import CONVERTER, WhisperModel
from tests.cli.conftest import Line

SMALL = next(known.origin for known in speech.known_models() if known.name == "small.en")
DIMS = Dims(**dict.fromkeys(Dims.__dataclass_fields__, 8))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of converted models, and no network."""
    monkeypatch.setenv("HETERO_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path / "cache" / "whisper"


@pytest.fixture
def convert(cache: Path) -> Callable[..., Path]:
    """Puts a model into the cache, as the converter leaves it."""

    def convert(name: str, origin: str = "a test", key: str = "abc") -> Path:
        folder = cache / key
        folder.mkdir(parents=True)
        (folder / "weights").write_bytes(b"x" * 2000)
        content = {
            "format": 1,
            "converter": CONVERTER,
            "name": name,
            "origin": origin,
            "dims": dict.fromkeys(Dims.__dataclass_fields__, 8),
            "suppress": [],
            "suppress_first": [],
            "files": {"weights": 2000},
        }
        (folder / "model.json").write_text(json.dumps(content), encoding="utf-8")
        return folder

    return convert


@pytest.mark.parametrize("arguments", [("models",), ("models", "list")])
def test_speech_models_and_kernels_are_listed(line: Line, cache: Path, arguments: tuple[str, ...]) -> None:
    result = line(*arguments)
    assert result.exit_code == 0, result.output
    assert any(row.startswith("large-v3-turbo  downloaded on first use") for row in result.stdout.splitlines())
    assert "programs (hetero run NAME):\n  attention_i8_64x64\n" in result.stdout


def test_the_json_has_the_documented_keys(line: Line, convert: Callable[..., Path]) -> None:
    folder = convert("small.en", SMALL)
    document = line.json("models")
    assert list(document) == ["cache", "speech_models", "programs"]
    assert "gelu_i8" in document["programs"]
    told = next(model for model in document["speech_models"] if model["name"] == "small.en")
    assert list(told) == ["name", "state", "origin", "fix", "folder", "bytes"]
    assert (told["state"], told["folder"]) == ("converted", str(folder))
    assert told["bytes"] == sum(file.stat().st_size for file in folder.iterdir())


def test_a_model_that_was_converted_from_elsewhere_is_listed_too(line: Line, convert: Callable[..., Path]) -> None:
    convert("somebody/whisper-dialect")
    rows = [row.split() for row in line("models").stdout.splitlines()]
    found = next(row for row in rows if row[:1] == ["somebody/whisper-dialect"])
    assert (found[1], found[3:]) == ("ready", ["kB", "a", "test"])


def test_a_damaged_model_is_not_taken_for_a_ready_one(line: Line, convert: Callable[..., Path]) -> None:
    (convert("small.en", SMALL) / "weights").write_bytes(b"short")
    told = next(model for model in line.json("models")["speech_models"] if model["name"] == "small.en")
    assert told["folder"] is None
    line.refuses("models", "path", "small.en", code=3, says="'small.en' is not converted here")


def test_path_prints_the_folder_and_nothing_else(line: Line, convert: Callable[..., Path]) -> None:
    folder = convert("small.en", SMALL)
    assert line("models", "path", "small.en").stdout == f"{folder}\n"
    assert line("models", "path", "whisper-small.en").stdout == f"{folder}\n"
    assert line.json("models", "path", "small.en") == {"name": "small.en", "folder": str(folder)}


def test_names_of_one_model_share_a_folder(line: Line, convert: Callable[..., Path]) -> None:
    origin = next(known.origin for known in speech.known_models() if known.name == "large")
    folder = convert("large-v3", origin)
    assert line("models", "path", "large").stdout == f"{folder}\n"


def test_path_and_rm_of_what_is_not_there_say_how_to_get_it(line: Line, cache: Path) -> None:
    for subcommand in ("path", "rm"):
        said = line.refuses("models", subcommand, "base.en", code=3, says="'base.en' is not converted here")
        assert "fix: hetero models fetch base.en" in said


def test_rm_removes_that_model_and_leaves_the_others(line: Line, convert: Callable[..., Path]) -> None:
    gone, kept = convert("small.en", SMALL), convert("tiny", key="def")
    document = line.json("models", "rm", "small.en")
    assert document["removed"] == [str(gone)]
    assert document["bytes"] > 2000
    assert list(kept.parent.iterdir()) == [kept]


def test_fetch_makes_a_model_ready_and_tells_where_it_is(
    line: Line, convert: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = convert("tiny")

    def open_model(name: str, *, progress: Callable[[str, float], None]) -> WhisperModel:
        progress("convert", 0.5)
        return WhisperModel(name, folder, DIMS, (), (), "a test")

    monkeypatch.setattr(speech, "open_model", open_model)
    assert line("models", "fetch", "tiny").stdout.startswith("tiny from a test: 2.")
    assert list(line.json("models", "fetch", "tiny")) == ["name", "origin", "folder", "bytes"]


def test_a_model_that_cannot_be_had_is_not_here(line: Line, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def open_model(name: str, **_: Any) -> WhisperModel:
        raise ModelError(f"there is no model {name!r}", fix="check the name")

    monkeypatch.setattr(speech, "open_model", open_model)
    line.refuses("models", "fetch", "humongous", code=3, says="there is no model 'humongous'\nfix: check the name")
    assert line.json("models", "fetch", "humongous", code=3)["error"] == "ModelError"


def test_json_before_a_subcommand_is_refused_rather_than_ignored(line: Line) -> None:
    result = line("models", "--json", "list")
    assert result.exit_code == 2
    assert "write --json behind list" in result.stdout
