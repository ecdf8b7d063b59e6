"""The contract between hetero and a backend: all that a plugin author needs to read.

A backend is a class that knows one vendor runtime::

    class Toy(Backend):
        name = "toy"

        def probe(self):                            # cheap: look, load nothing
            return [Device("toy", kind="cpu")]      # or: raise Unavailable("no driver", fix="modprobe toy")

        def load(self, program, device, options):   # or: raise Unsupported("op Foo is not supported")
            return ToyExecutable(program.artifact("onnx").path)

    class ToyExecutable(Executable):
        def run(self, inputs, call):                # names and arrays in, names and arrays out
            return {"y": inputs["x"] + 1}

and is announced by a hook that an entry point of the group `hetero.backends` leads to::

    @hetero.hookimpl
    def hetero_backend():
        return Toy

What the core does for a backend: it checks inputs against the program's specs before a call and outputs after it, never
has more than `lanes` calls in an executable at once, gives each of them a lane number of its own, goes on to the next
device when something is raised, and keeps the record. What it asks: raise the errors named here where you can tell what
happened, leave the inputs as they were, hand out arrays that nobody writes to later, and import the vendor's runtime in
`probe` or `load`, not at import.

A backend whose vendor has a compiler can also build artifacts from ONNX models, for `hetero compile`::

    class Toy(Backend):
        targets = ("toy1", "toy2")

        def compiler(self, options):                # what artifacts are cached by; starts nothing
            return "toycc 1.0"

        def compile(self, request, out, progress):  # or: raise CompileError("op Foo is not supported")
            (out / "model.toy").write_bytes(toycc(request.program.artifact("onnx").file, request.shapes))
            return CompileReport(request.target, "toy", "model.toy", "toycc 1.0", "fp16", request.shapes, ...)
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from hetero.cache import cache_dir
from hetero.compiling.report import CompileReport, CompileRequest, Progress
from hetero.errors import (
    DeviceLost,
    DeviceTimeout,
    ExecutionError,
    NonFiniteOutput,
    OutOfMemory,
    Unavailable,
    Unsupported,
    WrongAnswer,
)
from hetero.program import Artifact, Program
from hetero.tensors import Array, TensorSpec

if TYPE_CHECKING:
    from hetero.simulation import ThermalSimulator

__all__ = [
    "Access",
    "Allocator",
    "AnyExecutable",
    "Array",
    "Artifact",
    "Backend",
    "Call",
    "Check",
    "CompileReport",
    "CompileRequest",
    "Device",
    "DeviceLost",
    "DeviceTimeout",
    "Executable",
    "ExecutionError",
    "Host",
    "NonFiniteOutput",
    "Option",
    "OutOfMemory",
    "Pace",
    "PolledExecutable",
    "PowerControl",
    "Program",
    "TensorSpec",
    "Ticket",
    "Unavailable",
    "Unsupported",
    "WrongAnswer",
]

Kind = Literal["npu", "gpu", "cpu"]

NO_OPTIONS: Mapping[str, Any] = {}
Access = Literal["default", "npu_primary", "streaming"]
"""Who reads and writes a buffer: `default`, anybody; `npu_primary`, above all the device, in memory of its own that the
CPU sees too; `streaming`, several units in turn, in memory of the host in whole pages, which all of them can map."""

_DEFAULT_RANK: dict[Kind, int] = {"npu": 100, "gpu": 200, "cpu": 300}


@dataclass(frozen=True)
class Host:
    """The machine as a backend may see it. Tests hand in another one.

    Attributes:
        environ: Environment variables.
        sysroot: Root of `/sys`, `/proc` and `/dev`.
        cache: Folder for compiled artifacts; a backend makes a folder of its own name in it.
        simulate: Names of machines to imitate (`rk3588`, `phoenix`); a backend that has a simulator for one adds a
            device with `simulated=True`.
    """

    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    sysroot: Path = Path("/")
    cache: Path = field(default_factory=cache_dir)
    simulate: tuple[str, ...] = ()


@dataclass(frozen=True)
class Device:
    """One schedulable accelerator.

    Attributes:
        name: Unique on the machine: `rknn`, `xrt`, `vulkan:0`, `cpu`. By convention the backend's name, with `:INDEX`
            or `:NAME` behind it where a backend has several.
        kind: `npu`, `gpu` or `cpu`.
        description: What a person calls it: `Rockchip RK3588 NPU, 3 cores`.
        lanes: How many calls it works on at once (NPU cores, columns, queues).
        rank: Place in the default chain, lowest first; by default 100 for an NPU, 200 for a GPU, 300 for a CPU.
        simulated: Its answers and times come from a simulator.
        watts: Power that it takes at work, if that is known; the policy `efficiency` compares by it where nothing was
            measured (see `hetero bench`).
        properties: Versions, driver, memory: whatever `hetero doctor` should show.
        notes: Remarks for people: a core that did not answer, a driver that is known to be bad.
    """

    name: str
    kind: Kind
    description: str = ""
    lanes: int = 1
    rank: int = -1
    simulated: bool = False
    watts: float | None = None
    properties: Mapping[str, Any] = field(default_factory=dict, hash=False)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.rank < 0:
            object.__setattr__(self, "rank", _DEFAULT_RANK[self.kind])


@dataclass(frozen=True)
class Option:
    """An option of a backend's `load`, declared so that hetero can check and explain it.

    Attributes:
        name: As the user writes it: `Runtime(options={"cpu": {"threads": 2}})` or `--option cpu.threads=2`.
        type: `int`, `float`, `bool`, `str`, `tuple` (of strings) or `dict`; or several of them, the first of which a
            text from a command line becomes.
        default: Value when the user says nothing; `None` is always allowed as "let the backend decide".
        help: One sentence.
        choices: The allowed values, if they can be listed.
        minimum: The least allowed value of a number.
        per_call: It may also be given for one call: `session(x, options={"cpu": {...}})`; `Call.options` then has it.
    """

    name: str
    type: type | tuple[type, ...]
    default: Any
    help: str
    choices: tuple[Any, ...] = ()
    minimum: float | None = None
    per_call: bool = False

    @property
    def type_name(self) -> str:
        """The type for people: `int`, `str or int`."""
        return " or ".join(kind.__name__ for kind in (self.type if isinstance(self.type, tuple) else (self.type,)))


class Call:
    """What the scheduler tells an executable about one call.

    Attributes:
        lane: From 0 to `lanes - 1`; no two calls that run at the same time have the same one. Use it to keep objects
            that must not be shared between threads: one per lane.
        number: Counts the calls of the executable, in the order in which they were given their lanes: of one submitting
            thread the order of its submits. A canary is not counted and has whatever its lane had before.
        options: What the caller gave for this call alone, checked: values of options with `per_call`.
        started: When the call began, on the scheduler's clock; 0 while the lane is free.
        turn: Counts the runs on this lane.
        cancelled: Somebody has asked for the call to end; what it then raises is no failure of the device.
        outputs: The caller's own arrays for some of the outputs, or all, by name: C-contiguous, of the right dtype, of
            a shape that fits the specs but perhaps not this answer. An executable may write an output there and hand
            out that very array; what it does not write there, the core copies. None for most calls: only a call that
            nobody can leave or cancel before it has ended offers them. Write to them within `run`, never after it.
        copy_seconds: An executable may set it: seconds of this call that went into copying inputs to the device and
            outputs from it. 0 when the call begins.
    """

    __slots__ = ("cancelled", "copy_seconds", "lane", "number", "options", "outputs", "started", "turn")

    def __init__(self, lane: int = 0) -> None:
        self.lane = lane
        self.number = 0
        self.options: Mapping[str, Any] = NO_OPTIONS
        self.cancelled = False
        self.copy_seconds = 0.0
        self.outputs: Mapping[str, Array] | None = None
        self.started = 0.0
        self.turn = 0


class Pace(Protocol):
    """Says when the next call may begin, for a device that does worse when it is given more than it can take."""

    def due_in(self) -> float:
        """Seconds until a call may begin; 0 for now. Must be quick; called under the scheduler's lock."""

    def began(self) -> None:
        """A call begins now; called in place of the next `due_in`, under the same lock."""


