"""The heat of a device is the device's: several Runtimes of a process together let in no more than one would."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hetero
from hetero.backend import Device, Host
from hetero.testing.thermal.sysroots import Sysroot
from hetero.thermal.admission import Admission
from hetero.thermal.settings import ThermalSettings
from hetero.thermal.sharing import shared_admission
from tests.fakes import DOUBLE, fake
from tests.scheduler.test_heat import Clock, is_settled, until

X = np.array([1, 2], np.float32)
Make = Callable[..., hetero.Runtime]


class Two:
    """Runtimes on one board of a clock that a test moves."""

    def __init__(self, make: Make, root: Path, *settings: ThermalSettings, seconds: float = 0.25) -> None:
        self.clock = Clock()
        self.sysroot = Sysroot(root / "root", "rk3588")
        self.sysroot.show(dict.fromkeys(range(4), 40.0))
        self.worked = 0.0
        self.host = Host(environ={}, sysroot=root / "root", cache=root / "cache")
        self.runtimes = [self.runtime(make, each, seconds) for each in settings]
        self.sessions = [runtime.load(DOUBLE, canary=False) for runtime in self.runtimes]

    def runtime(self, make: Make, settings: ThermalSettings, seconds: float) -> hetero.Runtime:
        taking = self.clock.taking(seconds)

        def run(inputs: Any, call: Any) -> Any:
            self.worked += seconds
            return taking(inputs, call)

        return make(fake("npu", run=run), host=self.host, clock=self.clock, learn=False, thermal=settings)

    def admission(self, place: int) -> Admission:
        governor = self.runtimes[place].governor
        assert governor is not None
        return governor.pace("npu")

    def second(self, celsius: float) -> None:
        self.sysroot.show(dict.fromkeys(range(4), celsius))
        self.clock.now += 1.0
        self.tick()

    def tick(self) -> None:
        for runtime in self.runtimes:
            assert runtime.governor is not None
            runtime.governor.tick()
            runtime.timers.run_due()


PACE = ThermalSettings(on_hot="pace", follow_power=False)


def share_of(two: Two, asked: int) -> float:
    """What part of a minute the NPU works for, when so many of the Runtimes have queues that are never empty."""
    sessions = two.sessions[:asked]
    futures = [session.submit(X) for session in sessions for _ in range(120)]
    until(lambda: all(map(is_settled, sessions)))
    began, worked = two.clock.now, two.worked
    while two.clock.now < began + 60.0:
        two.clock.now += 0.05
        for runtime in two.runtimes[:asked]:
            runtime.timers.run_due()
        until(lambda: all(map(is_settled, sessions)))
    share = (two.worked - worked) / (two.clock.now - began)
    for future in futures:
        future.cancel()
    return share


def test_two_runtimes_on_a_hot_board_let_in_no_more_than_one_would(make_runtime: Make, tmp_path: Path) -> None:
    alone = Two(make_runtime, tmp_path / "one", PACE)
    alone.admission(0).grant(0.25)
    both = Two(make_runtime, tmp_path / "two", PACE, PACE)
    both.admission(0).grant(0.25)
    assert both.admission(1) is both.admission(0)
    one, two = share_of(alone, 1), share_of(both, 2)
    assert one == pytest.approx(0.25, abs=0.03)
    assert two == pytest.approx(one, abs=0.03)


def test_records_of_both_say_that_the_device_is_shared_and_what_the_stricter_one_grants(
    make_runtime: Make, tmp_path: Path
) -> None:
    two = Two(make_runtime, tmp_path, PACE, ThermalSettings(profile="battery", on_hot="pace", follow_power=False))
    for _ in range(30):
        two.second(74.0)
    strict, mild = two.runtimes[1].governor, two.runtimes[0].governor
    assert strict is not None
    assert mild is not None
    assert strict.samples["npu"].grant.duty < mild.samples["npu"].grant.duty
    assert mild.headroom("npu") == strict.headroom("npu") == strict.samples["npu"].grant.duty
    told = []
    for runtime, session in zip(two.runtimes, two.sessions, strict=True):
        two.admission(0)._tokens = -0.01
        future = session.submit(X)
        for _ in range(200):
            two.clock.now += 0.05
            runtime.timers.run_due()
        assert future.result(30).tolist() == [2, 4]
        assert runtime.records.last is not None
        told.append(runtime.records.last.heat[0].reason)
    granted = strict.samples["npu"].grant.duty
    assert f"; shared with 1 more Runtime of this process, of which one grants {granted:.0%}" in told[0]
    assert "; shared with 1 more Runtime of this process;" in told[1]


def test_closing_one_leaves_the_other_working_by_its_own_governor_alone(make_runtime: Make, tmp_path: Path) -> None:
    two = Two(make_runtime, tmp_path, PACE, PACE)
    strict, mild = two.runtimes[0].governor, two.runtimes[1].governor
    assert strict is not None
    assert mild is not None
    two.tick()
    admission = two.admission(1)
    strict._watched["npu"].grant(0.1)
    assert mild.headroom("npu") == 0.1
    two.runtimes[0].close()
    assert mild.headroom("npu") == 1.0
    assert "shared" not in mild.why("npu")
    strict.tick()  # one that was late
    assert len(admission.grants) == 1
    assert two.sessions[1](X).tolist() == [2, 4]
    assert two.admission(1) is admission


def test_a_runtime_that_is_dropped_grants_nothing_any_more(make_runtime: Make, tmp_path: Path) -> None:
    two = Two(make_runtime, tmp_path, PACE)
    other = hetero.Runtime(
        backends=[fake("npu")], plugins=False, host=two.host, clock=two.clock, learn=False, thermal=PACE
    )
    other.load(DOUBLE, canary=False)
    assert other.governor is not None
    other.governor.tick()
    two.tick()
    assert len(two.admission(0).grants) == 2
    other.governor._watched["npu"].grant(0.0)
    assert two.admission(0).duty == 0.0
    del other
    gc.collect()
    two.tick()
    assert len(two.admission(0).grants) == 1
    assert two.admission(0).duty == 1.0


def test_each_governor_is_told_the_use_since_it_asked_itself(make_runtime: Make, tmp_path: Path) -> None:
    two = Two(make_runtime, tmp_path, PACE, PACE, seconds=1.0)
    two.tick()
    two.sessions[0](X)
    first, second = (runtime.governor for runtime in two.runtimes)
    assert first is not None
    assert second is not None
    assert first.tick()["npu"].used == pytest.approx(1.0)
    assert second.tick()["npu"].used == pytest.approx(1.0)
    two.clock.now += 1.0
    assert first.tick()["npu"].used == pytest.approx(0.0)
    two.sessions[1](X)
    assert second.tick()["npu"].used == pytest.approx(0.5)


def test_other_machines_clocks_and_devices_are_apart_and_nothing_is_kept(tmp_path: Path) -> None:
    class Owner:
        def clock(self) -> float:
            return 1.0

    owner, npu = Owner(), Device("npu", "npu", lanes=3)
    host = Host(environ={}, sysroot=tmp_path)
    same = shared_admission(host, owner.clock, npu)
    (tmp_path / "link").symlink_to(tmp_path)
    assert shared_admission(Host(environ={}, sysroot=tmp_path / "link"), owner.clock, npu) is same
    others = [
        shared_admission(Host(environ={}, sysroot=tmp_path / "other"), owner.clock, npu),
        shared_admission(Host(environ={}, sysroot=tmp_path, simulate=("rk3588",)), owner.clock, npu),
        shared_admission(host, Owner().clock, npu),
        shared_admission(host, owner.clock, Device("cpu", "cpu")),
    ]
    assert len({id(other) for other in [same, *others]}) == 5
    same.grant(0.0, owner)
    del same
    gc.collect()
    assert shared_admission(host, owner.clock, npu).duty == 1.0


def test_many_threads_that_ask_at_once_get_the_same(tmp_path: Path) -> None:
    def clock() -> float:
        return 1.0

    host, got, go = Host(environ={}, sysroot=tmp_path), [], threading.Event()

    def ask() -> None:
        go.wait(30)
        got.append(shared_admission(host, clock, Device("npu", "npu")))

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    go.set()
    for thread in threads:
        thread.join(30)
    assert len(got) == 16
    assert len({id(each) for each in got}) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_the_child_of_a_fork_has_admissions_of_its_own(tmp_path: Path) -> None:
    def clock() -> float:
        return 1.0

    host, npu = Host(environ={}, sysroot=tmp_path), Device("npu", "npu")
    mine = shared_admission(host, clock, npu)
    voter = type("Voter", (), {})()
    mine.grant(0.0, voter)
    child = os.fork()
    if child == 0:
        os._exit(0 if shared_admission(host, clock, npu).duty == 1.0 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert shared_admission(host, clock, npu) is mine
