"""From temperatures to a duty: the share of its time that a device may work.

A law sees one temperature a second and what the device did since, and says what it may do next. Two are here:

- `Tokens`, a proportional-integral law with a forecast. It needs nothing but the temperature.
- `Budget`, which learns how much the device heats itself (see `heating`) and spends what is left of the limit: the
  highest duty at which no forecast, near or far, comes above the target. The target itself is as near to the limit as
  the forecasts have been good.

Neither knows of thresholds at which work ends at once: those are the governor's (`limits`), and hold for both.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Protocol

from hetero.thermal.heating import Heating


class Law(Protocol):
    """What says how much a device may work.

    Attributes:
        name: For people.
        limit: Degrees that must not be reached. May be changed when another sensor speaks.
    """

    name: str
    limit: float

    @property
    def target(self) -> float:
        """Degrees that it steers to."""

    def step(self, celsius: float, used: float, seconds: float, resolution: float) -> float:
        """The duty for the next second or so.

        Args:
            celsius: Of the device now.
            used: The share of the time since the last step in which it worked, 0 to 1.
            seconds: Since the last step.
            resolution: Degrees between two values that the sensor tells; 0 when it is not known yet.

        Returns:
            From 0 to 1.
        """

    def expect(self, degrees: float) -> None:
        """Work that was not there before has begun, and will heat the device by so many degrees within seconds.

        Called before each step by whoever sees such work begin, with 0 where there is none.
        """

    def explain(self) -> str:
        """Why the duty is what it is, in a few words."""


class Tokens:
    """PI on admission tokens, with a forecast: settings found in simulation (see the documentation's page on heat).

    Args:
        limit: Degrees that must not be reached.
        margin: Degrees below it that is the target.
    """

    name = "tokens"

    _SMOOTH, _AHEAD, _SAMPLES = 4.0, 8.0, 30
    _PROPORTIONAL, _INTEGRAL, _DEADBAND = 0.05, 0.004, 0.5
    _DOWN, _UP = 0.25, 0.03
    _ARM, _DISARM = 1.0, 8.0

    def __init__(self, limit: float, margin: float = 3.0) -> None:
        self.limit = limit
        self._margin = margin
        self._duty = 1.0
        self._sum = 1.0
        self._armed = False
        self._smooth: float | None = None
        self._now = 0.0
        self._last: deque[tuple[float, float]] = deque(maxlen=self._SAMPLES)

    @property
    def target(self) -> float:
        """Degrees that it steers to."""
        return self.limit - self._margin

    def step(self, celsius: float, used: float, seconds: float, resolution: float) -> float:
        """See `Law.step`."""
        self._now += seconds
        before = celsius if self._smooth is None else self._smooth
        self._smooth = before + (1 - math.exp(-seconds / self._SMOOTH)) * (celsius - before)
        self._last.append((self._now, self._smooth))
        forecast = self._smooth + self._AHEAD * max(0.0, self._slope())
        if not self._armed:
            if forecast < self.target - self._ARM:
                return 1.0
            self._armed = True
            # Whoever asked for less than all of the device has not heated it with all of it.
            self._sum = self._duty = max(0.1, used) if used < 0.9 else 1.0
        error = self.target - forecast
        error = math.copysign(max(0.0, abs(error) - self._DEADBAND), error)
        wanted = self._PROPORTIONAL * error + self._sum
        # What is not used does not cool either: the sum does not grow on duty that nobody takes.
        starved = used < self._duty - 0.05 and error > 0
        if not starved and not (wanted >= 1 and error > 0) and not (wanted <= 0 and error < 0):
            self._sum = min(1.0, max(0.0, self._sum + self._INTEGRAL * error * seconds))
        wanted = min(1.0, max(0.0, wanted))
        self._duty = min(self._duty + self._UP * seconds, max(self._duty - self._DOWN * seconds, wanted))
        if self._duty >= 1 and forecast < self.target - self._DISARM:
            self._armed = False
        return self._duty

    def expect(self, degrees: float) -> None:
        """See `Law.expect`: this one has its margin for it."""

    def explain(self) -> str:
        """See `Law.explain`."""
        if not self._armed:
            return "far from its target"
        return f"steered to {self.target:.1f} C, forecast of {self._AHEAD:g} s"

    def _slope(self) -> float:
        """C/s over the last samples, by least squares; 0 of fewer than three."""
        count = len(self._last)
        if count < 3:
            return 0.0
        mean_t = sum(t for t, _ in self._last) / count
        mean_c = sum(c for _, c in self._last) / count
        spread = sum((t - mean_t) ** 2 for t, _ in self._last)
        return sum((t - mean_t) * (c - mean_c) for t, c in self._last) / spread if spread else 0.0


class Budget:
    """The highest duty whose forecasts stay below the target, by what was learned of the device's heat.

    Receding horizon: the duty that would end on the target is solved for at each of some horizons, and the least of
    them is taken, for a second. What the model does not know (the air, other work on the die, wrong time constants) is
    learned as an offset and its trend, so there is no error that stays, and nothing to wind up.

    What comes without notice is not in any forecast: the target keeps a distance from the limit, more of it where the
    offset has been seen to jump. Where others' work is seen to begin (`expect`), its heat is kept free in advance, and
    less has to be kept free at all times.

    Args:
        limit: Degrees that must not be reached.
        margin: Degrees that the target is below it at the least.
    """

    name = "budget"

    _HORIZONS = (3.0, 6.0, 12.0)
    _DOWN, _UP = 0.25, 0.08
    _CHECKED = 15
    _EXPECTED, _PER_DEGREE, _WIDEST, _WIDEST_SEEING = 0.5, 3.0, 0.9, 0.5
    _KEPT_FREE, _SETTLED = 20.0, 120.0
    _AT_LIMIT = 0.75
    _FIRST = 1.2
    _FORGET = 1 / 1000.0

    def __init__(self, limit: float, margin: float = 0.5) -> None:
        self.limit = limit
        self._least = margin
        self.heating = Heating()
        self._worst = self._FIRST
        self._forecasts: deque[float] = deque(maxlen=self._CHECKED)
        self._duty = 1.0
        self._horizon = 0.0
        self._sees = False
        self._seconds = 0.0
        self._coming = 0.0
        self._until = 0.0

    @property
    def _margin(self) -> float:
        # At first its own heat may surprise as well.
        widest = self._WIDEST_SEEING if self._sees and self._seconds >= self._SETTLED else self._WIDEST
        surprises = min(widest, self._PER_DEGREE * max(0.0, self._worst - self._EXPECTED))
        return self._least + surprises + self._coming

    @property
    def target(self) -> float:
        """Degrees that it steers to."""
        return self.limit - self._margin

    def step(self, celsius: float, used: float, seconds: float, resolution: float) -> float:
        """See `Law.step`."""
        # A sensor that tells steps tells the lower end of one. In that which holds the limit it may be there already.
        celsius += resolution * (self._AT_LIMIT if celsius + resolution > self.limit else 0.5)
        heating = self.heating
        self._seconds += seconds
        self._until -= seconds
        if self._until <= 0:
            self._coming = 0.0
        heating.learn(celsius, used, seconds)
        self._judge(heating.rest, seconds)
        wanted, self._horizon = self.most_below(self.target)
        self._duty = min(self._duty + self._UP * seconds, max(self._duty - self._DOWN * seconds, wanted))
        self._forecasts.append(heating.rest_after(self._CHECKED * seconds))
        return self._duty

    def expect(self, degrees: float) -> None:
        """See `Law.expect`."""
        self._sees = True
        if degrees > 0:
            self._coming, self._until = max(self._coming, degrees), self._KEPT_FREE

    def most_below(self, celsius: float) -> tuple[float, float]:
        """The highest duty, 0 to 1, of which no forecast comes above a temperature, and the forecast that decides it.

        Args:
            celsius: Degrees.

        Returns:
            The duty; and how far ahead that forecast is, seconds, 0 where no forecast takes anything away.
        """
        most, ahead = 1.0, 0.0
        for horizon in self._HORIZONS:
            duty = self.heating.duty_for(celsius, horizon)
            if duty < most:
                most, ahead = duty, horizon
        return max(0.0, most), ahead

    def explain(self) -> str:
        """See `Law.explain`."""
        heats = f"it heats itself by {self.heating.self_heat:.1f} C"
        if not self._horizon:
            return f"no forecast comes near {self.target:.1f} C; {heats}"
        coming = f"; {self._coming:.1f} C are kept free for others' work, which has begun" if self._coming else ""
        return f"the most that stays below {self.target:.1f} C for {self._horizon:g} s; {heats}{coming}"

    def _judge(self, rest: float, seconds: float) -> None:
        """How much warmer than forecast others have made it, at the worst; time makes that forgotten."""
        self._worst -= self._worst * self._FORGET * seconds
        if len(self._forecasts) == self._CHECKED:
            self._worst = max(self._worst, rest - self._forecasts[0])
