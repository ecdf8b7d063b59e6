"""What is kept on disk can be seen and removed, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Line


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "cache"
    for name, content in (
        ("whisper/aa/encoder.onnx", 1000),
        ("cpu/g1.onnx", 10),
        ("cpu/g2.onnx", 20),
        ("costs.json", 5),
    ):
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x" * content)
    (root / "cpu" / ".g3.onnx.tmp").write_bytes(b"being built")
    monkeypatch.setenv("HETERO_CACHE_DIR", str(root))
    return root


def test_every_entry_is_listed_with_its_size(line: Line, cache: Path) -> None:
    document = line.json("cache", "ls")
    assert document["cache"] == str(cache)
    assert document["bytes"] == 1035
    assert {entry["name"]: entry["bytes"] for entry in document["entries"]} == {
        "costs.json": 5,
        "cpu/g1.onnx": 10,
        "cpu/g2.onnx": 20,
        "whisper/aa": 1000,
    }
    listing = line("cache", "ls").stdout
    assert "converted speech models" in listing
    assert ".g3" not in listing, "what is being built is nobody's business"


def test_an_entry_is_removed_and_the_others_stay(line: Line, cache: Path) -> None:
    assert line.json("cache", "rm", "whisper/aa") == {"removed": ["whisper/aa"], "bytes": 1000}
    assert not (cache / "whisper" / "aa").exists()
    assert (cache / "cpu" / "g1.onnx").exists()


def test_a_folder_of_entries_and_everything_can_be_removed(line: Line, cache: Path) -> None:
    assert "removed 2 entries: 30 B" in line("cache", "rm", "cpu").stdout
    assert (cache / "cpu" / ".g3.onnx.tmp").exists()
    assert line.json("cache", "rm", "--all")["bytes"] == 1005
    assert line.json("cache", "ls")["entries"] == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["rm"], "name the entries to remove"),
        (["rm", "--all", "cpu"], "name the entries to remove"),
        (["rm", "nothing"], "no entry 'nothing'"),
        (["rm", "../elsewhere"], "no entry '../elsewhere'"),
        (["rm", "/"], "no entry '/'"),
    ],
)
def test_what_is_no_entry_is_not_removed(line: Line, cache: Path, arguments: list[str], says: str) -> None:
    line.refuses("cache", *arguments, says=says)
    assert (cache / "cpu" / "g1.onnx").exists()


def test_a_cache_that_was_never_made_is_empty(line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HETERO_CACHE_DIR", str(tmp_path / "none"))
    assert line.json("cache", "ls")["entries"] == []
