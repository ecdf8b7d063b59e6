"""The simulated RKNNLite: the vendor's answers, refusals and traps, as its package shows them."""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hetero.errors import OptionError
from hetero.testing.rknn.cores import core_count
from hetero.testing.rknn.npu import SimulatedNpu
from hetero.testing.rknn.rknnlite import SimulatedModule, SimulatedRKNNLite, simulated_rknnlite
from tests import models
from tests.rknn.conftest import Said
from tests.rknn.sim_models import answers, perceptron, shifted_image, simulated_library, twin, twin_bytes, wait_for

pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.usefixtures("logging_as_it_was")


def machine_of(npu: SimulatedNpu | None = None, **options: Any) -> SimulatedModule:
    return simulated_rknnlite(npu or SimulatedNpu(), **{"clock": lambda: 0.0, **options})


def opened(machine: SimulatedModule, path: Path, core_mask: int = 0) -> SimulatedRKNNLite:
    made = machine.RKNNLite()
    assert made.load_rknn(str(path)) == 0
    assert made.init_runtime(core_mask=core_mask) == 0
    return made


def numbers(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(1).standard_normal(shape, dtype=np.float32)


def test_constants_are_the_vendors() -> None:
    it = machine_of().RKNNLite
    masks = (it.NPU_CORE_AUTO, it.NPU_CORE_0, it.NPU_CORE_1, it.NPU_CORE_2, it.NPU_CORE_0_1, it.NPU_CORE_0_1_2)
    assert (*masks, it.NPU_CORE_ALL) == (0, 1, 2, 4, 3, 7, 0xFFFF)


def test_answers_are_those_of_onnx_runtime_in_single_precision(tmp_path: Path) -> None:
    onnx, x = perceptron(tmp_path / "m.onnx"), numbers(3, 64)
    (y,) = opened(machine_of(), twin(onnx)[0]).inference([x]) or []
    np.testing.assert_array_equal(y, answers(onnx, [x])[0])
    ids = models.identity(tmp_path / "i.onnx", (4,), np.int64)
    (y,) = opened(machine_of(), twin(ids)[0]).inference([np.full(4, 2**24 + 1)]) or []
    assert y.dtype == np.float32
    assert y[0] == 2**24


def test_images_are_taken_as_nhwc_whatever_their_shape_says(tmp_path: Path, said: Said) -> None:
    onnx, x = shifted_image(tmp_path / "m.onnx", (1, 3, 5, 16)), numbers(1, 3, 5, 16)
    right, nhwc = answers(onnx, [x])[0], np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    lite = opened(machine_of(), twin(onnx)[0])

    def run(array: Any, data_format: Any = None) -> Any:
        (y,) = lite.inference([array], data_format=data_format) or []
        return y

    np.testing.assert_array_equal(run(nhwc), right)
    np.testing.assert_array_equal(run(nhwc, "nhwc"), right)
    said.text = ""
    # The trap: accepted, wrong, and not a word of it.
    assert not np.array_equal(run(x), right)
    assert said.text == ""
    np.testing.assert_array_equal(run(x, "nchw"), right)
    assert "need NHWC data format" in said.text
    np.testing.assert_array_equal(run(x, ["nchw"]), right)


def test_lists_of_formats_are_written_to_and_work_once(tmp_path: Path, said: Said) -> None:
    lite = opened(machine_of(), twin(shifted_image(tmp_path / "m.onnx", (1, 3, 5, 16)))[0])
    formats: list[Any] = ["nchw"]
    types: list[Any] = ["float32"]
    assert lite.inference([numbers(1, 3, 5, 16)], data_format=formats, data_type=types)
    assert (formats, types) == ([1], [0])
    assert lite.inference([numbers(1, 3, 5, 16)], data_format=formats) is None
    assert "Unsupport data format: 1" in said.text


@pytest.mark.parametrize(
    ("inputs", "options", "words"),
    [
        (None, {}, "NoneType"),
        ([], {}, "Inputs are invalid"),
        ([np.zeros((3, 64), np.float32)] * 2, {}, "RKNN_ERR_PARAM_INVALID"),
        ([np.zeros((2, 64), np.float32)], {}, "RKNN_ERR_INPUT_INVALID"),
        ([np.zeros(192, np.float32)], {}, "need 2dims input, but 1dims"),
        ([[1.0, 2.0]], {}, "no attribute 'size'"),
        ([np.zeros((3, 64))], {}, r"Unsupport inputs[0].dtype: float64"),
        ([np.zeros((3, 64), np.float32)], {"data_type": "int8"}, "is not same as data_type"),
        ([np.zeros((3, 64), np.float32)], {"data_format": "NCHW"}, "Unsupport data format: NCHW"),
        ([np.zeros((3, 64), np.float32)], {"data_format": [None]}, "Unsupport data format: None"),
        ([np.zeros((3, 64), np.float32)], {"data_format": ["nchw"] * 2}, "lengths of data_format"),
        ([np.zeros((3, 64), np.float32)], {"inputs_pass_through": [1]}, "not simulated"),
    ],
)
def test_inputs_that_the_class_refuses_give_none_and_a_line(
    tmp_path: Path, said: Said, inputs: Any, options: dict[str, Any], words: str
) -> None:
    machine = machine_of()
    lite = opened(machine, twin(perceptron(tmp_path / "m.onnx"))[0])
    assert lite.inference(inputs, **options) is None
    assert "Catch exception when setting inputs." in said.text
    assert words in said.text
    assert machine.counter("jobs") == 0


@pytest.mark.parametrize("dtype", ["float16", "int8", "uint8", "int32", "int64", "bool"])
def test_other_dtypes_are_converted_to_the_models(tmp_path: Path, dtype: str) -> None:
    x = np.array([0, 1, 100, 7]).astype(dtype)
    (y,) = opened(machine_of(), twin(models.double(tmp_path / "m.onnx"))[0]).inference([x]) or []
    np.testing.assert_array_equal(y, 2 * x.astype(np.float32))


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"not a model", "RKNN_ERR_MODEL_INVALID"),
        (twin_bytes(b"x", version=7), "RKNN_ERR_MODEL_INVALID"),
        (twin_bytes(b"no onnx"), "RKNN_ERR_MODEL_INVALID"),
        (twin_bytes(b"x")[:-9], "RKNN_ERR_MODEL_INVALID"),
        (twin_bytes(b"x", mark=b"compiled for it "), "RKNN_ERR_MODEL_INVALID"),
        (twin_bytes(b"x", ("rk3566",)), "RKNN_ERR_TARGET_PLATFORM_UNMATCH"),
    ],
)
def test_files_are_refused_when_they_are_opened(tmp_path: Path, said: Said, content: bytes, code: str) -> None:
    machine = machine_of()
    lite = machine.RKNNLite()
    path = tmp_path / "m.rknn"
    path.write_bytes(content)
    assert lite.load_rknn(str(path)) == 0
    assert lite.init_runtime() == -1
    assert f"RKNN init failed. error code: {code}" in said.text
    assert lite.inference([np.zeros(4)]) is None
    assert machine.counter("objects") == 0


