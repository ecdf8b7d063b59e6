"""Does a design fit Phoenix? Counted on the design itself, as the stand-in for `aie.iron` records it.

A compiler for the array refuses most of this too; a stack that is too small it does not: it runs into the buffers, and
every other call is wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hetero.errors import CompileError
from hetero_kernels.aie2.pattern import elements, is_linear
from hetero_kernels.aie2.simulate.design import (
    Buffer,
    Handle,
    Link,
    ObjectFifo,
    Phoenix,
    Program,
    Runtime,
    TaskGroup,
    TensorAccessPattern,
    Worker,
    bytes_of,
    running_host,
    shape_of,
)
from hetero_kernels.aie2.simulate.run import all_fifos

CORE_MEMORY = 64 * 1024
MEMORY_TILE = 512 * 1024
CORE_CHANNELS = 2
SHIM_CHANNELS = 2
MEMORY_TILE_CHANNELS = 6
CORE_DESCRIPTORS = 16
SHIM_DESCRIPTORS = 16
MEMORY_TILE_DESCRIPTORS = 48
SHIM_INNERMOST_WORDS = 1023
SHIM_SECOND_SIZE = 1023
SHIM_REPEATS = 64
SHIM_STRIDE_WORDS = 1 << 20
DIMENSIONS = {"core": 3, "memory tile": 4, "shim": 4}
WORD = 4


@dataclass(frozen=True)
class Need:
    """What one function of a core takes of its memory.

    Attributes:
        frame: Bytes of stack.
        data: Bytes of tables.
    """

    frame: int
    data: int = 0


@dataclass(frozen=True)
class Use:
    """How much of a limit is used, at the place that uses most of it.

    Attributes:
        what: Of what: `core memory`.
        used: In bytes or pieces.
        limit: What there is.
    """

    what: str
    used: int
    limit: int

    def __str__(self) -> str:
        return f"{self.what} {self.used:,} of {self.limit:,}"


def check(program: Program, needs: Mapping[str, Need]) -> list[Use]:
    """Hold a design against the array's limits.

    Args:
        program: Made by a design with the stand-in's names.
        needs: Of each kernel of the design, by symbol.

    Returns:
        How much of each limit it uses.

    Raises:
        CompileError: It does not fit; the message names what it takes and what there is.
    """
    uses = [*_array(program), *_cores(program, needs), *_memory_tiles(program), *_shims(program)]
    for fifo in all_fifos(program):
        _patterns(fifo)
    worst: dict[str, Use] = {}
    for use in uses:
        if use.what not in worst or use.used > worst[use.what].used:
            worst[use.what] = use
    return list(worst.values())


def _array(program: Program) -> Iterable[Use]:
    cores = Phoenix.columns * Phoenix.rows
    yield _within("cores", len(program.workers), cores, "the design", "take fewer columns or rows")
    for producer, what in ((True, "shim channels in"), (False, "shim channels out")):
        used = len([handle for handle in program.runtime.handles if handle.producer == producer])
        yield _within(
            what,
            used,
            Phoenix.columns * SHIM_CHANNELS,
            "the sequence",
            "bring several cores' data through one FIFO and split it in the memory tile",
        )


def _cores(program: Program, needs: Mapping[str, Need]) -> Iterable[Use]:
    for index, worker in enumerate(program.workers):
        name = f"core {index}"
        for producer, what in ((False, "core channels in"), (True, "core channels out")):
            count = len([handle for handle in worker.handles if handle.producer == producer])
            yield _within(what, count, CORE_CHANNELS, name, "put what arrives together into one buffer")
        descriptors = sum(handle.depth for handle in worker.handles)
        yield _within("core descriptors", descriptors, CORE_DESCRIPTORS, name, "make its FIFOs less deep")
        for kernel in worker.kernels:
            if kernel.name not in needs:
                raise CompileError(
                    f"{name} calls {kernel.name}, whose frame is not stated", fix="state the frame of every function"
                )
        frame = max((needs[kernel.name].frame for kernel in worker.kernels), default=0)
        if worker.stack_size < frame:
            raise CompileError(
                f"{name}: its stack has {worker.stack_size:,} bytes, and {_longest(worker, needs)} takes {frame:,}: it "
                "would overwrite the buffers beside it",
                fix=f"take a stack of {frame:,} bytes or more",
            )
        buffers = sum(handle.depth * handle.fifo.size for handle in worker.handles)
        own = [argument for argument in worker.fn_args if isinstance(argument, Buffer)]
        data = sum(needs[kernel.name].data for kernel in worker.kernels) + sum(bytes_of(b.obj_type) for b in own)
        yield _within(
            "core memory",
            buffers + worker.stack_size + data,
            CORE_MEMORY,
            f"{name} ({buffers:,} of buffers, {worker.stack_size:,} of stack, {data:,} of tables and state)",
            "take smaller tiles, or FIFOs of depth 1",
        )


def _longest(worker: Worker, needs: Mapping[str, Need]) -> str:
    return max(worker.kernels, key=lambda kernel: needs[kernel.name].frame).name


def _memory_tiles(program: Program) -> Iterable[Use]:
    """A column's links share its memory tile: those that lead to the same cores."""
    for number, links in enumerate(_columns(program)):
        name = f"memory tile {number}"
        taken = arriving = leaving = descriptors = 0
        for link in links:
            whole = link.targets[0] if len(link.sources) > 1 else link.sources[0]
            taken += whole.depth * whole.fifo.size
            arriving += len(link.sources)
            leaving += len(link.targets)
            # A descriptor for each segment of each buffer; what a join sends is read segment by segment.
            descriptors += whole.depth * (len(link.sources) + max(len(link.sources), len(link.targets)))
        yield _within("memory tile", taken, MEMORY_TILE, name, "make its FIFOs less deep, or take fewer rows")
        for what, used in (("memory tile channels in", arriving), ("memory tile channels out", leaving)):
            yield _within(what, used, MEMORY_TILE_CHANNELS, name, "take fewer rows")
        yield _within("memory tile descriptors", descriptors, MEMORY_TILE_DESCRIPTORS, name, "make its FIFOs less deep")


