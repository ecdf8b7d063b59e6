"""What is done with work for a device that is hot: slow down, or go elsewhere.

Heat follows joules, and on one chip it does not matter whose. So leaving a hot NPU helps only where another device does
more work with a joule; else it heats the same chip for less. On the boards that were looked at the crossover is where
the other device is about 0.7 times as fast.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from hetero.errors import OptionError

OnHot = Literal["pace", "steer", "auto"]

Action = Literal["run", "pace", "steer", "stop"]


@dataclass(frozen=True)
class Worth:
    """What a device makes of a joule.

    Attributes:
        device: Its name.
        joules: That an item takes on it; None when that is unknown.
        measured: By a meter (`hetero bench`); else declared by its backend.
        duty: What it may work itself, 0 to 1.
    """

    device: str
    joules: float | None
    measured: bool = False
    duty: float = 1.0


@dataclass(frozen=True)
class Decision:
    """What heat has decided for a request.

    Attributes:
        device: For which device.
        action: `run` there; `pace`: wait there for `wait` seconds; `steer`: go to `to`; `stop`: nowhere.
        reason: In words, with the temperature; empty only for a plain `run`.
        to: The device to go to, where the action is `steer`.
        wait: Seconds until the device takes it as it was then expected, where the action is `pace`.
        held: Seconds that the request was in fact held back for it, known when it has ended; None where it was not.
    """

    device: str
    action: Action
    reason: str = ""
    to: str = ""
    wait: float = 0.0
    held: float | None = None

    def __str__(self) -> str:
        does = {"steer": f"steered to {self.to}", "pace": f"paced, {self.wait:.2f} s", "stop": "stopped"}
        told = does.get(self.action, "runs")
        if self.held is not None:
            told = f"{'paced' if self.action == 'pace' else 'stopped'}, held back for {self.held:.2f} s"
        return f"{self.device}: {told}" + (f": {self.reason}" if self.reason else "")

    def to_dict(self) -> dict[str, Any]:
        """The decision as JSON-ready values; a wait that has no end is None."""
        return {**asdict(self), "wait": self.wait if math.isfinite(self.wait) else None}


def check_on_hot(on_hot: str) -> OnHot:
    """The choice of a user.

    Raises:
        OptionError: There is none of that name.
    """
    known: tuple[OnHot, ...] = get_args(OnHot)
    for choice in known:
        if on_hot == choice:
            return choice
    raise OptionError(f"on_hot={on_hot!r} is not known", fix=f"known: {', '.join(known)}")


def elsewhere(on_hot: OnHot, here: Worth, others: Sequence[Worth], *, stopped: bool = False) -> tuple[str, str]:
    """Where work for a hot device goes, and why.

    Args:
        on_hot: `pace` stays; `steer` goes to the next device that may work; `auto` where an item takes fewer joules.
        here: The hot device.
        others: Those that could take it instead, first choice first.
        stopped: The device may not work at all, so that whoever may takes it.

    Returns:
        A device's name, empty to stay; and the reason.
    """
    open_ones = [other for other in others if other.duty > 0]
    if not open_ones:
        return "", "no other device could take it" if not others else "every other device is stopped by heat too"
    if on_hot == "pace" and not stopped:
        return "", "on_hot='pace' stays and slows down"
    if on_hot == "steer" or stopped:
        told = "nothing may run here, so it goes to the next device"
        return open_ones[0].device, told if stopped else "on_hot='steer' goes to the next device"
    # What was measured and what was declared are not the same thing: like is compared with like.
    like = [other for other in open_ones if other.joules is not None and other.measured == here.measured]
    if here.joules is None or not like:
        others_named = ", ".join(other.device for other in open_ones)
        unknown = f"unknown for {here.device if here.joules is None else others_named}"
        if here.joules is not None and any(other.joules is not None for other in open_ones):
            how = ("measured", "declared") if here.measured else ("declared", "measured")
            unknown = f"{how[0]} for {here.device}, and {how[1]} or unknown for {others_named}"
        return "", (
            f"on_hot='auto' cannot compare: joules of an item are {unknown} "
            "(hetero bench measures them), so it stays and slows down"
        )
    best = min(like, key=lambda other: other.joules or 0.0)
    told = "measured" if here.measured else "declared"
    if best.joules is not None and best.joules < here.joules:
        return (
            best.device,
            f"{best.device} takes {best.joules:.3g} J for an item, {here.device} {here.joules:.3g} J, {told}",
        )
    return "", f"no other device takes fewer joules for an item than {here.joules:.3g} J, {told}: elsewhere heats more"
