"""Machines whose heat and time are modelled: a backend's simulator is found, and is under all of the Runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import hetero
from hetero.backend import AnyExecutable, Device, Host
from hetero.errors import OptionError
from tests.fakes import DOUBLE, FakeBackend


class Oven:
    """A machine whose clock goes on by a second with each look at it."""

    description = "an oven"

    def __init__(self, simulate: Sequence[str]) -> None:
        self.simulate = tuple(simulate)
        self.seconds = 0.0
        self.told: list[str] = []

    def clock(self) -> float:
        self.seconds += 1.0
        return self.seconds

    def host(self, host: Host) -> Host:
        return replace(host, simulate=tuple(name for name in host.simulate if "=" not in name))

    def load(self, device: Device, program: str, load: Callable[[], AnyExecutable]) -> AnyExecutable:
        self.told.append(f"load {program} on {device.name}")
        return load()

    def start(self, runtime: hetero.Runtime) -> None:
        self.told.append(f"start with {len(runtime.devices)} device")

    def abandon(self) -> None:
        self.told.append("abandon")

    def close(self) -> None:
        self.told.append("close")


class Ovens:
    machines: Sequence[str] = ("oven",)

    def machine(self, simulate: Sequence[str]) -> Oven:
        return Oven(simulate)


class Baker(FakeBackend):
    name = "baker"
    simulates = ("oven", "fridge")
    made: ClassVar[list[Any]] = []
    given: ClassVar[list[Mapping[str, Any]]] = []

    @classmethod
    def thermal_simulator(cls) -> Ovens:
        return Ovens()


class Cook(FakeBackend):
    """Imitates a machine, and models no heat."""

    name = "cook"
    simulates = ("fridge",)


def on(tmp_path: Path, *backends: Any, simulate: str) -> hetero.Runtime:
    host = Host(environ={}, cache=tmp_path / "cache")
    return hetero.Runtime(backends=backends, plugins=False, host=host, simulate=simulate)


def test_a_backends_modelled_machine_is_under_all_of_the_runtime(tmp_path: Path) -> None:
    with on(tmp_path, Baker, simulate="oven,thermal=hot") as rt:
        oven = rt.modelled
        assert isinstance(oven, Oven)
        assert oven.simulate == ("oven", "thermal=hot")
        assert rt.host.simulate == ("oven",)
        record = rt.load(DOUBLE).run(np.ones(2, np.float32)).record
        assert record.attempts[-1].seconds >= 1
        assert oven.told == ["start with 1 device", "load double on baker"]
    assert oven.told[-1] == "close"
    assert not (tmp_path / "cache" / "costs.json").exists()


def test_a_machine_without_settings_is_not_modelled(tmp_path: Path) -> None:
    with on(tmp_path, Baker, simulate="oven") as rt:
        assert rt.modelled is None


@pytest.mark.parametrize("simulate", ["fridge,thermal=hot", "thermal=hot"])
def test_settings_of_a_machine_that_nobody_models_are_refused_with_those_that_are(
    tmp_path: Path, simulate: str
) -> None:
    with pytest.raises(OptionError, match="--simulate oven,thermal=hot; known: oven"):
        on(tmp_path, Cook, Baker, simulate=simulate)
    with pytest.raises(OptionError, match="no backend here models any"):
        on(tmp_path, Cook, simulate=simulate)


def test_a_function_that_makes_a_backend_is_no_obstacle(tmp_path: Path) -> None:
    with on(tmp_path, lambda host: Cook(host), Baker, simulate="oven,thermal=hot") as rt:
        assert rt.modelled is not None
