"""Traces in the Trace Event Format: each event has what the format asks for, and tells what happened."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hetero.errors import OptionError
from hetero.telemetry.chrome import chrome_trace
from hetero.telemetry.records import Record
from hetero.telemetry.spans import Layout
from hetero.telemetry.trace import Trace
from tests.telemetry.stories import attempt, load, record, story

Event = dict[str, Any]

# By phase, from the document of the Trace Event Format: the keys that an event must have besides name, ph, pid, tid.
NEEDED = {
    "X": {"cat", "ts", "dur"},
    "i": {"cat", "ts", "s"},
    "b": {"cat", "ts", "id"},
    "e": {"cat", "ts", "id"},
    "C": {"ts", "args"},
    "M": {"args"},
}
METADATA = {
    "process_name": ("name", str),
    "process_sort_index": ("sort_index", int),
    "thread_name": ("name", str),
    "thread_sort_index": ("sort_index", int),
}


def check_format(document: Any) -> list[Event]:
    """The events of a document, each of them checked."""
    assert document["displayTimeUnit"] in ("ms", "ns")
    open_spans: dict[Any, float] = {}
    free_at: dict[tuple[int, int], float] = {}
    last = 0.0
    named = {(event["pid"], event["tid"]) for event in document["traceEvents"] if event["name"] in ("thread_name",)}
    for event in document["traceEvents"]:
        phase = event["ph"]
        assert isinstance(event["name"], str)
        assert type(event["pid"]) is int
        assert type(event["tid"]) is int
        assert NEEDED[phase] <= event.keys()
        assert isinstance(event.get("args", {}), dict)
        if phase == "M":
            key, kind = METADATA[event["name"]]
            assert type(event["args"][key]) is kind
            continue
        assert type(event["ts"]) in (int, float)
        assert event["ts"] >= last, "events are in order of time"
        last = event["ts"]
        assert (event["pid"], event["tid"]) in named
        if phase == "X":
            track = (event["pid"], event["tid"])
            assert event["dur"] >= 0
            assert event["ts"] >= free_at.get(track, 0.0) - 0.001, "spans of one track overlap"
            free_at[track] = event["ts"] + event["dur"]
        elif phase == "i":
            assert event["s"] in ("t", "p", "g")
        elif phase == "b":
            assert open_spans.setdefault((event["cat"], event["id"]), event["ts"]) == event["ts"]
        elif phase == "e":
            assert open_spans.pop((event["cat"], event["id"])) <= event["ts"]
        elif phase == "C":
            assert all(type(value) in (int, float) for value in event["args"].values())
    assert not open_spans, "each wait has an end"
    return list(document["traceEvents"])


def written(records: list[Record], folder: Path) -> list[Event]:
    Trace(records).write_chrome(folder / "trace.json")
    return check_format(json.loads((folder / "trace.json").read_text()))


def names(events: list[Event], what: str) -> dict[Any, str]:
    return {
        (event["pid"], event["tid"]) if what == "thread_name" else event["pid"]: event["args"]["name"]
        for event in events
        if event["name"] == what
    }


def test_a_device_is_a_process_and_a_lane_a_thread(tmp_path: Path) -> None:
    events = written([*story(), record(7.0, 1.0, attempt("cpu", 7.0, 1.0, lane=3))], tmp_path)
    processes = names(events, "process_name")
    assert list(processes.values()) == ["waiting for a lane", "npu (simulated)", "cpu"]
    threads = names(events, "thread_name")
    assert [(processes[pid], name) for (pid, _), name in threads.items()] == [
        ("waiting for a lane", "queue"),
        ("npu (simulated)", "lane 0"),
        ("cpu", "lane 0"),
        ("cpu", "lane 3"),
    ]


def test_runs_are_spans_in_microseconds_with_the_programs_name(tmp_path: Path) -> None:
    events = written(story(), tmp_path)
    processes = names(events, "process_name")
    spans = [(processes[e["pid"]], e["name"], e["ts"], e["dur"]) for e in events if e["ph"] == "X"]
    assert spans == [
        ("npu (simulated)", "double", 0.0, 1e6),
        ("npu (simulated)", "double", 1e6, 1e6),
        ("cpu", "double", 2.5e6, 2.5e6),
        ("cpu", "other", 5e6, 1.25e6),
    ]
    verified = [event["args"] for event in events if event["ph"] == "X"][-1]
    assert verified["verify_ms"] == 250.0
    assert verified["run_ms"] == 1000.0


def test_a_failure_is_an_instant_that_tells_the_reason(tmp_path: Path) -> None:
    events = written(story(), tmp_path)
    instants = [event for event in events if event["ph"] == "i"]
    assert [(event["name"], event["ts"], event["args"]["reason"]) for event in instants] == [
        ("failed: double", 2e6, "failed for a reason"),
        ("set aside: other", 5e6, "set aside for a reason"),
    ]
    assert instants[0]["args"]["attempts"][0] == "npu (simulated): run failed: failed for a reason"
    assert instants[0]["args"]["simulated"] is True


def test_waits_are_spans_of_their_own_and_counted(tmp_path: Path) -> None:
    events = written(story(), tmp_path)
    waits = [(event["ph"], event["name"], event["ts"]) for event in events if event["ph"] in "be"]
    assert waits == [
        ("b", "double", 0.5e6),
        ("e", "double", 1e6),
        ("b", "double", 2e6),
        ("e", "double", 2.5e6),
        ("b", "double", 5.25e6),
        ("e", "double", 5.75e6),
    ]
    counted = [(event["ts"], event["args"]["waiting"]) for event in events if event["ph"] == "C"]
    assert counted == [(0, 0), (0.5e6, 1), (1e6, 0), (2e6, 1), (2.5e6, 0), (5.25e6, 1), (5.75e6, 0)]
    late = [event["args"] for event in events if event["ph"] == "b"][-1]
    assert (late["ended"], late["error"]) == ("too late", "DeadlineExceeded: no answer within 0.5 s")


def test_a_trace_of_nothing_can_be_opened_too(tmp_path: Path) -> None:
    assert [event["ph"] for event in written([], tmp_path) if event["ph"] != "M"] == ["C"]


@pytest.mark.parametrize("name", ["trace.pdf", "trace", "trace.json.gz"])
def test_other_kinds_of_files_are_refused_by_their_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(OptionError, match=r"expected \.json, \.jsonl, \.png, \.svg"):
        Trace([]).write(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="there is no folder"):
        Trace([]).write(tmp_path / "nowhere" / "trace.json")
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(OptionError, match="is a folder"):
        Trace([]).write(tmp_path / "folder.json")


def test_a_file_that_cannot_be_finished_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "trace.json").write_text("old")
    broken = record(0.0, float("nan"), attempt("cpu", 0.0, 1.0))
    with pytest.raises(ValueError, match="JSON"):
        Trace([broken]).write(tmp_path / "trace.json")
    with pytest.raises(ValueError, match="JSON"):
        Trace([broken]).write(tmp_path / "trace.jsonl")
    assert (tmp_path / "trace.json").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["trace.json"]


def test_a_load_is_a_span_with_what_came_of_it() -> None:
    loads = [load(0.0, 2.0, cached=True), load(0.5, 1.0, "gpu", "failed")]
    events = check_format(chrome_trace(Layout([record(3.0, 1.0, attempt("npu", 3.0, 1.0))], loads)))
    first, second = (event for event in events if event["ph"] == "X" and event["cat"] == "load")
    assert (first["name"], first["dur"]) == ("load double", 2e6)
    assert first["args"] == {"program": "double", "cached": True, "outcome": "ok", "load_ms": 2000.0}
    assert second["args"]["reason"] == "failed for a reason"
    assert [event["name"] for event in events if event["ph"] == "i"] == ["failed: double"]
