"""Power modes: set for as long as a Runtime lives, and put back when it ends, also after a crash.

Who wants a mode is written to a file in the cache folder before it is set: the mode before, and each process that
holds the device in another one. The last of them puts the mode of before back; of those that crashed, the next Runtime
does. Nothing here stops inference: what a device refuses is told in the log and in `Runtime.power`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hetero.backend import Backend, Device, Host, PowerControl
from hetero.errors import HeteroError, OptionError, Unavailable
from hetero.scheduler.reasons import reason_of

if TYPE_CHECKING:
    from hetero.thermal.governor import Governor

_log = logging.getLogger(__name__)

MODES = ("default", "powersaver", "balanced", "performance", "turbo")
"""Common names of modes; a device has some of them."""

PROFILES = {"continuous_audio": "balanced", "burst": "performance", "battery": "powersaver"}
"""What a machine is used for, and the mode that fits: steady work, a short peak, as little energy as can be."""


OF_PROFILE = "profile"
"""What `Runtime(power=)` takes for the mode of its thermal profile."""


@dataclass(frozen=True)
class PowerState:
    """The power mode of one device.

    Attributes:
        device: Its name.
        mode: Now; None when that cannot be told.
        modes: Those that can be asked for, and what each means.
        wanted: What this Runtime asked for; empty for nothing.
        problem: Why the mode cannot be told, or was refused; empty when all is well.
        fix: What the user can do about it.
    """

    device: str
    mode: str | None
    modes: Mapping[str, str]
    wanted: str = ""
    problem: str = ""
    fix: str = ""


def mode_of(name: str) -> str:
    """The mode that a mode's or a profile's name means.

    Raises:
        OptionError: It is neither.
    """
    mode = PROFILES.get(name, name)
    if mode not in MODES:
        raise OptionError(
            f"power is {name!r}, expected a mode or a profile",
            fix=f"modes: {', '.join(MODES)}; profiles: {', '.join(PROFILES)}",
        )
    return mode


class PowerModes:
    """The power modes of a machine's devices.

    Args:
        host: Where the guards lie: in its cache folder.
        devices: Each behind its backend.
    """

    def __init__(self, host: Host, devices: Sequence[tuple[Backend, Device]]) -> None:
        self._folder = host.cache / "power"
        self._controls: dict[str, PowerControl] = {}
        self._refused: dict[str, tuple[str, HeteroError]] = {}
        self._held: dict[str, str] = {}
        # One process may have several Runtimes.
        self._me = {"pid": os.getpid(), "started": _started(os.getpid()), "token": uuid.uuid4().hex}
        for backend, device in devices:
            control = backend.power(device)
            if control is not None:
                self._controls[device.name] = control
        self._recover()

    @property
    def devices(self) -> tuple[str, ...]:
        """Names of the devices that have power modes."""
        return tuple(self._controls)

    def states(self) -> list[PowerState]:
        """The mode of each device that has some, asked now."""
        return [self._state(name, control) for name, control in self._controls.items()]

    def hold(self, name: str) -> None:
        """Set a mode, or the one of a profile, on every device that has it, until `restore`.

        Raises:
            OptionError: No such mode or profile.
        """
        mode = mode_of(name)
        if not self._controls:
            _log.warning("power=%r: no device here has power modes", name)
        for device, control in self._controls.items():
            try:
                self._supported(device, control, mode)
                with self._guard(device) as guard:
                    before = control.read()
                    guard.setdefault("before", before)
                    guard["holders"] = [*_living(guard), self._me]
                    self._write(device, guard)
                    if before != mode:
                        control.set(mode)
                self._held[device] = mode
                _log.info("%s: power mode %s (was %s)", device, mode, before)
            except (HeteroError, OSError) as error:
                self._release(device)
                refusal = error if isinstance(error, HeteroError) else Unavailable(f"no guard file: {error}")
                self._refused[device] = (mode, refusal)
                _log.warning("%s stays in its power mode, %s was refused: %s", device, mode, reason_of(error))

    def follow(self, governor: Governor | None, do: Callable[[Callable[[], object]], None]) -> None:
        """Hold the mode of the thermal profile in force, and the next one's when the supply makes that another.

        Args:
            governor: Knows the profile; None where heat is not looked at.
            do: Has something done in another thread: a vendor's tool may take seconds, for which the governor, who
                looks at the sensors, must not wait.

        Raises:
            OptionError: There is no governor.
        """
        if governor is None:
            raise OptionError(
                "power='profile' is the power mode of a thermal profile, and thermal is off",
                fix="name a mode or a profile in power=, or switch thermal on",
            )
        self.hold(governor.profile.power_mode)
        governor.changed = lambda profile: do(lambda: self.hold(profile.power_mode))

    def set(self, device: str, name: str) -> None:
        """Set a mode for good. Where others hold the device in a mode of theirs, it is what they put back.

        Raises:
            OptionError: No such mode or profile, or none that the device has.
            Unavailable: It cannot be set here: no tool, no permission.
            ExecutionError: The device refused.
        """
        mode = mode_of(name)
        control = self._controls[device]
        self._supported(device, control, mode)
        with self._guard(device) as guard:
            control.set(mode)
            if guard:
                self._write(device, {**guard, "before": mode})

    def restore(self) -> None:
        """Put back what `hold` has changed, where nobody else holds it; what fails is logged and left to the next."""
        for device in list(self._held):
            del self._held[device]
            self._release(device)

    def _state(self, name: str, control: PowerControl) -> PowerState:
        wanted, refusal = self._refused.get(name, ("", None))
        mode = None
        try:
            mode = control.read()
        except HeteroError as error:
            refusal = refusal or error
        problem, fix = (refusal.problem, refusal.fix) if refusal is not None else ("", "")
        return PowerState(name, mode, control.modes, self._held.get(name, wanted), problem, fix)

    def _supported(self, device: str, control: PowerControl, mode: str) -> None:
        if mode not in control.modes:
            raise OptionError(
                f"{device} has no power mode {mode!r}", fix=f"choose one of {', '.join(control.modes) or 'none'}"
            )

    def _recover(self) -> None:
        """Put back what processes that have crashed have left."""
        for device in self._controls:
            if self._file(device).is_file():
                self._release(device)

    def _release(self, device: str) -> None:
        """Leave the holders; the last one puts the mode of before back."""
        if not self._file(device).is_file():
            return
        control = self._controls[device]
        try:
            with self._guard(device) as guard:
                holders = [holder for holder in _living(guard) if holder != self._me]
                if holders:
                    self._write(device, {**guard, "holders": holders})
                    return
                before = guard.get("before")
                if isinstance(before, str) and before in control.modes and control.read() != before:
                    control.set(before)
                    _log.info("%s: power mode %s again", device, before)
                self._file(device).unlink(missing_ok=True)
        except (HeteroError, OSError) as error:
            _log.warning("%s: the power mode of before was not put back: %s", device, reason_of(error))

    @contextlib.contextmanager
    def _guard(self, device: str) -> Iterator[dict[str, Any]]:
        """What is written about a device, for one process at a time."""
        import fcntl  # not on every system

        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / f"{_safe(device)}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                found = json.loads(self._file(device).read_text(encoding="utf-8"))
            except (OSError, ValueError):
                found = {}
            yield found if isinstance(found, dict) else {}

    def _write(self, device: str, guard: Mapping[str, Any]) -> None:
        file = self._file(device)
        fresh = file.with_suffix(".new")
        fresh.write_text(json.dumps(guard), encoding="utf-8")
        fresh.replace(file)

    def _file(self, device: str) -> Path:
        return self._folder / f"{_safe(device)}.json"


def _safe(device: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", device)


def _living(guard: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The processes of a guard that still run; a number that was given to another process since is not one."""
    holders = guard.get("holders", [])
    return [
        holder
        for holder in (holders if isinstance(holders, list) else [])
        if isinstance(holder, dict) and holder.get("started") and _started(holder.get("pid")) == holder["started"]
    ]


def _started(pid: Any) -> str:
    """When a process began, in the kernel's ticks; empty when there is none."""
    try:
        # Behind the name, which may hold anything, come the fields from the third on; this is the twenty-second.
        return Path(f"/proc/{int(pid)}/stat").read_text(errors="replace").rpartition(")")[2].split()[19]
    except (OSError, ValueError, TypeError, IndexError):
        return ""
