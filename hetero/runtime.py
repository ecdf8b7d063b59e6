"""Runtime: the devices of this machine, and the programs loaded on them."""

from __future__ import annotations

import atexit
import functools
import itertools
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import DTypeLike

from hetero.backend import Access, Backend, BackendFactory, Device, Host
from hetero.bundle import Source, open_program
from hetero.cache import key_of
from hetero.compiling.report import MIN_COSINE, Progress
from hetero.errors import ClosedError, OptionError
from hetero.machine import Absent, Machine, host_of, names_of
from hetero.memory.arrays import PooledArray
from hetero.memory.pools import Pools
from hetero.monitor.switch import is_monitored
from hetero.options import Options, check_options
from hetero.plugins import BrokenPlugin, Plugins
from hetero.power import OF_PROFILE, PowerModes, mode_of
from hetero.program import Program
from hetero.scheduler.batching import Batcher, batch_dimension
from hetero.scheduler.board import Board
from hetero.scheduler.canary import TOLERANCE, Canary, make_canary
from hetero.scheduler.candidate import Candidate
from hetero.scheduler.costs import CostModel
from hetero.scheduler.dispatch import Dispatcher, Fallback, Limits, load_first
from hetero.scheduler.heat import Heat
from hetero.scheduler.policy import POLICIES, Exploring, Owned, Policy, find_policy
from hetero.scheduler.timers import Timers
from hetero.scheduler.verify import Verifier
from hetero.scheduler.workers import Workers
from hetero.session import Session
from hetero.telemetry.records import Attempt, LoadRecord, Records
from hetero.thermal.settings import Thermal, settings_of
from hetero.thermal.watching import Listener, Watch

if TYPE_CHECKING:
    from hetero.compiling.build import Compiled
    from hetero.compiling.samples import Source as Samples
    from hetero.compiling.shapes import Given
    from hetero.monitor.status import RuntimeStatus
    from hetero.testing.thermal.modelled import ModelledMachine
    from hetero.thermal.governor import Governor

_log = logging.getLogger(__name__)

_FIRST_RUN = 10.0

_numbers = itertools.count(1)


