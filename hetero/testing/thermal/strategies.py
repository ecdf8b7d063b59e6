"""Ways to deal with heat, side by side on modelled machines: ours is the code that runs on real ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hetero.testing.thermal.plant import GPU, NPU, SOC, Build, Floats, Plant
from hetero.testing.thermal.scenarios import Scenario
from hetero.thermal.control import Control
from hetero.thermal.cpu import Rise
from hetero.thermal.ladder import next_step, power_share
from hetero.thermal.limits import LIMITS
from hetero.thermal.readings import Belief, Reading
from hetero.thermal.steering import OnHot, Worth, elsewhere


class Strategy(Protocol):
    """Says second by second what the NPU, the GPU and the CPU of one machine do.

    Attributes:
        clock: Of the NPU, MHz; None leaves it at its highest.
    """

    clock: float | None

    def expect(self, degrees: float) -> None:
        """Told before each step, as `hetero.thermal.laws.Law.expect`."""

    def step(self, now: float, readings: Floats, used: Floats, demand: float) -> tuple[float, float, float]:
        """The duties of the next second.

        Args:
            now: Seconds.
            readings: Of the sensors of NPU, GPU, CPU and SoC, degrees.
            used: Duties of the last second.
            demand: Work that is asked for; the duties' sum is at most that.
        """


class Nothing:
    """Everything on the NPU, at all times: what the kernel does is all that is done."""

    clock: float | None = None

    def __init__(self, scenario: Scenario) -> None: ...

    def expect(self, degrees: float) -> None:
        """See `Strategy.expect`: of no interest here."""

    def step(self, now: float, readings: Floats, used: Floats, demand: float) -> tuple[float, float, float]:
        """See `Strategy.step`."""
        return demand, 0.0, 0.0


class Threshold:
    """The rule of the project's first plan: an NPU of 80 C or more is left for the GPU, else for the CPU."""

    clock: float | None = None

    def __init__(self, scenario: Scenario) -> None:
        self._warn = scenario.limits.warn
        self._gpu = scenario.build.gpu_rate > 0

    def expect(self, degrees: float) -> None:
        """See `Strategy.expect`: of no interest here."""

    def step(self, now: float, readings: Floats, used: Floats, demand: float) -> tuple[float, float, float]:
        """See `Strategy.step`."""
        if readings[NPU] < self._warn:
            return demand, 0.0, 0.0
        return (0.0, demand, 0.0) if self._gpu else (0.0, 0.0, demand)


class Hysteresis:
    """Full speed up to the maximum, then a third of it until 5 C below."""

    clock: float | None = None

    def __init__(self, scenario: Scenario) -> None:
        self._maximum = scenario.limits.maximum
        self._hot = False

    def expect(self, degrees: float) -> None:
        """See `Strategy.expect`: of no interest here."""

    def step(self, now: float, readings: Floats, used: Floats, demand: float) -> tuple[float, float, float]:
        """See `Strategy.step`."""
        self._hot = readings[NPU] >= self._maximum - (5.0 if self._hot else 0.0)
        return min(demand, 0.3) if self._hot else demand, 0.0, 0.0


class Governed:
    """The controls of `hetero.thermal`, one for each device.

    Args:
        scenario: What happens.
        law: `budget` or `tokens`.
        on_hot: As for the governor.
        ladder: The NPU's clock is lowered too, as root may.
    """

    def __init__(self, scenario: Scenario, law: str = "budget", on_hot: OnHot = "auto", ladder: bool = False) -> None:
        build = scenario.build
        direct = build.npu_sensor or scenario.limits.maximum > 85
        self.control = Control(scenario.limits, law, direct)
        self.clock = build.clocks[-1] if ladder else None
        self._build = build
        self._clocks = [int(clock) for clock in build.clocks]
        self._changed = 0.0
        here, there = _worths(build)
        to, _ = elsewhere(on_hot, here, [there] if build.gpu_rate else [])
        self._gpu = Control(LIMITS["gpu"], law) if to else None
        self._beliefs = (Belief(), Belief())
        self._source = SOC if not build.npu_sensor else NPU

    def expect(self, degrees: float) -> None:
        """See `Strategy.expect`."""
        for control in (self.control, self._gpu):
            if control is not None:
                control.law.expect(degrees)

    def step(self, now: float, readings: Floats, used: Floats, demand: float) -> tuple[float, float, float]:
        """See `Strategy.step`."""
        highest = self._build.clocks[-1]
        share = power_share(self.clock, highest) if self.clock else 1.0
        grant = self._take(self.control, 0, now, float(readings[self._source]), float(used[NPU]) * share)
        if self.clock:
            chosen = next_step(self._clocks, int(self.clock), grant, now - self._changed)
            if chosen != self.clock:
                self.clock, self._changed = float(chosen), now
        duty = min(1.0, grant / power_share(self.clock, highest)) if self.clock else grant
        npu = min(demand, duty)
        if self._gpu is None:
            return npu, 0.0, 0.0
        gpu = self._take(self._gpu, 1, now, float(readings[GPU]), float(used[GPU]))
        return npu, min(gpu, demand - npu), 0.0

    def _take(self, control: Control, place: int, now: float, celsius: float, used: float) -> float:
        belief = self._beliefs[place]
        believed, problem = belief.take(now, celsius, "", used)
        return control.step(Reading(believed, reason=problem), used, 1.0, belief.resolution).duty