def _columns(program: Program) -> list[list[Link]]:
    """The links, grouped by the memory tile that they are put on, else by the cores that they lead to."""
    groups: list[tuple[set[int], list[Link]]] = []
    links = {
        id(end.end): end.end
        for fifo in all_fifos(program)
        for end in (fifo.producer, *fifo.consumers)
        if end is not None and isinstance(end.end, Link)
    }
    for link in links.values():
        ends = [other for handle in (*link.sources, *link.targets) for other in _others(handle)]
        cores = {id(end.end) for end in ends if isinstance(end.end, Worker)} or {id(link)}
        if link.tile is not None:
            cores = {hash(link.tile)}
        together = [group for group in groups if group[0] & cores]
        merged = (
            cores.union(*(group[0] for group in together)),
            [*(one for group in together for one in group[1]), link],
        )
        groups = [group for group in groups if not group[0] & cores] + [merged]
    return [group[1] for group in groups]


def _others(handle: Handle) -> list[Handle]:
    ends = handle.fifo.consumers if handle.producer else [handle.fifo.producer]
    return [end for end in ends if end is not None]


def _shims(program: Program) -> Iterable[Use]:
    """The sequence's transfers, as it makes them."""
    recorder = _Recorder()
    runtime = program.runtime
    for handle in runtime.handles:
        handle.port = recorder
    before = running_host.set(recorder)
    try:
        given = iter(runtime.types)
        runtime.sequence(*(a if isinstance(a, Handle) else next(given) for a in runtime.arguments))
    finally:
        running_host.reset(before)
        for handle in runtime.handles:
            handle.port = None
    for fifo, used in recorder.most.items():
        yield _within(
            "shim descriptors",
            used,
            SHIM_DESCRIPTORS,
            f"the shim of {fifo}",
            "finish a group of transfers before the next one, or take longer transfers",
        )
    yield from recorder.uses


