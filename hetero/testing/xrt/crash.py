"""What a program did wrong with the vendor's library: counted, and where that takes the process down, not survived."""

from __future__ import annotations

import os
import sys
from collections import Counter
from typing import Literal, NoReturn, get_args

Misuse = Literal[
    "argument_size",
    "bad_xclbin",
    "dropped_run",
    "freed_buffer",
    "group_id",
    "in_flight_at_end",
    "instructions",
    "opcode",
    "restarted_run",
    "stale_input",
    "synced_in_flight",
    "too_many_arguments",
    "unset_argument",
    "unwritten_input",
    "waited_for_ever",
    "write_after_free",
    "written_in_flight",
]
"""Mistakes that are counted.

| kind | mistake | what comes of it |
|---|---|---|
| `argument_size` | a buffer is smaller than what the kernel reads or writes there | zeros, or bytes left out |
| `bad_xclbin` | an xclbin is empty or truncated | segmentation fault |
| `dropped_run` | a run or runlist was collected while in flight | the process aborts |
| `freed_buffer` | a buffer was collected while a run used it | garbage |
| `group_id` | a buffer was made with another group id than its argument's | garbage |
| `in_flight_at_end` | runs are in flight when the program ends | the process aborts |
| `instructions` | the instruction buffer or its word count is not the file's | the command times out |
| `opcode` | the first argument is not the kernel's opcode | the command ends in ERROR |
| `restarted_run` | a run was started while it was active | RuntimeError |
| `stale_input` | an input was written and not synced before the launch | the device reads what was there before |
| `synced_in_flight` | a buffer was synced while a run used it | torn data |
| `too_many_arguments` | more arguments than the kernel has | segmentation fault |
| `unset_argument` | an argument is missing, or was a float, a text, or over 32 bits | the command times out |
| `unwritten_input` | nobody ever wrote an input to the device (the usual sign of a wrong order) | zeros |
| `waited_for_ever` | a wait without a limit for a run that will never end | the process hangs with the GIL held |
| `write_after_free` | memory was written through `map()` after its buffer was collected | memory corruption |
| `written_in_flight` | an input's host memory was changed while a run used it | torn data |
"""


class SimulatedCrash(BaseException):
    """Here the vendor's library would have taken the process down, or would never have returned.

    No Exception, so that nothing which handles errors of a device can take it for one.
    """


class Ledger:
    """The mistakes that were made.

    Args:
        real_crashes: Take the process down in earnest.

    Attributes:
        misuse: How often each kind was seen.
        crashes: What would have taken the process down, in words.
    """

    def __init__(self, *, real_crashes: bool = False) -> None:
        self.misuse: Counter[Misuse] = Counter()
        self.crashes: list[str] = []
        self._real_crashes = real_crashes

    def note(self, kind: Misuse) -> None:
        """Count a mistake."""
        assert kind in get_args(Misuse), kind
        self.misuse[kind] += 1

    def crash(self, kind: Misuse, what: str) -> NoReturn:
        """Count a mistake that takes the process down, and do so.

        Raises:
            SimulatedCrash: Always.
        """
        self.crash_later(kind, what)
        raise SimulatedCrash(what)

    def crash_later(self, kind: Misuse, what: str) -> None:
        """As `crash`, from where nothing can be raised: every later call of the vendor's raises."""
        self.note(kind)
        self.crashes.append(what)
        if self._real_crashes or sys.is_finalizing():
            print(f"simulated XRT: {what}", file=sys.stderr, flush=True)  # noqa: T201
        if self._real_crashes:
            os.abort()

    def check(self) -> None:
        """Raise when a crash came before: there would be no process left to go on.

        Raises:
            SimulatedCrash: There was one.
        """
        if self.crashes:
            raise SimulatedCrash(f"the process would have ended before: {self.crashes[0]}")