def _worths(build: Build) -> tuple[Worth, Worth]:
    """Of the NPU and the GPU, as `hetero bench` would measure them."""
    npu = (build.npu_watts + build.host_watts) / build.npu_rate
    gpu = (build.gpu_watts + build.host_watts) / build.gpu_rate if build.gpu_rate else None
    return Worth("npu", npu, True), Worth("gpu", gpu, True)


STRATEGIES: dict[str, Callable[[Scenario], Strategy]] = {
    "no steering": Nothing,
    "80 C rule": Threshold,
    "hysteresis": Hysteresis,
    "tokens": lambda scenario: Governed(scenario, "tokens"),
    "ours": Governed,
    "ours, root": lambda scenario: Governed(scenario, ladder=True),
}
"""By what they are called in tables."""


@dataclass(frozen=True)
class Outcome:
    """What became of one scenario.

    Attributes:
        items: That were answered.
        hot_seconds: At or above the NPU's maximum, by the temperature as it was, not as it was read.
        highest: Degrees of the NPU.
        changes: How often most of the work moved to another device.
        swings: Sum of all changes of the NPU's duty.
        temperatures: Of the NPU, one a second.
        duties: Of the NPU, one a second.
    """

    items: float
    hot_seconds: float
    highest: float
    changes: int
    swings: float
    temperatures: Floats
    duties: Floats


def play(scenarios: Sequence[Scenario], make: Callable[[Scenario], Strategy], seed: int = 0) -> list[Outcome]:
    """Let a strategy deal with scenarios of the same length, all at once."""
    count, seconds = len(scenarios), scenarios[0].seconds
    plant = Plant([each.build for each in scenarios], np.array([each.ambient[0] for each in scenarios]), seed)
    ambient, gpu, cpu, demand = (
        np.stack([getattr(each, name) for each in scenarios], axis=1) for name in ("ambient", "gpu", "cpu", "demand")
    )
    plant.background = np.stack([gpu[0], cpu[0]])
    plant.settle()
    strategies = [make(each) for each in scenarios]
    rises = [Rise() for _ in scenarios]
    duties = np.zeros((seconds, 3, count))
    temperatures = np.zeros((seconds, count))
    used, load = np.zeros((3, count)), np.zeros(count)
    for second in range(seconds):
        for machine, each in enumerate(scenarios):
            if second in each.changes:
                plant.rebuild(machine, each.changes[second])
        plant.ambient, plant.background = ambient[second], np.stack([gpu[second], cpu[second]])
        readings = plant.readings
        for machine, strategy in enumerate(strategies):
            if second:  # what is told is the load of the second that is over
                strategy.expect(rises[machine].take(float(load[machine])))
            duties[second, :, machine] = strategy.step(
                float(second), readings[:, machine], used[:, machine], float(demand[second, machine])
            )
            if strategy.clock is not None:
                plant.clock[machine] = strategy.clock
        used, load = duties[second], plant.cpu_load(duties[second])
        plant.advance(used, 1.0)
        temperatures[second] = plant.temperatures[NPU]
    busiest = np.where(duties.sum(axis=1) > 0, duties.argmax(axis=1), -1)
    return [
        Outcome(
            items=float(plant.items[machine]),
            hot_seconds=float((temperatures[:, machine] >= scenarios[machine].limits.maximum).sum()),
            highest=float(temperatures[:, machine].max()),
            changes=changes_of(busiest[:, machine]),
            swings=float(np.abs(np.diff(duties[:, NPU, machine])).sum()),
            temperatures=temperatures[:, machine],
            duties=duties[:, NPU, machine],
        )
        for machine in range(count)
    ]


def changes_of(busiest: Floats) -> int:
    """How often the device with most of the work changed; pauses do not count."""
    at_work = busiest[busiest >= 0]
    return int((np.diff(at_work) != 0).sum())
