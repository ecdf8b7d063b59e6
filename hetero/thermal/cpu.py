"""How busy the CPU is, by whomever: work that begins is seen there some seconds before its heat is felt.

A sensor lags by a second, tells steps of about a degree, and the die takes seconds to warm: by then a device at its
limit is above it. `/proc/stat`, which everybody may read, tells of the work at once.
"""

from __future__ import annotations

import re
from collections import deque
from pathlib import Path

from hetero.thermal import sysfs

# user, nice, system, idle, iowait, irq, softirq: what comes after them is counted in them, or is another machine's.
_LINE = re.compile(r"cpu +(\d+) (\d+) (\d+) (\d+) (\d+) (\d+) (\d+)")

# Looks: it rises against the most of these, but for the last, since work may begin in the middle between two looks.
_LOOKS = 15

# A share of all cores; less than that comes and goes all the time.
_LEAST = 0.03

# Degrees by which all cores at once heat a die within seconds: 2 C/W and 4 to 5 W, and half of that again (assumed).
_PER_LOAD = 7.5
_MOST = 1.5


class Rise:
    """Tells of work that begins, from a load that is seen second by second."""

    def __init__(self) -> None:
        self._last: deque[float] = deque(maxlen=_LOOKS)

    def take(self, share: float) -> float:
        """Take in a load.

        Args:
            share: Of all cores, 0 to 1.

        Returns:
            Degrees that the work will heat the die by which was not there in the last seconds; 0 for none.
        """
        known = list(self._last)[:-1]
        self._last.append(share)
        rise = share - max(known) if known else 0.0
        return min(_MOST, _PER_LOAD * rise) if rise >= _LEAST else 0.0


class CpuLoad:
    """The load of all cores. Not safe to use from several threads.

    Args:
        sysroot: Root of `/proc`.
    """

    def __init__(self, sysroot: Path) -> None:
        self._file = sysroot / "proc/stat"
        self._before: tuple[int, int] | None = None
        self._rise = Rise()

    def look(self) -> float | None:
        """Look again.

        Returns:
            As `Rise.take`; None where the load cannot be read.
        """
        before, now = self._before, self._ticks()
        self._before = now
        if now is None:
            return None
        if before is None or now[1] <= before[1]:
            return 0.0
        return self._rise.take(min(1.0, max(0.0, (now[0] - before[0]) / (now[1] - before[1]))))

    def _ticks(self) -> tuple[int, int] | None:
        """Those at work, and all."""
        match = _LINE.match(sysfs.text_or(self._file))
        if match is None:
            return None
        user, nice, system, idle, waits, hard, soft = (int(count) for count in match.groups())
        busy = user + nice + system + hard + soft
        return busy, busy + idle + waits
