"""The host's side: the sequence's transfers, in the queues of the shims, and waiting for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hetero.errors import WrongAnswer
from hetero.tensors import Array
from hetero_kernels.aie2.pattern import places
from hetero_kernels.aie2.simulate.baton import Actor, Baton
from hetero_kernels.aie2.simulate.design import Handle, ObjectFifo, TaskGroup, shape_of

START_IN, START_OUT = 1155, 570
"""Cycles from the start of a transfer to its first word, in and out of the array: of AMD's Phoenix, modelled."""
QUEUE = 4
"""Transfers that a shim's channel keeps."""


@dataclass(frozen=True)
class HostBuffer:
    """A buffer argument of the sequence.

    Attributes:
        index: Among the buffers.
        memory: Its bytes, uint8 `[size]`.
        item: Bytes of an element.
        elements: How many there are.
        role: What the manifest says; empty when that is not known.
    """

    index: int
    memory: Array
    item: int
    elements: int
    role: str


class Task:
    """One transfer."""

    def __init__(self, label: str, buffer: Array, where: Array, wait: bool, at: float) -> None:
        self.label, self.buffer, self.places, self.wait, self.at = label, buffer, where, wait, at
        self.done_at: float | None = None
        self.awaited = False

    def finished(self, actor: Actor) -> None:
        """The last byte has moved."""
        self.done_at = actor.time


class Channel:
    """A shim's DMA channel of one FIFO: transfers in turn.

    Attributes:
        fifo: Whose.
        fills: It brings data into the array.
        first: Modelled cycle of the first buffer that it moved.
        last: Of the last one.
    """

    def __init__(self, baton: Baton, fifo: ObjectFifo, fills: bool) -> None:
        self._baton = baton
        self.fifo, self.fills = fifo, fills
        self.tasks: list[Task] = []
        self._begun = 0
        self.first: float | None = None
        self.last: float | None = None

    def push(self, task: Task) -> None:
        """Put a transfer into the queue.

        Raises:
            WrongAnswer: The queue is full, or the transfer is no whole number of the FIFO's buffers.
        """
        if len([t for t in self.tasks if t.done_at is None]) >= QUEUE:
            raise WrongAnswer(
                f"{task.label}: the channel's queue keeps {QUEUE} transfers, this is one more",
                fix="finish a group before the next, or take longer transfers",
            )
        if task.places.size % self.fifo.size:
            raise WrongAnswer(
                f"{task.label} moves {task.places.size:,} bytes, no multiple of the {self.fifo.size:,} of a buffer",
                fix="mend the access pattern",
            )
        self.tasks.append(task)

    def next(self, actor: Actor) -> Task:
        """The next transfer, once there is one."""
        self._baton.wait(actor, lambda: self._begun < len(self.tasks), f"a transfer of {self.fifo.name}")
        task = self.tasks[self._begun]
        self._begun += 1
        actor.time = max(actor.time, task.at) + (START_IN if self.fills else START_OUT)
        return task

    def moved(self, actor: Actor) -> None:
        """A buffer begins (in) or has ended (out) to move."""
        self.first = actor.time if self.first is None else self.first
        self.last = actor.time


