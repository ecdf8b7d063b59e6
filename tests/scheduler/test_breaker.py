"""A device that fails is left alone for a while, and comes back by itself when it answers a canary."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hetero import errors
from hetero.scheduler.breaker import Breaker, BreakerSettings


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def make(clock: Clock, draw: float = 0.5) -> Breaker:
    return Breaker(BreakerSettings(), clock, lambda: draw)


@pytest.mark.parametrize("error", [errors.DeviceLost("x"), errors.DeviceTimeout("x"), errors.WrongAnswer("x")])
def test_a_lost_hung_or_wrong_device_is_shut_out_at_once(error: Exception) -> None:
    breaker = make(Clock())
    assert breaker.failed(error, "x")
    assert not breaker.closed


@pytest.mark.parametrize("error", [errors.ExecutionError("x"), errors.OutOfMemory("x"), ValueError("x")])
def test_a_single_hiccup_is_tolerated_and_two_in_a_row_are_not(error: Exception) -> None:
    breaker = make(Clock())
    assert not breaker.failed(error, "x")
    breaker.succeeded()
    assert not breaker.failed(error, "x")
    assert breaker.failed(error, "x")


def test_one_caller_per_pause_is_told_to_run_the_canary() -> None:
    clock = Clock()
    breaker = make(clock)
    breaker.failed(errors.DeviceLost("x"), "x")
    assert not breaker.due()
    clock.now += 0.5
    assert breaker.due()
    assert breaker.state == "half-open"
    assert not breaker.due()
    breaker.recovered()
    assert breaker.closed


def test_each_failed_canary_doubles_the_pause_up_to_a_limit() -> None:
    clock = Clock()
    breaker = make(clock)
    pauses = []
    breaker.failed(errors.DeviceLost("x"), "x")
    for _ in range(10):
        pauses.append(breaker.retry_in)
        clock.now += breaker.retry_in
        assert breaker.due()
        assert breaker.failed(errors.ExecutionError("still"), "still")
    assert pauses == pytest.approx([0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60])


def test_recovery_forgets_the_doubling() -> None:
    clock = Clock()
    breaker = make(clock)
    for _ in range(3):
        breaker.failed(errors.DeviceLost("x"), "x")
        clock.now += breaker.retry_in
        assert breaker.due()
    breaker.recovered()
    breaker.failed(errors.DeviceLost("x"), "x")
    assert breaker.retry_in == pytest.approx(0.5)


def test_a_wrong_answer_shuts_it_out_for_longer() -> None:
    breaker = make(Clock())
    breaker.failed(errors.WrongAnswer("x"), "x")
    assert breaker.retry_in == pytest.approx(4.0)


@given(st.floats(0, 1, exclude_max=True))
def test_jitter_stays_within_its_share(draw: float) -> None:
    breaker = make(Clock(), draw)
    breaker.failed(errors.DeviceLost("x"), "x")
    assert 0.4 - 1e-9 <= breaker.retry_in <= 0.6 + 1e-9