@pytest.mark.parametrize("dtype", ["float64", "uint64"])
def test_models_with_dtypes_that_no_npu_has_are_refused(tmp_path: Path, dtype: str) -> None:
    lite = machine_of().RKNNLite()
    lite.load_rknn(str(twin(models.identity(tmp_path / "m.onnx", (4,), dtype))[0]))
    assert lite.init_runtime() == -1


def test_calls_in_the_wrong_order_are_refused(tmp_path: Path, said: Said) -> None:
    machine = machine_of()
    lite = machine.RKNNLite()
    assert lite.load_rknn(str(tmp_path / "none.rknn")) == -1
    assert lite.init_runtime() == -1
    assert lite.inference([numbers(4)]) is None
    assert lite.get_sdk_version() is None
    assert said.text.count("Runtime environment is not inited") == 2
    path = twin(models.identity(tmp_path / "m.onnx"))[0]
    assert lite.load_rknn(str(path)) == 0
    assert lite.init_runtime(target="rk3588") == -1
    assert lite.init_runtime() == lite.init_runtime() == 0
    assert machine.counter("objects") == 1
    assert lite.inference([numbers(4)]) is not None
    lite.release()
    lite.release()
    assert lite.inference([numbers(4)]) is None
    assert machine.counter("objects") == 0


