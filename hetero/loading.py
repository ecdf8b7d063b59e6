"""Loading a program: its candidates along the chain, which of them are made ready, and the scheduler over them."""

from __future__ import annotations

import functools
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from hetero.cache import key_of
from hetero.errors import OptionError
from hetero.machine import Absent, Machine
from hetero.memory.pool import Pool
from hetero.options import Options, check_options
from hetero.program import Program
from hetero.scheduler.batching import Batcher, batch_dimension
from hetero.scheduler.board import Board
from hetero.scheduler.canary import TOLERANCE, Canary, make_canary
from hetero.scheduler.candidate import Candidate
from hetero.scheduler.costs import CostModel
from hetero.scheduler.dispatch import Dispatcher, Fallback, Limits, load_first
from hetero.scheduler.heat import Heat
from hetero.scheduler.policy import Exploring, Owned, Policy
from hetero.scheduler.reserve import Reserve, Reserves
from hetero.scheduler.timers import Timers
from hetero.scheduler.verify import Verifier
from hetero.scheduler.workers import Workers
from hetero.simulation import ModelledMachine
from hetero.telemetry.records import Attempt, LoadRecord, Records
from hetero.thermal.watching import Watch

_FIRST_RUN = 10.0


@dataclass(frozen=True)
class LoadSettings:
    """How a program is to be loaded: the arguments of `Runtime.load`, which says what each of them means.

    Raises:
        OptionError: A value out of its range.
    """

    policy: Policy
    device: str | Sequence[str] | None = None
    fallback: Fallback = "allow"
    options: Options = field(default_factory=dict)
    standby: bool = True
    warm_start: bool = False
    explore: float = 0.01
    canary: bool = True
    verify: float = 0.0
    batch: int | None = None
    batch_delay: float = 0.002
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if self.fallback not in ("allow", "forbid"):
            raise OptionError(f"fallback is {self.fallback!r}, expected 'allow' or 'forbid'")
        if (self.batch is not None and self.batch < 1) or not self.batch_delay >= 0:
            raise OptionError(
                f"batch is {self.batch!r} and batch_delay is {self.batch_delay!r}, expected at least 1 and 0"
            )
        if not 0 <= self.explore <= 1 or not 0 <= self.verify <= 1:
            raise OptionError(
                f"explore is {self.explore!r} and verify is {self.verify!r}, expected shares between 0 and 1"
            )


@dataclass(frozen=True)
class Ready:
    """A program that was loaded, with all that a session of it needs.

    Attributes:
        dispatcher: Runs its requests.
        batcher: Puts them together; None where nothing is gained by that.
        attempts: What was tried until one device took it.
        policy: The name of the policy.
        reserve: Those that are loaded when it gets warm; None where nobody looks, or no other may answer.
        load_rest: Has a warm start's other candidates loaded, in a worker; does nothing where there are none.
    """

    dispatcher: Dispatcher
    batcher: Batcher | None
    attempts: Sequence[Attempt]
    policy: str
    reserve: Reserve | None
    load_rest: Callable[[], None]


