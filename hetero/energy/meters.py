"""Power and energy meters that the Linux kernel shows under `/sys`, found by type and name, never by number.

| meter | counts | read from |
|---|---|---|
| RAPL (`intel-rapl`, on AMD too) | the package; `psys`: the board | `/sys/class/powercap/intel-rapl:*/energy_uj` |
| `amdgpu` | the package where it is an APU, else the card | hwmon `power1_input`, `power1_average` |
| `amdxdna` | the NPU | hwmon `power1_input` |
| `i915`, `xe` | a graphics card (the kernel has them for cards alone) | hwmon `energy1_input`, `power1_input` |
| INA219, INA226 and their like | the board, through its supply | hwmon `power1_input` |
| INA3221 | up to three rails | hwmon `in*_input` times `curr*_input` |
| battery, while it discharges | the whole machine | `/sys/class/power_supply/*/power_now` |

Sources: the kernel's documents "Power Capping Framework", "hwmon sysfs interface", "GPU Power/Thermal Controls and
Monitoring" (amdgpu) and "power_supply class".
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hetero.backend import Kind
from hetero.errors import Unavailable
from hetero.sysfs import text_of

Scope = Literal["package", "board", "rail", "device", "battery"]

_MICRO = 1e-6
_MILLI = 1e-3


@dataclass(frozen=True)
class Part:
    """One counter or one power of a meter.

    Attributes:
        files: Their numbers are multiplied (volts and amperes, say).
        scale: Makes joules or watts of the product.
        top: Joules after which the counter begins again at 0; 0 for a power.
        status: Of a battery: where it stands whether it discharges; None for what always counts.
    """

    files: tuple[Path, ...]
    scale: float
    top: float = 0.0
    status: Path | None = None

    def read(self) -> float:
        """Joules or watts. Raises OSError or ValueError."""
        if not self.counts:
            return 0.0
        # Some batteries' drivers tell what flows out as a negative number.
        return abs(math.prod(int(file.read_text()) for file in self.files)) * self.scale

    @property
    def counts(self) -> bool:
        """What flows into a battery, or stays in it, says nothing of what the machine takes."""
        return self.status is None or text_of(self.status) == "Discharging"


@dataclass(frozen=True)
class Meter:
    """Something that counts energy, or tells power.

    Attributes:
        name: Unique on the machine: `intel-rapl:0`, `amdgpu:0000:c1:00.0`, `ina226:2-0040`, `battery`.
        label: What the kernel calls it: `package-0`.
        scope: What it counts: the processor's `package`, the `board`, a `rail` of it, one `device`, or what the
            `battery` gives.
        parts: Summed up: the packages of a machine with two, say.
        cumulative: The parts are energy counters, not powers.
        interval: Seconds between two samples.
        settle: Seconds until it tells of a change.
        shortest: Seconds that it takes at least to tell two powers apart.
        kind: Of the device, for the scope `device`.
    """

    name: str
    label: str
    scope: Scope
    parts: tuple[Part, ...]
    cumulative: bool
    interval: float
    settle: float
    shortest: float
    kind: Kind | None = None

    def read(self) -> tuple[float, ...]:
        """Joules or watts of each part.

        Raises:
            Unavailable: It cannot be read now; why, and what can be done.
        """
        if not any(part.counts for part in self.parts):
            raise Unavailable(
                "the battery does not discharge: it does not tell what the machine takes",
                fix="unplug the machine from its power supply",
            )
        try:
            return tuple([part.read() for part in self.parts])
        except PermissionError:
            files = " ".join(str(file) for part in self.parts for file in part.files)
            raise Unavailable(
                f"{self.name} can be read by root alone",
                fix=f"run as root, or let users read it, which also tells them what others compute: "
                f"sudo chmod a+r {files}",
            ) from None
        except ValueError as error:
            raise Unavailable(f"{self.name} tells no number: {error}") from None
        except OSError as error:
            raise Unavailable(f"{self.name} cannot be read: {error.strerror}") from None

    def __str__(self) -> str:
        return " ".join(dict.fromkeys(text for text in (self.name, self.label, f"({self.scope})") if text))


def find_meters(sysroot: Path) -> list[Meter]:
    """The meters of a machine, also those that cannot be read now.

    Args:
        sysroot: Root of `/sys`.
    """
    return [*_rapl(sysroot), *_hwmon(sysroot), *_batteries(sysroot)]


def display_controllers(sysroot: Path) -> int:
    """How many graphics processors sit on PCI buses, integrated ones included."""
    classes = [text_of(file) for file in sysroot.glob("sys/bus/pci/devices/*/class")]
    return sum(text.startswith("0x03") for text in classes)


def _rapl(sysroot: Path) -> Iterator[Meter]:
    folder = sysroot / "sys/class/powercap"
    # The same packages may be there twice, through MSRs and through MMIO: one of the two counts.
    for prefix in ("intel-rapl", "intel-rapl-mmio"):
        zones = [
            (zone, text_of(zone / "name"))
            for zone in sorted(folder.glob(f"{prefix}:*"))
            if zone.name.count(":") == 1 and (zone / "energy_uj").exists()
        ]
        packages = [(zone, name) for zone, name in zones if name.startswith("package")]
        if packages:
            yield _zones(packages, "package")
            yield from (_zones([(zone, name)], "board") for zone, name in zones if name == "psys")
            return


def _zones(zones: list[tuple[Path, str]], scope: Scope) -> Meter:
    parts = tuple(
        [Part((zone / "energy_uj",), _MICRO, _number(zone / "max_energy_range_uj") * _MICRO) for zone, _ in zones]
    )
    name, label = ("+".join(texts) for texts in zip(*[(zone.name, name) for zone, name in zones], strict=True))
    return Meter(name, label, scope, parts, cumulative=True, interval=1.0, settle=0.1, shortest=0.3)


def _hwmon(sysroot: Path) -> Iterator[Meter]:
    for folder in sorted(sysroot.glob("sys/class/hwmon/hwmon*")):
        driver = text_of(folder / "name")
        name = f"{driver}:{_place(folder)}"
        if driver == "amdgpu":
            yield from _card(folder, name) if is_graphics_card(folder / "device") else _one(folder, name, "package")
        elif driver == "amdxdna":
            yield from _one(folder, name, "device", "npu")
        elif driver in ("i915", "xe"):
            yield from _card(folder, name)
        elif driver == "ina3221":
            yield from _rails(folder, name)
        elif driver.startswith("ina2"):
            yield from _one(folder, name, "board")


def _card(folder: Path, name: str) -> Iterator[Meter]:
    return _one(folder, name, "device", "gpu")


def _one(folder: Path, name: str, scope: Scope, kind: Kind | None = None) -> Iterator[Meter]:
    """A hwmon's first channel: its energy where it counts that, else its power."""
    energy = folder / "energy1_input"
    if energy.exists():
        # Counters of hwmon are 64 bits wide: they do not begin again.
        label = text_of(folder / "energy1_label")
        yield Meter(name, label, scope, (Part((energy,), _MICRO),), True, 1.0, 0.1, 0.5, kind)
        return
    for file in ("power1_input", "power1_average"):
        if (folder / file).exists():
            label = text_of(folder / "power1_label")
            yield Meter(name, label, scope, (Part((folder / file,), _MICRO),), False, 0.1, 1.0, 2.0, kind)
            return


