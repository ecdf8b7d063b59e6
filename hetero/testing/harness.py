"""Calling a backend as the scheduler does, with a limit on every call, and failures in words."""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np
import pytest

from hetero.backend import AnyExecutable, Backend, Call, Device, PolledExecutable
from hetero.errors import HeteroError, Unavailable, Unsupported
from hetero.options import check_options
from hetero.program import Program
from hetero.scheduler.polling import run_polled
from hetero.tensors import Array
from hetero.testing.programs import ReferenceProgram

T = TypeVar("T")

LIMIT = 60.0


def complain(asked: str, found: str, todo: str) -> NoReturn:
    """Fail the case: what the contract asks, what was found, what to do."""
    pytest.fail(f"\n  the contract asks: {asked}\n  found: {found}\n  to do: {todo}", pytrace=False)


def told(error: BaseException) -> str:
    """An error with the last lines of its traceback."""
    lines = "".join(traceback.format_exception(error)).rstrip().splitlines()
    return f"{type(error).__name__}: {error}\n" + "\n".join(f"    {line}" for line in lines[-12:])


def within(what: str, call: Callable[[], T], limit: float = LIMIT) -> T:
    """The result of a call in a thread of its own, as the scheduler's are; one that hangs fails the case.

    Raises:
        BaseException: What the call raised.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(call())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, name=f"conformance: {what}", daemon=True)
    thread.start()
    thread.join(limit)
    if thread.is_alive():
        frame = sys._current_frames().get(thread.ident or 0)
        where = "".join(traceback.format_stack(frame)[-3:]) if frame else ""
        complain(
            f"{what} comes back",
            f"it has not after {limit:g} s; it is at\n{where}",
            "wait for the device with a time-out and raise hetero.errors.DeviceTimeout; `limit` of the test class "
            "allows more",
        )
    if errors:
        raise errors[0]
    return results[0]


class Loaded:
    """A program that a backend has loaded.

    Args:
        subject: What loaded it.
        executable: What `load` gave.
        program: What was loaded.
        reference: Its inputs and right answers.
        device: What it was loaded on; by default the subject's.
    """

    def __init__(
        self,
        subject: Subject,
        executable: AnyExecutable,
        program: Program,
        reference: ReferenceProgram,
        device: Device | None = None,
    ) -> None:
        self._subject = subject
        self._closed = False
        self.device = device or subject.device
        self.executable = executable
        self.program = program
        self.reference = reference

    def __enter__(self) -> Loaded:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def feed(self, seed: int) -> dict[str, Array]:
        """The inputs of a seed, checked as the core does before a call."""
        return self.program.signature.feed([self.reference.inputs(seed)])

    def call(self, inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        """One run in this thread, as the scheduler makes it."""
        executable = self.executable
        call.started = 1.0
        if isinstance(executable, PolledExecutable):
            return run_polled(executable, inputs, call)
        return executable.run(inputs, call)

    def run(self, inputs: Mapping[str, Array], lane: int = 0) -> Mapping[str, Array]:
        """One run within the limit; Unsupported skips the case, any other error fails it."""
        name = self.reference.name
        try:
            return within(f"run() of {name!r}", lambda: self.call(inputs, Call(lane)), self._subject.limit)
        except Unsupported as error:
            pytest.skip(f"{self._subject.backend.name} does not run {name!r}: {error.problem}")
        except Exception as error:
            complain(f"inputs that fit the specs of {name!r} are answered", told(error), "mend the run")

    def check(self, seed: int, lane: int = 0, when: str = "") -> Mapping[str, Array]:
        """One run whose answer must be right."""
        outputs = self.run(self.feed(seed), lane)
        self.compare(seed, outputs, when)
        return outputs

    def compare(self, seed: int, outputs: Mapping[str, Array], when: str = "") -> None:
        """Fail when these are not the right answers to the inputs of a seed."""
        wrong = difference(self.reference.expected(self.reference.inputs(seed)), outputs, self._subject.tolerance)
        if wrong:
            complain(
                f"{self.reference.name!r} gives the answer that numpy gives{when and ', ' + when}",
                wrong,
                "run the program alone and compare; of floats, the greatest value decides what is near enough, and "
                f"`tolerance` ({self._subject.tolerance:g} of it) says how near",
            )

    def close(self) -> None:
        """Close the executable, once."""
        if not self._closed:
            self._closed = True
            self._subject.attempt("close() of an executable", self.executable.close)


class Subject:
    """A backend under test and its devices.

    Args:
        backend: Made for a host of the test's.
        devices: What it found.
        device: The one to test.
        options: What the user of the kit gave.
        folder: Where programs are written.
        limit: Seconds that a call may take.
        tolerance: Of floats, as a share of the greatest value.
    """

    def __init__(
        self,
        backend: Backend,
        devices: Sequence[Device],
        device: Device,
        options: Mapping[str, Any],
        folder: Path,
        limit: float,
        tolerance: float,
    ) -> None:
        self.backend = backend
        self.devices = devices
        self.device = device
        self.limit = limit
        self.tolerance = tolerance
        self._options = options
        self._folder = folder
        self._made: list[Loaded] = []

    def values(self) -> dict[str, Any]:
        """A value for every option, as the core hands them to `load`."""
        return check_options(self.backend.name, self.backend.options, self._options)

    def program(self, reference: ReferenceProgram) -> Program:
        """The reference's program; the case is skipped where it cannot be had."""
        folder = self._folder / "programs"
        folder.mkdir(exist_ok=True)
        try:
            return reference.make(folder)
        except LookupError as error:
            pytest.skip(f"{reference.name!r} cannot be had here: {error.args[0]}")

    def attempt(self, what: str, call: Callable[[], T]) -> T:
        """A call within the limit; errors of hetero pass, any other fails the case."""
        try:
            return within(what, call, self.limit)
        except HeteroError:
            raise
        except Exception as error:
            complain(
                f"what {what} raises is one of hetero.errors",
                told(error),
                "catch it; raise Unsupported (not on this device), ExecutionError (the device failed) or Unavailable",
            )

    def load(self, reference: ReferenceProgram, device: Device | None = None) -> Loaded:
        """Load; a program that the backend does not support skips the case."""
        try:
            return self.try_load(reference, device)
        except Unsupported as error:
            pytest.skip(f"{self.backend.name} does not support {reference.name!r}: {error.problem}")
        except HeteroError as error:
            complain(f"{reference.name!r} is loaded, or refused by Unsupported", told(error), "mend load()")

    def try_load(
        self, reference: ReferenceProgram, device: Device | None = None, values: Mapping[str, Any] | None = None
    ) -> Loaded:
        """Load, and let the errors of hetero pass."""
        program, on = self.program(reference), device or self.device
        options = self.values() if values is None else values
        executable = self.attempt(f"load() of {reference.name!r}", lambda: self.backend.load(program, on, options))
        if not isinstance(executable, AnyExecutable):
            complain(
                "load() gives an Executable or a PolledExecutable",
                repr(executable),
                "inherit from one of them: Executable blocks in run(), PolledExecutable is started and polled",
            )
        self._made.append(Loaded(self, executable, program, reference, on))
        return self._made[-1]

    def any_of(self, references: Sequence[ReferenceProgram]) -> Loaded:
        """The first program that the backend supports, loaded."""
        reasons = []
        for reference in references:
            try:
                return self.try_load(reference)
            except HeteroError as error:
                reasons.append(f"{reference.name}: {error.problem}")
            except pytest.skip.Exception as skipped:
                reasons.append(str(skipped.msg))
        complain(
            "a backend takes at least one of the kit's programs",
            "it refused all of them:\n    " + "\n    ".join(reasons),
            "support one of them, or give programs of your own: `programs` of the test class",
        )

    def close(self) -> None:
        """Close what is still open, then the backend."""
        for loaded in self._made:
            loaded.close()
        self.attempt("close() of the backend", self.backend.close)


