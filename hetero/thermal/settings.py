"""What a user asks of heat: the settings of a Runtime's governor, from an argument or from the environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from hetero.errors import OptionError
from hetero.thermal.profiles import PROFILES, profile_named
from hetero.thermal.steering import OnHot, check_on_hot

VARIABLE = "HETERO_THERMAL"

Sampling = Literal["thread", "manual"]

_OFF = "off"


@dataclass(frozen=True)
class ThermalSettings:
    """How a Runtime deals with heat; see the page on heat.

    Attributes:
        profile: The kind of work. `default` becomes `battery` for as long as the machine runs on its battery.
        on_hot: What is done with work for a hot device: `pace`, `steer` or `auto`; the profile's when None.
        limits: Thresholds that differ, by a device's name or its kind: `{"npu": {"maximum": 80}}`.
        law: `budget`, or `tokens`, which is simpler.
        frequency: Also lower a Rockchip NPU's clock, which root alone may.
        sampling: `thread`: a thread looks at the sensors once a second, from the first loaded program on. `manual`:
            whoever owns the clock calls `Runtime.governor.tick()`; so it is with any clock but the system's.
        follow_power: Whether the profile `default` becomes `battery`.
        patience: Seconds from the beginning of a device's stop for which requests wait for it rather than go to one
            that does not do more with a joule: on one chip that keeps the stopped device hot. 0 for not at all; so it
            is with `on_hot="steer"`, and for a request whose deadline would be missed.

    Raises:
        OptionError: A name that is not known.
    """

    profile: str = "default"
    on_hot: OnHot | None = None
    limits: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    law: str = "budget"
    frequency: bool = False
    sampling: Sampling = "thread"
    follow_power: bool = True
    patience: float = 10.0

    def __post_init__(self) -> None:
        profile_named(self.profile)
        if self.on_hot is not None:
            check_on_hot(self.on_hot)
        if not self.patience >= 0:
            raise OptionError(f"patience is {self.patience!r}, expected seconds, 0 or more")
        if self.sampling not in get_args(Sampling):
            raise OptionError(f"sampling={self.sampling!r} is not known", fix=f"known: {', '.join(get_args(Sampling))}")


Thermal = bool | str | ThermalSettings
"""What `Runtime(thermal=)` takes: whether, a profile's name or `off`, or all of it."""


def settings_of(thermal: Thermal, environ: Mapping[str, str]) -> ThermalSettings | None:
    """What an argument means; True is what the environment says (`HETERO_THERMAL=off`, or a profile's name).

    Returns:
        None where heat is not looked at.

    Raises:
        OptionError: It is none of these, or there is no such profile.
    """
    if isinstance(thermal, ThermalSettings):
        return thermal
    if thermal is False:
        return None
    if thermal is True:
        wanted = environ.get(VARIABLE, "").strip()
        if not wanted:
            return ThermalSettings()
        return _named(wanted, f"{VARIABLE}={wanted}")
    if isinstance(thermal, str):
        return _named(thermal, f"thermal={thermal!r}")
    raise OptionError(
        f"thermal is {thermal!r}, expected True, False, a profile's name or ThermalSettings",
        fix=f"profiles: {', '.join(PROFILES)}",
    )


def _named(name: str, told: str) -> ThermalSettings | None:
    if name == _OFF:
        return None
    if name not in PROFILES:
        raise OptionError(f"{told} is neither a thermal profile nor off", fix=f"known: off, {', '.join(PROFILES)}")
    return ThermalSettings(profile=name)
