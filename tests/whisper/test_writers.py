"""Transcripts as files."""

from __future__ import annotations

import io
import itertools
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hetero.errors import OptionError
from hetero.whisper import Segment, Transcript, render, write
from hetero.whisper.writers import FORMATS


def transcript(*cues: tuple[float, float, str]) -> Transcript:
    segments = tuple(Segment(i, *cue, (), -0.1, 0.0, 1.0, 0.0) for i, cue in enumerate(cues))
    return Transcript(segments, "en", None, duration=10.0, seconds=1.0)


EXAMPLE = transcript((0.0, 1.5, "Hello there."), (1.5, 3661.007, "<b> a --> b & c\td\n\n2"))


def test_plain_text_has_a_segment_a_line() -> None:
    assert render(EXAMPLE, "txt") == "Hello there.\n<b> a --> b & c d 2\n"


def test_subrip() -> None:
    assert render(EXAMPLE, "srt") == (
        "1\n00:00:00,000 --> 00:00:01,500\nHello there.\n\n"
        "2\n00:00:01,500 --> 01:01:01,007\n<b> a -> b & c d 2\n\n"
    )  # fmt: skip


def test_webvtt_escapes_markup() -> None:
    assert render(EXAMPLE, "vtt") == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nHello there.\n\n"
        "00:00:01.500 --> 01:01:01.007\n&lt;b&gt; a --&gt; b &amp; c d 2\n\n"
    )


def test_table_in_milliseconds() -> None:
    assert render(EXAMPLE, "tsv") == "start\tend\ttext\n0\t1500\tHello there.\n1500\t3661007\t<b> a --> b & c d 2\n"


def test_json_has_everything() -> None:
    content = json.loads(render(EXAMPLE, "json"))
    assert content == EXAMPLE.to_dict()
    assert content["segments"][1]["end"] == 3661.007
    assert content["realtime_factor"] == 0.1


TIMES = st.lists(st.floats(0, 400_000), min_size=2, max_size=20).map(sorted)
ANY_TEXT = st.text(st.characters(codec="utf-8"))


def seconds(clock: str) -> float:
    hours, minutes, rest = clock.replace(",", ".").split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(rest)


@pytest.mark.parametrize("form", ["srt", "vtt"])
@given(times=TIMES, text=ANY_TEXT)
@example(times=[0.0, 1.0], text="a ----> b")
def test_cues_stay_cues_whatever_is_said(form: str, times: list[float], text: str) -> None:
    pairs = list(itertools.pairwise(times))
    written = render(transcript(*((start, end, text) for start, end in pairs)), form)
    cues = re.findall(r"^(\d\d+:\d\d:\d\d[.,]\d{3}) --> (\d\d+:\d\d:\d\d[.,]\d{3})$", written, re.MULTILINE)
    assert written.count("-->") == len(cues) == len(pairs)
    read = [seconds(clock) for cue in cues for clock in cue]
    assert read == sorted(read)
    assert read == pytest.approx([moment for pair in pairs for moment in pair], abs=0.000_51)


@given(text=ANY_TEXT)
def test_table_rows_stay_rows_whatever_is_said(text: str) -> None:
    rows = render(transcript((0, 1, text), (1, 2, text)), "tsv").rstrip("\n").split("\n")
    assert [row.count("\t") for row in rows] == [2, 2, 2]


@pytest.mark.parametrize("form", FORMATS)
def test_no_segments_make_a_valid_file(form: str) -> None:
    assert render(transcript(), form) in ("", "WEBVTT\n\n", "start\tend\ttext\n", render(transcript(), "json"))


def test_a_path_gets_the_file_in_utf8_and_with_unix_lines(tmp_path: Path) -> None:
    write(transcript((0, 1, "Grüße 你好")), "txt", tmp_path / "out.txt")
    assert (tmp_path / "out.txt").read_bytes() == "Grüße 你好\n".encode()
    write(transcript((0, 1, "new")), "txt", os.fspath(tmp_path / "out.txt"))
    assert (tmp_path / "out.txt").read_text() == "new\n"
    assert [path.name for path in tmp_path.iterdir()] == ["out.txt"]


def test_an_open_file_is_written_to_and_left_open() -> None:
    file = io.StringIO()
    write(EXAMPLE, "txt", file)
    assert file.getvalue() == render(EXAMPLE, "txt")
    with pytest.raises(OptionError, match="open for bytes"):
        write(EXAMPLE, "txt", io.BytesIO())  # type: ignore[arg-type]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "out.txt"
    target.write_text("old")

    def full(self: Path, other: Any) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write(EXAMPLE, "txt", target)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"out.txt": "old"}


def test_an_unknown_format_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="'doc' is not known") as caught:
        write(EXAMPLE, "doc", tmp_path / "out.doc")
    assert "txt, srt, vtt, tsv, json" in caught.value.fix
    assert not list(tmp_path.iterdir())
