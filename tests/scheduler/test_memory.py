"""Pools: memory is used again, never under somebody who still looks at it, within its limit, and all of it is freed."""

from __future__ import annotations

import gc
import os
import queue
import threading
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

import hetero
from hetero import errors
from hetero.backend import Access, Allocator, Device
from hetero.memory.arrays import PooledArray
from hetero.memory.host import PAGE, HostAllocator
from hetero.memory.pool import Buffer, Pool, size_class
from tests.fakes import DOUBLE, FakeBackend, fake

Make = Callable[..., hetero.Runtime]


class Counting(HostAllocator):
    """Keeps an account of what is out, and refuses to take back anything else."""

    def __init__(self) -> None:
        self.out: dict[int, int] = {}
        self.asked: list[Access] = []
        self.lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        return sum(self.out.values())

    def allocate(self, nbytes: int, access: Access) -> Any:
        memory = super().allocate(nbytes, access)
        with self.lock:
            self.asked.append(access)
            self.out[memory.ctypes.data] = nbytes
        return memory

    def free(self, memory: Any) -> None:
        with self.lock:
            del self.out[memory.ctypes.data]


def pool_of(allocator: Allocator | None = None, **options: Any) -> Pool:
    return Pool("test", allocator or HostAllocator(), **options)


class PoolMachine(RuleBasedStateMachine):
    """Anybody takes, keeps arrays, gives back, trims and closes in any order."""

    LIMIT = 64 * 1024
    KEEP = 16 * 1024

    buffers = Bundle("buffers")
    arrays = Bundle("arrays")

    def __init__(self) -> None:
        super().__init__()
        self.allocator = Counting()
        self.pool = pool_of(self.allocator, limit_bytes=self.LIMIT, keep_bytes=self.KEEP)
        self.live: list[Buffer] = []
        self.looking: list[tuple[Any, int]] = []
        self.next = 0
        self.closed = False

    @precondition(lambda self: not self.closed)
    @rule(target=buffers, nbytes=st.integers(0, 20_000), access=st.sampled_from(["default", "streaming"]))
    def take(self, nbytes: int, access: Access) -> Any:
        try:
            buffer = self.pool.take(nbytes, access)
        except errors.OutOfMemory:
            size = size_class(nbytes, PAGE if access == "streaming" else 64)
            assert self.pool.statistics.in_use_bytes + size > self.LIMIT, "there was room"
            return None
        self.live.append(buffer)
        return buffer

    @rule(target=arrays, buffer=buffers)
    def look(self, buffer: Buffer | None) -> Any:
        if buffer is None or buffer not in self.live:
            return None
        array = buffer.array(buffer.nbytes)
        assert array.ctypes.data % 64 == 0
        self.next = (self.next + 1) % 251
        for other, _ in self.looking:
            if np.shares_memory(other, array):
                break
        else:
            array[...] = self.next
            self.looking.append((array[::2], self.next))
        return None

    @rule(buffer=consumes(buffers))
    def give_back(self, buffer: Buffer | None) -> None:
        if buffer is not None and buffer in self.live:
            self.live.remove(buffer)
            buffer.release()
            with pytest.raises(errors.ClosedError):
                buffer.release()

    @precondition(lambda self: self.looking)
    @rule(data=st.data())
    def look_away(self, data: Any) -> None:
        self.looking.pop(data.draw(st.integers(0, len(self.looking) - 1)))

    @rule(keep=st.integers(0, 8192))
    def trim(self, keep: int) -> None:
        self.pool.trim(keep)
        assert self.pool.statistics.idle_bytes <= keep

    @rule()
    def close(self) -> None:
        self.pool.close()
        self.closed = True

    @invariant()
    def nobody_overlaps(self) -> None:
        spans = sorted((a.ctypes.data, a.ctypes.data + b.nbytes) for b in self.live for a in [b.array(b.nbytes)])
        assert all(end <= begin for (_, end), (begin, _) in pairwise(spans))

    @invariant()
    def nobody_writes_over_what_is_looked_at(self) -> None:
        assert all((array == value).all() for array, value in self.looking)

    @invariant()
    def the_books_are_right(self) -> None:
        told = self.pool.statistics
        assert told.in_use_bytes + told.idle_bytes == self.allocator.nbytes <= self.LIMIT
        assert told.idle_bytes <= (0 if self.closed else self.KEEP)
        assert told.in_use_bytes <= told.high_water_bytes

    def teardown(self) -> None:
        self.pool.close()
        self.looking.clear()
        for buffer in self.live:
            buffer.release()
        assert self.allocator.out == {}, "something was not freed"


PoolMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAnyOrder = PoolMachine.TestCase


@pytest.mark.parametrize("alignment", [64, PAGE])
def test_sizes_are_multiples_of_the_alignment_and_waste_at_most_a_quarter(alignment: int) -> None:
    for nbytes in [*range(0, 70_000, 37), 1 << 20, (1 << 20) + 1, (1 << 30) - 1]:
        size = size_class(nbytes, alignment)
        assert size >= nbytes
        assert size % alignment == 0
        assert size - max(nbytes, 1) < alignment or size <= nbytes * 1.25
        assert size_class(size, alignment) == size, "a size that is used is a size that is found"


def test_equal_requests_use_the_same_memory_again() -> None:
    allocator = Counting()
    pool = pool_of(allocator)
    for _ in range(5):
        with pool.take(1000) as buffer:
            buffer.array((10, 25), np.float32)[...] = 1
    told = pool.statistics
    assert (told.hits, told.misses, told.in_use_bytes, len(allocator.out)) == (4, 1, 0, 1)
    assert told.high_water_bytes == told.idle_bytes == size_class(1000, 64)


def test_memory_that_an_array_still_looks_at_is_not_handed_out() -> None:
    pool = pool_of()
    first = pool.take(4096)
    kept = first.array((64, 16), np.float32)[3:5, ::2]
    kept[...] = 7
    first.release()
    with pool.take(4096) as second:
        second.array(4096)[...] = 0
        assert (kept == 7).all()
        assert pool.statistics.buffers == 2
    del kept
    assert pool.statistics.buffers == 0


def test_a_buffer_that_is_dropped_comes_back_too() -> None:
    pool = pool_of()
    pool.take(100)
    assert (pool.statistics.in_use_bytes, pool.statistics.buffers) == (0, 0)


def test_a_buffer_goes_back_once_and_to_its_own_pool() -> None:
    pool, other = pool_of(), pool_of()
    buffer = pool.take(10)
    with pytest.raises(errors.InputError, match="is of the pool test"):
        other.give_back(buffer)
    pool.give_back(buffer)
    with pytest.raises(errors.ClosedError, match="given back before"):
        pool.give_back(buffer)
    with pytest.raises(errors.ClosedError, match="was given back"):
        buffer.array(10)
    assert pool.statistics.idle_bytes == 64


def test_an_array_must_fit_and_hold_no_objects() -> None:
    buffer = pool_of().take(100)
    assert buffer.array((), np.float64).shape == ()
    assert buffer.array((0, 5), np.float64).size == 0
    with pytest.raises(errors.InputError, match="in 100 bytes"):
        buffer.array(101)
    with pytest.raises(errors.InputError, match="Python objects"):
        buffer.array(1, object)


def test_the_limit_says_what_to_do_and_idle_memory_of_other_sizes_gives_way() -> None:
    allocator = Counting()
    pool = pool_of(allocator, limit_bytes=8192)
    pool.take(4096).release()
    held = pool.take(8000)
    assert allocator.nbytes == 8192, "the idle 4096 bytes were freed first"
    with pytest.raises(errors.OutOfMemory, match="8192 of 8192 are in use") as error:
        pool.take(1)
    assert "memory_limit=" in error.value.fix
    with pytest.raises(errors.OutOfMemory, match="more than test may hold"):
        pool.take(8193, wait=60)
    held.release()
    pool.take(1)


