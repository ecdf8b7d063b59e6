"""The record of a request: which devices were tried, what each did, and how long it took; and that of a load."""

from __future__ import annotations

import contextvars
import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from hetero.thermal.steering import Decision

Stage = Literal["probe", "load", "run"]
Outcome = Literal["ok", "failed", "unavailable", "unsupported", "set aside", "cancelled"]

_log = logging.getLogger(__name__)
_ids = itertools.count(1)

_ATTEMPT_FIELDS = (
    "device",
    "stage",
    "outcome",
    "reason",
    "seconds",
    "simulated",
    "started",
    "lane",
    "thread",
    "verify_seconds",
    "copy_seconds",
)


class Attempt:
    """One device's part in a request or a load.

    Attributes:
        device: The device's name.
        stage: Where it ended: `probe`, `load` or `run`.
        outcome: `ok`, `failed`, `unavailable` (not on this machine), `unsupported` (cannot run this program or these
            shapes), `set aside` (failed a short while ago) or `cancelled` (by the caller or its deadline).
        reason: Why not `ok`; empty otherwise.
        seconds: Time spent in the vendor's runtime, measured on the host, and in writing the answer to the caller's own
            arrays (`out=`).
        simulated: The device is a simulator.
        started: When it began, on the clock of `Record.arrived`; of what was done for all requests at once (a load that
            was refused), possibly long before the request.
        lane: The executable's lane that it held; None where it held none.
        thread: `threading.get_ident()` of the thread that it ran in; 0 where it did not run.
        verify_seconds: Time that the check of the answer took before the answer was given; not part of `seconds`.
        copy_seconds: The part of `seconds` that went into copies: of the inputs to the device and of the outputs from
            it, where the backend tells, and into the caller's own arrays.
    """

    __slots__ = (
        "copy_seconds",
        "device",
        "lane",
        "outcome",
        "reason",
        "seconds",
        "simulated",
        "stage",
        "started",
        "thread",
        "verify_seconds",
    )

    def __init__(
        self,
        device: str,
        stage: Stage,
        outcome: Outcome,
        reason: str = "",
        seconds: float = 0.0,
        simulated: bool = False,
        started: float = 0.0,
        lane: int | None = None,
        thread: int = 0,
        verify_seconds: float = 0.0,
        copy_seconds: float = 0.0,
    ) -> None:
        self.device = device
        self.stage = stage
        self.outcome = outcome
        self.reason = reason
        self.seconds = seconds
        self.simulated = simulated
        self.started = started
        self.lane = lane
        self.thread = thread
        self.verify_seconds = verify_seconds
        self.copy_seconds = copy_seconds

    def __str__(self) -> str:
        device = f"{self.device} (simulated)" if self.simulated else self.device
        return f"{device}: {self.stage} {self.outcome}" + (f": {self.reason}" if self.reason else "")

    def __repr__(self) -> str:
        return f"<Attempt {self}>"

    def to_dict(self) -> dict[str, Any]:
        """The attempt as JSON-ready values."""
        return {name: getattr(self, name) for name in _ATTEMPT_FIELDS}


class Record:
    """What happened to one request.

    Attributes:
        id: Counts up within the process.
        program: The program's name.
        started: Wall-clock time of arrival, seconds since the epoch.
        arrived: The same moment on the scheduler's clock (`time.perf_counter`, unless the Runtime was given another).
        attempts: In order; the last one of a request that succeeded has outcome `ok`.
        wait_seconds: Time spent waiting for a lane; of a submitted request also for the thread that it ran in.
        total_seconds: From arrival to answer or error.
        error: Type and message of the error the caller got, or None.
        heat: What was decided for heat, in order: held back, sent elsewhere, let through for its deadline, and why;
            empty for most requests.
        context: Of a submitted request, the caller's context variables, until the listeners were told; only there while
            one of them has asked for it.
    """

    __slots__ = (
        "arrived",
        "attempts",
        "context",
        "error",
        "heat",
        "id",
        "program",
        "started",
        "total_seconds",
        "wait_seconds",
    )

    context: contextvars.Context

    def __init__(self, program: str) -> None:
        self.id = next(_ids)
        self.program = program
        self.started = time.time()
        self.arrived = 0.0
        self.attempts: list[Attempt] = []
        self.heat: list[Decision] = []
        self.wait_seconds = 0.0
        self.total_seconds = 0.0
        self.error: str | None = None

    @property
    def device(self) -> str | None:
        """The device that gave the answer; None when none did."""
        last = self.attempts[-1] if self.attempts else None
        return last.device if last and last.outcome == "ok" and self.error is None else None

    @property
    def fell_back(self) -> bool:
        """The device that was asked for first did not answer: it failed, refused, or was passed over."""
        return bool(self.attempts) and (len(self.attempts) > 1 or self.attempts[0].outcome != "ok")

    @property
    def run_seconds(self) -> float:
        """Time in the device that answered."""
        return self.attempts[-1].seconds if self.device is not None else 0.0

    @property
    def outcome(self) -> Literal["ok", "failed", "cancelled", "too late"]:
        """How it ended for the caller: an answer, an error, a cancellation, a deadline that passed."""
        if self.error is None:
            return "ok"
        kind = self.error.partition(":")[0]
        return "cancelled" if kind == "CancelledError" else "too late" if kind == "DeadlineExceeded" else "failed"

    @property
    def simulated(self) -> bool:
        """The answer came from a simulator."""
        return self.device is not None and self.attempts[-1].simulated

    def __repr__(self) -> str:
        return f"<Record {self.id} {self.program}: {'; '.join(map(str, self.attempts))}>"

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON-ready values."""
        return {
            "id": self.id,
            "program": self.program,
            "started": self.started,
            "arrived": self.arrived,
            "outcome": self.outcome,
            "device": self.device,
            "simulated": self.simulated,
            "fell_back": self.fell_back,
            "wait_seconds": self.wait_seconds,
            "run_seconds": self.run_seconds,
            "total_seconds": self.total_seconds,
            "error": self.error,
            "attempts": [attempt.to_dict() for attempt in self.attempts],
            "heat": [decision.to_dict() for decision in self.heat],
        }


class LoadRecord:
    """What happened when a program was loaded on a device, or was to be.

    Attributes:
        program: The program's name.
        started: Wall-clock time at which the load began, seconds since the epoch.
        attempt: Device, outcome, reason and times; its stage is `load`.
        cached: Whether something that was compiled before was found; None where the backend does not tell.
    """

    __slots__ = ("attempt", "cached", "program", "started")

    def __init__(self, program: str, attempt: Attempt, started: float, cached: bool | None = None) -> None:
        self.program = program
        self.attempt = attempt
        self.started = started
        self.cached = cached

    @property
    def arrived(self) -> float:
        """When it began, on the scheduler's clock."""
        return self.attempt.started

    def __repr__(self) -> str:
        return f"<LoadRecord {self.program}: {self.attempt}>"

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON-ready values; `kind` tells it from a request's."""
        attempt = self.attempt.to_dict()
        return {
            "kind": "load",
            "program": self.program,
            "started": self.started,
            "cached": self.cached,
            "attempt": attempt,
        }


