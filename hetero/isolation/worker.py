"""The child: one backend, asked by its parent over channels, each served by a thread of its own."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import pickle
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from hetero.backend import AnyExecutable, Backend, Call, Device, Executable, Host, PolledExecutable
from hetero.compiling.report import Progress
from hetero.errors import (
    ClosedError,
    DeviceLost,
    DeviceTimeout,
    PluginError,
    Unavailable,
    Unsupported,
    WrongAnswer,
)
from hetero.isolation.channel import Channel, Told
from hetero.isolation.failures import Failure, plain, plain_device
from hetero.isolation.process import Made
from hetero.isolation.samples import unpack_samples
from hetero.scheduler.polling import run_polled
from hetero.tensors import Array

# Seconds that closing an executable waits for a run whose caller was interrupted and has gone.
_PATIENCE = 10.0

_NONE: Mapping[str, Array] = {}

Answer = tuple[Any, Mapping[str, Array]]
Run = Callable[[Mapping[str, Array], Call], Mapping[str, Array]]


class Worker:
    """The backend and what it has loaded. Each public method is a request."""

    def __init__(self) -> None:
        self._backend: Backend | None = None
        self._devices: dict[str, Device] = {}
        self._loaded: dict[int, _Loaded] = {}
        self._lock = threading.Lock()
        self._closed = False

    def answer(self, request: Sequence[Any], inputs: Mapping[str, Array], progress: Progress) -> Answer:
        """What a request asks for. Raises what the backend raises."""
        name, *arguments = request
        if name == "run":
            return self.run(inputs, *arguments)
        if name == "compile":
            return self.compile(inputs, progress, *arguments), _NONE
        return getattr(self, name)(*arguments), _NONE

    def make(self, reference: bytes, host: Host) -> Made:
        """Import the backend and make it.

        Returns:
            What it declares.
        """
        try:
            factory = pickle.loads(reference)
        except Exception as error:
            raise Unavailable(f"the backend cannot be imported in its process: {_text(error)}") from error
        self._backend = backend = factory(host)
        return Made(
            backend.name,
            tuple(backend.options),
            tuple(map(str, backend.simulates)),
            tuple(map(str, backend.targets)),
            tuple(backend.compile_options),
        )

    def probe(self) -> list[Device]:
        """The backend's devices."""
        devices = list(self._made.probe())
        with self._lock:
            self._devices = {device.name: device for device in devices}
        return [plain_device(device) for device in devices]

    def load(self, key: int, device: str, what: bytes) -> tuple[Any, ...]:
        """Load a program.

        Returns:
            Lanes, units and weights, batch, least cosine, whether calls can be cancelled, details.
        """
        try:
            program, options = pickle.loads(what)
        except Exception as error:
            raise Unsupported(f"the program cannot be read in the backend's process: {_text(error)}") from error
        if not self._devices:
            self.probe()
        if device not in self._devices:
            raise DeviceLost(f"the device {device!r} is not there any more")
        executable = self._made.load(program, self._devices[device], options)
        if not isinstance(executable, AnyExecutable) or executable.lanes < 1:
            raise PluginError(
                f"load() gave {executable!r}, expected an Executable or PolledExecutable with at least one lane"
            )
        self._loaded[key] = loaded = _Loaded(executable)
        units = tuple(map(str, executable.units)), tuple(map(float, executable.weights))
        shape = executable.lanes, units, executable.batch, executable.min_cosine
        return *shape, loaded.cancellable, plain(executable.details)

    def run(
        self, inputs: Mapping[str, Array], key: int, lane: int, ticket: int, number: int, options: Mapping[str, Any]
    ) -> Answer:
        """Run a loaded program once."""
        loaded = self._loaded.get(key)
        if loaded is None:
            raise ClosedError("this executable is closed")
        outputs = loaded.run(inputs, lane, ticket, number, options)
        if not isinstance(outputs, Mapping):
            raise WrongAnswer(f"run() gave a {type(outputs).__name__}, expected a mapping from output name to array")
        for name, array in outputs.items():
            if not isinstance(array, np.ndarray):
                raise WrongAnswer(f"output {name!r} is a {type(array).__name__}, expected a numpy array")
        return None, outputs

    def cancel(self, key: int, lane: int, ticket: int) -> bool:
        """Ask a run to end; false when it is over already."""
        loaded = self._loaded.get(key)
        return loaded is not None and loaded.cancel(lane, ticket)

    def unload(self, key: int) -> None:
        """Close an executable."""
        loaded = self._loaded.pop(key, None)
        if loaded is not None:
            loaded.close(_PATIENCE)

    def compiler(self, options: Mapping[str, Any]) -> str:
        """What the backend compiles with."""
        return str(self._made.compiler(options))

    def compile(
        self, samples: Mapping[str, Array], progress: Progress, what: bytes, counts: tuple[int, int], out: Path
    ) -> Mapping[str, Any]:
        """Compile.

        Args:
            samples: See `pack_samples`.
            progress: Told about stages.
            what: The request, pickled, without its samples.
            counts: How many samples there are for calibration, and to compare on.
            out: Folder for the artifact.

        Returns:
            The report, in plain values.
        """
        try:
            request = pickle.loads(what)
        except Exception as error:
            raise Unsupported(f"the program cannot be read in the backend's process: {_text(error)}") from error
        calibration, checks = unpack_samples(samples, counts)
        request = replace(request, calibration=calibration, checks=checks)
        report = self._made.compile(request, out, lambda stage, done: progress(str(stage), float(done)))
        told: Mapping[str, Any] = plain(report.to_dict())
        return told

    def close(self) -> None:
        """Close everything; what is in the middle of a run is left alone, and the backend with it."""
        with self._lock:
            self._closed = True
            left, self._loaded = list(self._loaded.values()), {}
        errors: list[Exception] = []
        for loaded in left:
            try:
                loaded.close(0)
            except Exception as error:
                errors.append(error)
        if self._backend is not None and not any(isinstance(error, DeviceTimeout) for error in errors):
            self._backend.close()
        if errors:
            raise errors[0]

    @property
    def _made(self) -> Backend:
        if self._backend is None or self._closed:
            raise ClosedError("the backend is closed")
        return self._backend


