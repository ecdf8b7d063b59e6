"""The machine behind the simulated module: contexts on columns, commands in flight, faults, and counters.

When a command ends is settled when it is submitted: its columns work off what they were given, in order. It is carried
out when somebody looks after that moment, so that no thread is needed that a wait with the GIL held could stop.
"""

from __future__ import annotations

import itertools
import math
import random
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hetero.tensors import Array
from hetero.testing.xrt.clock import Clock
from hetero.testing.xrt.crash import Ledger, Misuse
from hetero.testing.xrt.design import Design, DesignArgument, Reference
from hetero.testing.xrt.enums import CommandState
from hetero.testing.xrt.kernels import kernel_program, reference_of
from hetero.testing.xrt.launch import Command, Context, Job, inspect
from hetero.testing.xrt.memory import Buffer, Memory
from hetero.testing.xrt.modelled import seconds_of
from hetero.testing.xrt.phoenix import Fault, SimulatedPhoenix
from hetero.testing.xrt.stand_in import Image

_FAILED: dict[Fault, CommandState] = {
    "error": CommandState.ERT_CMD_STATE_ERROR,
    "abort": CommandState.ERT_CMD_STATE_ABORT,
    "lost": CommandState.ERT_CMD_STATE_ABORT,
}


@dataclass(frozen=True)
class Report:
    """What a simulated NPU has done so far.

    Attributes:
        launches: Kernels that were started.
        tiles: Tiles of the launches that completed.
        contexts: Alive now.
        buffers: Alive now.
        peak_in_flight: Commands in flight at most, in all contexts together.
        column_launches: Launches that each column took part in.
        busy_seconds: Modelled seconds that each column was at work.
        misuse: Mistakes by kind, see `crash.Misuse`.
        crashes: What would have taken the process down, in words.
    """

    launches: int
    tiles: int
    contexts: int
    buffers: int
    peak_in_flight: int
    column_launches: tuple[int, ...]
    busy_seconds: tuple[float, ...]
    misuse: Mapping[Misuse, int]
    crashes: tuple[str, ...]


