"""Runs on the simulated machine: modelled time, states, faults, and who holds the GIL."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hetero.testing.xrt import clock as clock_module
from hetero.testing.xrt.clock import ControlledClock, RealClock
from hetero.testing.xrt.modelled import cycles_of, seconds_of
from hetero.testing.xrt.phoenix import Fault, SimulatedPhoenix
from hetero_kernels import get

from .machine import Machine, attention, attention_tiles, context_of, fill

TILE, DISPATCH = 2.85e-3, 130e-6

# Time.


def test_a_runlist_costs_less_than_launches_one_at_a_time(tmp_path: Path) -> None:
    clock = ControlledClock()
    machine = Machine(tmp_path, clock=clock)
    context = context_of(machine)
    kernel = machine.x.kernel(context, "MLIR_AIE")
    runlist = machine.x.runlist(context)
    kept = [machine.buffers(attention_tiles(4, i)) for i in range(8)]
    runs = [fill(machine, machine.x.run(kernel), buffers) for buffers in kept]
    for run in runs:
        runlist.add(run)
    with pytest.raises(RuntimeError, match="already part of a runlist"):
        runlist.add(runs[0])
    with pytest.raises(RuntimeError, match="belongs to a runlist"):
        runs[0].start()
    for _ in range(2):
        began = clock.now()
        runlist.execute()
        with pytest.raises(RuntimeError, match="must be idle"):
            runlist.execute()
        runlist.wait()
        assert clock.now() - began == pytest.approx(8 * (43e-6 + TILE))
    assert runs[0].state() is machine.states.ERT_CMD_STATE_NEW, "states of runs in a list mean nothing"
    for i, buffers in enumerate(kept):
        np.testing.assert_array_equal(machine.read(buffers[1]).reshape(4, 64, 64), attention(attention_tiles(4, i)))
    assert machine.npu.report().launches == 16
    assert machine.misuse() == {}


def test_a_failure_in_a_runlist_aborts_what_comes_after_it(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    context = context_of(machine)
    kernel = machine.x.kernel(context, "MLIR_AIE")
    runlist = machine.x.runlist(context)
    kept = [machine.buffers(attention_tiles(4, i)) for i in range(3)]
    for buffers in kept:
        runlist.add(fill(machine, machine.x.run(kernel), buffers))
    machine.npu.force(None, "error", None)
    runlist.execute()
    with pytest.raises(RuntimeError, match="runlist failed execution"):
        runlist.wait()
    assert [bool(machine.read(buffers[1]).any()) for buffers in kept] == [True, False, False]
    runlist.execute()
    runlist.wait()
    assert machine.read(kept[2][1]).any()


@pytest.mark.parametrize(
    ("options", "tiles", "expected"),
    [
        ({"columns": 4}, 16, 4),
        ({"columns": 1}, 16, 16),
        ({"columns": 4, "rows": 4}, 16, 1),
        ({"columns": 4, "serial": True}, 16, 16),
    ],
)
def test_columns_and_rows_work_on_tiles_at_the_same_time(
    tmp_path: Path, options: dict[str, Any], tiles: int, expected: int
) -> None:
    design = Machine(tmp_path, tiles_per_launch=tiles, **options).design
    assert seconds_of(design, SimulatedPhoenix()) == pytest.approx(expected * TILE)


def test_the_cycle_model_is_bound_by_the_slowest_of_transfers_and_computing(tmp_path: Path) -> None:
    design = Machine(tmp_path / "a", tiles_per_launch=64).design
    multiply_adds = 16 * 2 * 64**3
    assert cycles_of(design, 1.0) == pytest.approx(1155 + multiply_adds / 256 + 570)
    assert cycles_of(design, 0.5) == pytest.approx(1155 + multiply_adds / 128 + 570)
    gelu = Machine(tmp_path / "b", "gelu_i8", tiles_per_launch=64).design
    assert cycles_of(gelu, 1.0) == pytest.approx(1155 + 16 * 4096 / (4 * 0.99 * 2) + 570)
    quick = SimulatedPhoenix(timing="cycles", clock_mhz=1000, utilisation=1.0)
    assert seconds_of(gelu, quick) == pytest.approx(cycles_of(gelu, 1.0) / 1e9)


def test_the_same_work_goes_through_a_separate_layout_in_the_same_cycles(tmp_path: Path) -> None:
    designs = [Machine(tmp_path / name, "gelu_i8", layout=name).design for name in ("packed", "separate")]
    assert cycles_of(designs[0], 1.0) == cycles_of(designs[1], 1.0)


def test_the_driver_kills_what_takes_longer_than_two_seconds(tmp_path: Path) -> None:
    clock = ControlledClock()
    machine = Machine(tmp_path, clock=clock, tile_seconds=2.1)
    buffers = machine.buffers(attention_tiles(4))
    run = machine.call(buffers)
    began = clock.now()
    assert run.wait() is machine.states.ERT_CMD_STATE_TIMEOUT
    assert clock.now() - began == pytest.approx(2.0)
    assert run.state() is machine.states.ERT_CMD_STATE_TIMEOUT
    assert not machine.read(buffers[1]).any()


# States.


def test_the_two_time_outs_are_told_apart_by_the_state(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    buffers = machine.buffers(attention_tiles(4))
    states = machine.states
    assert machine.x.run(machine.kernel).state() is states.ERT_CMD_STATE_NEW
    run = machine.call(buffers)
    assert run.state() is states.ERT_CMD_STATE_NEW
    assert run.wait(1) is states.ERT_CMD_STATE_TIMEOUT
    assert run.state() is states.ERT_CMD_STATE_NEW, "the caller's time-out"
    assert run.wait(1000) is states.ERT_CMD_STATE_COMPLETED
    assert run.state() is states.ERT_CMD_STATE_COMPLETED
    machine.npu.force("timeout")
    run.start()
    assert run.wait(5000) is states.ERT_CMD_STATE_TIMEOUT
    assert run.state() is states.ERT_CMD_STATE_TIMEOUT, "the device's"


@pytest.mark.parametrize("argument", [(), (0,)])
def test_wait_without_a_limit_waits_to_the_end(tmp_path: Path, argument: tuple[int, ...]) -> None:
    machine = Machine(tmp_path, tile_seconds=1.9)
    buffers = machine.buffers(attention_tiles(4))
    assert machine.call(buffers).wait(*argument) is machine.states.ERT_CMD_STATE_COMPLETED


def test_wait2_raises_where_the_run_failed(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    buffers = machine.buffers(attention_tiles(4))
    machine.npu.force(None, "error")
    assert machine.call(buffers).wait2() is None
    with pytest.raises(RuntimeError, match="Command failed to complete successfully"):
        machine.call(buffers).wait2()


def test_the_fifth_submit_in_a_context_waits_for_the_first(tmp_path: Path) -> None:
    clock = ControlledClock()
    machine = Machine(tmp_path, clock=clock)
    buffers = machine.buffers(attention_tiles(4))
    other = machine.open()
    began, held = clock.now(), clock.held
    runs = [machine.call(buffers) for _ in range(4)]
    assert clock.now() == began
    runs.append(machine.call(buffers))
    assert clock.now() - began == clock.held - held == pytest.approx(DISPATCH + TILE)
    runs.append(machine.call(buffers, other))
    for run in runs:
        run.wait()
    assert machine.npu.report().peak_in_flight == 5


def test_time_passes_for_those_who_poll_when_the_clock_says_so(tmp_path: Path) -> None:
    machine = Machine(tmp_path, clock=ControlledClock(poll_seconds=1e-3))
    buffers = machine.buffers(attention_tiles(4))
    run = machine.call(buffers)
    polls = 1
    while run.state() is not machine.states.ERT_CMD_STATE_COMPLETED:
        polls += 1
    assert polls == 3


# Faults.


@pytest.mark.parametrize(
    ("fault", "state"), [("error", "ERROR"), ("abort", "ABORT"), ("timeout", "TIMEOUT"), ("garbage", "COMPLETED")]
)
def test_faults_end_in_their_states_and_the_next_run_is_well(tmp_path: Path, fault: Fault, state: str) -> None:
    machine = Machine(tmp_path)
    buffers = machine.buffers(attention_tiles(4))
    machine.npu.force(fault)
    run = machine.call(buffers)
    assert run.wait().name == f"ERT_CMD_STATE_{state}"
    assert not np.array_equal(machine.read(buffers[1]).reshape(4, 64, 64), attention(attention_tiles(4)))
    run.start()
    assert run.wait() is machine.states.ERT_CMD_STATE_COMPLETED
    np.testing.assert_array_equal(machine.read(buffers[1]).reshape(4, 64, 64), attention(attention_tiles(4)))
    assert machine.npu.report().misuse == {}


def test_a_hang_holds_its_columns_until_it_is_released(tmp_path: Path) -> None:
    machine = Machine(tmp_path, columns=1, tiles_per_launch=1)
    second = machine.open()
    work = [machine.buffers(attention_tiles(1, i)) for i in range(3)]
    machine.npu.force("hang")
    hung, behind = machine.call(work[0]), machine.call(work[1])
    beside = machine.call(work[2], second)
    assert beside.wait() is machine.states.ERT_CMD_STATE_COMPLETED
    assert hung.wait(10_000) is behind.wait(10_000) is machine.states.ERT_CMD_STATE_TIMEOUT
    assert hung.state() is behind.state() is machine.states.ERT_CMD_STATE_NEW
    machine.npu.release_hangs()
    assert hung.wait() is machine.states.ERT_CMD_STATE_NORESPONSE
    assert behind.wait() is machine.states.ERT_CMD_STATE_COMPLETED
    np.testing.assert_array_equal(machine.read(work[1][1]).reshape(1, 64, 64), attention(attention_tiles(1, 1)))
    assert machine.npu.finish().misuse == {}


def test_a_column_can_be_the_one_that_hangs(tmp_path: Path) -> None:
    machine = Machine(tmp_path, columns=1, tiles_per_launch=1, hung_column=1, hung_after=2)
    second = machine.open()
    buffers = machine.buffers(attention_tiles(1))
    for _ in range(2):
        assert machine.call(buffers, second).wait() is machine.states.ERT_CMD_STATE_COMPLETED
    hung = machine.call(buffers, second)
    assert hung.wait(5000) is machine.states.ERT_CMD_STATE_TIMEOUT
    assert machine.call(buffers).wait() is machine.states.ERT_CMD_STATE_COMPLETED
    machine.npu.release_hangs()
    assert machine.call(buffers, second).wait() is machine.states.ERT_CMD_STATE_COMPLETED


def test_a_lost_device_fails_every_later_call_until_it_is_back(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    other = machine.open()
    buffers = machine.buffers(attention_tiles(4))
    machine.npu.force("lost")
    runs = [machine.call(buffers), machine.call(buffers), machine.call(buffers, other)]
    assert [run.wait() for run in runs] == [machine.states.ERT_CMD_STATE_ABORT] * 3
    for later in (
        lambda: machine.call(buffers),
        lambda: machine.open(),
        lambda: machine.x.device(0),
        lambda: buffers[1].sync(machine.from_device),
    ):
        with pytest.raises(RuntimeError, match=r"\(err=-19\)"):
            later()
    machine.npu.restore()
    with pytest.raises(RuntimeError, match=r"\(err=-19\)"):
        machine.call(buffers)
    assert machine.call(buffers, machine.open()).wait() is machine.states.ERT_CMD_STATE_COMPLETED
    assert machine.npu.report().misuse == {}


def test_faults_are_drawn_in_their_shares_and_again_from_the_same_seed(tmp_path: Path) -> None:
    def ends(seed: int) -> list[str]:
        machine = Machine(tmp_path, "gelu_i8", tiles_per_launch=4, faults={"error": 0.2, "abort": 0.1}, seed=seed)
        buffers = machine.buffers(np.zeros((4, 4096), np.int8))
        return [machine.call(buffers).wait().name for _ in range(400)]

    first = ends(1)
    assert first == ends(1)
    assert first != ends(2)
    assert 50 < first.count("ERT_CMD_STATE_ERROR") < 110
    assert 20 < first.count("ERT_CMD_STATE_ABORT") < 70


@settings(deadline=None, max_examples=30)
@given(
    faults=st.lists(st.sampled_from([None, "error", "abort", "timeout", "garbage", "hang"]), max_size=12),
    contexts=st.integers(1, 4),
)
def test_every_run_ends_exactly_once_whatever_happens(
    tmp_path_factory: pytest.TempPathFactory, faults: list[Fault | None], contexts: int
) -> None:
    machine = Machine(tmp_path_factory.mktemp("runs"), "gelu_i8", columns=1, tiles_per_launch=1, queue=20)
    kernels = [machine.kernel, *(machine.open() for _ in range(contexts - 1))]
    x = np.arange(4096).astype(np.int8)
    work = [[machine.buffer(3, x), machine.buffer(4)] for _ in faults]
    machine.npu.force(*faults)
    runs = [machine.call(mine, kernels[i % contexts]) for i, mine in enumerate(work)]
    for run in runs:
        run.wait(60_000)
    machine.npu.release_hangs()
    expected = {"error": "ERROR", "abort": "ABORT", "timeout": "TIMEOUT", "hang": "NORESPONSE"}
    for run, fault, mine in zip(runs, faults, work, strict=True):
        assert run.wait().name == f"ERT_CMD_STATE_{expected.get(fault or '', 'COMPLETED')}"
        right = np.array_equal(machine.read(mine[1]), get("gelu_i8")(x)["y"])
        assert right == (fault is None)
    report = machine.npu.finish()
    assert (report.launches, report.misuse) == (len(faults), {})


def test_threads_that_poll_their_runs_on_shared_contexts_get_their_own_answers(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "gelu_i8", columns=1, tiles_per_launch=1, clock=ControlledClock(poll_seconds=1e-3))
    kernels = [machine.kernel, machine.open()]
    wrong: list[str] = []

    def work(number: int) -> None:
        rng = np.random.default_rng(number)
        source, target = machine.buffer(3), machine.buffer(4)
        for turn in range(20):
            x = rng.integers(-128, 128, 4096, dtype=np.int8)
            np.copyto(np.frombuffer(source.map(), np.int8), x)
            source.sync(machine.to_device)
            run = machine.call([source, target], kernels[number % 2])
            while run.state() is machine.states.ERT_CMD_STATE_NEW:
                time.sleep(0)
            if not np.array_equal(machine.read(target), get("gelu_i8")(x)["y"]):
                wrong.append(f"thread {number}, turn {turn}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    report = machine.npu.finish()
    assert (report.launches, report.tiles, report.misuse) == (240, 240, {})
    assert report.peak_in_flight <= 8


# The GIL.


def test_waiting_calls_c_without_releasing_the_gil() -> None:
    assert isinstance(clock_module.libc_with_gil, ctypes.PyDLL)


def progress_during(work: Callable[[], Any]) -> int:
    """How often another thread got to run while `work` did."""
    ticks, stop = [0], threading.Event()

    def tick() -> None:
        while not stop.is_set():
            ticks[0] += 1
            time.sleep(1e-3)

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        before = ticks[0]
        work()
        return ticks[0] - before
    finally:
        stop.set()
        thread.join()


def test_other_threads_stand_still_while_a_run_is_waited_for_and_not_while_it_is_polled(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "gelu_i8", tiles_per_launch=4, clock=RealClock(), tile_seconds=0.4)
    buffers = machine.buffers(np.zeros((4, 4096), np.int8))
    run = machine.call(buffers)

    def poll() -> None:
        while run.state() is machine.states.ERT_CMD_STATE_NEW:
            time.sleep(1e-3)

    polled = progress_during(poll)
    assert run.state() is machine.states.ERT_CMD_STATE_COMPLETED
    run.start()
    waited = progress_during(run.wait)
    # 400 ms each: hundreds of turns at best, and only those before and after the sleep itself while waiting.
    assert waited < polled / 4


@pytest.mark.parametrize("call", ["sync", "read", "write", "device", "submit", "execute"])
def test_every_call_that_enters_the_driver_holds_the_gil(tmp_path: Path, call: str) -> None:
    clock = ControlledClock()
    machine = Machine(tmp_path, clock=clock, call_seconds=1e-3)
    buffers = machine.buffers(attention_tiles(4))
    context = context_of(machine)
    runlist = machine.x.runlist(context)
    runlist.add(fill(machine, machine.x.run(machine.x.kernel(context, "MLIR_AIE")), buffers))
    runs: list[Any] = []
    calls: dict[str, Callable[[], Any]] = {
        "sync": lambda: buffers[0].sync(machine.to_device),
        "read": lambda: buffers[0].read(1, 0),
        "write": lambda: buffers[0].write(b"x", 0),
        "device": lambda: machine.x.device(0),
        "submit": lambda: runs.append(machine.call(buffers)),
        "execute": runlist.execute,
    }
    began = clock.held
    calls[call]()
    assert clock.held - began >= 1e-3
    clock.advance(1)
