"""Which sensors speak for a device: its own, else the nearest that there are, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hetero.backend import Device, Kind
from hetero.thermal.sensors import Part, Sensor

# Over 15 boards the NPU's zone stayed within 0 to 2.8 C of the SoC's: a neighbour's temperature is a good guess.
_NEAREST: dict[Kind, tuple[Part, ...]] = {
    "npu": ("npu", "soc", "gpu", "cpu"),
    "gpu": ("gpu", "soc", "npu", "cpu"),
    "cpu": ("cpu", "soc", "gpu", "npu"),
}


@dataclass(frozen=True)
class Voices:
    """Sensors that speak for a device as well as each other: the hottest counts.

    Attributes:
        sensors: At least one.
        direct: They sit in the device; else they are a neighbour's, proxies.
    """

    sensors: tuple[Sensor, ...]
    direct: bool

    @property
    def why(self) -> str:
        """In words, why these and not others."""
        part = self.sensors[0].part.upper()
        return "in the device itself" if self.direct else f"a proxy: it sits in the {part}, the nearest there is"


def voices_for(device: Device, sensors: Sequence[Sensor]) -> list[Voices]:
    """The sensors that may speak for a device, the best first: of the first that can be read the hottest counts.

    Args:
        device: Whose temperature is wanted. None speaks for a simulated one: this machine's heat is not its.
        sensors: As `find_sensors` gave them.
    """
    if device.simulated:
        return []
    chosen = []
    for part in _NEAREST[device.kind]:
        own = tuple(sensor for sensor in sensors if sensor.part == part)
        if own:
            direct = part == device.kind or (device.kind == "cpu" and all(sensor.whole for sensor in own))
            chosen.append(Voices(own, direct))
    return chosen
