"""A program on one device: not loaded yet, ready, or passed over with the reason."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping

from hetero.backend import Call, Executable, PolledExecutable
from hetero.errors import (
    ClosedError,
    ExecutionError,
    HeteroError,
    InputError,
    ProgramError,
    Unavailable,
    Unsupported,
    WrongAnswer,
)
from hetero.scheduler.polling import run_polled
from hetero.telemetry.records import Attempt, Outcome, Stage
from hetero.tensors import Array, Signature

_log = logging.getLogger(__name__)

Run = Callable[[Mapping[str, Array], Call], Mapping[str, Array]]


class Lanes:
    """The lanes of an executable: as many calls as it has lanes, the rest wait.

    Args:
        count: How many calls may be in the executable at once.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._free: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        for lane in range(count):
            self._free.put(Call(lane))

    def acquire(self) -> Call:
        """A free lane, waiting for one.

        Raises:
            ClosedError: The lanes were closed meanwhile.
        """
        call = self._free.get()
        if call is None:
            self._free.put(None)
            raise ClosedError("the session was closed while this request waited for a lane")
        return call

    def release(self, call: Call) -> None:
        """Give a lane back."""
        self._free.put(call)

    def close(self, timeout: float) -> bool:
        """Let no further call in and wait for those inside.

        Returns:
            Whether all of them ended in time.
        """
        deadline = time.monotonic() + timeout
        try:
            for _ in range(self._count):
                self._free.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            return False
        finally:
            self._free.put(None)
        return True


class Candidate:
    """A program on one device.

    Args:
        name: The device's name; of a device that is not here, the name by which the user asked for it.
        backend: The name of its backend.
        simulated: The device is a simulator.
        load: Loads the program.
        signature: Checks the outputs.

    Attributes:
        executable: The loaded program; None before the load and after a refusal.
        passed_over: Why requests no longer come here, as the attempt that each record shows; None while they do.
    """

    def __init__(
        self,
        name: str,
        backend: str,
        simulated: bool,
        load: Callable[[], Executable | PolledExecutable],
        signature: Signature,
    ) -> None:
        self.name = name
        self.backend = backend
        self.simulated = simulated
        self.executable: Executable | PolledExecutable | None = None
        self.passed_over: Attempt | None = None
        self._load = load
        self._signature = signature
        self._lock = threading.Lock()
        self._lanes: Lanes | None = None
        self._run: Run | None = None

    @classmethod
    def absent(cls, name: str, reason: str) -> Candidate:
        """A device that the user's chain names and that is not on this machine: passed over from the start."""

        def load() -> Executable:
            raise Unavailable(reason)

        candidate = cls(name, name, False, load, Signature((), ()))
        candidate.passed_over = candidate.attempt("probe", "unavailable", reason)
        return candidate

    def load(self) -> Attempt | None:
        """Load the program, once; later calls return at once.

        Returns:
            The attempt, when this call was the one that loaded; None when that was done before.

        Raises:
            ProgramError: The program is broken for every device.
        """
        with self._lock:
            if self._run is not None or self.passed_over is not None:
                return None
            started = time.perf_counter()
            try:
                executable = self._load()
                if not isinstance(executable, Executable | PolledExecutable) or executable.lanes < 1:
                    raise TypeError(
                        f"load() gave {executable!r}, expected an Executable or PolledExecutable with at least one lane"
                    )
            except ProgramError:
                raise
            except Exception as error:
                outcome: Outcome = "unsupported" if isinstance(error, Unsupported) else "failed"
                seconds = time.perf_counter() - started
                self.passed_over = self.attempt("load", outcome, reason_of(error), seconds)
                _log.info("%s", self.passed_over)
                return self.passed_over
            self.executable = executable
            self._lanes = Lanes(executable.lanes)
            self._run = _run_of(executable)
            return self.attempt("load", "ok", seconds=time.perf_counter() - started)

    @property
    def ready(self) -> bool:
        """Loaded, so that a request can go straight in."""
        return self._run is not None

    def run(self, inputs: Mapping[str, Array], attempts: list[Attempt]) -> tuple[Mapping[str, Array] | None, float]:
        """One call on the device.

        Args:
            inputs: Checked arrays.
            attempts: What this device did is added to it.

        Returns:
            The outputs, None when the device failed or refused; and the seconds spent waiting for a lane.

        Raises:
            InputError: The backend found the caller's input to be wrong.
            ClosedError: The session was closed meanwhile.
        """
        lanes, run = self._lanes, self._run
        if lanes is None or run is None:
            raise ClosedError("the session is closed")
        arrived = time.perf_counter()
        call = lanes.acquire()
        started = time.perf_counter()
        try:
            outputs = run(inputs, call)
            seconds = time.perf_counter() - started
            self._signature.check_outputs(outputs)
        except (InputError, ClosedError):
            raise
        except Unsupported as error:
            attempts.append(self.attempt("run", "unsupported", str(error.problem), time.perf_counter() - started))
            return None, started - arrived
        except Exception as error:
            attempts.append(self.attempt("run", "failed", reason_of(error), time.perf_counter() - started))
            return None, started - arrived
        finally:
            lanes.release(call)
        attempts.append(Attempt(self.name, "run", "ok", "", seconds, self.simulated))
        return outputs, started - arrived

    def set_aside(self, attempt: Attempt) -> None:
        """Send no further requests here: the device failed."""
        self.passed_over = self.attempt(attempt.stage, "set aside", f"failed earlier: {attempt.reason}")

    def attempt(self, stage: Stage, outcome: Outcome, reason: str = "", seconds: float = 0.0) -> Attempt:
        """An attempt on this device."""
        return Attempt(self.name, stage, outcome, reason, seconds, self.simulated)

    def close(self, timeout: float) -> bool:
        """Wait for running calls, then free the executable. One that is still busy after `timeout` is left alone.

        Returns:
            Whether no call is running any more.
        """
        with self._lock:
            executable, self.executable, self._run = self.executable, None, None
            if executable is None:
                return True
            if self._lanes is not None and not self._lanes.close(timeout):
                _log.warning("%s still has a call running; its executable is not freed", self.name)
                return False
        try:
            executable.close()
        except Exception:
            _log.exception("%s: closing an executable failed", self.name)
        return True


def reason_of(error: BaseException) -> str:
    """An error in one line: its message, and its type unless hetero's own types tell no more than the message."""
    text = str(error.problem if isinstance(error, HeteroError) else error).strip() or "no message"
    plain = type(error) in (Unsupported, ExecutionError, WrongAnswer)
    return text if plain else f"{type(error).__name__}: {text}"


def _run_of(executable: Executable | PolledExecutable) -> Run:
    if isinstance(executable, Executable):
        return executable.run
    return lambda inputs, call: run_polled(executable, inputs, call)
