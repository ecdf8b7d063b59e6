"""The parent's side: a Backend that forwards everything to one in a process of its own."""

from __future__ import annotations

import itertools
import logging
import pickle
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, ClassVar

from hetero.backend import Artifact, Backend, BackendFactory, Call, Check, Device, Executable, Host, PowerControl
from hetero.compiling.report import CompileReport, CompileRequest, Progress
from hetero.errors import ClosedError, CompileError, DeviceLost, HeteroError, OptionError, Unsupported
from hetero.isolation.process import Made, Process
from hetero.isolation.samples import pack_samples
from hetero.program import Program
from hetero.tensors import Array

_log = logging.getLogger(__name__)

# Seconds that the child has for answering whether a call can be cancelled, and for closing an executable.
_CANCEL = 1.0
_UNLOAD = 15.0

_PERIOD = 60.0


def isolated(
    factory: type[Backend] | BackendFactory, *, restarts: int = 5, clock: Callable[[], float] = time.monotonic
) -> BackendFactory:
    """A backend that runs in a process of its own.

    The process is started when the backend is first asked for something. If it dies, every call in it raises
    DeviceLost; the next call starts another one and loads its program again.

    Args:
        factory: A Backend class, or a function that makes one. It is imported by name in the process.
        restarts: How often the process may be started again within a minute.
        clock: Seconds, for tests.

    Returns:
        A Backend class that declares the same, where a class was given; else a function.

    Raises:
        OptionError: It cannot be imported by name.
    """
    reference = _reference(factory)
    settings = {"_reference": reference, "_restarts": restarts, "_clock": staticmethod(clock)}
    if isinstance(factory, type) and issubclass(factory, Backend):
        declared = Made(factory.name, factory.options, factory.simulates, factory.targets, factory.compile_options)
        return _named(declared, settings)

    def make(host: Host) -> Backend:
        # What a function makes is known only when it has been called, and it is called in the process.
        backend = _named(Made(getattr(factory, "__name__", "backend")), settings)(host)
        for name, value in _declared(backend.process().made).items():
            setattr(type(backend), name, value)
        return backend

    make.__name__ = getattr(factory, "__name__", repr(factory))
    return make


class IsolatedBackend(Backend):
    """What `isolated` makes subclasses of."""

    _reference: ClassVar[bytes]
    _restarts: ClassVar[int]
    _clock: ClassVar[Callable[[], float]]

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self._lock = threading.RLock()
        self._current: Process | None = None
        self._started: deque[float] = deque()
        self._closed = False
        self._finalizer: weakref.finalize[..., Any] | None = None

    def probe(self) -> Sequence[Device]:
        """See `Backend.probe`."""
        devices: list[Device] = self.process().ask(("probe",))[0]
        return devices

    def load(self, program: Program, device: Device, options: Mapping[str, Any]) -> Executable:
        """See `Backend.load`."""
        what = _pickled(self.name, program.name, (program, dict(options)))
        return IsolatedExecutable(self, device.name, what)

    def power(self, device: Device) -> PowerControl | None:
        """See `Backend.power`: in this process, since the mode has to be put back when the other one has crashed."""
        return self._here("power").power(device)

    def checks(self) -> Sequence[Check]:
        """See `Backend.checks`."""
        return self._here("checks").checks()

    def trial_programs(self) -> Sequence[str]:
        """See `Backend.trial_programs`."""
        return self._here("trial_programs").trial_programs()

    def trial_artifacts(self) -> Sequence[Artifact]:
        """See `Backend.trial_artifacts`."""
        return self._here("trial_artifacts").trial_artifacts()

    def compiler(self, options: Mapping[str, Any]) -> str:
        """See `Backend.compiler`."""
        found: str = self.process().ask(("compiler", dict(options)))[0]
        return found

    def compile(self, request: CompileRequest, out: Path, progress: Progress) -> CompileReport:
        """See `Backend.compile`: in the process, where a compiler that crashes takes nothing else with it.

        When `progress` raises, the process hears of it as it next tells about a stage.
        """
        samples, counts = pack_samples(request)
        what = _pickled(self.name, request.program.name, replace(request, calibration=(), checks=()))
        try:
            told = self.process().ask(("compile", what, counts, out.absolute()), samples, progress=progress)[0]
        except DeviceLost as error:
            raise CompileError(
                f"{request.program.name!r} was not compiled for {request.target}: {error.problem}",
                fix="what the compiler printed tells more; try other options, or another version of it",
            ) from error
        return CompileReport.from_dict(told)

    def _here(self, method: str) -> Backend:
        """The backend itself in this process, for a method that touches no vendor runtime, if it has one of its own."""
        kind = pickle.loads(self._reference)
        if (
            isinstance(kind, type)
            and issubclass(kind, Backend)
            and getattr(kind, method) is not getattr(Backend, method)
        ):
            return kind(self.host)
        return _Silent(self.host)

    def close(self) -> None:
        """End the process; calls in it raise ClosedError. Bounded: one that does not leave is killed."""
        self._closed = True
        if self._current is not None:
            self._current.close()
        if self._finalizer is not None:
            self._finalizer.detach()

    def process(self) -> Process:
        """The process, started if need be.

        Raises:
            DeviceLost: It has died too often of late, or died while the backend was made.
            ClosedError: The backend is closed.
        """
        with self._lock:
            if self._closed:
                raise ClosedError(f"the backend {self.name!r} is closed", fix="make a new Runtime")
            last = self._current
            if last is not None and not last.dead:
                return last
            if last is not None:
                self._check_restarts()
                last.close()
                _log.warning("starting the process of backend %s again", self.name)
            process = self._current = Process(self.name)
            if self._finalizer is not None:
                self._finalizer.detach()
            self._finalizer = weakref.finalize(self, process.close)
            if self._closed:
                process.close()
            try:
                host = replace(self.host, environ=dict(self.host.environ))
                process.made = process.ask(("make", self._reference, host))[0]
            except BaseException:
                process.close()
                raise
            return process

    def _check_restarts(self) -> None:
        now = type(self)._clock()
        while self._started and self._started[0] <= now - _PERIOD:
            self._started.popleft()
        if len(self._started) >= self._restarts:
            wait = self._started[0] + _PERIOD - now if self._started else _PERIOD
            raise DeviceLost(
                f"the process of backend {self.name!r} died again after {len(self._started)} restarts within a minute; "
                f"it is not started for another {wait:.0f} s"
            )
        self._started.append(now)


