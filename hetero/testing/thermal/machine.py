"""A modelled machine behind files: a plant drives what a board's kernel would show, in simulated or in real time."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import TracebackType

import numpy as np

from hetero.testing.thermal.plant import NPU, STEP, Plant
from hetero.testing.thermal.sysroots import Layout, Sysroot


class ThermalMachine:
    """A board that gets warm. Its clock is `now`, which moves in `advance` alone, or with `running`.

    Args:
        root: Folder for its files.
        layout: Which board, or its name.
        ambient: Degrees of the air.
        seed: Of the sensors' noise.

    Attributes:
        sysroot: Its files.
        plant: Its heat.
        duty: The shares of the time in which the NPU, the GPU and the CPU work on items; may be changed.
    """

    def __init__(self, root: Path, layout: Layout | str, ambient: float = 25.0, seed: int = 0) -> None:
        self.sysroot = Sysroot(root, layout)
        self.plant = Plant([self.sysroot.layout.build], ambient, seed)
        self.duty = [0.0, 0.0, 0.0]
        self._busy = 0.0
        self._lock = threading.Lock()
        self.show()

    def clock(self) -> float:
        """Seconds of its own time."""
        return self.plant.seconds

    @property
    def celsius(self) -> float:
        """Of the NPU, as it is."""
        return float(self.plant.temperatures[NPU, 0])

    @property
    def items(self) -> float:
        """That were answered so far."""
        return float(self.plant.items[0])

    @property
    def speeds(self) -> tuple[float, float, float]:
        """Of the NPU, the GPU and the CPU now, as shares of their full speed."""
        npu, gpu, cpu = (float(speed) for speed in self.plant.speeds[:, 0])
        return npu, gpu, cpu

    def other_work(self, cpu: float = 0.0, gpu: float = 0.0) -> None:
        """Watts of whatever else runs there from now on: a compile, a game."""
        self.plant.background = np.array([[gpu], [cpu]])

    def ambient(self, celsius: float) -> None:
        """The air from now on."""
        self.plant.ambient = np.array([celsius])

    def advance(self, seconds: float) -> None:
        """Let time pass, in steps of the plant, and show what comes of it."""
        with self._lock:
            limit = self.sysroot.clock_limit
            if limit is not None:
                self.plant.clock[0] = limit / 1e6
            duty = np.array(self.duty)[:, None]
            self._busy += seconds * float(self.plant.cpu_load(duty)[0])
            self.plant.advance(duty, seconds)
            self.show()

    def running(self, speed: float = 60.0) -> Running:
        """Have time pass by itself, so many of its seconds in one; a context manager."""
        return Running(self, speed)

    def show(self) -> None:
        """Have the files tell what the sensors do now; `advance` does that too."""
        readings = self.plant.readings[:, 0]
        self.sysroot.show({part: float(celsius) for part, celsius in enumerate(readings)})
        self.sysroot.show_cpu(self._busy, self.plant.seconds - self._busy)
        self.sysroot.show_load(self.duty[NPU])
        if self.sysroot.clock_limit is not None:
            capped = bool(self.plant.capped[0])
            clock = min(self.plant.clock[0], self.plant.builds[0].cap_clock) if capped else self.plant.clock[0]
            self.sysroot.show_clock(round(clock * 1e6))


class Running:
    """A machine whose time passes in a thread."""

    def __init__(self, machine: ThermalMachine, speed: float) -> None:
        self._machine = machine
        self._speed = speed
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="thermal-machine", daemon=True)

    def __enter__(self) -> ThermalMachine:
        self._thread.start()
        return self._machine

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join()

    def _loop(self) -> None:
        begun, start = time.monotonic(), self._machine.clock()
        while not self._stopped.wait(STEP / self._speed):
            due = start + (time.monotonic() - begun) * self._speed
            steps = int((due - self._machine.clock()) / STEP)
            if steps > 0:
                self._machine.advance(steps * STEP)
