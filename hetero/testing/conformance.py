"""The cases of the conformance kit: what `hetero.backend` asks of a backend.

On an installed backend::

    pytest --hetero-backend NAME

In the tests of a backend::

    from hetero.testing import BackendConformance

    class TestToy(BackendConformance):
        backend = ToyBackend

A backend that is not available on this machine skips, with its reason, and so does a program that it does not support;
anything else that the contract does not allow fails.
"""

from __future__ import annotations

import functools
import gc
import os
import re
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import hetero
from hetero.backend import Backend, Call, Device, Host, Option, PolledExecutable
from hetero.errors import HeteroError, InputError, OptionError, Unavailable, Unsupported
from hetero.options import check_options
from hetero.testing import leaks
from hetero.testing.checks import (
    bad_model,
    cancelled,
    check_apart,
    check_probe,
    fault_of,
    hammer,
    poll,
    unknown_program,
    until_done,
)
from hetero.testing.choice import chosen_backend, installed_backends
from hetero.testing.harness import LIMIT, Loaded, Subject, complain, probe, told, within
from hetero.testing.programs import ReferenceProgram, big_program, reference_programs, uneven_program

F32 = np.dtype(np.float32)
ROUNDS = 30

_ASK = 'ask for it: program.artifact("onnx") raises Unsupported when there is none'