def _rails(folder: Path, name: str) -> Iterator[Meter]:
    """The channels of an INA3221, of which the driver tells volts and amperes. A single one is the board's supply."""
    channels = [
        channel
        for channel in (1, 2, 3)
        if (folder / f"curr{channel}_input").exists() and text_of(folder / f"in{channel}_enable") != "0"
    ]
    for channel in channels:
        files = (folder / f"in{channel}_input", folder / f"curr{channel}_input")
        label = text_of(folder / f"in{channel}_label")
        scope: Scope = "board" if len(channels) == 1 else "rail"
        part = Part(files, _MILLI * _MILLI)
        yield Meter(f"{name}:{channel}", label, scope, (part,), False, 0.1, 0.5, 1.0)


def is_graphics_card(device: Path) -> bool:
    """An AMD graphics processor on a card of its own: its table of metrics has format 1, those of APUs 2 and 3."""
    try:
        header = (device / "gpu_metrics").read_bytes()[:4]
    except OSError:
        return False
    return len(header) == 4 and header[2] == 1


def _batteries(sysroot: Path) -> Iterator[Meter]:
    parts = []
    for folder in sorted(sysroot.glob("sys/class/power_supply/*")):
        # The batteries of a mouse or a keyboard have the scope `Device`.
        if text_of(folder / "type") != "Battery" or text_of(folder / "scope") == "Device":
            continue
        status = folder / "status"
        power, volts, amperes = (folder / name for name in ("power_now", "voltage_now", "current_now"))
        if power.exists():
            parts.append(Part((power,), _MICRO, status=status))
        elif volts.exists() and amperes.exists():
            parts.append(Part((volts, amperes), _MICRO * _MICRO, status=status))
    if parts:
        # Fuel gauges tell a new number every few seconds, and some every half minute.
        yield Meter("battery", "", "battery", tuple(parts), False, 1.0, 10.0, 20.0)


def _place(folder: Path) -> str:
    """Where a hwmon's chip sits (a PCI or I2C address), which stays the same; its number does not."""
    device = folder / "device"
    return Path(os.path.realpath(device)).name if device.is_symlink() else folder.name


def _number(file: Path) -> int:
    text = text_of(file)
    return int(text) if text.isdigit() else 0
