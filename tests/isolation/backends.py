"""A backend that does what its input's first value says, which may be its end.

It talks to the tests through named pipes: `Runtime(options={"crash": {"pipes": FOLDER}})`; see `Pipes`.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hetero import errors
from hetero.backend import (
    Array,
    Artifact,
    Backend,
    Call,
    Device,
    Executable,
    Host,
    Option,
    PolledExecutable,
    Program,
    TensorSpec,
    Ticket,
)

F32 = np.dtype(np.float32)


def echo(dtype: Any = F32, shape: Any = ("n",), **options: Any) -> Program:
    """y = x, or what the input's first value asks for."""
    dtype = np.dtype(dtype)
    return Program(
        "echo",
        (TensorSpec("x", dtype, shape),),
        (TensorSpec("y", dtype, shape),),
        (Artifact("test", payload="echo"),),
        {"crash": options},
    )


def _segfault() -> None:
    ctypes.string_at(0)


def _kill(number: int = signal.SIGSEGV) -> None:
    os.kill(os.getpid(), number)
    threading.Event().wait()  # another thread may be the one that is hit


def _abort() -> None:
    os.abort()


def _exit() -> None:
    sys.exit(3)


def _exit_with_a_text() -> None:
    sys.exit("the licence has expired")


def _terminate() -> None:
    _kill(signal.SIGTERM)


DEATHS: dict[float, Callable[[], None]] = {
    -1: _segfault,
    -2: _kill,
    -3: _abort,
    -4: _exit,
    -5: _exit_with_a_text,
    -6: _terminate,
}
HANG, HANG_WITH_GIL, FORK_AND_DIE, WAIT = -10, -11, -12, -13
REFUSE, TIMEOUT, FOREIGN, BAD_TYPE, NO_MAPPING, UNPICKLABLE, SCRIBBLE, TRANSPOSE = (
    -20,
    -21,
    -22,
    -23,
    -24,
    -25,
    -26,
    -27,
)
PID, LANE = -30, -31

# Seconds that a test waits for the other end of a pipe.
LIMIT = 60.0


class Crashing(Backend):
    name = "crash"
    simulates = ("rk9999",)
    options = (
        Option("pipes", str, "", "Folder of the pipes."),
        Option("lanes", int, 1, "Lanes.", minimum=1),
        Option("on_load", str, "", "What loading does."),
        Option("polled", bool, False, "Start and poll."),
    )

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self.probed: list[Device] = []

    def probe(self) -> Sequence[Device]:
        import tests.isolation.vendor  # noqa: F401

        if "CRASH_PROBE" in self.host.environ:
            _segfault()
        if "NO_DRIVER" in self.host.environ:
            raise errors.Unavailable("no driver", fix="modprobe crash")
        self.probed = [Device("crash", kind="npu", properties={"path": Path("/dev/crash"), "cores": np.int64(3)})]
        return self.probed

    def load(self, program: Program, device: Device, options: Mapping[str, Any]) -> Executable | PolledExecutable:
        assert any(device is known for known in self.probed), "not one that probe() gave"
        if options["on_load"] == "crash":
            _segfault()
        if options["on_load"] == "refuse":
            raise errors.Unsupported("op Foo is not supported", fix="export it without Foo")
        if options["on_load"] == "broken":
            raise errors.ProgramInvalid("the file is cut off")
        if options["on_load"] == "nothing":
            return None  # type: ignore[return-value]
        if options["on_load"] == "once":
            marker = Path(options["pipes"]) / "loaded"
            if marker.exists():
                raise errors.Unsupported("only once")
            marker.touch()
        return PolledEcho() if options["polled"] else Echo(options["lanes"], options["pipes"])


def make_crashing(host: Host) -> Backend:
    return Crashing(host)


class Echo(Executable):
    def __init__(self, lanes: int, pipes: str) -> None:
        self.lanes = lanes
        self.details = {"driver": Path("/lib/libcrash.so")}
        self._pipes = Path(pipes)
        self._cancelled = threading.Event()

    def run(self, inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        x = inputs["x"]
        what = float(x.flat[0]) if x.dtype == F32 and x.size else 0.0
        if what in DEATHS:
            DEATHS[what]()
        if what == HANG:
            self._say("in")
            self._cancelled.wait()
            self._cancelled.clear()
            raise errors.ExecutionError("it was cancelled")
        if what == HANG_WITH_GIL:
            self._say("in")
            ctypes.PyDLL(None).pause()
        if what == WAIT:
            self._say("in")
            (self._pipes / "go").read_bytes()
        if what == FORK_AND_DIE:
            if os.fork() == 0:
                (self._pipes / "go").read_bytes()
                os._exit(0)
            _kill()
        if what == REFUSE:
            raise errors.Unsupported("not these shapes", fix="pad to 8")
        if what == TIMEOUT:
            raise errors.DeviceTimeout("core 1 does not answer")
        if what == FOREIGN:
            from tests.isolation.vendor import VendorError

            raise VendorError("code -7")
        if what == BAD_TYPE:
            return {"y": [1.0]}  # type: ignore[dict-item]
        if what == NO_MAPPING:
            return [x]  # type: ignore[return-value]
        if what == UNPICKLABLE:
            return {"y": np.array([lambda: None], dtype=object)}
        if what == SCRIBBLE:
            answer = x.copy()
            x[...] = 7
            return {"y": answer}
        if what == TRANSPOSE:
            return {"y": x[::2]}
        if what == PID:
            return {"y": np.full_like(x, os.getpid())}
        if what == LANE:
            return {"y": np.full_like(x, call.lane)}
        return {"y": x}

    def cancel(self, call: Call) -> bool:
        self._cancelled.set()
        return True

    def _say(self, word: str) -> None:
        with (self._pipes / "in").open("w") as pipe:
            pipe.write(f"{word}\n")


class PolledEcho(PolledExecutable):
    def start(self, inputs: Mapping[str, Array], call: Call) -> Ticket:
        return _Done(inputs["x"] + 1)


class _Done:
    def __init__(self, y: Array) -> None:
        self._turns = 3
        self._y = y

    def done(self) -> bool:
        self._turns -= 1
        return self._turns < 0

    def result(self) -> Mapping[str, Array]:
        return {"y": self._y}


class Pipes:
    """The tests' end: `in` tells that a run is under way, `go` lets it go on.

    No wait here is without a bound: a test whose other end never comes fails, rather than that it hangs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("in", "go"):
            os.mkfifo(folder / name)

    def wait(self) -> None:
        """Until a run is under way."""
        # Opened for writing too, it neither waits for the other end nor reads the end of the file meanwhile.
        pipe = os.open(self.folder / "in", os.O_RDWR)
        try:
            ready, _, _ = select.select([pipe], [], [], LIMIT)
            assert ready, "no run has begun"
            assert os.read(pipe, 3) == b"in\n"
        finally:
            os.close(pipe)

    def go(self) -> None:
        """Let it go on."""
        deadline = time.monotonic() + LIMIT
        while True:
            try:
                pipe = os.open(self.folder / "go", os.O_WRONLY | os.O_NONBLOCK)
            except OSError as error:
                if error.errno != errno.ENXIO or time.monotonic() > deadline:
                    raise AssertionError("nobody waits to go on") from error
                time.sleep(0.005)
            else:
                break
        os.write(pipe, b"go")
        os.close(pipe)
