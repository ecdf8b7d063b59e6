"""The temperatures of a device: where it is warned of, where it must not come, where work on it ends."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from hetero.backend import Kind
from hetero.errors import OptionError

State = Literal["unknown", "cool", "warn", "hot", "stop"]

STATES: tuple[State, ...] = ("unknown", "cool", "warn", "hot", "stop")


@dataclass(frozen=True)
class Limits:
    """Thresholds of one device, degrees Celsius.

    Attributes:
        warn: From here on its state is `warn`.
        resume: Below it is `cool` again.
        maximum: From here on it is `hot`: at most `at_maximum` of it works. What a law keeps it below.
        stop: From here on nothing works on it, until it is below `maximum` again.
        at_maximum: The duty that is left at `maximum`.
    """

    warn: float = 80.0
    resume: float = 75.0
    maximum: float = 85.0
    stop: float = 88.0
    at_maximum: float = 0.3

    def __post_init__(self) -> None:
        values = [getattr(self, field.name) for field in fields(self)]
        if not all(isinstance(value, int | float) and math.isfinite(value) for value in values):
            raise OptionError(f"thermal limits must be numbers of degrees, not {values}")
        if not self.resume < self.warn < self.maximum < self.stop:
            raise OptionError(
                f"thermal limits must rise: resume {self.resume:g}, warn {self.warn:g}, maximum {self.maximum:g}, "
                f"stop {self.stop:g}",
                fix="set all of them that have to move: Limits(resume=..., warn=..., maximum=..., stop=...)",
            )
        if not 0 <= self.at_maximum <= 1:
            raise OptionError(f"at_maximum is a duty from 0 to 1, not {self.at_maximum:g}")

    def with_(self, changes: Mapping[str, Any]) -> Limits:
        """Other thresholds. A maximum that is moved alone takes the others with it.

        Raises:
            OptionError: A name that is not known, or thresholds that do not rise.
        """
        known = {field.name for field in fields(self)}
        for name in changes:
            if name not in known:
                raise OptionError(f"there is no thermal limit {name!r}", fix=f"known: {', '.join(sorted(known))}")
        moved = changes.get("maximum", self.maximum)
        if not isinstance(moved, int | float):
            raise OptionError(f"the thermal limit maximum is {moved!r}, expected degrees")
        by = moved - self.maximum
        rest = {name: getattr(self, name) + by for name in ("warn", "resume", "stop")}
        return replace(self, **{**rest, **changes})

    def below(self, critical: float, distance: float = 7.0) -> Limits:
        """The same, moved down where the kernel would switch the machine off before `stop` is reached."""
        by = self.stop - (critical - distance)
        return self if by <= 0 else self.with_({"maximum": self.maximum - by})

    def state(self, celsius: float, before: State) -> State:
        """The state at a temperature, after another one: each is left at a lower temperature than it is entered."""
        if celsius >= self.stop or (before == "stop" and celsius >= self.maximum):
            return "stop"
        if celsius >= self.maximum or (before in ("stop", "hot") and celsius >= self.maximum - _HOT_HYSTERESIS):
            return "hot"
        if celsius >= self.warn or (before in ("stop", "hot", "warn") and celsius >= self.resume):
            return "warn"
        return "cool"

    def ceiling(self, celsius: float, state: State) -> float:
        """The most that may work now, whatever a law says."""
        if state == "stop":
            return 0.0
        return self.at_maximum if celsius >= self.maximum else 1.0


_HOT_HYSTERESIS = 2.0

# The NPU's and the CPU's are those of the project's first plan; 85 C is also where the vendor's kernel wants the GPU.
LIMITS: dict[Kind, Limits] = {
    "npu": Limits(),
    "gpu": Limits(),
    "cpu": Limits(warn=80.0, resume=75.0, maximum=90.0, stop=95.0),
}
