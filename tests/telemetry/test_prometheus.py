"""Metrics: each request is counted once, under what happened to it, and nothing is left behind."""

from __future__ import annotations

import gc
import importlib.util
import sys
import threading
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

import hetero
from hetero.backend import Array, Call
from hetero.errors import AllDevicesFailed, DeviceLost, OptionError, Unavailable, Unsupported
from hetero.telemetry import prometheus
from tests.fakes import DOUBLE, Failing, double, fake, raises

Make = Callable[..., hetero.Runtime]

X = np.ones(4, np.float32)


@pytest.fixture
def registry() -> Any:
    if importlib.util.find_spec("prometheus_client") is None:
        pytest.skip("prometheus_client is not installed")
    from prometheus_client import CollectorRegistry

    return CollectorRegistry()


def test_requests_and_fallbacks_are_counted_by_device_and_outcome(make_runtime: Make, registry: Any) -> None:
    npu = fake("npu", simulated=True, run=Failing(2, DeviceLost("gone")))
    runtime = make_runtime(npu, fake("cpu", kind="cpu"))
    session = runtime.load(DOUBLE, canary=False)
    with prometheus.export(runtime, registry):
        for _ in range(3):
            session(X)
        npu_labels = {"program": "double", "device": "npu", "simulated": "true"}
        cpu_labels = {"program": "double", "device": "cpu", "simulated": "false"}
        value = registry.get_sample_value
        assert value("hetero_requests_total", {**npu_labels, "outcome": "ok"}) == 2
        assert value("hetero_requests_total", {**cpu_labels, "outcome": "ok"}) == 1
        assert value("hetero_fallbacks_total", {**npu_labels, "outcome": "failed"}) == 1
        assert value("hetero_run_seconds_count", npu_labels) == 2
        assert value("hetero_run_seconds_count", cpu_labels) == 1
        assert value("hetero_wait_seconds_count", {"program": "double"}) == 3
        spent = sum(record.run_seconds for record in runtime.records if record.device == "npu")
        assert value("hetero_run_seconds_sum", npu_labels) == pytest.approx(spent)


def test_a_request_that_nobody_answered_is_counted_too(make_runtime: Make, registry: Any) -> None:
    runtime = make_runtime(fake("cpu", kind="cpu", run=raises(DeviceLost("gone"))))
    session = runtime.load(DOUBLE)
    with prometheus.export(runtime, registry):
        with pytest.raises(AllDevicesFailed):
            session(X)
        labels = {"program": "double", "device": "none", "simulated": "false", "outcome": "failed"}
        assert registry.get_sample_value("hetero_requests_total", labels) == 1


def test_loads_are_counted_and_those_that_went_well_timed(make_runtime: Make, registry: Any) -> None:
    runtime = make_runtime(fake("npu", load=raises(Unsupported("op Foo"))), fake("cpu", kind="cpu"))
    with prometheus.export(runtime, registry):
        runtime.load(DOUBLE)
        npu_labels = {"program": "double", "device": "npu", "simulated": "false"}
        cpu_labels = {"program": "double", "device": "cpu", "simulated": "false"}
        value = registry.get_sample_value
        assert value("hetero_loads_total", {**npu_labels, "outcome": "unsupported"}) == 1
        assert value("hetero_loads_total", {**cpu_labels, "outcome": "ok"}) == 1
        assert value("hetero_load_seconds_count", npu_labels) is None
        spent = sum(load.attempt.seconds for load in runtime.records.loads if load.attempt.outcome == "ok")
        assert value("hetero_load_seconds_sum", cpu_labels) == pytest.approx(spent)


