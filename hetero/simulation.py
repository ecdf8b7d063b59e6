"""Machines whose heat and time are modelled: `simulate="rk3588,thermal=sealed"`. Who models them is a backend's matter.

`hetero` itself models none. A backend that imitates machines may give an object of `ThermalSimulator` by
`Backend.thermal_simulator`, as the one of the Rockchip boards does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

from hetero.backend import AnyExecutable, Backend, BackendFactory, Device, Host
from hetero.errors import OptionError

if TYPE_CHECKING:
    from hetero.runtime import Runtime


class ModelledMachine(Protocol):
    """A machine under one Runtime, whose calls take modelled time and heat it.

    Attributes:
        description: What is modelled, for people: the board, how it is cooled, the air around it.
        clock: Seconds, for all of the Runtime.
    """

    description: str
    clock: Callable[[], float]

    def host(self, host: Host) -> Host:
        """The machine to look at: as given, with the modelled one's files, and no settings in `simulate`."""

    def load(self, device: Device, program: str, load: Callable[[], AnyExecutable]) -> AnyExecutable:
        """What `load` gives, as an executable whose calls take modelled time.

        Args:
            device: That the program is loaded on.
            program: Its name.
            load: Loads it; errors as `Backend.load`.
        """

    def start(self, runtime: Runtime) -> None:
        """Let time pass for a Runtime from now on: its timers, and its governor's ticks."""

    def abandon(self) -> None:
        """In the child of a fork: stop, and leave to the parent what is its own."""

    def close(self) -> None:
        """Stop, and free everything. Called once, when the Runtime's timers and threads have ended."""


class ThermalSimulator(Protocol):
    """Models the heat and the time of some machines.

    Attributes:
        machines: Their names: `rk3588`.
    """

    machines: Sequence[str]

    def machine(self, simulate: Sequence[str]) -> ModelledMachine:
        """The machine that a user describes.

        Args:
            simulate: Names and settings: `("rk3588", "thermal=sealed", "ambient=45")`.

        Raises:
            OptionError: A setting that is not known, or does not fit.
        """


def modelled_machine(simulate: Sequence[str], factories: Iterable[BackendFactory]) -> ModelledMachine | None:
    """The machine whose heat and time are to be modelled; None where the simulated ones have no settings.

    Raises:
        OptionError: No backend models one of these machines, or it refuses a setting.
    """
    settings = [name for name in simulate if "=" in name]
    if not settings:
        return None
    # Only a class can be asked before there is a machine to make a backend for.
    classes = [factory for factory in factories if isinstance(factory, type) and issubclass(factory, Backend)]
    simulators = [simulator for backend in classes if (simulator := backend.thermal_simulator()) is not None]
    for simulator in simulators:
        if any(name in simulator.machines for name in simulate):
            return simulator.machine(simulate)
    known = [name for simulator in simulators for name in simulator.machines]
    raise OptionError(
        f"{settings[0]!r} is a setting of a simulated machine whose heat is modelled, and none such is named",
        fix=f"put one before it: --simulate {known[0]},{settings[0]}; known: {', '.join(known)}"
        if known
        else "no backend here models any: see `hetero plugins`",
    )