class _Loaded:
    """An executable, with the calls that its lanes have here."""

    def __init__(self, executable: AnyExecutable) -> None:
        self._executable = executable
        kind = Executable if isinstance(executable, Executable) else PolledExecutable
        self.cancellable = type(executable).cancel is not kind.cancel
        self._lanes = [_Lane(number) for number in range(executable.lanes)]

    def run(
        self, inputs: Mapping[str, Array], lane: int, ticket: int, number: int, options: Mapping[str, Any]
    ) -> Mapping[str, Array]:
        """Run on a lane, which is free unless its last caller was interrupted: then that run is waited for."""
        state = self._lanes[lane]
        executable, call = self._executable, state.call
        with state.lock:
            call.cancelled, call.number, call.options = False, number, options
            call.started = time.perf_counter()
            state.ticket = ticket
            try:
                if isinstance(executable, Executable):
                    return executable.run(inputs, call)
                return run_polled(executable, inputs, call)
            finally:
                state.ticket = 0
                call.started = 0.0

    def cancel(self, lane: int, ticket: int) -> bool:
        state = self._lanes[lane]
        if state.ticket != ticket:
            return False
        state.call.cancelled = True
        state.call.cancelled = done = bool(self._executable.cancel(state.call))
        return done

    def close(self, patience: float) -> None:
        held = []
        try:
            for state in self._lanes:
                if not state.lock.acquire(timeout=patience):
                    raise DeviceTimeout(f"lane {state.call.lane} is still running; its executable is not freed")
                held.append(state)
            self._executable.close()
        finally:
            for state in held:
                state.lock.release()


class _Lane:
    def __init__(self, number: int) -> None:
        self.call = Call(number)
        self.lock = threading.Lock()
        self.ticket = 0


def serve(worker: Worker, channel: Channel) -> None:
    """Answer one request after the other until the parent closes the channel."""
    inputs: Mapping[str, Array] = _NONE
    outputs: Mapping[str, Array] = _NONE
    value: Any = None
    while True:
        try:
            request, layout = channel.receive()
        except (EOFError, OSError):
            channel.close()
            return
        try:
            inputs = channel.arrays(layout, copy=False)
            value, outputs = worker.answer(request, inputs, lambda stage, done: channel.send(Told(stage, done)))
        except SystemExit as error:
            _leave(error)
        except BaseException as error:
            value, outputs = Failure.of(error), _NONE
        try:
            _reply(channel, value, outputs)
        except OSError:
            channel.close()
            return
        # A run's arrays live no longer than the run: the blocks behind them are written to by the next one.
        inputs = outputs = _NONE


def _reply(channel: Channel, value: Any, outputs: Mapping[str, Array]) -> None:
    try:
        channel.send(value, outputs)
    except OSError:
        raise
    except Exception as error:
        channel.send(Failure.of(error))


def main() -> None:
    """Serve the parent that started this process, until it ends."""
    control, lifeline, report, parent = map(int, sys.argv[1:5])
    del sys.argv[1:]
    for descriptor in (control, lifeline, report):
        os.set_inheritable(descriptor, False)
    faulthandler.enable(report, all_threads=False)
    # Ctrl-C goes to every process of a terminal; the parent is the one to decide what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _die_with(lifeline)
    if os.getppid() != parent:
        os._exit(1)
    worker = Worker()
    with socket.socket(fileno=control) as requests:
        while True:
            try:
                _, descriptors, _, _ = socket.recv_fds(requests, 1, 1)
            except OSError:
                break
            if not descriptors:
                break
            channel = Channel(socket.socket(fileno=descriptors[0]))
            threading.Thread(target=serve, args=(worker, channel), daemon=True).start()
    # The parent has closed the backend, or has died. Threads that hang in vendor code would hang the interpreter's end.
    _flush()
    os._exit(0)


def _die_with(lifeline: int) -> None:
    """Have the kernel kill this process when the other end of a pipe is closed, even if vendor code holds the GIL."""
    try:
        import fcntl

        fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    except (ImportError, AttributeError, OSError):
        pass  # not Linux: the end of `main` has to do


def _leave(error: SystemExit) -> NoReturn:
    """What `sys.exit` means: the end of the process, also from a thread."""
    code = error.code
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)  # noqa: T201  as the interpreter does
        code = 1
    _flush()
    os._exit((code or 0) & 0xFF)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
