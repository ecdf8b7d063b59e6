"""A Runtime and its governor: settings, sampling, supplies, and sensors that lie while requests run."""

from __future__ import annotations

import concurrent.futures
import gc
import os
import random
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hetero
from hetero.backend import Host
from hetero.errors import OptionError
from hetero.testing.thermal.machine import ThermalMachine
from hetero.testing.thermal.sysroots import Sysroot
from hetero.thermal.settings import ThermalSettings, settings_of
from tests.fakes import DOUBLE, double, fake
from tests.thermal.conftest import Faults

X = np.array([1, 2], np.float32)
Make = Callable[..., hetero.Runtime]


def host_of(root: Path, **environ: str) -> Host:
    return Host(environ=environ, sysroot=root / "root", cache=root / "cache")


def samplers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "hetero-thermal"]


# Settings


def test_the_environment_says_what_an_argument_does_not() -> None:
    assert settings_of(True, {}) == ThermalSettings()
    assert settings_of(True, {"HETERO_THERMAL": "off"}) is None
    assert settings_of(True, {"HETERO_THERMAL": "burst"}) == ThermalSettings(profile="burst")
    assert settings_of("battery", {"HETERO_THERMAL": "burst"}) == ThermalSettings(profile="battery")
    assert settings_of(True, {"HETERO_THERMAL": "burst,patience=5"}) == ThermalSettings(profile="burst", patience=5.0)
    assert settings_of("patience=0", {}) == ThermalSettings(patience=0.0)
    assert settings_of(False, {"HETERO_THERMAL": "burst"}) is None
    assert settings_of("off", {}) is None
    given = ThermalSettings(on_hot="steer")
    assert settings_of(given, {"HETERO_THERMAL": "off"}) is given


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: settings_of("gaming", {}), "thermal='gaming' is neither a thermal profile nor off"),
        (lambda: settings_of(True, {"HETERO_THERMAL": "hot"}), "HETERO_THERMAL=hot is neither"),
        (lambda: settings_of("burst,patience=long", {}), "'long' is no number of seconds"),
        (lambda: settings_of("burst,battery", {}), "'battery' is not known"),
        (lambda: settings_of("burst=1", {}), "neither a thermal profile nor off"),
        (lambda: settings_of(3, {}), "thermal is 3, expected"),  # type: ignore[arg-type]
        (lambda: ThermalSettings(profile="gaming"), "gaming"),
        (lambda: ThermalSettings(on_hot="flee"), "flee"),  # type: ignore[arg-type]
        (lambda: ThermalSettings(sampling="never"), "never"),  # type: ignore[arg-type]
    ],
)
def test_what_is_not_known_is_refused_with_what_is(make: Callable[[], Any], told: str) -> None:
    with pytest.raises(OptionError, match=told) as caught:
        make()
    assert "known" in caught.value.fix or "profiles" in caught.value.fix or "patience=" in caught.value.fix


def test_a_runtime_has_the_governor_that_was_asked_for(make_runtime: Make, tmp_path: Path) -> None:
    Sysroot(tmp_path / "root", "rk3588")
    settings = hetero.ThermalSettings(profile="burst", limits={"npu": {"maximum": 80}}, law="tokens")
    runtime = make_runtime(fake("npu"), host=host_of(tmp_path), thermal=settings)
    governor = runtime.governor
    assert governor is not None
    assert runtime.thermal is settings
    assert (governor.profile.name, governor.on_hot) == ("burst", "steer")
    assert governor.limits("npu").maximum == 80
    with pytest.raises(OptionError, match="xpu"):
        make_runtime(fake("npu"), host=host_of(tmp_path), thermal=ThermalSettings(limits={"xpu": {"maximum": 80}}))


# Sampling


def test_nothing_is_started_where_no_device_is_worth_watching(make_runtime: Make, tmp_path: Path) -> None:
    runtime = make_runtime(fake("cpu", kind="cpu"), fake("npu", simulated=True), host=host_of(tmp_path))
    before = set(threading.enumerate())
    session = runtime.load(DOUBLE, canary=False)
    assert session(X).tolist() == [2, 4]
    assert set(threading.enumerate()) == before
    assert all(candidate.heat is None for candidate in session._candidates)