@dataclass(frozen=True)
class Loader:
    """Loads programs for one Runtime.

    Attributes:
        machine: Its devices, and the chain.
        options: The user's, by backend, for every program.
        modelled: The board whose heat and time are modelled; None as a rule.
        watch: Who looks at the temperatures; None where nobody does.
        costs: What runs have cost so far.
        buffers: Memory for inputs that are put together.
        records: Where loads and requests are told.
        workers: Threads.
        timers: Deadlines and time-outs.
        clock: Seconds.
        reserves: What is loaded when it gets warm.
        made: The candidates that there are.
    """

    machine: Machine
    options: Options
    modelled: ModelledMachine | None
    watch: Watch | None
    costs: CostModel
    buffers: Pool
    records: Records
    workers: Workers
    timers: Timers
    clock: Callable[[], float]
    reserves: Reserves
    made: weakref.WeakValueDictionary[int, Candidate] = field(default_factory=weakref.WeakValueDictionary)

    @property
    def loading(self) -> set[str]:
        """The backends that load a program at this moment."""
        candidates = [reference() for reference in self.made.valuerefs()]
        return {candidate.backend for candidate in candidates if candidate is not None and candidate.loading}

    def load(self, program: Program, settings: LoadSettings) -> Ready:
        """Load a program on the first device that takes it, and on the others that the settings ask for.

        Raises:
            ProgramError: It cannot be used on any device.
            OptionError: An unknown device or option, or a batch of a program that cannot be batched.
            Unavailable: A device that is not on this machine.
            AllDevicesFailed: No device takes it.
            FallbackForbidden: The first candidate does not take it.
        """
        if settings.batch is not None and settings.batch > 1 and batch_dimension(program) is None:
            raise OptionError(
                f"{program.name!r} cannot be batched: inputs and outputs do not share a symbolic first dimension",
                fix="export it with a dynamic first dimension, or leave batch= out",
            )
        candidates = self._candidates(program, self.machine.check_options(settings.options), settings.device)
        if self.watch is not None:
            _look_after(self.watch, candidates)
        if settings.limits.timeout is not None:
            for candidate in candidates:
                candidate.patience = _FIRST_RUN * settings.limits.timeout
        try:
            attempts, later = _make_ready(program, candidates, settings)
        except BaseException:
            for candidate in candidates:
                candidate.close(timeout=0)
            raise
        policy = settings.policy
        if settings.explore and policy.uses_all:
            policy = Exploring(policy, settings.explore)
        dispatcher = self._dispatcher(candidates, policy, settings.limits)
        self._verify(program, candidates, settings.verify)
        load_rest = functools.partial(self.workers.do, functools.partial(dispatcher.load_rest, policy.uses_all))
        return Ready(
            dispatcher,
            self._batcher(program, dispatcher, settings),
            attempts,
            policy.name,
            self._reserve(program, dispatcher) if settings.fallback == "allow" else None,
            load_rest if later else lambda: None,
        )

    def _candidates(self, program: Program, options: Options, wanted: str | Sequence[str] | None) -> list[Candidate]:
        chain = self.machine.chain if wanted is None else self.machine.wanted(wanted)
        return [self._candidate(entry, program, options) for entry in chain]

    def _candidate(self, entry: Owned | Absent, program: Program, options: Options) -> Candidate:
        if isinstance(entry, Absent):
            return Candidate.absent(entry.backend, entry.reason + (f" (fix: {entry.fix})" if entry.fix else ""))
        name, device = entry
        backend = self.machine.backends[name]
        layers: list[Mapping[str, object]] = [layer.get(name, {}) for layer in (program.options, self.options, options)]
        values = check_options(name, backend.options, *layers)
        load = functools.partial(backend.load, program, device, values)
        if self.modelled is not None:
            load = functools.partial(self.modelled.load, device, program.name, load)
        candidate = Candidate(
            device.name,
            name,
            device.simulated,
            load,
            program.signature,
            kind=device.kind,
            watts=device.watts,
            clock=self.clock,
            costs=self.costs,
            cost_key=(program.identity, key_of(device.name, repr(sorted(device.properties.items())), repr(values))),
        )
        self.made[id(candidate)] = candidate
        candidate.loaded = functools.partial(_tell_load, self.records, program.name, candidate)
        return candidate

    def _dispatcher(self, candidates: Sequence[Candidate], policy: Policy, limits: Limits) -> Dispatcher:
        board = Board(
            policy,
            max_waiting=limits.max_waiting,
            max_waiting_bytes=limits.max_waiting_bytes,
            clock=self.clock,
        )
        dispatcher = Dispatcher(candidates, board, self.workers, self.timers, self.records, limits)
        if self.watch is not None:
            self.watch.listen(dispatcher)
        return dispatcher

    def _reserve(self, program: Program, dispatcher: Dispatcher) -> Reserve | None:
        if self.watch is None:
            return None
        reserve = self.reserves.of(program, dispatcher)
        self.watch.listen(reserve)
        return reserve

    def _verify(self, program: Program, candidates: Sequence[Candidate], share: float) -> None:
        if share and candidates[-1].ready and len(candidates) > 1:
            verifier = Verifier(candidates[-1], share, self.workers, program.tolerance or TOLERANCE)
            for candidate in candidates[:-1]:
                candidate.verifier = verifier

    def _batcher(self, program: Program, dispatcher: Dispatcher, settings: LoadSettings) -> Batcher | None:
        size = settings.batch or max(
            (c.executable.batch for c in dispatcher.candidates if c.executable is not None), default=1
        )
        if size == 1 or batch_dimension(program) is None:
            return None
        return Batcher(dispatcher, program, size, settings.batch_delay, self.timers, self.buffers)


def _look_after(watch: Watch, candidates: Sequence[Candidate]) -> None:
    watched = watch.start()
    for candidate in candidates:
        if candidate.name in watched:
            candidate.heat = Heat(watch.governor, candidate.name, watch.patience)


def _make_ready(
    program: Program, candidates: Sequence[Candidate], settings: LoadSettings
) -> tuple[list[Attempt], bool]:
    """Load the candidates that are to be ready from the start.

    Returns:
        What was tried until one device took the program, and whether others are left to be loaded later.
    """
    last, others = candidates[-1], candidates[:-1]
    allowed = settings.fallback == "allow"
    if settings.canary and settings.standby and allowed:
        ask = _canary_source(program, last)
        for candidate in others:
            candidate.canary = ask
    if settings.warm_start and allowed and last.load() and last.ready:
        return [last.attempt("load", "ok")], True
    attempts = load_first(program.name, candidates, settings.fallback)
    if settings.standby and allowed:
        last.load()
    if settings.policy.uses_all and allowed:
        for candidate in candidates:
            candidate.load()
    return attempts, False


def _canary_source(program: Program, reference: Candidate) -> Callable[[int], Canary | None]:
    """Makes the canary of so many rows when it is first asked for; the CPU alone is trusted to answer it."""

    @functools.cache
    def made(rows: int) -> Canary | None:
        reference.load()
        if not reference.ready or reference.kind != "cpu" or reference.simulated:
            return None
        return make_canary(program, reference, rows)

    return made


def _tell_load(records: Records, program: str, candidate: Candidate, attempt: Attempt) -> None:
    cached = candidate.executable.details.get("cached") if candidate.executable is not None else None
    known = cached if isinstance(cached, bool) else None
    records.add_load(LoadRecord(program, attempt, time.time() - attempt.seconds, known))
