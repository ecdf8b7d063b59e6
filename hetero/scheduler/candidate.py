"""A program on one device: not loaded yet, ready, shut out for a while, or passed over for good; with the reason."""

from __future__ import annotations

import concurrent.futures
import logging
import threading
import time
from collections.abc import Callable, Mapping
from threading import get_ident
from typing import TYPE_CHECKING

from hetero.backend import NO_OPTIONS, AnyExecutable, Call, Executable, Kind
from hetero.errors import (
    ClosedError,
    DeviceTimeout,
    InputError,
    NonFiniteOutput,
    OptionError,
    ProgramError,
    Unavailable,
    Unsupported,
    WrongAnswer,
)
from hetero.scheduler.canary import Canary
from hetero.scheduler.costs import CostModel
from hetero.scheduler.examine import ask_again, ask_units
from hetero.scheduler.expectations import Expectations
from hetero.scheduler.interrupts import Interrupts
from hetero.scheduler.lanes import Unit
from hetero.scheduler.outlook import Outlook
from hetero.scheduler.polling import run_polled
from hetero.scheduler.reasons import reason_of
from hetero.telemetry.records import Attempt, Outcome, Stage
from hetero.tensors import Array, Signature

if TYPE_CHECKING:
    from hetero.scheduler.verify import Verifier

_log = logging.getLogger(__name__)

Run = Callable[[Mapping[str, Array], Call], Mapping[str, Array]]


