"""What is believed of a sensor: faults are told apart from heat, and an unknown temperature is never a cool one.

| what a sensor does | what is believed |
|---|---|
| cannot be read, holds no number, 0, or what cannot be | unknown, with the reason; for a moment the last value |
| rises further than a die can in that time | unknown, until time allows it |
| falls further than a die can in that time | for a moment the last value, then unknown, until time allows it |
| fell so, and time allows it | what it says, unless another sensor of the machine says that it is far hotter |
| says the same to the last bit for long, while the load has changed a lot | unknown, until it moves |
| is there again | what it says, as soon as that is possible |
"""

from __future__ import annotations

from dataclasses import dataclass

# A die of these machines moves by some 10 C/s when tens of watts come on, and cools more slowly.
_STEP = 12.0
_RISE = 20.0
_FALL = 3.0

HELD = 3.0
"""Seconds for which the last value stands in for one that is missing."""

_STUCK_AFTER = 60.0
_STUCK_SWING = 0.4
_LOAD_TIME = 15.0


@dataclass(frozen=True)
class Reading:
    """A temperature as it is believed, or why it is unknown.

    Attributes:
        celsius: Degrees; None when it is unknown.
        age: Seconds since the sensor said so; infinite when it never did.
        direct: The sensor sits in the device; else in a neighbour of it.
        source: The sensor's name; empty when there is none.
        reason: Why it is unknown, or why an older value stands in; empty when all is well.
    """

    celsius: float | None
    age: float = 0.0
    direct: bool = True
    source: str = ""
    reason: str = ""

    @property
    def known(self) -> bool:
        """There is a temperature."""
        return self.celsius is not None

    def __str__(self) -> str:
        if self.celsius is None:
            return f"unknown: {self.reason}"
        proxy = "" if self.direct else ", a proxy"
        held = f", {self.age:.0f} s ago: {self.reason}" if self.reason else ""
        return f"{self.celsius:.1f} C ({self.source}{proxy}{held})"


class Belief:
    """What is believed of one sensor, sample by sample.

    Attributes:
        resolution: The least step that was seen between two values, degrees; 0 before there was one.
        fell_from: What it said before it fell as no die does; None while it has not, or is believed all the same.
    """

    def __init__(self) -> None:
        self.resolution = 0.0
        self.fell_from: float | None = None
        self._value: float | None = None
        self._at = 0.0
        self._constant_since = 0.0
        self._load = self._least = self._most = 0.0
        self._loaded_at: float | None = None
        self._first = 0.0
        self._stuck = False

    def take(self, now: float, celsius: float | None, problem: str = "", load: float = 0.0) -> tuple[float | None, str]:
        """Take in a sample.

        Args:
            now: Seconds.
            celsius: What the sensor said; None when it could not be read.
            problem: Why not.
            load: Of what the sensor sits in, 0 to 1.

        Returns:
            The temperature that is believed, or None; and what is wrong, if anything.
        """
        self._watch_load(now, load)
        if celsius is None:
            return self._held(now), problem
        last = self._value
        if last is None:
            self._accept(now, celsius)
            return celsius, ""
        passed = max(0.0, now - self._at)
        if not -_STEP - _FALL * passed <= celsius - last <= _STEP + _RISE * passed:
            if celsius < last and self.fell_from is None:
                self.fell_from = last
            # What was believed is not held against a sensor that says it is far hotter.
            return None if celsius > last else self._held(
                now
            ), f"it jumped from {last:.1f} to {celsius:.1f} C, which no die does in that time"
        if celsius != last:
            self.resolution = min(self.resolution or abs(celsius - last), abs(celsius - last))
            self._constant_since, self._least, self._most, self._stuck = now, self._load, self._load, False
        elif now - self._constant_since >= _STUCK_AFTER and self._most - self._least >= _STUCK_SWING:
            self._stuck = True
        self._value, self._at = celsius, now
        if self._stuck:
            same = now - self._constant_since
            return None, f"it has said {celsius:g} C for {same:.0f} s, whatever the load was: it is stuck"
        return celsius, ""

    @property
    def at(self) -> float | None:
        """When the sensor last said something that was believed; None before it has."""
        return self._at if self._value is not None else None

    def _accept(self, now: float, celsius: float) -> None:
        self._value, self._at, self._constant_since = celsius, now, now
        self._least = self._most = self._load

    def _held(self, now: float) -> float | None:
        return self._value if not self._stuck and self._value is not None and now - self._at <= HELD else None

    def _watch_load(self, now: float, load: float) -> None:
        """Short bursts say nothing: the load is smoothed like the die smooths it."""
        before, self._loaded_at = self._loaded_at, now
        if before is None:
            self._first, self._load = now, load
        passed = 0.0 if before is None else max(0.0, now - before)
        self._load += min(1.0, passed / _LOAD_TIME) * (load - self._load)
        if now - self._first < 3 * _LOAD_TIME:
            # The first load may be that of a moment: nothing is made of it.
            self._least = self._most = self._load
        self._least, self._most = min(self._least, self._load), max(self._most, self._load)
