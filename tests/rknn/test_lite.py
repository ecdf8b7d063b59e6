"""The driver for Rockchip's Python class, on the simulated one: right answers, right errors, nothing left behind."""

from __future__ import annotations

import dataclasses
import gc
import logging
import sys
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from hetero.backend import (
    DeviceLost,
    DeviceTimeout,
    ExecutionError,
    NonFiniteOutput,
    OutOfMemory,
    Unavailable,
    Unsupported,
)
from hetero.errors import ClosedError
from hetero.testing.rknn import rknnlite_runtime
from hetero.testing.rknn.npu import SimulatedNpu
from hetero.testing.rknn.rknnlite import SimulatedModule, simulated_rknnlite
from hetero_rknn.drivers import lite, lite_watch
from hetero_rknn.drivers.contract import Timing
from hetero_rknn.drivers.lite import LiteContext, LiteDriver
from hetero_rknn.drivers.lite_log import LOGGER
from hetero_rknn.model_file import ModelTensor
from tests import models
from tests.rknn.conftest import Said
from tests.rknn.sim_models import answers, perceptron, shifted_image, twin, twin_bytes, wait_for

pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.usefixtures("logging_as_it_was")

Open = Callable[..., LiteContext]


@pytest.fixture
def machine() -> Iterator[SimulatedModule]:
    """A fresh RK3588; a test that leaves an object open in it, or uses one from two threads, fails."""
    made = simulated_rknnlite(SimulatedNpu(), clock=lambda: 0.0)
    yield made
    made.release_hangs()
    wait_for(lambda: made.counter("objects") == 0)
    assert made.counter("misuse") == 0


@pytest.fixture
def open_(machine: SimulatedModule) -> Iterator[Open]:
    """Opens an ONNX model's twin; everything opened is closed when the test ends."""
    opened: list[LiteContext] = []

    def open_it(onnx: Path, mask: int = 0, platform: str = "rk3588", **changes: Any) -> LiteContext:
        path, model = twin(onnx, [platform])
        opened.append(LiteDriver(machine).open(path, dataclasses.replace(model, **changes), mask))
        return opened[-1]

    yield open_it
    machine.release_hangs()
    for context in opened:
        context.close()


