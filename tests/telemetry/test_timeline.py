"""Pictures: what they say and show, and that without matplotlib one is told what to install."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from hetero.errors import OptionError, Unavailable
from hetero.telemetry.records import LoadRecord, Record
from hetero.telemetry.trace import Trace
from tests.telemetry.stories import attempt, load, record, story


@pytest.fixture
def drawn(tmp_path: Path) -> Iterator[Any]:
    """Draws records and gives the words in the picture and its XML."""
    if importlib.util.find_spec("matplotlib") is None:
        pytest.skip("matplotlib is not installed")
    import matplotlib

    before = dict(matplotlib.rcParams)

    def draw(records: list[Record], *loads: LoadRecord) -> tuple[str, str]:
        # Words as words, so that they can be read in the file.
        with matplotlib.rc_context({"svg.fonttype": "none"}):
            Trace(records, loads).write(tmp_path / "timeline.svg")
        xml = (tmp_path / "timeline.svg").read_text()
        return " | ".join(ElementTree.fromstring(xml).itertext()), xml

    yield draw
    assert dict(matplotlib.rcParams) == before, "the application's settings are as they were"


def test_the_picture_says_who_answered_and_what_went_wrong(drawn: Any) -> None:
    words, _ = drawn(story())
    assert "4 requests, answered by npu (simulated) 1, cpu 2; 1 unanswered; 2 fell back" in words
    for expected in ("npu (simulated)  lane 0", "cpu  lane 0", "double", "other", "failed (1)", "set aside (1)"):
        assert expected in words
    assert "time since the first request [s]" in words


def test_a_simulated_device_is_hatched_and_its_times_are_called_modelled(drawn: Any) -> None:
    words, xml = drawn([record(0.0, 1.0, attempt("npu", 0.0, 1.0, simulated=True))])
    assert "on a simulated device: modelled" in words
    assert "<pattern" in xml
    words, xml = drawn([record(0.0, 1.0, attempt("cpu", 0.0, 1.0))])
    assert "simulated" not in words
    assert "<pattern" not in xml


def test_names_are_shown_as_they_are(drawn: Any) -> None:
    odd = [record(0.0, 0.001, attempt("cpu", 0.0, 0.001), program=name) for name in ("_under", "a$x^2$", "n" * 90)]
    words, _ = drawn(odd)
    assert "_under" in words
    assert "a$x^2$" in words
    assert "n" * 39 + "…" in words
    assert "[ms]" in words


def test_a_picture_of_nothing_says_so(drawn: Any) -> None:
    words, _ = drawn([])
    assert "no requests" in words
    assert "no request waited" in words


def test_loads_have_a_row_and_are_counted(drawn: Any) -> None:
    words, _ = drawn([record(3.0, 1.0, attempt("npu", 3.0, 1.0))], load(0.0, 2.0))
    assert "npu  loads" in words
    assert "; 1 load" in words
    assert "time since the first load [s]" in words


def test_equal_records_give_equal_files(drawn: Any) -> None:
    records = story()
    assert drawn(records) == drawn(records)


def test_the_suffix_decides_the_kind_of_picture(drawn: Any, tmp_path: Path) -> None:
    Trace(story()).write(tmp_path / "timeline.PNG")
    data = (tmp_path / "timeline.PNG").read_bytes()
    assert re.match(rb"\x89PNG\r\n\x1a\n", data)
    with pytest.raises(OptionError, match=r"expected \.png, \.svg"):
        Trace(story()).write_timeline(tmp_path / "timeline.json")


def test_without_matplotlib_one_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(Unavailable) as error:
        Trace(story()).write(tmp_path / "timeline.png")
    assert error.value.fix == 'pip install "hetero[plot]"'
    assert list(tmp_path.iterdir()) == []
