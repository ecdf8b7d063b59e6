"""What boards' kernels show under /sys and /proc of heat, clocks and power, made of files in a folder.

Names and layouts are those that were read in the boards' device trees and drivers; numbers of zones and hwmon folders
are shuffled, since they mean nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hetero.testing.thermal import builds
from hetero.testing.thermal.plant import CPU, GPU, NPU, SOC, Build


@dataclass(frozen=True)
class Zone:
    """A thermal zone.

    Attributes:
        kind: Its `type`.
        part: Whose temperature it tells, as the plant counts them.
        trips: Degrees, kind, and what is cooled then.
    """

    kind: str
    part: int
    trips: Sequence[tuple[float, str, Sequence[str]]] = ()


@dataclass(frozen=True)
class Chip:
    """A hwmon.

    Attributes:
        name: Its `name`.
        place: Of the chip on its bus.
        channels: Its temperatures: a label (or none), whose it is, and a critical temperature (or 0).
    """

    name: str
    place: str
    channels: Sequence[tuple[str, int, float]]


@dataclass(frozen=True)
class Layout:
    """What one board's kernel shows.

    Attributes:
        name: As users would say.
        build: The constants of a plant like it.
        zones: Thermal zones.
        chips: hwmon folders.
        devfreq: Name of the NPU's folder; none where it has none.
        load: Where the NPU's load is told, and with how many cores.
        files: Whatever else stands there, by path below the root.
    """

    name: str
    build: Build
    zones: Sequence[Zone] = ()
    chips: Sequence[Chip] = ()
    devfreq: str = ""
    load: tuple[str, int] | None = None
    files: Mapping[str, str] = field(default_factory=dict)


_CPU_GPU = ("thermal-cpufreq-0", "thermal-cpufreq-1", "thermal-devfreq-0-fb000000.gpu")
_BSP_SOC = ((75.0, "passive", ()), (85.0, "passive", _CPU_GPU), (115.0, "critical", ()))
_CRITICAL = ((115.0, "critical", ()),)

LAYOUTS: Mapping[str, Layout] = {
    layout.name: layout
    for layout in (
        Layout(
            "rk3588",
            builds.RK3588_SEALED,
            (
                Zone("soc-thermal", SOC, _BSP_SOC),
                Zone("bigcore0-thermal", CPU, _CRITICAL),
                Zone("bigcore1-thermal", CPU, _CRITICAL),
                Zone("littlecore-thermal", CPU, _CRITICAL),
                Zone("center-thermal", SOC, _CRITICAL),
                Zone("gpu-thermal", GPU, _CRITICAL),
                Zone("npu-thermal", NPU, _CRITICAL),
            ),
            devfreq="fdab0000.npu",
            load=("sys/kernel/debug/rknpu/load", 3),
        ),
        Layout(
            "rk3588-mainline",
            builds.RK3588_SEALED,
            (
                Zone("package-thermal", SOC, _CRITICAL),
                Zone("bigcore0-thermal", CPU, ((85.0, "passive", _CPU_GPU[:1]), (115.0, "critical", ()))),
                Zone("bigcore2-thermal", CPU, _CRITICAL),
                Zone("littlecore-thermal", CPU, _CRITICAL),
                Zone("center-thermal", SOC, _CRITICAL),
                Zone("gpu_thermal", GPU, _CRITICAL),
                Zone("npu_thermal", NPU, _CRITICAL),
            ),
        ),
        Layout(
            "rk3576",
            builds.RK3576,
            (
                Zone("soc-thermal", SOC, _BSP_SOC),
                Zone("bigcore-thermal", CPU, _CRITICAL),
                Zone("little-core-thermal", CPU, _CRITICAL),
                Zone("ddr-thermal", SOC, _CRITICAL),
                Zone("npu-thermal", NPU, _CRITICAL),
                Zone("gpu-thermal", GPU, _CRITICAL),
            ),
            devfreq="27700000.npu",
            load=("proc/rknpu/load", 2),
        ),
        Layout(
            "rk3568",
            builds.RK3568,
            (Zone("soc-thermal", SOC, _BSP_SOC), Zone("gpu-thermal", GPU, _CRITICAL)),
            devfreq="fde40000.npu",
            load=("proc/rknpu/load", 1),
        ),
        Layout(
            "rk3566-mainline",
            builds.RK3568,
            (
                Zone("cpu-thermal", CPU, ((70.0, "passive", _CPU_GPU[:1]), *_CRITICAL)),
                Zone("gpu-thermal", GPU, _CRITICAL),
            ),
        ),
        Layout(
            "phoenix",
            builds.PHOENIX,
            (Zone("acpitz", SOC, ()),),
            (
                Chip("nvme", "nvme0", (("Composite", SOC, 84.8),)),
                Chip("k10temp", "0000:00:18.3", (("Tctl", SOC, 0), ("Tccd1", CPU, 0))),
                Chip("amdgpu", "0000:c1:00.0", (("edge", GPU, 0),)),
            ),
            files={
                "sys/class/power_supply/AC/type": "Mains",
                "sys/class/power_supply/AC/online": "1",
                "sys/class/power_supply/BAT0/type": "Battery",
                "sys/class/power_supply/BAT0/status": "Charging",
                "sys/firmware/acpi/platform_profile": "balanced",
                "sys/firmware/acpi/platform_profile_choices": "low-power balanced performance",
            },
        ),
        Layout(
            "strix",
            builds.PHOENIX.with_(name="Strix laptop", npu_sensor=True),
            (),
            (
                Chip("k10temp", "0000:00:18.3", (("Tctl", SOC, 0),)),
                Chip("amdgpu", "0000:c4:00.0", (("edge", GPU, 0),)),
                Chip("amdxdna", "0000:c5:00.1", (("", NPU, 0),)),
            ),
        ),
        Layout("none", builds.RK3588),
    )
}
"""By name: `rk3588`, `rk3588-mainline`, `rk3576`, `rk3568`, `rk3566-mainline`, `phoenix`, `strix`, and `none`."""


# Of a kernel's counters, times the cores of such a machine.
_HERTZ = 800


class Sysroot:
    """The files of a layout.

    Args:
        root: Folder to make them in.
        layout: Or its name.

    Attributes:
        root: To give to `Host(sysroot=...)`.
        layout: What it shows.
        temperatures: The files that hold one, by the zone's or the chip's name (and label): `npu-thermal`,
            `k10temp Tctl`.
    """

    def __init__(self, root: Path, layout: Layout | str) -> None:
        self.root = root
        self.layout = LAYOUTS[layout] if isinstance(layout, str) else layout
        self.temperatures: dict[str, tuple[Path, int]] = {}
        self._coolers: dict[str, int] = {}
        root.mkdir(parents=True, exist_ok=True)
        # Numbers run backwards here, so that whoever goes by them finds the wrong ones.
        for number, zone in enumerate(reversed(self.layout.zones)):
            self._zone(root / f"sys/class/thermal/thermal_zone{number}", zone)
        for number, chip in enumerate(reversed(self.layout.chips)):
            self._chip(root / f"sys/class/hwmon/hwmon{number + 3}", chip)
        if self.layout.devfreq:
            clocks = [round(clock * 1e6) for clock in self.layout.build.clocks]
            self.put(f"{self._devfreq}/available_frequencies", " ".join(map(str, clocks)))
            self.put(f"{self._devfreq}/min_freq", clocks[0])
            self.put(f"{self._devfreq}/governor", "rknpu_ondemand")
            self.put(f"{self._devfreq}/load", "0@1000000000Hz")
            self.clock_limit = clocks[-1]
            self.show_clock(clocks[-1])
        for name, content in self.layout.files.items():
            self.put(name, content)
        self.show(dict.fromkeys((NPU, GPU, CPU, SOC), 40.0))
        self.show_load(0.0)

    def put(self, name: str, content: object) -> Path:
        """Write a file, at once: who reads meanwhile sees the old content or the new one."""
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        whole = file.with_name(f".{file.name}.new")
        whole.write_text(f"{content}\n")
        return whole.replace(file)

    def _keep(self, name: str, content: object) -> None:
        """As `put`, which costs far more than to see that the file says so already."""
        try:
            said = (self.root / name).read_bytes()
        except OSError:
            said = b""
        if said != f"{content}\n".encode():
            self.put(name, content)

    def show(self, celsius: Mapping[int, float]) -> None:
        """Have the sensors tell these temperatures, by the plant's parts."""
        for file, part in self.temperatures.values():
            self._keep(str(file.relative_to(self.root)), round(celsius[part] * 1000))

    def show_load(self, share: float) -> None:
        """Have the kernel tell this load of the NPU, 0 to 1, where the board's does."""
        if self.layout.load is not None:
            place, cores = self.layout.load
            percent = f"{round(share * 100):3d}%"
            each = ",".join(f" Core{core}: {percent}" for core in range(cores)) if cores > 1 else percent
            self._keep(place, f"NPU load: {each}{',' if cores > 1 else ''}")

    def show_cpu(self, busy: float, idle: float) -> None:
        """Have the kernel tell for how many seconds its CPU worked since the start, and for how many it did not."""
        self._keep("proc/stat", f"cpu  {round(busy * _HERTZ)} 0 0 {round(idle * _HERTZ)} 0 0 0 0 0 0")

    def show_clock(self, hertz: int) -> None:
        """Have the kernel tell this clock of the NPU."""
        self._keep(f"{self._devfreq}/cur_freq", hertz)

    @property
    def clock_limit(self) -> int | None:
        """Hz that `max_freq` says; None where the board shows no clock."""
        return int((self.root / self._devfreq / "max_freq").read_text()) if self.layout.devfreq else None

    @clock_limit.setter
    def clock_limit(self, hertz: int) -> None:
        self.put(f"{self._devfreq}/max_freq", hertz)

    @property
    def _devfreq(self) -> str:
        return f"sys/class/devfreq/{self.layout.devfreq}"

    def _zone(self, folder: Path, zone: Zone) -> None:
        self.put(self._below(folder / "type"), zone.kind)
        self.temperatures[zone.kind] = (folder / "temp", zone.part)
        cooled = 0
        for number, (celsius, kind, cools) in enumerate(zone.trips):
            self.put(self._below(folder / f"trip_point_{number}_temp"), round(celsius * 1000))
            self.put(self._below(folder / f"trip_point_{number}_type"), kind)
            for cooler in cools:
                place = self._coolers.setdefault(cooler, len(self._coolers))
                device = self.root / f"sys/class/thermal/cooling_device{place}"
                self.put(self._below(device / "type"), cooler)
                (folder / f"cdev{cooled}").symlink_to(device, target_is_directory=True)
                self.put(self._below(folder / f"cdev{cooled}_trip_point"), number)
                cooled += 1

    def _chip(self, folder: Path, chip: Chip) -> None:
        self.put(self._below(folder / "name"), chip.name)
        device = self.root / "sys/devices" / chip.place
        self.put(self._below(device / "power/runtime_status"), "active")
        (folder / "device").symlink_to(device, target_is_directory=True)
        for number, (label, part, critical) in enumerate(chip.channels, 1):
            if label:
                self.put(self._below(folder / f"temp{number}_label"), label)
            if critical:
                self.put(self._below(folder / f"temp{number}_crit"), round(critical * 1000))
            self.temperatures[f"{chip.name} {label}".strip()] = (folder / f"temp{number}_input", part)

    def _below(self, file: Path) -> str:
        return str(file.relative_to(self.root))