def numbers(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(1).standard_normal(shape, dtype=np.float32)


def changed(machine: SimulatedModule, method: Callable[..., Any]) -> Any:
    """A module whose class has another method in place of its own."""
    return types.SimpleNamespace(RKNNLite=type("RKNNLite", (machine.RKNNLite,), {method.__name__: method}))


def test_answers_are_those_of_onnx_runtime(open_: Open, tmp_path: Path) -> None:
    onnx, x, timing = perceptron(tmp_path / "m.onnx"), numbers(3, 64), Timing()
    (y,) = open_(onnx).run([x], timing)
    np.testing.assert_array_equal(y, answers(onnx, [x])[0])
    assert timing.infer > 0
    assert timing.total == timing.set_input + timing.infer + timing.copy_output


@pytest.mark.parametrize(
    "dtype", ["float32", "float16", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "bool"]
)
def test_every_dtype_goes_in_and_comes_back_as_it_is(open_: Open, tmp_path: Path, dtype: str) -> None:
    x = np.array([[0, 1, 2, 3], [100, 7, 0, 1]]).astype(dtype)
    (y,) = open_(models.identity(tmp_path / "m.onnx", x.shape, dtype)).run([x], Timing())
    assert y.dtype == x.dtype
    assert y.flags.owndata
    np.testing.assert_array_equal(y, x)


def test_dtypes_that_the_class_refuses_are_converted(open_: Open, tmp_path: Path) -> None:
    ends = tuple((ModelTensor(name, np.dtype(np.float64), (4,)),) for name in "xy")
    context = open_(models.double(tmp_path / "m.onnx"), inputs=ends[0], outputs=ends[1])
    (y,) = context.run([np.array([1.0, 0.5, -2.0, 1e300])], Timing())
    assert y.dtype == np.float64
    np.testing.assert_array_equal(y, [2.0, 1.0, -4.0, np.inf])


def test_unsigned_integers_that_do_not_fit_are_refused(open_: Open, tmp_path: Path) -> None:
    ends = tuple((ModelTensor(name, np.dtype(np.uint64), (4,)),) for name in "xy")
    context = open_(models.identity(tmp_path / "m.onnx", (4,), np.int64), inputs=ends[0], outputs=ends[1])
    x = np.array([0, 1, 2, 3], np.uint64)
    np.testing.assert_array_equal(context.run([x], Timing())[0], x)
    with pytest.raises(Unsupported, match="uint64"):
        context.run([x + np.uint64(2**63)], Timing())


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint32"])
def test_integers_that_single_precision_cannot_carry_are_never_handed_out(
    open_: Open, tmp_path: Path, dtype: str
) -> None:
    context = open_(models.identity(tmp_path / "m.onnx", (4,), dtype))
    x = np.full(4, 2**24 - 1, dtype)
    np.testing.assert_array_equal(context.run([x], Timing())[0], x)
    with pytest.raises(Unsupported, match="not exact") as raised:
        context.run([x + np.array(2, dtype)], Timing())
    assert "capi" in raised.value.fix


def test_an_integer_output_that_is_not_a_number_is_an_error(open_: Open, tmp_path: Path) -> None:
    integers = (ModelTensor("y", np.dtype(np.int32), (4,)),)
    context = open_(models.identity(tmp_path / "m.onnx", (4,)), outputs=integers)
    with pytest.raises(NonFiniteOutput, match="'y'"):
        context.run([np.array([1, 2, np.nan, 3], np.float32)], Timing())


@pytest.mark.parametrize("shape", [(1, 3, 5, 16), (2, 3, 4, 32), (1, 1, 1, 16), (3, 3, 3, 3), (1, 12, 5, 7)])
def test_images_keep_their_order_and_the_class_is_told_the_layout(
    open_: Open, tmp_path: Path, shape: tuple[int, ...], said: Said
) -> None:
    onnx, x = shifted_image(tmp_path / "m.onnx", shape), numbers(*shape)
    kept = x.copy()
    (y,) = open_(onnx).run([x], Timing())
    np.testing.assert_array_equal(y, answers(onnx, [x])[0])
    np.testing.assert_array_equal(x, kept)
    # The class warns on each call that hands over NCHW.
    assert "need NHWC" not in said.text


@pytest.mark.parametrize(("native", "told"), [("NHWC", "nhwc"), ("", "nhwc"), ("NCHW", "nchw"), ("UNDEFINED", "nchw")])
def test_the_layout_is_the_one_that_the_file_has_for_the_npu(
    machine: SimulatedModule, tmp_path: Path, native: str, told: str
) -> None:
    seen: list[Any] = []

    def inference(self: Any, inputs: Any, data_format: Any = None) -> Any:
        seen.append((inputs[0].shape, inputs[0].flags.c_contiguous, list(data_format)))
        data_format[0] = 1
        return [inputs[0]]

    path, model = twin(shifted_image(tmp_path / "m.onnx", (1, 3, 5, 16)))
    model = dataclasses.replace(model, inputs=(dataclasses.replace(model.inputs[0], native_layout=native),))
    module = changed(machine, inference)
    context = LiteDriver(module).open(path, model, 0)
    for _ in range(2):
        (y,) = context.run([numbers(1, 3, 5, 16)], Timing())
    context.close()
    assert seen == [((1, 5, 16, 3) if told == "nhwc" else (1, 3, 5, 16), True, [told])] * 2
    # What came back in NHWC is turned round.
    np.testing.assert_array_equal(y, numbers(1, 3, 5, 16))


def test_an_image_beside_other_inputs(open_: Open, tmp_path: Path) -> None:
    onnx = models.save(
        tmp_path / "m.onnx",
        [helper.make_node("Mul", ["x", "s"], ["y"])],
        [models.tensor("x", [1, 3, 5, 16]), models.tensor("s", [5, 1])],
        [models.tensor("y", [1, 3, 5, 16])],
    )
    inputs, context = [numbers(1, 3, 5, 16), numbers(5, 1)], open_(onnx)
    for _ in range(2):
        np.testing.assert_array_equal(context.run(inputs, Timing())[0], answers(onnx, inputs)[0])


def test_outputs_are_not_written_again(open_: Open, tmp_path: Path) -> None:
    context = open_(models.two_outputs(tmp_path / "m.onnx"))
    x, y = numbers(4), numbers(4) + 1
    first = context.run([x, y], Timing())
    before = [output.copy() for output in first]
    context.run([x * 3, y * 3], Timing())
    for output, kept in zip(first, before, strict=True):
        np.testing.assert_array_equal(output, kept)


def test_buffers_that_the_class_uses_again_are_copied(machine: SimulatedModule, tmp_path: Path) -> None:
    buffer = np.zeros(8, np.float32)

    def inference(self: Any, inputs: Any, data_format: Any = None) -> Any:
        buffer[:4] = inputs[0]
        return [buffer[:4]]

    path, model = twin(models.identity(tmp_path / "m.onnx"))
    context = LiteDriver(changed(machine, inference)).open(path, model, 0)
    (y,) = context.run([np.ones(4, np.float32)], Timing())
    context.run([np.zeros(4, np.float32)], Timing())
    context.close()
    np.testing.assert_array_equal(y, np.ones(4))


def test_answers_are_handed_on_without_a_copy_where_they_are_the_callers_alone(
    machine: SimulatedModule, tmp_path: Path
) -> None:
    given: list[Any] = []

    def inference(self: Any, inputs: Any, data_format: Any = None) -> Any:
        given.append(inputs[0].copy())
        return [given[-1]]

    path, model = twin(models.identity(tmp_path / "m.onnx"))
    context = LiteDriver(changed(machine, inference)).open(path, model, 0)
    assert context.run([numbers(4)], Timing())[0] is given[0]
    context.close()


def test_dimensions_of_one_that_the_runtime_drops_are_put_back(machine: SimulatedModule, tmp_path: Path) -> None:
    def inference(self: Any, inputs: Any, data_format: Any = None) -> Any:
        return [inputs[0].reshape(1, 4)]

    path, model = twin(models.identity(tmp_path / "m.onnx"))
    context = LiteDriver(changed(machine, inference)).open(path, model, 0)
    np.testing.assert_array_equal(context.run([numbers(4)], Timing())[0], numbers(4))
    context.close()


@pytest.mark.parametrize(
    ("answer", "problem"),
    [([], "gave 0 outputs"), ([np.zeros(4), np.zeros(4)], "gave 2 outputs"), ([np.zeros(5)], r"came in shape \[5\]")],
)
def test_an_answer_of_another_form_than_the_files_is_an_error(
    machine: SimulatedModule, tmp_path: Path, answer: Any, problem: str
) -> None:
    def inference(self: Any, inputs: Any, data_format: Any = None) -> Any:
        return answer

    path, model = twin(models.identity(tmp_path / "m.onnx"))
    context = LiteDriver(changed(machine, inference)).open(path, model, 0)
    with pytest.raises(ExecutionError, match=problem):
        context.run([numbers(4)], Timing())
    context.close()


def test_contexts_have_objects_and_cores_of_their_own(machine: SimulatedModule, open_: Open, tmp_path: Path) -> None:
    onnx, x = perceptron(tmp_path / "m.onnx"), numbers(3, 64)
    original = open_(onnx, mask=1)
    copies = [original.duplicate(2), original.duplicate(4)]
    assert machine.counter("objects") == 3
    original.close()
    for context in (*copies, copies[1]):
        np.testing.assert_array_equal(context.run([x], Timing())[0], answers(onnx, [x])[0])
    assert [machine.cores.jobs[core] for core in range(3)] == [0, 1, 2]
    assert [context.mask for context in copies] == [2, 4]
    for context in copies * 2:
        context.close()
    assert machine.counter("objects") == 0


def test_the_mask_of_an_object_stays(open_: Open, tmp_path: Path) -> None:
    context = open_(perceptron(tmp_path / "m.onnx"), mask=1)
    assert context.set_mask(1)
    assert not context.set_mask(2)
    assert context.mask == 1


@pytest.mark.parametrize(("platform", "mask"), [("rk3588", 5), ("rk3588", 6), ("rk3566", 1), ("rk3566", 0xFFFF)])
def test_a_refused_mask_is_unsupported_and_leaves_nothing_open(
    machine: SimulatedModule, tmp_path: Path, platform: str, mask: int
) -> None:
    machine.configure(SimulatedNpu(platform))
    path, model = twin(perceptron(tmp_path / "m.onnx"), [platform])
    with pytest.raises(Unsupported, match=r"core mask \d+ failed: The core.?m\w+ .*supported") as raised:
        LiteDriver(machine).open(path, model, mask)
    assert "mask" in raised.value.fix
    assert machine.counter("objects") == machine.counter("sessions") == 0


@pytest.mark.parametrize(
    ("fault", "error", "name"),
    [
        ("fail", ExecutionError, r"RKNN_ERR_FAIL \(-1\)"),
        ("timeout", DeviceTimeout, r"RKNN_ERR_TIMEOUT \(-2\)"),
        ("lost", DeviceLost, r"RKNN_ERR_DEVICE_UNAVAILABLE \(-3\)"),
    ],
)
def test_a_failed_run_has_the_vendors_words_and_the_next_one_works(
    machine: SimulatedModule, open_: Open, tmp_path: Path, fault: Any, error: type[Exception], name: str
) -> None:
    onnx, x = perceptron(tmp_path / "m.onnx"), numbers(3, 64)
    context = open_(onnx)
    machine.configure(SimulatedNpu(faults={fault: 1.0}))
    with pytest.raises(error, match=rf"inference failed: {name}: .*Get outputs failed") as raised:
        context.run([x], Timing())
    assert type(raised.value) is error
    assert "Traceback" not in str(raised.value)
    machine.configure(SimulatedNpu())
    np.testing.assert_array_equal(context.run([x], Timing())[0], answers(onnx, [x])[0])


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("Exception: RKNN init failed. error code: RKNN_ERR_MALLOC_FAIL", OutOfMemory),
        ("Exception: RKNN init failed. error code: RKNN_ERR_TARGET_PLATFORM_UNMATCH", Unsupported),
        ("Exception: RKNN init failed. error code: RKNN_ERR_NEW_ONE", ExecutionError),
        ("something else", ExecutionError),
    ],
)
def test_what_the_class_logs_when_opening_becomes_the_error(
    machine: SimulatedModule, tmp_path: Path, line: str, error: type[Exception]
) -> None:
    def init_runtime(self: Any, core_mask: int) -> int:
        self.rknn_log.error("Catch exception when init runtime!")
        self.rknn_log.error("Traceback (most recent call last):\n  File x, line 3\n%s\n", line)
        return -1

    path, model = twin(models.identity(tmp_path / "m.onnx"))
    with pytest.raises(error, match=line.removeprefix("Exception: ")) as raised:
        LiteDriver(changed(machine, init_runtime)).open(path, model, 0)
    assert type(raised.value) is error


