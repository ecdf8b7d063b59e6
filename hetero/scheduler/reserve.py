"""A session's reserve: the candidates that are not loaded, made ready in the background when its device becomes warm.

A hot device is left only for one that is loaded, and for the joules' sake only for one whose joules are known. So what
`chain` leaves out is loaded, and timed, as soon as heat may have a use for it, and before it has: a model that is
compiled while the chip is stopped keeps it stopped.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from hetero.backend import Device, Host
from hetero.errors import ClosedError, InputError, OptionError, ProgramError, Unsupported
from hetero.program import Program
from hetero.scheduler.canary import canary_inputs, inputs_of
from hetero.scheduler.costs import shapes_of
from hetero.scheduler.reasons import reason_of
from hetero.telemetry.records import Attempt
from hetero.tensors import Array

if TYPE_CHECKING:
    from hetero.energy.aside import Aside
    from hetero.scheduler.candidate import Candidate
    from hetero.scheduler.dispatch import Dispatcher
    from hetero.scheduler.workers import Work, Workers
    from hetero.session import Session

_log = logging.getLogger(__name__)

RUNS = 3
"""How often a device is asked for its first times; the first run counts for nothing."""

_TRIES = 5


class Reserves:
    """What the reserves of a Runtime's sessions share: they work in the background, one at a time.

    Args:
        workers: Threads.
        sessions: Gives the Runtime's: energy is measured while none of them has anything to do.
        host: The machine, whose meters are read.
        devices: The Runtime's.
        clock: Seconds. By another clock than the system's no energy is measured.
    """

    def __init__(
        self,
        workers: Workers,
        sessions: Callable[[], Iterable[Session]],
        host: Host,
        devices: Sequence[Device],
        clock: Callable[[], float],
    ) -> None:
        self._workers = workers
        self._sessions = sessions
        self._host = host
        self._devices = {device.name: device for device in devices}
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: deque[Work] = deque()
        self._at_work = False

    def of(self, program: Program, dispatcher: Dispatcher) -> Reserve:
        """The reserve of a session."""
        return Reserve(program, dispatcher, self)

    def do(self, work: Work) -> None:
        """Have something done in the background, after what was asked for before. It must not raise."""
        with self._lock:
            self._waiting.append(work)
            if self._at_work:
                return
            self._at_work = True
        self._workers.do(self._do_all)

    def aside(self, closed: threading.Event) -> Aside | None:
        """What measures energy in pauses, until `closed`; None where time is not the system's."""
        if self._clock is not time.perf_counter:
            return None
        from hetero.energy.aside import Aside

        return Aside(self._host.sysroot, self._devices, functools.partial(_activity, self._sessions), closed)

    def _do_all(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._at_work = False
                    return
                work = self._waiting.popleft()
            work()


class Reserve:
    """The candidates behind the one that a session's requests go to. Listens to heat.

    What fails is told by `Session.explain` and the records of loads, and concerns no request.

    Args:
        program: What is loaded.
        dispatcher: Of the session.
        reserves: Whose turn it is.

    Attributes:
        loaded: What loading in the background came to.
        aside: Measures energy; None where that cannot be.
    """

    def __init__(self, program: Program, dispatcher: Dispatcher, reserves: Reserves) -> None:
        self.loaded: list[Attempt] = []
        self._program = program
        self._dispatcher = dispatcher
        self._reserves = reserves
        self._lock = threading.Lock()
        self._busy = False
        self._closed = threading.Event()
        self._tried: set[Candidate] = set()
        self._untimed: list[Candidate] = []
        self._unmeasured: dict[Candidate, int] = {}
        self._said: dict[str, str] = {}
        self._seen: int | None = None
        self.aside = reserves.aside(self._closed)

    def heat_changed(self) -> None:
        """The governor has looked at the temperatures. Cheap while the device is cool."""
        if self._busy or self._closed.is_set():
            return
        work = self._due()
        if work is None:
            return
        with self._lock:
            if self._busy:
                return
            self._busy = True
        # Whoever drops the session in the meantime shall not be kept waiting.
        self._reserves.do(functools.partial(_work, weakref.ref(self), work))

    def close(self) -> None:
        """Begin nothing any more; what is being loaded is waited for by whoever closes the candidates."""
        self._closed.set()

    def told(self, device: str) -> str:
        """What was done with a device in the background, for people; empty for nothing."""
        said = self._said.get(device, "")
        if any(candidate.name == device for candidate in list(self._unmeasured)):
            said += ("; " if said else "") + "its energy is not measured yet: there was no pause so far"
        return said

    def _due(self) -> str | None:
        """What is to be done now, if anything."""
        first = self._first()
        if first is None or first.heat is None or _is_any_stopped(first):
            return None
        if self._left(first):
            return "load" if _is_warm(first) and first.heat.governor.on_hot != "pace" else None
        if self._untimed:
            return "time"
        return "measure" if self._unmeasured and self._is_quiet() else None

    def _first(self) -> Candidate | None:
        return next((candidate for candidate in self._dispatcher.candidates if candidate.ready), None)

    def _left(self, first: Candidate) -> list[Candidate]:
        """Those behind the first that can be loaded, and were not tried."""
        candidates = self._dispatcher.candidates
        behind = candidates[candidates.index(first) + 1 :]
        return [candidate for candidate in behind if candidate.loadable and candidate not in self._tried]

    def work(self, what: str) -> None:
        """Do what is due, in a worker."""
        try:
            first = self._first()
            if first is not None and what == "load":
                self._load_all(first)
            if first is not None and what in ("load", "time"):
                self._time_all(first)
            if first is not None and what == "measure":
                self._measure_all(first)
        except Exception:
            _log.exception("%s: making other devices ready failed", self._program.name)
        finally:
            self._busy = False

    def _load_all(self, first: Candidate) -> None:
        for candidate in self._left(first):
            if self._closed.is_set() or _is_any_stopped(first):
                return
            self._tried.add(candidate)
            try:
                attempt = candidate.load()
            except (ProgramError, OptionError) as error:
                # The program runs on another device: what is wrong with it here is no request's concern.
                attempt = candidate.passed_over = candidate.attempt("load", "failed", reason_of(error))
            if attempt is None:  # somebody else was quicker
                continue
            self.loaded.append(attempt)
            how = "loaded" if candidate.ready else "tried"
            self._say(candidate, f"{how} in the background when {first.name} became warm")
            if candidate.ready:
                self._untimed.append(candidate)
                if self.aside is not None:
                    self._unmeasured.setdefault(first, 0)
                    self._unmeasured[candidate] = 0
                self._dispatcher.board.changed(candidate)

    def _time_all(self, first: Candidate) -> None:
        """Have those that were loaded tell their first times."""
        while self._untimed and not self._closed.is_set() and not _is_any_stopped(first):
            candidate = self._untimed.pop(0)
            inputs = self._inputs(first)
            if inputs is None or candidate.expects.seconds(shapes_of(inputs)) is not None:
                continue
            started = self._dispatcher.board.clock()
            try:
                for _ in range(RUNS):
                    candidate.answer(inputs, learn=True)
            except ClosedError:
                return
            except (InputError, Unsupported) as error:
                self._say(candidate, f"not timed: {reason_of(error)}")
            except Exception as error:
                candidate.failed(error, self._dispatcher.board.clock() - started, [])
                self._say(candidate, f"not timed: {reason_of(error)}")
            else:
                self._dispatcher.board.changed(candidate)

    def _measure_all(self, first: Candidate) -> None:
        """Measure what an item takes where that is not known, in a pause between requests."""
        inputs = self._inputs(first)
        aside = self.aside
        if inputs is None or aside is None:
            self._unmeasured.clear()
            return
        for candidate in list(self._unmeasured):
            if self._closed.is_set() or candidate.hot:
                return
            known = candidate.expects.energy(shapes_of(inputs))
            if known is None or not known.measured:
                self._unmeasured[candidate] += 1
                try:
                    found = aside.measure(
                        candidate.name,
                        functools.partial(candidate.answer, inputs),
                        functools.partial(_is_cool, candidate),
                    )
                except ClosedError:
                    return
                except Exception as error:
                    del self._unmeasured[candidate]
                    self._say(candidate, f"its energy is not measured: {reason_of(error)}")
                    continue
                if found.joules is None and found.again and self._unmeasured[candidate] < _TRIES:
                    return
                if found.joules is None:
                    self._say(candidate, f"its energy is not measured: {found.reason}")
                else:
                    candidate.expects.learn_energy(shapes_of(inputs), found.joules, found.meter)
            del self._unmeasured[candidate]

    def _inputs(self, first: Candidate) -> dict[str, Array] | None:
        """Inputs as those of the last request; else as a canary's."""
        shapes = first.expects.last_shapes
        return inputs_of(self._program, shapes) if shapes else canary_inputs(self._program)

    def _is_quiet(self) -> bool:
        """Nothing has run since the tick before."""
        if self.aside is None:
            return False
        runs, running = self.aside.activity()
        before, self._seen = self._seen, runs
        return runs == before and not running

    def _say(self, candidate: Candidate, what: str) -> None:
        said = self._said.get(candidate.name)
        self._said[candidate.name] = f"{said}; {what}" if said else what


def _work(reserve: weakref.ref[Reserve], what: str) -> None:
    alive = reserve()
    if alive is not None:
        alive.work(what)


def _is_cool(candidate: Candidate) -> bool:
    """Heat takes nothing away from it."""
    return not candidate.hot


def _is_warm(candidate: Candidate) -> bool:
    """By its temperature, or by the forecast that has taken something away from it."""
    heat = candidate.heat
    if heat is None:
        return False
    sample = heat.governor.samples.get(candidate.name)
    return heat.hot or (sample is not None and sample.grant.state in ("warn", "hot"))


def _is_any_stopped(candidate: Candidate) -> bool:
    """Some device of the chip is: whatever works now keeps it hot."""
    if candidate.heat is None:
        return False
    governor = candidate.heat.governor
    return candidate.stopped or any(
        sample.grant.state == "stop" or governor.headroom(name) <= 0 for name, sample in governor.samples.items()
    )


def _activity(sessions: Callable[[], Iterable[Session]]) -> tuple[int, bool]:
    """How many runs there were so far, and whether one goes on or waits."""
    runs, running = 0, False
    for session in sessions():
        told, at_work = session.activity
        runs, running = runs + told, running or at_work
    return runs, running
