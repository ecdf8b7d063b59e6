"""The driver for Rockchip's C interface, on the simulated library: right answers, right errors, nothing left behind."""

from __future__ import annotations

import dataclasses
import gc
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hetero.backend import DeviceLost, DeviceTimeout, ExecutionError, OutOfMemory, Unavailable, Unsupported
from hetero.errors import ClosedError
from hetero.testing.rknn.library import SimulatedLibrary
from hetero.testing.rknn.npu import SimulatedNpu
from hetero_rknn.drivers import capi_types
from hetero_rknn.drivers.capi import CapiContext, CapiDriver
from hetero_rknn.drivers.contract import Timing
from hetero_rknn.drivers.errors import error_of
from tests import models
from tests.rknn.sim_models import answers, perceptron, shifted_image, simulated_library, twin, twin_bytes, wait_for

Open = Callable[..., CapiContext]


@pytest.fixture
def library() -> Iterator[SimulatedLibrary]:
    """The library on a fresh RK3588; a test that leaves anything alive in it fails."""
    simulated = simulated_library()
    simulated.configure(SimulatedNpu())
    yield simulated
    simulated.release_hangs()
    gc.collect()
    for alive in ("contexts", "sessions", "mems", "outputs"):
        wait_for(lambda name=alive: simulated.counter(name) == 0)  # type: ignore[misc]


@pytest.fixture
def open_(library: SimulatedLibrary) -> Iterator[Open]:
    """Opens an ONNX model's twin; everything opened is closed when the test ends."""
    opened: list[CapiContext] = []

    def open_it(onnx: Path, mask: int = 0, platform: str = "rk3588", **options: Any) -> CapiContext:
        path, model = twin(onnx, [platform])
        opened.append(CapiDriver(library.path, **options).open(path, model, mask))
        return opened[-1]

    yield open_it
    library.release_hangs()
    for context in opened:
        context.close()


def numbers(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(1).standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("zero_copy", [True, False])
def test_answers_are_those_of_onnx_runtime(open_: Open, tmp_path: Path, zero_copy: bool) -> None:
    onnx, x = perceptron(tmp_path / "m.onnx"), numbers(3, 64)
    context = open_(onnx, zero_copy=zero_copy)
    assert context.zero_copy is zero_copy
    timing = Timing()
    (y,) = context.run([x], timing)
    np.testing.assert_array_equal(y, answers(onnx, [x])[0])
    assert timing.infer > 0
    assert timing.total == timing.set_input + timing.infer + timing.copy_output


@pytest.mark.parametrize("zero_copy", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "uint8", "int32", "int64", "uint32", "bool"])
def test_every_dtype_goes_in_and_comes_back_as_it_is(open_: Open, tmp_path: Path, dtype: str, zero_copy: bool) -> None:
    x = np.array([[0, 1, 2, 3], [100, 7, 0, 1]]).astype(dtype)
    context = open_(models.identity(tmp_path / "m.onnx", x.shape, dtype), zero_copy=zero_copy)
    (y,) = context.run([x], Timing())
    assert y.dtype == x.dtype
    np.testing.assert_array_equal(y, x)


def test_the_widest_integers_are_not_rounded(open_: Open, tmp_path: Path) -> None:
    x = np.array([2**62 + 1, -(2**62) - 1, np.iinfo(np.int64).max, np.iinfo(np.int64).min])
    for zero_copy in (True, False):
        context = open_(models.identity(tmp_path / "m.onnx", (4,), np.int64), zero_copy=zero_copy)
        np.testing.assert_array_equal(context.run([x], Timing())[0], x)


@pytest.mark.parametrize(
    ("shape", "shared"),
    [
        ((1, 3, 5, 16), True),  # NHWC, rows that need no padding
        ((2, 3, 4, 32), True),
        ((1, 3, 5, 7), False),  # NHWC with padded rows
        ((1, 12, 5, 16), False),  # cells of eight channels
        ((1, 3, 3, 3), False),
        ((1, 1, 1, 16), True),
    ],
)
def test_images_keep_their_order_whatever_the_npu_makes_of_them(
    open_: Open, tmp_path: Path, shape: tuple[int, ...], shared: bool
) -> None:
    onnx, x = shifted_image(tmp_path / "m.onnx", shape), numbers(*shape)
    for context in (open_(onnx), open_(onnx, zero_copy=False)):
        (y,) = context.run([x], Timing())
        np.testing.assert_array_equal(y, answers(onnx, [x])[0])
        assert y.flags.c_contiguous
    first = open_(onnx)
    assert first.zero_copy is shared
    assert bool(first.notes) is not shared