@pytest.mark.parametrize(
    ("fault", "error"), [("fail", ExecutionError), ("timeout", DeviceTimeout), ("lost", DeviceLost)]
)
def test_the_answer_of_an_earlier_run_is_never_taken_for_that_of_a_failed_one(
    tmp_path: Path, fault: Any, error: type[Exception]
) -> None:
    npu = SimulatedNpu(faults={fault: 0.5}, seed=1)
    path, model = twin(models.double(tmp_path / "m.onnx"))
    context = LiteDriver(simulated_rknnlite(npu, stale_outputs=True)).open(path, model, 0)
    failures: list[Exception] = []
    for number in range(40):
        x = np.full(4, number, np.float32)
        try:
            np.testing.assert_array_equal(context.run([x], Timing())[0], 2 * x)
        except ExecutionError as raised:
            failures.append(raised)
    context.close()
    assert 5 < len(failures) < 35
    assert {type(failure) for failure in failures} == {error}
    assert all("inference failed: RKNN_ERR_" in str(failure) for failure in failures)


def test_the_bytes_of_the_file_are_not_kept(machine: SimulatedModule, tmp_path: Path) -> None:
    made: list[Any] = []

    def release(self: Any) -> None:
        made.append(self)
        machine.RKNNLite.release(self)

    path, model = twin(models.double(tmp_path / "m.onnx"))
    context = LiteDriver(changed(machine, release)).open(path, model, 0)
    np.testing.assert_array_equal(context.run([np.ones(4, np.float32)], Timing())[0], np.full(4, 2.0))
    context.close()
    assert made[-1].rknn_data is None


