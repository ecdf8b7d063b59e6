"""What a governor has seen and decided: a device's second, and what has happened to its state."""

from __future__ import annotations

from dataclasses import dataclass

from hetero.thermal.control import Grant
from hetero.thermal.readings import Reading


@dataclass(frozen=True)
class Sample:
    """What a tick saw and decided for one device.

    Attributes:
        device: Its name.
        reading: Its temperature, or why it is unknown.
        grant: What it may do.
        used: The share of its time in which it worked, 0 to 1, since the tick before; None when nobody tells.
        resolution: Degrees between two values that its sensor tells; 0 when it is not known.
    """

    device: str
    reading: Reading
    grant: Grant
    used: float | None
    resolution: float


@dataclass(frozen=True)
class Event:
    """A device's state has changed, or something that concerns it has failed (then both states are the same).

    Attributes:
        at: Seconds, on the governor's clock.
        device: Its name.
        before: The state that it left.
        after: The one that it came to.
        reason: In words.
    """

    at: float
    device: str
    before: str
    after: str
    reason: str

    def __str__(self) -> str:
        return f"{self.device}: {self.before} -> {self.after}: {self.reason}"