class Executable(ABC):
    """A program loaded on a device, for a runtime whose blocking call releases the GIL.

    Attributes:
        lanes: How many `run` calls may be in it at once.
        units: The part of the device that each lane runs on, one name a lane (`core0`), where parts can fail by
            themselves: one that hangs or is lost is set aside alone, and the other lanes go on. Empty: there are none.
        weights: The share of the calls that each lane is meant for, one number a lane: where several are free, the one
            furthest behind its share is taken. Empty: the one that has been free for longest.
        batch: How many items one launch takes for the price of one.
        details: What was decided at load (driver, provider, threads), shown by `explain()`. Under `cached`, for traces,
            whether something that was compiled before was found (True) or had to be made (False).
        pace: When calls may begin; None for whenever a lane is free. Requests that come too soon wait, or are refused
            with QueueFull where the session was loaded with `on_full="raise"`.
        min_cosine: For one that computes with few bits (int8), where single numbers may be far off in an answer that is
            right as a whole: floats count as right when, taken as a vector, they make an angle with the reference's
            whose cosine is at least this. None: every number is compared.
    """

    lanes: int = 1
    units: Sequence[str] = ()
    weights: Sequence[float] = ()
    batch: int = 1
    details: Mapping[str, Any] = {}
    pace: Pace | None = None
    min_cosine: float | None = None

    @abstractmethod
    def run(self, inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        """Run once.

        Args:
            inputs: Checked, C-contiguous arrays by input name. Read them, do not write to them or keep them.
            call: This call's lane.

        Returns:
            The outputs by name; arrays the caller may keep.

        Raises:
            Unsupported: Not with these shapes.
            ExecutionError: The call failed; `DeviceLost`, `DeviceTimeout`, `OutOfMemory`, `WrongAnswer` where known.
        """

    def cancel(self, call: Call) -> bool:
        """Ask a running call to end soon, by raising; called from another thread.

        Returns:
            Whether the vendor's runtime can do that; False leaves the call to run to its end.
        """
        return False

    def close(self) -> None:  # noqa: B027  most executables have nothing to free
        """Free what the vendor's runtime holds. Called once, when no call is running."""


class Ticket(Protocol):
    """A run that was started and not yet collected."""

    def done(self) -> bool:
        """Whether `result` would return at once. Must not block and must not hold the GIL for long."""

    def result(self) -> Mapping[str, Array]:
        """The outputs; called once, after `done()`. Raises what `Executable.run` would."""


class PolledExecutable(ABC):
    """A program loaded on a device, for a runtime whose blocking call holds the GIL: started, then polled.

    Attributes:
        lanes: How many started runs may be uncollected at once.
        units: The part of the device that each lane runs on, one name a lane (`core0`), where parts can fail by
            themselves: one that hangs or is lost is set aside alone, and the other lanes go on. Empty: there are none.
        weights: The share of the calls that each lane is meant for, one number a lane: where several are free, the one
            furthest behind its share is taken. Empty: the one that has been free for longest.
        batch: How many items one launch takes for the price of one.
        details: What was decided at load, shown by `explain()`.
        pace: When calls may begin; None for whenever a lane is free. Requests that come too soon wait, or are refused
            with QueueFull where the session was loaded with `on_full="raise"`.
        min_cosine: For one that computes with few bits (int8), where single numbers may be far off in an answer that is
            right as a whole: floats count as right when, taken as a vector, they make an angle with the reference's
            whose cosine is at least this. None: every number is compared.
    """

    lanes: int = 1
    units: Sequence[str] = ()
    weights: Sequence[float] = ()
    batch: int = 1
    details: Mapping[str, Any] = {}
    pace: Pace | None = None
    min_cosine: float | None = None

    @abstractmethod
    def start(self, inputs: Mapping[str, Array], call: Call) -> Ticket:
        """Start a run and return at once; arguments and errors as for `Executable.run`.

        The arrays in `inputs` stay alive and unchanged until the ticket's result was collected.
        """

    def cancel(self, call: Call) -> bool:
        """Ask a started run to end soon; as for `Executable.cancel`."""
        return False

    def close(self) -> None:  # noqa: B027
        """Free what the vendor's runtime holds. Called once, when no run is uncollected."""


AnyExecutable = Executable | PolledExecutable
"""What a backend loads: the one or the other."""


class Allocator(Protocol):
    """Gives buffers in a device's memory, or in memory that the device can map; see `Backend.allocator`.

    Both methods are called from any thread. A backend knows its buffers again in `Executable.run` by the address of the
    array: `array.ctypes.data`.
    """

    def allocate(self, nbytes: int, access: Access) -> Any:
        """Memory for the CPU to write and read.

        Args:
            nbytes: Bytes, more than 0.
            access: What for.

        Returns:
            An object with Python's buffer interface (a memoryview, an array, an `mmap`): writable, of at least so many
            bytes, at an address that is a multiple of 64; for `streaming`, of the page size.

        Raises:
            Unsupported: No memory for this access; the host's is used instead.
            OutOfMemory: There is no more.
        """

    def free(self, memory: Any) -> None:
        """Free what `allocate` gave. No array looks at it any more; the backend may be closed by then."""


class PowerControl(Protocol):
    """Tells and sets the power mode of a device; see `Backend.power`.

    Attributes:
        modes: Those that the device has, out of `hetero.power.MODES`, and in a few words what each means.
    """

    @property
    def modes(self) -> Mapping[str, str]:
        """See above; empty while none can be set."""
        ...

    def read(self) -> str:
        """The mode now.

        Raises:
            Unavailable: It cannot be told here.
            ExecutionError: The device did not answer.
        """

    def set(self, mode: str) -> None:
        """Set a mode, one of `modes`; it stays until another one is set.

        Raises:
            Unavailable: It cannot be set here: no tool, no permission; in `fix` what the user can do.
            ExecutionError: The device refused.
        """


@dataclass(frozen=True)
class Check:
    """One thing that `hetero doctor` looked at; see `Backend.checks`.

    Attributes:
        name: What: `device node`.
        found: What was found: `/dev/accel/accel0`.
        level: `ok`; `note`: worth knowing, and no failure; `problem`: something is broken.
        fix: What the user can do.
    """

    name: str
    found: str
    level: Literal["ok", "note", "problem"] = "ok"
    fix: str = ""


class Backend(ABC):
    """A plugin that knows one vendor runtime. Made once per Runtime, when that looks for devices.

    Attributes:
        name: Unique among backends; letters, digits, `_` and `-`.
        options: What `load` understands.
        simulates: Machines that the backend can imitate when `host.simulate` names them.
        targets: What it can compile ONNX models for (`rk3588`), in lower case; none when it cannot.
        compile_options: What `compile` understands.
    """

    name: ClassVar[str]
    options: ClassVar[tuple[Option, ...]] = ()
    simulates: ClassVar[tuple[str, ...]] = ()
    targets: ClassVar[tuple[str, ...]] = ()
    compile_options: ClassVar[tuple[Option, ...]] = ()

    def __init__(self, host: Host) -> None:
        self.host = host

    @classmethod
    def thermal_simulator(cls) -> ThermalSimulator | None:
        """What models the heat and the time of machines that it imitates; None for nothing that does.

        Asked when `simulate` has settings (`rk3588,thermal=sealed`), before a backend is made; see `hetero.simulation`.
        """
        return None

    @abstractmethod
    def probe(self) -> Sequence[Device]:
        """The devices of this backend on this machine. Cheap: no program is loaded, no device woken up.

        Raises:
            Unavailable: There is none; the reason, and in `fix` what the user can do.
        """

    @abstractmethod
    def load(self, program: Program, device: Device, options: Mapping[str, Any]) -> AnyExecutable:
        """Make a program ready to run on one of the devices that `probe` gave.

        Args:
            program: Ask it for artifacts: `program.artifact("onnx")`, `program.artifact("rknn", target="rk3588")`.
            device: One that `probe` returned.
            options: A value for every declared option, checked.

        Raises:
            Unsupported: This device cannot run this program: a missing artifact, an op, a shape.
            ExecutionError: Loading failed on the device.
            ProgramError: The program is broken for every device; no other one is tried.
        """

    def allocator(self, device: Device) -> Allocator | None:
        """What gives the buffers that users ask for on a device (`Runtime.buffer`); asked once.

        Args:
            device: One that `probe` returned.

        Returns:
            None when the host's memory is as good as any.
        """
        return None

    def power(self, device: Device) -> PowerControl | None:
        """What sets the power mode of a device; asked once.

        Cheap: nothing is started, no device woken up.

        Args:
            device: One that `probe` returned.

        Returns:
            None when it has no modes, or none that can be set from here.
        """
        return None

    def checks(self) -> Sequence[Check]:
        """What `hetero doctor` tells about this backend beside its devices, also where there are none.

        Nothing is loaded; a tool of the vendor's may be asked. Must not raise.
        """
        return ()

    def trial_programs(self) -> Sequence[str]:
        """Names of programs that `hetero doctor` tries on this backend's devices too: kernels compiled for them."""
        return ()

    def trial_artifacts(self) -> Sequence[Artifact]:
        """The small program of `hetero doctor` (`y = x @ w + b`) in a form that devices take which take no ONNX."""
        return ()

    def compiler(self, options: Mapping[str, Any]) -> str:
        """Name and version of what `compile` would use (`rknn-toolkit2 2.5.0`): compiled artifacts are cached by it.

        Cheap: nothing is installed or started.

        Args:
            options: A value for every one of `compile_options`, checked.

        Raises:
            Unavailable: It cannot be had on this machine; the reason and the fix.
            Unsupported: This backend does not compile.
        """
        raise Unsupported(f"the backend {self.name!r} does not compile")

    def compile(self, request: CompileRequest, out: Path, progress: Progress) -> CompileReport:
        """Build an artifact from the program's ONNX model, and compare its answers with ONNX Runtime's.

        The core keeps the result, refuses it when it falls short of `request.min_cosine`, and writes the bundle.

        Args:
            request: What to compile; shapes and data are checked.
            out: An empty folder for the artifact. Removed when this raises.
            progress: Told about stages; may raise, to stop.

        Raises:
            CompileError: The compiler refuses the model or fails; in its own words, and where its log is.
            Unavailable: It is not here and cannot be fetched.
            Unsupported: This backend does not compile.
        """
        raise Unsupported(f"the backend {self.name!r} does not compile")

    def close(self) -> None:  # noqa: B027
        """Free what the backend holds. Called once, after its executables are closed."""


BackendFactory = Callable[[Host], Backend]
