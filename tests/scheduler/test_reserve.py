"""What a session has not loaded is loaded in the background when its device becomes warm, once, in nobody's time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hetero
from hetero.backend import Call, Device, Host
from hetero.energy.aside import Aside
from hetero.errors import OptionError, ProgramError
from hetero.scheduler.reserve import RUNS, Reserve
from hetero.testing.thermal.sysroots import Sysroot
from hetero.thermal.settings import ThermalSettings
from tests.energy.machine import Machine
from tests.fakes import DOUBLE, FakeBackend, double, fake
from tests.isolation.backends import Crashing, echo
from tests.scheduler.test_heat import Clock, until

X = np.array([1, 2], np.float32)
Make = Callable[..., hetero.Runtime]

WARM, HOT, STOP, COOL = 82.0, 86.0, 90.0, 40.0


class Chip:
    """A Runtime with an NPU, a GPU and a CPU on a board whose temperatures a test sets."""

    def __init__(
        self,
        make: Make,
        root: Path,
        *,
        watts: Mapping[str, float] | None = None,
        on_hot: Any = "auto",
        load: Callable[[], None] | None = None,
        run: Any = None,
        names: Sequence[str] = ("npu", "gpu", "cpu"),
    ) -> None:
        self.clock = Clock()
        self.board = Sysroot(root / "root", "rk3588")
        watts = watts or {}
        run = run or self.clock.taking(1.0)
        self.backends: dict[str, type[FakeBackend]] = {
            name: fake(
                name,
                kind=name,
                run=run,
                load=load if name == "gpu" else None,
                probe=lambda name=name: [Device(name, name, watts=watts.get(name))],  # type: ignore[misc]
            )
            for name in names
        }
        self.runtime = make(
            *self.backends.values(),
            host=Host(environ={}, sysroot=root / "root", cache=root / "cache"),
            clock=self.clock,
            learn=False,
            thermal=ThermalSettings(on_hot=on_hot, follow_power=False),
        )
        self.show(COOL)

    def show(self, celsius: float) -> None:
        """A second later all of the chip is that warm, and the governor looks."""
        self.board.show(dict.fromkeys(range(4), celsius))
        self.clock.now += 1.0
        assert self.runtime.governor is not None
        self.runtime.governor.tick()

    def become(self, celsius: float) -> None:
        """The chip gets that warm as fast as a die can."""
        for _ in range(60):
            self.show(celsius)

    def load(self, **options: Any) -> hetero.Session:
        return self.runtime.load(DOUBLE, **{"canary": False, "explore": 0.0, **options})

    def made(self, name: str) -> int:
        return len(self.backends[name].made)

    def pace(self) -> None:
        """The NPU has used up what it may for now."""
        assert self.runtime.governor is not None
        admission = self.runtime.governor.pace("npu")
        admission.grant(0.5)
        admission._tokens = -0.5 * admission.lanes


@pytest.fixture
def chip(make_runtime: Make, tmp_path: Path) -> Callable[..., Chip]:
    return lambda **options: Chip(make_runtime, tmp_path, **options)


def reserve_of(session: hetero.Session) -> Reserve:
    assert session._reserve is not None
    return session._reserve


def rest(session: hetero.Session) -> None:
    """Until nothing is done in the background."""
    until(lambda: not reserve_of(session)._busy)


def ready(session: hetero.Session) -> list[str]:
    return [candidate.name for candidate in session._candidates if candidate.ready]


def test_a_warm_first_device_has_the_gpu_loaded_once_and_timed_and_no_record_tells_of_it(
    chip: Callable[..., Chip],
) -> None:
    c = chip()
    session = c.load()
    session(X)
    c.show(COOL)
    rest(session)
    assert ready(session) == ["npu", "cpu"]
    for _ in range(20):
        c.show(WARM)
        rest(session)
    assert ready(session) == ["npu", "gpu", "cpu"]
    assert c.made("gpu") == 1
    gpu = session._candidates[1]
    assert gpu.expects.runs(((2,),)) == RUNS
    assert gpu.expects.seconds(((2,),)) == 1.0
    assert len(c.runtime.records) == 1
    report = session.explain().candidates[1]
    assert report.prepared == "loaded in the background when npu became warm"
    assert report.load_seconds is not None
    assert [load.attempt.device for load in c.runtime.records.loads] == ["npu", "cpu", "gpu"]


@pytest.mark.parametrize(
    ("watts", "went", "said"),
    [
        ({"npu": 4.0, "gpu": 2.0, "cpu": 9.0}, "gpu", "gpu takes 2 J for an item, npu 4 J, declared"),
        ({"npu": 2.0, "gpu": 4.0, "cpu": 9.0}, "npu", "no other device takes fewer joules for an item than 2 J"),
        ({"npu": 2.0}, "npu", "on_hot='auto' cannot compare: joules of an item are unknown for gpu"),
    ],
)
def test_auto_then_goes_where_an_item_takes_fewer_joules_and_stays_where_it_takes_more(
    chip: Callable[..., Chip], watts: Mapping[str, float], went: str, said: str
) -> None:
    c = chip(watts=watts)
    session = c.load()
    for _ in range(3):
        session(X)
    c.become(WARM)
    rest(session)
    c.pace()
    future = session.submit(X)
    for _ in range(4):
        c.clock.now += 0.5
        c.runtime.timers.run_due()
    assert future.result(30).tolist() == [2, 4]
    record = c.runtime.records.last
    assert record is not None
    assert record.device == went
    assert said in record.heat[0].reason


def test_steer_gets_the_gpu_too_and_pace_loads_nothing(make_runtime: Make, tmp_path: Path) -> None:
    for on_hot, names in (("steer", ["npu", "gpu", "cpu"]), ("pace", ["npu", "cpu"])):
        c = Chip(make_runtime, tmp_path / on_hot, on_hot=on_hot)
        session = c.load()
        c.become(WARM)
        rest(session)
        assert ready(session) == names


def test_a_forecast_is_enough_though_the_device_is_not_warm_yet(chip: Callable[..., Chip]) -> None:
    c = chip()
    session = c.load()
    c.pace()
    assert c.runtime.governor is not None
    c.runtime.governor.ticked()
    rest(session)
    assert ready(session) == ["npu", "gpu", "cpu"]


def test_nothing_is_loaded_while_the_chip_is_stopped_but_when_it_is_warm_again(chip: Callable[..., Chip]) -> None:
    c = chip()
    session = c.load()
    for _ in range(5):
        c.board.show(dict.fromkeys(range(4), STOP))
        c.runtime.governor.pace("npu").grant(0.0)  # type: ignore[union-attr]
        c.runtime.governor.ticked()  # type: ignore[union-attr]
        rest(session)
    assert ready(session) == ["npu", "cpu"]
    c.become(WARM)
    rest(session)
    assert ready(session) == ["npu", "gpu", "cpu"]


def test_a_stop_between_two_loads_leaves_the_second_for_later(make_runtime: Make, tmp_path: Path) -> None:
    def stop() -> None:
        assert c.runtime.governor is not None
        c.runtime.governor.pace("cpu").grant(0.0)

    c = Chip(make_runtime, tmp_path, load=stop)
    session = c.load(standby=False)
    c.pace()
    c.runtime.governor.ticked()  # type: ignore[union-attr]
    rest(session)
    assert ready(session) == ["npu", "gpu"]
    c.runtime.governor.pace("cpu").grant(1.0)  # type: ignore[union-attr]
    c.runtime.governor.ticked()  # type: ignore[union-attr]
    rest(session)
    assert ready(session) == ["npu", "gpu", "cpu"]


@pytest.mark.parametrize("error", [RuntimeError("no memory"), ProgramError("odd"), OptionError("no such mode")])
def test_a_load_that_fails_is_told_and_not_tried_again_and_requests_go_on(
    chip: Callable[..., Chip], error: Exception
) -> None:
    tries = []

    def load() -> None:
        tries.append(1)
        raise error

    c = chip(load=load)
    session = c.load()
    c.become(WARM)
    rest(session)
    assert len(tries) == 1
    report = session.explain().candidates[1]
    assert (report.state, report.prepared) == ("failed", "tried in the background when npu became warm")
    assert str(error).splitlines()[0] in report.reason
    failed = [load.attempt for load in c.runtime.records.loads if load.attempt.device == "gpu"]
    assert [attempt.outcome for attempt in failed] == ["failed"]
    assert session(X).tolist() == [2, 4]
    assert len(c.runtime.records.last.attempts) == 1  # type: ignore[union-attr]


def test_a_device_that_fails_when_it_is_timed_is_told_of_and_requests_go_on(chip: Callable[..., Chip]) -> None:
    c = chip()
    session = c.load()
    session(X)
    c.backends["gpu"].running = staticmethod(_breaks)
    c.become(WARM)
    rest(session)
    assert session.explain().candidates[1].prepared.endswith("not timed: RuntimeError: broken")
    assert session(X).tolist() == [2, 4]


@pytest.mark.parametrize("door", ["session", "runtime"])
def test_closing_while_it_loads_waits_no_longer_than_allowed_and_frees_what_was_loaded(
    chip: Callable[..., Chip], door: str
) -> None:
    inside, go = threading.Event(), threading.Event()

    def load() -> None:
        inside.set()
        assert go.wait(30)

    c = chip(load=load)
    session = c.load()
    c.become(WARM)
    assert inside.wait(30)
    if door == "session":
        assert not session.close(timeout=0.01)
    else:
        ended: list[str] = []
        for name, backend in c.backends.items():
            backend.close = lambda self, name=name: ended.append(name)  # type: ignore[method-assign, misc]
        c.runtime.close(timeout=0.01)
        assert ended == ["npu", "cpu"]  # nothing is torn down under a load
    go.set()
    until(lambda: c.made("gpu") == 1 and c.backends["gpu"].made[0].closed == 1)
    rest(session)
    assert not ready(session)


def test_closing_waits_for_a_load_that_ends_in_time(chip: Callable[..., Chip]) -> None:
    inside, go = threading.Event(), threading.Event()

    def load() -> None:
        inside.set()
        assert go.wait(30)

    c = chip(load=load)
    session = c.load()
    c.become(WARM)
    assert inside.wait(30)
    closer = threading.Thread(target=session.close)
    closer.start()
    go.set()
    closer.join(30)
    assert c.backends["gpu"].made[0].closed == 1


def test_a_request_that_needs_the_device_meanwhile_waits_for_that_load_and_makes_no_second_one(
    chip: Callable[..., Chip],
) -> None:
    inside, go = threading.Event(), threading.Event()

    def load() -> None:
        inside.set()
        assert go.wait(30)

    c = chip(load=load, run=double)
    session = c.load()
    c.become(WARM)
    assert inside.wait(30)
    future: list[Any] = []
    asker = threading.Thread(target=lambda: future.append(session(X, device="gpu")))
    asker.start()
    go.set()
    asker.join(30)
    assert future[0].tolist() == [2, 4]
    rest(session)
    assert c.made("gpu") == 1


def test_the_reserves_of_a_runtime_load_one_at_a_time(make_runtime: Make, tmp_path: Path) -> None:
    inside: list[int] = []
    most: list[int] = []
    lock = threading.Lock()

    def load() -> None:
        with lock:
            inside.append(1)
            most.append(len(inside))
        threading.Event().wait(0.01)
        with lock:
            inside.pop()

    c = Chip(make_runtime, tmp_path, load=load)
    sessions = [c.load() for _ in range(4)]
    c.become(WARM)
    for session in sessions:
        rest(session)
        assert ready(session) == ["npu", "gpu", "cpu"]
    assert most == [1, 1, 1, 1]


def test_forbid_and_a_single_candidate_do_nothing(chip: Callable[..., Chip]) -> None:
    c = chip()
    forbidden, single = c.load(fallback="forbid"), c.load(device="npu")
    c.become(WARM)
    assert forbidden._reserve is None
    rest(single)
    assert c.made("gpu") == 0
    assert [load.attempt.device for load in c.runtime.records.loads] == ["npu", "npu"]


def test_a_fall_back_that_answers_alone_has_nobody_behind_it(chip: Callable[..., Chip]) -> None:
    c = chip(names=("npu", "cpu"))
    session = c.load()
    c.become(WARM)
    rest(session)
    assert reserve_of(session).loaded == []


@pytest.mark.parametrize(("on_load", "state"), [("", "ready"), ("crash", "failed")])
def test_a_backend_in_a_process_of_its_own_is_loaded_too_and_its_crash_is_told(
    make_runtime: Make, tmp_path: Path, on_load: str, state: str
) -> None:
    board, clock = Sysroot(tmp_path / "root", "rk3588"), Clock()
    board.show(dict.fromkeys(range(4), WARM))
    names = ("npu", "cpu")
    runtime = make_runtime(
        *(fake(name, kind=name, run=lambda inputs, call: {"y": inputs["x"].copy()}) for name in names),
        Crashing,
        host=Host(environ={}, sysroot=tmp_path / "root", cache=tmp_path / "cache"),
        chain=["npu", "crash", "cpu"],
        isolate="crash",
        clock=clock,
        learn=False,
        options={"crash": {"on_load": on_load}},
        thermal=ThermalSettings(on_hot="auto", follow_power=False),
    )
    session = runtime.load(echo(), canary=False)
    assert session(X).tolist() == [1, 2]
    assert runtime.governor is not None
    for _ in range(5):
        clock.now += 1.0
        runtime.governor.tick()
        rest(session)
    report = session.explain().candidates[1]
    assert (report.device, report.state) == ("crash", state)
    assert session._candidates[1].expects.runs(((2,),)) == (RUNS if state == "ready" else 0)
    assert session(X).tolist() == [1, 2]


# Energy, in pauses


def aside_of(machine: Machine, activity: Callable[[], tuple[int, bool]] = lambda: (0, False)) -> Aside:
    devices = {name: Device(name, name) for name in ("npu", "cpu")}  # type: ignore[arg-type]
    return Aside(machine.sysroot, devices, activity, threading.Event(), clock=machine.clock, sleep=machine.sleep)


def test_in_a_pause_an_item_is_measured_as_by_bench(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.package()
    found = aside_of(machine).measure("npu", lambda: machine.spend(0.01, 0.5))
    assert found.joules == pytest.approx(0.5, rel=0.05)
    assert found.meter == "intel-rapl:0 package-0 (package), in a pause"


def test_a_request_that_comes_ends_the_measurement_at_once_and_nothing_is_learned(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.package()
    answered: list[int] = []
    came = aside_of(machine, lambda: (len(answered) // 5, False))
    found = came.measure("npu", lambda: (answered.append(1), machine.spend(0.01, 0.5)))
    assert (found.joules, found.again) == (None, True)
    assert len(answered) == 5
    busy = aside_of(machine, lambda: (0, True)).measure("npu", answered.clear)
    assert (busy.reason, busy.again, len(answered)) == ("requests run all the time", True, 5)


def test_without_a_meter_the_reason_is_told_and_no_pause_is_taken(tmp_path: Path) -> None:
    found = aside_of(Machine(tmp_path)).measure("npu", lambda: pytest.fail("asked"))
    assert (found.reason, found.again) == ("no power meter is on this machine", False)


def test_a_session_measures_both_devices_in_a_pause(make_runtime: Make, tmp_path: Path) -> None:
    machine = Machine(tmp_path / "root")

    def run(inputs: Mapping[str, Any], call: Call) -> Mapping[str, Any]:
        machine.spend(0.01, 0.5)
        return double(inputs, call)

    c = Chip(make_runtime, tmp_path, run=run, names=("npu", "gpu", "cpu"))
    machine.package()
    machine.hwmon(7, "amdgpu", power1_input=0)
    session = c.load()
    session(X)
    reserve = reserve_of(session)
    reserve.aside = Aside(
        machine.sysroot,
        {device.name: device for device in c.runtime.devices},
        lambda: session.activity,
        reserve._closed,
        clock=machine.clock,
        sleep=machine.sleep,
    )
    c.become(WARM)
    rest(session)
    assert all("there was no pause so far" in report.prepared for report in session.explain().candidates[:2])
    governor = c.runtime.governor
    assert governor is not None
    for _ in range(4):
        for name in c.backends:
            governor.pace(name).grant(1.0)
        governor.ticked()
        rest(session)
    for candidate in session._candidates[:2]:
        energy = candidate.expects.energy(((2,),))
        assert energy is not None
        assert energy.measured
        assert energy.joules == pytest.approx(0.5, rel=0.1)
    assert not any("pause" in report.prepared for report in session.explain().candidates)


def _breaks(inputs: Mapping[str, Any], call: Call) -> Mapping[str, Any]:
    raise RuntimeError("broken")