@pytest.mark.parametrize(
    ("platform", "mask", "code", "jobs"),
    [
        ("rk3588", 2, 0, [0, 1, 0]),
        ("rk3588", 3, 0, [1, 1, 0]),
        ("rk3588", 0xFFFF, 0, [1, 1, 1]),
        ("rk3588", 5, -1, [1, 0, 0]),
        ("rk3588", 6, -1, [1, 0, 0]),
        ("rk3588s", 4, 0, [0, 0, 1]),
        ("rk3576", 4, 0, [1, 0, 0]),
        ("rk3576", 7, 0, [1, 1, 0]),
        ("rk3576", 0xFFFF, 0, [1, 1, 0]),
        ("rk3566", 0, 0, [1, 0, 0]),
        ("rk3566", 1, -1, [1, 0, 0]),
        ("rk3566", 0xFFFF, -1, [1, 0, 0]),
    ],
)
def test_masks_are_those_of_the_platform(
    tmp_path: Path, said: Said, platform: str, mask: int, code: int, jobs: list[int]
) -> None:
    machine = machine_of(SimulatedNpu(platform))
    lite = machine.RKNNLite()
    lite.load_rknn(str(twin(models.identity(tmp_path / "m.onnx"), [platform])[0]))
    assert lite.init_runtime(core_mask=mask) == code
    assert ("will be automatically replaced" in said.text) is (platform == "rk3576" and mask in (4, 7))
    assert ("npu core mode" in said.text) is (code == -1)
    # A refused mask leaves a runtime that works, on any core.
    assert lite.inference([numbers(4)]) is not None
    assert [machine.counter(name) for name in ("jobs_0", "jobs_1", "jobs_2")] == jobs


def in_threads(count: int, work: Callable[[int], object]) -> list[threading.Thread]:
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    return threads


def test_auto_takes_an_idle_core_and_a_core_has_one_job_at_a_time(tmp_path: Path) -> None:
    go = threading.Event()
    machine = machine_of(SimulatedNpu(job_seconds=1.0), sleep=lambda seconds: go.wait())
    path = twin(models.identity(tmp_path / "m.onnx"))[0]
    objects = [opened(machine, path) for _ in range(5)]
    threads = in_threads(5, lambda number: objects[number].inference([numbers(4)]))
    wait_for(lambda: machine.counter("running") == 3 and machine.counter("waiting") == 2)
    go.set()
    for thread in threads:
        thread.join()
    assert machine.counter("peak") == 3
    assert machine.counter("jobs") == 5
    assert machine.counter("sessions") == 1


@pytest.mark.parametrize(
    ("mask", "slept"), [(1, 0.02), (2, 0.04), (3, 0.04 / 1.2), (7, 0.04 / 1.26), (0xFFFF, 0.04 / 1.26)]
)
def test_modelled_time_is_slept_less_what_passed_since_the_core_was_taken(
    tmp_path: Path, mask: int, slept: float
) -> None:
    naps: list[float] = []
    clock = iter([10.0, 10.005])
    npu = SimulatedNpu(job_seconds=0.02, slowness=(1.0, 2.0))
    machine = machine_of(npu, sleep=naps.append, clock=lambda: next(clock))
    opened(machine, twin(models.identity(tmp_path / "m.onnx"))[0], mask).inference([numbers(4)])
    assert naps == [pytest.approx(slept - 0.005)]


@pytest.mark.parametrize(
    ("fault", "code"),
    [("fail", "RKNN_ERR_FAIL"), ("timeout", "RKNN_ERR_TIMEOUT"), ("lost", "RKNN_ERR_DEVICE_UNAVAILABLE")],
)
def test_failures_give_none_and_the_vendors_line(tmp_path: Path, said: Said, fault: Any, code: str) -> None:
    machine = machine_of(SimulatedNpu(faults={fault: 1.0}))
    lite = opened(machine, twin(models.identity(tmp_path / "m.onnx"))[0])
    assert lite.inference([numbers(4)]) is None
    assert f"E Get outputs failed, error code: {code}" in said.text
    machine.configure(SimulatedNpu())
    assert lite.inference([numbers(4)]) is not None


