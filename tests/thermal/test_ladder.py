"""The NPU's clock: lowered where that does more, and set back at every kind of end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hetero.backend import Host
from hetero.errors import Unavailable
from hetero.testing.thermal.machine import ThermalMachine
from hetero.testing.thermal.sysroots import Sysroot
from hetero.thermal.governor import Governor
from hetero.thermal.ladder import Ladder, next_step, power_share, restore
from tests.thermal.conftest import NPU

CLOCKS = [300, 400, 500, 600, 700, 800, 900, 1000]
TOP = 1_000_000_000


@given(st.integers(0, 7), st.floats(0, 1), st.floats(10, 1000))
def test_a_step_moves_by_one_and_towards_what_is_wanted(place: int, wanted: float, since: float) -> None:
    chosen = next_step(CLOCKS, CLOCKS[place], wanted, since)
    assert abs(CLOCKS.index(chosen) - place) <= 1
    assert next_step(CLOCKS, CLOCKS[place], wanted, 3.0) == CLOCKS[place]
    if chosen < CLOCKS[place]:
        assert power_share(chosen, 1000) > wanted
    if chosen > CLOCKS[place]:
        assert power_share(CLOCKS[place], 1000) < wanted


@given(st.integers(0, 7), st.floats(0.02, 1))
def test_steps_come_to_rest_at_the_lowest_that_can_do_it(place: int, wanted: float) -> None:
    clock = CLOCKS[place]
    for _ in range(10):
        clock = next_step(CLOCKS, clock, wanted, 20.0)
    assert clock == next_step(CLOCKS, clock, wanted, 20.0)
    assert power_share(clock, 1000) >= wanted
    lower = [step for step in CLOCKS if step < clock]
    assert not lower or power_share(lower[-1], 1000) * 0.97 <= wanted


def limit(sysroot: Sysroot) -> int | None:
    return sysroot.clock_limit


def test_the_limit_is_set_and_set_back(board: Callable[[str], Sysroot], tmp_path: Path) -> None:
    sysroot = board("rk3588")
    ladder = Ladder(sysroot.root, tmp_path / "cache")
    ladder.set(700_000_000)
    assert limit(sysroot) == 700_000_000
    assert list((tmp_path / "cache/thermal").iterdir())
    ladder.close()
    ladder.close()
    assert limit(sysroot) == TOP
    assert not list((tmp_path / "cache/thermal").iterdir())
    ladder.set(300_000_000)
    assert limit(sysroot) == TOP


def test_a_limit_that_a_user_had_set_is_never_exceeded_and_stands_again(
    board: Callable[[str], Sysroot], tmp_path: Path
) -> None:
    sysroot = board("rk3588")
    sysroot.clock_limit = 800_000_000
    ladder = Ladder(sysroot.root, tmp_path)
    ladder.set(TOP)
    assert limit(sysroot) == 800_000_000
    ladder.set(500_000_000)
    ladder.close()
    assert limit(sysroot) == 800_000_000


def test_a_second_ladder_leaves_the_first_ones_clock_alone(board: Callable[[str], Sysroot], tmp_path: Path) -> None:
    sysroot = board("rk3588")
    ladder = Ladder(sysroot.root, tmp_path)
    ladder.set(500_000_000)
    assert restore(sysroot.root, tmp_path) is None
    with pytest.raises(Unavailable, match="another governor"):
        Ladder(sysroot.root, tmp_path)
    assert limit(sysroot) == 500_000_000
    ladder.close()
    assert limit(sysroot) == TOP
    Ladder(sysroot.root, tmp_path).close()


KILLED = """
import os, signal, sys, pathlib
from hetero.thermal.ladder import Ladder
ladder = Ladder(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
ladder.set(600_000_000)
{end}
"""


@pytest.mark.parametrize(
    ("end", "left"), [("os.kill(os.getpid(), signal.SIGKILL)", 600_000_000), ("sys.exit(3)", TOP), ("1 / 0", TOP)]
)
def test_every_end_of_a_process_gives_the_clock_back(
    board: Callable[[str], Sysroot], tmp_path: Path, end: str, left: int
) -> None:
    sysroot, cache = board("rk3588"), tmp_path / "cache"
    ended = subprocess.run(
        [sys.executable, "-c", KILLED.format(end=end), str(sysroot.root), str(cache)], capture_output=True, check=False
    )
    assert ended.returncode in (-signal.SIGKILL, 1, 3)
    assert limit(sysroot) == left
    assert restore(sysroot.root, cache) == (TOP if left != TOP else None)
    assert limit(sysroot) == TOP
    assert restore(sysroot.root, cache) is None


def note(cache: Path, sysroot: Sysroot, **changes: object) -> Path:
    file = cache / "thermal/npu_clock.json"
    file.parent.mkdir(parents=True)
    devfreq = sysroot.root / "sys/class/devfreq/fdab0000.npu/max_freq"
    content = {"file": str(devfreq), "before": TOP, "set": 600_000_000, "pid": 2**22 + 5, "boot": "", **changes}
    file.write_text(json.dumps(content))
    return file


def test_a_limit_that_somebody_else_has_set_since_is_let_be(board: Callable[[str], Sysroot], tmp_path: Path) -> None:
    sysroot = board("rk3588")
    file = note(tmp_path, sysroot)
    sysroot.clock_limit = 500_000_000
    assert restore(sysroot.root, tmp_path) is None
    assert limit(sysroot) == 500_000_000
    assert not file.exists()


def test_what_a_living_process_has_set_is_let_be(board: Callable[[str], Sysroot], tmp_path: Path) -> None:
    sysroot = board("rk3588")
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    note(tmp_path, sysroot, pid=os.getppid(), boot=boot)
    sysroot.clock_limit = 600_000_000
    assert restore(sysroot.root, tmp_path) is None
    assert limit(sysroot) == 600_000_000


@pytest.mark.parametrize("content", ["", "{", "[]", '{"file": 3}', '{"file": "/x", "before": "y", "set": 1, "pid": 1}'])
def test_a_damaged_note_is_told_of_and_removed(
    board: Callable[[str], Sysroot], tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    sysroot = board("rk3588")
    file = note(tmp_path, sysroot)
    file.write_text(content)
    assert restore(sysroot.root, tmp_path) is None
    assert not file.exists()
    assert "cannot be read" in caplog.text


def test_who_may_not_set_the_clock_is_told_what_to_do(
    board: Callable[[str], Sysroot], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sysroot = board("rk3588")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(Unavailable, match="root alone") as error:
        Ladder(sysroot.root, tmp_path)
    assert "chmod" in error.value.fix


def test_a_board_that_shows_no_clock_has_no_ladder(board: Callable[[str], Sysroot], host: Host) -> None:
    board("rk3588-mainline")
    with pytest.raises(Unavailable, match="no steps"):
        Governor(host, [NPU], frequency=True)


def test_the_governor_lowers_the_clock_of_a_hot_board_and_gives_it_back(
    machine: Callable[..., ThermalMachine], host: Host
) -> None:
    box = machine("rk3588", ambient=54.0)
    governor = Governor(host, [NPU], frequency=True, clock=box.clock)
    lowest, highest = TOP, 0.0
    for _ in range(400):
        box.duty[0] = governor.headroom("npu")
        box.advance(1.0)
        governor.tick()
        lowest = min(lowest, limit(box.sysroot) or 0)
        highest = max(highest, box.celsius)
    assert lowest <= 800_000_000
    assert highest < 85.3
    governor.close()
    assert limit(box.sysroot) == TOP
