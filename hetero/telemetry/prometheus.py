"""Metrics for Prometheus, through its own client library (extra `prometheus`)."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from hetero.errors import OptionError, Unavailable
from hetero.telemetry.records import LoadRecord, Record

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from hetero.runtime import Runtime

BUCKETS = (1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds, of runs and waits."""

LOAD_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
"""Seconds, of loads."""


class Export:
    """Metrics that are kept up to date until `close`. Made by `export`; a context manager."""

    def __init__(self, runtime: Runtime, registry: CollectorRegistry) -> None:
        from prometheus_client import Counter, Histogram

        self._registry = registry
        self._lock = threading.Lock()
        where = ("program", "device", "simulated")
        self._requests = Counter(
            "hetero_requests", "Requests that ended, by the device that answered.", (*where, "outcome"), registry=None
        )
        self._fallbacks = Counter(
            "hetero_fallbacks",
            "Requests that went past a device: it failed, refused, or was set aside.",
            (*where, "outcome"),
            registry=None,
        )
        self._run = Histogram(
            "hetero_run_seconds", "Time in the device that answered.", where, buckets=BUCKETS, registry=None
        )
        self._wait = Histogram(
            "hetero_wait_seconds", "Time spent waiting for a lane.", ("program",), buckets=BUCKETS, registry=None
        )
        self._copy = Counter(
            "hetero_copy_seconds", "The part of the run time that went into copies.", where, registry=None
        )
        self._heat = Counter(
            "hetero_heat_decisions",
            "What was decided for requests because a device was hot: pace, steer, stop, or run for a deadline.",
            ("program", "device", "action"),
            registry=None,
        )
        self._held = Counter(
            "hetero_heat_held_seconds",
            "Time for which heat held requests back.",
            ("program", "device"),
            registry=None,
        )
        self._loads = Counter(
            "hetero_loads", "Programs that were loaded, or were to be.", (*where, "outcome"), registry=None
        )
        self._load = Histogram(
            "hetero_load_seconds", "Time of loads that went well.", where, buckets=LOAD_BUCKETS, registry=None
        )
        requests = (self._requests, self._fallbacks, self._run, self._copy, self._wait, self._heat, self._held)
        self._metrics = (*requests, self._loads, self._load, _Waiting(runtime), _Memory(runtime), _Heat(runtime))
        registered: list[Any] = []
        try:
            for metric in self._metrics:
                registry.register(metric)
                registered.append(metric)
        except ValueError as error:
            for metric in registered:
                registry.unregister(metric)
            raise OptionError(
                f"the registry has metrics of these names already: {error}",
                fix="close the export of the other Runtime, or give each Runtime a registry of its own",
            ) from None
        self._unsubscribe = runtime.records.subscribe(self._add, self._add_load)
        self._closed = False

    def close(self) -> None:
        """Take the metrics out of the registry; calling it again does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._unsubscribe()
        for metric in self._metrics:
            self._registry.unregister(metric)

    def __enter__(self) -> Export:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _add(self, record: Record) -> None:
        answered = (record.program, record.device or "none", _truth(record.simulated))
        self._requests.labels(*answered, record.outcome).inc()
        self._wait.labels(record.program).observe(record.wait_seconds)
        if record.device is not None:
            self._run.labels(*answered).observe(record.run_seconds)
            self._copy.labels(*answered).inc(record.attempts[-1].copy_seconds)
        for attempt in record.attempts:
            if attempt.outcome != "ok":
                passed = (record.program, attempt.device, _truth(attempt.simulated))
                self._fallbacks.labels(*passed, attempt.outcome).inc()
        for decision in record.heat:
            self._heat.labels(record.program, decision.device, decision.action).inc()
            if decision.held is not None:
                self._held.labels(record.program, decision.device).inc(decision.held)

    def _add_load(self, record: LoadRecord) -> None:
        attempt = record.attempt
        where = (record.program, attempt.device, _truth(attempt.simulated))
        self._loads.labels(*where, attempt.outcome).inc()
        if attempt.outcome == "ok":
            self._load.labels(*where).observe(attempt.seconds)


class _Waiting:
    """How many requests wait, asked when the metrics are read. Keeps no Runtime alive."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = weakref.ref(runtime)

    def describe(self) -> list[Any]:
        return [self._gauge()]

    def collect(self) -> Iterator[Any]:
        gauge = self._gauge()
        runtime = self._runtime()
        waiting: dict[str, int] = {}
        for session in runtime._sessions.all() if runtime is not None else ():
            name = session.program.name
            waiting[name] = waiting.get(name, 0) + session._dispatcher.board.waiting
        for program, count in waiting.items():
            gauge.add_metric([program], count)
        yield gauge

    def _gauge(self) -> Any:
        from prometheus_client.core import GaugeMetricFamily

        return GaugeMetricFamily("hetero_waiting_requests", "Requests that wait for a lane now.", labels=["program"])