def test_half_precision_models_take_and_give_single_precision(
    library: SimulatedLibrary, open_: Open, tmp_path: Path
) -> None:
    library.configure(SimulatedNpu(fp16=True))
    onnx = models.double(tmp_path / "m.onnx", (4,))
    x = np.array([1.0, 1 / 3, 40000.0, 1e6], np.float32)
    half = x.astype(np.float64)
    expected = np.array([2.0, 2 * float(np.float16(half[1])), np.inf, np.inf], np.float32)
    for zero_copy in (True, False):
        context = open_(onnx, zero_copy=zero_copy)
        assert context.zero_copy is zero_copy
        (y,) = context.run([x], Timing())
        assert y.dtype == np.float32
        np.testing.assert_allclose(y, expected, rtol=1e-3)


@pytest.mark.parametrize("zero_copy", [True, False])
def test_outputs_are_not_written_again(open_: Open, tmp_path: Path, zero_copy: bool) -> None:
    context = open_(models.two_outputs(tmp_path / "m.onnx"), zero_copy=zero_copy)
    x, y = numbers(4), numbers(4) + 1
    first = context.run([x, y], Timing())
    before = [output.copy() for output in first]
    context.run([x * 3, y * 3], Timing())
    for output, kept in zip(first, before, strict=True):
        np.testing.assert_array_equal(output, kept)
        output[:] = 0
    np.testing.assert_array_equal(context.run([x, y], Timing())[0], before[0])
    context.close()
    np.testing.assert_array_equal(before[0], x + y)


def test_inputs_are_left_as_they_were(open_: Open, tmp_path: Path) -> None:
    x = numbers(1, 3, 5, 16)
    x.flags.writeable = False
    kept = x.copy()
    open_(shifted_image(tmp_path / "m.onnx", x.shape)).run([x], Timing())
    np.testing.assert_array_equal(x, kept)


def test_caches_are_flushed_when_the_runtime_was_told_not_to(open_: Open, tmp_path: Path) -> None:
    flags = capi_types.FLAG_DISABLE_FLUSH_INPUT | capi_types.FLAG_DISABLE_FLUSH_OUTPUT
    onnx, x = perceptron(tmp_path / "m.onnx"), numbers(3, 64)
    (y,) = open_(onnx, flags=flags).run([x], Timing())
    np.testing.assert_array_equal(y, answers(onnx, [x])[0])


