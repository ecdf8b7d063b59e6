"""What heat decided for a request, in files, traces, explanations and on the command line."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hetero
from hetero.backend import Host
from hetero.cli.runtime import thermal_of
from hetero.errors import OptionError
from hetero.telemetry.jsonl import line_of, record_of
from hetero.telemetry.records import Record
from hetero.telemetry.trace import Trace
from hetero.testing.thermal.sysroots import Sysroot
from hetero.thermal.settings import ThermalSettings
from hetero.thermal.steering import Decision
from tests.fakes import DOUBLE, fake

X = np.array([1, 2], np.float32)


@pytest.fixture
def steered(make_runtime: Callable[..., hetero.Runtime], tmp_path: Path) -> tuple[hetero.Runtime, hetero.Session]:
    """A session whose last request left a stopped NPU for the CPU."""
    Sysroot(tmp_path / "root", "rk3588").show(dict.fromkeys(range(4), 91.0))
    runtime = make_runtime(
        fake("npu"),
        fake("cpu", kind="cpu"),
        host=Host(environ={}, sysroot=tmp_path / "root", cache=tmp_path / "cache"),
        clock=lambda: 50.0,
        learn=False,
        thermal=ThermalSettings(patience=0.0),
    )
    session = runtime.load(DOUBLE, canary=False)
    assert runtime.governor is not None
    runtime.governor.tick()
    assert session(X).tolist() == [2, 4]
    return runtime, session


def test_records_are_read_back_with_their_decisions() -> None:
    record = Record("double")
    record.heat = [
        Decision("npu", "pace", "83.1 C", wait=0.5, held=0.6),
        Decision("npu", "pace", "for ever", wait=math.inf),
        Decision("npu", "steer", "88 C", to="cpu"),
    ]
    read = record_of(json.loads(line_of(record)))
    assert isinstance(read, Record)
    assert read.heat == record.heat


def test_files_from_before_are_read_and_what_cannot_be_is_refused() -> None:
    values: dict[str, Any] = Record("double").to_dict()
    del values["heat"]
    read = record_of(values)
    assert isinstance(read, Record)
    assert read.heat == []
    for wrong in (3, [3], [{"device": "npu"}], [{**Decision("npu", "run").to_dict(), "action": "flee"}]):
        with pytest.raises(ValueError, match=r"heat|decision|action"):
            record_of({**values, "heat": wrong})


def test_decisions_say_in_words_what_was_done() -> None:
    assert str(Decision("npu", "pace", "83 C", wait=0.5)) == "npu: paced, 0.50 s: 83 C"
    assert str(Decision("npu", "pace", "83 C", wait=0.5, held=0.61)) == "npu: paced, held back for 0.61 s: 83 C"
    assert str(Decision("npu", "stop", "89 C", held=5.0)) == "npu: stopped, held back for 5.00 s: 89 C"
    assert str(Decision("npu", "steer", "89 C", to="cpu")) == "npu: steered to cpu: 89 C"
    assert str(Decision("npu", "run", "a deadline presses")) == "npu: runs: a deadline presses"


def test_explain_tells_of_the_device_and_of_the_last_request(steered: tuple[hetero.Runtime, hetero.Session]) -> None:
    told = str(steered[1].explain())
    assert "npu: ready; heat leaves 0% of it: 90.9 C (npu-thermal)" in told or "heat leaves 0% of it: 91" in told
    assert "  - heat: npu: steered to cpu: " in told
    assert steered[1].explain().to_dict()["last"]["heat"][0]["to"] == "cpu"


def test_a_trace_has_it_where_one_clicks(steered: tuple[hetero.Runtime, hetero.Session], tmp_path: Path) -> None:
    trace = Trace()
    trace.records.extend(steered[0].records)
    trace.write(tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    (told,) = [event["args"]["heat"] for event in events if event.get("cat") == "run" and event["ph"] == "X"]
    assert told[0].startswith("npu: steered to cpu: ")


def test_the_command_line_sets_what_the_environment_would(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HETERO_THERMAL", raising=False)
    assert thermal_of(None, None) == ThermalSettings()
    assert thermal_of("burst", "pace") == ThermalSettings(profile="burst", on_hot="pace")
    assert thermal_of("off", "pace") is False
    monkeypatch.setenv("HETERO_THERMAL", "battery")
    assert thermal_of(None, "steer") == ThermalSettings(profile="battery", on_hot="steer")
    with pytest.raises(OptionError, match="gaming"):
        thermal_of("gaming", None)
