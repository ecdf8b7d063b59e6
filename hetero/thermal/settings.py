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
    """What an argument means; True is what the environment says.

    As text, in `HETERO_THERMAL`, in `--thermal` and here, it is `off`, or a profile's name and after a comma how long a
    stopped device is waited for, or one of both: `burst`, `burst,patience=5`, `patience=0`.

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
        return _parsed(wanted, f"{VARIABLE}={wanted}") if wanted else ThermalSettings()
    if isinstance(thermal, str):
        return _parsed(thermal, f"thermal={thermal!r}")
    raise OptionError(
        f"thermal is {thermal!r}, expected True, False, a profile's name or ThermalSettings",
        fix=f"profiles: {', '.join(PROFILES)}",
    )


def _parsed(text: str, told: str) -> ThermalSettings | None:
    if text == _OFF:
        return None
    profile, patience = "default", ThermalSettings.patience
    for place, part in enumerate(text.split(",")):
        name, _, value = (piece.strip() for piece in part.partition("="))
        if name == "patience" and value:
            try:
                patience = float(value)
            except ValueError:
                raise OptionError(f"{told}: {value!r} is no number of seconds", fix="such as patience=5") from None
        elif place == 0 and name in PROFILES and "=" not in part:
            profile = name
        else:
            raise OptionError(
                f"{told} is neither a thermal profile nor off" if place == 0 else f"{told}: {part!r} is not known",
                fix=f"known: off, {', '.join(PROFILES)}; after it, or alone: patience=SECONDS",
            )
    return ThermalSettings(profile=profile, patience=patience)
