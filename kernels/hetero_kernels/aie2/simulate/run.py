"""Gives life to a recorded design: cores, DMA channels and the host as actors on rings of buffers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hetero.errors import InputError, WrongAnswer
from hetero.tensors import Array
from hetero_kernels.aie2.pattern import places
from hetero_kernels.aie2.simulate.baton import Actor, Baton
from hetero_kernels.aie2.simulate.core import CorePort, call_kernel
from hetero_kernels.aie2.simulate.design import (
    Handle,
    Kernel,
    Link,
    ObjectFifo,
    Program,
    Runtime,
    Worker,
    bytes_of,
    running_host,
)
from hetero_kernels.aie2.simulate.host import Channel, HostPort, HostSide
from hetero_kernels.aie2.simulate.pool import Pool

BYTES_PER_CYCLE = 4
"""What a DMA channel moves in a cycle: one word."""


@dataclass(frozen=True)
class Outcome:
    """What a run showed.

    Attributes:
        cycles: Modelled, from the first transfer to the last wait.
        calls: How often each core's function ran, over all cores.
        columns: For each output FIFO of a shim the modelled cycles at which its column first got data and last gave
            some.
    """

    cycles: float
    calls: int
    columns: tuple[tuple[float, float], ...]

    @property
    def one_after_the_other(self) -> bool:
        """No two columns worked at the same time, although there are several."""
        spans = sorted(self.columns)
        return len(spans) > 1 and all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))


def run(
    program: Program,
    buffers: Sequence[Array],
    functions: Mapping[str, Callable[..., None]],
    roles: Mapping[str, Sequence[str]],
    cycles: float = 0,
    argument_roles: Sequence[str] = (),
) -> Outcome:
    """Run a design once, as one launch.

    Args:
        program: Made by a design with the stand-in's names.
        buffers: One array for each buffer argument, C-contiguous; outputs are written.
        functions: What each kernel of the design computes, by symbol: called with uint8 arrays.
        roles: Of each kernel's arguments: `in`, `out`, `inout`.
        cycles: Modelled, of one call of a kernel.
        argument_roles: Of each buffer argument, as its manifest says; empty when that is not known.

    Raises:
        InputError: The buffers are not those that the sequence takes.
        WrongAnswer: What the real array would answer wrongly, or never.
    """
    types = program.runtime.types
    if len(buffers) != len(types):
        raise InputError(f"the sequence takes {len(types)} buffers, got {len(buffers)}")
    for index, (buffer, kind) in enumerate(zip(buffers, types, strict=True)):
        if buffer.nbytes != bytes_of(kind):
            raise WrongAnswer(
                f"argument {index} has {buffer.nbytes:,} bytes, the sequence's has {bytes_of(kind):,}",
                fix="give both the same order: all inputs, then all outputs",
            )
    baton = Baton()
    array = _Array(program, baton)
    done = [0]

    def called() -> None:
        done[0] += 1

    for index, worker in enumerate(program.workers):
        array.add_core(index, worker, functions, roles, cycles, called)
    host = HostSide(baton, array.channels, list(buffers), types, argument_roles)
    for handle in program.runtime.handles:
        handle.port = HostPort(host)
    main = baton.add("the host", lambda actor: _host(actor, program.runtime, host), ends=True)
    try:
        baton.run()
    finally:
        for handle in array.handles:
            handle.port = None
    host.check()
    return Outcome(main.time, done[0], tuple(array.spans()))


def _host(actor: Actor, runtime: Runtime, host: HostSide) -> None:
    host.actor = actor
    running_host.set(host)
    given = iter(host.arguments)
    runtime.sequence(*(a if isinstance(a, Handle) else next(given) for a in runtime.arguments))
    host.end()


class _Array:
    """The pools and the actors of a design."""

    def __init__(self, program: Program, baton: Baton) -> None:
        self._baton = baton
        self._links: dict[int, Pool] = {}
        self.channels: dict[int, Channel] = {}
        self.handles = [h for worker in program.workers for h in worker.handles] + program.runtime.handles
        self._ports: dict[int, tuple[Pool, int]] = {}
        for fifo in all_fifos(program):
            self._connect(fifo)

    def add_core(
        self,
        index: int,
        worker: Worker,
        functions: Mapping[str, Callable[..., None]],
        roles: Mapping[str, Sequence[str]],
        cycles: float,
        called: Callable[[], None],
    ) -> None:
        name = f"core {index}"

        def body(actor: Actor) -> None:
            for handle in worker.handles:
                pool, place = self._ports[id(handle)]
                handle.port = CorePort(actor, pool, place, handle)
            arguments = [
                _OnCore(actor, argument, cycles, called, functions, roles) if isinstance(argument, Kernel) else argument
                for argument in worker.fn_args
            ]
            turns = 0
            while worker.while_true or turns == 0:
                worker.core_fn(*arguments)
                turns += 1

        self._baton.add(name, body)

    def spans(self) -> list[tuple[float, float]]:
        """When each output's column began and ended."""
        outputs = [c for c in self.channels.values() if not c.fills and c.last is not None]
        inputs = [c for c in self.channels.values() if c.fills and c.first is not None]
        found = []
        for output in outputs:
            feeding = [c.first for c in inputs if c.fifo in _upstream(output.fifo) and c.first is not None]
            found.append((min(feeding, default=0.0), float(output.last or 0)))
        return found

    def _connect(self, fifo: ObjectFifo) -> None:
        """The DMA channel of a FIFO, between the memory of its producer and those of its consumers."""
        for end in (fifo.producer, *fifo.consumers):
            if end is None or end.end is None:
                raise WrongAnswer(
                    f"FIFO {fifo.name} has an end that nobody holds", fix="give it to a worker, a link or the sequence"
                )
        assert fifo.producer is not None
        producer, consumers = fifo.producer, fifo.consumers
        if not consumers:
            raise WrongAnswer(f"FIFO {fifo.name} has no consumer", fix="take cons() of it")
        targets = [self._in(handle) for handle in consumers if not isinstance(handle.end, Runtime)]
        if isinstance(producer.end, Runtime):
            channel = Channel(self._baton, fifo, True)
            self.channels[id(fifo)] = channel
            self._baton.add(f"shim channel into {fifo.name}", lambda actor: self._pump_in(actor, channel, targets))
        else:
            source = self._out(producer)
            if any(isinstance(handle.end, Runtime) for handle in consumers):
                channel = Channel(self._baton, fifo, False)
                self.channels[id(fifo)] = channel
                self._baton.add(
                    f"shim channel out of {fifo.name}", lambda actor: self._pump_out(actor, channel, source)
                )
            else:
                self._baton.add(f"DMA of {fifo.name}", lambda actor: self._pump(actor, fifo, source, targets))

    def _in(self, handle: Handle) -> tuple[Pool, int, Handle]:
        """Where a consumer's data arrive: pool and writer."""
        if isinstance(handle.end, Link):
            pool = self._link_pool(handle.end)
            writer = handle.end.sources.index(handle)
            return pool, writer, handle
        fifo = handle.fifo
        pool = Pool(self._baton, handle.name, fifo.size, handle.depth, [(0, fifo.size)], [(0, fifo.size)])
        self._ports[id(handle)] = pool, 0
        return pool, 0, handle

    def _out(self, handle: Handle) -> tuple[Pool, int, list[tuple[int, int]]]:
        """Where a producer's data lie: pool, reader, and the segments that an access pattern is applied to."""
        fifo = handle.fifo
        if isinstance(handle.end, Link):
            link = handle.end
            pool = self._link_pool(link)
            reader = link.targets.index(handle)
            segments = pool.writers if len(link.sources) > 1 else ((0, pool.readers[reader][1]),)
            return pool, reader, list(segments)
        pool = Pool(self._baton, handle.name, fifo.size, handle.depth, [(0, fifo.size)], [(0, fifo.size)])
        self._ports[id(handle)] = pool, 0
        return pool, 0, [(0, fifo.size)]

    def _link_pool(self, link: Link) -> Pool:
        if id(link) not in self._links:
            joins = len(link.sources) > 1
            item = link.sources[0].fifo.dtype.itemsize
            whole, parts = (link.targets[0], link.sources) if joins else (link.sources[0], link.targets)
            segments = [(o * item, h.fifo.size) for o, h in zip(link.offsets, parts, strict=True)]
            everything = [(0, whole.fifo.size)]
            self._links[id(link)] = Pool(
                self._baton,
                f"the memory tile's buffers of {whole.fifo.name}",
                whole.fifo.size,
                whole.depth,
                segments if joins else everything,
                everything if joins else segments,
            )
        return self._links[id(link)]

    def _pump(
        self,
        actor: Actor,
        fifo: ObjectFifo,
        source: tuple[Pool, int, list[tuple[int, int]]],
        targets: Sequence[tuple[Pool, int, Handle]],
    ) -> None:
        pool, reader, segments = source
        while True:
            data = _streamed(fifo, pool.wait_to_read(actor, reader), segments)
            rooms = [target.wait_to_write(actor, writer) for target, writer, _ in targets]
            actor.time += data.size / BYTES_PER_CYCLE
            for room, (target, writer, handle) in zip(rooms, targets, strict=True):
                _arrive(fifo, handle, room, data)
                target.wrote(actor, writer)
            pool.release(actor, reader)

    def _pump_in(self, actor: Actor, channel: Channel, targets: Sequence[tuple[Pool, int, Handle]]) -> None:
        while True:
            task = channel.next(actor)
            data = task.buffer[task.places]
            for start in range(0, data.size, channel.fifo.size):
                rooms = [target.wait_to_write(actor, writer) for target, writer, _ in targets]
                piece = data[start : start + channel.fifo.size]
                channel.moved(actor)
                actor.time += piece.size / BYTES_PER_CYCLE
                for room, (target, writer, handle) in zip(rooms, targets, strict=True):
                    _arrive(channel.fifo, handle, room, piece)
                    target.wrote(actor, writer)
            task.finished(actor)

    def _pump_out(self, actor: Actor, channel: Channel, source: tuple[Pool, int, list[tuple[int, int]]]) -> None:
        pool, reader, segments = source
        while True:
            task = channel.next(actor)
            for start in range(0, task.places.size, channel.fifo.size):
                data = _streamed(channel.fifo, pool.wait_to_read(actor, reader), segments)
                actor.time += data.size / BYTES_PER_CYCLE
                task.buffer[task.places[start : start + data.size]] = data
                pool.release(actor, reader)
                channel.moved(actor)
            task.finished(actor)


