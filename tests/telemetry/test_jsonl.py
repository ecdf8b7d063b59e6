"""Records as lines: what is written is read back, and what is damaged is told line by line."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hetero
from hetero.errors import DeviceLost, InputError, OptionError
from hetero.telemetry.jsonl import line_of, read_records, record_to_file
from hetero.telemetry.trace import Trace
from tests.fakes import DOUBLE, Failing, fake
from tests.telemetry.stories import load, story

Make = Callable[..., hetero.Runtime]

X = np.ones(4, np.float32)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    records = story()
    Trace(records).write(tmp_path / "records.jsonl")
    read = Trace.read(tmp_path / "records.jsonl").records
    assert [record.to_dict() for record in read] == [record.to_dict() for record in records]


def test_each_request_is_a_line_as_soon_as_it_ends(make_runtime: Make, tmp_path: Path) -> None:
    runtime = make_runtime(fake("npu", run=Failing(1, DeviceLost("gone"))), fake("cpu", kind="cpu"))
    session = runtime.load(DOUBLE, canary=False)
    session(X)
    with record_to_file(runtime, tmp_path / "records.jsonl") as path:
        session(X)
        assert [record.device for record in read_records(path)] == ["cpu"]
        session(X)
        assert len(read_records(path)) == 2
    session(X)
    written = read_records(path)
    assert [record.to_dict() for record in written] == [record.to_dict() for record in list(runtime.records)[1:3]]
    assert written[0].attempts[0].reason == "DeviceLost: gone"


def test_lines_of_many_threads_stay_whole(make_runtime: Make, tmp_path: Path) -> None:
    runtime = make_runtime(fake("cpu", kind="cpu", lanes=4))
    session = runtime.load(DOUBLE)
    with record_to_file(runtime, tmp_path / "records.jsonl") as path:
        threads = [threading.Thread(target=lambda: [session(X) for _ in range(50)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert {record.id for record in read_records(path)} == {record.id for record in runtime.records}


def test_a_file_that_cannot_be_written_is_told_before_anything_runs(make_runtime: Make, tmp_path: Path) -> None:
    runtime = make_runtime(fake("cpu", kind="cpu"))
    with pytest.raises(OptionError, match="cannot be written"), record_to_file(runtime, tmp_path / "no" / "r.jsonl"):
        pytest.fail("it was opened")


def test_a_full_disk_stops_no_request_and_is_told_at_the_end(make_runtime: Make) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    runtime = make_runtime(fake("cpu", kind="cpu"))
    session = runtime.load(DOUBLE)
    answers = []
    with pytest.raises(OSError, match="No space left"), record_to_file(runtime, "/dev/full"):
        answers += [session(X), session(X)]
    assert len(answers) == 2


def changed(**values: Any) -> str:
    return json.dumps({**json.loads(line_of(story()[0])), **values})


def changed_attempt(**values: Any) -> str:
    told = json.loads(line_of(story()[0]))
    told["attempts"][0] |= values
    return json.dumps(told)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"id": 1, "prog', "no JSON"),
        ("[]", r"the record is \[\], expected an object"),
        ("{}", "the record has no 'id'"),
        ("\udcff", "no UTF-8"),
        ("[" * 100_000, "no record"),
        (changed(program=7), "program is 7, expected a text"),
        (changed(started="now"), "started is 'now', expected a number"),
        (changed(total_seconds=-1), "total_seconds is -1, expected seconds"),
        (changed(total_seconds=True), "total_seconds is True, expected a number"),
        (changed(wait_seconds=10**400), "wait_seconds is 1000.*expected a number"),
        (changed(wait_seconds=float("nan")), "wait_seconds is nan, expected a number"),
        (changed(attempts={}), r"attempts is \{\}, expected a list"),
        (changed(attempts=[1]), "an attempt is 1, expected an object"),
        (changed_attempt(lane=-1), "lane is -1, expected a whole number"),
        (changed_attempt(outcome="fine"), "outcome is 'fine', expected one of ok, failed"),
        (changed_attempt(simulated=0), "simulated is 0, expected true or false"),
    ],
)
def test_a_damaged_line_is_told_by_its_number_or_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, line: str, says: str
) -> None:
    file = tmp_path / "records.jsonl"
    good = line_of(story()[0])
    file.write_bytes(f"{good}\n{line}\n{good}".encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=says) as error:
        read_records(file)
    assert "line 3 is no record" in error.value.problem
    with caplog.at_level(logging.WARNING):
        assert len(read_records(file, skip_damaged=True)) == 2
    assert "1 damaged lines are left out, the first is line 3" in caplog.text


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file"):
        read_records(tmp_path / "records.jsonl")
    with pytest.raises(InputError, match="cannot be read"):
        read_records(tmp_path)


def test_loads_are_lines_between_those_of_requests_and_are_read_back(make_runtime: Make, tmp_path: Path) -> None:
    runtime = make_runtime(fake("cpu", kind="cpu"))
    with record_to_file(runtime, tmp_path / "records.jsonl") as path:
        session = runtime.load(DOUBLE)
        session(X)
    assert [json.loads(line).get("kind", "request") for line in path.read_text().splitlines()] == ["load", "request"]
    trace = Trace.read(path)
    assert [told.to_dict() for told in trace.loads] == [told.to_dict() for told in runtime.records.loads]
    assert len(trace.records) == len(read_records(path)) == 1
    trace.write(tmp_path / "again.jsonl")
    assert (tmp_path / "again.jsonl").read_text() == path.read_text()
    Trace(runtime.records).write(tmp_path / "whole.jsonl")
    assert (tmp_path / "whole.jsonl").read_text() == path.read_text()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"kind": "lode"}, "kind is 'lode', expected one of load"),
        ({"cached": 1}, "cached is 1, expected true, false or null"),
        ({"attempt": None}, "an attempt is None, expected an object"),
        ({"attempt": {"device": "npu"}}, "an attempt has no 'stage'"),
    ],
)
def test_a_damaged_load_is_told(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    values = {**load(0.0, 1.0).to_dict(), **change}
    (tmp_path / "records.jsonl").write_text(json.dumps(values))
    with pytest.raises(InputError, match=f"line 1 is no record: {says}"):
        Trace.read(tmp_path / "records.jsonl")
