"""The faults of `benchmarks/thermal_faults.py`, a few of each: no request fails, and nothing hot is called cool."""

from __future__ import annotations

import importlib.util
import io
import itertools
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "thermal_faults.py"


@pytest.fixture(scope="module")
def script() -> Any:
    spec = importlib.util.spec_from_file_location("thermal_faults", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_sensors_that_fail_in_every_way_fail_no_request_and_make_nothing_hot_cool(script: Any) -> None:
    faults = [
        script.Fault(kind, place % 2 == 0, script.WARM_UP + 12 * place, 6, "garbage")
        for place, kind in enumerate(script.KINDS)
    ]
    served, demonstration = script.measure(faults, 1, Console(file=io.StringIO()))
    assert served.errors == ()
    assert served.requests > 1000
    assert {kind: tally.count for kind, tally in demonstration.tallies.items() if tally.count} == dict.fromkeys(
        script.KINDS, 1
    )
    assert sum(tally.false_cool for tally in demonstration.tallies.values()) == 0
    assert served.outcome.highest < 88


def test_faults_are_drawn_one_after_another_and_the_same_again(script: Any) -> None:
    faults = script.drawn(300, 1)
    assert faults == script.drawn(300, 1) != script.drawn(300, 2)
    assert {fault.kind for fault in faults} == set(script.KINDS)
    assert all(one.start + one.seconds < two.start for one, two in itertools.pairwise(faults))
