"""Joules per item are what work takes more than rest; where that cannot be told, they are unknown."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import hetero
from hetero.backend import Array, Device
from hetero.energy.measuring import ROUNDS, Energy, measure
from hetero.energy.meters import find_meters
from hetero.errors import DeviceLost, FallbackForbidden
from tests.energy.machine import Machine, put
from tests.fakes import DOUBLE, double, fake, raises

Make = Callable[..., hetero.Runtime]

X = {"x": np.ones(4, np.float32)}


def worker(machine: Machine, seconds: float, joules: float, name: str = "npu", watts: float | None = None) -> Any:
    """A backend whose runs take that long and that much."""

    def run(inputs: Mapping[str, Array], call: Any) -> Mapping[str, Array]:
        machine.spend(seconds, joules)
        return double(inputs, call)

    return fake(name, run=run, probe=lambda: [Device(name, "npu", watts=watts)])


def session_of(runtime: hetero.Runtime, device: str = "npu") -> hetero.Session:
    return runtime.load(DOUBLE, device=device, fallback="forbid", standby=False)


def measured(machine: Machine, session: hetero.Session, **options: Any) -> Energy:
    (meter,) = find_meters(machine.sysroot)
    return measure(
        session, X, meter, options.pop("seconds", 4.0), clock=machine.clock, sleep=options.pop("sleep", machine.sleep)
    )


@pytest.fixture
def runtime(make_runtime: Make, machine: Machine) -> hetero.Runtime:
    """An NPU whose runs take 10 ms and 0.5 J."""
    return make_runtime(worker(machine, 0.01, 0.5), clock=machine.clock)


def test_an_item_costs_what_work_takes_more_than_rest(machine: Machine, runtime: hetero.Runtime) -> None:
    machine.package()
    energy = measured(machine, session_of(runtime))
    assert energy.joules == pytest.approx(0.5, rel=0.02)
    assert energy.gross == pytest.approx(0.5 + 4 * 0.01, rel=0.02)
    assert energy.idle_watts == pytest.approx(4.0)
    assert energy.work_watts == pytest.approx(54.0, rel=0.02)
    assert energy.items == pytest.approx(ROUNDS * 400, abs=10)
    assert energy.meter == "intel-rapl:0 package-0 (package)"
    assert (energy.reason, energy.fix) == ("", "")


def test_a_counter_may_go_round_meanwhile(machine: Machine, runtime: hetero.Runtime) -> None:
    machine.top = 300_000_000
    machine.package()
    assert measured(machine, session_of(runtime)).joules == pytest.approx(0.5, rel=0.02)


def test_a_machine_that_warms_up_is_held_against_its_neighbouring_rests(
    machine: Machine, runtime: hetero.Runtime
) -> None:
    machine.package()

    def sleep(seconds: float) -> None:
        machine.watts += 0.5
        machine.sleep(seconds)

    assert measured(machine, session_of(runtime), sleep=sleep).joules == pytest.approx(0.5, rel=0.02)


def test_a_device_that_takes_no_more_than_rest_moves_by_is_unknown(machine: Machine, make_runtime: Make) -> None:
    machine.package()
    runtime = make_runtime(worker(machine, 0.01, 0.001), clock=machine.clock)
    powers = iter([4.0, 4.0, 5.0, 5.0, 4.0, 4.0, 5.0, 5.0])

    def sleep(seconds: float) -> None:
        machine.watts = next(powers)
        machine.sleep(seconds)

    energy = measured(machine, session_of(runtime), sleep=sleep)
    assert energy.joules is None
    assert "the difference is not the device's alone" in energy.reason
    assert "end what else runs" in energy.fix
    assert energy.gross is not None


def test_turns_that_contradict_each_other_are_unknown(machine: Machine, make_runtime: Make) -> None:
    machine.package()
    costs = {"now": 0.5}

    def run(inputs: Mapping[str, Array], call: Any) -> Mapping[str, Array]:
        machine.spend(0.01, costs["now"])
        return double(inputs, call)

    def sleep(seconds: float) -> None:
        costs["now"] *= 1.5
        machine.sleep(seconds)

    runtime = make_runtime(fake("npu", run=run), clock=machine.clock)
    energy = measured(machine, session_of(runtime), sleep=sleep)
    assert energy.joules is None
    assert "the turns do not agree" in energy.reason


def test_a_meter_that_fails_in_the_middle_is_unknown(machine: Machine, runtime: hetero.Runtime) -> None:
    counter = machine.package()
    pauses = iter(range(100))

    def sleep(seconds: float) -> None:
        machine.sleep(seconds)
        if next(pauses) == 4:
            put(counter, "broken")

    energy = measured(machine, session_of(runtime), sleep=sleep)
    assert (energy.joules, energy.gross) == (None, None)
    assert "tells no number" in energy.reason


def test_no_thread_is_left_behind(machine: Machine, runtime: hetero.Runtime) -> None:
    machine.package()
    measured(machine, session_of(runtime))
    assert not [thread for thread in threading.enumerate() if thread.name == "hetero-power-meter"]


def test_a_power_meter_is_given_time_to_settle(machine: Machine, runtime: hetero.Runtime) -> None:
    folder = machine.hwmon(0, "ina226", power1_input=4_000_000)
    shown = {"since": machine.now}

    def sleep(seconds: float) -> None:
        machine.sleep(seconds)

    # What the meter shows follows the work by a second.
    spend = machine.spend

    def lagging(seconds: float, joules: float = 0.0) -> None:
        working = joules > 0
        if working is not shown.get("working"):
            shown.update(working=working, since=machine.now)
        spend(seconds, joules)
        power = 54_000_000 if working else 4_000_000
        if machine.now - shown["since"] >= 0.9:
            put(folder / "power1_new", power).replace(folder / "power1_input")

    machine.spend = lagging  # type: ignore[method-assign]
    energy = measured(machine, session_of(runtime), seconds=2.0, sleep=sleep)
    assert energy.joules == pytest.approx(0.5, rel=0.02)


def test_a_device_that_fails_raises(machine: Machine, make_runtime: Make) -> None:
    machine.package()
    runtime = make_runtime(fake("npu", run=raises(DeviceLost("gone"))), clock=machine.clock)
    with pytest.raises(FallbackForbidden):
        measured(machine, session_of(runtime))


def test_what_was_measured_is_kept_and_decides_for_the_policy_efficiency(
    machine: Machine, make_runtime: Make, host: hetero.Host
) -> None:
    machine.package()
    backends = [worker(machine, 0.01, 0.5, "a", watts=1.0), worker(machine, 0.02, 0.1, "b", watts=60.0)]
    with hetero.Runtime(backends=backends, plugins=False, host=host, clock=machine.clock) as first:
        for name in ("a", "b"):
            measured(machine, session_of(first, name), seconds=5.0)  # of b: 250 items, of which few are cut off
    second = make_runtime(*backends, clock=machine.clock)
    session = second.load(DOUBLE, policy="efficiency", explore=0)
    for _ in range(4):
        assert session.run(X).record.device == "b"
    explanation = session.explain()
    energy = explanation.candidates[1].energy
    assert energy is not None
    assert (energy.measured, energy.source) == (True, "intel-rapl:0 package-0 (package)")
    assert energy.joules == pytest.approx(0.1, rel=0.05)
    assert "measured by intel-rapl:0 package-0 (package)" in str(explanation)


def test_without_a_measurement_the_declared_power_decides_and_says_so(machine: Machine, make_runtime: Make) -> None:
    runtime = make_runtime(
        worker(machine, 0.01, 0, "a", watts=30.0), worker(machine, 0.02, 0, "b", watts=3.0), clock=machine.clock
    )
    session = runtime.load(DOUBLE, policy="efficiency", explore=0)
    for _ in range(6):
        session(X["x"])
    assert session.run(X).record.device == "b"
    energy = session.explain().candidates[1].energy
    assert energy is not None
    assert (energy.joules, energy.measured) == (pytest.approx(0.06), False)
    assert "0.06 J, declared by the backend: 3 W" in str(session.explain())


def test_unknown_energy_is_said_where_it_matters(machine: Machine, make_runtime: Make) -> None:
    runtime = make_runtime(worker(machine, 0.01, 0, "a"), worker(machine, 0.02, 0, "b", watts=3.0), clock=machine.clock)
    efficient = runtime.load(DOUBLE, policy="efficiency", explore=0)
    for _ in range(3):
        efficient(X["x"])
    assert "energy unknown: a (`hetero bench` measures it" in str(efficient.explain())
    assert efficient.explain().candidates[0].energy is None
    assert "energy unknown" not in str(runtime.load(DOUBLE).explain())


def test_another_process_that_learns_keeps_what_was_measured_meanwhile(machine: Machine, host: hetero.Host) -> None:
    machine.package()
    backend = worker(machine, 0.01, 0.5)

    def made() -> hetero.Runtime:
        return hetero.Runtime(backends=[backend], plugins=False, host=replace(host), clock=machine.clock)

    with made() as service:
        session_of(service)(X["x"])
        with made() as bench:
            measured(machine, session_of(bench))
    with made() as again:
        session = session_of(again)
        session(X["x"])
        energy = session.explain().candidates[0].energy
        assert energy is not None
        assert energy.measured
