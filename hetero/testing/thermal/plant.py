"""A machine's heat, modelled: sources on a die, on a board, in the air around it; and sensors that see it late.

Two stages in a row, each a thermal resistance and a capacity (the *die*, which answers in seconds, and the *board* with
its heatsink, which answers in minutes), and a *hotspot* on top of the die over each source. It is linear, so that the
most work that any governor could do is the solution of a linear program over the same matrices; what a die leaks more
when it is hot is left out. Many machines are computed at once: every array has one entry a machine.

Nothing here was measured on hardware; see `boards` for where each constant comes from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

STEP = 0.5
"""Seconds of one step of the model; the die's time constant is 3 s or more."""

NPU, GPU, CPU, SOC = range(4)
BOARD, DIE, HOT = 0, 1, 2
_STATES = 5


@dataclass(frozen=True)
class Build:
    """The constants of one machine.

    Attributes:
        name: Of the board and how it is cooled.
        die_resistance: From the die to the board, C/W.
        board_resistance: From the board to the air, C/W; a fan's part is in it.
        die_seconds: Time constant of the die.
        board_seconds: Time constant of the board.
        hotspots: Over the NPU, the GPU and the CPU, C/W.
        hotspot_seconds: Time constant of the three.
        idle_watts: What the machine takes at rest.
        npu_watts: What the NPU takes at work, at its highest clock.
        gpu_watts: The same for the GPU.
        cpu_watts: The same for the CPU, doing the NPU's work.
        host_watts: What the CPU takes on top while the NPU or the GPU is at work.
        npu_rate: Items that the NPU answers in a second at its highest clock.
        gpu_rate: The same for the GPU; 0 where there is none that could.
        cpu_rate: The same for the CPU.
        clocks: The NPU's, MHz, lowest first.
        volts: The NPU's at these clocks.
        sensor_step: Degrees between two values that a sensor can tell; it tells the lower one.
        sensor_seconds: Time constant of a sensor.
        sensor_noise: Standard deviation of what a sensor adds, degrees.
        npu_sensor: The NPU's own temperature is told; else the die's is the nearest.
        cap_at: Degrees at which the kernel caps the NPU's clock; infinite where it does not.
        cap_hysteresis: Degrees below that at which it lifts the cap.
        cap_clock: MHz of the cap.
        fights_at: Degrees at which the kernel begins to slow the CPU and the GPU down; infinite where it does not.
    """

    name: str
    die_resistance: float = 2.0
    board_resistance: float = 5.5
    die_seconds: float = 5.0
    board_seconds: float = 120.0
    hotspots: tuple[float, float, float] = (0.6, 0.6, 0.6)
    hotspot_seconds: float = 1.0
    idle_watts: float = 2.0
    npu_watts: float = 3.0
    gpu_watts: float = 2.15
    cpu_watts: float = 5.0
    host_watts: float = 0.5
    npu_rate: float = 100.0
    gpu_rate: float = 40.0
    cpu_rate: float = 20.0
    clocks: tuple[float, ...] = (300, 400, 500, 600, 700, 800, 900, 1000)
    volts: tuple[float, ...] = (0.70, 0.70, 0.70, 0.70, 0.70, 0.75, 0.80, 0.85)
    sensor_step: float = 0.923
    sensor_seconds: float = 1.0
    sensor_noise: float = 0.1
    npu_sensor: bool = True
    cap_at: float = 85.0
    cap_hysteresis: float = 5.0
    cap_clock: float = 800.0
    fights_at: float = 85.0

    def with_(self, **changes: Any) -> Build:
        """The same machine but for some constants."""
        return replace(self, **changes)

    def power_at(self, clock: float) -> float:
        """The NPU's power at a clock, as a share of that at its highest: by clock and voltage squared."""
        volts = float(np.interp(clock, self.clocks, self.volts))
        return clock / self.clocks[-1] * (volts / self.volts[-1]) ** 2

    @property
    def step_matrices(self) -> tuple[Floats, Floats, Floats]:
        """`x' = a x + b watts + c ambient` over one step; states: board, die, three hotspots above the die.

        Returns:
            Of shapes (5, 5), (5, 3) and (5,).
        """
        a, b, c = np.eye(_STATES), np.zeros((_STATES, 3)), np.zeros(_STATES)
        die_capacity = self.die_seconds / self.die_resistance
        board_capacity = self.board_seconds / self.board_resistance
        a[DIE, DIE] -= STEP / self.die_seconds
        a[DIE, BOARD] += STEP / self.die_seconds
        b[DIE, :] = STEP / die_capacity
        a[BOARD, DIE] += STEP / (board_capacity * self.die_resistance)
        a[BOARD, BOARD] -= STEP / (board_capacity * self.die_resistance) + STEP / self.board_seconds
        c[BOARD] = STEP / self.board_seconds
        kept = float(np.exp(-STEP / self.hotspot_seconds))
        for part in (NPU, GPU, CPU):
            a[HOT + part, HOT + part] = kept
            b[HOT + part, part] = (1 - kept) * self.hotspots[part]
        return a, b, c


