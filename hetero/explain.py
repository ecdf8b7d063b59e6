"""What `Session.explain()` gives: the story of a session, to read or to test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from hetero.telemetry.records import Attempt, Record

if TYPE_CHECKING:
    from hetero.scheduler.candidate import Candidate
    from hetero.scheduler.costs import Energy


@dataclass(frozen=True)
class CandidateReport:
    """One candidate of a session.

    Attributes:
        device: The device's name.
        state: `ready`, `not loaded` (not needed so far), `unsupported`, `failed`, `set aside` or `unavailable`.
        reason: Why it is not used; of a device that is, which of its units are set aside, and why.
        load_seconds: What loading took, measured; None when it was not loaded at `Runtime.load`.
        run_seconds: What a run takes as a rule: the median for the last shapes; None before there are two.
        energy: What a run of the last shapes takes, and who says so; None when that is unknown.
        answered: How many of the kept records it answered.
        simulated: The device is a simulator.
        details: What the backend decided at load.
        heat: What heat takes away from it now, and why; empty for nothing.
        prepared: What was done with it in the background, since the first device became warm; empty for nothing.
    """

    device: str
    state: str
    reason: str
    load_seconds: float | None
    run_seconds: float | None
    energy: Energy | None
    answered: int
    simulated: bool
    details: Mapping[str, Any]
    heat: str = ""
    prepared: str = ""

    @classmethod
    def of(cls, candidate: Candidate, load: Attempt | None, answered: int, prepared: str = "") -> CandidateReport:
        """The report on a candidate as it stands now."""
        over = candidate.shut_out()
        state = over.outcome if over else "ready" if candidate.ready else "not loaded"
        details = dict(candidate.executable.details) if candidate.executable is not None else {}
        seconds = load.seconds if load and load.outcome == "ok" else None
        return cls(
            candidate.name,
            state,
            over.reason if over else f"set aside: {candidate.lanes.reason}" if candidate.lanes.reason else "",
            seconds,
            candidate.expects.typical_seconds,
            candidate.expects.typical_energy,
            answered,
            candidate.simulated,
            details,
            candidate.heat.explain() if candidate.heat is not None else "",
            prepared,
        )

    def __str__(self) -> str:
        name = f"{self.device} (simulated)" if self.simulated else self.device
        parts = [f"{name}: {self.state}"]
        if self.reason:
            parts.append(self.reason)
        if self.heat:
            parts.append(self.heat)
        if self.prepared:
            parts.append(self.prepared)
        if self.load_seconds is not None:
            parts.append(f"loaded in {self.load_seconds * 1e3:.0f} ms")
        if self.run_seconds is not None:
            parts.append(f"a run takes {self.run_seconds * 1e3:.3g} ms")
        if self.energy is not None:
            parts.append(str(self.energy))
        if self.answered:
            parts.append(f"answered {self.answered}")
        if self.details:
            parts.append(", ".join(f"{key}={value}" for key, value in self.details.items()))
        return "; ".join(parts)


@dataclass(frozen=True)
class Explanation:
    """Candidates, what was taken and why, and what actually ran.

    Attributes:
        program: The program's name.
        device: Where the next request goes; None when the session is closed.
        fallback: `allow` or `forbid`.
        policy: The policy's name.
        candidates: In the order in which they are considered.
        absent: Backends without a device on this machine, with reason and fix.
        last: The last request's record, if one is kept.
    """

    program: str
    device: str | None
    fallback: str
    policy: str
    candidates: tuple[CandidateReport, ...]
    absent: tuple[str, ...]
    last: Record | None

    def __str__(self) -> str:
        return self.text()

    def text(self, *, absent: bool = True) -> str:
        """The explanation in words.

        Args:
            absent: Also list the backends that are not on this machine, which are the same for all sessions.
        """
        lines = [
            f"{self.program}: next request on {self.device or 'no device'}, "
            f"fallback={self.fallback}, policy={self.policy}",
            "candidates:",
        ]
        lines += [f"  {place}. {candidate}" for place, candidate in enumerate(self.candidates, 1)]
        unknown = [
            candidate.device for candidate in self.candidates if candidate.energy is None and not candidate.reason
        ]
        if self.policy == "efficiency" and unknown:
            lines.append(
                f"energy unknown: {', '.join(unknown)} (`hetero bench` measures it where there is a power meter)"
            )
        if absent and self.absent:
            lines += ["not on this machine:", *(f"  - {entry}" for entry in self.absent)]
        if self.last is not None:
            lines.append("last request:")
            lines += [f"  - {attempt} ({attempt.seconds * 1e3:.2f} ms)" for attempt in self.last.attempts]
            lines += [f"  - heat: {decision}" for decision in self.last.heat]
            if self.last.error:
                lines.append(f"  ended with {self.last.error.splitlines()[0]}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """The explanation as JSON-ready values."""
        return {**asdict(self), "last": self.last.to_dict() if self.last else None}
