"""What kinds of work want of heat: thresholds, what is done when it is hot, and the power mode that fits.

A profile is data: it changes what a governor starts from, and whatever a user sets goes before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hetero.backend import Kind
from hetero.errors import OptionError
from hetero.thermal.limits import LIMITS, Limits
from hetero.thermal.steering import OnHot


@dataclass(frozen=True)
class Profile:
    """Settings for a kind of work.

    Attributes:
        name: As users write it.
        meaning: In one sentence.
        on_hot: What is done with work for a hot device.
        power_mode: Of a Ryzen AI NPU (`xrt-smi configure --pmode`), as root sets it; `Runtime(power="profile")` asks
            for it.
        maximum: Degrees below the usual maximum of each kind of device, in which it stays.
        limits: Thresholds that differ besides.
    """

    name: str
    meaning: str
    on_hot: OnHot = "auto"
    power_mode: str = "default"
    maximum: float = 0.0
    limits: Mapping[Kind, Mapping[str, float]] = field(default_factory=dict)

    def limits_of(self, kind: Kind) -> Limits:
        """The thresholds of a kind of device."""
        usual = LIMITS[kind]
        lowered = usual.with_({"maximum": usual.maximum - self.maximum}) if self.maximum else usual
        return lowered.with_(self.limits.get(kind, {}))


PROFILES: Mapping[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile("default", "Work of any kind, as fast as the limits allow."),
        Profile(
            "llm_inference",
            "Long and steady work: slowing down a little costs less than moving a model's state to another device.",
            on_hot="pace",
            power_mode="performance",
        ),
        Profile(
            "continuous_audio",
            "Work that never ends and must keep up: it stays cooler, so that a warm day does not stop it.",
            on_hot="auto",
            power_mode="balanced",
            maximum=3.0,
        ),
        Profile(
            "burst",
            "Short work with pauses: each burst may use all of the machine, and goes elsewhere rather than wait.",
            on_hot="steer",
            power_mode="turbo",
        ),
        Profile(
            "battery",
            "Away from the mains: what takes the fewest joules, and no more heat than hands like.",
            on_hot="auto",
            power_mode="powersaver",
            maximum=10.0,
        ),
    )
}


def profile_named(name: str) -> Profile:
    """A profile by name.

    Raises:
        OptionError: There is none of that name.
    """
    if name not in PROFILES:
        raise OptionError(f"the thermal profile {name!r} is not known", fix=f"known: {', '.join(PROFILES)}")
    return PROFILES[name]
