"""`hetero bench`: devices take turns, their numbers are told apart, and what cannot run is said."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hetero
from hetero.backend import Array
from hetero.cli.measure import Effort, latency, max_difference, measure, prepare
from hetero.energy.measuring import measure as energy_of
from tests import models
from tests.cli.backends import reference
from tests.cli.conftest import Line
from tests.energy.machine import Machine
from tests.fakes import DOUBLE, Failing, fake, raises


@pytest.fixture
def double(tmp_path: Path) -> Path:
    """y = x + x, float32 [4]."""
    return models.double(tmp_path / "double.onnx")


class Turns:
    """Runs that note whose they are."""

    def __init__(self) -> None:
        self.order: list[str] = []

    def of(self, name: str) -> Callable[..., Mapping[str, Array]]:
        def run(inputs: Mapping[str, Array], call: object) -> Mapping[str, Array]:
            self.order.append(name)
            return {"y": inputs["x"] * 2}

        return run


def test_devices_take_turns_and_each_runs_as_often_as_was_asked(make_runtime: Callable[..., hetero.Runtime]) -> None:
    turns = Turns()
    runtime = make_runtime(fake("a", run=turns.of("a")), fake("b", run=turns.of("b")))
    contenders = [prepare(runtime, DOUBLE, device) for device in runtime.devices]
    measure(contenders, {"x": np.ones(3, np.float32)}, Effort(warmup=2, seconds=0, runs=6))
    assert [len(contender.seconds) for contender in contenders] == [6, 6]
    assert [len(contender.rates) for contender in contenders] == [3, 3]
    singles = 1 + 2 + 6
    assert turns.order[: 2 * singles] == ["a", "b"] * singles
    assert turns.order[2 * singles :] == ["a", "a", "b", "b"] * 3


def test_time_ends_the_measurement_but_not_before_three_runs(make_runtime: Callable[..., hetero.Runtime]) -> None:
    runtime = make_runtime(fake("a"))
    contenders = [prepare(runtime, DOUBLE, device) for device in runtime.devices]
    shares: list[float] = []
    measure(
        contenders,
        {"x": np.ones(3, np.float32)},
        Effort(warmup=0, seconds=0.0, runs=None),
        lambda done, total: shares.append(done / total),
    )
    assert len(contenders[0].seconds) >= 3
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_a_device_that_fails_midway_is_given_up_and_the_others_go_on(
    make_runtime: Callable[..., hetero.Runtime],
) -> None:
    failing = Failing(at=5, error=hetero.errors.DeviceLost("it went away"))
    runtime = make_runtime(fake("a", run=failing), fake("b"))
    contenders = [prepare(runtime, DOUBLE, device) for device in runtime.devices]
    measure(contenders, {"x": np.ones(3, np.float32)}, Effort(warmup=0, seconds=0, runs=9))
    assert (contenders[0].outcome, contenders[0].reason) == ("failed", "DeviceLost: it went away")
    assert failing.calls == 6
    assert len(contenders[1].seconds) == 9


class Hanging:
    """A device of which one call never ends, until the test lets it."""

    def __init__(self, at: int) -> None:
        self.calls = 0
        self.over = threading.Event()
        self._at = at

    def __call__(self, inputs: Mapping[str, Array], call: object) -> Mapping[str, Array]:
        self.calls += 1
        if self.calls > self._at:
            self.over.wait()
        return {"y": inputs["x"] * 2}


# The first run, a single run, one in the middle of a stretch of `map`.
@pytest.mark.parametrize("at", [0, 3, 8])
def test_a_device_that_hangs_is_given_up_and_the_others_go_on(
    make_runtime: Callable[..., hetero.Runtime], at: int
) -> None:
    hanging = Hanging(at)
    runtime = make_runtime(fake("a", run=hanging), fake("b"))
    contenders = [prepare(runtime, DOUBLE, device) for device in runtime.devices]
    try:
        measure(contenders, {"x": np.ones(3, np.float32)}, Effort(warmup=0, seconds=0, runs=6, timeout=1.5))
        assert contenders[0].outcome == "failed"
        assert contenders[0].reason.startswith("no answer within 1.5 s; the call was left alone")
        assert (contenders[1].outcome, len(contenders[1].seconds), len(contenders[1].rates)) == ("ok", 6, 3)
        calls = hanging.calls
        for contender in contenders:
            contender.close()
        assert hanging.calls == calls
    finally:
        hanging.over.set()


def test_the_watch_on_a_call_changes_neither_answer_nor_error(make_runtime: Callable[..., hetero.Runtime]) -> None:
    failing = Failing(at=5, error=hetero.errors.DeviceLost("it went away"))
    runtime = make_runtime(fake("a", run=failing), fake("b"))
    contenders = [prepare(runtime, DOUBLE, device) for device in runtime.devices]
    measure(contenders, {"x": np.ones(3, np.float32)}, Effort(warmup=0, seconds=0, runs=9, timeout=60.0))
    assert (contenders[0].outcome, contenders[0].reason) == ("failed", "DeviceLost: it went away")
    assert len(contenders[1].seconds) == 9
    assert contenders[1].outputs["y"].tolist() == [2.0, 2.0, 2.0]


def test_a_hang_is_told_with_what_to_do_and_ends_with_1(line: Line, double: Path) -> None:
    over = threading.Event()

    def hang(outputs: Mapping[str, Array]) -> Mapping[str, Array]:
        over.wait()
        return outputs

    line.backends = [reference("npu", "npu", spoil=hang), reference("cpu")]
    try:
        result = line("bench", double, "--runs", 1, "--timeout", 2)
    finally:
        over.set()
    assert result.exit_code == 1, result.output
    assert "npu: failed: no answer within 2 s; the call was left alone (--timeout gives it longer)" in result.stdout
    assert "time and max diff are against cpu" in result.stdout


def test_the_table_has_every_device_and_marks_simulated_ones(line: Line, double: Path) -> None:
    line.backends = [reference("cpu"), reference("npu", "npu", simulated=True)]
    result = line("bench", double, "--runs", 3)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0] == "double on x: float32[4]"
    rows = [row.split() for row in result.stdout.splitlines()]
    assert rows[2][:2] == ["npu", "(simulated)"]
    assert rows[3][0] == "cpu"
    assert "time and max diff are against npu" in result.stdout
    assert "times of a simulated device are modelled, not measured" in result.stdout


def test_the_json_has_the_documented_keys(line: Line, double: Path) -> None:
    document = line.json("bench", double, "--runs", 4)
    assert list(document) == ["program", "inputs", "assumed", "first", "devices"]
    entry = document["devices"][0]
    assert list(entry) == [
        "device",
        "simulated",
        "watts",
        "modelled",
        "outcome",
        "reason",
        "load_seconds",
        "first_seconds",
        "latency_seconds",
        "throughput",
        "ratio",
        "max_difference",
        "energy",
    ]
    assert list(entry["energy"]) == [
        "joules",
        "gross",
        "idle_watts",
        "work_watts",
        "items",
        "meter",
        "reason",
        "fix",
    ]
    assert list(entry["latency_seconds"]) == ["runs", "median", "p90", "min", "spread"]
    assert entry["latency_seconds"]["runs"] == 4
    assert (entry["ratio"], entry["max_difference"]) == (1.0, 0.0)


def test_devices_are_those_that_are_named_in_that_order(line: Line, double: Path) -> None:
    line.backends = [reference("a"), reference("b"), reference("c")]
    document = line.json("bench", double, "--runs", 1, "--device", "c", "--device", "a,c")
    assert [entry["device"] for entry in document["devices"]] == ["c", "a"]
    assert document["first"] == "c"


def test_a_wrong_answer_shows_as_a_difference(line: Line, double: Path) -> None:
    def spoil(outputs: Mapping[str, Array]) -> Mapping[str, Array]:
        return {name: array + 0.5 for name, array in outputs.items()}

    line.backends = [reference("cpu"), reference("gpu", "gpu", spoil=spoil)]
    document = line.json("bench", double, "--runs", 1, "--device", "cpu,gpu", "--input", "zeros")
    assert [entry["max_difference"] for entry in document["devices"]] == [0.0, 0.5]


def test_an_unsupported_device_is_said_and_is_no_failure_while_another_runs(line: Line) -> None:
    line.backends = [reference("cpu"), reference("npu", "npu", kernels=False)]
    result = line("bench", "gelu_i8", "--runs", 1)
    assert result.exit_code == 0, result.output
    assert "npu: not supported: kernels are not for this device" in result.stdout
    assert line("bench", "gelu_i8", "--runs", 1, "--device", "npu").exit_code == 3


def test_a_failing_device_is_a_failure_and_the_others_are_still_told(line: Line, double: Path) -> None:
    line.backends.append(reference("npu", "npu", spoil=raises(hetero.errors.DeviceLost("it went away"))))
    document = line.json("bench", double, "--runs", 1, code=1)
    assert [entry["outcome"] for entry in document["devices"]] == ["failed", "ok"]
    assert document["devices"][0]["reason"] == "DeviceLost: it went away"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--device", "toaster"), 2, "device='toaster' is none of the candidates here"),
        (("--runs", "0"), 2, "0 is not in the range x>=1"),
        (("--seconds", "-1"), 2, "-1.0 is not in the range x>=0"),
        (("--shape", "q=1"), 2, "no input or free dimension 'q'"),
        (("--option", "cpu.thread=1"), 2, "has no option 'thread'"),
    ],
)
def test_bad_usage_is_refused(line: Line, double: Path, arguments: tuple[Any, ...], code: int, says: str) -> None:
    line.refuses("bench", double, *arguments, code=code, says=says)


def test_latency_of_no_run_is_none_and_spread_is_the_middle_half() -> None:
    assert latency([])["median"] is None
    told = latency([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (told["median"], told["min"], told["p90"], told["runs"]) == (3.0, 1.0, 4.6, 5)
    assert told["spread"] == pytest.approx(2 / 3)


def test_answers_that_cannot_be_compared_have_no_difference() -> None:
    one = {"y": np.array([1.0, np.nan])}
    assert max_difference(one, one) is None
    assert max_difference(one, {"y": np.zeros(3)}) is None
    assert max_difference({"y": np.array([250], np.uint8)}, {"y": np.array([5], np.uint8)}) == 245
    assert max_difference({}, {}) is None


@pytest.fixture
def package(host: hetero.Host, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine whose package has a meter, on a clock of its own."""
    machine = Machine(host.sysroot)
    machine.package()
    timed = functools.partial(energy_of, clock=machine.clock, sleep=machine.sleep)
    monkeypatch.setattr("hetero.cli.measure.energy_of", timed)
    return machine


