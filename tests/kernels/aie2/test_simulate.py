"""The stand-in for `aie.iron`: what moves where, and what a run reports."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from hetero.errors import InputError, OptionError, WrongAnswer
from hetero_kernels.aie2.pattern import blocked, is_linear, places, unblocked
from hetero_kernels.aie2.simulate import Outcome, run, stand_in

IRON = stand_in()
SIZE = 64


def flat(size: int, dtype: Any = np.int8) -> Any:
    return np.ndarray[(size,), np.dtype[dtype]]  # type: ignore[misc]


def copy(source: Any, target: Any) -> None:
    target[:] = source


def one_each(source: Any, target: Any, function: Any) -> None:
    tile, answer = source.acquire(1), target.acquire(1)
    function(tile, answer)
    source.release(1)
    target.release(1)


def moved(load: Any, cores: list[Any], store: Any, length: int, dtype: Any = np.int8) -> np.ndarray[Any, Any]:
    """What comes out when 0, 1, 2, ... goes in."""

    def sequence(a: Any, b: Any, into: Any, out: Any) -> None:
        group = IRON.TaskGroup()
        into.fill(a, group=group)
        out.drain(b, wait=True, group=group)
        group.finish()

    runtime = IRON.Runtime(sequence, [flat(length, dtype), flat(length, dtype), load.prod(), store.cons()])
    source, target = np.arange(length).astype(dtype), np.zeros(length, dtype)
    program = IRON.Program(IRON.device(), runtime, workers=cores).resolve_program()
    run(program, [source, target], {"copy": copy}, {"copy": ("in", "out")})
    return target


def copier(source: Any, target: Any, size: int = SIZE, dtype: Any = np.int8) -> Any:
    function = IRON.Kernel("copy", "copy.o", [flat(size, dtype)] * 2)
    return IRON.Worker(one_each, [source, target, function], stack_size=1024)


def test_bytes_arrive_in_order_through_a_shallow_fifo() -> None:
    load, store = IRON.ObjectFifo(flat(SIZE), 1, "load"), IRON.ObjectFifo(flat(SIZE), 1, "store")
    assert (moved(load, [copier(load.cons(), store.prod())], store, 10 * SIZE) == np.arange(640).astype(np.int8)).all()


def test_patterns_count_in_elements_of_the_fifo() -> None:
    pattern = [(4, 1), (16, 4)]
    load = IRON.ObjectFifo(flat(SIZE, np.int32), 2, "load")
    share = load.cons().forward(dims_to_stream=pattern)
    store = IRON.ObjectFifo(flat(SIZE, np.int32), 2, "store")
    out = moved(load, [copier(share.cons(), store.prod(), SIZE, np.int32)], store, 2 * SIZE, np.int32)
    wanted = np.arange(2 * SIZE).reshape(2, 16, 4).swapaxes(1, 2).reshape(-1)
    assert (out == wanted).all()


def test_a_pattern_from_the_stream_scatters() -> None:
    load = IRON.ObjectFifo(flat(SIZE), 2, "load")
    store = IRON.ObjectFifo(flat(SIZE), 2, "store")
    source = load.cons(dims_from_stream=[(4, 1), (16, 4)])
    out = moved(load, [copier(source, store.prod())], store, SIZE)
    assert (out.reshape(16, 4) == np.arange(SIZE).reshape(4, 16).T).all()


def test_a_joined_fifo_applies_its_pattern_to_each_segment() -> None:
    load, store = (
        IRON.ObjectFifo(flat(2 * SIZE), 2, "load"),
        IRON.ObjectFifo(flat(2 * SIZE), 2, "store", dims_to_stream=[(4, 1), (16, 4)]),
    )
    shares = load.cons().split([0, SIZE], [flat(SIZE)] * 2)
    parts = store.prod().join([0, SIZE], [flat(SIZE)] * 2)
    cores = [copier(share.cons(), part.prod()) for share, part in zip(shares, parts, strict=True)]
    out = moved(load, cores, store, 4 * SIZE)
    wanted = np.arange(4 * SIZE).astype(np.int8).reshape(4, 16, 4).swapaxes(1, 2).reshape(-1)
    assert (out == wanted).all()


def test_one_fifo_reaches_several_consumers() -> None:
    load = IRON.ObjectFifo(flat(SIZE), 2, "load")
    store = IRON.ObjectFifo(flat(2 * SIZE), 2, "store")
    parts = store.prod().join([0, SIZE], [flat(SIZE)] * 2)
    cores = [copier(load.cons(), part.prod()) for part in parts]

    def sequence(a: Any, b: Any, into: Any, out: Any) -> None:
        into.fill(a)
        out.drain(b, wait=True)

    runtime = IRON.Runtime(sequence, [flat(SIZE), flat(2 * SIZE), load.prod(), store.cons()])
    target = np.zeros(2 * SIZE, np.int8)
    source = np.arange(SIZE, dtype=np.int8)
    outcome = run(
        IRON.Program(IRON.device(), runtime, workers=cores),
        [source, target],
        {"copy": copy},
        {"copy": ("in", "out")},
        cycles=10,
    )
    assert target.tolist() == source.tolist() * 2
    assert outcome.calls == 2


def test_a_run_is_the_same_every_time_and_leaves_no_thread() -> None:
    before = threading.active_count()

    def once() -> float:
        load, store = IRON.ObjectFifo(flat(SIZE), 2, "load"), IRON.ObjectFifo(flat(SIZE), 2, "store")
        worker = copier(load.cons(), store.prod())

        def sequence(a: Any, b: Any, into: Any, out: Any) -> None:
            into.fill(a)
            out.drain(b, wait=True)

        runtime = IRON.Runtime(sequence, [flat(4 * SIZE), flat(4 * SIZE), load.prod(), store.cons()])
        buffers = [np.zeros(4 * SIZE, np.int8), np.zeros(4 * SIZE, np.int8)]
        program = IRON.Program(IRON.device(), runtime, workers=[worker])
        return run(program, buffers, {"copy": copy}, {"copy": ("in", "out")}, cycles=7).cycles

    assert len({once() for _ in range(5)}) == 1
    assert threading.active_count() == before


def test_a_run_that_fails_leaves_no_thread() -> None:
    before = threading.active_count()
    load, store = IRON.ObjectFifo(flat(SIZE), 2, "load"), IRON.ObjectFifo(flat(SIZE), 2, "store")

    def broken(source: Any, target: Any, function: Any) -> None:
        raise RuntimeError("in the core")

    function = IRON.Kernel("copy", "copy.o", [flat(SIZE)] * 2)
    worker = IRON.Worker(broken, [load.cons(), store.prod(), function])
    with pytest.raises(RuntimeError, match="in the core"):
        moved(load, [worker], store, SIZE)
    assert threading.active_count() == before


def test_more_transfers_than_a_queue_keeps_are_refused() -> None:
    load, store = IRON.ObjectFifo(flat(SIZE), 2, "load"), IRON.ObjectFifo(flat(SIZE), 2, "store")

    def sequence(a: Any, b: Any, into: Any, out: Any) -> None:
        for _ in range(5):
            into.fill(a)

    runtime = IRON.Runtime(sequence, [flat(SIZE), flat(SIZE), load.prod(), store.cons()])
    program = IRON.Program(IRON.device(), runtime, workers=[copier(load.cons(), store.prod())])
    with pytest.raises(WrongAnswer, match="queue keeps 4 transfers"):
        run(program, [np.zeros(SIZE, np.int8)] * 2, {"copy": copy}, {"copy": ("in", "out")})


def test_mistakes_in_the_connections_are_told() -> None:
    fifo = IRON.ObjectFifo(flat(SIZE), 2, "fifo")
    with pytest.raises(OptionError, match=r"was given the FIFO fifo"):
        IRON.Worker(one_each, [fifo])
    with pytest.raises(OptionError, match=r"fifo\.prod cannot split"):
        fifo.prod().split([0], [flat(SIZE)])
    with pytest.raises(OptionError, match="2 offsets and 1 obj_types"):
        fifo.cons().split([0, 32], [flat(32)])
    with pytest.raises(OptionError, match="used outside of a worker"):
        fifo.cons().acquire(1)
    with pytest.raises(OptionError, match="outside of the sequence"):
        IRON.TaskGroup()
    with pytest.raises(WrongAnswer, match="reaches element 64 of a buffer of 64"):
        IRON.TensorAccessPattern((64,), 1, [64], [1])
    load, alone = IRON.ObjectFifo(flat(SIZE), 2, "load"), IRON.ObjectFifo(flat(SIZE), 2, "alone")
    worker = copier(load.cons(), alone.prod())
    alone.cons()
    program = IRON.Program(IRON.device(), IRON.Runtime(lambda *a: None, [load.prod()]), workers=[worker])
    with pytest.raises(WrongAnswer, match="FIFO alone has an end that nobody holds"):
        run(program, [], {}, {})


def test_buffers_that_the_sequence_does_not_take_are_refused() -> None:
    load, store = IRON.ObjectFifo(flat(SIZE), 2, "load"), IRON.ObjectFifo(flat(SIZE), 2, "store")
    runtime = IRON.Runtime(lambda *a: None, [flat(SIZE), flat(SIZE), load.prod(), store.cons()])
    program = IRON.Program(IRON.device(), runtime, workers=[copier(load.cons(), store.prod())])
    with pytest.raises(InputError, match="takes 2 buffers, got 1"):
        run(program, [np.zeros(SIZE, np.int8)], {}, {})
    with pytest.raises(WrongAnswer, match="argument 1 has 65 bytes, the sequence's has 64"):
        run(program, [np.zeros(SIZE, np.int8), np.zeros(SIZE + 1, np.int8)], {}, {})


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (((0, 10),), False),
        (((0, 10), (10, 20)), True),
        (((0, 10), (5, 20)), False),
        (((20, 30), (0, 10), (10, 20)), True),
    ],
)
def test_columns_in_turn_are_told_from_columns_at_once(
    columns: tuple[tuple[float, float], ...], expected: bool
) -> None:
    assert Outcome(0, 0, columns).one_after_the_other == expected


def test_blocks_of_eight_by_eight() -> None:
    matrix = np.arange(16 * 24).reshape(16, 24)
    blocks = matrix.reshape(-1)[places(blocked(16, 24))]
    assert (blocks.reshape(2, 3, 8, 8) == matrix.reshape(2, 8, 3, 8).swapaxes(1, 2)).all()
    assert (blocks[places(unblocked(16, 24))] == matrix.reshape(-1)).all()
    assert is_linear([(3, 8), (8, 1)])
    assert is_linear([(1, 99), (8, 1)])
    assert not is_linear([(3, 9), (8, 1)])
