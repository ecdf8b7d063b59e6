"""The governor: samples the machine's sensors, and says of each device how much it may work, and why.

It is asked on the way of a request (`admits`, `pace`, `decide`), which costs a look into a dictionary as long as
nothing is hot, and it is told when calls begin and end. `tick` is called once a second, by a `Sampler` or by whoever
has a clock.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hetero.backend import Device, Host, Kind
from hetero.errors import OptionError, Unavailable
from hetero.thermal.admission import Admission
from hetero.thermal.control import Control
from hetero.thermal.cpu import CpuLoad
from hetero.thermal.drift import Drift
from hetero.thermal.ladder import Ladder, restore
from hetero.thermal.limits import Limits
from hetero.thermal.npu import npu_load
from hetero.thermal.power import Power, Source, read_power
from hetero.thermal.profiles import PROFILES, Profile, profile_named
from hetero.thermal.samples import Event, Sample
from hetero.thermal.sensors import Part, Sensor
from hetero.thermal.sharing import among_others
from hetero.thermal.steering import Decision, OnHot, Worth, check_on_hot, elsewhere
from hetero.thermal.thermometers import Thermometers

_KINDS: tuple[Kind, ...] = ("npu", "gpu", "cpu")

SILENT = 5.0
"""Seconds without a sample after which nothing is believed to be cool any more."""

_ASK_POWER = 5.0


class _Watched:
    """A device as the governor sees it."""

    def __init__(self, device: Device, limits: Limits, law: str, admission: Admission) -> None:
        self.device = device
        self.limits = limits
        self.control = Control(limits, law)
        self.admission = admission
        self.used: float | None = None
        self.closed = False

    def grant(self, duty: float) -> None:
        """What it may do, as far as this governor is concerned, until that is closed."""
        self.admission.grant(duty, self)
        if self.closed:  # by a tick that has hung in a sensor's driver
            self.admission.withdraw(self)

    def close(self) -> None:
        """What was granted here counts no more."""
        self.closed = True
        self.admission.withdraw(self)


class Governor:
    """Keeps devices from getting too hot. Usable from any thread.

    Args:
        host: The machine to look at.
        devices: Those to look after; simulated ones have no temperature and are let be.
        profile: What kind of work there will be; see `profiles`.
        limits: Thresholds that differ from the profile's, by a device's name or its kind:
            `{"npu": {"maximum": 80}}`.
        on_hot: `pace`, `steer` or `auto`; the profile's when not given.
        law: `budget`, or `tokens`, which is simpler.
        frequency: Also lower the NPU's clock, which root alone may.
        follow_power: On battery the profile `default` becomes `battery`, until the mains are back.
        clock: Seconds, for tests.
        admission: Gives the admissions of a device, which others may grant a duty too; each its own, when not given.

    Attributes:
        events: The last changes of state, oldest first; of the machine's supply too, under the name `power`.
        ticked: Called after each tick, outside of any lock.
        changed: Called with the profile when the supply has made it another one; must be short.
        on_hot: What is done with work for a hot device.
        profile: The one in force.
        frequency: The NPU's ladder; None when it is not asked for.

    Raises:
        OptionError: A name or number that cannot be.
        Unavailable: `frequency` was asked for and is not to be had.
    """

    def __init__(
        self,
        host: Host,
        devices: Sequence[Device],
        *,
        profile: str | Profile = "default",
        limits: Mapping[str, Mapping[str, float]] | None = None,
        on_hot: str | None = None,
        law: str = "budget",
        frequency: bool = False,
        follow_power: bool = False,
        clock: Callable[[], float] = time.monotonic,
        admission: Callable[[Device], Admission] | None = None,
    ) -> None:
        self._host = host
        self._clock = clock
        self.profile = profile_named(profile) if isinstance(profile, str) else profile
        self._asked = self.profile
        self._on_hot = on_hot
        self._follows = follow_power and self.profile.name == "default"
        self._source: Source = "unknown"
        self._asked_power: float | None = None
        self.on_hot: OnHot = check_on_hot(on_hot or self.profile.on_hot)
        self.ticked: Callable[[], None] = lambda: None
        self.changed: Callable[[Profile], None] = lambda profile: None
        self.events: deque[Event] = deque(maxlen=200)
        self._set = dict(limits or {})
        known = {name for device in devices for name in (device.name, device.kind)} | set(_KINDS)
        for name in self._set:
            if name not in known:
                raise OptionError(
                    f"thermal limits for {name!r}, which is no device here", fix=f"known: {', '.join(sorted(known))}"
                )
        for kind in _KINDS:
            # Also those of which there is no device: a name that is wrong is told at once.
            self.profile.limits_of(kind).with_(self._set.get(kind, {}))
        admission = admission or (lambda device: Admission(device.lanes, clock))
        self._watched = {
            device.name: _Watched(device, self._limits(device), law, admission(device)) for device in devices
        }
        self._thermometers = Thermometers(host.sysroot, devices)
        self._cpu = CpuLoad(host.sysroot)
        self._ticked: float | None = None
        self._lock = threading.Lock()
        restore(host.sysroot, host.cache)
        self.frequency = Ladder(host.sysroot, host.cache) if frequency else None
        self._samples: dict[str, Sample] = {}

    # On the way of a request

    def admits(self, device: str, *, urgent: bool = False) -> bool:
        """Whether a call may begin on a device now.

        Args:
            device: By name; one that is not watched is always free.
            urgent: A deadline presses: it may begin though the device is paced, but never though it is stopped.
        """
        watched = self._watched.get(device)
        if watched is None or watched.admission.duty >= 1.0:
            return True
        return watched.admission.duty > 0 if urgent else watched.admission.admits()

    def headroom(self, device: str) -> float:
        """How much of a device may work, 0 to 1; 1 for one that is not watched."""
        watched = self._watched.get(device)
        return 1.0 if watched is None else watched.admission.duty

    def pace(self, device: str) -> Admission:
        """When the next call may begin on a device: a `hetero.backend.Pace` that is told of ends too (`ended`).

        Raises:
            OptionError: The device is not watched.
        """
        return self._of(device).admission

    def began(self, device: str) -> None:
        """A call begins on a device."""
        watched = self._watched.get(device)
        if watched is not None:
            watched.admission.began()

    def ended(self, device: str, seconds: float, usual: float | None = None) -> None:
        """A call has ended on a device.

        Args:
            device: By name.
            seconds: That it took on its lane.
            usual: What calls of its shapes have taken there, for devices whose heat can only be guessed from that.
        """
        watched = self._watched.get(device)
        if watched is not None:
            watched.admission.ended(seconds)
            watched.control.drift.ran(seconds / usual if usual else seconds)

    def decide(
        self, device: str, others: Sequence[Worth] = (), *, joules: float | None = None, measured: bool = False,
        urgent: bool = False,
    ) -> Decision:  # fmt: skip
        """What is to be done with a request for a device.

        Args:
            device: By name.
            others: Devices that could take it instead, first choice first. Their duty is filled in here.
            joules: That an item takes on the device; None when that is unknown.
            measured: By a meter, not declared.
            urgent: A deadline presses; overrides pacing, never a stop.
        """
        watched = self._watched.get(device)
        if watched is None or watched.admission.duty >= 1.0:
            return Decision(device, "run")
        admission, why = watched.admission, self.why(device)
        stopped = admission.duty <= 0
        if not stopped and admission.admits():
            return Decision(device, "run", why)
        if urgent and not stopped:
            return Decision(device, "run", f"a deadline presses, so it is not held back; {why}")
        open_ones = [Worth(other.device, other.joules, other.measured, self.headroom(other.device)) for other in others]
        to, reason = elsewhere(self.on_hot, Worth(device, joules, measured), open_ones, stopped=stopped)
        if to:
            return Decision(device, "steer", f"{why}; {reason}", to)
        if stopped:
            return Decision(device, "stop", f"{why}; {reason}")
        return Decision(device, "pace", f"{why}; {reason}", wait=admission.due_in())

    def speaks(self, device: str) -> bool:
        """Whether a sensor speaks for a device, as far as has been looked."""
        return bool(self._thermometers.considered(self._of(device).device))

    def guesses(self, device: str) -> Drift | None:
        """What guesses at a device's heat from its calls; None where its sensor has told something."""
        control = self._of(device).control
        return None if control.seen else control.drift

    # Once a second

    def tick(self) -> dict[str, Sample]:
        """Read the sensors and decide anew. Never raises for what a machine does.

        Returns:
            By device.
        """
        with self._lock:
            now = self._clock()
            self._follow_power(now)
            passed = 1.0 if self._ticked is None else max(0.0, now - self._ticked)
            self._ticked = now
            load = npu_load(self._host.sysroot).share
            for watched in self._watched.values():
                # Other processes heat the NPU too, and the kernel sees them.
                kernel = load if watched.device.kind == "npu" and not watched.device.simulated else None
                told = watched.admission.used(watched)
                watched.used = None if kernel is None and not watched.admission.told else max(told, kernel or 0.0)
            self._thermometers.sample(now, self._loads())
            coming = self._cpu.look()
            if coming is not None:
                for watched in self._watched.values():
                    watched.control.law.expect(coming)
            for name, watched in self._watched.items():
                self._samples[name] = self._step(now, passed, watched)
            samples = dict(self._samples)
        self.ticked()
        return samples

    def look(self) -> None:
        """Find the sensors that there are, without reading them: what `speaks` goes by before the first tick."""
        with self._lock:
            self._thermometers.look(self._clock())

    def check_alive(self) -> bool:
        """Where nothing was sampled for some seconds (a driver may hang), warm devices are given no more than half.

        Takes no lock, since a tick that hangs holds it. Cheap; for whoever has a timer.

        Returns:
            Whether samples come in.
        """
        ticked = self._ticked
        if ticked is None or self._clock() - ticked <= SILENT:
            return True
        for watched in self._watched.values():
            watched.grant(min(watched.admission.duty, watched.control.blind_duty))
        return False

    def close(self) -> None:
        """Set back what was changed; what it has granted counts no more."""
        for watched in self._watched.values():
            watched.close()
        if self.frequency is not None:
            self.frequency.close()

    # For people

    def why(self, device: str) -> str:
        """Why a device may do what it may, with its temperature."""
        watched = self._of(device)
        sample, grant = self._samples.get(device), watched.control.grant
        why = grant.why if sample is None else f"{sample.reading}; {grant.why}"
        return why + among_others(watched.admission, watched)

    @property
    def samples(self) -> Mapping[str, Sample]:
        """What the last tick saw and decided, by device."""
        return dict(self._samples)

    @property
    def sensors(self) -> tuple[Sensor, ...]:
        """All that were found."""
        return tuple(self._thermometers.sensors)

    @property
    def power(self) -> Power:
        """How the machine is fed, as it is now."""
        return read_power(self._host.sysroot)

    def limits(self, device: str) -> Limits:
        """The thresholds that hold for a device now."""
        return self._of(device).control.limits

    def tokens(self, device: str) -> float:
        """Lane-seconds that a device may spend now."""
        return self._of(device).admission.tokens

    def voices(self, device: str) -> list[tuple[Sensor, str]]:
        """The sensors that could speak for a device, the best first, and what is to be said of each."""
        return self._thermometers.considered(self._of(device).device)

    def to_dict(self) -> dict[str, Any]:
        """All of the last tick as JSON-ready values."""
        return {
            "profile": self.profile.name,
            "on_hot": self.on_hot,
            "devices": {
                name: {
                    "celsius": sample.reading.celsius,
                    "age": sample.reading.age if sample.reading.known else None,
                    "direct": sample.reading.direct,
                    "source": sample.reading.source,
                    "reason": sample.reading.reason,
                    "state": sample.grant.state,
                    "duty": sample.grant.duty,
                    "why": sample.grant.why,
                    "used": sample.used,
                    "tokens": self.tokens(name),
                }
                for name, sample in self._samples.items()
            },
        }

    def _of(self, device: str) -> _Watched:
        if device not in self._watched:
            raise OptionError(
                f"the device {device!r} is not watched", fix=f"watched: {', '.join(self._watched) or 'none'}"
            )
        return self._watched[device]

    def _limits(self, device: Device) -> Limits:
        limits = self.profile.limits_of(device.kind)
        for name in (device.kind, device.name):
            if name in self._set:
                limits = limits.with_(self._set[name])
        return limits

    def _follow_power(self, now: float) -> None:
        """Another supply, another profile: where nobody has chosen one."""
        if not self._follows or (self._asked_power is not None and 0 <= now - self._asked_power < _ASK_POWER):
            return
        self._asked_power = now
        before, source = self._source, self.power.source
        if source == before:
            return
        self._source = source
        profile = PROFILES["battery"] if source == "battery" else self._asked
        if profile is self.profile:
            return
        self.profile, self.on_hot = profile, check_on_hot(self._on_hot or profile.on_hot)
        for watched in self._watched.values():
            watched.limits = self._limits(watched.device)
        reason = f"the profile is {profile.name} now, since nobody has chosen one"
        self.events.append(Event(now, "power", before, source, reason))
        self.changed(profile)

    def _loads(self) -> dict[Part, float]:
        watched = self._watched.values()
        return {kind: max((e.used or 0.0 for e in watched if e.device.kind == kind), default=0.0) for kind in _KINDS}

    def _step(self, now: float, passed: float, watched: _Watched) -> Sample:
        reading, sensor = self._thermometers.reading(watched.device)
        limits = watched.limits
        resolution = 0.0
        if sensor is not None:
            resolution = self._thermometers.resolution(sensor)
            device = watched.device
            if sensor.whole and device.kind != "cpu" and not {device.kind, device.name} & set(self._set):
                # The package's own temperature: it may be as hot as a CPU may be, where nobody has said otherwise.
                limits = max(limits, self._limits(Device("cpu", "cpu")), key=lambda each: each.maximum)
            critical = min((trip.celsius for trip in sensor.trips if trip.kind == "critical"), default=None)
            if critical is not None:
                limits = limits.below(critical)
            # The package's own sensor tells of its hottest place, which is no cooler than the device.
            watched.control.speak(limits, reading.direct or sensor.whole)
        before = watched.control.grant.state
        # Where nobody tells what it does, it is taken to do all that it may: its heat is taken for its own.
        used = watched.admission.duty if watched.used is None else watched.used
        ladder = self.frequency if watched.device.kind == "npu" else None
        grant = watched.control.step(reading, used * (ladder.share if ladder else 1.0), passed, resolution)
        watched.grant(self._climb(now, watched, ladder, grant.duty) if ladder else grant.duty)
        if grant.state != before:
            self.events.append(Event(now, watched.device.name, before, grant.state, f"{reading}; {grant.why}"))
        return Sample(watched.device.name, reading, grant, watched.used, resolution)

    def _climb(self, now: float, watched: _Watched, ladder: Ladder, duty: float) -> float:
        """What is granted is made of a lower clock first."""
        try:
            ladder.climb(duty, now)
        except Unavailable as error:
            state = watched.control.grant.state
            self.events.append(Event(now, watched.device.name, state, state, error.problem))
        return min(1.0, duty / ladder.share)
