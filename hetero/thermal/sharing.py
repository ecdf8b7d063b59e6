"""What is of a device and not of a Runtime: its admissions, shared by all governors of a process that watch it.

Each Runtime has a governor with settings of its own, which grants each device a duty. The device may do the least of
what they grant, and there is one account of lane-seconds for it, out of which the calls of all are paid. So several
Runtimes together do no more than one would. An account is there for as long as anybody has it.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Hashable

from hetero.backend import Device, Host
from hetero.thermal.admission import Admission


class _Accounts:
    """The admissions of this process's devices."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: weakref.WeakValueDictionary[Hashable, Admission] = weakref.WeakValueDictionary()

    def admission(self, host: Host, clock: Callable[[], float], device: Device) -> Admission:
        key = (os.path.realpath(host.sysroot), host.simulate, _identity(clock), device.simulated, device.name)
        with self._lock:
            admission = self._kept.get(key)
            if admission is None:
                admission = self._kept[key] = Admission(device.lanes, clock)
            return admission


_accounts = _Accounts()


def shared_admission(host: Host, clock: Callable[[], float], device: Device) -> Admission:
    """The admissions of a device: the same for all who ask for the same machine, clock and device.

    Args:
        host: The machine: its root of `/sys`, and what it imitates. Two modelled machines are two.
        clock: Seconds. What goes by another clock is another machine.
        device: By its name. Whoever asks first says how many lanes it has.
    """
    return _accounts.admission(host, clock, device)


def among_others(admission: Admission, mine: object) -> str:
    """What is to be said of others that grant a device a duty too, after a reason; empty where there are none.

    Args:
        admission: The device's.
        mine: Who says it.
    """
    grants = admission.grants
    own = grants.pop(mine, 1.0)
    if not grants:
        return ""
    told = f"; shared with {len(grants)} more Runtime{'s' if len(grants) > 1 else ''} of this process"
    least = min(grants.values())
    return f"{told}, of which one grants {least:.0%}" if least < own else told


def _identity(clock: Callable[[], float]) -> Hashable:
    """Of a clock: each access to a method makes another object of it. The admission keeps the clock alive."""
    owner = getattr(clock, "__self__", None)
    return id(clock) if owner is None else (id(owner), getattr(clock, "__name__", ""))


def _begin_anew() -> None:
    """In the child of a fork: the calls that are under way are the parent's, and a lock may be held for ever."""
    global _accounts
    _accounts = _Accounts()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