def test_the_code_of_a_run_is_dropped_so_that_an_earlier_answer_can_pass_for_its_own(tmp_path: Path) -> None:
    npu = SimulatedNpu(faults={"timeout": 0.5}, seed=1)
    path, _ = twin(models.double(tmp_path / "m.onnx"))
    made = opened(machine_of(npu, stale_outputs=True), path)
    given = [np.full(4, number, np.float32) for number in range(40)]
    answered = [(x, answer[0]) for x in given if (answer := made.inference([x])) is not None]
    assert any(np.array_equal(y, 2 * x) for x, y in answered)
    assert any(not np.array_equal(y, 2 * x) for x, y in answered)
    assert made.rknn_runtime is not None
    assert {made.rknn_runtime.run() for _ in range(20)} == {0, -2}
    made.release()


def test_wrong_answers_are_wrong_where_they_should_be(tmp_path: Path) -> None:
    path = twin(models.identity(tmp_path / "m.onnx"))[0]
    (y,) = opened(machine_of(SimulatedNpu(faults={"nan": 1.0})), path).inference([numbers(4)]) or []
    assert np.isnan(y).sum() == 1
    (y,) = opened(machine_of(SimulatedNpu(faults={"garbage": 1.0})), path).inference([numbers(4)]) or []
    assert np.isfinite(y).all()
    assert not np.isclose(y, numbers(4)).any()


def test_half_precision_overflows(tmp_path: Path) -> None:
    lite = opened(machine_of(SimulatedNpu(fp16=True)), twin(models.double(tmp_path / "m.onnx"))[0])
    (y,) = lite.inference([np.array([1.0, 1 / 3, 40000.0, 1e6], np.float32)]) or []
    np.testing.assert_array_equal(y, [2.0, 2 * np.float32(np.float16(1 / 3)), np.inf, np.inf])


def test_a_hang_holds_its_core_until_it_is_released(tmp_path: Path) -> None:
    machine = machine_of(SimulatedNpu(hung_core=1, hung_after=1))
    path, x = twin(models.identity(tmp_path / "m.onnx"))[0], numbers(4)
    lite, other = opened(machine, path, 2), opened(machine, path)
    assert lite.inference([x]) is not None
    outcome: list[Any] = []
    threads = in_threads(1, lambda _: outcome.append(lite.inference([x])))
    wait_for(lambda: machine.counter("hung") == 1)
    # The others go on.
    for _ in range(4):
        assert other.inference([x]) is not None
    assert machine.counter("jobs_1") == 2
    machine.release_hangs()
    threads[0].join()
    assert outcome == [None]
    assert lite.inference([x]) is not None


def test_several_cores_are_not_overtaken_for_ever(tmp_path: Path) -> None:
    go = threading.Event()
    machine = machine_of(SimulatedNpu(job_seconds=1.0), sleep=lambda seconds: go.wait())
    path, x = twin(models.identity(tmp_path / "m.onnx"))[0], numbers(4)

    def start(mask: int) -> threading.Thread:
        lite = opened(machine, path, mask)
        return in_threads(1, lambda _: lite.inference([x]))[0]

    first = start(1)
    wait_for(lambda: machine.counter("running") == 1)
    wide = start(7)
    wait_for(lambda: machine.counter("waiting") == 1)
    late = start(2)
    wait_for(lambda: machine.counter("waiting") == 2)
    # Core 1 is idle, and kept for the one that waits for all.
    assert machine.counter("running") == 1
    go.set()
    for thread in (first, wide, late):
        thread.join()
    assert [machine.counter(name) for name in ("jobs_0", "jobs_1", "jobs_2")] == [2, 2, 1]


