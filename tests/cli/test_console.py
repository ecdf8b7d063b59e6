"""Numbers, tables, JSON values and the progress bar as people and scripts get them."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from hetero.cli import console, progress
from hetero.program import Artifact


def test_a_table_in_a_pipe_is_never_wrapped_or_padded(capsys: pytest.CaptureFixture[str]) -> None:
    long = "word " * 60 + "end"
    console.echo_table(("name", "seconds", "reason"), [("[a]", "1.50", long), ("b", "20.00", "short")])
    rows = capsys.readouterr().out.splitlines()
    assert rows[0] == "name  seconds  reason"
    assert rows[1] == f"[a]      1.50  {long}"
    assert rows[2] == "b       20.00  short"


def test_json_has_only_what_json_has(capsys: pytest.CaptureFixture[str]) -> None:
    values = {
        "nan": float("nan"),
        "inf": np.float32("inf"),
        "array": np.arange(3, dtype=np.int8),
        "path": Path("a") / "b",
        "bytes": b"x",
        "dataclass": Artifact("onnx", target="rk3588"),
        3: (True, None),
    }
    console.echo_json(values)
    read = json.loads(capsys.readouterr().out)
    assert read["nan"] is None
    assert read["inf"] is None
    assert read["array"] == [0, 1, 2]
    assert read["path"] == str(Path("a") / "b")
    assert read["bytes"] == "b'x'"
    assert read["dataclass"]["target"] == "rk3588"
    assert read["3"] == [True, None]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0.0000123, "0.012 ms"), (0.00123, "1.23 ms"), (0.0123, "12.3 ms"), (1.234, "1234 ms")],
)
def test_milliseconds_have_digits_that_mean_something(seconds: float | None, text: str) -> None:
    assert console.milliseconds(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (154_000_000, "154.0 MB"), (3 * 10**12, "3.0 TB")],
)
def test_sizes_have_units(number: int, text: str) -> None:
    assert console.size(number) == text


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def terminal_at_stderr(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Stderr as a terminal of 100 columns; not a fixture, since pytest puts its own stderr in after those."""
    stream = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", stream)
    wide = Console(file=stream, force_terminal=True, force_interactive=True, width=100, highlight=False)
    monkeypatch.setattr(progress, "terminal", lambda err: wide)
    return stream


def test_the_bar_tells_what_and_how_far_and_goes_away(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stderr = terminal_at_stderr(monkeypatch)
    with progress.progress_bar() as bar:
        bar.begin("talk.mp3")
        bar.update(30, 60, "00:30 of 01:00")
        bar.line("to be or not to be")
    shown = stderr.getvalue()
    assert "talk.mp3" in shown
    assert "00:30 of 01:00" in shown
    assert shown.endswith("\x1b[2K")
    assert capsys.readouterr().out == "to be or not to be\n"
    assert "to be" not in shown


def test_lines_go_above_the_bar_where_stdout_is_the_terminal_too(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = terminal_at_stderr(monkeypatch)
    with progress.progress_bar() as bar:
        monkeypatch.setattr(sys, "stdout", Terminal())
        bar.line("[00:00.000] " + "word " * 40 + "[bold]")
    assert "[00:00.000] " + "word " * 40 + "[bold]" in stderr.getvalue()


@pytest.mark.parametrize("wanted", [True, False])
def test_without_a_terminal_or_a_wish_there_is_no_bar(wanted: bool, capsys: pytest.CaptureFixture[str]) -> None:
    with progress.progress_bar(wanted) as bar:
        bar.begin("talk.mp3")
        bar.update(1, 2, "half")
        bar.line("text")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("text\n", "")
