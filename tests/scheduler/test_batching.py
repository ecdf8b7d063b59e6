"""Requests that share a launch: each gets its own rows, none waits longer than asked, and a bad one spoils no other."""

from __future__ import annotations

import concurrent.futures
import random
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
from hetero.backend import Array, Call, Program, TensorSpec
from hetero.scheduler.batching import batch_dimension
from tests.fakes import DOUBLE, F32, double, fake, raises

Make = Callable[..., hetero.Runtime]


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Launches:
    """Doubles its input and notes how many rows each launch had."""

    def __init__(self, run: Callable[..., Any] = double) -> None:
        self.rows: list[int] = []
        self._run = run

    def __call__(self, inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        self.rows.append(len(inputs["x"]))
        answer: Mapping[str, Array] = self._run(inputs, call)
        return answer


def rows(*values: float) -> Array:
    return np.array(values, np.float32)


def test_requests_share_a_launch_and_each_gets_its_own_rows(make_runtime: Make) -> None:
    launches = Launches()
    session = make_runtime(fake("n", run=launches), clock=Clock()).load(DOUBLE, batch=4)
    futures = [session.submit(rows(1)), session.submit(rows(2, 3)), session.submit(rows(4))]
    assert [future.result(20).tolist() for future in futures] == [[2], [4, 6], [8]]
    assert launches.rows == [4]


def test_a_lonely_request_waits_no_longer_than_the_delay(make_runtime: Make) -> None:
    launches, clock = Launches(), Clock()
    runtime = make_runtime(fake("n", run=launches), clock=clock)
    session = runtime.load(DOUBLE, batch=4, batch_delay=0.01)
    future = session.submit(rows(1))
    clock.now += 0.009
    runtime.timers.run_due()
    assert not future.done()
    assert launches.rows == []
    clock.now += 0.002
    runtime.timers.run_due()
    assert future.result(20).tolist() == [2]
    assert launches.rows == [1]


def test_a_request_that_does_not_fit_any_more_starts_the_next_launch(make_runtime: Make) -> None:
    launches, clock = Launches(), Clock()
    runtime = make_runtime(fake("n", run=launches), clock=clock)
    session = runtime.load(DOUBLE, batch=4)
    futures = [session.submit(rows(1, 2, 3)), session.submit(rows(4, 5))]
    assert futures[0].result(20).tolist() == [2, 4, 6]
    clock.now += 1
    runtime.timers.run_due()
    assert futures[1].result(20).tolist() == [8, 10]
    assert launches.rows == [3, 2]


def test_a_request_as_large_as_a_launch_goes_alone(make_runtime: Make) -> None:
    launches = Launches()
    session = make_runtime(fake("n", run=launches), clock=Clock()).load(DOUBLE, batch=4)
    assert len(session.submit(np.arange(9, dtype=np.float32)).result(20)) == 9
    assert session.submit(rows()).result(20).tolist() == []
    assert launches.rows == [9, 0]


def test_synchronous_callers_share_launches_too(make_runtime: Make) -> None:
    launches = Launches()
    session = make_runtime(fake("n", run=launches)).load(DOUBLE, batch=3, batch_delay=30)
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda i: session(rows(i)).tolist(), range(3)))
    assert answers == [[0], [2], [4]]
    assert launches.rows == [3]


