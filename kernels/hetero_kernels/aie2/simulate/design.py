"""The names of `aie.iron` that designs use: they record what is connected to what, as the real ones do.

Constructors only record; `run` gives it life, and `budgets` counts it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from hetero.errors import OptionError, WrongAnswer
from hetero_kernels.aie2.iron import Iron
from hetero_kernels.aie2.pattern import Pattern, elements


def shape_of(kind: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype of a type that IRON takes: `np.ndarray[(64,), np.dtype[np.int8]]`."""
    shape, dtype = get_args(kind)
    return tuple(get_args(shape) or shape), np.dtype(get_args(dtype)[0])


def bytes_of(kind: Any) -> int:
    """Its bytes."""
    shape, dtype = shape_of(kind)
    return math.prod(shape) * dtype.itemsize


def text_of(kind: Any) -> str:
    """It in words: `int8 [64, 64]`."""
    shape, dtype = shape_of(kind)
    return f"{dtype} {list(shape)}"


class Kernel:
    """A core's function: its symbol, the object file that has it, the types of its arguments."""

    def __init__(self, name: str, bin_name: str, arg_types: Sequence[Any] = ()) -> None:
        self.name, self.bin_name, self.arg_types = name, bin_name, list(arg_types)

    def __call__(self, *arguments: Any) -> None:
        """A core calls what it was handed, not this."""
        raise OptionError(
            f"{self.name} is called by somebody who was not handed it", fix="add it to the worker's fn_args"
        )


class Buffer:
    """Memory of one core, which keeps what is written into it; rubbish at first unless it is given a value."""

    # The arguments' names are those of the real one.
    def __init__(self, type: Any, initial_value: Any = None, name: str | None = None) -> None:  # noqa: A002
        self.obj_type, self.name = type, name or f"buffer{id(self):x}"
        self.memory = np.full(bytes_of(type), 0xA5, np.uint8)
        if initial_value is not None:
            if initial_value.nbytes != bytes_of(type):
                raise OptionError(
                    f"{self.name} is {text_of(type)} and is given {initial_value.nbytes:,} bytes",
                    fix="give both one size",
                )
            self.memory[:] = np.ascontiguousarray(initial_value).reshape(-1).view(np.uint8)
        self.owner: Any = None


@dataclass(frozen=True)
class Tile:
    """A place in the array."""

    col: int
    row: int


class Link:
    """A split or a join: several FIFOs that share the buffers of a memory tile."""

    def __init__(
        self, sources: list[Handle], targets: list[Handle], offsets: Sequence[int], tile: Tile | None = None
    ) -> None:
        self.sources, self.targets, self.offsets, self.tile = sources, targets, list(offsets), tile
        for handle in (*sources, *targets):
            handle.attach(self)
        joins = len(sources) > 1
        whole = (targets if joins else sources)[0].fifo
        parts = [handle.fifo for handle in (sources if joins else targets)]
        covered = sorted((offset, offset + math.prod(part.shape)) for offset, part in zip(offsets, parts, strict=True))
        ends = [0, *(end for _, end in covered)]
        if [start for start, _ in covered] != ends[:-1] or ends[-1] != math.prod(whole.shape):
            raise WrongAnswer(
                f"the parts of {whole.name} lie at {covered} (elements), the whole has {math.prod(whole.shape)}",
                fix="give offsets and types that cover the whole once",
            )


class ObjectFifo:
    """A FIFO of buffers of one type between a producer and its consumers."""

    def __init__(
        self,
        obj_type: Any,
        depth: int = 2,
        name: str | None = None,
        dims_to_stream: Pattern | None = None,
        dims_from_stream_per_cons: Pattern | None = None,
    ) -> None:
        if depth < 1:
            raise OptionError(
                f"FIFO {name}: depth is {depth}, expected 1 or more", fix="2 lets both sides work at once"
            )
        self.obj_type, self.depth, self.name = obj_type, depth, name or f"fifo{id(self):x}"
        self.shape, self.dtype = shape_of(obj_type)
        self.dims_to_stream = list(dims_to_stream or ())
        self.dims_from_stream = list(dims_from_stream_per_cons or ())
        self.producer: Handle | None = None
        self.consumers: list[Handle] = []

    @property
    def size(self) -> int:
        """Bytes of one buffer."""
        return bytes_of(self.obj_type)

    def prod(self, depth: int | None = None) -> Handle:
        """The producer's handle; there is one."""
        if self.producer is None:
            self.producer = Handle(self, True, depth or self.depth, [])
        return self.producer

    def cons(self, depth: int | None = None, dims_from_stream: Pattern | None = None) -> Handle:
        """A new consumer's handle."""
        pattern = list(dims_from_stream or self.dims_from_stream)
        self.consumers.append(Handle(self, False, depth or self.depth, pattern))
        return self.consumers[-1]


