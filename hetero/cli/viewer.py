"""What was seen of programs from look to look: their last answers, and how rates and temperatures went."""

from __future__ import annotations

import os
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hetero.monitor.asking import PATIENCE, Process, Silent, ask_all
from hetero.monitor.status import HeatStatus, RuntimeStatus

if TYPE_CHECKING:
    from hetero.backend import Host

KEPT = 60
"""Looks that are remembered."""

Key = tuple[int, float, int]
"""Of a Runtime: its process, when that began, and its number in it."""


@dataclass(frozen=True)
class Warmth:
    """The heat of a device without any program.

    Attributes:
        device: Its name.
        simulated: It is a simulator.
        heat: As it is now.
        celsius: How its temperature went, oldest first; None where it was unknown.
    """

    device: str
    simulated: bool
    heat: HeatStatus
    celsius: Sequence[float | None]


class History:
    """How a Runtime went.

    Attributes:
        rates: By session: requests per second between two looks.
        loads: By device: the share of its time at work.
        celsius: By device: its temperature, None when it was unknown.
    """

    def __init__(self) -> None:
        self.rates: dict[int, deque[float]] = defaultdict(_last)
        self.loads: dict[str, deque[float]] = defaultdict(_last)
        self.celsius: dict[str, deque[float | None]] = defaultdict(lambda: deque(maxlen=KEPT))
        self._before: dict[int, tuple[float, int]] = {}

    def add(self, status: RuntimeStatus) -> None:
        """Take in a look."""
        for session in status.sessions:
            at, ended = self._before.get(session.number, (status.age, session.ended))
            passed = status.age - at
            self.rates[session.number].append((session.ended - ended) / passed if passed > 0 else session.per_second)
            self._before[session.number] = status.age, session.ended
        for device in status.devices:
            self.loads[device.name].append(device.load)
            self.celsius[device.name].append(device.heat.celsius if device.heat is not None else None)

    def rate(self, session: int) -> float:
        """Requests of a session per second, as last seen."""
        rates = self.rates[session]
        return rates[-1] if rates else 0.0


class Viewer:
    """Looks at the programs of this user.

    Args:
        host: The machine.
        pid: Only this one.
        run: Only those that were started with this token.
        patience: Seconds for which each is waited for.
        ask: Asks them, for tests.

    Attributes:
        histories: By Runtime; those that are gone are forgotten, but for the last to go.
    """

    def __init__(
        self,
        host: Host,
        pid: int | None = None,
        run: str = "",
        patience: float = PATIENCE,
        ask: Callable[[Host, int | None, float], Sequence[Process | Silent]] = ask_all,
    ) -> None:
        self.histories: dict[Key, History] = {}
        self._host = host
        self._pid = pid
        self._run = run
        self._patience = patience
        self._ask = ask

    def look(self) -> list[Process | Silent]:
        """Ask anew."""
        answers = [answer for answer in self._ask(self._host, self._pid, self._patience) if self._meant(answer)]
        seen: dict[Key, RuntimeStatus] = {}
        silent = {answer.pid for answer in answers if isinstance(answer, Silent)}
        for answer in answers:
            if isinstance(answer, Process):
                seen |= {key_of(answer, status): status for status in answer.runtimes}
        kept = {key: history for key, history in self.histories.items() if key in seen or key[0] in silent}
        for key, status in seen.items():
            kept.setdefault(key, History()).add(status)
        if answers:
            self.histories = kept
        return answers

    def history(self, process: Process, status: RuntimeStatus) -> History:
        """How a Runtime went."""
        return self.histories.get(key_of(process, status)) or History()

    def _meant(self, answer: Process | Silent) -> bool:
        if answer.pid == os.getpid():
            return False
        return not self._run or (isinstance(answer, Process) and answer.run == self._run)


def key_of(process: Process, status: RuntimeStatus) -> Key:
    """What tells a Runtime from all others."""
    return process.pid, process.began, status.number


def _last() -> deque[float]:
    return deque(maxlen=KEPT)