def test_one_object_used_by_threads_at_once_answers_wrongly(tmp_path: Path) -> None:
    go = threading.Event()
    machine = machine_of(SimulatedNpu(job_seconds=1.0), sleep=lambda seconds: go.wait())
    lite, x = opened(machine, twin(models.identity(tmp_path / "m.onnx"))[0]), numbers(4)
    results: list[Any] = []
    threads = in_threads(2, lambda _: results.append(lite.inference([x])))
    wait_for(lambda: machine.counter("running") == 2)
    go.set()
    for thread in threads:
        thread.join()
    assert machine.counter("misuse") == 1
    assert not any(np.array_equal(y[0], x) for y in results)
    # Alone again, it answers as it should.
    np.testing.assert_array_equal((lite.inference([x]) or [])[0], x)


def test_reused_outputs_are_overwritten_and_others_are_not(tmp_path: Path) -> None:
    lite, x = opened(machine_of(), twin(models.identity(tmp_path / "m.onnx"))[0]), numbers(4)
    (kept,) = lite.inference([x]) or []
    (reused,) = lite.inference([x], reuse_outputs=True) or []
    lite.inference([x * 2], reuse_outputs=True)
    np.testing.assert_array_equal(kept, x)
    np.testing.assert_array_equal(reused, x * 2)


def test_calls_leave_garbage_that_only_the_collector_frees(tmp_path: Path) -> None:
    lite, x = opened(machine_of(), twin(models.identity(tmp_path / "m.onnx"))[0]), numbers(4)
    lite.inference([x])
    gc.collect()
    gc.disable()
    try:
        for _ in range(10):
            lite.inference([x])
        assert gc.collect() >= 100
    finally:
        gc.enable()


def test_making_the_module_breaks_level_names_as_the_vendors_import_does() -> None:
    logging.addLevelName(5, "TRACE")
    machine_of()
    assert [logging.getLevelName(level) for level in (50, 40, 30, 20, 10)] == ["C", "E", "W", "I", "D"]
    with pytest.raises(ValueError, match="Unknown level: 'INFO'"):
        logging.getLogger("tests.rknn.rknnlite").setLevel("INFO")
    assert logging.getLevelName("TRACE") != 5


def test_versions_and_platforms(tmp_path: Path) -> None:
    lite = opened(machine_of(SimulatedNpu(library_version="2.3.1")), twin(models.identity(tmp_path / "m.onnx"))[0])
    assert "  API: 2.3.1 (simulated)\n  DRV: 0.9.8\n" in (lite.get_sdk_version() or "")
    supported = lite.list_support_target_platform(str(tmp_path / "m.rknn"))
    assert supported == {"support_target_platform": ["RK3588"]}
    assert lite.list_support_target_platform(str(tmp_path / "none")) is None
    assert lite.list_devices() == ([], [])


def test_faults_fall_on_the_same_jobs_as_in_the_library(tmp_path: Path) -> None:
    from hetero_rknn.drivers.capi import CapiDriver
    from hetero_rknn.drivers.contract import Timing

    npu = SimulatedNpu(faults={"nan": 0.3, "garbage": 0.2}, seed=7)
    path, model = twin(models.identity(tmp_path / "m.onnx"))
    library, x = simulated_library(), numbers(4)
    context = CapiDriver(library.path).open(path, model, 0)
    library.configure(npu)
    lite = opened(machine_of(npu), path)

    def kind(y: Any) -> str:
        return "nan" if np.isnan(y).any() else "right" if np.array_equal(y, x) else "garbage"

    behind_c = [kind(context.run([x], Timing())[0]) for _ in range(100)]
    context.close()
    library.configure(SimulatedNpu())
    assert [kind((lite.inference([x]) or [])[0]) for _ in range(100)] == behind_c
    assert set(behind_c) == {"nan", "right", "garbage"}


def test_core_counts_are_the_libraries() -> None:
    counts = {"rk3588": 3, "RK3588S": 3, "rk3576": 2, "rk3566": 1, "rk3568": 1, "rk3562": 1}
    assert {platform: core_count(platform) for platform in counts} == counts


def test_an_unknown_counter_is_an_option_error() -> None:
    unknown: Any = "jobz"
    with pytest.raises(OptionError, match="jobz"):
        machine_of().counter(unknown)