class Runtime:
    """The devices of this machine and the sessions on them. A context manager; usable from any thread.

    Args:
        chain: Devices or backends in the order of preference; when not given, that of the environment
            (`HETERO_BACKENDS=xrt,cpu`), else everything found, NPUs first. A name that is not on this machine is
            passed over, which `explain()` and each record say.
        backends: Backend classes besides those of the installed plugins.
        options: Options by backend: `{"cpu": {"threads": 2}}`.
        simulate: Machines to imitate (`rk3588`, `phoenix`); also from the environment: `HETERO_SIMULATE`. With
            `thermal=sealed` among them, the heat of a board and its time are modelled too; see the page on heat.
        plugins: Whether installed plugins are used.
        isolate: Run each backend, or those named, in a process of its own: if vendor code crashes there, the device is
            lost, the request goes on elsewhere, and the process is started again.
        host: The machine to look at, for tests.
        keep_records: How many records of finished requests are kept.
        memory_limit: Bytes that each pool of buffers may hold, or by the pool's name: `{"host": 1 << 30}`; the other
            names are those of devices. See `buffer` and `memory`.
        learn: Keep what runs have cost in the cache folder, for the policies' next choice.
        power: The power mode of the devices that have some, or a profile, until the Runtime is closed: `balanced`,
            `burst`; see `hetero.power`; `profile`: the one of the thermal profile in force. What a device refuses is
            logged, and told by the attribute `power`.
        thermal: Keep devices from getting too hot: whether (True: as `HETERO_THERMAL` has it), the name of a profile,
            or `ThermalSettings`. See the page on heat.
        monitor: Whether `hetero top` of the same user may look at it; when not given, as the environment has it:
            `HETERO_MONITOR=1`. A program that cannot be looked at runs all the same; the log says why.
        clock: Seconds, for tests: timers then fire only in `timers.run_due()`, and temperatures are read only in
            `governor.tick()`.

    Attributes:
        thermal: The settings in force; None where heat is not looked at.
        modelled: The board whose heat and time are modelled; None as a rule.
        host: The machine looked at.
        records: Of finished requests and loads.
        timers: Deadlines and time-outs.

    Raises:
        OptionError: An unknown backend, device, option or simulated machine, or a backend that cannot be isolated.
    """

    def __init__(
        self,
        *,
        chain: str | Sequence[str] | None = None,
        backends: Iterable[BackendFactory] = (),
        options: Options | None = None,
        simulate: str | Sequence[str] | None = None,
        plugins: bool = True,
        isolate: bool | str | Sequence[str] = False,
        host: Host | None = None,
        keep_records: int = 1000,
        memory_limit: int | Mapping[str, int] | None = None,
        learn: bool = True,
        power: str | None = None,
        thermal: Thermal = True,
        monitor: bool | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        if power is not None and power != OF_PROFILE:
            mode_of(power)
        host = host_of(host, simulate)
        self.modelled = _modelled(host)
        if self.modelled is not None:
            # What is learned of modelled times is no knowledge of this machine.
            host, clock, learn = self.modelled.host(host), self.modelled.clock, False
        self.host = host
        self.records = Records(keep_records)
        self._plugins = Plugins()
        if plugins:
            self._plugins.discover(host.environ)
        self._machine = machine = Machine(host, self._plugins, [*self._plugins.backends(), *backends], chain, isolate)
        self._options = machine.check_options(options or {})
        self._memory = Pools([(machine.backends[name], device) for name, device in machine.present], memory_limit)
        self._sessions: weakref.WeakSet[Session] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._workers = Workers()
        self.timers = Timers(clock)
        self._clock = clock
        self._number, self._made = next(_numbers), clock()
        self._costs = CostModel(host.cache / "costs.json" if learn else None)
        self._closed = ""
        self.thermal = settings_of(thermal, host.environ)
        self._watch = None
        if self.thermal is not None:
            self._watch = Watch(host, self.devices, self.thermal, clock, self.timers.at)
        self._power = PowerModes(host, [(machine.backends[name], device) for name, device in machine.present])
        _live.add(self)
        self._withdraw: Callable[[], None] = _nothing
        if is_monitored(monitor, host.environ):
            from hetero.monitor.publishing import publish

            self._withdraw = publish(self)
        if power == OF_PROFILE:
            self._hold_profile()
        elif power is not None:
            self._power.hold(power)
        if self.modelled is not None:
            self.modelled.start(self)

    @property
    def devices(self) -> tuple[Device, ...]:
        """The devices, first choice first."""
        return tuple(device for _, device in self._machine.present)

    @property
    def absent(self) -> tuple[Absent, ...]:
        """The backends that give no device here, with the reason and the fix."""
        return tuple(self._machine.absent)

    @property
    def broken_plugins(self) -> tuple[BrokenPlugin, ...]:
        """The plugins that could not be taken in."""
        return tuple(self._plugins.broken)

    @property
    def backends(self) -> Mapping[str, Backend]:
        """The backends by name, those without a device here included."""
        return dict(self._machine.backends)

    @property
    def now(self) -> float:
        """Seconds on the clock that the records go by."""
        return self._clock()

    def listen_to_heat(self, listener: Listener) -> None:
        """Tell somebody each time that the governor has looked at the temperatures, for as long as it lives."""
        if self._watch is not None:
            self._watch.listen(listener)

    @property
    def waiting(self) -> int:
        """How many requests wait for a device now."""
        with self._lock:
            sessions = list(self._sessions)
        return sum(session.waiting for session in sessions)

    @property
    def memory(self) -> Pools:
        """The pools of buffers: how much is in use, idle, and the most there ever was in use."""
        return self._memory

    @property
    def governor(self) -> Governor | None:
        """What keeps the devices from getting too hot; None where heat is not looked at."""
        return self._watch.governor if self._watch is not None else None

    @property
    def power(self) -> PowerModes:
        """The power modes of the devices that have some."""
        return self._power

    def buffer(
        self,
        shape: int | tuple[int, ...],
        dtype: DTypeLike = np.float32,
        *,
        access: Access = "default",
        device: str | Sequence[str] | None = None,
        wait: float = 0.0,
    ) -> PooledArray:
        """An array in memory that is used again and again, for an input or for `out=`.

        Args:
            shape: Of the array.
            dtype: Of its elements; anything but Python objects.
            access: `default`, for any use; `npu_primary`: in the device's own memory, which the CPU sees too, if its
                backend has that; `streaming`: in whole pages, which several units can map.
            device: The device or backend, or several in order, whose memory it shall be; the host's, when not given,
                and with `npu_primary` the first NPU's that has some. One that has none for this access gives way to the
                host; `PooledArray.pool` says whose memory it is.
            wait: Seconds to wait for memory that others give back, when the limit is reached.

        Raises:
            OutOfMemory: The limit is reached, or there is no more.
            InputError: A shape or dtype that cannot be.
            OptionError: An unknown access or device.
            Unavailable: A device that is not on this machine.
            ClosedError: The Runtime is closed.
        """
        self._check_open()
        if device is not None:
            owned = self.select(device)
        else:
            owned = tuple(o for o in self.select() if access == "npu_primary" and o[1].kind == "npu")
        where = [(self._machine.backends[name], chosen) for name, chosen in owned]
        return self._memory.array(shape, dtype, access, where, wait)

    def select(self, names: str | Sequence[str] | None = None) -> tuple[Owned, ...]:
        """The devices that a user's names mean, in the order given, each behind its backend's name; all without names.

        Raises:
            OptionError: A name that is not known here.
            Unavailable: One that is known, but not on this machine; the reason and the fix.
        """
        return tuple(self._machine.present if names is None else self._machine.wanted(names))

    def program_names(self) -> list[str]:
        """The names that `load` knows besides paths."""
        return self._plugins.program_names()

    def open(self, source: Source) -> Program:
        """The program of a path or name, without loading it on a device. Errors as `load`."""
        return open_program(source, self._plugins.program, self._plugins.program_names)

    def load(
        self,
        source: Source,
        *,
        device: str | Sequence[str] | None = None,
        fallback: Fallback = "allow",
        options: Options | None = None,
        standby: bool = True,
        warm_start: bool = False,
        policy: str | Policy = "chain",
        explore: float = 0.01,
        canary: bool = True,
        verify: float = 0.0,
        batch: int | None = None,
        batch_delay: float = 0.002,
        timeout: float | None = None,
        max_waiting: int = 1024,
        max_waiting_bytes: int = 1 << 30,
        on_full: Literal["wait", "raise"] = "wait",
    ) -> Session:
        """Make a program ready on the first device that takes it.

        Args:
            source: A path to an `.onnx` file or a bundle folder, a name (of a kernel, a Whisper encoder), or a Program.
            device: Use only this device (or backend), or these in this order.
            fallback: `forbid` makes a failure of the first candidate an error, at load and in every request.
            options: Options by backend, over those of the Runtime and of the bundle.
            standby: Load the program on the last candidate (the CPU, as a rule) too, so that a failing device costs no
                load in the middle of a run.
            warm_start: Return as soon as the last candidate is ready and let it answer while the others load, which an
                accelerator that compiles may take minutes for.
            policy: `chain`: the first healthy device with a lane, spilling to the next where that is expected to be
                quicker than waiting; `fastest`: the earliest expected finish; `throughput`: whoever is free;
                `efficiency`: the least energy within the deadline; a plugin's own by its name; or an object.
            explore: Share of the requests that `fastest` and `efficiency` send where the least is known; 0 for none.
            canary: Ask each device a small request when it is loaded, and compare with the standby's answer.
            verify: Share of the answers that are compared with the standby's: afterwards and in the background; with 1,
                each before it is given. A wrong answer sets the device aside.
            batch: Put requests together, up to so many rows in a launch; as many as the executable takes for the price
                of one, when not given. Needs a program whose inputs and outputs share a symbolic first dimension.
            batch_delay: Seconds that a request waits for others to share its launch, at most.
            timeout: Seconds after which a call on a device counts as hung: the device is set aside, the request goes
                on elsewhere. The canary at load, which is a first run, is given ten times as many.
            max_waiting: How many requests may wait for a lane.
            max_waiting_bytes: How many bytes of inputs may wait.
            on_full: When more would wait: `wait` for room, or `raise` QueueFull.

        Raises:
            ProgramError: What `source` names cannot be used on any device.
            OptionError: An unknown device or option.
            AllDevicesFailed: No device takes it; `attempts` tells each one's reason.
            FallbackForbidden: The first candidate does not take it.
        """
        self._check_open()
        if fallback not in ("allow", "forbid"):
            raise OptionError(f"fallback is {fallback!r}, expected 'allow' or 'forbid'")
        limits = Limits(max_waiting, max_waiting_bytes, on_full, timeout)
        if (batch is not None and batch < 1) or not batch_delay >= 0:
            raise OptionError(f"batch is {batch!r} and batch_delay is {batch_delay!r}, expected at least 1 and 0")
        if not 0 <= explore <= 1 or not 0 <= verify <= 1:
            raise OptionError(f"explore is {explore!r} and verify is {verify!r}, expected shares between 0 and 1")
        chosen = find_policy(policy, {**POLICIES, **self._plugins.policies()})
        if explore and chosen.uses_all:
            chosen = Exploring(chosen, explore)
        program = self.open(source)
        if batch is not None and batch > 1 and batch_dimension(program) is None:
            raise OptionError(
                f"{program.name!r} cannot be batched: inputs and outputs do not share a symbolic first dimension",
                fix="export it with a dynamic first dimension, or leave batch= out",
            )
        candidates = self._candidates(program, self._machine.check_options(options or {}), device)
        if self._watch is not None:
            self._look_after(self._watch, candidates)
        for candidate in candidates:
            candidate.patience = None if timeout is None else _FIRST_RUN * timeout
        try:
            if canary and standby and fallback == "allow":
                ask = _canary_source(program, candidates[-1])
                for candidate in candidates[:-1]:
                    candidate.canary = ask
            if warm_start and fallback == "allow" and candidates[-1].load() and candidates[-1].ready:
                attempts = [candidates[-1].attempt("load", "ok")]
            else:
                warm_start = False
                attempts = load_first(program.name, candidates, fallback)
            if standby and fallback == "allow":
                candidates[-1].load()
            if chosen.uses_all and fallback == "allow" and not warm_start:
                for candidate in candidates:
                    candidate.load()
        except BaseException:
            for candidate in candidates:
                candidate.close(timeout=0)
            raise
        board = Board(chosen, max_waiting=max_waiting, max_waiting_bytes=max_waiting_bytes, clock=self._clock)
        dispatcher = Dispatcher(candidates, board, self._workers, self.timers, self.records, limits)
        if self._watch is not None:
            self._watch.listen(dispatcher)
        if verify and candidates[-1].ready and len(candidates) > 1:
            verifier = Verifier(candidates[-1], verify, self._workers, program.tolerance or TOLERANCE)
            for candidate in candidates[:-1]:
                candidate.verifier = verifier
        batcher = self._batcher(program, dispatcher, batch, batch_delay)
        session = Session(self, program, dispatcher, batcher, fallback, attempts, chosen.name)
        with self._lock:
            if not self._closed:
                self._sessions.add(session)
                if warm_start:
                    self._workers.do(functools.partial(dispatcher.load_rest, chosen.uses_all))
                return session
        session.close()
        raise self._closed_error()

    def status(self) -> RuntimeStatus:
        """What this Runtime is doing: devices, sessions, queues, memory, heat, the last fallbacks; see `hetero top`.

        A frozen snapshot of plain values, in well under a millisecond as a rule, from any thread and at any time, also
        when the Runtime is closed. No request waits for it. `to_dict()` has it as JSON-ready values.
        """
        from hetero.monitor.looking import status_of

        return status_of(self)

    def call_options(self, options: Options) -> Options:
        """What a user gave for one call, checked.

        Raises:
            OptionError: An unknown backend or option, a bad value, or one that is settled at load.
        """
        return self._machine.check_call_options(options)

    def compile(
        self,
        source: Source,
        target: str | Sequence[str],
        *,
        out: str | os.PathLike[str] | None = None,
        shapes: Given = (),
        int8: bool = False,
        calibration: Samples | Iterable[Samples] = (),
        check: Samples | Iterable[Samples] = (),
        min_cosine: float = MIN_COSINE,
        options: Options | None = None,
        force: bool = False,
        anew: bool = False,
        progress: Progress | None = None,
    ) -> Compiled:
        """Build artifacts for devices from an ONNX model, compare each with ONNX Runtime, and put them into a bundle.

        Args:
            source: As for `load`, with an ONNX artifact.
            target: What to compile for (`rk3588`), or several; the devices need not be here.
            out: The bundle; `NAME.hetero` in the working folder when not given. Artifacts of other targets that are in
                it stay.
            shapes: Sizes of inputs or dimensions, `{"mel": (1, 80, 3000)}`, needed where they are not fixed; in a list
                of pairs a name may be there several times and makes an artifact for each.
            int8: Quantise; needs calibration data.
            calibration: Typical inputs: `.npy` and `.npz` files, recordings for a Whisper encoder, folders of them, or
                mappings from input name to array.
            check: Inputs to compare on; some of the calibration data, else random ones, when not given.
            min_cosine: Refuse an artifact of which an output's cosine with ONNX Runtime's is less.
            options: Compile options by backend: `{"rknn": {"auto_hybrid": True}}`.
            force: Write the bundle even so.
            anew: Compile although the same was compiled before.
            progress: Told about each stage and how much of all is done.

        Raises:
            OptionError: An unknown target or option, or shapes that do not fit.
            InputError: Calibration data that does not fit; every file with its reason.
            ProgramError: `source` cannot be compiled, or `out` is something else.
            CompileError: The compiler refuses the model, or the result is too far off. Nothing is written.
            Unavailable: The compiler cannot be had on this machine.
        """
        self._check_open()
        from hetero.compiling.build import Settings, compile_program

        settings = Settings(shapes, int8, calibration, check, min_cosine, options or {}, force, anew)
        return compile_program(
            self.open(source),
            names_of(target),
            None if out is None else Path(out).expanduser(),
            settings,
            backends=self._machine.backends,
            cache=self.host.cache,
            find=self._plugins.program,
            progress=progress or (lambda stage, done: None),
        )

    def close(self, timeout: float = 10.0) -> None:
        """Close every session, then the backends. Requests in flight are waited for; calling it again does nothing.

        Args:
            timeout: Seconds that each running call is given; a call that takes longer is left alone and its
                executable is not freed.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = "the Runtime is closed"
            sessions = list(self._sessions)
        self._withdraw()
        for session in sessions:
            session.close(timeout)
        self.timers.close()
        if self._watch is not None:
            self._watch.close(timeout)
        self._workers.close(timeout)
        if self.modelled is not None:
            self.modelled.close()
        self._costs.save()
        self._memory.close()
        for backend in self._machine.backends.values():
            try:
                backend.close()
            except Exception:
                _log.exception("closing the backend %s failed", backend.name)
        self._power.restore()

    def _hold_profile(self) -> None:
        """Set the power mode of the thermal profile, and again whenever the supply makes that another one."""
        if self._watch is None:
            raise OptionError(
                "power='profile' is the power mode of a thermal profile, and thermal is off",
                fix="name a mode or a profile in power=, or switch thermal on",
            )
        power, workers = self._power, self._workers
        power.hold(self._watch.governor.profile.power_mode)
        # A vendor's tool may take seconds, which the sampling must not wait for.
        self._watch.governor.changed = lambda profile: workers.do(lambda: power.hold(profile.power_mode))

    def __enter__(self) -> Runtime:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<hetero.Runtime {' > '.join(device.name for device in self.devices) or 'without devices'}>"

    def _batcher(self, program: Program, dispatcher: Dispatcher, batch: int | None, delay: float) -> Batcher | None:
        size = batch or max((c.executable.batch for c in dispatcher.candidates if c.executable is not None), default=1)
        if size == 1 or batch_dimension(program) is None:
            return None
        return Batcher(dispatcher, program, size, delay, self.timers, self._memory.host)

    def _check_open(self) -> None:
        if self._closed:
            raise self._closed_error()

    def _closed_error(self) -> ClosedError:
        return ClosedError(self._closed, fix="make a new Runtime")

    def _forked(self) -> None:
        """In the child of a fork: nothing of a vendor's runtime may be touched, not even to free it."""
        self._lock = threading.Lock()
        self._closed = "this Runtime was made before a fork and cannot be used in the child process"
        for session in list(self._sessions):
            session._forked(self._closed)
        self._memory.abandon()
        if self.modelled is not None:
            self.modelled.abandon()
        if self._watch is not None:
            self._watch.abandon()
        _kept_after_fork.append(self)

    @staticmethod
    def _look_after(watch: Watch, candidates: Iterable[Candidate]) -> None:
        watched = watch.start()
        for candidate in candidates:
            if candidate.name in watched:
                candidate.heat = Heat(watch.governor, candidate.name, watch.patience)

    def _candidates(self, program: Program, options: Options, wanted: str | Sequence[str] | None) -> list[Candidate]:
        chain = self._machine.chain if wanted is None else self._machine.wanted(wanted)
        return [self._candidate(entry, program, options) for entry in chain]

    def _candidate(self, entry: Owned | Absent, program: Program, options: Options) -> Candidate:
        if isinstance(entry, Absent):
            return Candidate.absent(entry.backend, entry.reason + (f" (fix: {entry.fix})" if entry.fix else ""))
        name, device = entry
        backend = self._machine.backends[name]
        layers = (layer.get(name, {}) for layer in (program.options, self._options, options))
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
            clock=self._clock,
            costs=self._costs,
            cost_key=(program.identity, key_of(device.name, repr(sorted(device.properties.items())), repr(values))),
        )
        candidate.loaded = functools.partial(_tell_load, self.records, program.name, candidate)
        return candidate


def _modelled(host: Host) -> ModelledMachine | None:
    """The board whose heat is to be modelled, where the simulated machines have settings."""
    if not any("=" in name for name in host.simulate):
        return None
    from hetero.testing.thermal.modelled import ModelledMachine, modelled_of

    return ModelledMachine(modelled_of(host.simulate))


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


def _nothing() -> None:
    pass


_live: weakref.WeakSet[Runtime] = weakref.WeakSet()
_kept_after_fork: list[Runtime] = []


def _close_all() -> None:
    for runtime in list(_live):
        runtime.close(timeout=2.0)


def _mark_all_forked() -> None:
    for runtime in list(_live):
        runtime._forked()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_mark_all_forked)
