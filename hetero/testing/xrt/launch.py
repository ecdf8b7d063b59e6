"""A launch: the context it runs in, its arguments, and the mistakes that can be found in them."""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hetero.testing.xrt.crash import Ledger, Misuse
from hetero.testing.xrt.design import Reference
from hetero.testing.xrt.enums import CommandState
from hetero.testing.xrt.memory import Buffer
from hetero.testing.xrt.phoenix import Fault
from hetero.testing.xrt.stand_in import Image

if TYPE_CHECKING:
    from hetero.testing.xrt.npu import Npu

# Memory banks, in the lower 16 bits of a group id; the context's slot is above them.
INSTRUCTION_BANK, DATA_BANK = 1, 0

Argument = int | weakref.ref[Buffer]


class Context:
    """A hardware context: an xclbin on columns of its own, or on columns that it shares in time."""

    def __init__(self, npu: Npu, image: Image, columns: tuple[int, ...], slot: int, reference: Reference) -> None:
        self.npu = npu
        self.image = image
        self.columns = columns
        self.slot = slot
        self.reference = reference
        self.generation = npu.generation

    def __del__(self) -> None:
        self.npu.released(self)


@dataclass(eq=False)
class Job:
    """One launch of a kernel. Refers to its buffers weakly, as the vendor's runs do.

    Attributes:
        arguments: By index, as they were set.
        state: What the vendor's module tells of it.
        outcome: What is to come of it, None for an answer.
        final: The state in which it will end.
        end: When, on the clock.
        fresh: Inputs whose host side was in order at the launch.
    """

    context: Context
    arguments: dict[int, Argument]
    state: CommandState = CommandState.ERT_CMD_STATE_NEW
    outcome: Fault | None = None
    final: CommandState = CommandState.ERT_CMD_STATE_COMPLETED
    end: float = math.inf
    fresh: set[int] = field(default_factory=set)

    def buffer(self, index: int) -> Buffer | None:
        """The buffer at an index, when one was set and is alive."""
        argument = self.arguments.get(index)
        return argument() if isinstance(argument, weakref.ref) else None


@dataclass(eq=False)
class Command:
    """Jobs that were submitted as one: a run, or a runlist."""

    context: Context
    jobs: Sequence[Job]
    dispatch: float
    begin: float = math.inf
    end: float = math.inf
    done: bool = False


def inspect(job: Job, ledger: Ledger) -> None:
    """Find the mistakes in a launch; the worst of them decides what comes of it."""
    image = job.context.image
    outcomes: set[Fault] = set()

    def wrong(kind: Misuse, outcome: Fault | None = None) -> None:
        ledger.note(kind)
        outcomes.update([outcome] if outcome else [])

    opcode, words = job.arguments.get(0), job.arguments.get(2)
    instructions = job.buffer(1)
    if not isinstance(opcode, int) or not isinstance(words, int) or instructions is None:
        wrong("unset_argument", "timeout")
    else:
        if opcode != image.design.opcode:
            wrong("opcode", "error")
        size = len(image.instructions)
        if words * 4 != size or instructions.get(size, 0).tobytes() != image.instructions:
            wrong("instructions", "timeout")
        if instructions.group & 0xFFFF != INSTRUCTION_BANK:
            wrong("group_id", "garbage")
    for argument in image.design.arguments:
        buffer = job.buffer(argument.index)
        if buffer is None:
            wrong("unset_argument", "timeout")
            continue
        if buffer.group & 0xFFFF != DATA_BANK:
            wrong("group_id", "garbage")
        if buffer.size < image.design.size_of(argument):
            wrong("argument_size")
        if argument.role in ("in", "inout", "weight", "constant"):
            if not buffer.written:
                wrong("unwritten_input")
            if buffer.stale():
                wrong("stale_input")
            else:
                job.fresh.add(argument.index)
    worst: tuple[Fault, ...] = ("timeout", "error", "garbage")
    if job.outcome not in ("hang", "lost"):
        job.outcome = next((outcome for outcome in worst if outcome in outcomes), job.outcome)