class Candidate(Outlook):
    """A program on one device, and the gate to it.

    Args:
        name: The device's name; of a device that is not here, the name by which the user asked for it.
        backend: The name of its backend.
        simulated: The device is a simulator.
        load: Loads the program.
        signature: Checks the outputs.
        kind: The device's.
        costs: What runs have cost so far.
        cost_key: Makes the key of a cost from the inputs' shapes.
        watts: Declared power of the device at work; None when nobody has said.
        clock: Seconds, on the scheduler's clock.

    Attributes:
        executable: The loaded program; None before the load and after a refusal.
        passed_over: Why requests never come here, as the attempt that each record shows; None while they may.
        canary: Gives what it has to answer before it is trusted, of so many rows; None when there is nothing to ask.
        min_cosine: As its executable has it.
        verifier: Checks answers at run time; None when they are not checked.
        give_back: Makes a lane free again and tells whoever waits for one.
        shut: Called when the device, or a unit of it, was set aside.
        loaded: Called after a load, whatever came of it.
        patience: Seconds that each canary may take at load; None for as long as it takes.
    """

    def __init__(
        self,
        name: str,
        backend: str,
        simulated: bool,
        load: Callable[[], AnyExecutable],
        signature: Signature,
        *,
        kind: Kind = "cpu",
        costs: CostModel | None = None,
        cost_key: tuple[str, str] = ("", ""),
        watts: float | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        expects = Expectations(costs if costs is not None else CostModel(), cost_key, watts)
        super().__init__(name, kind, expects, watts, clock)
        self.backend = backend
        self.simulated = simulated
        self.executable: AnyExecutable | None = None
        self.passed_over: Attempt | None = None
        self.verifier: Verifier | None = None
        self.min_cosine: float | None = None
        self.shut: Callable[[], None] = lambda: None
        self.loaded: Callable[[Attempt], None] = lambda attempt: None
        self.give_back: Callable[[Call], None] = self.lanes.give_back
        self.patience: float | None = None
        self.canary: Callable[[int], Canary | None] = lambda rows: None
        self._rows = 1
        self._load = load
        self._signature = signature
        self._lock = threading.Lock()
        self._interrupts = Interrupts()
        self._run: Run | None = None
        self._closed = False

    @classmethod
    def absent(cls, name: str, reason: str) -> Candidate:
        """A device that the user's chain names and that is not on this machine: passed over from the start."""

        def load() -> AnyExecutable:
            raise Unavailable(reason)

        candidate = cls(name, name, False, load, Signature((), ()))
        candidate.passed_over = candidate.attempt("probe", "unavailable", reason)
        return candidate

    @property
    def ready(self) -> bool:
        """Loaded, whatever its health."""
        return self._run is not None

    @property
    def usable(self) -> bool:
        """Loaded, and at least one of its units is healthy."""
        return self._run is not None and self.lanes.healthy

    @property
    def loadable(self) -> bool:
        """Not loaded so far, and nothing is known against it."""
        return self._run is None and self.passed_over is None and not self._closed

    @property
    def loading(self) -> bool:
        """Somebody loads it at this moment."""
        return self._lock.locked()

    def load(self) -> Attempt | None:
        """Load the program, once, and tell of it; as `_load_once`, which does it."""
        started = self._clock()
        try:
            attempt = self._load_once()
        except (ProgramError, OptionError) as error:
            self.loaded(self.attempt("load", "failed", reason_of(error), self._clock() - started))
            raise
        if attempt is not None:
            self.loaded(attempt)
            if self._closed:
                self.close(0.0)  # whoever closed it meanwhile did not wait for that long
        return attempt

    def _load_once(self) -> Attempt | None:
        """Load the program, once; later calls return at once.

        Returns:
            The attempt, when this call was the one that loaded; None when that was done before.

        Raises:
            ProgramError: The program is broken for every device.
            OptionError: A value of an option that only the backend can check.
        """
        with self._lock:
            if not self.loadable:
                return None
            started = time.perf_counter()
            try:
                executable = self._load()
                if not isinstance(executable, AnyExecutable) or executable.lanes < 1:
                    raise TypeError(
                        f"load() gave {executable!r}, expected an Executable or PolledExecutable with at least one lane"
                    )
            except (ProgramError, OptionError):
                raise
            except Exception as error:
                outcome: Outcome = "unsupported" if isinstance(error, Unsupported) else "failed"
                seconds = time.perf_counter() - started
                self.passed_over = self.attempt("load", outcome, reason_of(error), seconds)
                _log.info("%s", self.passed_over)
                return self.passed_over
            try:
                self.lanes.prepare(executable.lanes, executable.units, executable.weights)
                self._run, self._rows = _run_of(executable), executable.batch
                self.min_cosine = executable.min_cosine
                busy = ask_units(self.lanes, self._check_canary, self.patience, self._late, self.name)
            except Exception as error:
                self._run = None
                seconds = time.perf_counter() - started
                self.passed_over = self.attempt("load", "failed", f"the canary failed: {reason_of(error)}", seconds)
                _log.warning("%s", self.passed_over)
                if not isinstance(error, DeviceTimeout):  # a call that hangs in it must not lose it
                    _close(self.name, executable)
                return self.passed_over
            self.executable, self.pace = executable, executable.pace
            self.lanes.open(busy)
            if self.lanes.reason:
                self.shut()
            return self.attempt("load", "ok", seconds=time.perf_counter() - started)

    def run(self, inputs: Mapping[str, Array], call: Call, attempts: list[Attempt]) -> Mapping[str, Array] | None:
        """One call on the device, on a lane that the caller holds and gives back.

        Args:
            inputs: Checked arrays.
            call: The lane, with the call's options.
            attempts: What this device did is added to it.

        Returns:
            The outputs; None when the device failed or refused, which the breaker then knows.

        Raises:
            InputError: The backend found the caller's input to be wrong.
            NonFiniteOutput: The answer is not finite, and the user wants to hear of that rather than another answer.
            ClosedError: The session was closed meanwhile.
            CancelledError: The call was cancelled and has ended for it.
        """
        run = self._run
        if run is None:
            raise ClosedError("the session is closed")
        clock = self._clock
        call.cancelled = False
        call.turn += 1
        started = call.started = clock()
        heat = self.heat
        call.copy_seconds = verify_seconds = 0.0
        seconds = -1.0
        try:
            outputs = run(inputs, call)
            seconds = clock() - started
            call.started = 0.0  # the device has done its part, and hangs no more
            self._signature.check_outputs(outputs)
            if self.verifier is not None:
                self.verifier.check(self, inputs, outputs)
                verify_seconds = clock() - started - seconds
        except (InputError, ClosedError):
            raise
        except NonFiniteOutput as error:
            if error.final:
                raise
            attempts.append(self.attempt("run", "failed", error.problem, clock() - started, call, get_ident()))
            return None
        except Unsupported as error:
            attempts.append(self.attempt("run", "unsupported", error.problem, clock() - started, call, get_ident()))
            return None
        except Exception as error:
            if call.cancelled:
                raise concurrent.futures.CancelledError from error
            self.failed(error, clock() - started, attempts, call, get_ident())
            return None
        finally:
            if heat is not None:
                heat.ended(call, seconds if seconds >= 0 else clock() - started)
            call.started = 0.0
            call.options = NO_OPTIONS
            if self._interrupts.busy:
                self._interrupts.wait()
        self.lanes.succeeded(call)
        self.expects.learn(inputs, seconds)
        if heat is not None and heat.guesses:
            heat.answered(self.expects.last_shapes, seconds, self.expects.typical_seconds)
        attempts.append(
            Attempt(
                self.name,
                "run",
                "ok",
                "",
                seconds,
                self.simulated,
                started,
                call.lane,
                get_ident(),
                verify_seconds,
                call.copy_seconds,
            )
        )
        return outputs

    def offer(self, call: Call, arrays: Mapping[str, Array]) -> None:
        """Have a call's executable write to the caller's own arrays, if nothing can go wrong with that.

        The answer must not have to be checked first, and the run must not go on when the call was interrupted, as one
        that was started and is polled does.
        """
        if self.verifier is None and isinstance(self.executable, Executable):
            call.outputs = arrays

    def cancel(self, call: Call, turn: int) -> bool:
        """Ask a run to end soon; see `Interrupts.interrupt`."""
        return self._interrupts.interrupt(self.name, self.executable, call, turn)

    def answer_canary(self, unit: Unit) -> bool:
        """Run the canary on a unit that is set aside. Returns whether it has recovered."""
        return ask_again(self.lanes, unit, self._check_canary, self.give_back)

    def _late(self, call: Call) -> None:
        """A canary that was given up at load has ended after all."""
        if self.passed_over is None:
            self.give_back(call)

    def _check_canary(self, call: Call) -> None:
        """Run the canary on a lane that the caller holds. Raises what the run raised, or WrongAnswer."""
        canary, run = self.canary(self._rows), self._run
        if canary is None or run is None:
            return
        call.turn += 1
        started = call.started = self._clock()
        if self.heat is not None:
            self.heat.began(call, started)
        try:
            outputs = run(canary.inputs, call)
            self._signature.check_outputs(outputs)
            canary.check(outputs, self.min_cosine)
        except Unsupported as error:
            _log.info("%s cannot be asked the canary: %s", self.name, error.problem)
        finally:
            if self.heat is not None:
                self.heat.ended(call, self._clock() - started)
            call.started = 0.0

    def failed(
        self, error: Exception, seconds: float, attempts: list[Attempt], call: Call | None = None, thread: int = 0
    ) -> None:
        """Note a failure of the device in the record and in the breaker."""
        if call is not None and self.heat is not None:
            self.heat.ended(call, seconds)  # one that hangs may never come back to tell
        reason = reason_of(error)
        told = reason if call is None else self.lanes.unit_of(call).told(reason)
        attempt = self.attempt("run", "failed", told, seconds, call, thread)
        attempts.append(attempt)
        _log.warning("%s", attempt)
        self._set_aside(error, reason, call)

    def answer(self, inputs: Mapping[str, Array], *, learn: bool = False) -> Mapping[str, Array]:
        """One answer outside of any request, on a lane of its own, which is waited for. Raises what the run raised.

        Args:
            inputs: Checked arrays.
            learn: Take in what it has cost.
        """
        call = self.lanes.claim() if self._run is not None else None
        run = self._run
        if call is None or run is None:
            if call is not None:
                self.give_back(call)
            raise ClosedError("the device is not ready")
        started = self._clock()
        if self.heat is not None:
            self.heat.began(call, started)
        try:
            outputs = run(inputs, call)
            seconds = self._clock() - started
            self._signature.check_outputs(outputs)
            if learn:
                self.expects.learn(inputs, seconds)
        finally:
            if self.heat is not None:
                self.heat.ended(call, self._clock() - started)
            self.give_back(call)
        return outputs

    def distrust(self, error: WrongAnswer) -> None:
        """Set the device aside for a wrong answer that was found after it had been given."""
        self._set_aside(error, reason_of(error), None)

    def _set_aside(self, error: Exception, reason: str, call: Call | None) -> None:
        shut = self.lanes.failed(error, reason, call)
        for unit in shut:
            name = f"{self.name} {unit.name}".strip()
            _log.warning("%s is set aside; it is tried again in %.1f s", name, unit.breaker.retry_in)
        if shut:
            self.shut()

    def shut_out(self) -> Attempt | None:
        """Why a request does not come here now, as its record shows it; None when it may."""
        if self.passed_over is not None:
            return self.passed_over
        if not self.lanes.healthy:
            return self.attempt("run", "set aside", f"failed earlier: {self.lanes.reason}")
        return None

    def cancelled(self, call: Call, reason: str) -> Attempt:
        """The attempt of a running call that is given up now."""
        seconds = self._clock() - call.started if call.started else 0.0
        return self.attempt("run", "cancelled", reason, seconds, call)

    def attempt(
        self,
        stage: Stage,
        outcome: Outcome,
        reason: str = "",
        seconds: float = 0.0,
        call: Call | None = None,
        thread: int = 0,
    ) -> Attempt:
        """An attempt on this device that ends now and took `seconds`; on the lane of `call`."""
        lane = None if call is None else call.lane
        started = self._clock() - seconds
        return Attempt(self.name, stage, outcome, reason, seconds, self.simulated, started, lane, thread)

    def close(self, timeout: float) -> bool:
        """Let no further call in, wait for those inside, then free the executable.

        Returns:
            Whether no call is running any more; one that is still busy after `timeout` keeps its executable. One that
            is still being loaded is freed by whoever loads it.
        """
        self._closed = True
        if not self._lock.acquire(timeout=max(0.0, timeout)):
            _log.warning("%s is still being loaded; it is freed when that has ended", self.name)
            return False
        executable, self.executable, self._run = self.executable, None, None
        self._lock.release()
        if executable is None:
            return True
        if not self.lanes.withdraw(timeout):
            _log.warning("%s still has a call running; its executable is not freed", self.name)
            return False
        _close(self.name, executable)
        return True


def _close(name: str, executable: AnyExecutable) -> None:
    try:
        executable.close()
    except Exception:
        _log.exception("%s: closing an executable failed", name)


def _run_of(executable: AnyExecutable) -> Run:
    if isinstance(executable, Executable):
        return executable.run
    return lambda inputs, call: run_polled(executable, inputs, call)
