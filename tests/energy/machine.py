"""A machine's `/sys`, made of files, whose meters count what a test says, on a clock that the test moves."""

from __future__ import annotations

from pathlib import Path


class Machine:
    """A clock, a counter of microjoules that runs with it, and the files in which the kernel would show them."""

    def __init__(self, sysroot: Path) -> None:
        self.sysroot = sysroot
        self.now = 100.0
        self.watts = 4.0
        self.microjoules = 5_000_000.0
        self.top = 1 << 40
        self._counter: Path | None = None

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        """Time passes and the machine takes its idle power."""
        self.spend(seconds)

    def spend(self, seconds: float, joules: float = 0.0) -> None:
        """Time passes, and so many joules go into work on top of the idle power."""
        self.now += seconds
        self.microjoules = (self.microjoules + (self.watts * seconds + joules) * 1e6) % self.top
        if self._counter is not None:
            replace(self._counter, int(self.microjoules))

    def package(self, number: int = 0, name: str = "package-0", driver: str = "intel-rapl") -> Path:
        """A zone of RAPL, the first of which counts what `spend` says; gives its counter."""
        zone = self.sysroot / f"sys/class/powercap/{driver}:{number}"
        counter = put(zone / "energy_uj", int(self.microjoules))
        put(zone / "name", name)
        put(zone / "max_energy_range_uj", self.top)
        self._counter = self._counter or counter
        return counter

    def hwmon(self, number: int, name: str, **files: object) -> Path:
        folder = self.sysroot / f"sys/class/hwmon/hwmon{number}"
        put(folder / "name", name)
        for file, content in files.items():
            put(folder / file, content)
        return folder

    def battery(self, name: str = "BAT0", **files: object) -> Path:
        folder = self.sysroot / f"sys/class/power_supply/{name}"
        for file, content in {"type": "Battery", "status": "Discharging", **files}.items():
            put(folder / file, content)
        return folder

    def graphics(self, *classes: str) -> None:
        for place, text in enumerate(classes):
            put(self.sysroot / f"sys/bus/pci/devices/0000:0{place}:00.0/class", text)


def put(file: Path, content: object) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{content}\n")
    return file


def replace(file: Path, content: object) -> None:
    """Another content, at once: who reads meanwhile sees the old one or the new one."""
    put(file.with_suffix(".new"), content).replace(file)
