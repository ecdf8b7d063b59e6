"""Temperature sensors of a machine: found by type and name, never by number, and read without waking anything up.

| layout | sensors |
|---|---|
| Rockchip | zones: `npu-thermal`, `soc-thermal` (mainline: `package-thermal`), `gpu-thermal`, the CPU's clusters |
| RK356x | `soc-thermal` and `gpu-thermal`, or `cpu-thermal` and `gpu-thermal`: none for the NPU |
| Ryzen | hwmon `k10temp` (`Tctl`, `Tccd1`), `amdgpu` (`edge`); newer kernels: `amdxdna` |

Zones are spelled with `-` and `_`, hwmon's number changes from start to start. Source: the kernel's documents "Generic
Thermal Sysfs driver How To" and "hwmon sysfs interface", and the device trees of the boards.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hetero.energy.meters import is_graphics_card
from hetero.thermal import sysfs
from hetero.thermal.sysfs import Unreadable

Part = Literal["npu", "gpu", "cpu", "soc"]
"""What a sensor sits in."""

# Zones of the boards that are known, and of x86 machines. `acpitz` and those of radios and batteries sit elsewhere.
_ZONES: dict[str, Part] = {
    "npu-thermal": "npu",
    "soc-thermal": "soc",
    "package-thermal": "soc",
    "center-thermal": "soc",
    "ddr-thermal": "soc",
    "gpu-thermal": "gpu",
    "cpu-thermal": "cpu",
    "bigcore-thermal": "cpu",
    "bigcore0-thermal": "cpu",
    "bigcore1-thermal": "cpu",
    "bigcore2-thermal": "cpu",
    "littlecore-thermal": "cpu",
    "little-core-thermal": "cpu",
    "x86-pkg-temp": "soc",
}
_WHOLE = ("k10temp", "zenpower")
_SOC_FIRST = ("soc-thermal", "package-thermal", "x86-pkg-temp")

_LOWEST, _HIGHEST = -40.0, 150.0


@dataclass(frozen=True)
class Trip:
    """A temperature at which the kernel does something.

    Attributes:
        celsius: Where.
        kind: `passive` (something is slowed down), `active` (a fan), `hot`, `critical` (the machine is switched off).
        cools: What is slowed down or switched on then, as the kernel names it; empty for `hot` and `critical`.
    """

    celsius: float
    kind: str
    cools: tuple[str, ...] = ()

    def __str__(self) -> str:
        does = {"critical": "switches the machine off", "hot": "tells the system"}.get(self.kind, "")
        if self.cools:
            does = f"{'slows' if self.kind == 'passive' else 'switches'} {', '.join(self.cools)}"
        return f"{self.celsius:g} C ({self.kind}): {does or 'nothing is bound to it'}"


@dataclass(frozen=True)
class Sensor:
    """A temperature of a machine.

    Attributes:
        name: As the kernel has it: `npu-thermal`, `k10temp Tctl`.
        part: What it sits in.
        file: Where its number stands, milli-C.
        identity: A file and what stands in it for as long as this is the sensor, since numbers are given anew.
        device: Whose `power/runtime_status` tells whether it sleeps; None for what never does.
        trips: What the kernel itself does by it.
        whole: It tells of the whole package, so it is the CPU's own as well.
    """

    name: str
    part: Part
    file: Path
    identity: tuple[Path, str]
    device: Path | None = None
    trips: tuple[Trip, ...] = ()
    whole: bool = False

    def read(self) -> float:
        """Degrees Celsius, as the kernel says them.

        Raises:
            Unreadable: It tells nothing now, or nothing that can be; why.
        """
        file, wanted = self.identity
        if sysfs.text(file) != wanted:
            raise Unreadable("another sensor has taken its place")
        if self.device is not None and sysfs.asleep(self.device):
            raise Unreadable("its device sleeps, and reading could wake it up")
        number = sysfs.integer(self.file)
        if number == 0:
            raise Unreadable("it reads 0, which is what a sensor that is switched off reads")
        celsius = number / 1000
        if not _LOWEST <= celsius <= _HIGHEST:
            raise Unreadable(f"it reads {celsius:g} C, which cannot be")
        return celsius

    @property
    def throttles(self) -> tuple[Trip, ...]:
        """The trips at which the kernel slows something down."""
        return tuple(trip for trip in self.trips if trip.kind == "passive" and trip.cools)


def find_sensors(sysroot: Path) -> list[Sensor]:
    """The sensors that say something of an NPU, a GPU or a CPU, also those that cannot be read now. Never raises.

    Args:
        sysroot: Root of `/sys`.
    """
    zones = sorted(_zones(sysroot), key=lambda sensor: (sensor.name not in _SOC_FIRST, sensor.name))
    return [*zones, *_hwmon(sysroot)]


def _zones(sysroot: Path) -> Iterator[Sensor]:
    seen: set[str] = set()
    for folder in sysfs.entries(sysroot / "sys/class/thermal", "thermal_zone*"):
        kind = sysfs.text_or(folder / "type")
        name = kind.lower().replace("_", "-")
        if name in _ZONES and name not in seen:
            seen.add(name)
            file, identity, trips = folder / "temp", (folder / "type", kind), _zone_trips(folder)
            yield Sensor(name, _ZONES[name], file, identity, trips=trips, whole=name == "x86-pkg-temp")


def _zone_trips(folder: Path) -> tuple[Trip, ...]:
    bound: dict[str, list[str]] = {}
    for link in sysfs.entries(folder, "cdev[0-9]*"):
        if re.fullmatch(r"cdev\d+", link.name):
            point = sysfs.text_or(folder / f"{link.name}_trip_point")
            bound.setdefault(point, []).append(sysfs.text_or(link / "type", link.name))
    trips = []
    for file in sysfs.entries(folder, "trip_point_*_temp"):
        number = file.name.removeprefix("trip_point_").removesuffix("_temp")
        milli = sysfs.integer_or_none(file)
        if milli is not None and 0 < milli <= _HIGHEST * 1000:
            kind = sysfs.text_or(folder / f"trip_point_{number}_type", "unknown")
            trips.append(Trip(milli / 1000, kind, tuple(dict.fromkeys(bound.get(number, ())))))
    return tuple(sorted(trips, key=lambda trip: trip.celsius))


def _hwmon(sysroot: Path) -> Iterator[Sensor]:
    """In the order in which they are worth reading: the NPU's own, the package's, the graphics processor's."""
    folders = sysfs.entries(sysroot / "sys/class/hwmon", "hwmon*")
    found = sorted([(sysfs.text_or(folder / "name"), _place(folder), folder) for folder in folders])
    drivers: tuple[tuple[str, Part], ...] = (
        ("amdxdna", "npu"),
        ("k10temp", "soc"),
        ("zenpower", "soc"),
        ("amdgpu", "gpu"),
    )
    for driver, part in drivers:
        for name, _, folder in found:
            # A graphics card is far from the package and says nothing of it.
            if name == driver and not (driver == "amdgpu" and is_graphics_card(folder / "device")):
                yield from _channels(folder, name, part)


def _channels(folder: Path, driver: str, part: Part) -> Iterator[Sensor]:
    channels = [(file, file.name.removesuffix("_input")) for file in sysfs.entries(folder, "temp*_input")]
    labels = {channel: sysfs.text_or(folder / f"{channel}_label") for _, channel in channels}
    for file, channel in channels:
        label = labels[channel]
        if label == "Tctl" and "Tdie" in labels.values():
            continue  # The first Ryzens add some degrees to it, for the fans' sake.
        if driver == "amdgpu" and label not in ("edge", ""):
            continue
        trips = [
            Trip(milli / 1000, kind)
            for suffix, kind in (("crit", "critical"), ("emergency", "hot"))
            if (milli := sysfs.integer_or_none(folder / f"{channel}_{suffix}")) and 0 < milli <= _HIGHEST * 1000
        ]
        name, identity, whole = f"{driver} {label}".strip(), (folder / "name", driver), driver in _WHOLE
        yield Sensor(name, part, file, identity, folder / "device", tuple(trips), whole)


def _place(folder: Path) -> str:
    """Where the chip sits on its bus, which stays the same from start to start."""
    return Path(os.path.realpath(folder / "device")).name