def test_a_runtime_that_refuses_shared_memory_gets_copies_and_the_context_says_so(
    library: SimulatedLibrary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx, x = perceptron(tmp_path / "m.onnx"), numbers(3, 64)
    path, model = twin(onnx)
    driver = CapiDriver(library.path)
    monkeypatch.setattr(driver.runtime.functions, "rknn_set_io_mem", lambda *arguments: -5)
    context = driver.open(path, model, 0)
    assert not context.zero_copy
    assert "rknn_set_io_mem" in context.notes[0]
    np.testing.assert_array_equal(context.run([x], Timing())[0], answers(onnx, [x])[0])
    twin_context = context.duplicate(1)
    assert not twin_context.zero_copy
    twin_context.close()
    context.close()


def test_duplicates_share_the_weights_and_run_on_their_own_cores(
    library: SimulatedLibrary, open_: Open, tmp_path: Path
) -> None:
    onnx, x = perceptron(tmp_path / "m.onnx"), numbers(3, 64)
    original = open_(onnx, mask=1)
    copies = [original.duplicate(2), original.duplicate(4)]
    assert (library.counter("contexts"), library.counter("sessions")) == (3, 1)
    assert [context.shares_weights for context in (original, *copies)] == [False, True, True]
    for context in (original, *copies, copies[1]):
        np.testing.assert_array_equal(context.run([x], Timing())[0], answers(onnx, [x])[0])
    assert [library.counter(name) for name in ("jobs_0", "jobs_1", "jobs_2")] == [1, 1, 2]
    for context in copies:
        context.close()


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_contexts_close_in_any_order_and_the_original_goes_last(
    library: SimulatedLibrary, open_: Open, tmp_path: Path, order: tuple[int, ...]
) -> None:
    onnx, x = perceptron(tmp_path / "m.onnx"), numbers(3, 64)
    original = open_(onnx)
    family = [original, original.duplicate(1), original.duplicate(2)]
    for index in order:
        for _ in range(2):
            family[index].close()
        for rest in family:
            if rest not in [family[closed] for closed in order[: order.index(index) + 1]]:
                np.testing.assert_array_equal(rest.run([x], Timing())[0], answers(onnx, [x])[0])
    assert library.counter("orphans") == 0
    assert library.counter("contexts") == library.counter("mems") == library.counter("sessions") == 0
    assert library.counter("misuse") == 0


@pytest.mark.parametrize("why", ["option", "custom_ops", "refused"])
def test_without_duplication_a_further_instance_is_opened_from_the_file(
    library: SimulatedLibrary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    path, model = twin(perceptron(tmp_path / "m.onnx"))
    driver = CapiDriver(library.path, disable_dup_context=why == "option")
    if why == "refused":
        monkeypatch.setattr(driver.runtime.functions, "rknn_dup_context", lambda *arguments: -1)
    original = driver.open(path, dataclasses.replace(model, custom_ops=why == "custom_ops"), 1)
    further = original.duplicate(2)
    assert library.counter("sessions") == 2
    assert not further.shares_weights
    assert further.mask == 2
    original.close()
    assert further.run([numbers(3, 64)], Timing())[0].shape == (3, 64)
    further.close()


def test_set_mask_moves_a_context_and_leaves_it_where_it_is_when_refused(
    library: SimulatedLibrary, open_: Open, tmp_path: Path
) -> None:
    context = open_(perceptron(tmp_path / "m.onnx"), mask=1)
    assert context.set_mask(4)
    assert not context.set_mask(5)
    assert context.mask == 4
    context.run([numbers(3, 64)], Timing())
    assert (library.counter("jobs_0"), library.counter("jobs_2")) == (0, 1)


def test_a_duplicate_may_go_back_to_the_drivers_choice(
    library: SimulatedLibrary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, model = twin(perceptron(tmp_path / "m.onnx"))
    driver = CapiDriver(library.path)
    masks: list[int] = []
    real = driver.runtime.functions.rknn_set_core_mask
    monkeypatch.setattr(
        driver.runtime.functions, "rknn_set_core_mask", lambda handle, mask: masks.append(mask) or real(handle, mask)
    )
    original = driver.open(path, model, 4)
    copy = original.duplicate(0)
    # Nobody says whether a duplicate has the mask of its original.
    assert masks == [4, 0]
    copy.run([numbers(3, 64)], Timing())
    assert library.counter("jobs_0") == 1
    copy.close()
    original.close()


def test_a_chip_with_one_core_is_never_given_a_mask_unless_asked(
    library: SimulatedLibrary, open_: Open, tmp_path: Path
) -> None:
    library.configure(SimulatedNpu("rk3566"))
    onnx = perceptron(tmp_path / "m.onnx")
    copy = open_(onnx, platform="rk3566").duplicate(0)
    copy.close()
    with pytest.raises(Unsupported, match="rknn_set_core_mask"):
        open_(onnx, mask=1, platform="rk3566")


@pytest.mark.parametrize(
    ("fault", "error"),
    [("fail", ExecutionError), ("timeout", DeviceTimeout), ("lost", DeviceLost)],
)
@pytest.mark.parametrize("zero_copy", [True, False])
def test_a_failed_run_has_the_vendors_code_and_the_next_one_works(
    library: SimulatedLibrary, open_: Open, tmp_path: Path, fault: Any, error: type[Exception], zero_copy: bool
) -> None:
    onnx, x = perceptron(tmp_path / "m.onnx"), numbers(3, 64)
    context = open_(onnx, zero_copy=zero_copy)
    library.configure(SimulatedNpu(faults={fault: 1.0}))
    with pytest.raises(error, match=r"rknn_run failed: RKNN_ERR_\w+ \(-\d\)") as raised:
        context.run([x], Timing())
    assert type(raised.value) is error
    library.configure(SimulatedNpu())
    np.testing.assert_array_equal(context.run([x], Timing())[0], answers(onnx, [x])[0])


@pytest.mark.parametrize(
    ("code", "error"),
    [
        *((code, Unsupported) for code in (-6, -10, -11, -12, -13)),
        *((code, ExecutionError) for code in (-1, -5, -7, -8, -9, -99)),
        (-2, DeviceTimeout),
        (-3, DeviceLost),
        (-4, OutOfMemory),
    ],
)
def test_every_code_becomes_the_error_that_says_what_happened(code: int, error: type[Exception]) -> None:
    made = error_of(code, "rknn_run", "the vendor's words")
    assert type(made) is error
    assert f"({code})" in str(made) or f"{code}" in str(made)
    assert "the vendor's words" in str(made)
    assert code == -99 or "RKNN_ERR_" in str(made)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"not a model", "RKNN_ERR_MODEL_INVALID"),
        (twin_bytes(b"not onnx"), "RKNN_ERR_MODEL_INVALID"),
        (twin_bytes(b"x", version=7), "RKNN_ERR_MODEL_INVALID"),
        (twin_bytes(b"x", ["rk3576"]), "RKNN_ERR_TARGET_PLATFORM_UNMATCH"),
    ],
)
def test_a_model_that_the_runtime_refuses_is_unsupported(
    library: SimulatedLibrary, tmp_path: Path, content: bytes, code: str
) -> None:
    _, model = twin(perceptron(tmp_path / "m.onnx"))
    path = tmp_path / "broken.rknn"
    path.write_bytes(content)
    with pytest.raises(Unsupported, match=code) as raised:
        CapiDriver(library.path).open(path, model, 0)
    assert raised.value.fix