def working(machine: Machine, joules: float) -> Callable[[Mapping[str, Array]], Mapping[str, Array]]:
    def spend(outputs: Mapping[str, Array]) -> Mapping[str, Array]:
        machine.spend(0.01, joules)
        return outputs

    return spend


def test_joules_per_item_are_told_with_their_meter_and_kept(line: Line, double: Path, package: Machine) -> None:
    line.backends = [reference("npu", "npu", spoil=working(package, 0.25)), reference("cpu", simulated=True)]
    energy, simulated = (entry["energy"] for entry in line.json("bench", double, "--runs", 1)["devices"])
    assert energy["joules"] == pytest.approx(0.25, rel=0.1)
    assert energy["meter"] == "intel-rapl:0 package-0 (package)"
    assert (simulated["joules"], simulated["meter"]) == (None, "")
    assert "simulated" in simulated["reason"]
    result = line("bench", double, "--runs", 1)
    assert "J per item, measured by intel-rapl:0 package-0 (package): " in result.stdout
    assert " less 4 W at rest, " in result.stdout
    assert "cpu: energy unknown: cpu is simulated" in result.stdout
    explained = line("run", double, "--input", "ones", "--device", "npu", "--explain")
    assert "measured by intel-rapl:0 package-0 (package)" in explained.stdout


def test_a_meter_can_be_named_and_none_can_be_asked_for(line: Line, double: Path, package: Machine) -> None:
    line.backends = [reference("cpu", spoil=working(package, 0.25), watts=9.0)]
    package.hwmon(0, "ina226", power1_input=1_000_000)
    named = line("bench", double, "--runs", 1, "--meter", "ina226:hwmon0")
    assert "cpu: energy unknown: work takes 0 W more than rest" in named.stdout
    assert "its backend declares 9 W" in named.stdout
    assert "fix: end what else runs" in named.stdout
    assert line.json("bench", double, "--runs", 1, "--meter", "none")["devices"][0]["energy"] is None
    assert "fix: known: intel-rapl:0" in line.refuses("bench", double, "--runs", 1, "--meter", "usb", says="'usb'")
