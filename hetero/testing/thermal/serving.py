"""A Runtime at work on a modelled machine: scheduler, governor and threads are real, devices and time are modelled.

The NPU, the GPU and the CPU of the machine are three devices of a backend. A call on one of them takes as long as the
device needs at its present speed, and heats the machine meanwhile. So many *streams* ask for the next answer as soon as
they have one, each with one request at a time.
"""

from __future__ import annotations

import functools
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hetero.backend import Array, Artifact, Backend, Call, Device, Executable, Host, Pace, Program, TensorSpec
from hetero.errors import Unsupported
from hetero.runtime import Runtime
from hetero.session import Session
from hetero.testing.thermal.machine import ThermalMachine
from hetero.testing.thermal.plant import CPU, GPU, NPU, Build
from hetero.testing.thermal.scenarios import Scenario
from hetero.testing.thermal.strategies import Outcome, changes_of
from hetero.testing.thermal.sysroots import LAYOUTS, Layout
from hetero.testing.thermal.ways import Way
from hetero.testing.thermal.world import World
from hetero.thermal.admission import Admission

PARTS = {"npu": NPU, "gpu": GPU, "cpu": CPU}

_F32 = np.dtype(np.float32)

ITEM = Program(
    "item",
    inputs=(TensorSpec("x", _F32, (1,)),),
    outputs=(TensorSpec("y", _F32, (1,)),),
    artifacts=(Artifact("modelled", name="item"),),
)
"""Gives back what it got."""

# Thousands of small files are written: in memory that is a matter of microseconds.
_QUICK = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None

MakeWay = Callable[[Scenario, World, int], Way]


def rates_of(build: Build) -> dict[str, float]:
    """Items that each device answers in a second; none for one that is not there."""
    rates = {"npu": build.npu_rate, "gpu": build.gpu_rate, "cpu": build.cpu_rate}
    return {name: rate for name, rate in rates.items() if rate > 0}


def watts_of(build: Build) -> dict[str, float]:
    """What each device takes at work, the host's part included."""
    host = build.host_watts
    return {"npu": build.npu_watts + host, "gpu": build.gpu_watts + host, "cpu": build.cpu_watts}