def test_a_header_that_lies_about_the_model_is_unsupported(library: SimulatedLibrary, tmp_path: Path) -> None:
    path, model = twin(perceptron(tmp_path / "m.onnx"))
    tensor = model.inputs[0]
    lies = [
        dataclasses.replace(model, inputs=()),
        dataclasses.replace(model, inputs=(dataclasses.replace(tensor, shape=(3, 65)),)),
        dataclasses.replace(model, outputs=(dataclasses.replace(tensor, dtype=np.dtype("float64")),)),
    ]
    for lie in lies:
        with pytest.raises(Unsupported):
            CapiDriver(library.path).open(path, lie, 0)


def test_a_hung_run_ends_when_the_npu_lets_go_and_a_close_meanwhile_waits_for_it(
    library: SimulatedLibrary, open_: Open, tmp_path: Path
) -> None:
    library.configure(SimulatedNpu(hung_core=0))
    context = open_(perceptron(tmp_path / "m.onnx"), mask=1)
    raised: list[Exception] = []

    def run() -> None:
        try:
            context.run([numbers(3, 64)], Timing())
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    wait_for(lambda: library.counter("hung") == 1)
    with pytest.raises(ExecutionError, match="two threads"):
        context.run([numbers(3, 64)], Timing())
    context.close()
    with pytest.raises(ClosedError):
        context.run([numbers(3, 64)], Timing())
    assert library.counter("contexts") == 1
    library.release_hangs()
    thread.join()
    assert [type(error) for error in raised] == [DeviceTimeout]
    assert library.counter("contexts") == library.counter("mems") == library.counter("misuse") == 0


def test_other_cores_work_on_beside_a_hung_one(library: SimulatedLibrary, open_: Open, tmp_path: Path) -> None:
    library.configure(SimulatedNpu(hung_core=0))
    onnx, x = perceptron(tmp_path / "m.onnx"), numbers(3, 64)
    stuck = open_(onnx, mask=1)
    free = stuck.duplicate(2)

    def run() -> None:
        with pytest.raises(DeviceTimeout):
            stuck.run([x], Timing())

    thread = threading.Thread(target=run)
    thread.start()
    wait_for(lambda: library.counter("hung") == 1)
    np.testing.assert_array_equal(free.run([x], Timing())[0], answers(onnx, [x])[0])
    library.release_hangs()
    thread.join()
    free.close()


