"""A Runtime on a modelled board: real answers, modelled time and heat. What `simulate="rk3588,thermal=sealed"` gives.

Answers come from simulators and from the CPU of this computer; while they are computed the board's clock stands still.
Then the call takes as long as it would on the board, as far as that is known, and heats it for as long. Time passes
when every call is at that point, or waits for a device; what a program does between its calls takes no time.

| setting | meaning |
|---|---|
| `thermal=sealed`, `heatsink`, `bare` | how the board is cooled |
| `ambient=35` | degrees of the air |
| `npu_ms=500` | of a call of the slowest program on one core of the NPU |
| `cpu_factor=2` | how much longer its CPU takes for a call than a core of its NPU |

The calls of other programs take less, in the ratio in which they do here: how fast this computer is has no part in it.
Every number is modelled, and every constant assumed: see `builds`. 500 ms is half of the second that a window of
Whisper tiny.en was published to take on an RK3588, its decoder included.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hetero.backend import AnyExecutable, Array, Call, Device, Executable, Host, Kind
from hetero.errors import OptionError
from hetero.testing.thermal import builds
from hetero.testing.thermal.machine import ThermalMachine
from hetero.testing.thermal.plant import CPU, GPU, NPU, Build
from hetero.testing.thermal.sysroots import LAYOUTS
from hetero.testing.thermal.world import World

if TYPE_CHECKING:
    from hetero.runtime import Runtime

PARTS: dict[Kind, int] = {"npu": NPU, "gpu": GPU, "cpu": CPU}

BUILDS: Mapping[str, Mapping[str, Build]] = {
    "rk3588": {"heatsink": builds.RK3588, "sealed": builds.RK3588_SEALED, "bare": builds.RK3588_BARE},
    "rk3576": {"heatsink": builds.RK3576},
    "rk3568": {"bare": builds.RK3568},
}
"""The boards that can be modelled, and how each may be cooled."""

_STILL = 0.0003
_LAST = 16


@dataclass(frozen=True)
class Modelled:
    """What is modelled.

    Attributes:
        board: `rk3588`, ...
        cooling: As in `BUILDS`.
        ambient: Degrees of the air.
        npu_seconds: Of a call of the slowest program on one core of the NPU.
        cpu_factor: How much longer its CPU takes for a call than a core of its NPU.
    """

    board: str
    cooling: str
    ambient: float = 35.0
    npu_seconds: float = 0.5
    cpu_factor: float = 2.0

    @property
    def build(self) -> Build:
        """The constants of the board."""
        return BUILDS[self.board][self.cooling]

    def __str__(self) -> str:
        return f"{self.build.name}, {self.ambient:g} C around it"


def modelled_of(simulate: Sequence[str]) -> Modelled:
    """What is to be modelled of simulated machines.

    Args:
        simulate: `("rk3588", "thermal=sealed", "ambient=45")`.

    Raises:
        OptionError: A setting that is not known, or does not fit.
    """
    given = dict(text.split("=", 1) for text in simulate if "=" in text)
    known = ("thermal", "ambient", "npu_ms", "cpu_factor")
    unknown = [name for name in given if name not in known]
    if unknown:
        raise OptionError(f"a simulated machine has no setting {unknown[0]!r}", fix=f"known: {', '.join(known)}")
    board = next((name for name in simulate if name in BUILDS), None)
    if board is None or "thermal" not in given:
        raise OptionError(
            "heat can be modelled of a simulated board alone, with thermal=",
            fix=f"--simulate rk3588,thermal=sealed; boards: {', '.join(BUILDS)}",
        )
    cooling = given.pop("thermal")
    if cooling not in BUILDS[board]:
        raise OptionError(f"there is no {board} with thermal={cooling!r}", fix=f"known: {', '.join(BUILDS[board])}")
    values = {}
    for name, text in given.items():
        try:
            values[name] = float(text)
        except ValueError:
            raise OptionError(f"{name}={text!r} of a simulated machine is no number") from None
    if not -40 <= values.get("ambient", 0) <= 80 or min(values.get("npu_ms", 1), values.get("cpu_factor", 1)) <= 0:
        raise OptionError("a simulated machine has an ambient of -40 to 80 C, npu_ms and cpu_factor above 0")
    modelled = Modelled(board, cooling)
    return Modelled(
        board,
        cooling,
        values.get("ambient", modelled.ambient),
        values.get("npu_ms", 1e3 * modelled.npu_seconds) / 1e3,
        values.get("cpu_factor", modelled.cpu_factor),
    )


class BoardSimulator:
    """Models Rockchip boards: what the backend of their NPUs gives as `Backend.thermal_simulator`."""

    machines: Sequence[str] = tuple(BUILDS)

    def machine(self, simulate: Sequence[str]) -> ModelledMachine:
        """The board that a user describes; errors as `modelled_of`."""
        return ModelledMachine(modelled_of(simulate))


class ModelledMachine:
    """The board under one Runtime: its files, its clock, and a thread that moves it.

    Args:
        modelled: What is modelled.

    Attributes:
        modelled: As given.
        description: The same for people.
        clock: For the Runtime.
        sysroot: The board's files, for its Host.
    """

    def __init__(self, modelled: Modelled) -> None:
        self.modelled = modelled
        self.description = str(modelled)
        folder = Path(tempfile.mkdtemp(prefix="hetero-modelled-"))
        self._files = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        layout = replace(LAYOUTS[modelled.board], build=modelled.build)
        self.machine = ThermalMachine(folder / "root", layout, modelled.ambient)
        self._world = World(self.machine)
        self.clock: Callable[[], float] = self._world
        self.sysroot = self.machine.sysroot.root
        self._lock = threading.Lock()
        self._computing = 0
        self._turns = 0
        self._real: dict[str, deque[float]] = {}
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def host(self, host: Host) -> Host:
        """The machine to look at: as given, with the board's files."""
        names = tuple(name for name in host.simulate if "=" not in name)
        return replace(host, simulate=names, sysroot=self.sysroot)

    def load(self, device: Device, program: str, load: Callable[[], AnyExecutable]) -> AnyExecutable:
        """What `load` gives, as an executable whose calls take modelled time and heat the board.

        One that is polled is let be: no such device is on these boards.
        """
        executable = load()
        return _Heated(self, executable, device, program) if isinstance(executable, Executable) else executable

    def start(self, runtime: Runtime) -> None:
        """Let time pass for a Runtime from now on."""
        self._thread = threading.Thread(target=self._loop, args=(runtime,), name="hetero-modelled", daemon=True)
        self._thread.start()

    def abandon(self) -> None:
        """In the child of a fork: the files are the parent's."""
        self._closed.set()
        self._files.detach()

    def close(self) -> None:
        """Stop the clock, and remove the files."""
        self._closed.set()
        self._world.stop()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        self._files()

    @contextlib.contextmanager
    def computing(self) -> Iterator[None]:
        """Time stands still meanwhile."""
        with self._lock:
            self._computing += 1
        try:
            yield
        finally:
            with self._lock:
                self._computing -= 1
                self._turns += 1

    def spend(self, device: Device, program: str, lanes: int, real: float) -> None:
        """Let a call take its time on the board, after it was computed here in so many real seconds."""
        with self._lock:
            self._real.setdefault(program, deque(maxlen=_LAST)).append(real)
            # The quickest of the last ones: this computer may be busy with other things.
            quickest = {name: min(runs) for name, runs in self._real.items()}
        seconds = self.modelled.npu_seconds * quickest[program] / max(quickest.values())
        if device.kind == "npu":
            self._world.work(NPU, seconds, lanes)
        else:
            # A call on the CPU or the GPU is taken to use all of it.
            self._world.work(PARTS[device.kind], seconds * self.modelled.cpu_factor, 1)

    def _loop(self, runtime: Runtime) -> None:
        second = 1.0
        while not self._closed.is_set():
            if not self._still(runtime):
                continue
            clock = self._world
            due = runtime.timers.run_due()
            if clock.end_one():
                continue
            clock.move_to(clock.next_event() if due is None else min(due, clock.next_event()))
            if clock() >= second:
                second += 1.0
                if runtime.governor is not None:
                    runtime.governor.tick()

    def _still(self, runtime: Runtime) -> bool:
        """Nothing is computed, and somebody waits for time to pass.

        So it has to have been for a moment: whoever is about to begin a call cannot be seen.
        """
        before = self._state(runtime)
        time.sleep(_STILL)
        return before is not None and self._state(runtime) == before

    def _state(self, runtime: Runtime) -> tuple[int, int, int] | None:
        with self._lock:
            computing, turns = self._computing, self._turns
        jobs, waiting = self._world.jobs, runtime.waiting
        return None if computing or not jobs + waiting else (turns, jobs, waiting)


class _Heated(Executable):
    def __init__(self, machine: ModelledMachine, inner: Executable, device: Device, program: str) -> None:
        self.lanes = inner.lanes
        self.units = inner.units
        self.weights = inner.weights
        self.batch = inner.batch
        self.pace = inner.pace
        self.min_cosine = inner.min_cosine
        self.details = {**inner.details, "times": f"modelled: {machine.modelled}"}
        self._machine, self._inner, self._device, self._program = machine, inner, device, program

    def run(self, inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        with self._machine.computing():
            started = time.perf_counter()
            outputs = self._inner.run(inputs, call)
            real = time.perf_counter() - started
        self._machine.spend(self._device, self._program, self.lanes, real)
        return outputs

    def cancel(self, call: Call) -> bool:
        return self._inner.cancel(call)

    def close(self) -> None:
        self._inner.close()
