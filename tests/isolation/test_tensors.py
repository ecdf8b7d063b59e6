"""Tensors arrive as they were sent, may be kept, and leave no memory behind."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import hetero
from hetero.backend import Backend, Call
from hetero.errors import Unsupported
from hetero.isolation.memory import Outgoing
from tests.isolation import backends
from tests.isolation.backends import F32, Crashing, echo
from tests.isolation.conftest import load, shared_blocks

DTYPES = [
    "bool",
    "int8",
    "uint16",
    "int64",
    "uint64",
    "float16",
    "float64",
    "complex64",
    ">f4",
    "<U5",
    "datetime64[us]",
    np.dtype([("a", "i1"), ("b", "f8")]),
    ml_dtypes.bfloat16,
    ml_dtypes.float8_e4m3fn,
]


def some(dtype: Any, shape: tuple[int, ...], seed: int = 0) -> Any:
    """Every bit pattern that a dtype has; of those that have fewer, what is allowed."""
    dtype = np.dtype(dtype)
    random = np.random.default_rng(seed)
    if dtype.kind in "bU":
        return random.integers(0, 2, shape).astype(dtype)
    return np.frombuffer(random.bytes(int(np.prod(shape)) * dtype.itemsize), dtype).reshape(shape)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_arrives_bit_for_bit(backend: Backend, dtype: Any) -> None:
    sent = some(dtype, (3, 5))
    got = load(backend, echo(dtype)).run({"x": sent}, Call())["y"]
    assert got.dtype == sent.dtype
    assert got.tobytes() == sent.tobytes()


@pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 0, 2), (2, 3, 4, 5, 6), (1000, 1000)])
def test_every_shape_arrives(backend: Backend, shape: tuple[int, ...]) -> None:
    sent = np.abs(np.random.default_rng(1).standard_normal(shape)).astype(np.float32)
    got = load(backend).run({"x": sent}, Call())["y"]
    assert isinstance(got, np.ndarray)
    assert got.shape == sent.shape
    np.testing.assert_array_equal(got, sent)


def test_strings_arrive(make_runtime: Callable[..., hetero.Runtime]) -> None:
    session = make_runtime(Crashing, isolate=True).load(echo(object))
    sent = np.array(["", "a", "a\0b", "日本語", "x" * 100_000], dtype=object)
    assert list(session(sent)) == list(sent)


def test_objects_that_cannot_be_sent_are_refused_and_spoil_nothing(backend: Backend) -> None:
    executable = load(backend)
    with pytest.raises(Unsupported, match="'x' holds objects that cannot be handed to another process"):
        executable.run({"x": np.array([lambda: None], dtype=object)}, Call())
    with pytest.raises(Unsupported, match="'y' holds objects that cannot be handed to another process"):
        executable.run({"x": np.full(2, backends.UNPICKLABLE, F32)}, Call())
    np.testing.assert_array_equal(executable.run({"x": np.ones(2, F32)}, Call())["y"], 1)


def test_outputs_may_be_kept_and_written_to(backend: Backend) -> None:
    executable = load(backend)
    kept = [executable.run({"x": np.full(1000, i, F32)}, Call())["y"] for i in range(5)]
    for i, array in enumerate(kept):
        np.testing.assert_array_equal(array, np.full(1000, i, F32))
        array += 1
    assert [array[0] for array in kept] == [1, 2, 3, 4, 5]


def test_outputs_outlive_the_process(backend: Backend) -> None:
    kept = load(backend).run({"x": np.arange(1, 100_000, dtype=F32)}, Call())["y"]
    backend.close()
    np.testing.assert_array_equal(kept, np.arange(1, 100_000, dtype=F32))


def test_a_backend_that_writes_to_its_inputs_does_not_write_to_the_callers(backend: Backend) -> None:
    sent = np.full(8, backends.SCRIBBLE, F32)
    got = load(backend).run({"x": sent}, Call())["y"]
    np.testing.assert_array_equal(sent, np.full(8, backends.SCRIBBLE, F32))
    np.testing.assert_array_equal(got, sent)


def test_arrays_of_any_layout_are_sent(backend: Backend) -> None:
    executable = load(backend)
    sent = np.arange(1, 25, dtype=F32).reshape(4, 6)
    np.testing.assert_array_equal(executable.run({"x": sent.T[::-1]}, Call())["y"], sent.T[::-1])
    sent[0, 0] = backends.TRANSPOSE
    np.testing.assert_array_equal(executable.run({"x": sent}, Call())["y"], sent[::2])


def test_blocks_are_used_again_and_grow_as_needed(backend: Backend) -> None:
    executable = load(backend)
    executable.run({"x": np.ones(10, F32)}, Call())
    before = shared_blocks()
    for size in (20, 5_000_000, 3, 7_500_000, 7_500_000, 0, 10):  # 30 MB
        sent = np.random.default_rng(size).random(size, F32)
        np.testing.assert_array_equal(executable.run({"x": sent}, Call())["y"], sent)
    assert shared_blocks() == before


def test_many_calls_over_several_lanes_keep_their_data_apart(make_runtime: Callable[..., hetero.Runtime]) -> None:
    session = make_runtime(Crashing, isolate=True, options={"crash": {"lanes": 4}}).load(echo())
    random = np.random.default_rng(3)
    items = [random.random(int(size), F32) for size in random.integers(1, 20_000, 400)]
    for sent, got in zip(items, session.map(iter(items)), strict=True):
        np.testing.assert_array_equal(got, sent)
    lanes = {int(session(np.full(1, backends.LANE, F32))[0]) for _ in range(4)}
    assert lanes <= set(range(4))
    assert session.explain().candidates[0].state == "ready"


def test_no_shared_memory_and_no_open_file_is_left(make_backend: Callable[..., Backend]) -> None:
    names = {name for name in os.listdir("/dev/shm") if "hetero" in name} if Path("/dev/shm").is_dir() else set()
    make_backend().close()  # what the first one imports stays
    files, blocks = len(os.listdir("/proc/self/fd")), shared_blocks()
    for crash in (False, True):
        backend = make_backend()
        executable = load(backend)
        executable.run({"x": np.ones(1_000_000, F32)}, Call())
        assert shared_blocks() > blocks
        if crash:
            with pytest.raises(hetero.errors.DeviceLost):
                executable.run({"x": np.full(1_000_000, -2, F32)}, Call())
        backend.close()
        assert shared_blocks() == blocks
        assert len(os.listdir("/proc/self/fd")) == files
    if names or Path("/dev/shm").is_dir():
        assert {name for name in os.listdir("/dev/shm") if "hetero" in name} == names


def test_an_interruption_while_a_block_is_handed_over_has_its_file_closed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its number may be another file's by the second time."""
    outgoing, close = Outgoing(), os.close
    outgoing.write({"x": np.ones(3)})

    def interrupted(descriptor: int) -> None:
        close(descriptor)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "close", interrupted)
    with pytest.raises(KeyboardInterrupt):
        outgoing.sent()
    monkeypatch.undo()
    outgoing.close()
