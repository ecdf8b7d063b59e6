"""A backend that is as it should be, and backends with one fault each, which the conformance kit must find.

Run by pytest in a process of its own, see `test_conformance.py`. Each faulty class names the case that finds it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from hetero.backend import (
    Array,
    Backend,
    Call,
    Device,
    Executable,
    ExecutionError,
    Option,
    PolledExecutable,
    Program,
    Ticket,
    Unavailable,
    Unsupported,
)
from hetero.testing import BackendConformance

Arrays = Mapping[str, Array]


class Good(Backend):
    """ONNX models on the reference evaluator of `onnx`, in two lanes."""

    name = "good"
    options = (Option("level", int, 1, "How hard it tries.", minimum=0),)
    executable: ClassVar[type[Executable | PolledExecutable]]

    def probe(self) -> Sequence[Device]:
        return [Device(self.name, kind="cpu", lanes=2)]

    def load(self, program: Program, device: Device, options: Mapping[str, Any]) -> Executable | PolledExecutable:
        from onnx.reference import ReferenceEvaluator

        path = program.artifact("onnx").file
        try:
            evaluator = ReferenceEvaluator(str(path))
        except Exception as error:
            raise Unsupported(str(error)) from error
        return self.executable(evaluator)  # type: ignore[call-arg]


class Run(Executable):
    """The right answers."""

    lanes = 2

    def __init__(self, evaluator: Any) -> None:
        self.evaluator = evaluator

    def answer(self, inputs: Arrays) -> dict[str, Array]:
        try:
            outputs = self.evaluator.run(None, dict(inputs))
        except Exception as error:
            raise ExecutionError(str(error)) from error
        return dict(zip(self.evaluator.output_names, outputs, strict=True))

    def run(self, inputs: Arrays, call: Call) -> Arrays:
        return self.answer(inputs)


class Started:
    """A run that is done when it was asked three times."""

    def __init__(self, outputs: Arrays) -> None:
        self.outputs = outputs
        self.asked = 0

    def done(self) -> bool:
        self.asked += 1
        return self.asked > 3

    def result(self) -> Arrays:
        return self.outputs


class Start(PolledExecutable):
    """The right answers, polled."""

    lanes = 2

    def __init__(self, evaluator: Any) -> None:
        self.inner = Run(evaluator)

    def start(self, inputs: Arrays, call: Call) -> Ticket:
        return Started(self.inner.answer(inputs))


Good.executable = Run


class TestGood(BackendConformance):
    backend = Good


class GoodPolled(Good):
    executable = Start


class TestGoodPolled(BackendConformance):
    backend = GoodPolled


class Faulty(BackendConformance):
    """The kit on a backend with a fault; `found_by` is the case that must tell of it, `says` a part of what it says."""

    found_by: ClassVar[str]
    says: ClassVar[str]


def running(run: Any, **members: Any) -> type[Good]:
    """A backend whose executables run so; `members` of the executable."""
    executable = type("FaultyRun", (Run,), {"run": run, **members})
    return type("FaultyBackend", (Good,), {"executable": executable})


def backing(**members: Any) -> type[Good]:
    """A backend with other members."""
    return type("FaultyBackend", (Good,), members)


def _share_outputs(self: Any, inputs: Arrays, call: Call) -> Arrays:
    outputs = self.answer(inputs)
    one = next(iter(outputs.values()))
    for name, array in outputs.items():
        if array.shape == one.shape:
            one[...] = array
            outputs[name] = one
    return outputs


class TestSharesABufferBetweenOutputs(Faulty):
    backend = running(_share_outputs)
    found_by = "test_answers_are_right[two-outputs]"
    says = "'total' is wrong by"


def _hand_out_inputs(self: Any, inputs: Arrays, call: Call) -> Arrays:
    given = next(iter(inputs.values()))
    return {name: given if np.array_equal(array, given) else array for name, array in self.answer(inputs).items()}


class TestHandsOutItsInput(Faulty):
    backend = running(_hand_out_inputs)
    found_by = "test_outputs_are_the_callers_to_keep[identity]"
    says = "the caller's input 'x'"


def _write_inputs(self: Any, inputs: Arrays, call: Call) -> Arrays:
    outputs = self.answer(inputs)
    for array in inputs.values():
        if array.flags.writeable:
            array[...] = 0
    return outputs


class TestWritesToItsInputs(Faulty):
    backend = running(_write_inputs)
    found_by = "test_inputs_may_be_read_only_and_are_left_as_they_were[add]"
    says = "was written to"


def _need_writable(self: Any, inputs: Arrays, call: Call) -> Arrays:
    for array in inputs.values():
        array[...] += np.zeros((), array.dtype)
    return self.answer(inputs)


class TestNeedsWritableInputs(Faulty):
    backend = running(_need_writable)
    found_by = "test_inputs_may_be_read_only_and_are_left_as_they_were[add]"
    says = "read-only"


def _ignore_lanes(self: Any, inputs: Arrays, call: Call) -> Arrays:
    self.scratch = inputs
    time.sleep(0)
    return self.answer(self.scratch)


class TestIgnoresLanes(Faulty):
    backend = running(_ignore_lanes)
    found_by = "test_calls_at_once_are_never_mixed_up[add]"
    says = "threads at once"


_everyones: dict[str, Any] = {}


def _share_between_executables(self: Any, inputs: Arrays, call: Call) -> Arrays:
    _everyones["inputs"] = inputs
    time.sleep(0)
    return self.answer(_everyones["inputs"])


class TestSharesABufferBetweenExecutables(Faulty):
    backend = running(_share_between_executables, lanes=1)
    found_by = "test_two_executables_do_not_disturb_each_other"
    says = "threads at once"


def _one_lane_wrong(self: Any, inputs: Arrays, call: Call) -> Arrays:
    outputs = self.answer(inputs)
    return {name: array + array.dtype.type(1) for name, array in outputs.items()} if call.lane else outputs


class TestAnswersWronglyOnASecondLane(Faulty):
    backend = running(_one_lane_wrong)
    found_by = "test_each_lane_answers_rightly[add]"
    says = "on lane 1"


def _reuse_outputs(self: Any, inputs: Arrays, call: Call) -> Arrays:
    outputs = self.answer(inputs)
    kept = self.__dict__.setdefault("kept", outputs)
    for name, array in outputs.items():
        if kept[name].shape == array.shape:
            kept[name][...] = array
            outputs[name] = kept[name]
    return outputs


class TestReusesItsOutputs(Faulty):
    backend = running(_reuse_outputs)
    found_by = "test_outputs_are_the_callers_to_keep[matmul]"
    says = "stays so after later calls"


def _remember(self: Any, inputs: Arrays, call: Call) -> Arrays:
    outputs = self.answer(inputs)
    self.__dict__.setdefault("given", []).extend(outputs.values())
    return outputs


def _wipe(self: Any) -> None:
    for array in self.__dict__.get("given", []):
        array[...] = 0


class TestFreesTheCallersOutputsOnClose(Faulty):
    backend = running(_remember, close=_wipe)
    found_by = "test_outputs_are_the_callers_to_keep[matmul]"
    says = "after close()"


class TestAnswersInAnotherDtype(Faulty):
    backend = running(lambda self, inputs, call: {k: v.astype(np.float64) for k, v in self.answer(inputs).items()})
    found_by = "test_answers_are_right[add]"
    says = "dtype float64, expected float32"


class TestMakesAScalarAVector(Faulty):
    backend = running(lambda self, inputs, call: {k: np.atleast_1d(v) for k, v in self.answer(inputs).items()})
    found_by = "test_answers_are_right[scalar]"
    says = "shape (1,), expected ()"


class TestLosesAnOutput(Faulty):
    backend = running(lambda self, inputs, call: dict(list(self.answer(inputs).items())[:1]))
    found_by = "test_answers_are_right[two-outputs]"
    says = "'product' is missing"


class TestSaturatesIntegers(Faulty):
    backend = running(lambda self, inputs, call: {k: np.minimum(v, 900) for k, v in self.answer(inputs).items()})
    found_by = "test_answers_are_right[int8]"
    says = "at most 0 is right"


class TestHangs(Faulty):
    backend = running(lambda self, inputs, call: threading.Event().wait())
    limit = 0.2
    found_by = "test_answers_are_right[add]"
    says = "it has not after 0.2 s"


class TestRaisesForeignErrors(Faulty):
    backend = running(lambda self, inputs, call: self.evaluator.run(None, dict(inputs)) and self.answer(inputs))
    found_by = "test_a_call_that_must_fail_raises_an_error_of_hetero_and_does_no_harm"
    says = "one of hetero.errors"


def _stay_broken(self: Any, inputs: Arrays, call: Call) -> Arrays:
    if getattr(self, "broken", False):
        raise ExecutionError("still upset")
    try:
        return self.answer(inputs)
    except ExecutionError:
        self.broken = True
        raise


class TestStaysBrokenAfterAFailure(Faulty):
    backend = running(_stay_broken)
    found_by = "test_a_call_that_must_fail_raises_an_error_of_hetero_and_does_no_harm"
    says = "still upset"


class TestSwallowsFailures(Faulty):
    backend = running(
        lambda self, inputs, call: (
            {"z": inputs["x"]} if {v.shape for v in inputs.values()} == {(3,), (4,)} else self.answer(inputs)
        )
    )
    found_by = "test_a_call_that_must_fail_raises_an_error_of_hetero_and_does_no_harm"
    says = "it gave an answer"


class TestClosesOnlyOnce(Faulty):
    backend = running(Run.run, close=lambda self: delattr(self, "evaluator"))
    found_by = "test_close_frees_an_idle_executable_and_can_be_called_again"
    says = "AttributeError"


def _cancel_sticks(self: Any, call: Call) -> bool:
    self.stop = True
    return True


def _stopped(self: Any, inputs: Arrays, call: Call) -> Arrays:
    if getattr(self, "stop", False):
        raise ExecutionError("cancelled")
    return self.answer(inputs)


class TestStaysCancelled(Faulty):
    backend = running(_stopped, cancel=_cancel_sticks)
    found_by = "test_cancel_answers_and_leaves_the_executable_in_order"
    says = "cancelled"


def _leaky(leak: Any) -> type[Good]:
    def load(self: Any, program: Program, device: Device, options: Mapping[str, Any]) -> Any:
        leak()
        return Good.load(self, program, device, options)

    return backing(load=load)


_never = threading.Event()
_kept: list[Any] = []


class TestLeaksAThread(Faulty):
    backend = _leaky(lambda: threading.Thread(target=_never.wait, name="worker", daemon=True).start())
    found_by = "test_loading_and_closing_leaves_nothing_behind"
    says = "30 more Python threads: worker"


class TestLeaksAFile(Faulty):
    backend = _leaky(lambda: os.open(os.devnull, os.O_RDONLY))
    found_by = "test_loading_and_closing_leaves_nothing_behind"
    says = "30 more open files"


class TestLeaksMemory(Faulty):
    backend = _leaky(lambda: _kept.append(bytearray(b"x") * (4 << 20)))
    found_by = "test_loading_and_closing_leaves_nothing_behind"
    says = "MiB more memory"


class TestPrints(Faulty):
    backend = _leaky(lambda: os.write(1, b"vendor 1.2 starting\n"))
    found_by = "test_nothing_is_written_to_stdout"
    says = "vendor 1.2 starting"


def _raises(error: Exception) -> Any:
    def probe(self: Any) -> Any:
        raise error

    return probe


class TestProbeRaisesAForeignError(Faulty):
    backend = backing(probe=_raises(KeyError("soc")))
    found_by = "test_probe_gives_devices_or_says_why_not_and_what_to_do"
    says = "KeyError: 'soc'"


class TestUnavailableWithoutAFix(Faulty):
    backend = backing(probe=_raises(Unavailable("no driver")))
    found_by = "test_probe_gives_devices_or_says_why_not_and_what_to_do"
    says = "fix ''"


class TestProbeGivesNothing(Faulty):
    backend = backing(probe=lambda self: [])
    found_by = "test_probe_gives_devices_or_says_why_not_and_what_to_do"
    says = "an empty list"


class TestProbeNeedsAnEnvironment(Faulty):
    backend = backing(probe=lambda self: [Device("good", kind="cpu", description=self.host.environ["PATH"])])
    found_by = "test_probe_of_a_bare_machine_gives_devices_or_unavailable"
    says = "KeyError: 'PATH'"


def _probe_once(self: Any) -> Sequence[Device]:
    self.count = getattr(self, "count", 0) + 1
    return [Device(f"good:{self.count}", kind="cpu")]


class TestProbeGivesOtherDevicesEachTime(Faulty):
    backend = backing(probe=_probe_once)
    found_by = "test_probe_gives_the_same_again"
    says = "['good:2']"


class TestDeviceIsCalledAsItLikes(Faulty):
    backend = backing(probe=lambda self: [Device("super NPU", kind="cpu")])
    found_by = "test_devices_are_described_as_the_contract_says"
    says = "expected 'good' or 'good:...'"


class TestDeviceWithoutLanes(Faulty):
    backend = backing(probe=lambda self: [Device("good", kind="cpu", lanes=0)])
    found_by = "test_devices_are_described_as_the_contract_says"
    says = "lanes = 0"


class TestExecutableWithoutLanes(Faulty):
    backend = running(Run.run, lanes=None)
    found_by = "test_an_executable_says_how_many_calls_it_takes"
    says = "`lanes`"


class TestNameWithSpaces(Faulty):
    backend = backing(name="good backend")
    found_by = "test_has_a_name_that_can_be_written_on_a_command_line"
    says = "'good backend'"


class TestOptionWithoutHelp(Faulty):
    backend = backing(options=(Option("level", int, 1, ""),))
    found_by = "test_declares_options_with_help_and_valid_defaults"
    says = "option good.level has a help text"


class TestOptionWithAWrongDefault(Faulty):
    backend = backing(options=(Option("level", int, -1, "How hard.", minimum=0),))
    found_by = "test_declares_options_with_help_and_valid_defaults"
    says = "expected at least 0"


def _count_options(self: Any, program: Program, device: Device, options: Mapping[str, Any]) -> Any:
    assert options["level"] + 1
    return Good.load(self, program, device, options)


class TestChokesOnNone(Faulty):
    backend = backing(load=_count_options)
    found_by = "test_none_leaves_an_option_to_the_backend"
    says = "TypeError"


def _take_the_first(self: Any, program: Program, device: Device, options: Mapping[str, Any]) -> Any:
    return {"onnx": lambda: Good.load(self, program, device, options)}[program.artifacts[0].kind]()


class TestLooksForArtifactsItself(Faulty):
    backend = backing(load=_take_the_first)
    found_by = "test_load_refuses_what_it_does_not_know_by_unsupported"
    says = "KeyError: 'conformance-kit'"


def _load_later(self: Any, program: Program, device: Device, options: Mapping[str, Any]) -> Any:
    program.artifact("onnx")
    return Run(None)


class TestFindsBadModelsTooLate(Faulty):
    backend = backing(load=_load_later)
    found_by = "test_load_of_a_bad_model_raises_an_error_of_hetero[unknown-op]"
    says = "it gave an executable"


def _refuse(self: Any, program: Program, device: Device, options: Mapping[str, Any]) -> Any:
    raise Unsupported("not today")


class TestRefusesEverything(Faulty):
    backend = backing(load=_refuse)
    found_by = "test_takes_at_least_one_program"
    says = "add: not today"


class TestGivesNoExecutable(Faulty):
    backend = backing(load=lambda self, program, device, options: program.artifact("onnx").file)
    found_by = "test_takes_at_least_one_program"
    says = "an Executable or a PolledExecutable"


class SlowTicket(Started):
    def done(self) -> bool:
        time.sleep(0.02)
        return True


class SlowStart(Start):
    def start(self, inputs: Arrays, call: Call) -> Ticket:
        return SlowTicket(self.inner.answer(inputs))


class TestPollingBlocks(Faulty):
    backend = backing(executable=SlowStart)
    limit = 3.0
    found_by = "test_a_ticket_can_be_polled"
    says = "done(), a hundred times comes back"


class ForgetfulTicket(Started):
    def done(self) -> bool:
        self.asked += 1
        return self.asked == 4


class ForgetfulStart(Start):
    def start(self, inputs: Arrays, call: Call) -> Ticket:
        return ForgetfulTicket(self.inner.answer(inputs))


class TestForgetsThatItWasDone(Faulty):
    backend = backing(executable=ForgetfulStart)
    found_by = "test_a_ticket_can_be_polled"
    says = "done() stays True"