def test_who_waits_gets_what_comes_back() -> None:
    pool = pool_of(limit_bytes=4096)
    held = pool.take(4096)
    got: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threads = [threading.Thread(target=lambda: got.put(pool.take(4096, wait=60))) for _ in range(3)]
    for thread in threads:
        thread.start()
    held.release()
    for _ in threads:
        got.get(timeout=60).release()
    for thread in threads:
        thread.join(60)
    assert pool.statistics.misses == 1


def test_who_has_waited_long_enough_is_told() -> None:
    pool = pool_of(limit_bytes=4096)
    held = pool.take(4096)
    with pytest.raises(errors.OutOfMemory):
        pool.take(1, wait=0.001)
    held.release()
    pool.take(1).release()


def test_closing_frees_what_is_idle_at_once_and_the_rest_when_it_comes_back() -> None:
    allocator = Counting()
    pool = pool_of(allocator)
    pool.take(64).release()
    buffer = pool.take(4096)
    array = buffer.array(4096)
    pool.close()
    assert list(allocator.out.values()) == [4096]
    buffer.release()
    assert list(allocator.out.values()) == [4096], "an array looks at it"
    array[...] = 1
    del array
    assert allocator.out == {}
    with pytest.raises(errors.ClosedError):
        pool.take(1)


def test_who_waits_for_a_pool_that_is_closed_is_told() -> None:
    pool = pool_of(limit_bytes=4096)
    held = pool.take(4096)
    failures: queue.SimpleQueue[BaseException] = queue.SimpleQueue()

    def wait() -> None:
        try:
            pool.take(1, wait=300)
        except errors.HeteroError as error:
            failures.put(error)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    while not pool._waiting:
        pass
    pool.close()
    assert isinstance(failures.get(timeout=20), errors.ClosedError)
    thread.join(20)
    held.release()


def test_idle_memory_beyond_what_is_kept_is_freed_oldest_first() -> None:
    allocator = Counting()
    pool = pool_of(allocator, keep_bytes=8192)
    for nbytes in (4096, 2048, 1024):
        pool.take(nbytes).release()
    pool.take(4096).release()  # used last now
    pool.take(3072).release()
    assert sorted(allocator.out.values()) == [1024, 3072, 4096]
    pool.trim()
    assert allocator.out == {}


def test_many_threads_never_share_memory() -> None:
    allocator = Counting()
    pool = pool_of(allocator, limit_bytes=64 * 1024, keep_bytes=16 * 1024)
    wrong: list[str] = []

    def work(seed: int) -> None:
        random = np.random.default_rng(seed)
        for _ in range(300):
            nbytes = int(random.integers(1, 9000))
            with pool.take(nbytes, wait=60) as buffer:
                array = buffer.array(nbytes)
                array[...] = seed
                if seed == 3:
                    gc.collect(0)
                if not (array == seed).all():
                    wrong.append(f"{seed} was written over")
                del array

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert wrong == []
    told = pool.statistics
    assert told.in_use_bytes == told.buffers == 0
    assert told.high_water_bytes <= 64 * 1024
    assert allocator.nbytes == told.idle_bytes <= 16 * 1024


def test_memory_may_come_back_in_the_garbage_collector_while_the_pool_is_locked() -> None:
    pool = pool_of()
    buffer = pool.take(100)
    circle: list[Any] = [buffer]
    circle.append(circle)
    del buffer, circle
    with pool._lock:
        gc.collect()
    assert pool.statistics.buffers == 0


@pytest.mark.parametrize(
    ("memory", "problem"),
    [
        (lambda aligned: aligned.tobytes(), "expected 8192 writable bytes"),
        (lambda aligned: aligned[:4], "gave 4 bytes"),
        (lambda aligned: HostAllocator().allocate(2 * len(aligned), "default")[1:], "at a multiple of 64"),
        (lambda aligned: "memory", "expected a buffer"),
    ],
)
def test_an_allocator_that_breaks_the_contract_is_told_so(memory: Any, problem: str) -> None:
    freed: list[Any] = []

    class Broken:
        def allocate(self, nbytes: int, access: Access) -> Any:
            return memory(HostAllocator().allocate(nbytes, access))

        def free(self, memory: Any) -> None:
            freed.append(memory)

    pool = pool_of(Broken())
    with pytest.raises(errors.PluginError, match=problem):
        pool.take(8192)
    assert len(freed) == 1
    assert pool.statistics.in_use_bytes == 0


