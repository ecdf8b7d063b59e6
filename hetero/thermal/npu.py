"""What the kernel tells of a Rockchip NPU's clock and load, without waking it up.

`/sys/kernel/debug/rknpu/freq` is left alone: reading it powers the NPU on. `load` in devfreq's folder is left alone
too: it is a constant.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from hetero.thermal import sysfs

_LOADS = ("proc/rknpu/load", "sys/kernel/debug/rknpu/load")


@dataclass(frozen=True)
class Frequency:
    """The NPU's clock, in Hz; None where the kernel does not say.

    Attributes:
        current: Of its last or present job; an idle NPU is off and still shows it.
        lowest: That it can be set to.
        highest: That it can be set to.
        limit: Above which the kernel does not go now (the user's limit, or a thermal one).
        governor: What chooses it.
        steps: All that it can be set to, lowest first.
    """

    current: int | None
    lowest: int | None
    highest: int | None
    limit: int | None
    governor: str | None
    steps: tuple[int, ...] = ()

    def __str__(self) -> str:
        span = f"{_mhz(self.lowest)}-{_mhz(self.highest)} MHz" if self.lowest and self.highest else ""
        extra = ", ".join(part for part in (span, self.governor) if part)
        return (f"{_mhz(self.current)} MHz" if self.current else "unknown") + (f" ({extra})" if extra else "")


@dataclass(frozen=True)
class Load:
    """How busy the NPU is.

    Attributes:
        percents: By core; None when the kernel does not show it, or nobody but root may read it.
        hidden: It is there, for root.
    """

    percents: tuple[int, ...] | None
    hidden: bool = False

    @property
    def share(self) -> float | None:
        """Of all cores, 0 to 1; None when it is unknown."""
        return sum(self.percents) / len(self.percents) / 100 if self.percents else None


def devfreq_folder(sysroot: Path) -> Path | None:
    """Where the NPU's clock is shown and set; its address is in the name (`fdab0000.npu`). None where it is not."""
    return next(iter(sysfs.entries(sysroot / "sys/class/devfreq", "*.npu")), None)


def npu_frequency(sysroot: Path) -> Frequency | None:
    """The NPU's clock; None where the kernel does not show it. Never raises.

    Args:
        sysroot: Root of `/sys`.
    """
    folder = devfreq_folder(sysroot)
    if folder is None:
        return None
    words = sysfs.text_or(folder / "available_frequencies").split()
    steps = sorted(int(word) for word in words if word.isascii() and word.isdigit())
    return Frequency(
        _positive(folder / "cur_freq"),
        steps[0] if steps else _positive(folder / "min_freq"),
        steps[-1] if steps else _positive(folder / "max_freq"),
        _positive(folder / "max_freq"),
        sysfs.text_or(folder / "governor") or None,
        tuple(steps),
    )


def npu_load(sysroot: Path) -> Load:
    """How busy the NPU is. Never raises.

    The kernel writes `NPU load:  Core0:  0%, Core1: 12%, Core2:  0%,`, and no `Core` on chips with one.

    Args:
        sysroot: Root of `/proc` and `/sys`.
    """
    hidden = False
    for place in _LOADS:
        try:
            words = re.findall(r"(\d{1,3})\s*%", sysfs.text(sysroot / place))
        except sysfs.Unreadable as error:
            hidden = hidden or error.forbidden
            continue
        if words:
            return Load(tuple(int(word) for word in words))
    return Load(None, hidden)


def _positive(file: Path) -> int | None:
    number = sysfs.integer_or_none(file)
    return number if number is not None and number >= 0 else None


def _mhz(hertz: int | None) -> str:
    return "?" if hertz is None else f"{hertz / 1e6:.0f}"
