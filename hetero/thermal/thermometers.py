"""All sensors of a machine, read together: what is believed of each, and which of them speaks for a device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from hetero.backend import Device
from hetero.thermal.choosing import Voices, voices_for
from hetero.thermal.readings import Belief, Reading
from hetero.thermal.sensors import Part, Sensor, find_sensors
from hetero.thermal.sysfs import Unreadable

_GONE = "it is not there any more"
_LOOK_SOON, _LOOK_AGAIN = 2.0, 10.0

_APART = 30.0
"""Degrees between two sensors of a chip that are too many for both to be right, once one has fallen in an instant."""


class Thermometers:
    """The sensors of a machine, sample by sample.

    Args:
        sysroot: Root of `/sys`.
        devices: Those whose temperatures are wanted.

    Attributes:
        sensors: All that were found, also those that cannot be read.
    """

    def __init__(self, sysroot: Path, devices: Sequence[Device]) -> None:
        self.sensors: list[Sensor] = []
        self._sysroot = sysroot
        self._devices = list(devices)
        self._voices = {device.name: voices_for(device, []) for device in devices}
        self._beliefs: dict[str, Belief] = {}
        self._problems: dict[str, str] = {}
        self._believed: dict[str, float] = {}
        self._looked: float | None = None
        self._now = 0.0

    def sample(self, now: float, loads: Mapping[Part, float]) -> None:
        """Read them all. Never raises for what a machine does.

        Args:
            now: Seconds.
            loads: Of the NPU, the GPU and the CPU, 0 to 1: a sensor that stands still while they move is stuck.
        """
        self._now = now
        if self._looked is None or now - self._looked >= (_LOOK_SOON if self._problems else _LOOK_AGAIN):
            self._find(now)
        known = {_key(sensor) for sensor in self.sensors}
        self._problems = {key: _GONE for key in self._beliefs if key not in known}
        self._believed = {}
        most = max(loads.values(), default=0.0)
        for sensor in self.sensors:
            key = _key(sensor)
            celsius: float | None = None
            problem = ""
            try:
                celsius = sensor.read()
            except Unreadable as error:
                problem = str(error)
            load = loads.get(sensor.part, most)
            told, problem = self._beliefs.setdefault(key, Belief()).take(now, celsius, problem, load)
            if told is not None:
                self._believed[key] = told
            if problem:
                self._problems[key] = problem
        self._compare()

    def look(self, now: float) -> None:
        """Find the sensors that there are now."""
        self._find(now)

    def reading(self, device: Device) -> tuple[Reading, Sensor | None]:
        """A device's temperature: of the best sensors that tell something the hottest; and which one it was."""
        if device.simulated:
            return Reading(None, reason="the device is simulated"), None
        for voices in self._voices[device.name]:
            told = [
                (self._believed[_key(sensor)], sensor) for sensor in voices.sensors if _key(sensor) in self._believed
            ]
            if told:
                celsius, sensor = max(told, key=lambda each: each[0])
                at = self._beliefs[_key(sensor)].at
                age = 0.0 if at is None else self._now - at
                return Reading(celsius, age, voices.direct, sensor.name, self._problems.get(_key(sensor), "")), sensor
        reasons = [f"{sensor.name}: {self._said(sensor)}" for v in self._voices[device.name] for sensor in v.sensors]
        return Reading(None, reason="; ".join(reasons) or "no sensor was found that says anything of it"), None

    def resolution(self, sensor: Sensor) -> float:
        """Degrees between two values that a sensor tells; 0 before it has told two."""
        return self._beliefs[_key(sensor)].resolution

    def considered(self, device: Device) -> list[tuple[Sensor, str]]:
        """The sensors that could speak for a device, the best first, and what is to be said of each."""
        counts = self.reading(device)[1]
        return [
            (sensor, self._standing(sensor, voices, counts))
            for voices in self._voices[device.name]
            for sensor in voices.sensors
        ]

    def _compare(self) -> None:
        """One that fell as no die does, for good, is believed where the others do not say that it is far hotter."""
        fallen = {key for key in self._believed if self._beliefs[key].fell_from is not None}
        most = max((told for key, told in self._believed.items() if key not in fallen), default=None)
        for key in fallen:
            belief, told = self._beliefs[key], self._believed[key]
            if key in self._problems:  # still held to be what it said before
                continue
            if most is not None and most > told + _APART:
                del self._believed[key]
                self._problems[key] = (
                    f"it fell from {belief.fell_from:.1f} to {told:.1f} C, and another says {most:.1f} C"
                )
            else:
                belief.fell_from = None

    def _standing(self, sensor: Sensor, voices: Voices, counts: Sensor | None) -> str:
        """What a sensor says, and why it counts or does not."""
        celsius, problem = self._believed.get(_key(sensor)), self._problems.get(_key(sensor), "")
        said = "" if celsius is None else f"{celsius:.1f} C; "
        if sensor is counts:
            return f"{said}this one counts: {problem or voices.why}"
        if problem or counts is None:
            return said + (problem or voices.why)
        if counts in voices.sensors:
            return f"{said}as near as {counts.name}, and not warmer"
        return f"{said}for when {counts.name} is lost: in the {sensor.part.upper()}, further away"

    def _find(self, now: float) -> None:
        """Drivers are loaded late and come back under another number."""
        self._looked = now
        self.sensors = find_sensors(self._sysroot)
        for device in self._devices:
            # Where the only sensor is gone, it is kept: that is what there is to be said.
            self._voices[device.name] = voices_for(device, self.sensors) or self._voices[device.name]

    def _said(self, sensor: Sensor) -> str:
        return self._problems.get(_key(sensor), "nothing was read yet")


def _key(sensor: Sensor) -> str:
    """A sensor across its numbers: by name, and where its chip sits."""
    return f"{sensor.name}@{sensor.device.resolve().name}" if sensor.device is not None else sensor.name
