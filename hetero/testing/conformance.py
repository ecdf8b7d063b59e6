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
import threading
from collections.abc import Mapping

import numpy as np
import pytest

import hetero
from hetero.backend import Backend, Call, Host, PolledExecutable
from hetero.errors import HeteroError, InputError
from hetero.testing import leaks
from hetero.testing.checks import cancelled, check_apart, hammer, poll, until_done
from hetero.testing.harness import Loaded, Subject, complain, probe, told, within
from hetero.testing.loading import LoadingCases
from hetero.testing.programs import ReferenceProgram, big_program, uneven_program

F32 = np.dtype(np.float32)
ROUNDS = 30


class BackendConformance(LoadingCases):
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

        # What was there before is none of the collector's business: in a long test run it is most of what it looks at.
        gc.collect()
        gc.freeze()
        try:
            # In one thread: a new one for each call would let the allocator keep memory for each.
            before, after = within("loading and closing", lambda: (rounds(ROUNDS // 3), rounds(ROUNDS)), 5 * self.limit)
        finally:
            gc.unfreeze()
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