class Clock:
    """A time that a test lets pass."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        for module in (lite, lite_watch):
            monkeypatch.setattr(module, "perf_counter", self)

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_the_time_of_the_job_is_told_from_the_copies_before_and_after_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clock = Clock(monkeypatch)

    def slowed(name: str, seconds: float) -> None:
        phase = getattr(rknnlite_runtime.Runtime, name)

        def slow(*arguments: Any, **named: Any) -> Any:
            clock.sleep(seconds)
            return phase(*arguments, **named)

        monkeypatch.setattr(rknnlite_runtime.Runtime, name, slow)

    slowed("set_inputs", 0.5)
    slowed("get_outputs", 1.0)
    machine = simulated_rknnlite(SimulatedNpu(job_seconds=0.25), clock=clock, sleep=clock.sleep)
    path, model = twin(models.double(tmp_path / "m.onnx"))
    context, timing = LiteDriver(machine).open(path, model, 0), Timing()
    context.run([np.ones(4, np.float32)], timing)
    context.close()
    assert (timing.set_input, timing.infer, timing.copy_output) == (0.5, 0.25, 1.0)
    assert context.notes == ()


def test_a_class_that_is_built_otherwise_works_and_says_what_it_does_not_show(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clock = Clock(monkeypatch)

    class Other:
        """The documented interface, and nothing behind it."""

        def load_rknn(self, path: str) -> int:
            return 0

        def init_runtime(self, core_mask: int = 0) -> int:
            return 0

        def inference(self, inputs: Any, data_format: Any = None) -> Any:
            clock.sleep(0.5)
            return [2 * inputs[0]]

        def get_sdk_version(self) -> str | None:
            return None

        def release(self) -> None:
            pass

    path, model = twin(models.double(tmp_path / "m.onnx"))
    context, timing = LiteDriver(types.SimpleNamespace(RKNNLite=Other)).open(path, model, 0), Timing()
    np.testing.assert_array_equal(context.run([np.ones(4, np.float32)], timing)[0], np.full(4, 2.0))
    assert (timing.set_input, timing.infer, timing.copy_output) == (0.0, 0.5, 0.0)
    assert "neither the code of a run" in context.notes[0]


def test_a_class_that_raises_after_all_is_an_execution_error(machine: SimulatedModule, tmp_path: Path) -> None:
    def inference(self: Any, inputs: Any, data_format: Any = None) -> Any:
        raise AttributeError("rknn_runtime")

    path, model = twin(models.identity(tmp_path / "m.onnx"))
    context = LiteDriver(changed(machine, inference)).open(path, model, 0)
    with pytest.raises(ExecutionError, match="inference failed: AttributeError: rknn_runtime"):
        context.run([numbers(4)], Timing())
    context.close()


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"not a model", "RKNN_ERR_MODEL_INVALID"),
        (twin_bytes(b"x", ("rk3566",)), "RKNN_ERR_TARGET_PLATFORM_UNMATCH"),
        (twin_bytes(b"x", version=7), "RKNN_ERR_MODEL_INVALID"),
    ],
)
def test_a_file_that_the_runtime_cannot_use_is_unsupported(
    machine: SimulatedModule, tmp_path: Path, content: bytes, code: str
) -> None:
    path, model = twin(models.identity(tmp_path / "m.onnx"))
    path.write_bytes(content)
    with pytest.raises(Unsupported, match=rf"opening m.rknn failed: {code} .*RKNN init failed"):
        LiteDriver(machine).open(path, model, 0)


def test_a_file_that_is_gone_is_an_execution_error(machine: SimulatedModule, tmp_path: Path) -> None:
    path, model = twin(models.identity(tmp_path / "m.onnx"))
    path.unlink()
    with pytest.raises(ExecutionError, match="Invalid RKNN model path"):
        LiteDriver(machine).open(path, model, 0)


def test_an_input_that_the_class_refuses_is_unsupported(open_: Open, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="need 1dims input, but 2dims") as raised:
        open_(models.identity(tmp_path / "m.onnx")).run([numbers(2, 2)], Timing())
    assert "shapes" in raised.value.fix


def test_words_of_other_threads_are_not_taken_for_ones_own(
    machine: SimulatedModule, open_: Open, tmp_path: Path
) -> None:
    def inference(self: Any, inputs: Any, data_format: Any = None) -> Any:
        def elsewhere() -> None:
            self.rknn_log.error("RKNN_ERR_MALLOC_FAIL")

        other = threading.Thread(target=elsewhere)
        other.start()
        other.join()
        self.rknn_log.error("RKNN_ERR_TIMEOUT")

    path, model = twin(models.identity(tmp_path / "m.onnx"))
    context = LiteDriver(changed(machine, inference)).open(path, model, 0)
    with pytest.raises(DeviceTimeout) as raised:
        context.run([numbers(4)], Timing())
    assert "MALLOC" not in str(raised.value)
    context.close()


def test_a_hung_run_holds_its_context_and_close_waits_for_it_without_blocking(
    machine: SimulatedModule, open_: Open, tmp_path: Path
) -> None:
    machine.configure(SimulatedNpu(hung_core=1))
    onnx, x = perceptron(tmp_path / "m.onnx"), numbers(3, 64)
    hung, other = open_(onnx, mask=2), open_(onnx, mask=1)
    outcome: list[BaseException] = []

    def work() -> None:
        try:
            hung.run([x], Timing())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    wait_for(lambda: machine.counter("hung") == 1)
    np.testing.assert_array_equal(other.run([x], Timing())[0], answers(onnx, [x])[0])
    with pytest.raises(ExecutionError, match="two threads"):
        hung.run([x], Timing())
    hung.close()
    assert machine.counter("objects") == 2
    machine.release_hangs()
    thread.join()
    assert machine.counter("objects") == 1
    assert [type(error) for error in outcome] == [DeviceTimeout]


def test_a_closed_context_says_so(open_: Open, tmp_path: Path) -> None:
    context = open_(perceptron(tmp_path / "m.onnx"))
    context.close()
    context.close()
    for use in (
        lambda: context.run([], Timing()),
        lambda: context.duplicate(0),
        lambda: context.set_mask(0),
    ):
        with pytest.raises(ClosedError):
            use()


def test_contexts_run_from_threads_of_their_own(machine: SimulatedModule, open_: Open, tmp_path: Path) -> None:
    onnx = perceptron(tmp_path / "m.onnx")
    contexts = [open_(onnx, mask=mask) for mask in (1, 2, 4, 0)]
    wrong: list[int] = []

    def work(number: int) -> None:
        x = numbers(3, 64) * (number + 1)
        expected = answers(onnx, [x])[0]
        for _ in range(100):
            if not np.array_equal(contexts[number].run([x], Timing())[0], expected):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert machine.counter("jobs") == 400
    assert machine.counter("sessions") == 1


class Held:
    """Counts the vendor's leftovers: they hold one of these in place of what they hold."""

    alive = 0

    def __init__(self) -> None:
        Held.alive += 1
        self.me = self

    def __del__(self) -> None:
        Held.alive -= 1