class Handle:
    """One side of a FIFO. Its `acquire`, `release`, `fill` and `drain` belong to whoever runs it."""

    def __init__(self, fifo: ObjectFifo, producer: bool, depth: int, dims_from_stream: list[Sequence[int]]) -> None:
        self.fifo, self.producer, self.depth, self.dims_from_stream = fifo, producer, depth, dims_from_stream
        self.end: Any = None
        self.port: Any = None

    @property
    def name(self) -> str:
        """The FIFO's name and the side."""
        return f"{self.fifo.name}.{'prod' if self.producer else 'cons'}"

    def attach(self, end: Any) -> None:
        """Say who holds it."""
        if self.end is not None and self.end is not end:
            raise OptionError(f"{self.name} has two ends", fix="take another handle by cons(), or another FIFO")
        self.end = end

    def acquire(self, count: int) -> Any:
        """`count` elements in all; those that are still held count."""
        if count > self.depth:
            raise OptionError(
                f"{self.name}: {count} elements are acquired, and it is {self.depth} deep", fix="make it deeper"
            )
        return self._running().acquire(count)

    def release(self, count: int) -> None:
        """Give `count` elements back, the oldest first."""
        self._running().release(count)

    def fill(
        self,
        source: Any,
        tap: Any = None,
        group: TaskGroup | None = None,
        wait: bool = False,
    ) -> None:
        """Send a buffer of the host, or what an access pattern reads of it."""
        self._running().fill(self, source, tap, group, wait)

    def drain(
        self,
        dest: Any,
        tap: Any = None,
        group: TaskGroup | None = None,
        wait: bool = False,
    ) -> None:
        """Receive into a buffer of the host, or where an access pattern says."""
        self._running().drain(self, dest, tap, group, wait)

    def split(
        self,
        offsets: Sequence[int],
        obj_types: Sequence[Any],
        names: Sequence[str] | None = None,
        depths: Sequence[int] | None = None,
        dims_to_stream: Sequence[Pattern] | None = None,
        tile: Tile | None = None,
    ) -> list[ObjectFifo]:
        """FIFOs that each take a segment of every buffer that this consumer receives."""
        parts = self._parts("split", offsets, obj_types, names, depths, dims_to_stream)
        Link([self], [part.prod() for part in parts], offsets, tile)
        return parts

    def join(
        self,
        offsets: Sequence[int],
        obj_types: Sequence[Any],
        names: Sequence[str] | None = None,
        depths: Sequence[int] | None = None,
        dims_to_stream: Sequence[Pattern] | None = None,
        tile: Tile | None = None,
    ) -> list[ObjectFifo]:
        """FIFOs that each bring a segment of every buffer that this producer sends."""
        parts = self._parts("join", offsets, obj_types, names, depths, dims_to_stream)
        Link([part.cons() for part in parts], [self], offsets, tile)
        return parts

    def forward(
        self,
        obj_type: Any = None,
        depth: int | None = None,
        name: str | None = None,
        dims_to_stream: Any = None,
        tile: Tile | None = None,
    ) -> ObjectFifo:
        """One FIFO that takes all that this consumer receives, through a memory tile."""
        kind, label = obj_type or self.fifo.obj_type, name or f"{self.fifo.name}_fwd"
        depths = None if depth is None else [depth]
        return self.split([0], [kind], [label], depths, [dims_to_stream] if dims_to_stream else None, tile)[0]

    def _parts(
        self, what: str, offsets: Sequence[int], obj_types: Sequence[Any], names: Any, depths: Any, dims: Any
    ) -> list[ObjectFifo]:
        if self.producer != (what == "join"):
            raise OptionError(f"{self.name} cannot {what}", fix="a consumer splits, a producer joins")
        for given, label in ((obj_types, "obj_types"), (names, "names"), (depths, "depths"), (dims, "dims_to_stream")):
            if given is not None and len(given) != len(offsets):
                raise OptionError(
                    f"{self.name}: {what} has {len(offsets)} offsets and {len(given)} {label}", fix="give one for each"
                )
        names = names or [f"{self.fifo.name}_{what}{i}" for i in range(len(offsets))]
        depths = depths or [self.depth] * len(offsets)
        dims = dims or [None] * len(offsets)
        return [ObjectFifo(*part) for part in zip(obj_types, depths, names, dims, strict=True)]

    def _running(self) -> Any:
        if self.port is None:
            raise OptionError(
                f"{self.name} is used outside of a worker and of the sequence, or was not handed to it",
                fix="hand it over: Worker(function, fn_args=[handle]), Runtime(sequence, [..., handle])",
            )
        return self.port


