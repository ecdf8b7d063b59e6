"""Waiting for runtimes whose own wait holds the GIL: ask, sleep a little, ask again."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from hetero.backend import Call, PolledExecutable
from hetero.tensors import Array

_SPINS = 20
_SHORTEST = 20e-6
_LONGEST = 1e-3


def run_polled(
    executable: PolledExecutable, inputs: Mapping[str, Array], call: Call, sleep: Callable[[float], None] = time.sleep
) -> Mapping[str, Array]:
    """Start a run and wait for it without holding the GIL: a few turns without pause, then pauses of 20 us to 1 ms.

    A pause grows by a quarter each time, so that waiting costs at most about a quarter of the run's time in latency and
    little CPU.
    """
    ticket = executable.start(inputs, call)
    pause = _SHORTEST
    turns = 0
    while not ticket.done():
        turns += 1
        if turns <= _SPINS:
            sleep(0)
        else:
            sleep(pause)
            pause = min(pause * 1.25, _LONGEST)
    return ticket.result()
