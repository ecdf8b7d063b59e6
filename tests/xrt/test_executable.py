"""Tile kernels on the NPU: exact for any number of tiles, several launches in flight, nothing lost when one hangs."""

from __future__ import annotations

import gc
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hetero.backend import Call
from hetero.errors import DeviceTimeout, ExecutionError, Unavailable, Unsupported
from hetero_kernels import get, names
from hetero_xrt.executable import TileExecutable
from hetero_xrt.flights import FLIGHTS
from tests.xrt.machine import KERNEL
from tests.xrt.npu import Laptop, check, inputs_of, run

LAYOUTS = ("packed", "separate")
SHAPES: tuple[dict[str, Any], ...] = (
    {},
    {"tiles_per_launch": 8, "order": "interleaved", "fill": "repeat"},
    {"columns": 2, "tiles_per_launch": 4},
    {"columns": 1, "tiles_per_launch": 1},
    {"columns": 1, "tiles_per_launch": 3},
)


# Threads in waits that hold the GIL take seconds, and are there to be compared with: two shapes of theirs are enough.
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("pipeline", "shape"),
    [
        *((pipeline, shape) for pipeline in ("auto", "off") for shape in SHAPES),
        ("threads", {}),
        ("threads", SHAPES[-1]),
    ],
    ids=str,
)
def test_any_number_of_tiles_gives_the_reference_s_bits(
    tmp_path: Path, layout: Any, shape: dict[str, Any], pipeline: Any
) -> None:
    laptop = Laptop(tmp_path)
    executable = laptop.load(laptop.manifest(layout=layout, **shape), pipeline=pipeline)
    for count in range(10):
        check(executable, count, seed=count)
    per_launch = shape.get("tiles_per_launch", 4)
    assert laptop.npu.report().launches == sum(-(-count // per_launch) for count in range(10)), "none but full ones"
    executable.close()
    laptop.check_clean()


@pytest.mark.parametrize("kernel", names())
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_kernel_runs(tmp_path: Path, kernel: str, layout: Any) -> None:
    laptop = Laptop(tmp_path)
    executable = laptop.load(laptop.manifest(kernel, layout=layout))
    for count in (0, 1, 5, 9):
        check(executable, count, kernel)
    laptop.check_clean()


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(0, 70),
    tile_rows=st.integers(1, 9),
    columns=st.sampled_from([1, 2, 4]),
    each=st.integers(1, 3),
    layout=st.sampled_from(LAYOUTS),
    order=st.sampled_from(["columns", "interleaved"]),
    fill=st.sampled_from(["zeros", "repeat"]),
    weights=st.sampled_from(["tile", "argument"]),
)
def test_rows_that_are_joined_to_tiles_are_dealt_and_trimmed(
    tmp_path_factory: pytest.TempPathFactory, rows: int, tile_rows: int, columns: int, each: int, **rest: Any
) -> None:
    laptop = Laptop(tmp_path_factory.mktemp("joined"))
    manifest = laptop.manifest(
        "layernorm_i8_256", tile_rows=tile_rows, columns=columns, tiles_per_launch=columns * each, **rest
    )
    check(laptop.load(manifest), rows, "layernorm_i8_256", seed=rows)
    laptop.check_clean()


def test_an_answer_is_the_caller_s_own(tmp_path: Path) -> None:
    laptop = Laptop(tmp_path)
    executable = laptop.load(laptop.manifest())
    first = run(executable, inputs_of(KERNEL, 4, seed=1))["o"]
    kept = first.copy()
    run(executable, inputs_of(KERNEL, 4, seed=2))
    np.testing.assert_array_equal(first, kept)


def test_inputs_with_different_numbers_of_tiles_are_refused(tmp_path: Path) -> None:
    laptop = Laptop(tmp_path)
    executable = laptop.load(laptop.manifest())
    with pytest.raises(Unsupported, match="different numbers of tiles"):
        run(executable, {**inputs_of(KERNEL, 3), "q": inputs_of(KERNEL, 4)["q"]})
    check(executable)


@pytest.mark.parametrize(
    ("kernel", "other", "told"),
    [("matmul_i8_64x64", KERNEL, "its inputs are"), ("gelu_i8", "layernorm_i8_256", "its inputs are")],
)
def test_a_kernel_of_another_program_is_refused(tmp_path: Path, kernel: str, other: str, told: str) -> None:
    laptop = Laptop(tmp_path)
    with pytest.raises(Unsupported, match=told):
        TileExecutable(laptop.cache, laptop.manifest(kernel), get(other).program())
    assert laptop.npu.report().contexts == 0, "seen before any call of the vendor's"


# Pipelining.


def test_nothing_is_waited_for_with_the_gil_held(tmp_path: Path) -> None:
    laptop = Laptop(tmp_path)
    executable = laptop.load(laptop.manifest(columns=1, tiles_per_launch=1))
    made = laptop.clock.held
    assert made == pytest.approx(4 * laptop.npu.phoenix.context_seconds), "only the driver's own making of contexts"
    for count in (1, 9, 24):
        check(executable, count)
    assert laptop.clock.held == made


def test_one_column_kernels_get_a_context_in_every_column(tmp_path: Path) -> None:
    laptop = Laptop(tmp_path)
    executable = laptop.load(laptop.manifest(columns=1, tiles_per_launch=1))
    check(executable, 24)
    report = laptop.npu.report()
    assert report.column_launches == (6, 6, 6, 6)
    assert report.peak_in_flight == 8
    assert (executable.lanes, executable.batch) == (8, 4)


@pytest.mark.parametrize("pipeline", ["contexts", "threads", "off"])
def test_pipelines_differ_in_modelled_time(tmp_path: Path, pipeline: Any) -> None:
    """Columns work at the same time, so that 24 tiles take the time of six; the rest is what polling costs."""
    laptop = Laptop(tmp_path, poll=1e-5, switch_seconds=0.0)
    executable = laptop.load(laptop.manifest(columns=1, tiles_per_launch=1), pipeline=pipeline)
    before = laptop.npu.report()
    check(executable, 24)
    busy = [after - start for after, start in zip(laptop.npu.report().busy_seconds, before.busy_seconds, strict=True)]
    launch = laptop.npu.phoenix.tile_seconds + laptop.npu.phoenix.dispatch_seconds
    assert sum(busy) == pytest.approx(24 * launch)
    assert sum(seconds > 0 for seconds in busy) == (1 if pipeline == "off" else 4)


def modelled_seconds(folder: Path, columns: int, **options: Any) -> float:
    """Modelled time of 24 tiles, once the xclbin is loaded into its columns."""
    laptop = Laptop(folder, poll=1e-6)
    executable = laptop.load(laptop.manifest(columns=columns, tiles_per_launch=columns), **options)
    check(executable, 24)
    before = laptop.clock.now()
    check(executable, 24, seed=1)
    laptop.check_clean()
    return laptop.clock.now() - before


@pytest.mark.usefixtures("untraced")
def test_columns_together_are_nearly_four_times_as_fast_in_modelled_time(tmp_path: Path) -> None:
    one_by_one = modelled_seconds(tmp_path / "a", 1, pipeline="off")
    assert one_by_one == pytest.approx(24 * 2.98e-3, rel=0.01)
    assert one_by_one / modelled_seconds(tmp_path / "b", 4) >= 3.9
    assert one_by_one / modelled_seconds(tmp_path / "c", 1, pipeline="contexts") >= 3.6
    assert one_by_one / modelled_seconds(tmp_path / "d", 1, contexts=1) == pytest.approx(1.0, rel=0.02)


@pytest.mark.parametrize("in_flight", [1, 2, 3, 4])
def test_no_more_launches_are_in_flight_than_the_driver_s_queue_takes(tmp_path: Path, in_flight: int) -> None:
    laptop = Laptop(tmp_path)
    executable = laptop.load(laptop.manifest(tiles_per_launch=4), in_flight=in_flight)
    check(executable, 60)
    assert laptop.npu.report().peak_in_flight == in_flight
    laptop.check_clean()


def test_calls_on_several_lanes_share_the_launches(tmp_path: Path) -> None:
    laptop = Laptop(tmp_path, poll=0.0)
    executable = laptop.load(laptop.manifest(columns=1, tiles_per_launch=1))
    long = executable.start(inputs_of(KERNEL, 40, seed=1), Call(0))
    short = executable.start(inputs_of(KERNEL, 4, seed=2), Call(1))
    rounds = 0
    while not short.done():
        laptop.clock.advance(3.5e-3)
        long.done()
        rounds += 1
    assert not long.done(), "the short one does not wait for all of the long one"
    assert rounds <= 6
    while not long.done():
        laptop.clock.advance(3e-3)
    for ticket, count, seed in ((long, 40, 1), (short, 4, 2)):
        expected = get(KERNEL).reference(**inputs_of(KERNEL, count, seed))["o"]
        np.testing.assert_array_equal(ticket.result()["o"], expected)
    laptop.check_clean()


def test_a_request_gets_its_place_though_those_before_it_are_polled_later(tmp_path: Path) -> None:
    laptop = Laptop(tmp_path)
    manifest = laptop.manifest(columns=1, tiles_per_launch=1)
    executable = laptop.load(manifest, contexts=2, in_flight=1)
    every = [inputs_of(KERNEL, 3, seed) for seed in range(3)]
    first, second, last = (executable.start(inputs, Call(lane)) for lane, inputs in enumerate(every))
    laptop.clock.advance(1.0)  # what was started has long ended
    assert any(last.done() for _ in range(1000)), "the places are held by launches that have ended"
    for ticket, inputs in ((last, every[2]), (second, every[1]), (first, every[0])):
        while not ticket.done():
            pass
        np.testing.assert_array_equal(ticket.result()["o"], get(KERNEL).reference(**inputs)["o"], strict=True)
    laptop.check_clean()


def test_what_is_collected_for_another_request_fails_where_it_belongs(tmp_path: Path) -> None:
    laptop = Laptop(tmp_path)
    executable = laptop.load(laptop.manifest(columns=1, tiles_per_launch=1), contexts=1, in_flight=1)
    laptop.npu.force("error")
    first = executable.start(inputs_of(KERNEL, 2), Call(0))
    inputs = inputs_of(KERNEL, 1, seed=1)
    second = executable.start(inputs, Call(1))
    laptop.clock.advance(1.0)
    assert any(second.done() for _ in range(1000))
    np.testing.assert_array_equal(second.result()["o"], get(KERNEL).reference(**inputs)["o"], strict=True)
    assert first.done()
    with pytest.raises(ExecutionError, match="ERROR"):
        first.result()
    check(executable)
    laptop.check_clean()


@pytest.mark.parametrize("pipeline", ["auto", "threads"])
def test_many_threads_get_their_own_answers(tmp_path: Path, pipeline: Any) -> None:
    laptop = Laptop(tmp_path)
    executable = laptop.load(laptop.manifest(columns=1, tiles_per_launch=2), pipeline=pipeline)
    failures: list[BaseException] = []

    def work(lane: int) -> None:
        try:
            for turn in range(2 if pipeline == "threads" else 8):
                check(executable, 1 + (lane + turn) % 7, seed=100 * lane + turn, call=Call(lane))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(lane,)) for lane in range(executable.lanes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    executable.close()
    laptop.check_clean()


# Contexts.


def test_sessions_of_one_kernel_share_contexts_and_the_next_one_finds_them_again(tmp_path: Path) -> None:
    laptop = Laptop(tmp_path)
    manifest = laptop.manifest(columns=1, tiles_per_launch=1)
    first, second = laptop.load(manifest), laptop.load(manifest)
    assert laptop.npu.report().contexts == 4
    first.close()
    first.close()
    check(second, 9)
    second.close()
    check(laptop.load(manifest), 9)
    assert laptop.clock.held == pytest.approx(4 * laptop.npu.phoenix.context_seconds), "none was made twice"
    laptop.check_clean()


def test_auto_goes_on_with_the_contexts_that_there_are_and_says_so(tmp_path: Path) -> None:
    laptop = Laptop(tmp_path)
    first = laptop.load(laptop.manifest(columns=1, tiles_per_launch=1))
    second = laptop.load(laptop.manifest("matmul_i8_64x64", columns=1, tiles_per_launch=1))
    assert second.details["contexts"].startswith("2 of 1 column")
    assert "as many contexts are open" in second.details["fewer contexts"]
    check(first, 9)
    check(second, 9, "matmul_i8_64x64")
    laptop.check_clean()


def test_contexts_that_were_asked_for_are_had_or_it_is_refused(tmp_path: Path) -> None:
    laptop = Laptop(tmp_path)
    first = laptop.load(laptop.manifest(columns=1, tiles_per_launch=1))
    other = laptop.manifest("matmul_i8_64x64", columns=1, tiles_per_launch=1)
    with pytest.raises(Unavailable, match="as many contexts are open"):
        laptop.load(other, pipeline="contexts")
    first.close()
    second = laptop.load(other, pipeline="contexts")
    check(second, 9, "matmul_i8_64x64")
    gc.collect()
    assert laptop.npu.report().contexts == 4, "those that nobody uses made room"
    laptop.check_clean()


# What hangs.


def wait_out(laptop: Laptop) -> None:
    laptop.npu.release_hangs()
    FLIGHTS.sweep()


@pytest.mark.parametrize("pipeline", ["auto", "threads", "off"])
def test_a_run_that_hangs_is_parked_and_told_and_comes_back_when_it_ends(tmp_path: Path, pipeline: Any) -> None:
    laptop = Laptop(tmp_path, poll=1e-2)
    executable = laptop.load(laptop.manifest(), pipeline=pipeline, timeout=5.0)
    check(executable, 8)
    laptop.npu.force("hang")
    with pytest.raises(DeviceTimeout, match="not ended within 5 s"):
        run(executable, inputs_of(KERNEL, 8))
    launches = laptop.npu.report().launches
    with pytest.raises(DeviceTimeout, match="the NPU hangs") as caught:
        run(executable, inputs_of(KERNEL, 8))
    assert "modprobe" in caught.value.fix
    assert laptop.npu.report().launches == launches, "nothing is started behind a run that hangs"
    gc.collect()
    wait_out(laptop)
    check(executable, 24)
    executable.close()
    laptop.check_clean()


def test_one_column_that_hangs_costs_one_request_and_the_others_go_on(tmp_path: Path) -> None:
    laptop = Laptop(tmp_path, poll=1e-2, hung_column=2)
    executable = laptop.load(laptop.manifest(columns=1, tiles_per_launch=1), timeout=5.0)
    with pytest.raises(DeviceTimeout):
        run(executable, inputs_of(KERNEL, 4))  # one launch a column: its other place in the queue is free
    stuck = laptop.npu.report().column_launches[2]
    for count in (1, 9, 24):
        check(executable, count)
    assert laptop.npu.report().column_launches[2] == stuck
    wait_out(laptop)
    check(executable, 24)
    assert laptop.npu.report().column_launches[2] > stuck, "it is used again"
    laptop.check_clean()


@pytest.mark.parametrize("pipeline", ["auto", "threads"])
def test_a_call_that_is_cancelled_raises_and_leaves_the_rest_in_order(tmp_path: Path, pipeline: Any) -> None:
    laptop = Laptop(tmp_path, poll=0.0)
    executable = laptop.load(laptop.manifest(), pipeline=pipeline)
    call = Call(0)
    assert executable.cancel(call) is False
    ticket = executable.start(inputs_of(KERNEL, 40), call)
    assert executable.cancel(call) is True
    while not ticket.done():
        pass
    with pytest.raises(ExecutionError, match="cancelled"):
        ticket.result()
    laptop.clock.advance(1.0)
    FLIGHTS.sweep()
    assert laptop.npu.report().launches <= 2, "no more were started"
    executable.close()
    laptop.check_clean()


class Interrupting(dict[str, Any]):
    """Inputs that are interrupted while they are copied for the second launch."""

    reads = 0

    def __getitem__(self, name: str) -> Any:
        self.reads += 1
        if self.reads > 5:
            raise KeyboardInterrupt
        return super().__getitem__(name)


def test_an_interrupt_in_the_middle_of_a_request_leaves_the_rest_in_order(tmp_path: Path) -> None:
    laptop = Laptop(tmp_path, poll=0.0)
    executable = laptop.load(laptop.manifest())
    with pytest.raises(KeyboardInterrupt):
        executable.start(Interrupting(inputs_of(KERNEL, 8)), Call(0))
    gc.collect()
    assert laptop.npu.report().crashes == ()
    laptop.clock.advance(1.0)
    FLIGHTS.sweep()
    assert FLIGHTS.parked == 0
    ticket = executable.start(inputs_of(KERNEL, 8), Call(0))
    assert laptop.npu.report().peak_in_flight == 2, "both places are free again"
    laptop.clock.advance(1.0)
    assert ticket.done()
    laptop.check_clean()


# For long.


@pytest.mark.usefixtures("untraced")
@pytest.mark.parametrize("fault", [None, "error"])
def test_memory_stays_flat_over_thousands_of_launches(tmp_path: Path, fault: Any) -> None:
    kernel = "gelu_i8"
    laptop = Laptop(tmp_path, poll=1e-2)
    executable = laptop.load(laptop.manifest(kernel, tile_rows=64))
    inputs = inputs_of(kernel, 256)

    def launches(count: int) -> None:
        for number in range(count):
            if fault and number % 10 == 0:
                laptop.npu.force(fault)
                with pytest.raises(ExecutionError):
                    run(executable, inputs)
            else:
                run(executable, inputs)

    launches(200)
    buffers = laptop.npu.report().buffers
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        launches(3000)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 32_000, "less than eleven bytes a launch: one object kept would be more"
    assert laptop.npu.report().buffers == buffers
    assert laptop.npu.report().launches == 3200
    laptop.check_clean()