def test_an_allocator_that_fails_leaves_the_books_right() -> None:
    class Empty(Counting):
        def allocate(self, nbytes: int, access: Access) -> Any:
            if access == "streaming":
                raise errors.OutOfMemory("the device is full")
            return super().allocate(nbytes, access)

    pool = pool_of(Empty(), limit_bytes=8192)
    for _ in range(3):
        with pytest.raises(errors.OutOfMemory, match="the device is full"):
            pool.take(4096, "streaming")
    pool.take(8192)


def test_memory_that_cannot_be_freed_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    class Stubborn(Counting):
        def free(self, memory: Any) -> None:
            super().free(memory)
            raise RuntimeError("the driver is gone")

    allocator = Stubborn()
    pool = pool_of(allocator)
    buffers = [pool.take(64), pool.take(64)]
    for buffer in buffers:
        buffer.release()
    pool.close()
    assert allocator.out == {}
    assert caplog.text.count("freeing 64 bytes failed") == 2


# ---- the door: Runtime.buffer


def with_memory(name: str, allocator: Any, **options: Any) -> type[FakeBackend]:
    """A backend whose devices have memory of their own."""
    backend = fake(name, **options)
    backend.allocator = lambda self, device: allocator  # type: ignore[method-assign]
    return backend


def test_a_buffer_is_an_input_and_an_output(make_runtime: Make) -> None:
    runtime = make_runtime(fake("cpu", kind="cpu"))
    session = runtime.load(DOUBLE)
    with runtime.buffer(4) as x, runtime.buffer((4,), np.float32) as y:
        x[...] = [1, 2, 3, 4]
        assert session(x, out=y) is y.array
        assert y[1:].tolist() == [4, 6, 8]
        assert np.asarray(y).sum() == 20
        assert runtime.memory["host"].buffers == 2
    assert runtime.memory["host"].high_water_bytes == 128
    with pytest.raises(errors.ClosedError, match=r"Runtime\.buffer"):
        session(x)
    with pytest.raises(errors.ClosedError):
        x.release()


def test_an_answer_in_a_buffer_keeps_its_memory(make_runtime: Make) -> None:
    runtime = make_runtime(fake("cpu", kind="cpu"))
    session = runtime.load(DOUBLE)
    with runtime.buffer(4) as y:
        answer = session(np.ones(4, np.float32), out=y)
    with runtime.buffer(4) as other:
        other[...] = 9
        assert answer.tolist() == [2, 2, 2, 2]


def test_a_buffer_is_taken_where_the_access_says(make_runtime: Make) -> None:
    class OnlyForItself(Counting):
        def allocate(self, nbytes: int, access: Access) -> Any:
            if access == "streaming":
                raise errors.Unsupported("the host's is as good")
            return super().allocate(nbytes, access)

    npu = OnlyForItself()
    runtime = make_runtime(fake("plain"), with_memory("npu", npu), fake("cpu", kind="cpu"))

    def taken(**options: Any) -> tuple[str, bool]:
        with runtime.buffer(3, **options) as array:
            return array.pool, array.array.ctypes.data % PAGE == 0

    assert taken()[0] == "host"
    assert taken(access="npu_primary")[0] == "npu", "the first NPU has no memory that can be had"
    assert taken(device="npu")[0] == "npu"
    assert taken(device="plain", access="npu_primary")[0] == "host"
    assert taken(device="cpu", access="npu_primary")[0] == "host"
    assert taken(access="streaming") == ("host", True)
    assert taken(device="npu", access="streaming") == ("host", True)
    assert npu.asked == ["npu_primary", "default"]
    assert [told.name for told in runtime.memory] == ["host", "npu"]
    runtime.memory.trim()
    assert npu.out == {}


