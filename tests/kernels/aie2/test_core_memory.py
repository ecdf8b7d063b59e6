"""A core's own memory and links on chosen memory tiles, in the stand-in for `aie.iron` and in the budgets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hetero.errors import CompileError, OptionError, WrongAnswer
from hetero_kernels.aie2 import budgets
from hetero_kernels.aie2.budgets import Need
from hetero_kernels.aie2.function import array_type
from hetero_kernels.aie2.simulate import run, stand_in

IRON = stand_in()
SIZE = 64
PIECE = array_type((SIZE,), "int8")


def running_sum(state: Any, *, declared: Any = PIECE, tile: Any = None, pieces: int = 3) -> Any:
    """A design whose core adds what comes to what it has, and hands that out."""
    load, store = IRON.ObjectFifo(PIECE, name="load"), IRON.ObjectFifo(PIECE, name="store")
    function = IRON.Kernel("add", "add.o", [PIECE, declared, PIECE])

    def core(source: Any, target: Any, own: Any, add: Any) -> None:
        piece, answer = source.acquire(1), target.acquire(1)
        add(piece, own, answer)
        source.release(1)
        target.release(1)

    def sequence(a: Any, b: Any, into: Any, out: Any) -> None:
        group = IRON.TaskGroup()
        into.fill(a, group=group)
        out.drain(b, wait=True, group=group)
        group.finish()

    shared = load.cons().forward(obj_type=PIECE, name="shared", tile=tile)
    worker = IRON.Worker(core, [shared.cons(), store.prod(), state, function], stack_size=1024)
    whole = array_type((pieces * SIZE,), "int8")
    runtime = IRON.Runtime(sequence, [whole, whole, load.prod(), store.cons()])
    return IRON.Program(IRON.device(), runtime, workers=[worker]).resolve_program()


def launched(program: Any) -> Any:
    source, target = np.arange(3 * SIZE).astype(np.int8), np.zeros(3 * SIZE, np.int8)

    def add(piece: Any, own: Any, answer: Any) -> None:
        own += piece
        answer[:] = own

    run(program, [source, target], {"add": add}, {"add": ("in", "inout", "out")})
    return source.reshape(3, SIZE), target.reshape(3, SIZE)


def test_a_buffer_keeps_what_a_core_writes_from_one_call_to_the_next() -> None:
    first = np.full(SIZE, 5, np.int8)
    source, target = launched(running_sum(IRON.Buffer(PIECE, first, name="state")))
    np.testing.assert_array_equal(target, 5 + np.cumsum(source, axis=0, dtype=np.int8))


def test_a_buffer_without_a_value_holds_rubbish() -> None:
    source, target = launched(running_sum(IRON.Buffer(PIECE, name="state")))
    assert (target[0] - source[0] != 0).all()


def test_a_buffer_of_another_type_than_the_function_takes_is_refused() -> None:
    with pytest.raises(WrongAnswer, match=r"argument 1 is declared int8 \[32\], and state is int8 \[64\]"):
        launched(running_sum(IRON.Buffer(PIECE, name="state"), declared=array_type((32,), "int8")))


def test_a_buffer_belongs_to_one_core() -> None:
    state = IRON.Buffer(PIECE, name="state")
    running_sum(state)
    with pytest.raises(OptionError, match="state is handed to two workers"):
        running_sum(state)


def test_a_value_of_another_size_is_refused() -> None:
    with pytest.raises(OptionError, match=r"state is int8 \[64\] and is given 3 bytes"):
        IRON.Buffer(PIECE, np.zeros(3, np.int8), name="state")


def test_a_buffer_counts_as_memory_of_its_core() -> None:
    budgets.check(running_sum(IRON.Buffer(array_type((60000,), "int8"))), {"add": Need(64)})
    with pytest.raises(CompileError, match="core memory"):
        budgets.check(running_sum(IRON.Buffer(array_type((65000,), "int8"))), {"add": Need(64)})


def test_links_are_counted_where_they_are_put() -> None:
    """Seven FIFOs through one memory tile are one too many; through two, they fit."""

    def passing(tiles: int) -> Any:
        ends, workers = [], []
        for i in range(7):
            load, store = IRON.ObjectFifo(PIECE, name=f"load{i}"), IRON.ObjectFifo(PIECE, name=f"store{i}")
            shared = load.cons().forward(obj_type=PIECE, name=f"shared{i}", tile=IRON.Tile(i % tiles, 1))
            function = IRON.Kernel("add", "add.o", [PIECE, PIECE])
            workers.append(IRON.Worker(lambda *_: None, [shared.cons(), store.prod(), function], stack_size=1024))
            ends += [load.prod(), store.cons()]
        return IRON.Program(IRON.device(), IRON.Runtime(lambda *_: None, ends), workers=workers).resolve_program()

    budgets.check(passing(2), {"add": Need(64)})
    with pytest.raises(CompileError, match="memory tile channels in"):
        budgets.check(passing(1), {"add": Need(64)})
