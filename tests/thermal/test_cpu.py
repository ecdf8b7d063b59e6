"""Work that begins on the CPU is seen at once, what is always there is no news, and what cannot be read is no load."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hetero.testing.thermal import builds
from hetero.testing.thermal.scenarios import scenario, spells
from hetero.testing.thermal.strategies import Governed, play
from hetero.testing.thermal.sysroots import Sysroot
from hetero.thermal.cpu import CpuLoad, Rise
from hetero.thermal.laws import Budget


def test_work_that_begins_is_told_of_as_the_degrees_it_will_bring_and_once_it_is_usual_no_more() -> None:
    rise = Rise()
    assert [rise.take(0.1) for _ in range(20)] == [0.0] * 20
    assert rise.take(0.2) == pytest.approx(0.75)  # it began in the middle of a second
    assert rise.take(0.3) == pytest.approx(1.5)
    assert [rise.take(0.3) for _ in range(20)] == [pytest.approx(0.75), *[0.0] * 19]
    assert rise.take(0.0) == 0.0


def test_a_load_that_comes_and_goes_all_the_time_is_no_news() -> None:
    rise = Rise()
    for second in range(10):
        rise.take(0.1 + 0.1 * (second % 3 == 0))
    assert [rise.take(0.1 + 0.1 * (second % 3 == 0)) for second in range(60)] == [0.0] * 60


@given(st.lists(st.floats(0, 1), max_size=60))
def test_no_load_tells_of_more_heat_than_can_be_kept_free(shares: list[float]) -> None:
    rise = Rise()
    assert all(0 <= rise.take(share) <= 1.5 for share in shares)


def test_the_kernel_s_counters_are_read_as_shares_of_the_time_between_two_looks(tmp_path: Path) -> None:
    root = Sysroot(tmp_path, "rk3588")
    load, busy = CpuLoad(tmp_path), 0.0
    told = []
    for second in range(30):
        busy += 0.1 if second < 20 else 0.2
        root.show_cpu(busy, second + 1 - busy)
        told.append(load.look())
    assert told[:20] == [0.0] * 20
    assert told[20] == pytest.approx(0.75, abs=0.05)
    assert load.look() == 0.0  # no time has passed


@pytest.mark.parametrize("content", [None, "", "cpu", "intr 1 2 3", "cpu  1 2 3", "cpu  a b c d e f g"])
def test_where_the_kernel_tells_no_load_there_is_none(tmp_path: Path, content: str | None) -> None:
    (tmp_path / "proc").mkdir()
    if content is not None:
        (tmp_path / "proc/stat").write_text(content)
    load = CpuLoad(tmp_path)
    assert load.look() is None
    (tmp_path / "proc/stat").write_text("cpu  10 0 0 90 0 0 0 0 0 0\ncpu0 10 0 0 90 0 0 0 0 0 0\n")
    assert load.look() == 0.0


def test_heat_that_is_expected_is_kept_free_for_a_while_and_why_says_so() -> None:
    law = Budget(85.0)
    law.step(84.0, 0.5, 1.0, 0.0)
    before = law.target
    law.expect(1.5)
    law.step(84.0, 0.5, 1.0, 0.0)
    assert law.target <= before - 1.0
    assert "1.5 C are kept free for others' work" in law.explain()
    for _ in range(25):
        law.expect(0.0)
        law.step(80.0, 0.5, 1.0, 0.0)
    assert law.target >= before
    assert "kept free" not in law.explain()


def test_a_compile_that_begins_on_a_machine_at_its_limit_does_not_take_it_over_that() -> None:
    compiles = 2.0 * spells(900, 120, 240, first=400)
    case = scenario("compile", builds.RK3588_SEALED, 36.0, cpu=compiles, seconds=900)
    (outcome,) = play([case], Governed)
    assert outcome.hot_seconds == 0

    class Blind(Governed):
        def expect(self, degrees: float) -> None:
            """Nobody tells it."""

    assert play([case], Blind)[0].hot_seconds > 0