class _Silent(Backend):
    """Says what a backend says that has nothing to say."""

    name = "silent"

    def probe(self) -> Sequence[Device]:
        return ()

    def load(self, program: Program, device: Device, options: Mapping[str, Any]) -> Executable:
        raise Unsupported("it loads nothing")


class IsolatedExecutable(Executable):
    """A program loaded in a backend's process.

    Args:
        backend: The backend.
        device: The device's name.
        what: The program and the options, pickled; kept for loading it again.
    """

    def __init__(self, backend: IsolatedBackend, device: str, what: bytes) -> None:
        self._backend = backend
        self._device = device
        self._what = what
        self._lock = threading.RLock()
        self._key = next(_keys)
        self._tickets = itertools.count(1)
        self._closed = False
        self._cancellable = False
        self._process = process = backend.process()
        self.lanes, (self.units, self.weights), self.batch, self.min_cosine = self._load(process)
        self._running = [0] * self.lanes

    def run(self, inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        """See `Executable.run`; DeviceLost when the process dies."""
        process = self._process
        if process.dead or self._closed:
            process = self._load_again()
        ticket = self._running[call.lane] = next(self._tickets)
        try:
            return process.ask(("run", self._key, call.lane, ticket, call.number, dict(call.options)), inputs)[1]
        finally:
            self._running[call.lane] = 0

    def cancel(self, call: Call) -> bool:
        """Whether the executable in the process could end the call; False too when the process does not answer."""
        ticket = self._running[call.lane]
        if not self._cancellable or not ticket:
            return False
        try:
            return bool(self._process.ask(("cancel", self._key, call.lane, ticket), timeout=_CANCEL)[0])
        except HeteroError:
            return False

    def close(self) -> None:
        """Free the program in the process."""
        self._closed = True
        if not self._process.dead:
            self._process.ask(("unload", self._key), timeout=_UNLOAD)

    def _load(self, process: Process) -> tuple[int, tuple[Sequence[str], Sequence[float]], int, float | None]:
        *shape, self._cancellable, details = process.ask(("load", self._key, self._device, self._what))[0]
        self.details = {**details, "isolated": True, "pid": process.pid}
        lanes, units, batch, min_cosine = shape
        return lanes, units, batch, min_cosine

    def _load_again(self) -> Process:
        with self._lock:
            if self._closed:
                raise ClosedError("this executable is closed")
            if not self._process.dead:
                return self._process
            process = self._backend.process()
            try:
                lanes, *_ = self._load(process)
            except (ClosedError, DeviceLost):
                raise
            except HeteroError as error:
                raise DeviceLost(
                    f"the process of backend {self._backend.name!r} died, and in the next one the program cannot be "
                    f"loaded: {error.problem}",
                    fix=error.fix,
                ) from error
            if lanes < self.lanes:
                raise DeviceLost(f"the device {self._device!r} came back with {lanes} lanes, it had {self.lanes}")
            self._process = process
            return process


def _pickled(backend: str, program: str, what: object) -> bytes:
    try:
        return pickle.dumps(what, pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        raise Unsupported(
            f"{program!r} cannot be handed to the process of backend {backend!r}: {error}",
            fix="make its artifacts' payloads of classes and functions that a module has by name",
        ) from error


def _reference(factory: type[Backend] | BackendFactory) -> bytes:
    """The factory by the name under which a module has it."""
    try:
        if getattr(factory, "__module__", "") == "__main__":
            raise ValueError("it is defined in the main script, which is not imported there")
        return pickle.dumps(factory, pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        raise OptionError(
            f"{factory!r} cannot run in a process of its own, since it cannot be imported there by name: {error}",
            fix="define it at the top of a module, or leave it out of isolate=",
        ) from error


def _named(made: Made, settings: Mapping[str, Any]) -> type[IsolatedBackend]:
    return type("IsolatedBackend", (IsolatedBackend,), {**_declared(made), "__module__": __name__, **settings})


def _declared(made: Made) -> dict[str, Any]:
    """The attributes of a Backend class that declares it."""
    return {field.name: getattr(made, field.name) for field in fields(Made)}


_keys = itertools.count(1)
