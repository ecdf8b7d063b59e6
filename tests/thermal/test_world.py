"""Modelled time for real threads: a Runtime on modelled machines, and on a board that computes real answers."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import hetero
from hetero.backend import Device, Host
from hetero.errors import OptionError
from hetero.testing.thermal import builds
from hetero.testing.thermal.machine import ThermalMachine
from hetero.testing.thermal.modelled import BoardSimulator, modelled_of
from hetero.testing.thermal.plant import CPU, NPU
from hetero.testing.thermal.scenarios import scenario
from hetero.testing.thermal.serving import Served, serve
from hetero.testing.thermal.ways import WAYS
from hetero.testing.thermal.world import World
from hetero.thermal.timeline import HeatTimeline, summary
from tests.fakes import DOUBLE, FakeBackend

HOT = scenario("sealed box, 52 C", builds.RK3588_SEALED, 52.0, seconds=150)


class Board(FakeBackend):
    """A simulated NPU and a CPU, both of which double."""

    name = "board"
    simulates = ("rk3588",)
    made: ClassVar[list[Any]] = []
    given: ClassVar[list[Mapping[str, Any]]] = []

    @classmethod
    def thermal_simulator(cls) -> BoardSimulator:
        return BoardSimulator()

    def probe(self) -> Sequence[Device]:
        return [Device("npu", "npu", simulated=True), Device("cpu", "cpu")]


def worked(world: World, *jobs: tuple[int, float, int]) -> list[float]:
    """When each job ended, on the world's clock."""
    ends = [0.0] * len(jobs)

    def work(place: int, part: int, seconds: float, lanes: int) -> None:
        world.work(part, seconds, lanes)
        ends[place] = world()
        world.ends()

    threads = [threading.Thread(target=work, args=(place, *job), daemon=True) for place, job in enumerate(jobs)]
    for thread in threads:
        world.begins()
        thread.start()
    while world.under_way:
        world.settle()
        if not world.end_one():
            world.move_to(world.next_event())
    for thread in threads:
        thread.join()
    return ends


def test_a_job_takes_as_long_as_its_device_needs_and_heats_the_machine(tmp_path: Path) -> None:
    machine = ThermalMachine(tmp_path / "root", "rk3588")
    world, before = World(machine), machine.celsius
    assert worked(world, (NPU, 20.0, 3), (CPU, 5.25, 1)) == pytest.approx([20.0, 5.25])
    assert machine.celsius > before + 3
    assert world.taken()[[NPU, CPU]] == pytest.approx([20.0 / 3, 5.25])


def test_a_job_takes_longer_while_the_kernel_caps_the_clock(tmp_path: Path) -> None:
    machine = ThermalMachine(tmp_path / "root", "rk3588", ambient=80.0)
    world = World(machine)
    assert worked(world, (NPU, 10.0, 1)) == [pytest.approx(10.0 / 0.8, abs=0.6)]


def test_a_stopped_world_keeps_nobody_waiting(tmp_path: Path) -> None:
    world = World(ThermalMachine(tmp_path / "root", "rk3588"))
    thread = threading.Thread(target=world.work, args=(NPU, 1e9), daemon=True)
    world.begins()
    thread.start()
    world.settle()
    world.stop()
    thread.join(30)
    world.work(NPU, 1e9)
    assert not thread.is_alive()


def outlook(served: Served) -> tuple[Any, ...]:
    return served.requests, served.longest, served.outcome.hot_seconds, served.shares.tolist(), dict(served.decisions)


def test_a_runtime_on_a_hot_board_stays_below_its_limit_loses_nothing_and_does_the_same_again() -> None:
    served = serve(HOT, WAYS["ours"])
    assert served.errors == ()
    assert served.outcome.hot_seconds == 0
    assert served.outcome.highest > 80
    assert served.outcome.changes == 0
    assert served.decisions["pace"] > 10
    assert 0.3 < served.shares[60:, NPU].mean() < 0.95
    assert outlook(serve(HOT, WAYS["ours"])) == outlook(served)


