"""One request on its way: what it carries, how long it may take, and who wants its answer."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from hetero.scheduler.costs import shapes_of
from hetero.scheduler.delivery import with_copy
from hetero.telemetry.records import Record
from hetero.tensors import Array

if TYPE_CHECKING:
    from hetero.backend import Call
    from hetero.scheduler.candidate import Candidate
    from hetero.scheduler.delivery import Delivery

_arrivals = itertools.count()


class Request:
    """One request.

    Attributes:
        inputs: Checked arrays by name.
        shapes: Of the inputs.
        record: What happened so far.
        arrived: When it came, on the scheduler's clock.
        priority: Higher goes first; one step is worth the board's `ageing` seconds of waiting.
        deadline: When the answer stops being of use, on the scheduler's clock; None for never.
        answer_by: The deadline that counts where heat would hold it back; of a batch the first of its members'.
        candidates: Where it may run, in order.
        forbid_fallback: Only the first candidate may answer.
        options: For this request alone, by backend.
        recorded: Its record goes to the Runtime's; a batch's does not, its members' do.
        delivery: The caller's own arrays for the answer; None when it gave none.
        owner: The session, kept alive until the request is done.
        admitted: It has been let into the queue before, and needs no room again.
        tried: Those that have failed it, or were shut out when it came to them.
        failed: Those that have failed it.
        forced: One that is to be asked though it is shut out, nobody else being left.
        held_since: Since when heat holds it back, on the scheduler's clock; None while it does not.
        planned: The candidate for which it waits; None when any will do.
        planned_seconds: What it is expected to take there.
        assigned: Called once with a candidate and a lane when its turn has come.
        stranded: Called instead when nobody is left for whom it could wait.
        turned_away: Called instead, with the error, when the session is closed meanwhile.
    """

    __slots__ = (
        "_nbytes",
        "admitted",
        "answer_by",
        "arrived",
        "assigned",
        "candidates",
        "deadline",
        "delivery",
        "failed",
        "forbid_fallback",
        "forced",
        "held_since",
        "inputs",
        "number",
        "options",
        "order",
        "owner",
        "planned",
        "planned_seconds",
        "priority",
        "record",
        "recorded",
        "shapes",
        "stranded",
        "tried",
        "turned_away",
    )

    def __init__(
        self,
        inputs: Mapping[str, Array],
        record: Record,
        candidates: tuple[Candidate, ...],
        *,
        arrived: float,
        priority: int = 0,
        deadline: float | None = None,
        forbid_fallback: bool = False,
        owner: object = None,
        recorded: bool = True,
        options: Mapping[str, Mapping[str, Any]] | None = None,
        delivery: Delivery | None = None,
        ageing: float = 1.0,
        answer_by: float | None = None,
    ) -> None:
        self.inputs = inputs
        self.shapes = shapes_of(inputs)
        self.record = record
        # A request that comes the long way after its first candidate failed it has arrived before.
        record.arrived = record.arrived or arrived
        self.candidates = candidates
        self.arrived = arrived
        self.priority = priority
        self.deadline = deadline
        self.answer_by = deadline if answer_by is None else answer_by
        self.held_since: float | None = None
        self.forbid_fallback = forbid_fallback
        self.owner = owner
        self.recorded = recorded
        self.options = options
        self.delivery = delivery
        self._nbytes: int | None = None
        self.tried: set[Candidate] = set()
        self.admitted = False
        self.failed: set[Candidate] = set()
        self.forced: Candidate | None = None
        self.planned: Candidate | None = None
        self.planned_seconds = 0.0
        self.assigned: Callable[[Candidate, Call], Any] | None = None
        self.stranded: Callable[[], Any] | None = None
        self.turned_away: Callable[[Exception], Any] | None = None
        # Waiting raises every request's standing at the same pace, so the order of two never changes.
        self.order = arrived - priority * ageing
        self.number = next(_arrivals)

    def __lt__(self, other: Request) -> bool:
        return (self.order, self.number) < (other.order, other.number)

    def deliver(self, outputs: Mapping[str, Array], clock: Callable[[], float]) -> Mapping[str, Array]:
        """Write the final answer to the caller's own arrays, if it gave some; the copy goes into the record.

        Returns:
            What the caller gets.

        Raises:
            InputError: The answer has another shape than an array.
        """
        delivery = self.delivery
        if delivery is None or delivery.holds(outputs):
            return outputs
        started = clock()
        delivered = delivery.write(outputs)
        attempts = self.record.attempts
        attempts[-1] = with_copy(attempts[-1], clock() - started)
        return delivered

    def withdraw(self) -> None:
        """The caller has left: nothing is written to its arrays any more."""
        delivery = self.delivery
        if delivery is not None:
            delivery.withdraw()

    def let_go(self, give_back: Callable[[Candidate, Call], None]) -> None:
        """The request has ended: keep none of its arrays, nor whoever worked for it, alive.

        They hold each other in a circle, in which arrays of a pool would wait for the garbage collector.

        Args:
            give_back: What becomes of a lane that was found for the request in this very moment.
        """
        self.inputs = {}
        self.delivery = None
        self.assigned = give_back
        self.stranded = _nothing
        self.turned_away = _nothing

    @property
    def nbytes(self) -> int:
        """Bytes of the inputs, as they were when this was first asked."""
        if self._nbytes is None:
            self._nbytes = sum(array.nbytes for array in self.inputs.values())
        return self._nbytes


def _nothing(*_: object) -> None:
    pass