class HostSide:
    """The host while its sequence runs."""

    def __init__(
        self,
        baton: Baton,
        channels: Mapping[int, Channel],
        buffers: Sequence[Array],
        types: Sequence[Any],
        roles: Sequence[str],
    ) -> None:
        self._baton, self._channels = baton, channels
        self.actor: Actor | None = None
        self._groups: list[TaskGroup] = []
        self._default: list[Task] = []
        self.arguments = []
        for index, (buffer, kind) in enumerate(zip(buffers, types, strict=True)):
            item = shape_of(kind)[1].itemsize
            memory = buffer.reshape(-1).view(np.uint8)
            role = roles[index] if roles else ""
            self.arguments.append(HostBuffer(index, memory, item, memory.size // item, role))

    def opened(self, group: TaskGroup) -> None:
        """A group was made."""
        self._groups.append(group)

    def start(self, verb: str, handle: Handle, buffer: Any, tap: Any, group: TaskGroup | None, wait: bool) -> None:
        """Begin a transfer."""
        label = f"{verb} of {handle.fifo.name}"
        if not isinstance(buffer, HostBuffer):
            raise WrongAnswer(f"{label}: {buffer!r} is no argument of the sequence", fix="give one of its buffers")
        if handle.producer != (verb == "fill"):
            raise WrongAnswer(f"{label}: {handle.name} is the other side", fix="fill prod(), drain cons()")
        if buffer.role == ("out" if verb == "fill" else "in"):
            raise WrongAnswer(
                f"{label} uses argument {buffer.index}, which the manifest calls an {buffer.role}put",
                fix="give both the same order: all inputs, then all outputs",
            )
        channel = self._channels.get(id(handle.fifo))
        if channel is None:
            raise WrongAnswer(
                f"{label}: the sequence was not handed {handle.name}", fix="add it to Runtime(..., [...])"
            )
        if tap is None:
            chosen = np.arange(buffer.elements)
        else:
            if int(np.prod(tap.tensor_dims)) != buffer.elements:
                raise WrongAnswer(
                    f"{label}: the pattern is for {int(np.prod(tap.tensor_dims)):,} elements, argument {buffer.index} "
                    f"has {buffer.elements:,}",
                    fix="mend the pattern",
                )
            chosen = places(tap.pattern) + tap.offset
        where = (chosen[:, None] * buffer.item + np.arange(buffer.item)).reshape(-1)
        assert self.actor is not None
        task = Task(label, buffer.memory, where, wait, self.actor.time)
        channel.push(task)
        (self._default if group is None else group.tasks).append(task)

    def finish(self, group: TaskGroup) -> None:
        """Wait for what a group is to wait for."""
        group.finished = True
        self._await(group.tasks)

    def end(self) -> None:
        """The sequence is over: what belongs to no group is awaited now."""
        self._await(self._default)
        for group in self._groups:
            if not group.finished:
                raise WrongAnswer("a task group was not finished", fix="call finish() on it")

    def check(self) -> None:
        """Everything that left the array must have been waited for.

        Raises:
            WrongAnswer: Something was not.
        """
        for channel in self._channels.values():
            for task in channel.tasks:
                if not channel.fills and not task.awaited:
                    raise WrongAnswer(
                        f"nobody waits for the {task.label}: the host would read its buffer too early",
                        fix="give it wait=True, and finish its group",
                    )
        for argument in self.arguments:
            if argument.role == "out" and not self._written(argument):
                raise WrongAnswer(f"nothing is drained into argument {argument.index}, an output", fix="drain into it")

    def _written(self, argument: HostBuffer) -> bool:
        tasks = [task for channel in self._channels.values() if not channel.fills for task in channel.tasks]
        return any(task.buffer is argument.memory for task in tasks)

    def _await(self, tasks: Sequence[Task]) -> None:
        assert self.actor is not None
        for task in tasks:
            if task.wait:
                self._baton.wait(self.actor, lambda task=task: task.done_at is not None, f"the {task.label}")  # type: ignore[misc]
                self.actor.time = max(self.actor.time, float(task.done_at or 0))
                task.awaited = True


class HostPort:
    """A handle of a FIFO in the hands of the sequence."""

    def __init__(self, host: HostSide) -> None:
        self._host = host

    def fill(self, handle: Handle, buffer: Any, tap: Any, group: TaskGroup | None, wait: bool) -> None:
        """Begin a transfer into the array."""
        self._host.start("fill", handle, buffer, tap, group, wait)

    def drain(self, handle: Handle, buffer: Any, tap: Any, group: TaskGroup | None, wait: bool) -> None:
        """Begin a transfer out of the array."""
        self._host.start("drain", handle, buffer, tap, group, wait)
