"""Ways to deal with heat, as a Runtime can have them: the rules that ours is compared with, and ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from hetero.backend import Device, Pace
from hetero.scheduler.policy import Chain, Policy, View
from hetero.scheduler.request import Request
from hetero.testing.thermal.scenarios import Scenario
from hetero.testing.thermal.world import World
from hetero.thermal.admission import Admission
from hetero.thermal.governor import Governor
from hetero.thermal.settings import ThermalSettings
from hetero.thermal.thermometers import Thermometers

C = TypeVar("C", bound=View)

_NPU = Device("npu", "npu")


class Way:
    """Nothing is done about heat: what the kernel does is all.

    Args:
        scenario: What happens.
        world: Where.
        lanes: Of each device.

    Attributes:
        runtime: Options of the Runtime.
        policy: Of the session.
        pace: Of the NPU's executable.
    """

    def __init__(self, scenario: Scenario, world: World, lanes: int) -> None:
        self.runtime: Mapping[str, Any] = {"thermal": False}
        self.policy: str | Policy = "chain"
        self.pace: Pace | None = None

    def second(self) -> None:
        """Called once a second of the world's time."""

    def tick(self, governor: Governor) -> None:
        """Have the Runtime's governor look, after that."""
        governor.tick()


class Watching(Way):
    """A rule that goes by what the NPU's sensor says, or the nearest."""

    def __init__(self, scenario: Scenario, world: World, lanes: int) -> None:
        super().__init__(scenario, world, lanes)
        self._world = world
        self._thermometers = Thermometers(world.machine.sysroot.root, [_NPU])
        self.celsius = 0.0

    def second(self) -> None:
        """See `Way.second`."""
        self._thermometers.sample(self._world(), {})
        reading, _ = self._thermometers.reading(_NPU)
        self.celsius = self.celsius if reading.celsius is None else reading.celsius


class Threshold(Watching):
    """The rule of the project's first plan, as a policy: an NPU of 80 C or more is left for the next device."""

    name = "80 C rule"
    prefers_first = False
    helps_out = False
    uses_all = True

    def __init__(self, scenario: Scenario, world: World, lanes: int) -> None:
        super().__init__(scenario, world, lanes)
        self.policy = self
        self._warn = scenario.limits.warn
        self._chain = Chain()

    def choose(self, request: Request, options: Sequence[C], now: float) -> C | None:
        """See `hetero.scheduler.policy.Policy.choose`."""
        hot = self.celsius >= self._warn
        return self._chain.choose(request, [each for each in options if not (hot and each.name == _NPU.name)], now)


class _Grants(Admission):
    """As the governor's, in a time that stands still: what is due within a microsecond is due now."""

    def due_in(self) -> float:
        """See `Admission.due_in`."""
        seconds = super().due_in()
        return seconds if seconds > 1e-6 else 0.0


class Hysteresis(Watching):
    """Full speed up to the maximum, then a third of it until 5 C below: a pace of the NPU's executable."""

    def __init__(self, scenario: Scenario, world: World, lanes: int) -> None:
        super().__init__(scenario, world, lanes)
        self.pace = self._admission = _Grants(lanes, world)
        self._maximum = scenario.limits.maximum
        self._hot = False

    def second(self) -> None:
        """See `Way.second`."""
        super().second()
        self._hot = self.celsius >= self._maximum - (5.0 if self._hot else 0.0)
        self._admission.grant(0.3 if self._hot else 1.0)


class Governed(Way):
    """The Runtime's own governor, as everybody gets it."""

    def __init__(self, scenario: Scenario, world: World, lanes: int, **settings: Any) -> None:
        super().__init__(scenario, world, lanes)
        self.runtime = {"thermal": ThermalSettings(sampling="manual", **settings)}


WAYS: dict[str, Callable[[Scenario, World, int], Way]] = {
    "no steering": Way,
    "80 C rule": Threshold,
    "hysteresis": Hysteresis,
    "tokens": lambda scenario, world, lanes: Governed(scenario, world, lanes, law="tokens"),
    "ours": Governed,
    # Where the kernel shows no clock of the NPU (the laptop) root can do no more than others.
    "ours, root": lambda scenario, world, lanes: Governed(
        scenario, world, lanes, frequency=bool(world.machine.sysroot.layout.devfreq)
    ),
}
"""By what they are called in tables."""