def test_a_runtime_that_is_closed_frees_the_devices_memory(make_runtime: Make) -> None:
    allocator = Counting()
    runtime = make_runtime(with_memory("npu", allocator))
    idle, used = runtime.buffer(10, device="npu"), runtime.buffer(10, device="npu")
    idle.release()
    runtime.close()
    assert len(allocator.out) == 1
    used.release()
    assert allocator.out == {}
    with pytest.raises(errors.ClosedError):
        runtime.buffer(1)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"access": "fast"}, "access is 'fast', expected one of default, npu_primary, streaming"),
        ({"dtype": "no such"}, "no array of shape"),
        ({"dtype": object}, "Python objects"),
        ({"shape": (2, -1)}, "sizes of 0 or more"),
        ({"shape": 2.5}, "no array of shape"),
        ({"shape": "34"}, "no array of shape"),
        ({"device": "gpu"}, "gpu"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_kept(make_runtime: Make, options: Any, problem: str) -> None:
    runtime = make_runtime(fake("cpu", kind="cpu"))
    with pytest.raises(errors.HeteroError, match=problem):
        runtime.buffer(**{"shape": 3, **options})
    assert runtime.memory["host"].buffers == 0


def test_limits_hold_for_each_pool_or_by_name(make_runtime: Make) -> None:
    runtime = make_runtime(with_memory("npu", Counting()), memory_limit={"npu": 64})
    held = [runtime.buffer(16, device="npu")]
    with pytest.raises(errors.OutOfMemory, match="npu"):
        runtime.buffer(1, device="npu")
    held.append(runtime.buffer(10_000))
    assert [told.limit_bytes for told in runtime.memory] == [None, 64]
    limited = make_runtime(fake("cpu", kind="cpu"), memory_limit=1000)
    with pytest.raises(errors.OutOfMemory):
        limited.buffer(1000)


@pytest.mark.parametrize("limit", [0, -1, 2.5, True, {"host": 0}, {"gpu": 10}])
def test_a_limit_that_is_none_is_refused(make_runtime: Make, limit: Any) -> None:
    with pytest.raises(errors.OptionError, match="memory_limit"):
        make_runtime(fake("cpu", kind="cpu"), memory_limit=limit)


def test_statistics_of_an_unknown_pool(make_runtime: Make) -> None:
    runtime = make_runtime(with_memory("npu", Counting()))
    assert runtime.memory["npu"].misses == 0
    with pytest.raises(errors.OptionError, match="known: host, npu"):
        runtime.memory["gpu"]
    assert "0 hits" in str(runtime.memory)


def test_the_allocator_is_asked_once_per_device(make_runtime: Make) -> None:
    asked: list[str] = []

    class Several(fake("several")):  # type: ignore[misc]
        def probe(self) -> Any:
            return [Device("several:0", kind="npu"), Device("several:1", kind="npu")]

        def allocator(self, device: Device) -> Any:
            asked.append(device.name)
            return Counting() if device.name == "several:1" else None

    runtime = make_runtime(Several)
    taken: list[PooledArray] = [runtime.buffer(3, device="several") for _ in range(3)]
    assert {array.pool for array in taken} == {"several:1"}
    assert asked == ["several:0", "several:1"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_in_the_child_of_a_fork_nothing_is_freed(make_runtime: Make) -> None:
    allocator = Counting()
    runtime = make_runtime(with_memory("npu", allocator))
    idle, used = runtime.buffer(10, device="npu"), runtime.buffer(10, device="npu")
    idle.release()
    child = os.fork()
    if child == 0:
        used.release()
        runtime.memory.trim()
        try:
            runtime.buffer(1)
        except errors.ClosedError:
            os._exit(0 if len(allocator.out) == 2 else 1)
        os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    used.release()
    assert len(allocator.out) == 2
    runtime.memory.trim()
    assert allocator.out == {}
