"""When calls may begin on a device: when a lane is free, its executable's own pace has come, and heat lets them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from hetero.backend import Call, Pace
from hetero.scheduler.lanes import Lanes

if TYPE_CHECKING:
    from hetero.scheduler.heat import Heat


class Gate:
    """Lets calls in.

    Args:
        clock: Seconds, on the scheduler's clock.

    Attributes:
        lanes: Of the device, and the health of the units they run on.
        free: Calls whose lane is free.
        pace: When calls may begin, as the executable has it; None for whenever a lane is free.
        heat: The device's heat; None where nobody looks after that.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.lanes = Lanes(clock)
        self.free = self.lanes.free
        self.pace: Pace | None = None
        self.heat: Heat | None = None
        self._clock = clock

    @property
    def idle(self) -> bool:
        """It has a free lane, and its pace lets a call begin; heat may not."""
        return bool(self.free) and (self.pace is None or self.pace.due_in() <= 0)

    @property
    def paced(self) -> float:
        """Seconds for which its pace holds a call back."""
        return 0.0 if self.pace is None else max(0.0, self.pace.due_in())

    @property
    def hot(self) -> bool:
        """Heat takes something away from it."""
        return self.heat is not None and self.heat.hot

    @property
    def stopped(self) -> bool:
        """Heat lets nothing begin on it."""
        return self.heat is not None and self.heat.stopped

    @property
    def headroom(self) -> float:
        """How much of it heat lets work, 0 to 1."""
        return 1.0 if self.heat is None else self.heat.headroom

    def take(self) -> Call | None:
        """A lane on which a call begins now; None when none is free, or it is too soon. Heat was asked before."""
        if self.pace is not None and self.pace.due_in() > 0:
            return None
        call = self.lanes.take()
        if call is not None:
            self.begins(call)
        return call

    def begins(self, call: Call) -> None:
        """A lane that was taken is going to be used: the call is counted."""
        call.number = self.lanes.next_number()
        if self.pace is not None:
            self.pace.began()
        if self.heat is not None:
            self.heat.began(call, self._clock())