class _OnCore:
    """A kernel as a core calls it: takes modelled time and is counted."""

    def __init__(
        self,
        actor: Actor,
        kernel: Any,
        cycles: float,
        called: Callable[[], None],
        functions: Mapping[str, Callable[..., None]],
        roles: Mapping[str, Sequence[str]],
    ) -> None:
        self._actor, self._kernel, self._cycles, self._called = actor, kernel, cycles, called
        self._functions, self._roles = functions, roles

    def __call__(self, *arguments: Any) -> None:
        call_kernel(self._kernel, arguments, self._functions, self._roles)
        self._actor.time += self._cycles
        self._called()


def all_fifos(program: Program) -> list[ObjectFifo]:
    """All FIFOs of a design: those of its cores and of its sequence, and what links lead to."""
    found: list[ObjectFifo] = []
    handles = [h for worker in program.workers for h in worker.handles] + program.runtime.handles
    waiting = [handle.fifo for handle in handles]
    while waiting:
        fifo = waiting.pop(0)
        if any(fifo is known for known in found):
            continue
        found.append(fifo)
        for end in (fifo.producer, *fifo.consumers):
            if end is not None and isinstance(end.end, Link):
                waiting += [h.fifo for h in (*end.end.sources, *end.end.targets)]
    return found


def _upstream(fifo: ObjectFifo) -> list[ObjectFifo]:
    """The FIFOs whose data can reach this one."""
    found: list[ObjectFifo] = []
    waiting = [fifo]
    while waiting:
        one = waiting.pop()
        if any(one is known for known in found) or one.producer is None:
            continue
        found.append(one)
        end = one.producer.end
        if isinstance(end, Link):
            waiting += [h.fifo for h in end.sources]
        elif isinstance(end, Worker):
            waiting += [h.fifo for h in end.handles if not h.producer]
    return found


