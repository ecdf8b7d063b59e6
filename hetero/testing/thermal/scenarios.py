"""Half hours of modelled machines: what the air, the fan and other work do, and how much work is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from hetero.testing.thermal import builds
from hetero.testing.thermal.plant import Build, Floats
from hetero.thermal.limits import LIMITS, Limits

SECONDS = 1800


@dataclass(frozen=True)
class Scenario:
    """What happens to one machine, second by second.

    Attributes:
        name: In a few words.
        build: Of the machine as it starts.
        ambient: Degrees of the air, one a second.
        gpu: Watts of other work on the GPU, one a second.
        cpu: The same for the CPU.
        demand: Work that is asked for, as a share of one device's whole time, one a second.
        changes: Another build from a second on: a fan that stops.
        limits: Of the NPU.
    """

    name: str
    build: Build
    ambient: Floats
    gpu: Floats
    cpu: Floats
    demand: Floats
    changes: Mapping[int, Build] = field(default_factory=dict)
    limits: Limits = LIMITS["npu"]

    @property
    def seconds(self) -> int:
        """How long it is."""
        return len(self.ambient)

    def build_at(self, second: int) -> Build:
        """The machine's constants at a second."""
        begun = [start for start in self.changes if start <= second]
        return self.changes[max(begun)] if begun else self.build


def scenario(
    name: str,
    build: Build,
    ambient: float | Floats,
    *,
    gpu: float | Floats = 0.0,
    cpu: float | Floats = 0.0,
    demand: float | Floats = 1.0,
    changes: Mapping[int, Build] | None = None,
    limits: Limits = LIMITS["npu"],
    seconds: int = SECONDS,
) -> Scenario:
    """A scenario of numbers, each constant or one a second."""

    def each(value: float | Floats) -> Floats:
        return np.array(np.broadcast_to(np.asarray(value, float), seconds))

    return Scenario(name, build, each(ambient), each(gpu), each(cpu), each(demand), changes or {}, limits)


def spells(seconds: int, length: int, pause: int, first: int = 0) -> Floats:
    """1 for `length` seconds, 0 for `pause` seconds, and again, from `first` on."""
    t = np.arange(seconds) - first
    return ((t >= 0) & (t % (length + pause) < length)).astype(float)


def named(seconds: int = SECONDS) -> list[Scenario]:
    """The scenarios of the benchmark."""
    t = np.arange(seconds)
    compile_spells = 2.0 * spells(seconds, 120, 240, first=200)
    laptop = LIMITS["cpu"]
    return [
        scenario("heatsink, cool room: never hot", builds.RK3588, 25.0, seconds=seconds),
        scenario("heatsink, 48 C around it", builds.RK3588, 48.0, seconds=seconds),
        scenario("sealed box, 35 C", builds.RK3588_SEALED, 35.0, seconds=seconds),
        scenario("bare board, 25 C", builds.RK3588_BARE, 25.0, seconds=seconds),
        scenario("sealed box, sun rises: 28 to 45 C", builds.RK3588_SEALED, 28.0 + 17.0 * t / seconds, seconds=seconds),
        scenario(
            "heatsink, its fan stops at 10 min",
            builds.RK3588.with_(board_resistance=4.0),
            42.0,
            changes={600: builds.RK3588.with_(board_resistance=9.0)},
            seconds=seconds,
        ),
        scenario(
            "heatsink, 40 C, compiles of 2 W now and then", builds.RK3588, 40.0, cpu=compile_spells, seconds=seconds
        ),
        scenario(
            "sealed box, 35 C, a GPU that does more with a joule",
            builds.RK3588_SEALED.with_(gpu_rate=85.0),
            35.0,
            seconds=seconds,
        ),
        scenario(
            "sealed box, 35 C, a GPU that does less with a joule",
            builds.RK3588_SEALED.with_(gpu_rate=30.0),
            35.0,
            seconds=seconds,
        ),
        scenario(
            "bare board, 35 C, bursts of 40 s in 90",
            builds.RK3588_BARE,
            35.0,
            demand=spells(seconds, 40, 50),
            seconds=seconds,
        ),
        scenario("RK3576, 45 C", builds.RK3576, 45.0, seconds=seconds),
        scenario("RK3568, bare, 38 C, no sensor in the NPU", builds.RK3568, 38.0, seconds=seconds),
        scenario(
            "laptop, others heat it, the NPU does not",
            builds.PHOENIX,
            30.0,
            cpu=16.0 + 1.5 * np.sin(2 * np.pi * t / 300),
            limits=laptop,
            seconds=seconds,
        ),
    ]


def drawn(count: int, seed: int = 1, seconds: int = SECONDS) -> list[Scenario]:
    """Scenarios by chance: machines like the RK3588 boards, none with the same constants, all too hot for full work.

    Half of them have other work on the CPU, of 0.2 to 1 W, which comes and goes without notice; the air warms and cools
    by up to 3 C; a third has noisy sensors.
    """
    rng = np.random.default_rng(seed)
    return [_draw(rng, number, seconds) for number in range(count)]


def _draw(rng: np.random.Generator, number: int, seconds: int) -> Scenario:
    kind = (builds.RK3588, builds.RK3588_SEALED, builds.RK3588_BARE)[int(rng.integers(3))]
    build = kind.with_(
        die_resistance=rng.uniform(1.2, 2.5),
        board_resistance=kind.board_resistance * rng.uniform(0.85, 1.15),
        die_seconds=rng.uniform(3, 10),
        board_seconds=rng.uniform(60, 260),
        npu_watts=rng.uniform(2.5, 3.6),
        host_watts=rng.uniform(0.3, 0.8),
        idle_watts=rng.uniform(1.2, 2.2),
        sensor_seconds=rng.uniform(0.5, 2.0),
        sensor_noise=rng.choice([0.0, 0.05, 0.25]),
    )
    resistance = build.die_resistance + build.board_resistance
    own = resistance * (build.npu_watts + build.host_watts) + build.hotspots[0] * build.npu_watts
    # The air is such that between 45 and 95 % of the NPU can work for ever, within what rooms and boxes have.
    ambient = np.clip(85.0 - resistance * build.idle_watts - rng.uniform(0.45, 0.95) * own, 15.0, 50.0)
    t = np.arange(seconds)
    air = ambient + rng.uniform(0, 3) * np.sin(2 * np.pi * (t / rng.uniform(900, 3600) + rng.uniform()))
    cpu = np.zeros(seconds)
    if number % 2:
        start = int(rng.exponential(120))
        while start < seconds:
            length = 10 + int(rng.exponential(90))
            cpu[start : start + length] = rng.uniform(0.2, 1.0)
            start += length + 10 + int(rng.exponential(150))
    return scenario(f"drawn {number}", build, air, cpu=cpu, seconds=seconds)