def test_simulated_devices_are_watched_by_a_fixtures_files_and_not_by_a_real_machines(
    make_runtime: Make, tmp_path: Path
) -> None:
    Sysroot(tmp_path / "root", "rk3588").show(dict.fromkeys(range(4), 50.0))
    fixture = make_runtime(fake("npu", simulated=True), host=host_of(tmp_path), clock=lambda: 1.0)
    fixture.load(DOUBLE, canary=False)
    governor = fixture.governor
    assert governor is not None
    assert governor.tick()["npu"].reading.celsius == pytest.approx(50.0, abs=1.0)
    real = make_runtime(fake("npu", simulated=True), host=Host(environ={}, cache=tmp_path / "cache"), clock=lambda: 1.0)
    session = real.load(DOUBLE, canary=False)
    assert session._candidates[0].heat is None
    assert real.governor is not None
    assert real.governor.tick()["npu"].reading.celsius is None


def test_the_thread_begins_with_the_first_program_and_ends_with_the_runtime(make_runtime: Make, tmp_path: Path) -> None:
    Sysroot(tmp_path / "root", "rk3588").show(dict.fromkeys(range(4), 50.0))
    before = samplers()
    runtime = make_runtime(fake("npu"), host=host_of(tmp_path))
    assert samplers() == before
    runtime.load(DOUBLE, canary=False)
    runtime.load(DOUBLE, canary=False)
    assert len(samplers()) == len(before) + 1
    runtime.close()
    assert samplers() == before


def test_a_runtime_that_is_dropped_is_collected_and_its_thread_ends(tmp_path: Path) -> None:
    Sysroot(tmp_path / "root", "rk3588").show(dict.fromkeys(range(4), 50.0))
    before = set(samplers())
    runtime = hetero.Runtime(backends=[fake("npu")], plugins=False, host=host_of(tmp_path))
    session = runtime.load(DOUBLE, canary=False)
    assert session(X).tolist() == [2, 4]
    (thread,) = set(samplers()) - before
    gone = weakref.ref(runtime)
    del runtime, session
    gc.collect()
    assert gone() is None
    thread.join(30)
    assert not thread.is_alive()


