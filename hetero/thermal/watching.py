"""The governor of a Runtime: made from its settings, awake from the first loaded program on, gone with it.

Who waits for heat is told after each tick. The thread that looks at the sensors, and the timer that looks after that
thread, know nothing of the Runtime, so that one that is dropped without being closed is collected, and both end.
"""

from __future__ import annotations

import dataclasses
import functools
import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from hetero.backend import Device, Host
from hetero.thermal.governor import SILENT, Governor
from hetero.thermal.sampling import Sampler
from hetero.thermal.settings import ThermalSettings
from hetero.thermal.sharing import shared_admission


class Listener(Protocol):
    """Somebody who waits for heat."""

    def heat_changed(self) -> None:
        """The governor has looked again. Called in its thread; must be short."""


class Watch:
    """Looks after the devices of one Runtime.

    Args:
        host: The machine.
        devices: The Runtime's. Simulated ones are watched where the machine's files are a fixture's or a model's; a
            real machine's heat is not theirs.
        settings: Of the user.
        clock: Seconds; the Runtime's.
        later: Has something called at a time of that clock.

    Attributes:
        governor: What decides.
        patience: As the settings have it.

    Raises:
        OptionError: A name or number that cannot be.
        Unavailable: `frequency` was asked for and is not to be had.
    """

    def __init__(
        self,
        host: Host,
        devices: Sequence[Device],
        settings: ThermalSettings,
        clock: Callable[[], float],
        later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        modelled = host.sysroot != Path("/")
        self.governor = Governor(
            host,
            [dataclasses.replace(device, simulated=device.simulated and not modelled) for device in devices],
            profile=settings.profile,
            limits=settings.limits,
            on_hot=settings.on_hot,
            law=settings.law,
            frequency=settings.frequency,
            follow_power=settings.follow_power,
            clock=clock,
            admission=functools.partial(shared_admission, host, clock),
        )
        self.patience = settings.patience
        self._devices = {device.name: device for device in devices}
        self._modelled = modelled
        self._clock = clock
        self._later = later
        self._threaded = settings.sampling == "thread"
        self._sampler = Sampler(self.governor, clock=clock)
        self._listeners: weakref.WeakSet[Listener] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._watched: frozenset[str] | None = None
        self._armed = False
        self._closed = False
        mine = weakref.ref(self)
        self.governor.ticked = lambda: _tell(mine)
        # Without waiting for a thread that may hang in a driver, of which this may be called.
        self._finalizer = weakref.finalize(self, _end, self._sampler, self.governor)
        self._finalizer.atexit = False

    def start(self) -> frozenset[str]:
        """Begin, with the first program that is loaded; a later call does nothing.

        Returns:
            The names of the devices that are looked after: those that a sensor speaks for, and real NPUs without one,
            whose heat is guessed from how long their calls take. Where there is none, nothing is started.
        """
        with self._lock:
            if self._watched is None:
                self.governor.look()
                self._watched = frozenset(name for name, device in self._devices.items() if self._is_worth(device))
                for name in self._watched:
                    self.governor.pace(name).told = True  # an idle device is known to be idle
                if self._watched and self._threaded and not self._closed:
                    self._sampler.start()
            return self._watched

    def listen(self, listener: Listener) -> None:
        """Tell somebody after each tick, for as long as it lives."""
        with self._lock:
            self._listeners.add(listener)

    def close(self, timeout: float) -> None:
        """End the thread, and set back what was changed.

        Args:
            timeout: Seconds to wait for the thread.
        """
        self._closed = True
        self._finalizer.detach()
        self._sampler.close(timeout)

    def abandon(self) -> None:
        """In the child of a fork: the thread is not there, and what was changed is the parent's to set back."""
        self._closed = True
        self._finalizer.detach()

    def _is_worth(self, device: Device) -> bool:
        if self.governor.speaks(device.name):
            return True
        return device.kind == "npu" and not device.simulated

    def _tell(self) -> None:
        with self._lock:
            listeners = list(self._listeners)
            arm, self._armed = not self._armed and not self._closed, True
        if arm:
            self._look_after()
        for listener in listeners:
            listener.heat_changed()

    def _look_after(self) -> None:
        mine = weakref.ref(self)
        self._later(self._clock() + SILENT, lambda: _check(mine))

    def _check(self) -> None:
        if self._closed:
            return
        if self.governor.check_alive():
            self._look_after()
        else:
            # From the next tick on there is something to look after again.
            self._armed = False


def _tell(watch: weakref.ref[Watch]) -> None:
    alive = watch()
    if alive is not None:
        alive._tell()


def _check(watch: weakref.ref[Watch]) -> None:
    alive = watch()
    if alive is not None:
        alive._check()


def _end(sampler: Sampler, governor: Governor) -> None:
    sampler.stop()
    governor.close()