@pytest.mark.parametrize(("padding", "filled"), [("zeros", [1, 2, 0, 0]), ("repeat", [1, 2, 2, 2])])
def test_a_launch_that_is_not_full_is_padded_as_the_program_says(make_runtime: Make, padding: Any, filled: Any) -> None:
    seen: list[list[float]] = []

    def run(inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        seen.append(inputs["x"].tolist())
        return double(inputs, call)

    clock = Clock()
    runtime = make_runtime(fake("n", run=run), clock=clock)
    session = runtime.load(replace(DOUBLE, padding=padding), batch=4)
    futures = [session.submit(rows(1)), session.submit(rows(2))]
    clock.now += 1
    runtime.timers.run_due()
    assert [future.result(20).tolist() for future in futures] == [[2], [4]]
    assert seen == [filled]


def test_one_bad_request_spoils_no_other(make_runtime: Make) -> None:
    def run(inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        if 13 in inputs["x"]:
            raise errors.InputError("13 is unlucky")
        return double(inputs, call)

    launches = Launches(run)
    runtime = make_runtime(fake("n", run=launches), clock=Clock())
    session = runtime.load(DOUBLE, batch=3)
    good, bad, other = session.submit(rows(1)), session.submit(rows(13)), session.submit(rows(2))
    assert good.result(20).tolist() == [2]
    assert other.result(20).tolist() == [4]
    with pytest.raises(errors.InputError, match="unlucky"):
        bad.result(20)
    assert launches.rows == [3, 1, 1, 1]
    assert sorted(record.error is None for record in runtime.records) == [False, True, True]


def test_a_batch_falls_back_like_any_request_and_every_record_tells_it(make_runtime: Make) -> None:
    runtime = make_runtime(fake("n", run=raises(errors.DeviceLost("reset"))), fake("c", kind="cpu"), clock=Clock())
    session = runtime.load(DOUBLE, batch=2, canary=False)
    futures = [session.submit(rows(1)), session.submit(rows(2))]
    assert [future.result(20).tolist() for future in futures] == [[2], [4]]
    assert len(runtime.records) == 2
    for record in runtime.records:
        assert [(a.device, a.outcome) for a in record.attempts] == [("n", "failed"), ("c", "ok")]


def test_a_cancelled_request_leaves_its_batch(make_runtime: Make) -> None:
    launches, clock = Launches(), Clock()
    runtime = make_runtime(fake("n", run=launches), clock=clock)
    session = runtime.load(DOUBLE, batch=4)
    gone, stays = session.submit(rows(1)), session.submit(rows(2))
    assert gone.cancel()
    clock.now += 1
    runtime.timers.run_due()
    assert stays.result(20).tolist() == [4]
    assert launches.rows == [1]
    assert [record.error for record in runtime.records] == ["CancelledError: ", None]


def test_a_deadline_before_the_launch_is_kept(make_runtime: Make) -> None:
    launches, clock = Launches(), Clock()
    runtime = make_runtime(fake("n", run=launches), clock=clock)
    session = runtime.load(DOUBLE, batch=4, batch_delay=1.0)
    late = session.submit(rows(1), deadline=0.5)
    clock.now += 0.6
    runtime.timers.run_due()
    with pytest.raises(errors.DeadlineExceeded):
        late.result(20)
    clock.now += 1
    runtime.timers.run_due()
    assert launches.rows == []


def test_closing_turns_away_those_being_gathered(make_runtime: Make) -> None:
    session = make_runtime(fake("n"), clock=Clock()).load(DOUBLE, batch=4)
    future = session.submit(rows(1))
    session.close()
    with pytest.raises(errors.ClosedError):
        future.result(20)


def spec(*shape: Any, name: str = "x") -> TensorSpec:
    return TensorSpec(name, F32, shape)


@pytest.mark.parametrize(
    ("inputs", "outputs", "dimension"),
    [
        ([spec("n", 3)], [spec("n")], "n"),
        ([spec("n"), spec("n", 2, name="b")], [spec("n", 4)], "n"),
        ([spec(1, 3)], [spec(1)], None),
        ([spec("n")], [spec("m")], None),
        ([spec("n")], [spec()], None),
        ([spec("n", "n")], [spec("n")], None),
        ([spec(None)], [spec(None)], None),
        ([], [spec("n")], None),
    ],
)
def test_a_program_is_batched_by_the_first_dimension_that_all_share(
    inputs: list[TensorSpec], outputs: list[TensorSpec], dimension: str | None
) -> None:
    assert batch_dimension(Program("p", tuple(inputs), tuple(outputs), ())) == dimension


def test_asking_to_batch_what_cannot_be_is_refused(make_runtime: Make) -> None:
    program = Program("p", (spec(1, 3),), (spec(1, 3, name="y"),), DOUBLE.artifacts)
    with pytest.raises(errors.OptionError, match="cannot be batched"):
        make_runtime(fake("n")).load(program, batch=4)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.integers(2, 8), st.integers(0, 10_000))
def test_whatever_the_sizes_and_order_every_row_comes_back_to_its_owner(
    sizes: list[int], batch: int, seed: int
) -> None:
    rng = random.Random(seed)
    with hetero.Runtime(backends=[fake("n", lanes=2)], plugins=False, learn=False) as runtime:
        session = runtime.load(DOUBLE, batch=batch, batch_delay=0.0005)
        sent = [np.array([rng.random() for _ in range(size)], np.float32) for size in sizes]
        futures: list[Any] = [None] * len(sent)

        def send(start: int) -> None:
            for i in range(start, len(sent), 2):
                futures[i] = session.submit(sent[i])

        threads = [threading.Thread(target=send, args=(start,)) for start in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for x, future in zip(sent, futures, strict=True):
            np.testing.assert_array_equal(future.result(20), x * 2)
