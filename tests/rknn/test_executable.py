"""Slots, contexts and orders of a model on the NPU, on a driver that a test decides over."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from hetero.backend import Array, Call, ExecutionError, NonFiniteOutput, Unsupported
from hetero.errors import OptionError
from hetero_rknn.measure import measure, quickest
from hetero_rknn.pacing import Pacing
from hetero_rknn.perf import PerfLog
from tests.rknn.fake_driver import FakeContext, FakeDriver, variant

X = np.array([1, 2], np.float32)


def call(lane: int = 0, number: int = 0, **options: object) -> Call:
    made = Call(lane)
    made.number = number
    made.options = options
    return made


def test_every_core_has_a_context_and_a_lane_of_its_own() -> None:
    driver = FakeDriver()
    executable = driver.executable()
    assert executable.lanes == 3
    assert executable.units == ["core0", "core1", "core2"]
    assert [context.mask for context in driver.contexts] == [1, 2, 4]
    assert driver.opened == ["2.rknn"], "the others share its weights"
    for lane in range(3):
        assert executable.run({"x": X}, call(lane))["y"].tolist() == [2, 4]
    assert [context.runs for context in driver.contexts] == [1, 1, 1]
    executable.close()
    assert [context.closed for context in driver.contexts] == [1, 1, 1]


def test_static_order_goes_round_the_schedule_whatever_the_lane() -> None:
    driver = FakeDriver()
    executable = driver.executable(placing={"schedule": [0, 0, 1], "order": "static"})
    for number in range(9):
        executable.run({"x": X}, call(lane=number % executable.lanes, number=number))
    assert [(context.mask, context.runs) for context in driver.contexts] == [(1, 6), (2, 3)]
    assert not executable.units


def test_a_job_in_static_order_waits_for_its_core_though_others_are_free() -> None:
    driver, gate, began = FakeDriver(), threading.Event(), threading.Event()

    def run(context: FakeContext, inputs: Sequence[Array]) -> list[Array]:
        if context.mask == 1 and not gate.is_set():
            began.set()
            assert gate.wait(30)
        return [inputs[0] * 2]

    driver.on_run = run
    executable = driver.executable(placing={"schedule": "0,1", "order": "static"})
    ended: list[int] = []

    def job(number: int) -> None:
        executable.run({"x": X}, call(number, number))
        ended.append(number)

    first = threading.Thread(target=job, args=(0,))
    first.start()
    assert began.wait(30)
    second, third = (threading.Thread(target=job, args=(number,)) for number in (1, 2))
    second.start()
    third.start()
    second.join(30)
    assert ended == [1]
    gate.set()
    first.join(30)
    third.join(30)
    assert sorted(ended) == [0, 1, 2]


@pytest.mark.parametrize("moves", [True, False])
def test_a_mask_for_one_call_holds_for_that_call_alone(moves: bool) -> None:
    driver = FakeDriver(moves=moves)
    seen: list[int] = []

    def run(context: FakeContext, inputs: Sequence[Array]) -> list[Array]:
        seen.append(context.mask)
        return [inputs[0] * 2]

    driver.on_run = run
    executable = driver.executable(placing={"core_mask": "0"})
    for mask in (None, "0_1_2", "0_1_2", "1", None):
        executable.run({"x": X}, call(core_mask=mask) if mask else call())
    assert seen == [1, 7, 7, 2, 1]
    assert len(driver.contexts) == (1 if moves else 3), "one context more for each mask where they cannot be moved"
    executable.close()
    assert all(context.closed == 1 for context in driver.contexts)


def test_a_mask_that_the_soc_does_not_have_is_refused_before_the_vendor_hears_of_it() -> None:
    driver = FakeDriver()
    executable = driver.executable()
    with pytest.raises(OptionError, match="core"):
        executable.run({"x": X}, call(core_mask="3"))
    assert all(context.runs == 0 for context in driver.contexts)


def test_a_context_that_failed_is_opened_anew_and_the_others_stay() -> None:
    driver = FakeDriver()
    bad: list[FakeContext] = []

    def run(context: FakeContext, inputs: Sequence[Array]) -> list[Array]:
        if context in bad:
            raise ExecutionError("rknn_run failed: RKNN_ERR_FAIL (-1)")
        return [inputs[0] * 2]

    driver.on_run = run
    executable = driver.executable()
    bad.append(driver.contexts[1])
    with pytest.raises(ExecutionError):
        executable.run({"x": X}, call(1))
    assert executable.run({"x": X}, call(1))["y"].tolist() == [2, 4]
    assert [context.closed for context in driver.contexts] == [0, 1, 0, 0]
    assert driver.contexts[3].mask == 2
    executable.close()
    assert [context.closed for context in driver.contexts] == [1, 1, 1, 1]


def test_the_variant_of_the_requests_shapes_is_opened_when_it_is_first_asked_for() -> None:
    driver = FakeDriver()
    executable = driver.executable(sizes=(2, 3))
    assert driver.opened == ["2.rknn"]
    assert executable.run({"x": np.ones(3, np.float32)}, call())["y"].tolist() == [2, 2, 2]
    assert driver.opened == ["2.rknn", "3.rknn"]
    with pytest.raises(Unsupported, match=r"compiled for x\[2\]; x\[3\]; got x\[4\]"):
        executable.run({"x": np.ones(4, np.float32)}, call())


@pytest.mark.parametrize(("on_nonfinite", "final"), [("rerun", False), ("raise", True)])
def test_an_answer_with_infinity_is_not_given(on_nonfinite: str, final: bool) -> None:
    driver = FakeDriver()
    driver.on_run = lambda context, inputs: [np.array([np.inf, 1], np.float32)]
    executable = driver.executable(on_nonfinite=on_nonfinite)
    with pytest.raises(NonFiniteOutput, match="1 of 2 numbers in output 'y' are NaN or infinite") as caught:
        executable.run({"x": X}, call())
    assert caught.value.final is final
    assert not driver.contexts[0].closed, "an overflow says nothing against the context"


def test_an_answer_with_infinity_is_given_to_who_wants_it() -> None:
    driver = FakeDriver()
    driver.on_run = lambda context, inputs: [np.array([np.inf, np.nan], np.float32)]
    assert np.isinf(driver.executable(on_nonfinite="pass").run({"x": X}, call())["y"][0])


def test_large_finite_numbers_whose_sum_overflows_are_finite() -> None:
    driver = FakeDriver()
    driver.on_run = lambda context, inputs: [np.full(2, 3e38, np.float32)]
    assert driver.executable().run({"x": X}, call())["y"].tolist() == np.full(2, 3e38, np.float32).tolist()


def test_pacing_keeps_the_law_of_the_seed() -> None:
    now = [0.0]
    pacing = Pacing(3, lambda: now[0])
    assert pacing.due_in() == 0.0
    pacing.began()
    assert pacing.due_in() == 0.0, "nothing is known before the first job has ended"
    pacing.took(0.030)
    pacing.took(0.050)
    assert pacing.interval == pytest.approx((0.95 * 0.030 + 0.05 * 0.050) / 3)
    pacing.began()
    assert pacing.due_in() == pytest.approx(pacing.interval)
    now[0] += pacing.interval
    assert pacing.due_in() == 0.0


def test_a_line_a_job_is_written_where_the_environment_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "perf.log"
    for environ in ({"HETERO_RKNN_PERF": str(file)}, {"ZTU_EZRKNN_ASYNC_PRINT_PERF": "Yes"}):
        executable = FakeDriver().executable(perf=PerfLog.of(environ))
        executable.run({"x": X}, call(lane=1, number=7))
        executable.close()
    line = (
        f"task_id=7 thread_id={threading.get_ident()} core_id=core1 "
        "set_input_us=1000 infer_us=20000 copy_output_us=2000 total_us=23000"
    )
    assert file.read_text() == capsys.readouterr().err == f"[hetero_rknn_perf] {line}\n"


@pytest.mark.parametrize("value", ["", "0", "off", "False"])
def test_no_lines_are_written_where_nobody_asked(value: str) -> None:
    assert PerfLog.of({"HETERO_RKNN_PERF": value}) is None


def test_a_log_that_cannot_be_written_is_told_at_load(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="cannot be written"):
        PerfLog.of({"HETERO_RKNN_PERF": str(tmp_path / "none" / "perf.log")})


def test_the_quicker_placement_is_kept_with_its_numbers() -> None:
    driver = FakeDriver()

    def run(context: FakeContext, inputs: Sequence[Array]) -> list[Array]:
        threading.Event().wait(0.001 if context.mask == 7 else 0.02)
        return [inputs[0] * 2]

    driver.on_run = run
    makes = {
        "a context a core": lambda: driver.executable(),
        "one over all cores": lambda: driver.executable(placing={"core_mask": "all"}),
    }
    winner, executable, results = quickest(makes, variant(2).model)
    assert winner == "one over all cores"
    assert executable.lanes == 1
    assert "jobs/s" in str(results["a context a core"])
    executable.close()
    assert all(context.closed == 1 for context in driver.contexts)


def test_a_placement_that_fails_loses_and_says_why() -> None:
    driver = FakeDriver()

    def broken() -> FakeDriver:
        raise Unsupported("this mask is not supported")

    makes = {"one over all cores": broken, "a context a core": lambda: driver.executable()}
    winner, executable, results = quickest(makes, variant(2).model)  # type: ignore[arg-type]
    assert winner == "a context a core"
    assert results["one over all cores"] == "could not be measured: this mask is not supported"
    executable.close()


def test_a_job_that_fails_ends_the_measurement() -> None:
    driver = FakeDriver()
    executable = driver.executable()

    def run(context: FakeContext, inputs: Sequence[Array]) -> list[Array]:
        raise ExecutionError("no")

    driver.on_run = run
    with pytest.raises(ExecutionError):
        measure(executable, variant(2).model)
