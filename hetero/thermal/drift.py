"""Heat guessed from how long calls take, for devices that no sensor speaks for.

A device whose clock is lowered takes longer for the same work. Everything else that makes calls slow looks the same
from here, so this says `maybe`, and takes away half of the device at most.
"""

from __future__ import annotations

from collections import deque

_FIRST = 40
_LAST = 15
_WARM, _HOT = 1.15, 1.3
_LEAST = 0.5
_DOWN, _UP = 0.02, 0.01


class Drift:
    """How much slower a device has become, for calls of the same kind.

    Attributes:
        duty: What it may work, 0.5 to 1.
    """

    def __init__(self) -> None:
        self.duty = 1.0
        self._first: list[float] = []
        self._usual: float | None = None
        self._last: deque[float] = deque(maxlen=_LAST)

    def ran(self, relative: float) -> None:
        """A call has ended.

        Args:
            relative: Its seconds over what calls of its shapes usually take; plain seconds where all are alike.
        """
        if not relative > 0:
            return
        self._last.append(relative)
        if self._usual is None:
            self._first.append(relative)
            if len(self._first) >= _FIRST:
                # The quick ones: a first call compiles, others waited for something.
                self._usual = sorted(self._first)[_FIRST // 4]
                self._first = []

    @property
    def slowness(self) -> float | None:
        """The last calls' time over that of the first; None before enough of them were seen."""
        if self._usual is None or len(self._last) < _LAST:
            return None
        return sorted(self._last)[_LAST // 2] / self._usual

    def step(self, seconds: float) -> float:
        """The duty for the next second or so."""
        slowness = self.slowness
        if slowness is not None and slowness >= _HOT:
            self.duty = max(_LEAST, self.duty - _DOWN * seconds)
        elif slowness is None or slowness < _WARM:
            self.duty = min(1.0, self.duty + _UP * seconds)
        return self.duty

    def explain(self) -> str:
        """In words."""
        slowness = self.slowness
        if slowness is None:
            return "no temperature, and too few calls to see it grow slower"
        if slowness < _WARM:
            return f"no temperature; calls take {slowness:.2f} of their first time, so it is not throttled"
        return f"no temperature; calls take {slowness:.2f} of their first time, so it may be throttled by heat"
