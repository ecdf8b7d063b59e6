"""Cores, time and faults of the simulated `librknnrt.so`: what hardware does and what it punishes."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import byref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hetero.testing.rknn.npu import SimulatedNpu
from hetero_rknn.drivers import capi_types as c
from tests import models
from tests.rknn.board import (
    FAIL,
    NON_BLOCK,
    PARAMETER,
    PLATFORM,
    TIMEOUT,
    UNAVAILABLE,
    Board,
    RunExtend,
    Running,
    contexts,
    in_thread,
    numbers,
)
from tests.rknn.sim_models import twin, wait_for

MASKS = {
    "rk3588": {0: 0, 1: 0, 2: 0, 4: 0, 3: 0, 7: 0, 0xFFFF: 0, 5: PARAMETER, 6: PARAMETER, 8: PARAMETER, -1: PARAMETER},
    "rk3576": {0: 0, 1: 0, 2: 0, 3: 0, 4: 0, 7: 0, 5: PARAMETER, 6: PARAMETER},
    "rk3566": {0: 0, 1: PLATFORM, 2: PLATFORM, 3: PLATFORM, 7: PLATFORM, 0xFFFF: PLATFORM},
}


@pytest.mark.parametrize("platform", MASKS)
def test_masks_are_accepted_as_on_the_chip(board: Board, tmp_path: Path, platform: str) -> None:
    board.library.configure(SimulatedNpu(platform))
    handle = board.init(twin(models.double(tmp_path / "m.onnx"), [platform])[0])
    assert {mask: board.call.rknn_set_core_mask(handle, mask) for mask in MASKS[platform]} == MASKS[platform]


@pytest.mark.parametrize(
    ("platform", "mask", "cores", "warned"),
    [
        ("rk3588", 4, (0, 0, 1), False),
        ("rk3588", 3, (1, 1, 0), False),
        ("rk3588", 7, (1, 1, 1), False),
        ("rk3588", 0xFFFF, (1, 1, 1), False),
        ("rk3588", 0, (1, 0, 0), False),
        ("rk3576", 4, (1, 0, 0), True),
        ("rk3576", 7, (1, 1, 0), True),
        ("rk3566", 0, (1, 0, 0), False),
    ],
)
def test_a_job_runs_on_the_cores_of_its_mask(
    board: Board,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    platform: str,
    mask: int,
    cores: Sequence[int],
    warned: bool,
) -> None:
    board.library.configure(SimulatedNpu(platform))
    handle = board.init(twin(models.double(tmp_path / "m.onnx"), [platform])[0])
    assert board.call.rknn_set_core_mask(handle, mask) == 0
    board.once(handle, numbers(4), np.empty(4, np.float32))
    assert [board.library.counter(name) for name in ("jobs_0", "jobs_1", "jobs_2")] == list(cores)
    assert ("is taken as" in capfd.readouterr().err) is warned


@pytest.mark.parametrize("masks", [(1, 2, 4), (0, 0, 0), (4, 0, 0)])
def test_cores_work_at_once_and_a_fourth_job_waits(board: Board, small: Path, masks: Sequence[int]) -> None:
    handles = contexts(board, small, [*masks, masks[0]])
    board.library.configure(SimulatedNpu(faults={"hang": 1.0}))
    running = Running(board)
    for count, handle in enumerate(handles[:3], 1):
        running.start(handle)
        running.wait(hung=count)
    running.start(handles[3])
    running.wait(hung=3, waiting=1)
    assert [board.library.counter(name) for name in ("jobs_0", "jobs_1", "jobs_2")] == [1, 1, 1]
    board.library.release_hangs()
    assert running.join() == [TIMEOUT, TIMEOUT, TIMEOUT, 0]
    assert board.library.counter("peak") == 3


def test_a_job_for_several_cores_waits_for_all_and_is_not_overtaken(board: Board, small: Path) -> None:
    handles = contexts(board, small, [1, 3, 2, 4])
    board.library.configure(SimulatedNpu(hung_core=0))
    running = Running(board)
    running.start(handles[0])
    running.wait(hung=1)
    running.start(handles[1])
    running.wait(waiting=1)
    # Core 1 is idle, and kept for the job before.
    running.start(handles[2])
    running.wait(waiting=2)
    # Core 2 is nobody's.
    assert board.run(handles[3]) == 0
    assert board.library.counter("jobs") == 2
    board.library.release_hangs()
    assert running.join() == [TIMEOUT, 0, 0]


def test_a_core_hangs_after_as_many_jobs_as_it_was_told(board: Board, small: Path) -> None:
    board.library.configure(SimulatedNpu(hung_core=1, hung_after=2))
    first, second = contexts(board, small, [2, 1])
    assert [board.run(handle) for handle in (first, first, second, second, second)] == [0] * 5
    running = Running(board)
    running.start(first)
    running.wait(hung=1)
    assert board.run(second) == 0
    board.library.release_hangs()
    assert running.join() == [TIMEOUT]
    assert board.run(first) == 0
    board.library.configure(SimulatedNpu(hung_core=1))
    running.start(first)
    running.wait(hung=1)


def test_a_run_with_a_time_limit_gives_up_in_the_hang_and_in_the_queue(board: Board, small: Path) -> None:
    board.library.configure(SimulatedNpu(hung_core=0))
    first, second = contexts(board, small, [1, 1])
    running = Running(board)
    running.start(first)
    running.wait(hung=1)
    assert board.run(second, RunExtend(timeout_ms=10)) == TIMEOUT
    board.library.release_hangs()
    assert running.join() == [TIMEOUT]
    board.library.configure(SimulatedNpu(hung_core=0))
    assert board.run(second, RunExtend(timeout_ms=10)) == TIMEOUT
    board.library.configure(SimulatedNpu(job_seconds=60))
    assert board.run(second, RunExtend(timeout_ms=10)) == TIMEOUT
    assert board.library.counter("running") == 0


def test_a_run_that_does_not_block_is_waited_for(board: Board, small: Path) -> None:
    board.library.configure(SimulatedNpu(hung_core=0))
    (handle,) = contexts(board, small, [1])
    assert board.run(handle, RunExtend(non_block=NON_BLOCK)) == 0
    wait_for(lambda: board.library.counter("hung") == 1)
    board.library.release_hangs()
    assert board.call.rknn_wait(handle, None) == TIMEOUT
    x, y = numbers(4), np.empty(4, np.float32)
    assert board.set(handle, x) == 0
    assert board.run(handle, RunExtend(non_block=NON_BLOCK)) == 0
    assert board.get(handle, y) == 0
    np.testing.assert_array_equal(y, x + x)
    assert board.library.counter("misuse") == 0


def test_time_is_modelled_by_speedup_and_slowness(board: Board, small: Path) -> None:
    board.library.configure(SimulatedNpu(job_seconds=0.02, slowness=(1, 2, 1), speedup=(1, 2, 4)))
    (handle,) = contexts(board, small, [1])
    duration = ctypes.c_int64()
    for mask, least in ((1, 20_000), (2, 40_000), (3, 20_000), (7, 10_000)):
        board.call.rknn_set_core_mask(handle, mask)
        assert board.run(handle) == 0
        assert board.call.rknn_query(handle, 4, byref(duration), 8) == 0
        # How much longer depends on the machine; shorter would be wrong everywhere.
        assert duration.value >= least


@pytest.mark.parametrize(("fault", "code"), [("fail", FAIL), ("timeout", TIMEOUT), ("lost", UNAVAILABLE)])
def test_a_fault_has_the_vendors_code_and_leaves_no_answer(board: Board, small: Path, fault: Any, code: int) -> None:
    (handle,) = contexts(board, small, [1])
    board.library.configure(SimulatedNpu(faults={fault: 1.0}))
    assert board.run(handle) == code
    assert board.get(handle, np.empty(4, np.float32)) == code
    assert board.library.counter("running") == 0


def test_wrong_answers_are_wrong_in_the_way_they_should_be(board: Board, small: Path) -> None:
    handle, x, y = board.init(small), numbers(4), np.empty(4, np.float32)
    board.library.configure(SimulatedNpu(faults={"nan": 1.0}))
    board.once(handle, x, y)
    assert np.isnan(y).sum() == 1
    np.testing.assert_array_equal(y[~np.isnan(y)], (x + x)[~np.isnan(y)])
    board.library.configure(SimulatedNpu(faults={"garbage": 1.0}))
    board.once(handle, x, y)
    assert np.isfinite(y).all()
    assert not (y == x + x).any()


def test_faults_are_drawn_from_the_seed_in_their_shares(board: Board, small: Path) -> None:
    handle, x = board.init(small), numbers(4)

    def codes(seed: int) -> list[int]:
        board.library.configure(SimulatedNpu(faults={"fail": 0.2, "lost": 0.1}, seed=seed))
        assert board.set(handle, x) == 0
        return [board.run(handle) for _ in range(1000)]

    first = codes(1)
    assert first == codes(1)
    assert first != codes(2)
    # Five standard deviations of a binomial draw.
    assert abs(first.count(FAIL) - 200) < 64
    assert abs(first.count(UNAVAILABLE) - 100) < 48
    assert set(first) == {0, FAIL, UNAVAILABLE}


def test_two_threads_in_one_context_are_noticed_and_get_wrong_answers(board: Board, small: Path) -> None:
    blocker, shared = contexts(board, small, [1, 1])
    board.library.configure(SimulatedNpu(hung_core=0))
    x, y = numbers(4), np.empty(4, np.float32)
    running = Running(board)
    running.start(blocker)
    running.wait(hung=1)
    running.start(shared)
    running.wait(waiting=1)
    intruder = in_thread(lambda: board.set(shared, x))
    running.wait(misuse=1)
    board.library.release_hangs()
    assert running.join() == [TIMEOUT, 0]
    intruder.join()
    assert board.get(shared, y) == 0
    assert not (y == x + x).any()
    np.testing.assert_array_equal(board.once(shared, x, y), x + x)


def test_inputs_set_over_another_threads_unfetched_ones_are_noticed(board: Board, small: Path) -> None:
    handle, x = board.init(small), numbers(4)
    assert board.set(handle, x) == 0
    in_thread(lambda: board.set(handle, 2 * x)).join()
    assert board.library.counter("misuse") == 1
    board.once(board.init(small), x, np.empty(4, np.float32))
    assert board.library.counter("misuse") == 1


def test_one_thread_after_the_other_is_no_misuse(board: Board, small: Path) -> None:
    handle, x = board.init(small), numbers(4)
    for _ in range(3):
        in_thread(lambda: board.once(handle, x, np.empty(4, np.float32))).join()
    assert board.library.counter("misuse") == 0
    assert board.library.counter("jobs") == 3


def test_a_duplicate_shares_the_weights_and_outlives_the_original_here(board: Board, small: Path) -> None:
    original, x = board.init(small), numbers(4)
    copies = [board.dup(original), board.dup(original)]
    assert (board.library.counter("contexts"), board.library.counter("sessions")) == (3, 1)
    assert board.call.rknn_destroy(original) == 0
    assert board.library.counter("orphans") == 1
    for copy in copies:
        np.testing.assert_array_equal(board.once(copy, x, np.empty(4, np.float32)), x + x)
        assert board.call.rknn_destroy(copy) == 0
    assert (board.library.counter("contexts"), board.library.counter("sessions")) == (0, 0)
    assert isinstance(board.init(small), c.Handle)