class BackendConformance:
    """The cases, for one backend. Inherit, name the class `Test...`, and set what differs.

    Attributes:
        backend: The Backend class; by default the one that `--hetero-backend` names.
        device: Name of the device to test; by default the first (right answers are asked of all).
        simulate: Machines that the backend is to imitate.
        options: Options for `load`.
        programs: What it is asked; at least one must be supported. For a backend that takes no ONNX, add your own.
        tolerance: How far a float may be off, as a share of the greatest expected value.
        limit: Seconds that one call may take.
        memory: Bytes that 30 loads of a program with 4 MiB of weights may add.
    """

    backend: ClassVar[type[Backend] | None] = None
    device: ClassVar[str | None] = None
    simulate: ClassVar[Sequence[str]] = ()
    options: ClassVar[Mapping[str, Any]] = {}
    programs: ClassVar[Sequence[ReferenceProgram]] = reference_programs()
    tolerance: ClassVar[float] = 0.01
    limit: ClassVar[float] = LIMIT
    memory: ClassVar[int] = 40 << 20

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """One case for each program; an unknown backend is told of here, once."""
        chosen_backend(type(self).__name__, self.backend, metafunc.config)
        if "reference" in metafunc.fixturenames:
            metafunc.parametrize("reference", self.programs, ids=[program.name for program in self.programs])

    @pytest.fixture
    def host(self, request: pytest.FixtureRequest, tmp_path: Path) -> Host:
        """The machine that the backend sees: this one, with an empty cache. Override it to hand in another one."""
        environ = {name: value for name, value in os.environ.items() if name not in ("HETERO_BACKENDS",)}
        machines = request.config.getoption("hetero_simulate", None) or self.simulate
        return Host(environ=environ, cache=tmp_path / "cache", simulate=tuple(machines))

    @pytest.fixture
    def kind(self, request: pytest.FixtureRequest) -> type[Backend]:
        """The Backend class under test."""
        return chosen_backend(type(self).__name__, self.backend, request.config)

    @pytest.fixture
    def subject(
        self, request: pytest.FixtureRequest, kind: type[Backend], host: Host, tmp_path: Path
    ) -> Iterator[Subject]:
        """The backend and its devices; skips where it is not available."""
        backend = kind(host)
        try:
            devices = probe(backend, self.limit)
        except Unavailable as error:
            reason = f"{kind.name} is not available here: {error.problem}" + (error.fix and f" (fix: {error.fix})")
            if request.config.getoption("hetero_require", False):
                complain("the backend is available, as --hetero-require says", reason, error.fix or "mend the machine")
            pytest.skip(reason)
        wanted = request.config.getoption("hetero_device", None) or self.device
        chosen = [device for device in devices if wanted in (None, device.name)]
        if not chosen:
            names = ", ".join(device.name for device in devices) or "none"
            complain(
                f"there is a device {wanted or ''}", f"probe() gave {names}", "give a device, or raise Unavailable"
            )
        subject = Subject(backend, devices, chosen[0], self.options, tmp_path, self.limit, self.tolerance)
        yield subject
        subject.close()

    @pytest.fixture
    def loaded(self, subject: Subject, reference: ReferenceProgram) -> Loaded:
        """A reference program, loaded; skips where it is not supported."""
        return subject.load(reference)

    @pytest.fixture
    def any_loaded(self, subject: Subject) -> Loaded:
        """The first program that the backend supports."""
        return subject.any_of(self.programs)

    # Discovery: what the class says, what probe() finds.

    def test_is_found_by_its_name(self, kind: type[Backend]) -> None:
        """An entry point of the group `hetero.backends` leads to it."""
        found = installed_backends().get(kind.name)
        if found is None:
            pytest.skip(f"no installed plugin gives {kind.name!r}, the class alone is tested; pip install -e . first")
        if (found.__module__, found.__qualname__) != (kind.__module__, kind.__qualname__):
            complain(
                "a backend's name is its own",
                f"the {kind.name!r} that is installed is {found.__module__}.{found.__qualname__}",
                "rename one of the two",
            )

    def test_has_a_name_that_can_be_written_on_a_command_line(self, kind: type[Backend]) -> None:
        """The class attribute `name`: letters, digits, `_` and `-`."""
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", str(getattr(kind, "name", ""))):
            complain(
                "`name` is made of letters, digits, `_` and `-`",
                repr(getattr(kind, "name", None)),
                "rename the backend",
            )

    def test_declares_options_with_help_and_valid_defaults(self, kind: type[Backend]) -> None:
        """Each default passes the check that a user's value meets; a wrong option is refused."""
        names = [option.name for option in kind.options if isinstance(option, Option)]
        if len(names) != len(kind.options) or len(set(names)) != len(names):
            complain("`options` holds Option objects, each name once", repr(kind.options), "mend the class attribute")
        for option in kind.options:
            where = f"option {kind.name}.{option.name}"
            if not option.help.strip():
                complain(f"{where} has a help text", "it is empty", "say in a sentence what it does")
            try:
                check_options(kind.name, kind.options, {option.name: option.default})
            except OptionError as error:
                complain(f"the default of {where} is allowed", error.problem, "mend type, choices, minimum or default")
        with pytest.raises(OptionError):
            check_options(kind.name, kind.options, {"no such option": 1})

    def test_probe_gives_devices_or_says_why_not_and_what_to_do(self, kind: type[Backend], host: Host) -> None:
        """Unavailable has a reason and a fix."""
        check_probe(kind(host), self.limit)

    def test_probe_of_a_bare_machine_gives_devices_or_unavailable(
        self, kind: type[Backend], host: Host, tmp_path: Path
    ) -> None:
        """With no environment variables and nothing under /sys, /proc and /dev."""
        bare = replace(host, environ={}, sysroot=tmp_path / "nothing", simulate=())
        check_probe(kind(bare), self.limit)

    def test_probe_gives_the_same_again(self, subject: Subject, kind: type[Backend], host: Host) -> None:
        """`hetero devices` and each Runtime probe anew, and nothing is left behind."""
        before = leaks.holdings()
        for backend in [subject.backend] * 5 + [kind(host)]:
            again = [device.name for device in probe(backend, self.limit)]
            if again != [device.name for device in subject.devices]:
                complain("probe() is repeatable", f"{again}, then {subject.devices}", "keep no state in probe()")
        found = leaks.growth(before, leaks.holdings(), threads=2, files=2, memory=sys.maxsize)
        if found:
            complain("probe() leaves nothing behind", "; ".join(found), "close what probe() opens")

    def test_devices_are_described_as_the_contract_says(self, subject: Subject) -> None:
        """Names, kinds, lanes."""
        name = subject.backend.name
        for device in subject.devices:
            if not isinstance(device, Device):
                complain("probe() gives hetero.Device objects", repr(device), "wrap it in a Device")
            wrong = fault_of(device, name)
            if wrong:
                complain(f"the device {device.name!r} is well described", wrong, "mend the Device that probe() gives")
        names = [device.name for device in subject.devices]
        if len(set(names)) != len(names):
            complain("devices have names of their own", str(names), f"call them {name}:0, {name}:1, ...")

    # Load.

    def test_takes_at_least_one_program(self, subject: Subject) -> None:
        """Else nothing of the rest is tested."""
        subject.any_of(self.programs)

    def test_an_executable_says_how_many_calls_it_takes(self, any_loaded: Loaded) -> None:
        """`lanes`, `batch` and `details`."""
        executable = any_loaded.executable
        for attribute in ("lanes", "batch"):
            value = getattr(executable, attribute)
            if type(value) is not int or value < 1:
                complain(f"`{attribute}` of an executable is an int, at least 1", repr(value), "set it in __init__")
        if not isinstance(executable.details, Mapping):
            complain("`details` is a mapping", repr(executable.details), "give a dict")

    def test_load_refuses_what_it_does_not_know_by_unsupported(self, subject: Subject) -> None:
        """A program without any artifact of its kinds."""
        program = unknown_program()
        try:
            subject.attempt(
                "load() of an unknown artifact", lambda: subject.backend.load(program, subject.device, subject.values())
            )
        except Unsupported as error:
            if error.problem.strip():
                return
            complain("Unsupported says why", "it is empty", "name what is missing")
        except HeteroError as error:
            complain("load() of a program without its artifacts raises Unsupported", told(error), _ASK)
        complain("load() of a program without its artifacts raises Unsupported", "it gave an executable", _ASK)

    @pytest.mark.parametrize("fault", ["unknown-op", "damaged-file"])
    def test_load_of_a_bad_model_raises_an_error_of_hetero(self, subject: Subject, fault: str, tmp_path: Path) -> None:
        """At load, so that another device is tried before anything is run; which error is the backend's to say."""
        program = bad_model(fault, tmp_path)
        what = f"load() of a model with a fault ({fault})"
        try:
            subject.attempt(what, lambda: subject.backend.load(program, subject.device, subject.values()))
        except HeteroError:
            return
        complain(f"{what} raises Unsupported or a ProgramError", "it gave an executable", "check it in load()")

    def test_none_leaves_an_option_to_the_backend(self, subject: Subject, any_loaded: Loaded) -> None:
        """Every option may be None."""
        values = dict.fromkeys((option.name for option in subject.backend.options), None)
        subject.try_load(any_loaded.reference, values=values).check(1, when="with every option None")

    # Answers.

    def test_answers_are_right(self, subject: Subject, reference: ReferenceProgram) -> None:
        """Names, dtypes, shapes and values, on each device."""
        loaded = [subject.load(reference, device) for device in subject.devices]
        for seed in range(3):
            for each in loaded:
                each.check(seed)

    def test_inputs_may_be_read_only_and_are_left_as_they_were(self, loaded: Loaded) -> None:
        """A request that fails here goes on to the next device with the same arrays."""
        for writable in (True, False):
            inputs = {name: array.copy() for name, array in loaded.feed(1).items()}
            for array in inputs.values():
                array.flags.writeable = writable
            loaded.compare(1, loaded.run(inputs), "" if writable else "from read-only inputs")
            for name, array in loaded.feed(1).items():
                if not np.array_equal(array, inputs[name]):
                    complain("inputs are left as they were", f"{name!r} was written to", "copy before writing")

    def test_outputs_are_the_callers_to_keep(self, subject: Subject, loaded: Loaded) -> None:
        """Nobody writes to them later: not the next call, not the caller who reuses the inputs, not close()."""
        inputs = {name: array.copy() for name, array in loaded.feed(1).items()}
        outputs = dict(loaded.run(inputs))
        check_apart(inputs, outputs)
        for seed in (2, 3, 4):
            for lane in range(loaded.executable.lanes):
                loaded.run(loaded.feed(seed), lane)
        loaded.compare(1, outputs, "and it stays so after later calls: hand out an array of its own each time")
        for array in inputs.values():
            array.fill(0)
        loaded.compare(1, outputs, "and it stays so when the caller reuses the inputs")
        loaded.close()
        loaded.compare(1, outputs, "and it stays so after close(): copy what lies in the device's memory")

    # Concurrency.

    def test_each_lane_answers_rightly(self, loaded: Loaded) -> None:
        """One after the other."""
        for lane in range(loaded.executable.lanes):
            loaded.check(lane, lane, f"on lane {lane}")

    def test_calls_at_once_are_never_mixed_up(self, subject: Subject, loaded: Loaded) -> None:
        """More threads than lanes, each call with data of its own; a lane is held by one call at a time."""
        hammer([loaded], self.limit)

    def test_two_executables_do_not_disturb_each_other(self, subject: Subject, any_loaded: Loaded) -> None:
        """Used at the same time, and the one after the other was closed."""
        second = subject.load(any_loaded.reference)
        hammer([any_loaded, second], self.limit)
        any_loaded.close()
        second.check(5, when="after the other executable was closed")

    # Failures.

    def test_a_call_that_must_fail_raises_an_error_of_hetero_and_does_no_harm(self, subject: Subject) -> None:
        """Sizes that fit the specs and not each other: no fault of the core's check."""
        loaded = subject.load(uneven_program())
        loaded.check(1)
        bad = {"x": np.ones(3, F32), "y": np.ones(4, F32)}
        try:
            subject.attempt("a run that must fail", lambda: loaded.call(bad, Call(0)))
        except HeteroError:
            loaded.check(2, when="after a call that failed")
        else:
            complain("a call that cannot be answered raises", "it gave an answer", "check the vendor's return codes")

    def test_cancel_answers_and_leaves_the_executable_in_order(self, subject: Subject, any_loaded: Loaded) -> None:
        """Of a running call and of one that has just ended; whether it can is the backend's to say."""
        executable, call = any_loaded.executable, Call(0)
        call.started = 1.0
        errors: list[Exception] = []
        runs = threading.Thread(target=cancelled, args=(any_loaded, call, errors), daemon=True)
        runs.start()
        answers = [within("cancel()", lambda: executable.cancel(call), self.limit)]
        runs.join(self.limit)
        answers.append(within("cancel()", lambda: executable.cancel(call), self.limit))
        if errors and not isinstance(errors[0], HeteroError):
            complain(
                "a call that was cancelled raises an error of hetero.errors", told(errors[0]), "catch and raise it"
            )
        if not all(isinstance(answer, bool) for answer in answers):
            complain("cancel() tells whether it can", repr(answers), "return True or False")
        any_loaded.check(2, when="after cancel()")

    def test_a_ticket_can_be_polled(self, any_loaded: Loaded) -> None:
        """`done()` comes back at once, stays true, and tickets may be collected in another order."""
        executable = any_loaded.executable
        if not isinstance(executable, PolledExecutable):
            pytest.skip("its executables block in run(), there is no ticket")
        feeds = [any_loaded.feed(lane) for lane in range(executable.lanes)]
        tickets = [executable.start(feed, Call(lane)) for lane, feed in enumerate(feeds)]
        for lane, ticket in reversed(list(enumerate(tickets))):
            within("a ticket's done() until it is true", functools.partial(until_done, ticket), self.limit)
            # Ten times slower than any driver's query; polling would cost more than it gains.
            within("done(), a hundred times", functools.partial(poll, ticket, 100), self.limit / 6)
            if ticket.done() is not True:
                complain("done() stays True until the result is collected", repr(ticket.done()), "keep the state")
            any_loaded.compare(lane, within("result()", ticket.result, self.limit), f"on lane {lane}")

    # Ends.

    def test_close_frees_an_idle_executable_and_can_be_called_again(self, subject: Subject, any_loaded: Loaded) -> None:
        """Before any run, after some, and twice, as happens when an application and the interpreter both end."""
        unused = subject.load(any_loaded.reference)
        any_loaded.check(1)
        for loaded in (unused, any_loaded):
            loaded.close()
            subject.attempt("close() for the second time", loaded.executable.close)

    def test_loading_and_closing_leaves_nothing_behind(self, subject: Subject) -> None:
        """Threads, file descriptors, memory."""
        big = big_program()
        try:
            subject.try_load(big).close()
        except HeteroError:
            big = subject.any_of(self.programs).reference
        program, values = subject.program(big), subject.values()
        inputs = program.signature.feed([big.inputs(1)])

        def rounds(count: int) -> leaks.Holdings:
            for _ in range(count):
                executable = subject.backend.load(program, subject.device, values)
                Loaded(subject, executable, program, big).call(inputs, Call(0))
                executable.close()
                del executable
                # What hangs in a reference cycle is no leak, but the collector's business.
                gc.collect()
            return leaks.holdings()

        # In one thread: a new one for each call would let the allocator keep memory for each.
        before, after = within("loading and closing", lambda: (rounds(ROUNDS // 3), rounds(ROUNDS)), 5 * self.limit)
        found = leaks.growth(before, after, threads=2, files=2, memory=self.memory)
        if found:
            complain(
                f"load(), run() and close() {ROUNDS} times leave nothing behind",
                "; ".join(found),
                "free in close() what load() made: join threads, close files, release the vendor's handles",
            )

    def test_nothing_is_written_to_stdout(
        self, kind: type[Backend], host: Host, subject: Subject, any_loaded: Loaded, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """`hetero ... --json` promises that stdout holds one document; stderr is free."""
        capfd.readouterr()
        probe(kind(host), self.limit)
        with subject.load(any_loaded.reference) as loaded:
            loaded.check(1)
        written = capfd.readouterr().out
        if written:
            complain(
                "nothing is written to stdout", repr(written[:200]), "use logging, or turn the vendor's output off"
            )

    def test_works_through_a_runtime(self, kind: type[Backend], host: Host, any_loaded: Loaded) -> None:
        """As a user meets it: by the device's name, without fallback; a wrong input is told of and does no harm."""
        reference, program = any_loaded.reference, any_loaded.program
        name = any_loaded.device.name
        with hetero.Runtime(backends=[kind], plugins=False, host=host, learn=False) as rt:
            options = {kind.name: dict(self.options)}
            session = rt.load(program, device=name, fallback="forbid", standby=False, options=options)
            result = session.run(reference.inputs(1))
            any_loaded.compare(1, result.outputs, "through a Runtime")
            if result.record.device != name:
                complain(f"{name!r} answers", f"{result.record.device!r} did", "give the device the name of probe()")
            with pytest.raises(InputError):
                session.run({"no such input": np.zeros(1, F32)})
            answer = session.submit(reference.inputs(2)).result(self.limit)
            outputs = answer if isinstance(answer, Mapping) else {program.outputs[0].name: answer}
            any_loaded.compare(2, outputs, "from a thread of the Runtime")


class TestBackend(BackendConformance):
    """The kit on the backend that `--hetero-backend` names."""
