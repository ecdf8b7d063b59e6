"""Transcripts as files: plain text, subtitles (SubRip, WebVTT), a table, JSON."""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import IO

from hetero.errors import OptionError
from hetero.whisper.transcript import Transcript

_ARROW = re.compile("--+>")


def render(transcript: Transcript, form: str) -> str:
    """The transcript as the text of a file.

    Args:
        transcript: What to write.
        form: One of `FORMATS`: `txt`, `srt`, `vtt`, `tsv`, `json`.

    Raises:
        OptionError: Another format.
    """
    try:
        writer = FORMATS[form]
    except KeyError:
        raise OptionError(f"format {form!r} is not known", fix=f"choose {', '.join(FORMATS)}") from None
    return writer(transcript)


def write(transcript: Transcript, form: str, file: str | os.PathLike[str] | IO[str]) -> None:
    """Write the transcript to a file.

    Args:
        transcript: What to write.
        form: One of `FORMATS`: `txt`, `srt`, `vtt`, `tsv`, `json`.
        file: A path, where the file appears whole or not at all, in UTF-8; or an open text file.

    Raises:
        OptionError: Another format; a file that is open for bytes.
        OSError: The file cannot be written.
    """
    text = render(transcript, form)
    if not isinstance(file, str | os.PathLike):
        try:
            file.write(text)
        except TypeError:
            raise OptionError("the file is open for bytes", fix="open it for text: open(path, 'w')") from None
        return
    path = Path(file)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("x", encoding="utf-8", newline="") as opened:
            opened.write(text)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _txt(transcript: Transcript) -> str:
    return "".join(f"{_line(segment.text)}\n" for segment in transcript.segments)


def _srt(transcript: Transcript) -> str:
    """SubRip, https://en.wikipedia.org/wiki/SubRip: an arrow in the text would end its cue."""
    return "".join(
        f"{number}\n{_clock(s.start, ',')} --> {_clock(s.end, ',')}\n{_ARROW.sub('->', _line(s.text))}\n\n"
        for number, s in enumerate(transcript.segments, 1)
    )


def _vtt(transcript: Transcript) -> str:
    """WebVTT, https://www.w3.org/TR/webvtt1: text is markup."""
    cues = "".join(
        f"{_clock(s.start, '.')} --> {_clock(s.end, '.')}\n{_markup(_line(s.text))}\n\n" for s in transcript.segments
    )
    return f"WEBVTT\n\n{cues}"


def _tsv(transcript: Transcript) -> str:
    rows = "".join(f"{_milliseconds(s.start)}\t{_milliseconds(s.end)}\t{_line(s.text)}\n" for s in transcript.segments)
    return f"start\tend\ttext\n{rows}"


def _json(transcript: Transcript) -> str:
    return json.dumps(transcript.to_dict(), ensure_ascii=False, indent=1) + "\n"


#: The formats by name, which is also the files' ending.
FORMATS: dict[str, Callable[[Transcript], str]] = {"txt": _txt, "srt": _srt, "vtt": _vtt, "tsv": _tsv, "json": _json}


def _line(text: str) -> str:
    """The text in one line: a blank line would end a cue, a tab a column."""
    return " ".join(text.split())


def _markup(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _clock(seconds: float, point: str) -> str:
    minutes, milliseconds = divmod(_milliseconds(seconds), 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{milliseconds // 1000:02}{point}{milliseconds % 1000:03}"
