"""`out=`: the answer ends in the caller's array; a run that failed, or was left behind, never writes there later."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hetero
from hetero import errors
from hetero.backend import Array, Call, PolledExecutable, TensorSpec
from hetero.scheduler import batching
from hetero.scheduler.delivery import Delivery
from hetero.telemetry.jsonl import line_of, record_of
from tests.fakes import DOUBLE, F32, double, fake, raises

Make = Callable[..., hetero.Runtime]
Door = Callable[..., Any]

X = np.arange(4, dtype=np.float32)
UNTOUCHED = -1.0


class Clock:
    """Stands still, or goes on by `step` whenever it is asked."""

    def __init__(self, step: float = 0.0) -> None:
        self.now = 1000.0
        self.step = step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


class Held:
    """A run that waits to be let go; with `directly`, it writes to the caller's array if it is offered one."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.go = threading.Event()
        self.ended = threading.Semaphore(0)
        self.offered: list[bool] = []

    def __call__(self, inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        self.offered.append(call.outputs is not None)
        self.entered.release()
        assert self.go.wait(20)
        try:
            return directly(inputs, call)
        finally:
            self.ended.release()

    def wait_inside(self) -> None:
        assert self.entered.acquire(timeout=20)

    def let_end(self) -> None:
        self.go.set()
        assert self.ended.acquire(timeout=20)


def directly(inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
    """Doubles, in the caller's array where one is offered."""
    if call.outputs is None or "y" not in call.outputs or call.outputs["y"].shape != inputs["x"].shape:
        return double(inputs, call)
    np.multiply(inputs["x"], 2, out=call.outputs["y"])
    return {"y": call.outputs["y"]}


def spoiling(inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
    """Begins to write, and fails."""
    if call.outputs is not None:
        call.outputs["y"][...] = 99
    raise errors.DeviceLost("gone")


def blank() -> Array:
    return np.full(4, UNTOUCHED, np.float32)


def untouched(array: Array) -> bool:
    return bool((array == UNTOUCHED).all())


DOORS: dict[str, Door] = {
    "call": lambda session, *args, **options: session(*args, **options),
    "run": lambda session, *args, **options: session.run(*args, **options).value,
    "submit": lambda session, *args, **options: session.submit(*args, **options).result(20),
    "arun": lambda session, *args, **options: asyncio.run(session.arun(*args, **options)),
    "call with a deadline": lambda session, *args, **options: session(*args, deadline=60, **options),
}


@pytest.fixture(params=DOORS)
def door(request: pytest.FixtureRequest) -> Door:
    return DOORS[request.param]


@pytest.mark.parametrize("run", [double, directly])
def test_the_answer_is_the_callers_array(make_runtime: Make, door: Door, run: Any) -> None:
    session = make_runtime(fake("n", run=run)).load(DOUBLE)
    for _ in range(3):
        y = blank()
        assert door(session, X, out=y) is y
        assert y.tolist() == [0, 2, 4, 6]
    assert door(session, X) is not y, "the next call without out= has an array of its own"


@pytest.mark.parametrize("first", [spoiling, raises(errors.ExecutionError("no"))])
def test_after_a_failure_the_next_devices_answer_is_in_it(make_runtime: Make, door: Door, first: Any) -> None:
    session = make_runtime(fake("npu", run=first), fake("cpu", kind="cpu", run=double)).load(DOUBLE, canary=False)
    y = blank()
    assert door(session, X, out=y) is y
    assert y.tolist() == [0, 2, 4, 6]


@pytest.mark.parametrize("name", ["call", "submit"])
def test_a_wrong_answer_is_not_written(make_runtime: Make, name: str) -> None:
    def wrong(inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        answer = directly(inputs, call)
        np.multiply(answer["y"], 2, out=answer["y"])
        return answer

    y = blank()

    def right(inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        assert untouched(y), "the answer was not compared yet"
        return double(inputs, call)

    runtime = make_runtime(fake("npu", run=wrong), fake("cpu", kind="cpu", run=right))
    session = runtime.load(DOUBLE, canary=False, verify=1.0)
    assert DOORS[name](session, X, out=y) is y
    assert y.tolist() == [0, 2, 4, 6]
    assert [attempt.outcome for attempt in next(iter(runtime.records)).attempts] == ["failed", "ok"]


@pytest.mark.parametrize("name", ["submit", "arun", "call with a deadline"])
def test_when_all_fail_nothing_is_written(make_runtime: Make, name: str) -> None:
    session = make_runtime(fake("npu", run=spoiling), fake("cpu", kind="cpu", run=spoiling)).load(DOUBLE, canary=False)
    y = blank()
    with pytest.raises(errors.AllDevicesFailed):
        DOORS[name](session, X, out=y)
    assert untouched(y)


def test_arrays_are_offered_only_where_nobody_can_leave_the_call(make_runtime: Make) -> None:
    seen: dict[str, bool] = {}
    asked: list[str] = []

    def run(inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        seen[asked[-1]] = call.outputs is not None
        return double(inputs, call)

    runtime = make_runtime(fake("n", run=run))
    plain, timed = runtime.load(DOUBLE), runtime.load(DOUBLE, timeout=60)
    for name, door in DOORS.items():
        asked.append(name)
        door(plain, X, out=blank())
    asked.append("call with a time-out")
    timed(X, out=blank())
    asked.append("without out")
    plain(X)
    assert seen == {
        "call": True,
        "run": True,
        "submit": False,
        "arun": False,
        "call with a deadline": False,
        "call with a time-out": False,
        "without out": False,
    }


def test_a_run_that_is_polled_is_not_offered_them_since_it_goes_on_when_its_caller_is_interrupted(
    make_runtime: Make,
) -> None:
    class Ticket:
        def done(self) -> bool:
            return True

        def result(self) -> Mapping[str, Array]:
            return {"y": X * 2}

    class Polled(PolledExecutable):
        def start(self, inputs: Mapping[str, Array], call: Call) -> Ticket:
            assert call.outputs is None
            return Ticket()

    backend = fake("n")
    backend.load = lambda self, program, device, options: Polled()  # type: ignore[method-assign]
    y = blank()
    assert make_runtime(backend).load(DOUBLE)(X, out=y) is y
    assert y.tolist() == [0, 2, 4, 6]


def test_a_hung_call_writes_nothing_when_it_ends_after_all(make_runtime: Make) -> None:
    clock, hung = Clock(), Held()
    runtime = make_runtime(fake("npu", run=hung), fake("cpu", kind="cpu", run=directly), clock=clock)
    session = runtime.load(DOUBLE, canary=False, timeout=1.0)
    y = blank()
    future = session.submit(X, out=y)
    hung.wait_inside()
    clock.now += 2
    runtime.timers.run_due()
    assert future.result(20) is y
    y[...] = UNTOUCHED
    hung.let_end()
    assert runtime.close() is None  # the hung call's thread has ended
    assert untouched(y)
    assert hung.offered == [False]


def test_past_the_deadline_nothing_is_written(make_runtime: Make) -> None:
    clock, late = Clock(), Held()
    runtime = make_runtime(fake("n", run=late), clock=clock)
    y = blank()
    future = runtime.load(DOUBLE).submit(X, out=y, deadline=1.0)
    late.wait_inside()
    clock.now += 2
    runtime.timers.run_due()
    with pytest.raises(errors.DeadlineExceeded):
        future.result(20)
    late.let_end()
    runtime.close()
    assert untouched(y)


def test_a_cancelled_task_gets_nothing_written_though_the_device_goes_on(make_runtime: Make) -> None:
    held = Held()
    runtime = make_runtime(fake("n", run=held))
    session = runtime.load(DOUBLE)
    y = blank()

    async def leave() -> None:
        task = asyncio.create_task(session.arun(X, out=y))
        await asyncio.to_thread(held.wait_inside)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(leave())
    held.let_end()
    runtime.close()
    assert untouched(y)


def test_a_caller_who_is_interrupted_gets_nothing_written(make_runtime: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held()
    runtime = make_runtime(fake("n", run=held))
    session = runtime.load(DOUBLE, timeout=60.0)
    y = blank()

    def interrupted(self: Any, timeout: float | None = None) -> Any:
        held.wait_inside()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(concurrent.futures.Future, "result", interrupted)
        with pytest.raises(KeyboardInterrupt):
            session(X, out=y)
    held.let_end()
    runtime.close()
    assert untouched(y)


def test_a_cancelled_future_that_waits_gets_nothing_written(make_runtime: Make) -> None:
    held = Held()
    runtime = make_runtime(fake("n", run=held))
    session = runtime.load(DOUBLE)
    first, y = session.submit(X), blank()
    held.wait_inside()
    waiting = session.submit(X, out=y)
    assert waiting.cancel()
    held.let_end()
    first.result(20)
    runtime.close()
    assert untouched(y)


# ---- what is refused, before anything runs

TWO = replace(DOUBLE, outputs=(TensorSpec("y", F32, ("n",)), TensorSpec("z", F32, (None,))))


def two(inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
    return {"y": inputs["x"] * 2, "z": inputs["x"][:2] * 3}


def read_only() -> Array:
    array = blank()
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("out", "problem"),
    [
        (lambda: np.empty(4, np.float64), "has dtype float64, expected float32"),
        (lambda: np.empty(4, ">f4"), "has dtype >f4"),
        (lambda: np.empty(5, np.float32), r"has shape \[5\], expected \[4\]"),
        (lambda: np.empty((4, 1), np.float32), r"has shape \[4, 1\]"),
        (read_only, "is read-only"),
        (lambda: np.empty(8, np.float32)[::2], "is not C-contiguous"),
        (lambda: [0.0] * 4, "is a list, expected a numpy array"),
        (lambda: X, "overlaps with the input 'x'"),
        (lambda: X[::-1][::-1], "overlaps with the input 'x'"),
        (lambda: {"z": blank()}, "out has z, expected names of y"),
        (dict, "no names"),
    ],
)
def test_an_array_that_cannot_take_the_answer_is_refused_before_anything_runs(
    make_runtime: Make, door: Door, out: Any, problem: str
) -> None:
    backend = fake("n", run=raises(AssertionError("it ran")))
    session = make_runtime(backend).load(DOUBLE)
    with pytest.raises(errors.InputError, match=problem):
        door(session, X, out=out())
    assert session.device == "n"


def test_several_outputs_are_named_and_may_be_left_out(make_runtime: Make, door: Door) -> None:
    session = make_runtime(fake("n", run=two)).load(TWO)
    y, z = blank(), np.empty(2, np.float32)
    answer = door(session, X, out={"z": z, "y": y})
    assert list(answer) == ["y", "z"]
    assert answer["y"] is y
    assert answer["z"] is z
    assert z.tolist() == [0, 3]
    answer = door(session, X, out={"z": z})
    assert answer["z"] is z
    assert answer["y"].tolist() == [0, 2, 4, 6]
    with pytest.raises(errors.InputError, match="the program has 2 outputs"):
        door(session, X, out=y)
    with pytest.raises(errors.InputError, match="overlaps with out"):
        door(session, X, out={"y": y, "z": y[:2]})


@pytest.mark.parametrize("batch", [None, 16])
def test_a_shape_that_only_the_answer_tells_is_checked_then_and_nothing_is_written(
    make_runtime: Make, door: Door, batch: int | None
) -> None:
    runtime = make_runtime(fake("n", run=two))
    session = runtime.load(TWO)
    y, z = blank(), np.full(3, UNTOUCHED, np.float32)
    with pytest.raises(errors.InputError, match=r"out\['z'\] has shape \[3\], the answer has \[2\]") as error:
        door(session, X, out={"y": y, "z": z})
    assert "numpy.empty((2,), numpy.float32)" in error.value.fix
    assert untouched(y)
    assert untouched(z)
    record = runtime.records.last
    assert record is not None
    assert record.outcome == "failed"
    assert session.device == "n", "the caller's mistake is not the device's"


def test_a_scalar_and_texts_can_be_asked_for(make_runtime: Make) -> None:
    text = replace(DOUBLE, outputs=(TensorSpec("y", F32, ()), TensorSpec("z", np.dtype(object), ("n",))))
    run = lambda inputs, call: {"y": np.float32(7)[None][0:1].reshape(()), "z": np.array([*"abcd"], object)}  # noqa: E731
    session = make_runtime(fake("n", run=run)).load(text)
    y, z = np.empty((), np.float32), np.empty(4, object)
    session(X, out={"y": y, "z": z})
    assert y == 7
    assert z.tolist() == ["a", "b", "c", "d"]


def test_map_takes_none(make_runtime: Make) -> None:
    session = make_runtime(fake("n")).load(DOUBLE)
    with pytest.raises(TypeError, match="out"):
        session.map([X], out=blank())  # type: ignore[call-arg]


# ---- batches


def test_each_of_a_batch_gets_its_rows_in_its_own_array(make_runtime: Make) -> None:
    session = make_runtime(fake("n", run=directly), clock=Clock()).load(DOUBLE, batch=4)
    y = np.empty(2, np.float32)
    futures = [
        session.submit(np.array([1], np.float32)),
        session.submit(np.array([2, 3], np.float32), out=y),
        session.submit(np.array([4], np.float32)),
    ]
    answers = [future.result(20) for future in futures]
    assert answers[1] is y
    assert [answer.tolist() for answer in answers] == [[2], [4, 6], [8]]


def test_one_of_a_failed_batch_gets_its_answer_in_its_array(make_runtime: Make) -> None:
    def run(inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        if len(inputs["x"]) > 1:
            raise errors.Unsupported("one at a time")
        return double(inputs, call)

    session = make_runtime(fake("n", run=run), clock=Clock()).load(DOUBLE, batch=2)
    outs = [np.empty(1, np.float32) for _ in range(2)]
    futures = [session.submit(np.array([row + 1], np.float32), out=out) for row, out in enumerate(outs)]
    assert [future.result(20) is out for future, out in zip(futures, outs, strict=True)] == [True, True]
    assert [out.tolist() for out in outs] == [[2], [4]]


def test_one_of_a_batch_past_its_deadline_gets_nothing_written(make_runtime: Make) -> None:
    clock, held = Clock(), Held()
    runtime = make_runtime(fake("n", run=held), clock=clock)
    session = runtime.load(DOUBLE, batch=2)
    y = np.full(1, UNTOUCHED, np.float32)
    late, other = session.submit(X[:1], out=y, deadline=1.0), session.submit(X[1:2])
    held.wait_inside()
    clock.now += 2
    runtime.timers.run_due()
    with pytest.raises(errors.DeadlineExceeded):
        late.result(20)
    held.let_end()
    assert other.result(20).tolist() == [2]
    runtime.close()
    assert untouched(y)


def test_large_batches_are_joined_in_memory_that_is_used_again(
    make_runtime: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "_POOLED_BYTES", 1)
    runtime = make_runtime(fake("n"), clock=Clock())
    session = runtime.load(DOUBLE, batch=2)
    for turn in range(3):
        futures = [session.submit(np.array([turn], np.float32)), session.submit(np.array([turn + 1], np.float32))]
        assert [future.result(20).tolist() for future in futures] == [[2 * turn], [2 * turn + 2]]
    runtime.close()
    told = runtime.memory["host"]
    assert (told.buffers, told.hits + told.misses) == (0, 3)
    assert told.hits >= 1


def test_what_a_hung_launch_reads_is_not_used_again_until_it_has_ended(
    make_runtime: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "_POOLED_BYTES", 1)
    clock, hung = Clock(), Held()
    read: list[list[float]] = []

    def run(inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        try:
            return hung(inputs, call)
        finally:
            read.append(inputs["x"].tolist())

    runtime = make_runtime(fake("npu", run=run), fake("cpu", kind="cpu"), clock=clock)
    session = runtime.load(DOUBLE, batch=2, canary=False, timeout=1.0)
    futures = [session.submit(np.array([row], np.float32)) for row in (1, 2)]
    hung.wait_inside()
    clock.now += 2
    runtime.timers.run_due()
    assert [future.result(20).tolist() for future in futures] == [[2], [4]]
    for turn in range(5, 8):
        futures = [session.submit(np.array([turn], np.float32), device="cpu") for _ in range(2)]
        assert [future.result(20).tolist() for future in futures] == [[2 * turn]] * 2
    assert runtime.memory["host"].buffers >= 1
    hung.let_end()
    runtime.close()
    assert read == [[1, 2]], "its input was written over"
    assert runtime.memory["host"].buffers == 0


def test_where_there_is_no_memory_for_a_batch_its_requests_run_one_by_one(
    make_runtime: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "_POOLED_BYTES", 1)
    session = make_runtime(fake("n"), clock=Clock(), memory_limit=1).load(DOUBLE, batch=2)
    futures = [session.submit(np.array([row], np.float32)) for row in (1, 2)]
    assert [future.result(20).tolist() for future in futures] == [[2], [4]]


# ---- what is kept


@pytest.mark.parametrize(
    "how", ["submit", "deadline", "batch", "one of a failed batch", "cancelled", "too late", "fails"]
)
def test_a_request_that_has_ended_keeps_no_array_until_the_garbage_collector_comes(
    make_runtime: Make, how: str
) -> None:
    clock, held = Clock(), Held()

    def one(inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        if len(inputs["x"]) > 4:
            raise errors.Unsupported("one at a time")
        return double(inputs, call)

    run: Any = {"one of a failed batch": one, "too late": held, "cancelled": held, "fails": spoiling}.get(how, directly)
    runtime = make_runtime(fake("n", run=run), clock=clock)
    session = runtime.load(DOUBLE, canary=False, batch=8 if "batch" in how else None)
    gc.collect()
    gc.disable()
    try:
        x, y = runtime.buffer(4), runtime.buffer(4)
        x[...] = X
        before = session.submit(X) if how == "cancelled" else None
        future = session.submit(x, out=y, deadline=1.0 if how in ("deadline", "too late") else None)
        if "batch" in how:
            session.submit(X).result(20)
        if how == "cancelled":
            assert future.cancel()
        elif how == "too late":
            held.wait_inside()
            clock.now += 2
            runtime.timers.run_due()
            assert isinstance(future.exception(20), errors.DeadlineExceeded)
        else:
            assert (future.exception(20) is None) == (how != "fails")
        held.go.set()
        if before is not None:
            before.result(20)
        runtime.close()  # whoever ran it has ended
        del future
        x.release()
        y.release()
        assert runtime.memory["host"].buffers == 0
    finally:
        gc.enable()


# ---- copies in the record


def test_a_backends_copies_are_in_the_record_and_are_forgotten_with_the_call(make_runtime: Make) -> None:
    times = [0.25, 0.0]

    def run(inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        assert call.copy_seconds == 0
        call.copy_seconds = times.pop(0)
        return double(inputs, call)

    runtime = make_runtime(fake("n", run=run), clock=Clock())
    session = runtime.load(DOUBLE, canary=False)
    session(X)
    session(X)
    assert [record.attempts[-1].copy_seconds for record in runtime.records] == [0.25, 0.0]


@pytest.mark.parametrize("batch", [None, 2])
def test_the_copy_into_the_callers_array_is_part_of_the_runs_time(make_runtime: Make, batch: int | None) -> None:
    clock = Clock(step=1.0)
    runtime = make_runtime(fake("n"), clock=clock)
    session = runtime.load(DOUBLE, batch=batch)
    futures = [session.submit(X[:1], out=np.empty(1, np.float32)), session.submit(X[1:2])]
    concurrent.futures.wait(futures, 20)
    copied, plain = sorted((record.attempts[-1] for record in runtime.records), key=lambda a: -a.copy_seconds)
    assert (copied.copy_seconds, plain.copy_seconds) == (1.0, 0.0)
    assert copied.seconds >= 2.0 > plain.copy_seconds
    for record in runtime.records:
        assert record.wait_seconds + record.run_seconds <= record.total_seconds


def test_what_the_executable_wrote_itself_is_not_copied(make_runtime: Make) -> None:
    runtime = make_runtime(fake("n", run=directly), clock=Clock(step=1.0))
    runtime.load(DOUBLE)(X, out=blank())
    record = runtime.records.last
    assert record is not None
    assert record.attempts[-1].copy_seconds == 0


def test_records_of_before_are_read_without_copies(make_runtime: Make) -> None:
    runtime = make_runtime(fake("n"))
    runtime.load(DOUBLE)(X)
    record = runtime.records.last
    assert record is not None
    values = record.to_dict()
    assert '"copy_seconds":0.0' in line_of(record)
    del values["attempts"][0]["copy_seconds"]
    assert record_of(values).attempts[0].copy_seconds == 0.0


# ---- in any order


@settings(max_examples=60, deadline=None)
@given(
    fates=st.lists(st.sampled_from(["ok", "direct", "fails", "spoils"]), min_size=1, max_size=4),
    name=st.sampled_from([*DOORS]),
)
def test_whatever_fails_the_answer_is_right_or_an_error(fates: list[str], name: str) -> None:
    ways = {"ok": double, "direct": directly, "fails": raises(errors.ExecutionError("no")), "spoils": spoiling}
    backends = [fake(f"n{place}", run=ways[fate]) for place, fate in enumerate(fates)]
    with hetero.Runtime(backends=backends, plugins=False, learn=False) as runtime:
        session = runtime.load(DOUBLE, canary=False)
        y = blank()
        try:
            assert DOORS[name](session, X, out=y) is y
        except errors.AllDevicesFailed:
            assert not {"ok", "direct"} & set(fates)
            assert untouched(y) or name in ("call", "run")
        else:
            assert {"ok", "direct"} & set(fates)
            assert y.tolist() == [0, 2, 4, 6]


def test_a_withdrawn_delivery_writes_nothing() -> None:
    y = blank()
    delivery = Delivery(y, DOUBLE.signature, {"x": X})
    delivery.withdraw()
    delivery.write({"y": X})
    assert untouched(y)
