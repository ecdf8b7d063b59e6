"""What a snapshot of a Runtime says. All of it is plain values: it can be kept, compared, sent and printed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hetero.memory.statistics import PoolStatistics


@dataclass(frozen=True)
class HeatStatus:
    """A device as the governor saw it last.

    Attributes:
        celsius: Its temperature; None when it is unknown.
        source: The sensor that says so; empty for none.
        direct: The sensor sits in the device; else in a neighbour of it.
        state: `cool`, `warn`, `hot`, `stop` or `unknown`.
        duty: The share of its time in which it may work, 0 to 1.
        tokens: Lane-seconds that it may spend now.
        used: The share of its time in which it worked, 0 to 1; None when nobody tells.
        why: In words: the decision, and why a temperature is unknown.
    """

    celsius: float | None
    source: str
    direct: bool
    state: str
    duty: float
    tokens: float
    used: float | None
    why: str


@dataclass(frozen=True)
class HeatEvent:
    """A device has become warmer or cooler, or something that concerns its heat has failed.

    Attributes:
        ago: Seconds before the snapshot.
        text: In words, with the device's name.
    """

    ago: float
    text: str


@dataclass(frozen=True)
class HeatDecision:
    """What heat has decided for a request; see `hetero.thermal.steering.Decision`.

    Attributes:
        ago: Seconds before the snapshot at which the request ended.
        program: The program's name.
        device: For which device.
        action: `run`, `pace`, `steer` or `stop`.
        to: The device to go to, where the action is `steer`.
        held: Seconds that the request was held back for it; None where it was not.
        reason: In words, with the temperature.
    """

    ago: float
    program: str
    device: str
    action: str
    to: str
    held: float | None
    reason: str


@dataclass(frozen=True)
class GovernorStatus:
    """How heat is dealt with.

    Attributes:
        profile: As asked for.
        on_hot: `pace`, `steer` or `auto`.
        events: The last changes, newest last.
    """

    profile: str
    on_hot: str
    events: tuple[HeatEvent, ...]


@dataclass(frozen=True)
class CandidateStatus:
    """One device of a session.

    Attributes:
        device: The device's name.
        simulated: It is a simulator.
        state: `ready`, `degraded` (some of its units are set aside), `set aside`, `not loaded`, `unsupported`,
            `failed` or `unavailable`.
        reason: Why it is not ready; empty otherwise.
        retry_in: Seconds until it is asked again, of one that is set aside.
        lanes: How many calls may be in it at once; 0 while it is not loaded.
        busy: How many are.
        answered: How many of the recent requests it has answered.
    """

    device: str
    simulated: bool
    state: str
    reason: str
    retry_in: float
    lanes: int
    busy: int
    answered: int


@dataclass(frozen=True)
class SessionStatus:
    """A loaded program. Counts are since the load; rates and latencies are of the last seconds.

    Attributes:
        number: Counts up within the process, with each session.
        program: The program's name.
        policy: The policy's name.
        fallback: `allow` or `forbid`.
        device: Where the next request goes; None when there is nobody.
        waiting: How many requests wait for a lane, or for others to share a launch with.
        ended: How many have ended, however they did.
        failed: How many of these with an error.
        cancelled: How many were cancelled.
        too_late: How many missed their deadline.
        fell_back: How many the first device did not answer.
        heated: Of how many heat has decided something: held back, sent elsewhere, let through all the same.
        seconds: The time that rates and latencies are of.
        per_second: Requests that ended, per second.
        latency: Seconds from arrival to answer, the median; None when nothing was answered in that time.
        latency_95: As `latency`, of which 95 in 100 are not longer.
        wait: Seconds of that for a lane, the median.
        candidates: Its devices in order.
    """

    number: int
    program: str
    policy: str
    fallback: str
    device: str | None
    waiting: int
    ended: int
    failed: int
    cancelled: int
    too_late: int
    fell_back: int
    heated: int
    seconds: float
    per_second: float
    latency: float | None
    latency_95: float | None
    wait: float | None
    candidates: tuple[CandidateStatus, ...]


@dataclass(frozen=True)
class DeviceStatus:
    """One device, over all sessions.

    Attributes:
        name: Of the device.
        backend: The name of its backend.
        kind: `npu`, `gpu` or `cpu`.
        description: For people.
        simulated: It is a simulator.
        lanes: How many calls it works on at once.
        busy: How many calls are in it; more than `lanes` where several sessions use it.
        load: The share of its lanes' time at work in the last seconds, 0 to 1.
        state: `ok`, `degraded` (a part of it, or it in some sessions, is set aside), `set aside`, `refused` (no session
            could be loaded on it) or `not used`.
        reason: Why it is not `ok`; empty otherwise.
        retry_in: Seconds until it is asked again, of one that is set aside.
        heat: As the governor sees it; None where none watches it.
    """

    name: str
    backend: str
    kind: str
    description: str
    simulated: bool
    lanes: int
    busy: int
    load: float
    state: str
    reason: str
    retry_in: float
    heat: HeatStatus | None


@dataclass(frozen=True)
class FallbackStatus:
    """A request that its first device did not answer.

    Attributes:
        ago: Seconds before the snapshot at which it ended.
        program: The program's name.
        device: Who has answered; None when nobody has.
        simulated: The answer came from a simulator.
        passed: What each of the others did, in words.
        error: What the caller got instead of an answer; empty when there was one.
    """

    ago: float
    program: str
    device: str | None
    simulated: bool
    passed: tuple[str, ...]
    error: str


@dataclass(frozen=True)
class RuntimeStatus:
    """A Runtime at one moment; see `Runtime.status`.

    The parts are looked at one after the other while the program goes on: a request may be seen to have ended in one
    of them and not yet in another.

    Attributes:
        number: Counts up within the process, with each Runtime.
        at: When it was made, seconds since the epoch.
        age: Seconds since the Runtime was made.
        devices: First choice first.
        absent: What is not on this machine, each with the reason and the fix.
        sessions: Those that are open, oldest first.
        memory: The pools of buffers.
        governor: How heat is dealt with; None where it is not.
        fallbacks: The last ones, newest last.
        heat: The last decisions about requests that were made for heat, newest last.
        closed: Why it can no longer be used; empty while it can.
    """

    number: int
    at: float
    age: float
    devices: tuple[DeviceStatus, ...]
    absent: tuple[str, ...]
    sessions: tuple[SessionStatus, ...]
    memory: tuple[PoolStatistics, ...]
    governor: GovernorStatus | None
    fallbacks: tuple[FallbackStatus, ...]
    heat: tuple[HeatDecision, ...]
    closed: str

    @property
    def waiting(self) -> int:
        """How many requests wait, over all sessions."""
        return sum(session.waiting for session in self.sessions)

    @property
    def per_second(self) -> float:
        """Requests that ended, per second, over all sessions."""
        return sum(session.per_second for session in self.sessions)

    def to_dict(self) -> dict[str, Any]:
        """The snapshot as JSON-ready values."""
        from hetero.monitor.forms import to_json

        document: dict[str, Any] = to_json(self)
        return document