@pytest.fixture
def leaving(machine: SimulatedModule) -> Any:
    """A module whose calls leave one `Held` each."""
    gc.collect()
    Held.alive = 0

    def inference(self: Any, inputs: Any, data_format: Any = None) -> Any:
        Held()
        return machine.RKNNLite.inference(self, inputs, data_format=data_format)

    return changed(machine, inference)


@pytest.mark.parametrize("collect", [True, False])
def test_garbage_is_bounded_when_the_program_turned_the_collector_off(
    leaving: Any, tmp_path: Path, collect: bool
) -> None:
    path, model = twin(models.identity(tmp_path / "m.onnx"))
    context, x = LiteDriver(leaving, collect=collect).open(path, model, 0), numbers(4)
    gc.collect()
    gc.disable()
    try:
        most = 0
        for _ in range(1000):
            context.run([x], Timing())
            most = max(most, Held.alive)
    finally:
        gc.enable()
    context.close()
    assert (most <= 64) if collect else (most == 1000)


def test_what_survives_the_youngest_generation_goes_later(leaving: Any, tmp_path: Path) -> None:
    path, model = twin(models.identity(tmp_path / "m.onnx"))
    driver = LiteDriver(leaving)
    context, x = driver.open(path, model, 0), numbers(4)
    gc.collect()
    gc.disable()
    try:
        for _ in range(64):
            survivor = Held()
            gc.collect(0)
            gc.collect(1)
            del survivor
        assert Held.alive == 64
        for _ in range(4096):
            context.run([x], Timing())
        assert Held.alive == 0
    finally:
        gc.enable()
    context.close()