def test_contexts_of_one_family_run_in_threads_at_once_and_all_answer_rightly(
    library: SimulatedLibrary, open_: Open, tmp_path: Path
) -> None:
    onnx = perceptron(tmp_path / "m.onnx")
    original = open_(onnx, mask=1)
    contexts = [original, original.duplicate(2), original.duplicate(4), original.duplicate(0)]
    wrong: list[int] = []

    def work(number: int) -> None:
        x = numbers(3, 64) * (number + 1)
        expected = answers(onnx, [x])[0]
        for _ in range(200):
            if not np.array_equal(contexts[number].run([x], Timing())[0], expected):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for context in contexts:
        context.close()
    assert wrong == []
    assert library.counter("jobs") == 800
    assert library.counter("misuse") == 0


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.parametrize("zero_copy", [True, False])
def test_memory_stays_flat_over_ten_thousand_calls(
    library: SimulatedLibrary, open_: Open, tmp_path: Path, zero_copy: bool
) -> None:
    context, x, timing = open_(perceptron(tmp_path / "m.onnx"), zero_copy=zero_copy), numbers(3, 64), Timing()
    gc.disable()  # what grows only until the collector comes grows
    try:
        for _ in range(1000):
            context.run([x], timing)
        before, alive = resident(), [library.counter(name) for name in ("contexts", "mems", "outputs")]
        for _ in range(10_000):
            context.run([x], timing)
        grown = resident() - before
    finally:
        gc.enable()
    assert [library.counter(name) for name in ("contexts", "mems", "outputs")] == alive
    # 100 bytes a call would be a megabyte.
    assert grown < 1 << 20


def test_opening_and_closing_leaves_nothing_behind(library: SimulatedLibrary, tmp_path: Path) -> None:
    path, model = twin(perceptron(tmp_path / "m.onnx"))
    driver = CapiDriver(library.path)
    for mask in (0, 1, 3, 7, 0xFFFF) * 4:
        context = driver.open(path, model, mask)
        copy = context.duplicate(mask)
        context.close()
        copy.close()
    for name in ("contexts", "sessions", "mems", "outputs"):
        assert library.counter(name) == 0


def test_versions_are_known_once_a_model_was_opened(library: SimulatedLibrary, tmp_path: Path) -> None:
    library.configure(SimulatedNpu(library_version="2.3.1", driver_version="0.9.7"))
    path, model = twin(perceptron(tmp_path / "m.onnx"))
    driver = CapiDriver(library.path)
    assert (driver.library_version, driver.kernel_driver_version) == (None, None)
    driver.open(path, model, 0).close()
    assert (driver.library_version, driver.kernel_driver_version) == ("2.3.1", "0.9.7")


def test_a_library_that_is_missing_foreign_or_no_library_is_unavailable_with_a_fix(
    library: SimulatedLibrary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = tmp_path / "text.so"
    text.write_text("not a library")
    libc = next(Path("/").glob("lib*/*/libc.so.6"), None) or next(Path("/usr").glob("lib*/libc.so.6"))
    for path, problem in (
        (tmp_path / "none.so", "there is no"),
        (text, "cannot be loaded"),
        (libc, "has no rknn_init"),
    ):
        with pytest.raises(Unavailable, match=problem) as raised:
            CapiDriver(path)
        assert raised.value.fix
    monkeypatch.setattr(capi_types, "PATHS", ())
    monkeypatch.delenv(capi_types.ENVIRONMENT, raising=False)
    with pytest.raises(Unavailable, match="not installed"):
        CapiDriver()
    monkeypatch.setattr(capi_types, "PATHS", (str(library.path),))
    assert CapiDriver().runtime.path == str(library.path)
    monkeypatch.setenv(capi_types.ENVIRONMENT, str(text))
    with pytest.raises(Unavailable, match="cannot be loaded"):
        CapiDriver()