class _Recorder:
    """Stands for the host and counts what is under way."""

    def __init__(self) -> None:
        self.most: dict[str, int] = {}
        self.uses: list[Use] = []
        self._open: list[tuple[str, Any]] = []

    def opened(self, group: TaskGroup) -> None:
        pass

    def finish(self, group: TaskGroup) -> None:
        group.finished = True
        self._open = [entry for entry in self._open if entry[1] is not group]

    def fill(self, handle: Handle, buffer: Any, tap: Any, group: Any, wait: bool) -> None:
        self._transfer(handle, buffer, tap, group)

    def drain(self, handle: Handle, buffer: Any, tap: Any, group: Any, wait: bool) -> None:
        self._transfer(handle, buffer, tap, group)

    def _transfer(self, handle: Handle, buffer: Any, tap: Any, group: Any) -> None:
        name = handle.fifo.name
        self._open.append((name, group))
        under_way = len([entry for entry in self._open if entry[0] == name])
        self.most[name] = max(self.most.get(name, 0), under_way)
        item = shape_of(buffer)[1].itemsize
        steps = tap.pattern if isinstance(tap, TensorAccessPattern) else [(bytes_of(buffer) // item, 1)]
        self.uses += _transfer_uses(f"the transfer of {name}", steps, item)


def _transfer_uses(name: str, steps: Sequence[tuple[int, int]], item: int) -> Iterable[Use]:
    """What one transfer takes of a shim's descriptor: three dimensions, and a number of repeats around them.

    The limits are the widths of the descriptor's fields, as `verifyStridesWraps` of mlir-aie's AIEX dialect has them. A
    run of elements one behind the other takes no dimension, and its length has a field of its own.
    """
    if len(steps) > DIMENSIONS["shim"]:
        steps = [step for step in steps if step[0] > 1]
    _within("dimensions of a shim's pattern", len(steps), DIMENSIONS["shim"], name, "take a simpler pattern")
    repeats, third, second, innermost = [(1, 0)] * (DIMENSIONS["shim"] - len(steps)) + list(steps)
    yield _within(
        "repeats of a shim's descriptor",
        repeats[0],
        SHIM_REPEATS,
        f"{name} (its outermost dimension)",
        "share the repeats out among several transfers, or take more columns or fewer tiles a core",
    )
    for size, stride in (repeats, third, second, innermost):
        if size > 1:
            yield _within(
                "words of a shim's stride",
                -(-stride * item // WORD),
                SHIM_STRIDE_WORDS,
                f"{name} (size {size:,})",
                "bring what is further apart by transfers of their own",
            )
    inner = [step for step in (third, second, innermost) if step[0] > 1]
    if any(stride < 1 for _, stride in inner):
        raise CompileError(
            f"{name}: an inner dimension has the stride 0, and a shim repeats in its outermost one only",
            fix="put what is repeated outermost",
        )
    if third[0] == second[0] == 1 and innermost[1] == 1:
        if innermost[0] * item % WORD:
            raise CompileError(
                f"{name} moves {innermost[0] * item:,} bytes, expected whole words of {WORD}",
                fix="make it a multiple of 4 bytes",
            )
        return
    _shape_of_pattern(name, "shim", inner, item)
    yield _within(
        "words of a shim's innermost dimension",
        innermost[0] * item // WORD,
        SHIM_INNERMOST_WORDS,
        name,
        "split its innermost dimension in two",
    )
    yield _within(
        "entries of a shim's second dimension",
        second[0],
        SHIM_SECOND_SIZE,
        name,
        "split its second dimension in two, or take fewer tiles a core",
    )


def _patterns(fifo: ObjectFifo) -> None:
    """The access patterns of a FIFO, where they are applied."""
    assert fifo.producer is not None
    item = fifo.dtype.itemsize
    if fifo.dims_to_stream:
        end = fifo.producer.end
        where = "memory tile" if isinstance(end, Link) else "shim" if isinstance(end, Runtime) else "core"
        parts = [fifo.size]
        if isinstance(end, Link) and len(end.sources) > 1:
            parts = [handle.fifo.size for handle in end.sources]
        _pattern(fifo, where, fifo.dims_to_stream, parts, item)
    for handle in fifo.consumers:
        if handle.dims_from_stream:
            where = "memory tile" if isinstance(handle.end, Link) else "core"
            _pattern(fifo, where, handle.dims_from_stream, [fifo.size], item)


def _pattern(fifo: ObjectFifo, where: str, pattern: Any, parts: list[int], item: int) -> None:
    for size in parts:
        if elements(pattern) * item != size:
            raise CompileError(
                f"FIFO {fifo.name}: its access pattern takes {elements(pattern) * item:,} bytes of a segment of "
                f"{size:,}",
                fix="on a joined FIFO the pattern is that of one segment",
            )
    _shape_of_pattern(f"FIFO {fifo.name}", where, [tuple(step) for step in pattern], item)


def _shape_of_pattern(name: str, where: str, pattern: list[tuple[int, int]], item: int) -> None:
    if is_linear(pattern):
        return
    most = DIMENSIONS[where]
    _within(f"dimensions of a {where}'s pattern", len(pattern), most, name, "take a simpler pattern")
    for size, stride in pattern[:-1]:
        if stride * item % WORD:
            raise CompileError(
                f"{name}: a stride of {stride * item} bytes (size {size}); a DMA steps by whole words of {WORD}",
                fix="arrange smaller pieces in the core",
            )
    size, stride = pattern[-1]
    if stride != 1 or size * item % WORD:
        raise CompileError(
            f"{name}: its innermost dimension takes {size} elements of {item} bytes with a stride of {stride}; a DMA "
            f"moves whole words of {WORD}",
            fix="arrange smaller pieces in the core",
        )


def _within(what: str, used: int, limit: int, where: str, fix: str) -> Use:
    if used > limit:
        raise CompileError(f"{where} takes {used:,} {what}, and there are {limit:,}", fix=fix)
    return Use(what, used, limit)