def test_the_collector_is_left_alone_while_it_is_on(
    open_: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, x = open_(models.identity(tmp_path / "m.onnx")), numbers(4)
    monkeypatch.setattr(gc, "collect", lambda *generation: pytest.fail("collected"))
    for _ in range(200):
        context.run([x], Timing())


def test_versions_are_known_once_a_model_was_opened(machine: SimulatedModule, tmp_path: Path) -> None:
    machine.configure(SimulatedNpu(library_version="2.3.1b2", driver_version="0.9.7"))
    path, model = twin(perceptron(tmp_path / "m.onnx"))
    driver = LiteDriver(machine)
    assert (driver.library_version, driver.kernel_driver_version) == (None, None)
    driver.open(path, model, 0).close()
    assert (driver.library_version, driver.kernel_driver_version) == ("2.3.1b2", "0.9.7")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Installs a package `rknnlite` whose module `api` has the given source."""

    def install(source: str) -> None:
        folder = tmp_path / "site" / "rknnlite"
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text("")
        (folder / "api.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path / "site")
        for name in ("rknnlite", "rknnlite.api"):
            # Noted as being there, so that monkeypatch takes away what the test imports; for the import it must not be.
            monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
            del sys.modules[name]

    return install


BREAKING = """
import logging
from hetero.testing.rknn.rknnlite import simulated_rknnlite
from hetero.testing.rknn.npu import SimulatedNpu
RKNNLite = simulated_rknnlite(SimulatedNpu()).RKNNLite
logging.getLogger().setLevel(1)
logging.getLogger().addHandler(logging.NullHandler())
"""


def test_importing_the_package_leaves_logging_as_it_was(installed: Callable[[str], None]) -> None:
    installed(BREAKING)
    logging.addLevelName(5, "TRACE")
    root, module = logging.getLogger(), vars(logging)
    before = (dict(module["_levelToName"]), dict(module["_nameToLevel"]), root.handlers[:], root.level)
    driver = LiteDriver()
    assert driver.module.RKNNLite.NPU_CORE_0_1_2 == 7
    assert (dict(module["_levelToName"]), dict(module["_nameToLevel"]), root.handlers[:], root.level) == before
    logging.getLogger("tests.rknn.lite").setLevel("INFO")
    assert logging.getLevelName(logging.INFO) == "INFO"
    assert logging.getLevelName("TRACE") == 5


def test_logging_that_the_program_let_the_package_break_is_repaired_too() -> None:
    broken = simulated_rknnlite(SimulatedNpu())
    with pytest.raises(ValueError, match="INFO"):
        logging.getLogger("tests.rknn.lite").setLevel("INFO")
    LiteDriver(broken)
    for name in ("CRITICAL", "FATAL", "ERROR", "WARNING", "WARN", "INFO", "DEBUG"):
        logging.getLogger("tests.rknn.lite").setLevel(name)
    assert [logging.getLevelName(level) for level in (50, 40, 30, 20, 10)] == [
        "CRITICAL",
        "ERROR",
        "WARNING",
        "INFO",
        "DEBUG",
    ]


def test_nothing_of_it_reaches_the_programs_own_handlers(
    machine: SimulatedModule, open_: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []
    handler = logging.Handler()
    monkeypatch.setattr(handler, "emit", lambda record: heard.append(record.getMessage()))
    logging.getLogger().addHandler(handler)
    try:
        context = open_(perceptron(tmp_path / "m.onnx"))
        machine.configure(SimulatedNpu(faults={"fail": 1.0}))
        handlers = len(logging.getLogger(LOGGER).handlers)
        with pytest.raises(ExecutionError):
            context.run([numbers(3, 64)], Timing())
    finally:
        logging.getLogger().removeHandler(handler)
    assert heard == []
    assert len(logging.getLogger(LOGGER).handlers) == handlers


def test_a_package_that_is_missing_is_unavailable_with_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rknnlite", None)
    monkeypatch.delitem(sys.modules, "rknnlite.api", raising=False)
    with pytest.raises(Unavailable, match="not installed") as raised:
        LiteDriver()
    assert "pip install rknn-toolkit-lite2" in raised.value.fix
    assert "aarch64" in raised.value.fix


@pytest.mark.parametrize(
    ("source", "words"), [("import ruamel_yaml_of_another_world", "another_world"), ("1 / 0", "division by zero")]
)
def test_a_package_that_cannot_be_imported_is_unavailable_and_says_why(
    installed: Callable[[str], None], source: str, words: str
) -> None:
    installed(source)
    with pytest.raises(Unavailable, match=rf"cannot be imported: .*{words}"):
        LiteDriver()
