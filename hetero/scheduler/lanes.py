"""The lanes of a loaded program, by the units of hardware that they run on, and the health of each unit.

A unit is a part of a device that can fail by itself: a core of an NPU. Of most devices the whole is one unit. While
some units are set aside the device goes on with the lanes of the others; when all are, it is set aside as a whole.
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from hetero.backend import Call
from hetero.errors import PluginError
from hetero.scheduler.breaker import Breaker


class Unit:
    """A part of a device with a health of its own.

    Attributes:
        name: As the backend calls it; empty for the whole device.
        breaker: Its health.
        lanes: The numbers of its lanes.
    """

    def __init__(self, name: str, breaker: Breaker, lanes: Sequence[int]) -> None:
        self.name = name
        self.breaker = breaker
        self.lanes = frozenset(lanes)

    def told(self, reason: str) -> str:
        """A reason with the unit's name before it."""
        return f"{self.name}: {reason}" if self.name else reason


class Lanes:
    """Calls whose lane is free, and those that are kept back with their unit. Safe to use from several threads.

    Attributes:
        free: Calls whose lane is free and whose unit is healthy; of all units, when none is.
        units: In the order of their first lanes.
        calls: One per lane.
        healthy: At least one unit is.
        next_number: Gives the numbers of calls, one after the other.

    Args:
        clock: Seconds, on the scheduler's clock.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: list[Call] = []
        self._shut: frozenset[int] = frozenset()
        self.next_number = itertools.count().__next__
        self._weights: tuple[float, ...] = ()
        self._given: list[int] = []
        self._claims: deque[queue.SimpleQueue[Call | None]] = deque()
        self._withdrawn = False
        self.free: deque[Call] = deque()
        self.calls: tuple[Call, ...] = ()
        self.units: tuple[Unit, ...] = (Unit("", Breaker(clock=clock), (0,)),)
        self.healthy = True

    def prepare(self, lanes: int, units: Sequence[str], weights: Sequence[float] = ()) -> None:
        """Lanes 0 to `lanes - 1`, each with the unit and the weight in its place; none of them is free yet.

        Raises:
            PluginError: There are units or weights, but not one a lane, or a weight is not above 0.
        """
        for what, given in (("units", units), ("weights", weights)):
            if len(given) not in (0, lanes):
                raise PluginError(
                    f"an executable of {lanes} lanes has {len(given)} {what}, expected one a lane or none"
                )
        if any(not weight > 0 for weight in weights):
            raise PluginError(f"an executable has the weights {tuple(weights)}, expected numbers above 0")
        self._weights = tuple(weights) if len(set(weights)) > 1 else ()
        self._given = [0] * lanes
        self.calls = tuple(Call(lane) for lane in range(lanes))
        names = list(dict.fromkeys(units))
        if len(names) > 1:
            self.units = tuple(
                Unit(name, Breaker(clock=self._clock), [lane for lane, unit in enumerate(units) if unit == name])
                for name in names
            )
        else:
            self.units = (Unit("", self.units[0].breaker, range(lanes)),)

    def open(self, busy: Sequence[Call] = ()) -> None:
        """Make the lanes free, except those in which a call hangs."""
        self.free.extend(call for call in self.calls if call not in busy)
        self._sort()

    def take(self) -> Call | None:
        """A free lane; None when there is none."""
        if self._weights:
            call = self._take_weighed()
            if call is None:
                return None
        else:
            try:
                call = self.free.popleft()
            except IndexError:
                return None
        return call

    def _take_weighed(self) -> Call | None:
        while True:
            given, weights = self._given, self._weights
            call = min(list(self.free), key=lambda call: (given[call.lane] + 1) / weights[call.lane], default=None)
            if call is None:
                return None
            try:
                self.free.remove(call)
            except ValueError:
                continue  # somebody else was quicker
            given[call.lane] += 1
            return call

    def claim(self) -> Call | None:
        """A lane, waited for; whoever claims one has it before those who queue at the board.

        Returns:
            None when the lanes were withdrawn.
        """
        call = self.take()
        if call is not None:
            return call
        waiting: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._claims.append(waiting)
        # One may have been given back, or all withdrawn, before the claim was there to be seen.
        call = self.take()
        if call is not None or self._withdrawn:
            try:
                self._claims.remove(waiting)
            except ValueError:
                if call is not None:
                    self.give_back(call)
            else:
                return call
        return waiting.get()

    def give_back(self, call: Call) -> None:
        """A lane is free again."""
        if self._claims and call.lane not in self._shut:
            try:
                self._claims.popleft().put(call)
            except IndexError:
                pass
            else:
                return
        self.free.append(call)
        if self._shut:
            self._sort()

    def unit_of(self, call: Call) -> Unit:
        """The unit on which a call's lane is."""
        return next(unit for unit in self.units if call.lane in unit.lanes)

    def succeeded(self, call: Call) -> None:
        """A call was answered."""
        units = self.units
        (units[0] if len(units) == 1 else self.unit_of(call)).breaker.succeeded()

    def failed(self, error: Exception, reason: str, call: Call | None) -> list[Unit]:
        """Tell the breaker of the call's unit, or of every unit, of a failure.

        Returns:
            The units that are set aside now for it.
        """
        units = self.units if call is None else (self.unit_of(call),)
        shut = [unit for unit in units if unit.breaker.failed(error, reason)]
        if shut:
            self._sort()
        return shut

    def shut(self, unit: Unit, error: Exception, reason: str) -> None:
        """Set a unit aside, whatever its breaker would tolerate."""
        unit.breaker.trip(error, reason)
        self._sort()

    def recovered(self, unit: Unit) -> None:
        """A unit is healthy again."""
        unit.breaker.recovered()
        self._sort()

    def take_of(self, unit: Unit) -> Call | None:
        """A lane of a unit that is set aside, for its canary; None when calls are still inside."""
        with self._lock:
            for calls in (self._kept, self.free):
                for call in list(calls):
                    if call.lane in unit.lanes:
                        try:
                            calls.remove(call)
                        except ValueError:
                            continue  # the short way to a lane takes no lock
                        return call
        return None

    def due(self) -> list[Unit]:
        """The units whose pause is over; each is told of once per pause."""
        return [unit for unit in self.units if unit.breaker.state == "open" and unit.breaker.due()]

    @property
    def retry_in(self) -> float:
        """Seconds until the next canary of any unit; 0 when none is waited for."""
        return min((unit.breaker.retry_in for unit in self.units if unit.breaker.state == "open"), default=0.0)

    @property
    def hung(self) -> bool:
        """No unit is healthy, and it was a time-out that shut one."""
        return not self.healthy and any(unit.breaker.hung for unit in self.units)

    @property
    def reason(self) -> str:
        """Why units are set aside; empty when all are healthy."""
        return "; ".join(unit.told(unit.breaker.reason) for unit in self.units if unit.breaker.state != "closed")

    @property
    def running(self) -> Sequence[Call]:
        """The calls of healthy units."""
        return [call for call in self.calls if call.lane not in self._shut] if self._shut else self.calls

    def withdraw(self, timeout: float) -> bool:
        """Take every lane for good, waiting for those that are taken.

        Returns:
            Whether all were had in time.
        """
        self._withdrawn = True
        while self._claims:
            with contextlib.suppress(IndexError):
                self._claims.popleft().put(None)
        deadline = time.monotonic() + timeout
        taken = 0
        while taken < len(self.calls):
            with self._lock:
                taken += len(self._kept)
                self._kept.clear()
                while self.free:
                    self.free.popleft()
                    taken += 1
            if taken < len(self.calls):
                if time.monotonic() >= deadline:
                    return False
                time.sleep(0.001)
        return True

    def _sort(self) -> None:
        """Keep back the free lanes of units that are set aside, and no others."""
        with self._lock:
            closed = [unit for unit in self.units if unit.breaker.state == "closed"]
            self.healthy = bool(closed)
            shut = set(self.units) - set(closed) if closed else set()
            self._shut = frozenset(lane for unit in shut for lane in unit.lanes)
            # The flag first: whoever gives a lane back from now on comes here too.
            for call in list(self.free):
                if call.lane in self._shut:
                    try:
                        self.free.remove(call)
                    except ValueError:
                        continue
                    self._kept.append(call)
            back = [call for call in self._kept if call.lane not in self._shut]
            self._kept = [call for call in self._kept if call.lane in self._shut]
            self.free.extend(back)