def test_without_a_governor_the_same_board_gets_hot_and_by_a_threshold_it_is_slower() -> None:
    ours, nothing, rule = (serve(HOT, WAYS[name]) for name in ("ours", "no steering", "80 C rule"))
    assert nothing.outcome.hot_seconds > 10
    assert nothing.decisions == {}
    assert rule.outcome.items < ours.outcome.items
    assert rule.outcome.changes > 2


def test_a_rule_that_paces_an_executable_itself_goes_on_after_its_pauses() -> None:
    served = serve(scenario("sealed box, 62 C", builds.RK3588_SEALED, 62.0, seconds=100), WAYS["hysteresis"])
    assert served.errors == ()
    assert 0.1 < served.shares[60:, NPU].mean() < 0.9


@pytest.mark.parametrize(
    ("simulate", "said"),
    [
        (("rk3588", "thermal=oven"), "sealed"),
        (("rk3588", "ambient=40"), "thermal=sealed"),
        (("thermal=sealed",), "rk3588"),
        (("rk3588", "thermal=sealed", "fan=2"), "ambient"),
        (("rk3588", "thermal=sealed", "ambient=warm"), "no number"),
        (("rk3588", "thermal=sealed", "npu_ms=0"), "above 0"),
    ],
)
def test_settings_that_cannot_be_are_refused_with_what_could(simulate: tuple[str, ...], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        modelled_of(simulate)


def board(tmp_path: Path, *settings: str) -> hetero.Runtime:
    return hetero.Runtime(
        backends=[Board],
        plugins=False,
        host=Host(environ={}, cache=tmp_path / "cache"),
        simulate=("rk3588", "thermal=sealed", *settings),
    )


def test_a_modelled_board_gives_real_answers_in_its_own_time_and_gets_warm(tmp_path: Path) -> None:
    with board(tmp_path, "npu_ms=2000", "ambient=40") as rt:
        assert [device.name for device in rt.devices] == ["npu", "cpu"]
        session = rt.load(DOUBLE)
        begun = rt.now
        x = np.array([1, 2], np.float32)
        for _ in range(10):
            result = session.run(x)
            assert result.value.tolist() == [2, 4]
            assert result.record.attempts[-1].seconds == pytest.approx(2.0)
        assert rt.now - begun == pytest.approx(20.0, abs=0.6)
        governor = rt.governor
        assert governor is not None
        sample = governor.samples["npu"]
        assert sample.reading.source == "npu-thermal"
        assert sample.reading.celsius is not None
        assert sample.reading.celsius > 60
        root = rt.host.sysroot
        assert root != Path("/")
    assert not root.exists()
    assert not (tmp_path / "cache" / "costs.json").exists()


def test_a_deadline_passes_in_modelled_time(tmp_path: Path) -> None:
    with board(tmp_path, "npu_ms=5000") as rt:
        session = rt.load(DOUBLE)
        with pytest.raises(hetero.errors.DeadlineExceeded):
            session(np.array([1], np.float32), deadline=1.0)


def test_a_timeline_tells_what_heat_did_and_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    with board(tmp_path, "npu_ms=4000", "ambient=52") as rt:
        session = rt.load(DOUBLE)
        with HeatTimeline(rt) as timeline:
            for _ in range(30):
                session(np.array([1], np.float32))
        told = timeline.to_dict()
        timeline.draw(tmp_path / "heat.png", "thirty calls")
    assert told["devices"]["npu"]["runs"] == 30
    assert told["devices"]["npu"]["work_seconds"] >= 119
    assert told["held_requests"] > 0
    assert told["held_seconds"] > 1
    assert told["devices"]["npu"]["highest"] < 87
    assert "modelled RK3588, sealed box, 52 C" in summary(told)[0]
    assert (tmp_path / "heat.png").read_bytes().startswith(b"\x89PNG")


def test_a_timeline_needs_a_governor_and_a_picture_a_suffix(tmp_path: Path) -> None:
    off = hetero.Runtime(backends=[Board], plugins=False, thermal=False)
    with off as rt, pytest.raises(OptionError, match="governor"):
        HeatTimeline(rt)
    with hetero.Runtime(backends=[Board], plugins=False) as rt, pytest.raises(OptionError, match="picture"):
        HeatTimeline(rt).draw(tmp_path / "heat.txt")