class Worker:
    """What one core does: `function(*fn_args)`, for ever."""

    def __init__(
        self,
        core_fn: Callable[..., None],
        fn_args: Sequence[Any] = (),
        stack_size: int | None = None,
        while_true: bool = True,
    ) -> None:
        self.core_fn, self.fn_args, self.while_true = core_fn, list(fn_args), while_true
        self.stack_size = 1024 if stack_size is None else stack_size
        for argument in self.fn_args:
            if isinstance(argument, ObjectFifo):
                raise OptionError(f"a worker was given the FIFO {argument.name}", fix="give .prod() or .cons() of it")
            if isinstance(argument, Handle):
                argument.attach(self)
            if isinstance(argument, Buffer):
                if argument.owner is not None:
                    raise OptionError(f"{argument.name} is handed to two workers", fix="give each core its own")
                argument.owner = self

    @property
    def handles(self) -> list[Handle]:
        """The FIFOs' sides that it holds."""
        return [argument for argument in self.fn_args if isinstance(argument, Handle)]

    @property
    def kernels(self) -> list[Kernel]:
        """The functions that it calls."""
        return [argument for argument in self.fn_args if isinstance(argument, Kernel)]


class Runtime:
    """The host's side: a sequence, and what it is called with: the types of buffers, and handles."""

    def __init__(self, sequence: Callable[..., None], arguments: Sequence[Any] = ()) -> None:
        self.sequence, self.arguments = sequence, list(arguments)
        for argument in self.arguments:
            if isinstance(argument, Handle):
                argument.attach(self)
            if isinstance(argument, Buffer):
                if argument.owner is not None:
                    raise OptionError(f"{argument.name} is handed to two workers", fix="give each core its own")
                argument.owner = self

    @property
    def types(self) -> list[Any]:
        """Of the buffers, in the order of the compiled kernel's arguments."""
        return [argument for argument in self.arguments if not isinstance(argument, Handle)]

    @property
    def handles(self) -> list[Handle]:
        """The FIFOs' sides that it holds."""
        return [argument for argument in self.arguments if isinstance(argument, Handle)]


running_host: ContextVar[Any] = ContextVar("running_host", default=None)
"""Who runs the sequence in this thread."""


class TaskGroup:
    """Transfers that are awaited together."""

    def __init__(self) -> None:
        self.host = running_host.get()
        if self.host is None:
            raise OptionError("TaskGroup() outside of the sequence", fix="make it in the sequence's function")
        self.tasks: list[Any] = []
        self.finished = False
        self.host.opened(self)

    def finish(self) -> None:
        """Wait for those that were to be waited for, and give up the rest."""
        self.host.finish(self)


class TensorAccessPattern:
    """Which elements of a buffer of the host a transfer takes: sizes and strides, outermost first."""

    def __init__(
        self, tensor_dims: Sequence[int], offset: int = 0, sizes: Sequence[int] = (), strides: Sequence[int] = ()
    ) -> None:
        if len(sizes) != len(strides) or not sizes:
            raise OptionError(f"a pattern has sizes {list(sizes)} and strides {list(strides)}", fix="one for each")
        self.tensor_dims, self.offset = tuple(tensor_dims), offset
        self.pattern = [(int(size), int(stride)) for size, stride in zip(sizes, strides, strict=True)]
        last = offset + sum((size - 1) * stride for size, stride in self.pattern)
        if offset < 0 or last >= math.prod(self.tensor_dims):
            raise WrongAnswer(
                f"a pattern reaches element {last} of a buffer of {math.prod(self.tensor_dims)}",
                fix="mend its offset, sizes or strides",
            )

    @property
    def elements(self) -> int:
        """How many it takes."""
        return elements(self.pattern)


class Program:
    """A whole design."""

    def __init__(self, device: Any, runtime: Runtime, workers: Sequence[Worker] = ()) -> None:
        self.device, self.runtime, self.workers = device, runtime, list(workers)

    def resolve_program(self) -> Program:
        """The design itself; the real one gives MLIR."""
        return self


class Phoenix:
    """The device: four columns of four cores, a memory tile and a shim."""

    columns, rows = 4, 4


def stand_in() -> Iron:
    """The stand-in's names, for a design."""
    return Iron(
        Kernel, ObjectFifo, Worker, Runtime, TaskGroup, Program, TensorAccessPattern, Phoenix, Buffer, Tile, range
    )
