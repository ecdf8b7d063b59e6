"""What a policy sees of a candidate: what a request is expected to cost there, and when it could begin."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from hetero.backend import Kind
from hetero.scheduler.expectations import Expectations
from hetero.scheduler.gate import Gate
from hetero.scheduler.heat import admits

if TYPE_CHECKING:
    from hetero.scheduler.request import Request


class Outlook(Gate):
    """A gate with expectations; see `hetero.scheduler.policy.View`.

    Args:
        name: The device's name.
        kind: The device's.
        expects: What runs are expected to cost there.
        watts: Declared power of the device at work; None when nobody has said.
        clock: Seconds, on the scheduler's clock.

    Attributes:
        backlog: Seconds of work that is planned for it and waits.
    """

    def __init__(
        self, name: str, kind: Kind, expects: Expectations, watts: float | None, clock: Callable[[], float]
    ) -> None:
        super().__init__(clock)
        self.name = name
        self.kind: Kind = kind
        self.expects = expects
        self.watts = watts
        self.backlog = 0.0

    def admits(self, request: Request) -> bool:
        """Whether heat lets a request begin here now."""
        return admits(request, self, self._clock())

    def held(self, request: Request) -> float:
        """Seconds for which heat would hold a request back here; infinite at a stop, 0 where its deadline presses."""
        return 0.0 if self.heat is None or self.admits(request) else self.heat.due_in

    def runs(self, request: Request) -> int:
        """How many runs of the request's shapes were seen here."""
        return self.expects.runs(request.shapes)

    def expected(self, request: Request) -> float | None:
        """Seconds that the request is expected to take here; None when nothing is known."""
        return self.expects.seconds(request.shapes)

    def joules(self, request: Request) -> float | None:
        """Joules that the request is expected to take here, measured or else declared; None when unknown."""
        energy = self.expects.energy(request.shapes)
        return energy.joules if energy is not None else None

    def wait(self, now: float) -> float | None:
        """Seconds until a lane is expected to be free, what is planned included; None when nothing is known."""
        if self.free:
            return self.paced
        running = self.lanes.running
        typical = self.expects.typical_seconds
        if typical is None or not running:
            return None
        first = min(max(0.0, call.started + typical - now) for call in running)
        return max(self.paced, first + self.backlog / len(running))