class Records:
    """The last records of a Runtime, and those who want to hear of each one.

    Args:
        keep: How many records are kept, of requests and of loads; older ones are forgotten.

    Attributes:
        wants_context: A listener has asked for the context of submitted requests.
    """

    def __init__(self, keep: int = 1000) -> None:
        self.wants_context = False
        self._recent: deque[Record] = deque(maxlen=keep)
        self._loads: deque[LoadRecord] = deque(maxlen=keep)
        self._listeners: tuple[Callable[[Record], None], ...] = ()
        self._subscribers: tuple[_Subscriber, ...] = ()
        self._lock = threading.Lock()

    @property
    def heard(self) -> bool:
        """Somebody listens."""
        return bool(self._listeners)

    def add(self, record: Record) -> None:
        """Keep a finished record and tell the listeners."""
        self._recent.append(record)
        for listener in self._listeners:
            try:
                listener(record)
            except Exception:
                _log.exception("a listener failed on %r; the request is not affected", record)
        if self.wants_context and hasattr(record, "context"):
            del record.context  # it may keep alive whatever the caller has in hand

    def add_load(self, record: LoadRecord) -> None:
        """Keep the record of a load and tell the listeners."""
        self._loads.append(record)
        for subscriber in self._subscribers:
            try:
                if subscriber.on_load is not None:
                    subscriber.on_load(record)
            except Exception:
                _log.exception("a listener failed on %r; the load is not affected", record)

    def subscribe(
        self,
        listener: Callable[[Record], None],
        on_load: Callable[[LoadRecord], None] | None = None,
        *,
        context: bool = False,
    ) -> Callable[[], None]:
        """Have `listener` called with each finished record, in the thread that ran the request.

        Args:
            listener: Told of each request.
            on_load: Told of each load, also of those that fail, in the thread that loaded.
            context: Records of requests that run in another thread than their caller's carry the caller's context.

        Returns:
            A function that ends the subscription.
        """
        subscriber = _Subscriber(listener, on_load, context)
        self._change(lambda subscribers: (*subscribers, subscriber))
        return lambda: self._change(lambda subscribers: tuple(kept for kept in subscribers if kept is not subscriber))

    def _change(self, changed: Callable[[tuple[_Subscriber, ...]], tuple[_Subscriber, ...]]) -> None:
        with self._lock:
            self._subscribers = changed(self._subscribers)
            # Apart, for the hot path.
            self._listeners = tuple(subscriber.listener for subscriber in self._subscribers)
            self.wants_context = any(subscriber.context for subscriber in self._subscribers)

    @property
    def loads(self) -> list[LoadRecord]:
        """The last loads, the oldest first."""
        return list(self._loads)

    def __iter__(self) -> Iterator[Record]:
        return iter(list(self._recent))

    def __len__(self) -> int:
        return len(self._recent)

    @property
    def last(self) -> Record | None:
        """The newest record."""
        return self._recent[-1] if self._recent else None

    def last_of(self, program: str) -> Record | None:
        """The newest record of a program."""
        return next((record for record in reversed(list(self._recent)) if record.program == program), None)


@dataclass(frozen=True, eq=False)
class _Subscriber:
    listener: Callable[[Record], None]
    on_load: Callable[[LoadRecord], None] | None
    context: bool
