"""One device under control: a temperature comes in each second, a duty goes out, and a reason for it.

The law proposes; the limits dispose. What is unknown is never taken for cool: a device whose sensor is lost keeps at
most the duty that it had, and less where it was warm. One that never had a sensor is guessed at from its calls.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hetero.errors import OptionError
from hetero.thermal.drift import Drift
from hetero.thermal.laws import Budget, Law, Tokens
from hetero.thermal.limits import Limits, State
from hetero.thermal.readings import Reading

LAWS: dict[str, Callable[[float], Law]] = {"budget": Budget, "tokens": Tokens}

_SMALL_HEAT = 10.0

# Others heat a device of which that was not learned: so long it has hardly worked, and is as hot as it may be.
_RESTED = 30.0
_AT_REST = 0.1

# Degrees below `stop` to which a device may work that others heat; so far below a stop ends, as resting brings no more.
_BELOW_STOP = 1.5
_AFTER_STOP = 2.0

_BLIND_WARM = 0.5
_PROXY_MARGIN = 2.0
_LEAST = 0.05


@dataclass(frozen=True)
class Grant:
    """What a device may do.

    Attributes:
        duty: The share of its time in which it may work, 0 to 1.
        state: `cool`, `warn`, `hot`, `stop`, or `unknown` where no sensor tells.
        why: In words.
        paced: Heat takes something away.
    """

    duty: float = 1.0
    state: State = "unknown"
    why: str = "nothing was read yet"

    @property
    def paced(self) -> bool:
        """Heat takes something away."""
        return self.duty < 1.0


class Control:
    """Says what one device may do.

    Args:
        limits: Its thresholds.
        law: `budget` or `tokens`.
        direct: Its sensor sits in it; a neighbour's may be some degrees below it, which is kept free.

    Attributes:
        grant: The last one.
        limits: Its thresholds.
        law: What steers.
        drift: Tell it of calls.
        seen: A sensor has told its temperature.

    Raises:
        OptionError: An unknown law.
    """

    def __init__(self, limits: Limits, law: str = "budget", direct: bool = True) -> None:
        if law not in LAWS:
            raise OptionError(f"the thermal law {law!r} is not known", fix=f"known: {', '.join(LAWS)}")
        self.law: Law = LAWS[law](limits.maximum)
        self.speak(limits, direct)
        self.drift = Drift()
        self._rested = 0.0
        self.grant = Grant()
        self.seen = False

    def speak(self, limits: Limits, direct: bool) -> None:
        """Another sensor tells the temperature from now on. What was learned of the device's heat stays."""
        self.limits = limits
        self.law.limit = limits.maximum - (0.0 if direct else _PROXY_MARGIN)

    def step(self, reading: Reading, used: float, seconds: float, resolution: float = 0.0) -> Grant:
        """Take in a second.

        Args:
            reading: The device's temperature, or that it is unknown.
            used: The share of the time since the last step in which it worked, 0 to 1.
            seconds: Since then.
            resolution: Degrees between two values that the sensor tells; 0 when it is not known yet.
        """
        slow = self.drift.step(seconds)
        if reading.celsius is None:
            self.grant = self._blind(reading) if self.seen else Grant(slow, "unknown", self.drift.explain())
            return self.grant
        self.seen = True
        celsius = reading.celsius
        duty, why = self.law.step(celsius, used, seconds, resolution), self.law.explain()
        state = self.limits.state(celsius, self.grant.state)
        refuge = self._refuge(used, seconds)
        if refuge is not None:
            most, told = refuge
            if state == "stop" and celsius < self.limits.stop - _AFTER_STOP:
                state = "hot"
            if state != "stop":
                self.grant = Grant(max(duty, most, _LEAST), state, f"{celsius:.1f} C, but {told}")
                return self.grant
        ceiling = self.limits.ceiling(celsius, state)
        if ceiling < 1.0 and ceiling <= duty:
            at, left = (self.limits.stop, "nothing") if state == "stop" else (self.limits.maximum, "little")
            duty, why = ceiling, f"{celsius:.1f} C, and {at:g} C was reached: {left} runs"
        elif duty < _LEAST and state != "stop":
            # Only `stop` is a stop: the work of a device that may do nothing goes to others, which heat more by it.
            duty, why = _LEAST, f"{why}; a little is left of it below {self.limits.stop:g} C"
        self.grant = Grant(duty, state, why)
        return self.grant

    @property
    def blind_duty(self) -> float:
        """The duty that is left when nothing can be seen any more."""
        before = self.grant
        return min(before.duty, _BLIND_WARM) if before.state in ("warn", "hot", "stop") else before.duty

    def _blind(self, reading: Reading) -> Grant:
        """The sensor is lost."""
        before = self.grant
        warm = before.state in ("warn", "hot", "stop")
        duty = self.blind_duty
        # The state goes on being what it was: an unknown temperature is not a cool one.
        was = f"it was {before.state}" if warm else "it was not warm"
        why = f"the sensor is lost ({reading.reason}) and {was}: at most {duty:.0%} of it works until it is back"
        return Grant(duty, before.state if warm else "unknown", why)

    def _refuge(self, used: float, seconds: float) -> tuple[float, str] | None:
        """How much of a hot device may go on all the same, and why: others heat it, and who takes its work heats more.

        Returns:
            None where its own work is what heats, or too little is known of that.
        """
        law = self.law
        if not isinstance(law, Budget):
            return None
        heating = law.heating
        own, most = heating.self_heat, law.most_below(self.limits.stop - _BELOW_STOP)[0]
        small = own + heating.doubt < _SMALL_HEAT
        # Where pausing would take away more than half of its work, that is for what others do.
        if heating.rest < law.target - (own / 2 if small or self._rested >= _RESTED else 0.0):
            self._rested = 0.0
            return None
        if small:
            return most, f"its own work is {own:.1f} C of that: others heat it, and resting would not cool it"
        if heating.confident:
            self._rested = 0.0
            return None
        if used <= _AT_REST or self._rested >= _RESTED:
            self._rested += seconds
        if self._rested < _RESTED:
            return None
        return most, "it was so at rest: others heat it, and what it adds itself is being learned"