def test_those_who_wait_are_counted_while_they_wait(make_runtime: Make, registry: Any) -> None:
    inside, begin = threading.Event(), threading.Event()

    def run(inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        inside.set()
        assert begin.wait(60)
        return double(inputs, call)

    runtime = make_runtime(fake("cpu", kind="cpu", run=run))
    session = runtime.load(DOUBLE)
    with prometheus.export(runtime, registry):

        def waiting() -> float | None:
            value: float | None = registry.get_sample_value("hetero_waiting_requests", {"program": "double"})
            return value

        first = session.submit(X)
        assert inside.wait(60)
        rest = [session.submit(X) for _ in range(3)]
        assert waiting() == 3
        begin.set()
        for future in (first, *rest):
            future.result()
        assert waiting() == 0


def test_a_session_that_was_closed_has_no_gauge_though_somebody_holds_it(make_runtime: Make, registry: Any) -> None:
    runtime = make_runtime(fake("cpu", kind="cpu"))
    session = runtime.load(DOUBLE)
    with prometheus.export(runtime, registry):
        assert registry.get_sample_value("hetero_waiting_requests", {"program": "double"}) == 0
        session.close()
        assert registry.get_sample_value("hetero_waiting_requests", {"program": "double"}) is None


def test_memory_is_told_by_pool_when_the_metrics_are_read(make_runtime: Make, registry: Any) -> None:
    runtime = make_runtime(fake("cpu", kind="cpu"), memory_limit=1 << 20)
    with prometheus.export(runtime, registry), runtime.buffer(1024) as held:
        runtime.buffer(1024).release()
        runtime.buffer(1024).release()
        values = {
            name: registry.get_sample_value(f"hetero_memory_{name}", {"pool": "host"})
            for name in ("in_use_bytes", "idle_bytes", "high_water_bytes", "limit_bytes", "hits_total", "misses_total")
        }
        assert values == {
            "in_use_bytes": held.nbytes,
            "idle_bytes": 4096,
            "high_water_bytes": 8192,
            "limit_bytes": 1 << 20,
            "hits_total": 1,
            "misses_total": 2,
        }


def test_time_in_copies_is_counted(make_runtime: Make, registry: Any) -> None:
    def run(inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        call.copy_seconds = 0.25
        return double(inputs, call)

    runtime = make_runtime(fake("npu", run=run))
    session = runtime.load(DOUBLE)
    with prometheus.export(runtime, registry):
        session(X)
        session(X)
        labels = {"program": "double", "device": "npu", "simulated": "false"}
        assert registry.get_sample_value("hetero_copy_seconds_total", labels) == 0.5


def test_after_close_nothing_is_counted_and_the_names_are_free(make_runtime: Make, registry: Any) -> None:
    runtime = make_runtime(fake("cpu", kind="cpu"))
    session = runtime.load(DOUBLE)
    exported = prometheus.export(runtime, registry)
    with pytest.raises(OptionError, match="has metrics of these names already"):
        prometheus.export(make_runtime(fake("cpu", kind="cpu")), registry)
    session(X)
    exported.close()
    exported.close()
    session(X)
    assert list(registry.collect()) == []
    with prometheus.export(runtime, registry):
        session(X)
        labels = {"program": "double", "device": "cpu", "simulated": "false", "outcome": "ok"}
        assert registry.get_sample_value("hetero_requests_total", labels) == 1


def test_a_refused_export_leaves_no_metric_behind(make_runtime: Make, registry: Any) -> None:
    from prometheus_client import Gauge

    Gauge("hetero_wait_seconds", "Somebody else's.", registry=registry)
    with pytest.raises(OptionError):
        prometheus.export(make_runtime(fake("cpu", kind="cpu")), registry)
    assert [metric.name for metric in registry.collect()] == ["hetero_wait_seconds"]


def test_the_registry_keeps_no_runtime_alive(registry: Any, host: hetero.Host) -> None:
    runtime = hetero.Runtime(backends=[fake("cpu", kind="cpu")], plugins=False, host=host)
    exported = prometheus.export(runtime, registry)
    runtime.close()
    gone = weakref.ref(runtime)
    del runtime
    gc.collect()
    assert gone() is None
    assert "hetero_waiting_requests" in [metric.name for metric in registry.collect()]
    exported.close()


def test_without_the_library_one_is_told_what_to_install(make_runtime: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(Unavailable) as error:
        prometheus.export(make_runtime(fake("cpu", kind="cpu")))
    assert error.value.fix == 'pip install "hetero[prometheus]"'