class _Work(Executable):
    def __init__(self, world: World, part: int, seconds: float, lanes: int, pace: Pace | None) -> None:
        self.lanes = lanes
        self.pace = pace
        self.details = {"times": "modelled"}
        self._world, self._part, self._seconds = world, part, seconds

    def run(self, inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        began = self._world()
        self._world.work(self._part, self._seconds, self.lanes)
        if isinstance(self.pace, Admission):
            self.pace.ended(self._world() - began)  # what a call has taken is taken off what may be spent
        return {"y": inputs["x"]}


def modelled_backend(world: World, items: float, lanes: int = 3, pace: Pace | None = None) -> type[Backend]:
    """A backend whose devices are those of a modelled machine.

    Args:
        world: Where its calls work.
        items: That a call answers.
        lanes: Of each device, every one of them so many parts of it.
        pace: Of the NPU's executables.
    """
    build = world.machine.sysroot.layout.build
    rates, watts = rates_of(build), watts_of(build)

    class Modelled(Backend):
        name = "modelled"

        def probe(self) -> Sequence[Device]:
            return [
                Device(name, name, f"modelled, {build.name}", lanes, simulated=True, watts=watts[name])  # type: ignore[arg-type]
                for name in rates
            ]

        def load(self, program: Program, device: Device, options: Mapping[str, Any]) -> Executable:
            if program.name != ITEM.name:
                raise Unsupported(f"a modelled device runs {ITEM.name!r} alone", fix="load hetero.testing's ITEM")
            seconds = items / (rates[device.name] / lanes)
            return _Work(world, PARTS[device.name], seconds, lanes, pace if device.name == "npu" else None)

    return Modelled


def layout_of(build: Build) -> Layout:
    """The files of a board of a build's kind, over a plant of its constants."""
    kind = build.name.split(",")[0].split()[0].lower()
    return replace(LAYOUTS[kind], build=build)


class Streams:
    """Clients in a closed loop: each has one request under way, and asks again once that is answered.

    Args:
        session: Whom they ask.
        world: Whose time it is.

    Attributes:
        answered: How many requests were.
        longest: Seconds that the slowest one took.
        errors: What others ended with.
    """

    def __init__(self, session: Session, world: World) -> None:
        self.answered = 0
        self.longest = 0.0
        self.errors: list[BaseException] = []
        self._session = session
        self._world = world
        self._x = np.zeros(1, np.float32)
        self._left = False

    def fill(self, wanted: int) -> None:
        """Ask until so many requests are under way. The world has settled before and has afterwards."""
        while self._world.under_way < wanted:
            self._world.begins()
            began = self._world()
            self._session.submit(self._x).add_done_callback(functools.partial(self._ended, began))
            self._world.settle()

    def leave(self) -> None:
        """What comes from now on is of no interest: the session is going to be closed."""
        self._left = True

    def _ended(self, began: float, future: Future[Any]) -> None:
        error = future.exception()
        if self._left:
            pass
        elif error is None:
            self.answered += 1
            self.longest = max(self.longest, self._world() - began)
        else:
            self.errors.append(error)
        self._world.ends()


@dataclass(frozen=True)
class Served:
    """What became of a scenario.

    Attributes:
        outcome: As of a strategy; the duties are the shares of each second in which the NPU worked.
        requests: That were answered.
        longest: Seconds that the slowest of them took.
        errors: What requests ended with that were not.
        shares: Of the NPU, the GPU and the CPU in each second, shape (seconds, 3).
        granted: Of the NPU's time by the governor, one a second; 1 where there is none.
        decisions: How many requests heat has done something to, by what it did.
    """

    outcome: Outcome
    requests: int
    longest: float
    errors: tuple[BaseException, ...]
    shares: Any
    granted: Any
    decisions: Mapping[str, int]


def serve(
    scenario: Scenario,
    make: MakeWay,
    *,
    streams: int = 3,
    lanes: int = 3,
    call_seconds: float = 0.6,
    seed: int = 0,
    progress: Callable[[float], object] = lambda seconds: None,
    each_second: Callable[[Runtime, World], object] = lambda runtime, world: None,
) -> Served:
    """Let a Runtime serve streams of requests on a modelled machine.

    Args:
        scenario: What happens there. Where its demand is less than 1 so many fewer streams ask.
        make: What is done about heat.
        streams: How many ask at once, where the demand is 1.
        lanes: Of each device.
        call_seconds: That a call takes on a lane of the NPU at its full speed.
        seed: Of the sensors' noise.
        progress: Told the seconds that are over.
        each_second: Called after the governor's tick.
    """
    with tempfile.TemporaryDirectory(prefix="hetero-thermal-", dir=_QUICK) as folder:
        machine = ThermalMachine(Path(folder) / "root", layout_of(scenario.build), float(scenario.ambient[0]), seed)
        machine.other_work(cpu=float(scenario.cpu[0]), gpu=float(scenario.gpu[0]))
        machine.plant.settle()
        machine.show()
        world = World(machine)
        way = make(scenario, world, lanes)
        items = scenario.build.npu_rate / lanes * call_seconds
        with Runtime(
            backends=[modelled_backend(world, items, lanes, way.pace)],
            plugins=False,
            learn=False,
            keep_records=100,
            host=Host(environ={}, sysroot=machine.sysroot.root, cache=Path(folder) / "cache"),
            clock=world,
            **way.runtime,
        ) as runtime:
            decisions: Counter[str] = Counter()
            runtime.records.subscribe(
                lambda record: decisions.update({decision.action for decision in getattr(record, "heat", ())})
            )
            session = runtime.load(ITEM, policy=way.policy, explore=0.0)
            _know(session, scenario.build, items, lanes)
            world.waiting = lambda: session.waiting
            clients = Streams(session, world)
            watch = _Watch(scenario, world, runtime, way)
            try:
                while world() < scenario.seconds:
                    _moment(runtime, world, clients, round(streams * float(scenario.demand[int(world())])))
                    if watch.due:
                        watch.second()
                        each_second(runtime, world)
                        progress(world())
            finally:
                clients.leave()
                world.stop()
    return watch.served(items, clients, decisions)


def _know(session: Session, build: Build, items: float, lanes: int) -> None:
    """Have the cost model know what `hetero bench` would have measured: seconds and joules of a call on each device."""
    rates, watts, x = rates_of(build), watts_of(build), np.zeros(1, np.float32)
    for candidate in session._candidates:
        seconds = items / (rates[candidate.name] / lanes)
        for _ in range(3):  # the first run counts for nothing, and a median wants some
            candidate.expects.learn({"x": x}, seconds)
        candidate.expects.learn_energy((x.shape,), seconds / lanes * watts[candidate.name], "a model")


def _moment(runtime: Runtime, world: World, clients: Streams, wanted: int) -> None:
    """All that happens now, then time up to the next event."""
    clients.fill(wanted)
    due = runtime.timers.run_due()
    world.settle()
    if not world.end_one():
        world.move_to(world.next_event() if due is None else min(due, world.next_event()))
    world.settle()


class _Watch:
    """What the machine does second by second, and what happens to it."""

    def __init__(self, scenario: Scenario, world: World, runtime: Runtime, way: Way) -> None:
        self._scenario, self._world, self._runtime, self._way = scenario, world, runtime, way
        self._seconds = 0
        self._temperatures: list[float] = []
        self._shares: list[Any] = []
        self._granted: list[float] = []
        self._tick()

    @property
    def due(self) -> bool:
        """A second is over."""
        return self._world() >= self._seconds + 1

    def second(self) -> None:
        """Note the second that is over, change what changes, and have the governor look."""
        machine, scenario = self._world.machine, self._scenario
        self._seconds += 1
        self._temperatures.append(machine.celsius)
        self._shares.append(self._world.taken())
        now = min(self._seconds, scenario.seconds - 1)
        if now in scenario.changes:
            machine.plant.rebuild(0, scenario.changes[now])
        machine.ambient(float(scenario.ambient[now]))
        machine.other_work(cpu=float(scenario.cpu[now]), gpu=float(scenario.gpu[now]))
        self._tick()

    def _tick(self) -> None:
        self._way.second()
        governor = self._runtime.governor
        if governor is not None:
            self._way.tick(governor)
        self._granted.append(1.0 if governor is None else governor.headroom("npu"))

    def served(self, items: float, clients: Streams, decisions: Mapping[str, int]) -> Served:
        temperatures, shares = np.array(self._temperatures), np.array(self._shares)
        granted = np.array(self._granted)
        busiest = np.where(shares.sum(axis=1) > 0, shares.argmax(axis=1), -1)
        outcome = Outcome(
            items=clients.answered * items,
            hot_seconds=float((temperatures >= self._scenario.limits.maximum).sum()),
            highest=float(temperatures.max()),
            changes=changes_of(busiest),
            swings=float(np.abs(np.diff(granted)).sum()),
            temperatures=temperatures,
            duties=shares[:, NPU],
        )
        return Served(
            outcome, clients.answered, clients.longest, tuple(clients.errors), shares, granted, dict(decisions)
        )