class Plant:
    """Machines in simulated time.

    Args:
        builds: One a machine.
        ambient: Of the air around them, degrees; the same for all, or one a machine.
        seed: Of the sensors' noise.

    Attributes:
        ambient: May be changed at any time.
        clock: Of the NPUs as set, MHz; the kernel's cap may hold it lower. May be changed at any time.
        background: Watts of whatever else runs on the GPU and the CPU, shape (2, machines). May be changed.
        items: That were answered, so far.
        seconds: That have passed.
    """

    def __init__(self, builds: Sequence[Build], ambient: float | Floats = 25.0, seed: int = 0) -> None:
        self.builds = list(builds)
        count = len(builds)
        self.ambient: Floats = np.full(count, ambient) if np.isscalar(ambient) else np.array(ambient, float)
        self.clock = self._column("clocks", -1)
        self.background: Floats = np.zeros((2, count))
        self.items = np.zeros(count)
        self.seconds = 0.0
        self._random = np.random.default_rng(seed)
        self._highest = self.clock.copy()
        self._capped: NDArray[np.bool_] = np.zeros(count, bool)
        self._squeeze = np.ones(count)
        self._clocked: Floats = np.zeros(0)
        self._power: Floats = np.ones(count)
        self._constants()
        self._state: Floats = np.zeros((count, _STATES))
        self._seen: Floats = np.zeros((4, count))
        self.settle()

    def settle(self) -> None:
        """Let every machine have been at rest for hours, with its background."""
        watts = self._watts(np.zeros((3, len(self.builds))))
        a, b, c = self._matrices
        rest = np.einsum("mij,mj->mi", b, watts.T) + c * self.ambient[:, None]
        self._state = np.linalg.solve(np.eye(_STATES)[None] - a, rest[..., None])[..., 0]
        self._seen = self.temperatures.copy()

    def rebuild(self, machine: int, build: Build) -> None:
        """Change a machine's constants where it stands: a fan stops, a lid is closed."""
        self.builds[machine] = build
        self._constants()

    @property
    def state(self) -> Floats:
        """Of the model: board, die, and the three hotspots above the die; shape (machines, 5)."""
        return np.array(self._state)

    @property
    def temperatures(self) -> Floats:
        """Of the NPU, the GPU, the CPU and the die between them, as they are; shape (4, machines)."""
        die = self._state[:, DIE]
        all_parts: Floats = np.vstack([die + self._state[:, HOT + part] for part in (NPU, GPU, CPU)] + [die])
        return all_parts

    @property
    def readings(self) -> Floats:
        """What the sensors tell, in whole steps; shape (4, machines). The NPU's is the die's where it has none."""
        noisy = self._seen + self._noise * self._random.standard_normal(self._seen.shape)
        told: Floats = np.floor(noisy / self._step) * self._step
        return told

    @property
    def capped(self) -> NDArray[np.bool_]:
        """The kernel holds the NPU's clock down."""
        return np.array(self._capped)

    def cpu_load(self, duty: Floats) -> Floats:
        """How busy the CPUs are, as shares of all their cores: by watts, which is what counts here; shape (machines,).

        Args:
            duty: As for `advance`.
        """
        full = self._work_watts[CPU]
        host = self._host_watts * np.minimum(1.0, duty[NPU] + duty[GPU])
        load: Floats = np.clip(duty[CPU] + (self.background[1] + host) / full, 0.0, 1.0)
        return load

    @property
    def speeds(self) -> Floats:
        """Of the NPUs, the GPUs and the CPUs now, as shares of their full speed; shape (3, machines)."""
        return self._speeds(self._clock_now())

    def advance(self, duty: Floats, seconds: float) -> None:
        """Let time pass.

        Args:
            duty: The share of the time in which the NPU, the GPU and the CPU are at work on items, shape (3, machines).
            seconds: A multiple of `STEP`.
        """
        a, b, c = self._matrices
        for _ in range(round(seconds / STEP)):
            self._kernel()
            clock = self._clock_now()
            watts = self._watts(duty, clock)
            self._state = (
                np.einsum("mij,mj->mi", a, self._state)
                + np.einsum("mij,mj->mi", b, watts.T)
                + c * self.ambient[:, None]
            )
            self.items += STEP * (self._rates * duty * self._speeds(clock)).sum(axis=0)
            seen = self.temperatures
            seen[NPU] = np.where(self._npu_sensor, seen[NPU], seen[SOC])
            self._seen += (seen - self._seen) * (1 - np.exp(-STEP / self._lag))
            self.seconds += STEP

    def _kernel(self) -> None:
        """What the kernel does by itself, by its own sensors."""
        npu, soc = self._seen[NPU], self._seen[SOC]
        self._capped = np.where(self._capped, npu >= self._cap_at - self._cap_hysteresis, npu >= self._cap_at)
        hot = soc >= self._fights_at
        self._squeeze = np.clip(self._squeeze + np.where(hot, -0.05, 0.02) * STEP, 0.3, 1.0)

    def _clock_now(self) -> Floats:
        return np.where(self._capped, np.minimum(self.clock, self._cap_clock), self.clock)

    def _speeds(self, clock: Floats) -> Floats:
        squeezed = self._squeeze
        return np.vstack([clock / self._highest, squeezed, squeezed])

    def _watts(self, duty: Floats, clock: Floats | None = None) -> Floats:
        """By part, shape (3, machines)."""
        clock = self.clock if clock is None else clock
        if not np.array_equal(clock, self._clocked):
            self._clocked = clock.copy()
            self._power = np.array([build.power_at(mhz) for build, mhz in zip(self.builds, clock, strict=True)])
        watts = self._work_watts * duty
        watts[NPU] *= self._power
        watts[GPU] = (watts[GPU] + self.background[0]) * self._squeeze
        host = self._host_watts * np.minimum(1.0, duty[NPU] + duty[GPU])
        watts[CPU] = (watts[CPU] + self.background[1]) * self._squeeze + self._idle_watts + host
        return watts

    def _constants(self) -> None:
        each = [build.step_matrices for build in self.builds]
        self._matrices = tuple(np.stack([matrices[place] for matrices in each]) for place in range(3))
        self._work_watts = np.vstack([self._column(name) for name in ("npu_watts", "gpu_watts", "cpu_watts")])
        self._rates = np.vstack([self._column(name) for name in ("npu_rate", "gpu_rate", "cpu_rate")])
        self._idle_watts, self._host_watts = self._column("idle_watts"), self._column("host_watts")
        self._step, self._noise = self._column("sensor_step"), self._column("sensor_noise")
        self._lag, self._npu_sensor = self._column("sensor_seconds"), self._column("npu_sensor") > 0
        self._cap_at, self._cap_hysteresis = self._column("cap_at"), self._column("cap_hysteresis")
        self._cap_clock, self._fights_at = self._column("cap_clock"), self._column("fights_at")

    def _column(self, name: str, place: int | None = None) -> Floats:
        values = [getattr(build, name) for build in self.builds]
        return np.array([value if place is None else value[place] for value in values], float)
