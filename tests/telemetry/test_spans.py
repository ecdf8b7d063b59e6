"""Records laid out in time: what is drawn where, and that nothing is drawn on top of another thing."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hetero.telemetry.spans import Layout
from tests.telemetry.stories import WALL, attempt, load, record, story


def test_runs_lie_on_their_device_lane_and_time() -> None:
    layout = Layout(story())
    assert layout.devices == ["npu (simulated)", "cpu"]
    assert [(row.device, row.label, row.simulated) for row in layout.rows] == [
        ("npu (simulated)", "lane 0", True),
        ("cpu", "lane 0", False),
    ]
    assert [(span.row, span.start, span.end) for span in layout.spans] == [
        (0, 0.0, 1.0),
        (0, 1.0, 2.0),
        (1, 2.5, 5.0),
        (1, 5.0, 6.25),
    ]
    assert layout.began == WALL
    assert layout.seconds == 6.0
    assert layout.programs == ["double", "other"]


def test_waits_are_the_times_in_which_nobody_worked_for_a_request() -> None:
    assert [(wait.start, wait.end) for wait in Layout(story()).waits] == [(0.5, 1.0), (2.0, 2.5), (5.25, 5.75)]


def test_the_number_of_those_who_wait_ends_at_none() -> None:
    together = [record(0.0, 3.0, attempt("cpu", 2.0, 1.0)), record(1.0, 4.0, attempt("cpu", 3.0, 2.0))]
    assert Layout(together).waiting() == [(0.0, 0), (0.0, 1), (1.0, 2), (2.0, 1), (3.0, 0)]


def test_failures_are_marked_at_their_end_and_what_was_passed_over_at_the_arrival() -> None:
    refused_long_ago = attempt("cpu", -60.0, 0.5, "unsupported", stage="load", lane=None)
    layout = Layout([*story(), record(7.0, 1.0, refused_long_ago, attempt("npu", 7.0, 1.0, simulated=True))])
    assert [(mark.row, mark.time, mark.attempt.outcome) for mark in layout.marks] == [
        (0, 2.0, "failed"),
        (0, 5.0, "set aside"),
        (1, 7.0, "unsupported"),
    ]


def test_a_load_in_the_middle_of_a_request_has_a_row_of_its_own() -> None:
    load = attempt("cpu", 1.0, 0.5, stage="load", lane=None)
    layout = Layout([record(0.0, 2.0, attempt("npu", 0.0, 1.0, "failed"), load, attempt("cpu", 1.5, 0.5))])
    assert [row.label for row in layout.rows] == ["lane 0", "lane 0", "loads"]
    assert {layout.rows[span.row].label for span in layout.spans if span.attempt is load} == {"loads"}


def test_a_device_that_never_ran_has_a_row_too() -> None:
    layout = Layout([record(0.0, 1.0, attempt("rknn", 0.0, 0.0, "unavailable", stage="probe", lane=None))])
    assert [(row.device, row.label) for row in layout.rows] == [("rknn", "not used")]
    assert [mark.row for mark in layout.marks] == [0]


def test_no_record_is_no_error() -> None:
    layout = Layout([])
    assert (layout.rows, layout.spans, layout.seconds, layout.waiting()) == ([], [], 0.0, [(0.0, 0)])


def test_the_wall_clock_of_one_record_does_not_shift_its_runs_against_the_others() -> None:
    first, second = record(0.0, 1.0, attempt("cpu", 0.0, 1.0)), record(1.0, 1.0, attempt("cpu", 1.0, 1.0))
    second.started -= 0.125
    assert [(span.start, span.end) for span in Layout([first, second]).spans] == [(0.0, 1.0), (1.0, 2.0)]


def test_records_of_two_processes_are_put_together_by_the_wall_clock() -> None:
    here, there = record(0.0, 1.0, attempt("cpu", 0.0, 1.0)), record(0.0, 1.0, attempt("npu", 0.0, 1.0))
    there.started += 100.0
    assert [(span.start, span.attempt.device) for span in Layout([there, here]).spans] == [(0.0, "cpu"), (100.0, "npu")]


times = st.floats(0, 100).map(lambda seconds: round(seconds, 3))


@given(st.lists(st.tuples(times, times, st.integers(0, 2), st.sampled_from(["cpu", "npu"])), max_size=40))
def test_spans_in_one_row_never_overlap_and_none_is_left_out(runs: list[tuple[float, float, int, str]]) -> None:
    records = [
        record(start, seconds, attempt(device, start, seconds, lane=lane)) for start, seconds, lane, device in runs
    ]
    layout = Layout(records)
    assert len(layout.spans) == len(runs)
    for row in range(len(layout.rows)):
        mine = sorted((span.start, span.end) for span in layout.spans if span.row == row)
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(mine))
    assert all(layout.rows[span.row].label.startswith(f"lane {span.attempt.lane}") for span in layout.spans)


@pytest.mark.parametrize("error", ["CancelledError: ", "DeadlineExceeded: x"])
def test_a_request_that_was_given_up_in_the_queue_waited_to_its_end(error: str) -> None:
    waits = Layout([record(0.0, 2.0, attempt("npu", 0.0, 1.0, "failed"), error=error)]).waits
    assert [(wait.start, wait.end) for wait in waits] == [(1.0, 2.0)]


def test_a_load_has_a_row_and_the_trace_begins_with_it() -> None:
    layout = Layout([record(60.0, 1.0, attempt("npu", 60.0, 1.0))], [load(0.0, 59.0)])
    assert [(row.device, row.label) for row in layout.rows] == [("npu", "lane 0"), ("npu", "loads")]
    assert [(span.start, span.end, span.attempt.stage) for span in layout.spans] == [
        (0.0, 59.0, "load"),
        (60.0, 61.0, "run"),
    ]
    assert (layout.seconds, layout.began, layout.waits) == (61.0, WALL, [])


def test_a_load_that_a_request_tells_of_too_is_drawn_once_and_a_failed_one_is_marked() -> None:
    refused = load(1.0, 2.0, "npu", "unsupported")
    told = record(0.5, 4.0, attempt("gpu", 0.5, 0.5, "failed"), refused.attempt, attempt("cpu", 3.0, 1.5))
    later = record(5.0, 1.0, refused.attempt, attempt("cpu", 5.0, 1.0))
    layout = Layout([told, later], [refused])
    assert [span.record for span in layout.spans if span.attempt.stage == "load"] == [refused]
    assert [(mark.time, mark.attempt.outcome) for mark in layout.marks if mark.attempt.device == "npu"] == [
        (2.5, "unsupported"),
        (4.5, "unsupported"),
    ]
    assert layout.waits == []
