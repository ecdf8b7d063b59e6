"""Whether a Runtime can be looked at by `hetero top`."""

from __future__ import annotations

from collections.abc import Mapping

from hetero.errors import OptionError

VARIABLE = "HETERO_MONITOR"

_ON = ("1", "true", "yes", "on")
_OFF = ("", "0", "false", "no", "off")


def is_monitored(monitor: bool | None, environ: Mapping[str, str]) -> bool:
    """What a program says, else its environment.

    Raises:
        OptionError: The environment says neither yes nor no.
    """
    if monitor is not None:
        return monitor
    value = environ.get(VARIABLE, "").strip().lower()
    if value not in _ON + _OFF:
        raise OptionError(f"{VARIABLE} is {value!r}, expected 1 or 0", fix=f"set {VARIABLE}=1, or unset it")
    return value in _ON
