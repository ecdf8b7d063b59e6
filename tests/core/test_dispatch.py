"""A request ends in one answer or one error that tells every attempt."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

import hetero
from hetero import errors
from hetero.backend import Array, Call, Device, PolledExecutable, Program
from tests.fakes import DOUBLE, Failing, FakeBackend, double, fake, raises

Make = Callable[..., hetero.Runtime]

X = np.arange(4, dtype=np.float32)


def outcomes(record: hetero.Record) -> list[tuple[str, str, str]]:
    return [(a.device, a.stage, a.outcome) for a in record.attempts]


def test_the_first_device_by_rank_answers(make_runtime: Make) -> None:
    runtime = make_runtime(fake("c", kind="cpu"), fake("n", kind="npu"), fake("g", kind="gpu"))
    assert [device.name for device in runtime.devices] == ["n", "g", "c"]
    result = runtime.load(DOUBLE).run(X)
    np.testing.assert_array_equal(result.value, X * 2)
    assert outcomes(result.record) == [("n", "run", "ok")]
    assert result.record.device == "n"
    assert not result.record.fell_back


def test_an_explicit_chain_overrides_rank(make_runtime: Make) -> None:
    runtime = make_runtime(fake("n"), fake("g", kind="gpu"), fake("c", kind="cpu"), chain=["c", "n"])
    assert [device.name for device in runtime.devices] == ["c", "n"]
    assert runtime.load(DOUBLE).device == "c"


def test_a_backend_that_raises_at_load_is_told_of_and_the_next_one_answers(make_runtime: Make) -> None:
    runtime = make_runtime(fake("n", load=raises(RuntimeError("firmware is too old"))), fake("c", kind="cpu"))
    session = runtime.load(DOUBLE)
    result = session.run(X)
    np.testing.assert_array_equal(result.value, X * 2)
    assert outcomes(result.record) == [("n", "load", "failed"), ("c", "run", "ok")]
    assert "firmware is too old" in result.record.attempts[0].reason
    assert result.record.fell_back
    assert "n: failed; RuntimeError: firmware is too old" in str(session.explain())


def test_a_backend_that_raises_in_the_middle_of_a_run_loses_nothing(make_runtime: Make) -> None:
    flaky = Failing(2, errors.DeviceLost("the NPU was reset"))
    session = make_runtime(fake("n", run=flaky), fake("c", kind="cpu")).load(DOUBLE, canary=False)
    records = [session.run(X + i).record for i in range(5)]
    assert [record.device for record in records] == ["n", "n", "c", "c", "c"]
    assert outcomes(records[2]) == [("n", "run", "failed"), ("c", "run", "ok")]
    assert outcomes(records[3]) == [("n", "run", "set aside"), ("c", "run", "ok")]
    assert flaky.calls == 3, "a device that failed is not asked again in this session"
    assert "DeviceLost: the NPU was reset" in str(session.explain())
    assert session.device == "c"


def test_inputs_are_intact_for_the_next_device(make_runtime: Make) -> None:
    seen: list[Array] = []

    def spoil(inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        seen.append(inputs["x"].copy())
        raise errors.ExecutionError("half way through")

    session = make_runtime(fake("n", run=spoil), fake("c", kind="cpu")).load(DOUBLE, canary=False)
    np.testing.assert_array_equal(session(X), X * 2)
    np.testing.assert_array_equal(seen[0], X)


def test_when_all_fail_the_error_names_every_attempt(make_runtime: Make) -> None:
    session = make_runtime(
        fake("n", run=raises(errors.DeviceTimeout("no answer in 2 s"))),
        fake("c", kind="cpu", run=raises(ValueError("bad"))),
    ).load(DOUBLE)
    with pytest.raises(errors.AllDevicesFailed) as caught:
        session(X)
    assert [(a.device, a.outcome) for a in caught.value.attempts] == [("n", "failed"), ("c", "failed")]
    assert "n: run failed: DeviceTimeout: no answer in 2 s" in str(caught.value)
    assert "c: run failed: ValueError: bad" in str(caught.value)


def test_the_last_device_standing_is_asked_again_after_a_failure(make_runtime: Make) -> None:
    answers = iter([ValueError("once"), None])

    def sometimes(inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        error = next(answers)
        if error:
            raise error
        return double(inputs, call)

    session = make_runtime(fake("c", kind="cpu", run=sometimes)).load(DOUBLE)
    with pytest.raises(errors.AllDevicesFailed):
        session(X)
    np.testing.assert_array_equal(session(X), X * 2)


def test_a_refused_shape_goes_on_but_is_no_failure_of_the_device(make_runtime: Make) -> None:
    def only_four(inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        if len(inputs["x"]) != 4:
            raise errors.Unsupported("only 4 elements")
        return double(inputs, call)

    session = make_runtime(fake("n", run=only_four), fake("c", kind="cpu")).load(DOUBLE, canary=False)
    assert session.run(X[:3]).record.device == "c"
    assert session.run(X).record.device == "n"


def test_bad_input_found_by_a_backend_is_the_callers_and_sets_nothing_aside(make_runtime: Make) -> None:
    picky = fake("n", run=raises(errors.InputError("token 7 is out of range")))
    session = make_runtime(picky, fake("c", kind="cpu")).load(DOUBLE, canary=False)
    with pytest.raises(errors.InputError, match="token 7"):
        session(X)
    assert session.device == "n"


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"y": [1.0, 2.0]},
        {"y": X.astype(np.float64)},
        {"y": X[None]},
        None,
    ],
    ids=["missing", "list", "dtype", "rank", "none"],
)
def test_an_answer_of_the_wrong_form_never_reaches_the_caller(make_runtime: Make, answer: Any) -> None:
    session = make_runtime(fake("n", run=lambda inputs, call: answer), fake("c", kind="cpu")).load(DOUBLE, canary=False)
    result = session.run(X)
    assert result.record.device == "c"
    np.testing.assert_array_equal(result.value, X * 2)


def test_fallback_forbidden_at_load_tells_the_story(make_runtime: Make) -> None:
    runtime = make_runtime(fake("n", load=raises(errors.Unsupported("op Foo"))), fake("c", kind="cpu"))
    with pytest.raises(errors.FallbackForbidden, match=r"n: load unsupported: op Foo"):
        runtime.load(DOUBLE, fallback="forbid")


def test_fallback_forbidden_in_a_run_tells_the_story(make_runtime: Make) -> None:
    session = make_runtime(fake("n", run=raises(OSError("gone"))), fake("c", kind="cpu")).load(DOUBLE, canary=False)
    with pytest.raises(errors.FallbackForbidden, match=r"n: run failed: OSError: gone") as caught:
        session(X, fallback="forbid")
    assert [a.device for a in caught.value.attempts] == ["n"]
    last = session.explain().last
    assert last is not None
    assert last.error is not None
    assert "FallbackForbidden" in last.error
    assert session.run(X).record.device == "c", "the session itself allows fallback"


def test_a_backend_without_its_library_is_passed_over_with_reason_and_fix(make_runtime: Make) -> None:
    absent = fake("n", probe=raises(errors.Unavailable("libn.so is missing", fix="apt install libn")))
    runtime = make_runtime(absent, fake("c", kind="cpu"))
    assert [(a.backend, a.reason, a.fix) for a in runtime.absent] == [("n", "libn.so is missing", "apt install libn")]
    session = runtime.load(DOUBLE)
    assert session.device == "c"
    assert "libn.so is missing" in str(session.explain())
    with pytest.raises(errors.Unavailable, match=r"libn\.so is missing"):
        runtime.load(DOUBLE, device="n")


def test_a_chain_that_names_an_absent_device_counts_as_fallback(make_runtime: Make) -> None:
    absent = fake("n", probe=raises(errors.Unavailable("libn.so is missing", fix="apt install libn")))
    runtime = make_runtime(absent, fake("c", kind="cpu"), chain=["n", "c"])
    record = runtime.load(DOUBLE).run(X).record
    assert outcomes(record) == [("n", "probe", "unavailable"), ("c", "run", "ok")]
    assert record.fell_back
    with pytest.raises(
        errors.FallbackForbidden, match=r"n: probe unavailable: libn.so is missing \(fix: apt install libn\)"
    ):
        runtime.load(DOUBLE, fallback="forbid")


def test_a_probe_that_crashes_harms_no_other_backend(make_runtime: Make) -> None:
    runtime = make_runtime(fake("n", probe=raises(ZeroDivisionError("oops"))), fake("c", kind="cpu"))
    assert [device.name for device in runtime.devices] == ["c"]
    assert "ZeroDivisionError: oops" in runtime.absent[0].reason


def test_device_picks_one_candidate_and_no_other(make_runtime: Make) -> None:
    session = make_runtime(fake("n"), fake("c", kind="cpu", run=raises(OSError("gone")))).load(DOUBLE)
    assert session.run(X, device="n").record.device == "n"
    with pytest.raises(errors.AllDevicesFailed, match="gone"):
        session(X, device="c")
    with pytest.raises(errors.OptionError, match="'q' is none of the candidates here: n, c"):
        session(X, device="q")


def test_device_names_a_backend_with_several_devices(make_runtime: Make) -> None:
    gpus = fake("g", probe=lambda: [Device("g:0", kind="gpu"), Device("g:1", kind="gpu")])
    runtime = make_runtime(gpus, fake("c", kind="cpu"))
    assert runtime.load(DOUBLE, device="g").device == "g:0"
    assert runtime.load(DOUBLE, device=["g:1", "c"]).device == "g:1"
    with pytest.raises(errors.Unavailable, match="g:7"):
        runtime.load(DOUBLE, device="g:7")


def test_the_last_candidate_is_loaded_as_standby(make_runtime: Make) -> None:
    near, middle, last = fake("n"), fake("g", kind="gpu"), fake("c", kind="cpu")
    runtime = make_runtime(near, middle, last)
    runtime.load(DOUBLE)
    assert (len(near.made), len(middle.made), len(last.made)) == (1, 0, 1)
    runtime.load(DOUBLE, standby=False)
    assert (len(near.made), len(middle.made), len(last.made)) == (2, 0, 1)


def test_simulated_devices_are_told_in_every_attempt(make_runtime: Make) -> None:
    session = make_runtime(fake("n", simulated=True)).load(DOUBLE)
    record = session.run(X).record
    assert record.simulated
    assert record.to_dict()["attempts"][0]["simulated"] is True
    assert "n (simulated)" in str(session.explain())


def test_a_device_never_has_more_calls_than_lanes_and_no_two_share_one(make_runtime: Make) -> None:
    meet = threading.Barrier(3)

    def together(inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        meet.wait(10)
        return {"y": inputs["x"] + call.lane}

    backend = fake("n", lanes=3, run=together)
    session = make_runtime(backend).load(DOUBLE)
    futures = [session.submit(np.zeros(1, np.float32)) for _ in range(9)]
    lanes = [float(future.result(10)[0]) for future in futures]
    executable = backend.made[0]
    assert executable.most_inside == 3
    assert sorted(lanes) == [0, 0, 0, 1, 1, 1, 2, 2, 2]


class Ticket:
    def __init__(self, polls: int, answer: Any) -> None:
        self.polls = polls
        self._answer = answer

    def done(self) -> bool:
        self.polls -= 1
        return self.polls < 0

    def result(self) -> Any:
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


class Polled(PolledExecutable):
    def __init__(self, answer: Any = None) -> None:
        self._answer = answer

    def start(self, inputs: Mapping[str, Array], call: Call) -> Ticket:
        return Ticket(30, self._answer if self._answer is not None else double(inputs, call))


def polled(name: str, answer: Any = None) -> type[FakeBackend]:
    def load(self: Any, program: Program, device: Device, options: Mapping[str, Any]) -> PolledExecutable:
        return Polled(answer)

    return type("PolledBackend", (fake(name),), {"load": load})


def test_a_started_and_polled_executable_looks_like_any_other(make_runtime: Make) -> None:
    record = make_runtime(polled("x")).load(DOUBLE).run(X).record
    assert outcomes(record) == [("x", "run", "ok")]


def test_a_polled_run_that_fails_moves_on(make_runtime: Make) -> None:
    session = make_runtime(polled("x", errors.DeviceLost("ERT_CMD_STATE_ABORT")), fake("c", kind="cpu")).load(
        DOUBLE, canary=False
    )
    assert outcomes(session.run(X).record) == [("x", "run", "failed"), ("c", "run", "ok")]


def test_a_backend_that_loads_something_else_is_refused_with_what_was_expected(make_runtime: Make) -> None:
    bad = type("Bad", (fake("n"),), {"load": lambda self, program, device, options: "not an executable"})
    session = make_runtime(bad, fake("c", kind="cpu")).load(DOUBLE)
    assert session.device == "c"
    assert "expected an Executable or PolledExecutable" in str(session.explain())


def test_a_program_that_is_broken_for_every_device_is_not_tried_on_the_next(make_runtime: Make) -> None:
    spare = fake("c", kind="cpu")
    runtime = make_runtime(fake("n", load=raises(errors.ProgramInvalid("truncated"))), spare)
    with pytest.raises(errors.ProgramInvalid, match="truncated"):
        runtime.load(DOUBLE)
    assert not spare.made


def test_records_are_kept_counted_and_told(make_runtime: Make) -> None:
    runtime = make_runtime(fake("n"), keep_records=3)
    heard: list[hetero.Record] = []
    unsubscribe = runtime.records.subscribe(heard.append)
    runtime.records.subscribe(raises(ValueError("a listener's own bug")))
    session = runtime.load(DOUBLE)
    for _ in range(5):
        session(X)
    unsubscribe()
    session(X)
    assert len(runtime.records) == 3
    assert len(heard) == 5
    assert runtime.records.last is not None
    assert runtime.records.last.total_seconds >= runtime.records.last.run_seconds > 0
    assert session.explain().candidates[0].answered == 3
