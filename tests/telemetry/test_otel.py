"""Spans: one for each request, in the caller's trace, with a child for each device that ran."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import hetero
from hetero.errors import AllDevicesFailed, DeviceLost, Unavailable, Unsupported
from hetero.telemetry import otel
from tests.fakes import DOUBLE, Failing, fake, raises

Make = Callable[..., hetero.Runtime]

X = np.ones(4, np.float32)


class Tracing:
    """A provider whose spans stay in memory."""

    def __init__(self) -> None:
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        self.memory = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.memory))

    def spans(self) -> list[Any]:
        """By their start, the ones that enclose others first."""
        return sorted(self.memory.get_finished_spans(), key=lambda span: (span.start_time, -span.end_time))


@pytest.fixture
def tracing() -> Tracing:
    if importlib.util.find_spec("opentelemetry.sdk" if importlib.util.find_spec("opentelemetry") else "no") is None:
        pytest.skip("the OpenTelemetry SDK is not installed")
    return Tracing()


def test_a_request_is_a_span_with_a_child_for_each_run(make_runtime: Make, tracing: Tracing) -> None:
    npu = fake("npu", simulated=True, run=Failing(0, DeviceLost("gone")))
    runtime = make_runtime(npu, fake("cpu", kind="cpu"))
    session = runtime.load(DOUBLE, canary=False)
    with otel.export(runtime, tracing.provider):
        record = session.run(X).record
    request, failed, answered = tracing.spans()
    assert [span.name for span in (request, failed, answered)] == ["double", "run on npu (simulated)", "run on cpu"]
    assert request.parent is None
    assert failed.parent.span_id == answered.parent.span_id == request.context.span_id
    assert request.attributes["hetero.device"] == "cpu"
    assert request.attributes["hetero.fell_back"] is True
    assert request.attributes["hetero.outcome"] == "ok"
    assert request.status.is_ok
    assert not failed.status.is_ok
    assert failed.status.description == "DeviceLost: gone"
    assert failed.attributes["hetero.simulated"] is True
    assert answered.attributes["hetero.lane"] == 0
    # A double holds a time of today to a quarter of a microsecond.
    close = pytest.approx
    assert (request.end_time - request.start_time) / 1e9 == close(record.total_seconds, abs=1e-6)
    assert (answered.end_time - answered.start_time) / 1e9 == close(record.run_seconds, abs=1e-6)
    assert request.start_time / 1e9 == close(record.started, abs=1e-6)


def test_a_call_is_part_of_the_callers_trace(make_runtime: Make, tracing: Tracing) -> None:
    runtime = make_runtime(fake("cpu", kind="cpu"))
    session = runtime.load(DOUBLE)
    with (
        otel.export(runtime, tracing.provider),
        tracing.provider.get_tracer("application").start_as_current_span("handle") as handle,
    ):
        session(X)
    request = next(span for span in tracing.spans() if span.name == "double")
    assert request.parent.span_id == handle.get_span_context().span_id


@pytest.mark.parametrize("door", ["submit", "map", "arun", "deadline", "batch"])
def test_what_runs_in_another_thread_is_part_of_the_callers_trace(
    make_runtime: Make, tracing: Tracing, door: str
) -> None:
    runtime = make_runtime(fake("cpu", kind="cpu"))
    session = runtime.load(DOUBLE, batch=2 if door == "batch" else None)

    def handle(name: str) -> int:
        with tracing.provider.get_tracer("application").start_as_current_span(name) as span:
            if door == "map":
                list(session.map([X]))
            elif door == "arun":
                asyncio.run(session.arun(X))
            elif door == "deadline":
                session(X, deadline=60)
            else:
                session.submit(X).result()
        return int(span.get_span_context().span_id)

    with otel.export(runtime, tracing.provider):
        callers = [handle("first"), handle("second")]
    requests = [span for span in tracing.spans() if span.name == "double"]
    assert [span.parent.span_id for span in requests] == callers
    runs = [span for span in tracing.spans() if span.name == "run on cpu"]
    assert [span.parent.span_id for span in runs] == [span.context.span_id for span in requests]


def test_a_load_is_a_span_in_the_trace_of_who_loads(make_runtime: Make, tracing: Tracing) -> None:
    runtime = make_runtime(fake("npu", simulated=True, load=raises(Unsupported("op Foo"))), fake("cpu", kind="cpu"))
    with (
        otel.export(runtime, tracing.provider),
        tracing.provider.get_tracer("application").start_as_current_span("start") as start,
    ):
        runtime.load(DOUBLE)
    spans = {span.name: span for span in tracing.spans()}
    refused, loaded = spans["load double on npu (simulated)"], spans["load double on cpu"]
    assert refused.parent.span_id == loaded.parent.span_id == start.get_span_context().span_id
    assert (refused.status.is_ok, refused.status.description) == (False, "op Foo")
    assert loaded.status.is_ok
    assert loaded.attributes["hetero.device"] == "cpu"
    seconds = next(load.attempt.seconds for load in runtime.records.loads if load.attempt.outcome == "ok")
    assert (loaded.end_time - loaded.start_time) / 1e9 == pytest.approx(seconds, abs=1e-6)


def test_a_failed_request_is_an_error_and_a_device_set_aside_an_event(make_runtime: Make, tracing: Tracing) -> None:
    runtime = make_runtime(
        fake("npu", run=raises(DeviceLost("gone"))), fake("cpu", kind="cpu", run=Failing(1, DeviceLost("gone too")))
    )
    session = runtime.load(DOUBLE, canary=False)
    session(X)
    with otel.export(runtime, tracing.provider), pytest.raises(AllDevicesFailed):
        session(X)
    request = next(span for span in tracing.spans() if span.name == "double")
    assert not request.status.is_ok
    assert request.status.description.startswith("AllDevicesFailed: ")
    assert "hetero.device" not in request.attributes
    assert [(event.name, event.attributes["hetero.device"]) for event in request.events] == [("set aside", "npu")]
    assert request.start_time <= request.events[0].timestamp <= request.end_time


def test_after_close_there_are_no_more_spans(make_runtime: Make, tracing: Tracing) -> None:
    runtime = make_runtime(fake("cpu", kind="cpu"))
    session = runtime.load(DOUBLE)
    exported = otel.export(runtime, tracing.provider)
    exported.close()
    exported.close()
    session(X)
    assert tracing.spans() == []


def test_without_the_library_one_is_told_what_to_install(make_runtime: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("opentelemetry", "opentelemetry.trace"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(Unavailable) as error:
        otel.export(make_runtime(fake("cpu", kind="cpu")))
    assert error.value.fix == 'pip install "hetero[otel]"'
