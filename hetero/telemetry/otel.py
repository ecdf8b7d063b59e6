"""Spans for OpenTelemetry, through its own API (extra `otel`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hetero.errors import Unavailable
from hetero.telemetry.records import Attempt, LoadRecord, Record
from hetero.telemetry.spans import shown_name

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

    from hetero.runtime import Runtime


class Export:
    """Spans that are made until `close`. Made by `export`; a context manager."""

    def __init__(self, runtime: Runtime, provider: TracerProvider | None) -> None:
        from opentelemetry import context, trace

        self._current = context.get_current
        self._trace = trace
        self._tracer = trace.get_tracer("hetero", tracer_provider=provider)
        self._unsubscribe = runtime.records.subscribe(self._add, self._add_load, context=True)

    def close(self) -> None:
        """Make no more spans; calling it again does nothing."""
        self._unsubscribe()

    def __enter__(self) -> Export:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _add(self, record: Record) -> None:
        trace = self._trace
        attributes: dict[str, Any] = {
            "hetero.request.id": record.id,
            "hetero.program": record.program,
            "hetero.outcome": record.outcome,
            "hetero.fell_back": record.fell_back,
            "hetero.simulated": record.simulated,
            "hetero.wait_seconds": record.wait_seconds,
        }
        if record.device is not None:
            attributes["hetero.device"] = record.device
        if record.heat:
            attributes["hetero.heat"] = [str(decision) for decision in record.heat]
        # What the caller measures around its call makes this span its child: it is in this thread's context, or where a
        # thread of the Runtime did the work in the one that the caller had.
        context = record.context.run(self._current) if hasattr(record, "context") else None
        span = self._tracer.start_span(
            record.program, context=context, start_time=_ns(record.started), attributes=attributes
        )
        if record.error is not None:
            span.set_status(trace.StatusCode.ERROR, record.error)
        inside = trace.set_span_in_context(span)
        for attempt in record.attempts:
            start = record.started + attempt.started - record.arrived
            if attempt.stage == "run" and attempt.outcome != "set aside":
                self._add_attempt(attempt, start, inside)
            else:
                span.add_event(attempt.outcome, _attributes(attempt), _ns(max(start, record.started)))
        span.end(_ns(record.started + record.total_seconds))

    def _add_load(self, record: LoadRecord) -> None:
        attempt = record.attempt
        attributes = {"hetero.program": record.program, **_attributes(attempt)}
        if record.cached is not None:
            attributes["hetero.cached"] = record.cached
        span = self._tracer.start_span(
            f"load {record.program} on {shown_name(attempt)}",
            start_time=_ns(record.started),
            attributes=attributes,
        )
        if attempt.outcome != "ok":
            span.set_status(self._trace.StatusCode.ERROR, attempt.reason)
        span.end(_ns(record.started + attempt.seconds))

    def _add_attempt(self, attempt: Attempt, start: float, inside: Any) -> None:
        span = self._tracer.start_span(
            f"run on {shown_name(attempt)}", context=inside, start_time=_ns(start), attributes=_attributes(attempt)
        )
        if attempt.outcome != "ok":
            span.set_status(self._trace.StatusCode.ERROR, attempt.reason)
        if attempt.copy_seconds:
            span.set_attribute("hetero.copy_seconds", attempt.copy_seconds)
        if attempt.verify_seconds:
            span.set_attribute("hetero.verify_seconds", attempt.verify_seconds)
        span.end(_ns(start + attempt.seconds + attempt.verify_seconds))


def export(runtime: Runtime, tracer_provider: TracerProvider | None = None) -> Export:
    """Make a span for each request that ends, with a child for each run on a device and an event for each refusal.

    It becomes a child of the span that was current where the request was made, also of a submitted one. Each load of a
    program on a device is a span, too: a child of the span that is current where it was loaded.

    Args:
        runtime: Whose requests and loads.
        tracer_provider: Of OpenTelemetry; the global one, when not given.

    Returns:
        What has to be closed to end it.

    Raises:
        Unavailable: The OpenTelemetry API is not installed.
    """
    try:
        import opentelemetry.trace  # noqa: F401
    except ModuleNotFoundError as error:
        raise Unavailable(
            "spans need the OpenTelemetry API, which is not installed", fix='pip install "hetero[otel]"'
        ) from error
    return Export(runtime, tracer_provider)


def _attributes(attempt: Attempt) -> dict[str, Any]:
    told: dict[str, Any] = {
        "hetero.device": attempt.device,
        "hetero.simulated": attempt.simulated,
        "hetero.stage": attempt.stage,
        "hetero.outcome": attempt.outcome,
    }
    if attempt.reason:
        told["hetero.reason"] = attempt.reason
    if attempt.lane is not None:
        told["hetero.lane"] = attempt.lane
    return told


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