class _Memory:
    """The pools of buffers, asked when the metrics are read. Keeps no Runtime alive."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = weakref.ref(runtime)

    def describe(self) -> list[Any]:
        return list(self._families().values())

    def collect(self) -> Iterator[Any]:
        families = self._families()
        runtime = self._runtime()
        for told in runtime.memory if runtime is not None else ():
            for name, family in families.items():
                value = getattr(told, name)
                if value is not None:
                    family.add_metric([told.name], value)
        yield from families.values()

    def _families(self) -> dict[str, Any]:
        """By the name of the statistic."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        def family(kind: Any, name: str, text: str) -> Any:
            return kind(f"hetero_memory_{name}", text, labels=["pool"])

        return {
            "in_use_bytes": family(GaugeMetricFamily, "in_use_bytes", "Bytes of buffers that somebody uses."),
            "idle_bytes": family(GaugeMetricFamily, "idle_bytes", "Bytes kept for the next request."),
            "high_water_bytes": family(GaugeMetricFamily, "high_water_bytes", "The most bytes in use at once so far."),
            "limit_bytes": family(GaugeMetricFamily, "limit_bytes", "What a pool may hold, where that is limited."),
            "hits": family(CounterMetricFamily, "hits", "Buffers taken that were there."),
            "misses": family(CounterMetricFamily, "misses", "Buffers that had to be allocated."),
        }


class _Heat:
    """Temperatures and duties of the last look, asked when the metrics are read. Keeps no Runtime alive."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = weakref.ref(runtime)

    def describe(self) -> list[Any]:
        return list(self._families())

    def collect(self) -> Iterator[Any]:
        celsius, duty = self._families()
        runtime = self._runtime()
        governor = runtime.governor if runtime is not None else None
        for device, sample in governor.samples.items() if governor is not None else ():
            if sample.reading.celsius is not None:
                celsius.add_metric([device], sample.reading.celsius)
            duty.add_metric([device], sample.grant.duty)
        yield from (celsius, duty)

    def _families(self) -> tuple[Any, Any]:
        from prometheus_client.core import GaugeMetricFamily

        return (
            GaugeMetricFamily("hetero_device_celsius", "Temperature, where it is known.", labels=["device"]),
            GaugeMetricFamily("hetero_device_duty", "The share of it that heat lets work.", labels=["device"]),
        )


def export(runtime: Runtime, registry: CollectorRegistry | None = None) -> Export:
    """Count and time the requests of a Runtime.

    | metric | labels |
    |---|---|
    | `hetero_requests_total` | `program`, `device` (`none` when no device answered), `simulated`, `outcome` |
    | `hetero_fallbacks_total` | `program`, `device` (the one that did not answer), `simulated`, `outcome` |
    | `hetero_run_seconds` (histogram) | `program`, `device`, `simulated` |
    | `hetero_wait_seconds` (histogram) | `program` |
    | `hetero_copy_seconds_total` | `program`, `device`, `simulated` |
    | `hetero_waiting_requests` (gauge) | `program` |
    | `hetero_memory_in_use_bytes`, `_idle_bytes`, `_high_water_bytes`, `_limit_bytes` (gauges) | `pool` |
    | `hetero_memory_hits_total`, `hetero_memory_misses_total` | `pool` |
    | `hetero_heat_decisions_total` | `program`, `device`, `action` (`pace`, `steer`, `stop`, `run`) |
    | `hetero_heat_held_seconds_total` | `program`, `device` |
    | `hetero_device_celsius`, `hetero_device_duty` (gauges) | `device` |
    | `hetero_loads_total` | `program`, `device`, `simulated`, `outcome` |
    | `hetero_load_seconds` (histogram, of those that went well) | `program`, `device`, `simulated` |

    Args:
        runtime: Whose requests.
        registry: Of prometheus_client; its default one, when not given.

    Returns:
        What has to be closed to end it.

    Raises:
        Unavailable: prometheus_client is not installed.
        OptionError: Another Runtime exports to this registry.
    """
    try:
        from prometheus_client import REGISTRY
    except ModuleNotFoundError as error:
        raise Unavailable(
            "metrics need prometheus_client, which is not installed", fix='pip install "hetero[prometheus]"'
        ) from error
    return Export(runtime, REGISTRY if registry is None else registry)


def _truth(value: bool) -> str:
    return "true" if value else "false"