class Npu:
    """A simulated NPU with its driver.

    Args:
        phoenix: What is simulated.
        kernels: Exact answers by logical kernel; those that are not here come from the installed plugins.
        clock: Real time, or a test's.

    Attributes:
        ledger: The mistakes that were made with it.
        memory: Its buffers.
        lost: The device went away.
    """

    def __init__(self, phoenix: SimulatedPhoenix, kernels: Mapping[str, Reference], clock: Clock) -> None:
        self.phoenix = phoenix
        self.clock = clock
        self.ledger = Ledger(real_crashes=phoenix.real_crashes)
        self.memory = Memory(self.ledger, phoenix.memlock_bytes)
        self.lost = False
        self.generation = 0
        self._lock = threading.RLock()
        self._kernels = dict(kernels)
        self._faults = random.Random(phoenix.seed)
        self._garbage = np.random.default_rng(phoenix.seed)
        self._forced: list[Fault | None] = []
        self._released = False
        self._slots = itertools.count()
        self._contexts = 0
        self._users: Counter[int] = Counter()
        self._loaded: dict[int, str] = {}
        self._free_at = [0.0] * phoenix.columns
        self._busy = [0.0] * phoenix.columns
        self._column_launches = [0] * phoenix.columns
        self._commands: list[Command] = []
        self._launches = self._tiles = self._peak = 0

    # What a test asks and does.

    def report(self) -> Report:
        """The counters."""
        with self._lock:
            self.settle()
            return Report(
                launches=self._launches,
                tiles=self._tiles,
                contexts=self._contexts,
                buffers=self.memory.buffers,
                peak_in_flight=self._peak,
                column_launches=tuple(self._column_launches),
                busy_seconds=tuple(self._busy),
                misuse=dict(self.ledger.misuse),
                crashes=tuple(self.ledger.crashes),
            )

    def force(self, *faults: Fault | None) -> None:
        """Give the next launches these faults, None for an answer; after them faults are drawn again."""
        with self._lock:
            self._forced.extend(faults)

    def release_hangs(self) -> None:
        """Let hung commands end, in the state NORESPONSE; what waited behind them goes on; no column hangs again."""
        with self._lock:
            self.settle()
            self._released = True
            now = self.clock.now()
            waiting = [command for command in self._commands if command.end == math.inf]
            for command in waiting:
                for column in command.context.columns:
                    self._free_at[column] = now
            for command in waiting:
                if command.begin == math.inf:
                    self._plan(command, released=True)
                    continue
                for job in command.jobs:
                    job.end = min(job.end, now)
                command.end = now

    def restore(self) -> None:
        """Bring a lost device back, as a reset does: contexts of before stay dead."""
        with self._lock:
            self.lost = False

    def finish(self) -> Report:
        """The program ends: runs in flight now would abort it. Then the counters."""
        with self._lock:
            self.settle()
            for _ in self._commands:
                self.ledger.crash_later("in_flight_at_end", "a run was in flight when the program ended")
            return self.report()

    # What the vendor's module does.

    def enter(self) -> None:
        """Begin a call into the driver.

        Raises:
            RuntimeError: The device is lost.
            SimulatedCrash: There would be no process any more.
        """
        self.ledger.check()
        if self.phoenix.call_seconds:
            self.clock.hold(self.phoenix.call_seconds)
        self.settle()
        if self.lost:
            raise RuntimeError("DRM_IOCTL_AMDXDNA IOCTL failed (err=-19): No such device")

    def make_context(self, image: Image) -> Context:
        """A context on the columns that the fewest others use.

        Raises:
            RuntimeError: There are as many as there can be, or the xclbin takes more columns than there are.
        """
        self.enter()
        # pyxrt releases the GIL here from 2.23 on.
        wait = self.clock.pause if self.phoenix.version >= (2, 23) else self.clock.hold
        wait(self.phoenix.context_seconds)
        width = image.design.columns
        with self._lock:
            if self._contexts >= self.phoenix.contexts or width > self.phoenix.columns:
                raise RuntimeError("DRM_IOCTL_AMDXDNA_CREATE_HWCTX IOCTL failed (err=-22): Invalid argument")
            kernel = image.design.kernel
            if kernel not in self._kernels:
                self._kernels[kernel] = reference_of(kernel_program(kernel))
            windows = [range(first, first + width) for first in range(self.phoenix.columns - width + 1)]
            columns = min(windows, key=lambda window: sum(self._users[column] for column in window))
            self._contexts += 1
            self._users.update(columns)
            return Context(self, image, tuple(columns), next(self._slots) % 256, self._kernels[kernel])

    def released(self, context: Context) -> None:
        """Note that a context is gone."""
        with self._lock:
            self._contexts -= 1
            self._users.subtract(context.columns)

    def submit(self, context: Context, jobs: Sequence[Job], *, in_list: bool) -> Command:
        """Start jobs as one command; blocks with the GIL held while the context's queue is full.

        Raises:
            RuntimeError: The device was lost since the context was made.
            SimulatedCrash: The queue will never have room.
        """
        self.enter()
        if context.generation != self.generation:
            raise RuntimeError("DRM_IOCTL_AMDXDNA_EXEC_CMD IOCTL failed (err=-19): No such device")
        dispatch = self.phoenix.list_dispatch_seconds if in_list else self.phoenix.dispatch_seconds
        while True:
            with self._lock:
                mine = [command for command in self._commands if command.context is context]
                if len(mine) < self.phoenix.queue:
                    return self._accept(Command(context, tuple(jobs), dispatch))
            self._hold_until(min(command.end for command in mine), "a submit to a full queue that never moves")

    def wait(self, command: Command, seconds: float | None) -> bool:
        """Wait with the GIL held until a command is done.

        Args:
            command: One that was submitted.
            seconds: None for ever.

        Returns:
            Whether it is done.

        Raises:
            SimulatedCrash: It will never end, and the wait neither.
        """
        self.ledger.check()
        self.settle()
        limit = math.inf if seconds is None else self.clock.now() + seconds
        while not command.done and self.clock.now() < limit:
            self._hold_until(min(command.end, limit), "a wait without a limit for a run that never ends")
        return command.done

    def polled(self, command: Command) -> None:
        """Look whether a command is done."""
        self.ledger.check()
        self.settle()
        if not command.done:
            self.clock.polled()
            self.settle()

    def dropped(self, command: Command, what: str) -> None:
        """Note that nobody refers to a command any more."""
        if not command.done and command.end > self.clock.now():
            self.ledger.crash_later("dropped_run", f"a {what} was dropped while in flight: the vendor's library aborts")

    def synced(self, buffer: Buffer) -> None:
        """Note a sync: of a buffer that a run uses it is a mistake."""
        with self._lock:
            jobs = [job for command in self._commands for job in command.jobs]
            used = (job.buffer(index) for job in jobs for index in job.arguments)
            if any(other is not None and other.overlaps(buffer) for other in used):
                self.ledger.note("synced_in_flight")

    def settle(self) -> None:
        """Carry out what is over by now, in the order in which it ended."""
        with self._lock:
            now = self.clock.now()
            due = [command for command in self._commands if command.end <= now]
            for command in sorted(due, key=lambda command: command.end):
                if not command.done:
                    self._end(command)
            self.memory.visit_graves()

    # Within.

    def _accept(self, command: Command) -> Command:
        for job in command.jobs:
            job.outcome = self._drawn(command.context)
            inspect(job, self.ledger)
        self._launches += len(command.jobs)
        self._plan(command)
        self._commands.append(command)
        self._peak = max(self._peak, len(self._commands))
        return command

    def _hold_until(self, moment: float, what: str) -> None:
        if moment == math.inf:
            self.ledger.crash("waited_for_ever", f"{what}, with the GIL held: the process hangs")
        self.clock.hold(max(0.0, moment - self.clock.now()))
        self.settle()

    def _drawn(self, context: Context) -> Fault | None:
        draw = self._faults.random()
        stuck = any(
            column == self.phoenix.hung_column and self._column_launches[column] >= self.phoenix.hung_after
            for column in context.columns
        )
        for column in context.columns:
            self._column_launches[column] += 1
        if self._forced:
            return self._forced.pop(0)
        if stuck and not self._released:
            return "hang"
        for fault, share in self.phoenix.faults.items():
            if draw < share:
                return fault
            draw -= share
        return None

    def _plan(self, command: Command, *, released: bool = False) -> None:
        """Settle when a command begins and ends; one that was waiting when hangs were released does not hang."""
        columns = command.context.columns
        image = command.context.image
        command.begin = max(self.clock.now(), *(self._free_at[column] for column in columns))
        if command.begin == math.inf:
            return
        time = command.begin
        if any(self._loaded.get(column, image.uuid) != image.uuid for column in columns):
            time += self.phoenix.switch_seconds
        limit = time + self.phoenix.command_limit
        failed = False
        for job in command.jobs:
            if failed:
                job.end, job.final = time, CommandState.ERT_CMD_STATE_ABORT
                continue
            time += command.dispatch + seconds_of(image.design, self.phoenix)
            failed = True
            if job.outcome == "hang":
                time, job.final = time if released else math.inf, CommandState.ERT_CMD_STATE_NORESPONSE
            elif job.outcome == "timeout" or time > limit:
                time, job.final = limit, CommandState.ERT_CMD_STATE_TIMEOUT
            elif job.outcome in _FAILED:
                job.final = _FAILED[job.outcome]
            else:
                job.final, failed = CommandState.ERT_CMD_STATE_COMPLETED, False
            job.end = time
        command.end = time
        for column in columns:
            self._free_at[column] = time
            self._loaded[column] = image.uuid

    def _end(self, command: Command) -> None:
        command.done = True
        self._commands.remove(command)
        for column in command.context.columns:
            self._busy[column] += command.end - command.begin
        for job in command.jobs:
            if job.final is CommandState.ERT_CMD_STATE_COMPLETED:
                self._answer(job)
            job.state = job.final
        if any(job.outcome == "lost" for job in command.jobs):
            self._lose()

    def _lose(self) -> None:
        self.lost = True
        self.generation += 1
        for command in self._commands:
            command.done = True
            for job in command.jobs:
                job.state = CommandState.ERT_CMD_STATE_ABORT
        self._commands.clear()
        now = self.clock.now()
        self._free_at = [now] * self.phoenix.columns
        self._loaded.clear()

    def _answer(self, job: Job) -> None:
        """Compute what a launch leaves in device memory."""
        design = job.context.image.design
        buffers = {argument.index: job.buffer(argument.index) for argument in design.arguments}
        freed = [index for index, buffer in buffers.items() if buffer is None]
        for _ in freed:
            self.ledger.note("freed_buffer")
        contents: dict[int, Array] = {}
        for argument in design.arguments:
            buffer = buffers[argument.index]
            size = design.size_of(argument)
            contents[argument.index] = buffer.get(size, 0) if buffer is not None else self._noise(size)
            if buffer is not None and argument.index in job.fresh and buffer.stale():
                self.ledger.note("written_in_flight")
        if job.outcome == "garbage":
            outputs = {argument.index: self._noise(design.size_of(argument)) for argument in _written(design)}
        else:
            outputs = design.compute(contents, job.context.reference)
        for index, content in outputs.items():
            buffer = buffers[index]
            if buffer is not None:
                buffer.put(content, 0)
        self._tiles += design.tiles_per_launch

    def _noise(self, size: int) -> Array:
        return self._garbage.integers(0, 256, size, dtype=np.uint8)


def _written(design: Design) -> list[DesignArgument]:
    return [argument for argument in design.arguments if argument.role in ("out", "inout")]
