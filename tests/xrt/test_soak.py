"""The soak of `benchmarks/xrt_soak.py`, short and on a clock of the test's: mixed load, every fault, nothing lost."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import threading
import types
from pathlib import Path

import pytest

from hetero.testing.xrt.clock import ControlledClock
from hetero.testing.xrt.phoenix import SimulatedPhoenix
from hetero_xrt.flights import FLIGHTS

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks/xrt_soak.py"
REQUESTS = 800


@pytest.fixture(scope="module")
def script() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("xrt_soak", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["xrt_soak"] = module  # where its dataclasses look for their annotations
    spec.loader.exec_module(module)
    return module


class Scheduler:
    """The scheduler's time, in which pauses pass in a moment."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_mixed_load_on_an_npu_that_fails_in_every_way_loses_nothing(script: types.ModuleType, tmp_path: Path) -> None:
    clock, scheduler, stop = ControlledClock(poll_seconds=5e-5), Scheduler(), threading.Event()
    faults = dict.fromkeys(("error", "abort", "timeout", "garbage"), 0.015)
    soak = script.Soak(
        tmp_path,
        clock,
        lambda tally: tally.asked / REQUESTS,
        SimulatedPhoenix(faults=faults, tile_seconds=1e-4, command_limit=0.05, seed=5),
        losses=2,
        npu_first=True,
        clock=scheduler,
    )

    def pass_time() -> None:
        while not stop.wait(0.001):
            scheduler.now += 0.1
            soak.runtime.timers.run_due()

    clockwork = threading.Thread(target=pass_time)
    clockwork.start()
    try:
        soak.run()
    finally:
        stop.set()
        clockwork.join()
    soak.runtime.close()
    tally = soak.tally
    assert tally.errors == {}
    assert tally.wrong == 0
    assert tally.right == tally.asked >= REQUESTS
    assert set(tally.doors) == {"sync", "submit", "arun", "map"}
    assert set(tally.devices) == {"xrt", "cpu"}
    # Which of them a request meets, and which a canary, is left to chance; each by itself is tested elsewhere.
    assert len(tally.failures) >= 2
    assert sum(tally.failures.values()) >= 5
    soak.npu.release_hangs()
    clock.advance(10.0)
    FLIGHTS.sweep()
    assert FLIGHTS.parked == 0
    report = soak.npu.finish()
    assert report.misuse == {}
    assert report.crashes == ()


def test_a_process_with_a_run_that_hangs_ends_in_peace(script: types.ModuleType) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--child", "--minutes", "0.02"],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'backends'}:{ROOT / 'kernels'}", "HETERO_CACHE_DIR": "/nowhere"},
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert results["parked_at_the_end"] > 0
    assert results["right"] == results["asked"] > 0
    assert results["crashes"] == []