def _streamed(fifo: ObjectFifo, data: Array, segments: Sequence[tuple[int, int]]) -> Array:
    """The bytes in the order in which they leave: the pattern is applied to each segment on its own."""
    if not fifo.dims_to_stream:
        return np.array(data)
    order = places(fifo.dims_to_stream)
    item = fifo.dtype.itemsize
    parts = []
    for offset, size in segments:
        part = data[offset : offset + size].reshape(-1, item)
        if order.size != part.shape[0] or order.max() >= part.shape[0]:
            raise WrongAnswer(
                f"FIFO {fifo.name}: its access pattern takes {order.size:,} elements up to {int(order.max()):,}, "
                f"and a segment has {part.shape[0]:,}",
                fix="on a joined FIFO the pattern is that of one segment",
            )
        parts.append(part[order].reshape(-1))
    streamed: Array = np.concatenate(parts)
    return streamed


def _arrive(fifo: ObjectFifo, handle: Handle, room: Array, data: Array) -> None:
    if room.size != data.size:
        raise WrongAnswer(
            f"FIFO {fifo.name} sends {data.size:,} bytes at a time, {handle.name} has room for {room.size:,}",
            fix="give both sides one type",
        )
    if handle.dims_from_stream:
        item = fifo.dtype.itemsize
        room.reshape(-1, item)[places(handle.dims_from_stream)] = data.reshape(-1, item)
    else:
        room[:] = data