def probe(backend: Backend, limit: float = LIMIT) -> list[Device]:
    """What `probe` gives, within the limit; Unavailable passes, any other error fails the case."""
    try:
        return list(within("probe()", backend.probe, limit))
    except Unavailable:
        raise
    except Exception as error:
        complain(
            "probe() gives devices or raises Unavailable",
            told(error),
            "catch what the vendor's library raises and raise Unavailable(reason, fix=...)",
        )


def difference(expected: Mapping[str, Array], got: Mapping[str, Array], tolerance: float) -> str:
    """In words, in what an answer is not the expected one; empty when it is.

    Args:
        expected: The right outputs.
        got: The backend's.
        tolerance: Of floats, as a share of the greatest expected value; integers must be exact.
    """
    if not isinstance(got, Mapping):
        return f"run() gave a {type(got).__name__}, expected a mapping from output name to array"
    for name, right in expected.items():
        answer = got.get(name)
        if answer is None:
            return f"the output {name!r} is missing; there are {sorted(got)}"
        if not isinstance(answer, np.ndarray):
            return f"{name!r} is a {type(answer).__name__}, expected a numpy array"
        if answer.dtype != right.dtype:
            return f"{name!r} has dtype {answer.dtype}, expected {right.dtype}"
        if answer.shape != right.shape:
            return f"{name!r} has shape {answer.shape}, expected {right.shape}"
        if not right.size:
            continue
        wide = (answer.astype(np.float64), right.astype(np.float64))
        worst = float(np.abs(wide[0] - wide[1]).max())
        allowed = tolerance * float(np.abs(wide[1]).max()) if right.dtype.kind == "f" else 0.0
        if not worst <= allowed:
            values = f"{_head(answer)}, expected {_head(right)}"
            return f"{name!r} is wrong by {worst:g}, at most {allowed:g} is right: {values}"
    return ""


def _head(array: Array) -> str:
    values = ", ".join(f"{value:g}" for value in np.ravel(array)[:4].astype(np.float64))
    return f"[{values}{', ...' if array.size > 4 else ''}]"
