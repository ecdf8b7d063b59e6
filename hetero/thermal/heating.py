"""How much a device heats itself, learned while it works.

The temperature is taken as `fast * f + slow * s + rest`: `f` and `s` are the duty as the die and the board with its
heatsink have smoothed it, `fast` and `slow` the degrees that full duty is worth in each, and `rest` everything else
(the air, other work), which wanders with a trend. The four are followed by a Kalman filter (R. E. Kalman, "A New
Approach to Linear Filtering and Prediction Problems", 1960), whose measurement is the temperature. The time constants
are not learned: with wrong ones the rest takes up the difference.
"""

from __future__ import annotations

import math

_FAST, _SLOW = 6.0, 120.0

# Degrees that full duty is worth before anything was seen, and how wrong that may be.
_PRIOR = (7.0, 20.0)
_DOUBT = (5.0, 15.0)

# What each may change by in a second, squared: fast, slow, rest, trend.
_WANDER = (2e-5, 1e-4, 0.01, 6e-5)
_NOISE = 0.15
_TREND_KEPT = 0.97

# What the two gains can be, degrees: no device cools by working.
_BOUNDS = ((0.3, 60.0), (0.1, 150.0))


class Heating:
    """The model of one device's own heat.

    Attributes:
        fast: Degrees within seconds, at full duty.
        slow: Degrees within minutes, on top.
        rest: Degrees that are not the device's own.
        trend: Degrees a second by which the rest grows.
    """

    def __init__(self) -> None:
        self.fast, self.slow = _PRIOR
        self.rest = self.trend = 0.0
        self._f = self._s = 0.0
        self._started = False
        # The covariance, symmetric: its upper triangle by rows.
        variances = [doubt * doubt for doubt in (*_DOUBT, 3.0, 0.05)]
        self._p = (variances[0], 0.0, 0.0, 0.0, variances[1], 0.0, 0.0, variances[2], 0.0, variances[3])

    @property
    def confident(self) -> bool:
        """The sum of both was learned, not assumed: its standard deviation is below a third of it, or 3 degrees."""
        return self.doubt <= max(3.0, self.self_heat / 3)

    @property
    def doubt(self) -> float:
        """The standard deviation of `self_heat`, degrees."""
        return math.sqrt(max(0.0, self._p[0] + self._p[4] + 2 * self._p[1]))

    @property
    def self_heat(self) -> float:
        """Degrees that full duty is worth in the end."""
        return self.fast + self.slow

    def learn(self, celsius: float, used: float, seconds: float) -> float:
        """Take in a temperature.

        Args:
            celsius: Now.
            used: Share of the time since the last one in which the device worked.
            seconds: Since then.

        Returns:
            By how much it was above what was expected, degrees.
        """
        if not self._started:
            # Whoever comes late finds the device as warm as its work has made it.
            self._started, self._f, self._s = True, used, used
            self.rest = celsius - self.fast * used - self.slow * used
            return 0.0
        self._f += (1 - math.exp(-seconds / _FAST)) * (used - self._f)
        self._s += (1 - math.exp(-seconds / _SLOW)) * (used - self._s)
        self._predict(seconds)
        f, s = self._f, self._s
        p00, p01, p02, p03, p11, p12, p13, p22, p23, p33 = self._p
        surprise = celsius - (self.fast * f + self.slow * s + self.rest)
        c0, c1, c2, c3 = (
            p00 * f + p01 * s + p02,
            p01 * f + p11 * s + p12,
            p02 * f + p12 * s + p22,
            p03 * f + p13 * s + p23,
        )
        variance = c0 * f + c1 * s + c2 + _NOISE
        g0, g1, g2, g3 = c0 / variance, c1 / variance, c2 / variance, c3 / variance
        self._p = (
            *(p00 - g0 * c0, p01 - g0 * c1, p02 - g0 * c2, p03 - g0 * c3),
            *(p11 - g1 * c1, p12 - g1 * c2, p13 - g1 * c3),
            *(p22 - g2 * c2, p23 - g2 * c3),
            p33 - g3 * c3,
        )
        self.fast += g0 * surprise
        self.slow += g1 * surprise
        self.rest += g2 * surprise
        self.trend += g3 * surprise
        for place, (least, most) in enumerate(_BOUNDS):
            value = self.slow if place else self.fast
            if not least <= value <= most:
                self._project(place, min(most, max(least, value)) - value)
        # The second may have moved the first again.
        self.fast = min(_BOUNDS[0][1], max(_BOUNDS[0][0], self.fast))
        return surprise

    def duty_for(self, target: float, ahead: float) -> float:
        """The constant duty that ends on a temperature; below 0 or above 1 where none does.

        Args:
            target: Degrees.
            ahead: Seconds from now.
        """
        kept_f, kept_s = math.exp(-ahead / _FAST), math.exp(-ahead / _SLOW)
        without = self.rest + self._drift(ahead) + self.fast * self._f * kept_f + self.slow * self._s * kept_s
        return (target - without) / (self.fast * (1 - kept_f) + self.slow * (1 - kept_s))

    def forecast(self, duty: float, ahead: float) -> float:
        """Degrees after so many seconds at a duty."""
        kept_f, kept_s = math.exp(-ahead / _FAST), math.exp(-ahead / _SLOW)
        f, s = duty + (self._f - duty) * kept_f, duty + (self._s - duty) * kept_s
        return self.fast * f + self.slow * s + self.rest + self._drift(ahead)

    def rest_after(self, ahead: float) -> float:
        """Degrees that are not the device's own, after so many seconds."""
        return self.rest + self._drift(ahead)

    def _drift(self, ahead: float) -> float:
        """What the trend adds until then; it fades."""
        return self.trend * (1 - math.pow(_TREND_KEPT, ahead)) / (1 - _TREND_KEPT)

    def _project(self, place: int, by: float) -> None:
        """Back to what can be: one is moved, and the others with it as far as they hang together.

        Source: D. Simon, "Kalman filtering with state constraints", IET Control Theory & Applications, 2010.
        """
        p00, p01, p02, p03, p11, p12, p13, _, _, _ = self._p
        column = (p00, p01, p02, p03) if place == 0 else (p01, p11, p12, p13)
        share = by / column[place]
        self.fast += column[0] * share
        self.slow += column[1] * share
        self.rest += column[2] * share
        self.trend += column[3] * share

    def _predict(self, seconds: float) -> None:
        kept = _TREND_KEPT**seconds
        self.rest += self.trend * seconds
        self.trend *= kept
        p00, p01, p02, p03, p11, p12, p13, p22, p23, p33 = self._p
        w0, w1, w2, w3 = _WANDER
        self._p = (
            *(p00 + w0 * seconds, p01, p02 + seconds * p03, kept * p03),
            *(p11 + w1 * seconds, p12 + seconds * p13, kept * p13),
            *(p22 + seconds * (2 * p23 + seconds * p33) + w2 * seconds, kept * (p23 + seconds * p33)),
            kept * kept * p33 + w3 * seconds,
        )