def test_with_a_clock_of_ones_own_no_thread_is_started(make_runtime: Make, tmp_path: Path) -> None:
    Sysroot(tmp_path / "root", "rk3588").show(dict.fromkeys(range(4), 50.0))
    before = samplers()
    make_runtime(fake("npu"), host=host_of(tmp_path), clock=lambda: 5.0).load(DOUBLE, canary=False)
    make_runtime(fake("npu"), host=host_of(tmp_path), thermal=ThermalSettings(sampling="manual")).load(
        DOUBLE, canary=False
    )
    assert samplers() == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_the_child_of_a_fork_leaves_the_sampling_to_its_parent(make_runtime: Make, tmp_path: Path) -> None:
    Sysroot(tmp_path / "root", "rk3588").show(dict.fromkeys(range(4), 50.0))
    runtime = make_runtime(fake("npu"), host=host_of(tmp_path))
    session = runtime.load(DOUBLE, canary=False)
    child = os.fork()
    if child == 0:
        runtime.close()
        os._exit(0 if runtime._watch is not None and runtime._watch._closed else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert session(X).tolist() == [2, 4]
    assert len(samplers()) >= 1


def test_where_nothing_is_sampled_any_more_a_timer_takes_half_of_a_warm_device(
    make_runtime: Make, tmp_path: Path
) -> None:
    machine = ThermalMachine(tmp_path / "root", "rk3588", ambient=50.0)
    ahead = [0.0]
    runtime = make_runtime(fake("npu"), host=host_of(tmp_path), clock=lambda: machine.clock() + ahead[0], learn=False)
    runtime.load(DOUBLE, canary=False)
    governor = runtime.governor
    assert governor is not None
    machine.duty = [1.0, 0.0, 0.0]
    while governor.samples.get("npu") is None or governor.samples["npu"].grant.state != "warn":
        machine.advance(1.0)
        governor.tick()
        runtime.timers.run_due()
    governor.pace("npu").grant(1.0)
    for _ in range(12):
        ahead[0] += 1.0
        runtime.timers.run_due()
    assert governor.headroom("npu") <= 0.5


# The machine's supply


def test_on_battery_the_profile_is_battery_and_back_unless_one_was_chosen(make_runtime: Make, tmp_path: Path) -> None:
    machine = ThermalMachine(tmp_path / "root", "phoenix")
    runtimes = {
        name: make_runtime(fake("npu"), host=host_of(tmp_path), clock=machine.clock, thermal=thermal)
        for name, thermal in (
            ("default", True),
            ("chosen", "burst"),
            ("fixed", ThermalSettings(follow_power=False)),
        )
    }

    def profiles() -> list[str]:
        told = []
        for runtime in runtimes.values():
            assert runtime.governor is not None
            runtime.governor.tick()
            told.append(runtime.governor.profile.name)
        return told

    assert profiles() == ["default", "burst", "default"]
    supply = tmp_path / "root/sys/class/power_supply"
    (supply / "AC/online").write_text("0\n")
    (supply / "BAT0/status").write_text("Discharging\n")
    machine.advance(6.0)
    assert profiles() == ["battery", "burst", "default"]
    governor = runtimes["default"].governor
    assert governor is not None
    assert governor.limits("npu").maximum < 85
    event = governor.events[-1]
    assert (event.device, event.before, event.after) == ("power", "mains", "battery")
    assert "the profile is battery now" in str(event)
    (supply / "AC/online").write_text("1\n")
    machine.advance(6.0)
    assert profiles() == ["default", "burst", "default"]
    assert governor.events[-1].after == "mains"


def test_the_power_mode_of_a_profile_is_set_where_that_was_asked_for(make_runtime: Make, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="thermal is off"):
        make_runtime(fake("npu"), host=host_of(tmp_path), thermal=False, power="profile")
    runtime = make_runtime(fake("npu"), host=host_of(tmp_path), thermal="battery", power="profile")
    assert runtime.power.states() == []  # this device has no modes, which is no error


# What sensors do while requests run


GARBAGE = ["", "\n", "warm\n", "0\n", "-274000\n", "999999999\n", "nan\n", "\x00\xff", "45 000\n", "1e9\n"]


def _fault(rng: random.Random, zone: Path, celsius: float, faults: Faults) -> str:
    """Have something go wrong with a sensor, or be right again."""
    kind = rng.choice(["fine", "fine", "garbage", "zero", "jump", "gone", "folder", "denied", "lost"])
    temp = zone / "temp"
    name = f"{zone.name}/temp"
    faults.errors.pop(name, None)
    if temp.is_dir():
        temp.rmdir()
    temp.unlink(missing_ok=True)
    if kind == "folder":
        temp.mkdir()
    elif kind != "gone":
        text = {
            "garbage": rng.choice(GARBAGE),
            "zero": "0\n",
            "jump": f"{int((celsius + rng.choice([-60, 60])) * 1000)}\n",
        }.get(kind, f"{int(celsius * 1000)}\n")
        temp.write_text(text, encoding="latin-1")
    if kind in ("denied", "lost"):
        faults.errors[name] = PermissionError(13, "denied") if kind == "denied" else OSError(61, "no data")
    return kind


@pytest.mark.parametrize("seed", range(8))
def test_hundreds_of_sensor_faults_never_reach_a_request_and_never_make_a_hot_device_cool(
    make_runtime: Make, tmp_path: Path, faults: Faults, seed: int
) -> None:
    rng = random.Random(seed)
    sysroot = Sysroot(tmp_path / "root", "rk3588")
    sysroot.show(dict.fromkeys(range(4), 86.0))
    now = [1000.0]
    # Who calls and is patient waits for the clock, which moves between calls only.
    patient = seed % 2 == 0
    runtime = make_runtime(
        fake("npu", lanes=3),
        fake("cpu", kind="cpu"),
        host=host_of(tmp_path),
        clock=lambda: now[0],
        learn=False,
        thermal=ThermalSettings() if patient else ThermalSettings(patience=0.0),
    )
    session = runtime.load(DOUBLE, canary=False)
    governor = runtime.governor
    assert governor is not None
    governor.tick()
    zones = [zone for zone in (tmp_path / "root/sys/class/thermal").glob("thermal_zone*") if (zone / "temp").is_file()]
    assert governor.samples["npu"].grant.state == "hot"
    futures = []
    count = 0
    for second in range(60):
        now[0] += 1.0
        for zone in zones:
            count += _fault(rng, zone, 86.0 + rng.random(), faults) != "fine"
        sample = governor.tick()["npu"]
        runtime.timers.run_due()
        # The machine has been at 86 C all the time: whatever its files say, that was never cool.
        assert sample.grant.duty <= 0.5, f"second {second}: {sample}"
        assert sample.grant.state != "cool", f"second {second}: {sample}"
        if not patient and second % 3 == 0:
            assert session(X).tolist() == [2, 4]
        futures.append(session.submit(X + second, deadline=50.0))
    assert count > 200
    faults.errors.clear()
    for zone in zones:
        if (zone / "temp").is_dir():
            (zone / "temp").rmdir()
    for _ in range(200):
        now[0] += 1.0
        sysroot.show(dict.fromkeys(range(4), 40.0))
        governor.tick()
        runtime.timers.run_due()
        if all(future.done() for future in futures):
            break
    for second, future in enumerate(futures):
        assert future.result(30).tolist() == [2 + 2 * second, 4 + 2 * second]


def test_requests_of_a_machine_that_gets_hot_keep_it_below_its_limit_and_all_are_answered(
    make_runtime: Make, tmp_path: Path
) -> None:
    """The modelled machine is heated by what the Runtime in fact ran on it."""
    machine = ThermalMachine(tmp_path / "root", "rk3588", ambient=45.0)
    worked = [0.0]

    def run(inputs: Any, call: Any) -> Any:
        worked[0] += 0.1
        return double(inputs, call)

    ahead = [0.0]
    runtime = make_runtime(
        fake("npu", run=run),
        host=host_of(tmp_path),
        clock=lambda: machine.clock() + ahead[0],
        learn=False,
        thermal=ThermalSettings(on_hot="pace"),
    )
    session = runtime.load(DOUBLE, canary=False)
    heat = session._candidates[0].heat
    assert heat is not None
    spent, admission = heat.ended, heat.admission
    heat.ended = lambda call, seconds: spent(call, 0.1)  # type: ignore[method-assign]  # as long as it takes there
    governor = runtime.governor
    assert governor is not None
    hottest, paced = 0.0, 0
    futures: list[concurrent.futures.Future[Any]] = []
    for _ in range(900):
        before = worked[0]
        while len([f for f in futures[-12:] if not f.done()]) < 6 and worked[0] - before < 0.45:
            futures.append(session.submit(X))
            _settled(futures[-1], session)
        machine.duty = [min(1.0, (worked[0] - before) / 0.5), 0.0, 0.0]
        machine.advance(0.5)
        if machine.clock() % 1.0 == 0:
            governor.tick()
        runtime.timers.run_due()
        hottest = max(hottest, machine.celsius)
        paced += admission.duty < 1.0
    assert paced > 100, "it was never hot enough to say anything"
    assert hottest < 87.0
    machine.ambient(10.0)
    machine.duty = [0.0, 0.0, 0.0]
    for _ in range(600):
        machine.advance(0.5)
        if machine.clock() % 1.0 == 0:
            governor.tick()
        runtime.timers.run_due()
    assert all(future.result(30).tolist() == [2, 4] for future in futures)
    held = [decision for record in runtime.records for decision in record.heat if decision.action == "pace"]
    assert held


def _settled(future: concurrent.futures.Future[Any], session: hetero.Session) -> None:
    """Wait until a request is answered, or waits for heat."""
    until = time.monotonic() + 30
    while not future.done() and not session._dispatcher.board.waiting and time.monotonic() < until:
        threading.Event().wait(0.0002)
