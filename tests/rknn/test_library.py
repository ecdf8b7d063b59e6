"""The simulated `librknnrt.so` at its C interface: real answers, real cores, and what hardware punishes."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from ctypes import byref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hetero.backend import Array
from hetero.errors import OptionError, Unavailable
from hetero.testing.rknn import library as library_module
from hetero.testing.rknn.library import SimulatedLibrary, built_library, environment
from hetero.testing.rknn.npu import SimulatedNpu
from hetero_rknn.drivers import capi_types as c
from tests import models
from tests.rknn.sim_models import answers, perceptron, shifted_image, simulated_library, twin, twin_bytes, wait_for

NON_BLOCK = 1
FAIL, TIMEOUT, UNAVAILABLE, PARAMETER, MODEL, CONTEXT, INPUT, OUTPUT, PLATFORM = -1, -2, -3, -5, -6, -7, -8, -9, -13


class RunExtend(ctypes.Structure):
    _fields_ = (
        ("frame_id", ctypes.c_uint64),
        ("non_block", ctypes.c_int32),
        ("timeout_ms", ctypes.c_int32),
        ("fence_fd", ctypes.c_int32),
    )


class Board:
    """The vendor's calls as a C program makes them; every context that is made is destroyed in the end."""

    def __init__(self, library: SimulatedLibrary) -> None:
        self.library = library
        self.call: Any = c.Runtime(library.path).functions
        for name in ("rknn_wait", "rknn_set_batch_core_num", "rknn_register_custom_ops", "rknn_set_weight_mem"):
            getattr(self.call, name).argtypes = None
        self.call.rknn_create_mem_from_fd.restype = ctypes.POINTER(c.TensorMem)
        self.made: list[Any] = []

    def init(self, model: Path | bytes, flags: int = 0) -> Any:
        """A handle, or the code of the failure."""
        handle = c.Handle(0)
        if isinstance(model, bytes):
            code = self.call.rknn_init(byref(handle), model, len(model), flags, None)
        else:
            code = self.call.rknn_init(byref(handle), str(model).encode(), 0, flags, None)
        if code == 0:
            self.made.append(handle)
        return handle if code == 0 else code

    def dup(self, handle: Any) -> Any:
        copy = c.Handle(0)
        assert self.call.rknn_dup_context(byref(handle), byref(copy)) == 0
        self.made.append(copy)
        return copy

    def set(self, handle: Any, *arrays: Array, fmt: int = c.UNDEFINED, pass_through: bool = False) -> int:
        inputs = (c.Input * len(arrays))()
        for index, array in enumerate(arrays):
            inputs[index] = c.Input(index, array.ctypes.data, array.nbytes, pass_through, c.TYPES[array.dtype], fmt)
        code: int = self.call.rknn_inputs_set(handle, len(arrays), inputs)
        return code

    def run(self, handle: Any, extend: RunExtend | None = None) -> int:
        code: int = self.call.rknn_run(handle, byref(extend) if extend else None)
        return code

    def get(self, handle: Any, *arrays: Array, want_float: bool = False) -> int:
        """Into the given arrays."""
        outputs = (c.Output * len(arrays))()
        for index, array in enumerate(arrays):
            outputs[index] = c.Output(want_float, 1, index, array.ctypes.data, array.nbytes)
        code: int = self.call.rknn_outputs_get(handle, len(arrays), outputs, None)
        return code

    def attribute(self, handle: Any, command: int, index: int = 0) -> c.TensorAttr:
        found = c.TensorAttr(index=index)
        assert self.call.rknn_query(handle, command, byref(found), ctypes.sizeof(found)) == 0
        return found

    def bind(self, handle: Any, attribute: c.TensorAttr, size: int = 0) -> tuple[Any, Array]:
        """Memory bound to a tensor, and its bytes."""
        memory = self.call.rknn_create_mem(handle, size or attribute.size_with_stride)
        assert self.call.rknn_set_io_mem(handle, memory, byref(attribute)) == 0
        content = memory.contents
        view = np.frombuffer((ctypes.c_uint8 * content.size).from_address(content.virt_addr), np.uint8)
        return memory, view

    def once(self, handle: Any, x: Array, y: Array) -> Array:
        assert (self.set(handle, x), self.run(handle), self.get(handle, y)) == (0, 0, 0)
        return y


@pytest.fixture
def board() -> Iterator[Board]:
    """A fresh RK3588; a test that leaves a session alive in it fails."""
    library = simulated_library()
    library.configure(SimulatedNpu())
    made = Board(library)
    yield made
    library.release_hangs()
    for handle in made.made:
        made.call.rknn_destroy(handle)
    wait_for(lambda: library.counter("sessions") == 0)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A twin of y = x + x, float32 `[4]`."""
    return twin(models.double(tmp_path / "double.onnx"))[0]


def numbers(*shape: int) -> Array:
    return np.random.default_rng(1).standard_normal(shape, dtype=np.float32)


def in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


# ---- building


def test_it_is_built_once_and_again_when_the_source_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    simulated_library()
    source = tmp_path / "source"
    shutil.copytree(library_module.SOURCE, source)
    monkeypatch.setattr(library_module, "SOURCE", source)
    built: list[Path] = []
    threads = [in_thread(lambda: built.append(built_library(tmp_path / "cache"))) for _ in range(2)]
    for thread in threads:
        thread.join()
    assert len(set(built)) == 1
    assert ctypes.CDLL(str(built[0])).hetero_sim_counter(b"jobs") == 0
    with monkeypatch.context() as patch:
        patch.setattr(library_module, "_compile", lambda *arguments: pytest.fail("compiled again"))
        assert built_library(tmp_path / "cache") == built[0]
    (source / "log.h").write_text((source / "log.h").read_text() + "\n")
    assert built_library(tmp_path / "cache") != built[0]
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == sorted(
        {path.parent.name for path in (built[0], built_library(tmp_path / "cache"))}
    )


def test_without_a_compiler_or_onnx_runtime_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library_module.shutil, "which", lambda name: None)
    monkeypatch.setattr(library_module.importlib.util, "find_spec", lambda name: None)
    for missing in (lambda: built_library(tmp_path), environment):
        with pytest.raises(Unavailable) as raised:
            missing()
        assert "pip install" in raised.value.fix
    assert not list(tmp_path.iterdir())


def test_a_compiler_that_fails_is_quoted_and_nothing_half_built_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulated_library()
    source = tmp_path / "source"
    source.mkdir()
    (source / "broken.c").write_text("this is not C")
    monkeypatch.setattr(library_module, "SOURCE", source)
    with pytest.raises(Unavailable, match=r"broken\.c"):
        built_library(tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_structures_are_laid_out_as_the_vendors() -> None:
    if ctypes.sizeof(ctypes.c_void_p) != 8:
        pytest.skip("sizes of 64-bit programs")
    sizes = {c.TensorAttr: 376, c.TensorMem: 40, c.Input: 32, c.Output: 24, c.SdkVersion: 512, c.InOutNum: 8}
    assert {structure: ctypes.sizeof(structure) for structure in sizes} == sizes


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "platform=",
        "job_us=-1",
        "job_us=1s",
        "faults=explode:1",
        "faults=fail:0.6,lost:0.6",
        "slowness=1,0",
        "fp16=2",
        "speedup=1,1,1,1",
        "hung_core=x",
    ],
)
def test_a_description_that_is_not_understood_is_refused_and_changes_nothing(
    board: Board, small: Path, text: str
) -> None:
    handle, versions = board.init(small), c.SdkVersion()
    board.library.configure(SimulatedNpu(library_version="9.9.9"))
    assert board.call.hetero_sim_configure(text.encode()) == -1
    assert board.call.hetero_sim_configure(None) == -1
    assert board.call.rknn_query(handle, c.QUERY_SDK_VERSION, byref(versions), ctypes.sizeof(versions)) == 0
    assert versions.api_version == b"9.9.9 (simulated)"


def test_an_impossible_npu_is_an_option_error(board: Board) -> None:
    with pytest.raises(OptionError):
        board.library.configure(SimulatedNpu(slowness=(1, 2, 3, 4)))
    with pytest.raises(OptionError):
        board.library.counter("unheard-of")  # type: ignore[arg-type]


def test_a_program_that_is_not_python_is_configured_by_the_environment(small: Path, tmp_path: Path) -> None:
    library = simulated_library()
    source = tmp_path / "main.c"
    source.write_text(
        r"""
        #include <dlfcn.h>
        #include <stdint.h>
        #include <stdio.h>
        int main(int count, char **argument) {
            void *library = dlopen(argument[1], RTLD_NOW);
            int (*init)(uint64_t *, void *, uint32_t, uint32_t, void *) = dlsym(library, "rknn_init");
            int (*destroy)(uint64_t) = dlsym(library, "rknn_destroy");
            int (*counter)(const char *) = dlsym(library, "hetero_sim_counter");
            uint64_t context = 0;
            int code = init(&context, argument[2], 0, 0, 0);
            printf("%d %d", code, counter("sessions"));
            return code ? 0 : destroy(context);
        }
        """
    )
    program = tmp_path / "main"
    subprocess.run([*library_module.compiler(), str(source), "-o", str(program), "-ldl"], check=True)

    def said(**variables: str) -> str:
        line = [str(program), str(library.path), str(small)]
        done = subprocess.run(line, env=variables, capture_output=True, text=True, check=True, timeout=60)
        return done.stdout + done.stderr

    assert said(**environment()) == "0 1"
    assert said(**environment(SimulatedNpu("rk3576"))).startswith(f"{PLATFORM} 0")
    assert "HETERO_SIM_RKNN" in (refused := said(**{**environment(), "HETERO_SIM_RKNN": "speed=9"}))
    assert refused.startswith(f"{UNAVAILABLE} 0")
    for wrong in ({}, {"HETERO_SIM_ORT": str(library.path)}, {"HETERO_SIM_ORT": "/nowhere.so"}):
        assert "HETERO_SIM_ORT" in (refused := said(**wrong))
        assert refused.startswith(f"{UNAVAILABLE} 0")


# ---- models


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        (b"", MODEL, "cannot be read"),
        (b"RKNM" + bytes(200), MODEL, "Invalid RKNN format"),
        (b"RKNN", MODEL, "Invalid RKNN format"),
        (twin_bytes(b"x", version=7), MODEL, "Invalid RKNN model version 7"),
        (twin_bytes(b"x", mark=b"the real thing.."), MODEL, "only its twin"),
        (twin_bytes(b"x", ["rk3576"]), PLATFORM, "not for rk3588"),
        (twin_bytes(b"x", []), PLATFORM, "not for rk3588"),
        (twin_bytes(b"no onnx"), MODEL, "model: "),
        (twin_bytes(b"x" * 100)[:80], MODEL, "truncated"),
        (twin_bytes(b"x" * 100)[:-1], MODEL, "truncated"),
        (b"RKNN\0\0\0\0" + b"\6".ljust(8, b"\0") + b"\xff" * 8 + bytes(100), MODEL, "truncated"),
    ],
)
def test_a_model_that_cannot_be_used_has_the_vendors_code(
    board: Board, tmp_path: Path, capfd: pytest.CaptureFixture[str], content: bytes, code: int, words: str
) -> None:
    path = tmp_path / "m.rknn"
    path.write_bytes(content)
    assert board.init(path) == code
    assert not content or board.init(content) == code
    assert words in capfd.readouterr().err
    assert board.library.counter("contexts") == 0


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_no_damage_to_a_file_does_more_than_refuse_it(board: Board, small: Path, data: st.DataObject) -> None:
    good = small.read_bytes()
    # The header, the mark and the tail are this library's to read; the graph between is ONNX Runtime's.
    body = 64 + int.from_bytes(good[16:24], "little")
    place = data.draw(st.sampled_from([*range(80), *range(body, len(good))]))
    damaged = good[:place] + bytes([data.draw(st.integers(0, 255))]) + good[place + 1 :]
    handle = board.init(damaged[: data.draw(st.sampled_from([len(good), place]))] or b"\0")
    if isinstance(handle, c.Handle):
        board.call.rknn_destroy(handle)
        board.made.clear()
    else:
        assert handle in (MODEL, PLATFORM)


def test_chips_of_one_family_run_each_others_models(board: Board, tmp_path: Path) -> None:
    path, _ = twin(models.double(tmp_path / "m.onnx"), ["rk3566"])
    assert board.init(path) == PLATFORM
    for platform in ("rk3566", "rk3568"):
        board.library.configure(SimulatedNpu(platform))
        assert isinstance(board.init(path), c.Handle)


def test_shapes_that_are_not_fixed_and_types_that_the_npu_has_not_are_refused(board: Board, tmp_path: Path) -> None:
    assert board.init(twin_bytes(models.dynamic(tmp_path / "a.onnx").read_bytes())) == MODEL
    assert board.init(twin_bytes(models.identity(tmp_path / "b.onnx", (4,), np.float64).read_bytes())) == MODEL


def test_what_is_not_simulated_says_so(board: Board, small: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert board.init(small, flags=0x10) == PARAMETER
    handle = board.init(small)
    assert board.call.rknn_query(handle, 12, byref(c.TensorAttr()), 4096) == PARAMETER
    assert board.call.rknn_query(handle, 999, byref(c.TensorAttr()), 4096) == PARAMETER
    assert board.call.rknn_query(handle, c.QUERY_INPUT, byref(c.TensorAttr()), 100) == PARAMETER
    assert board.call.rknn_query(handle, c.QUERY_INPUT, byref(c.TensorAttr(index=1)), 4096) == PARAMETER
    assert board.call.rknn_register_custom_ops(handle, None, 1) < 0
    assert board.call.rknn_set_weight_mem(handle, None) < 0
    assert "not simulated" in capfd.readouterr().err


def test_a_handle_that_is_not_there_is_refused_everywhere(board: Board, small: Path) -> None:
    handle = board.init(small)
    assert board.call.rknn_destroy(handle) == 0
    x = numbers(4)
    assert board.call.rknn_destroy(handle) == CONTEXT
    assert (board.set(handle, x), board.run(handle), board.get(handle, x)) == (CONTEXT,) * 3
    assert board.call.rknn_set_core_mask(handle, 1) == CONTEXT
    assert not board.call.rknn_create_mem(handle, 64)


def test_attributes_are_those_of_the_graph(board: Board, tmp_path: Path) -> None:
    handle = board.init(twin(shifted_image(tmp_path / "m.onnx", (1, 12, 5, 7)))[0])
    seen = [board.attribute(handle, command) for command in (1, 2, 8, 9, 10, 11)]
    assert [(found.name.decode(), found.fmt, found.shape()) for found in seen] == [
        ("x", c.NHWC, (1, 5, 7, 12)),
        ("y", c.NCHW, (1, 12, 5, 7)),
        ("x", c.NC1HWC2, (1, 2, 5, 7, 8)),
        ("y", c.NC1HWC2, (1, 2, 5, 7, 8)),
        ("x", c.NHWC, (1, 5, 7, 12)),
        ("y", c.NHWC, (1, 5, 7, 12)),
    ]
    dense, cells, rows = 12 * 5 * 7, 2 * 5 * 7 * 8, 5 * 16 * 12
    assert [found.size_with_stride // 4 for found in seen] == [dense, dense, cells, cells, rows, rows]
    assert {found.type for found in seen} == {c.FLOAT32}
    board.library.configure(SimulatedNpu(fp16=True))
    half = board.init(twin(perceptron(tmp_path / "h.onnx"))[0])
    assert (board.attribute(half, 1).type, board.attribute(half, 1).fmt) == (c.FLOAT16, c.UNDEFINED)


# ---- data


def test_a_4d_input_is_read_in_the_order_that_the_caller_names(board: Board, tmp_path: Path) -> None:
    onnx, x = shifted_image(tmp_path / "m.onnx", (1, 3, 4, 4)), numbers(1, 3, 4, 4)
    handle, expected = board.init(twin(onnx)[0]), answers(onnx, [x])[0]
    nhwc = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    y = np.empty_like(x)
    for array, options in (
        (x, {"fmt": c.NCHW}),
        (nhwc, {"fmt": c.NHWC}),
        (nhwc, {"fmt": c.UNDEFINED}),
        (nhwc, {"fmt": c.NCHW, "pass_through": True}),
    ):
        assert (board.set(handle, array, **options), board.run(handle), board.get(handle, y)) == (0, 0, 0)  # type: ignore[arg-type]
        np.testing.assert_array_equal(y, expected)
    # Named wrongly it is accepted, and wrong: as on the chip.
    assert (board.set(handle, x, fmt=c.NHWC), board.run(handle), board.get(handle, y)) == (0, 0, 0)
    assert not np.array_equal(y, expected)


@given(
    shape=st.tuples(st.integers(1, 2), st.integers(1, 20), st.integers(1, 5), st.integers(1, 20)),
    native_in=st.sampled_from([8, 10]),
    native_out=st.sampled_from([2, 9, 11]),
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_shared_memory_in_every_layout_gives_the_same_numbers(
    board: Board, tmp_path: Path, shape: tuple[int, ...], native_in: int, native_out: int
) -> None:
    onnx, x = shifted_image(tmp_path / "m.onnx", shape), numbers(*shape)
    handle = board.init(twin(onnx)[0])
    source, target = board.attribute(handle, native_in), board.attribute(handle, native_out)
    (into, to_write), (out_of, to_read) = board.bind(handle, source), board.bind(handle, target)
    to_write[:] = packed(x, source)
    assert board.run(handle) == 0
    expected = answers(onnx, [x])[0]
    np.testing.assert_array_equal(to_read, packed(expected, target))
    for memory in (into, out_of):
        assert board.call.rknn_destroy_mem(handle, memory) == 0
    assert board.call.rknn_destroy(handle) == 0
    board.made.clear()


def packed(x: Array, attribute: c.TensorAttr) -> Array:
    """The bytes of an NCHW array in a layout, written after the vendor's description and not after the C source."""
    n, channels, h, w = x.shape
    if attribute.fmt == c.NC1HWC2:
        c1, c2 = attribute.dims[1], attribute.dims[4]
        filled = np.zeros((n, c1 * c2, h, w), x.dtype)
        filled[:, :channels] = x
        x = filled.reshape(n, c1, c2, h, w).transpose(0, 1, 3, 4, 2)
    elif attribute.fmt == c.NHWC:
        filled = np.zeros((n, h, attribute.w_stride, channels), x.dtype)
        filled[:, :, :w] = x.transpose(0, 2, 3, 1)
        x = filled
    return np.frombuffer(x.tobytes(), np.uint8)


def test_numbers_are_converted_between_the_callers_types_and_the_graphs(
    board: Board, small: Path, tmp_path: Path
) -> None:
    handle, y = board.init(small), np.empty(4, np.float32)
    for dtype in ("uint8", "int8", "float16", "int32", "int64"):
        x = np.array([0, 1, 7, 100]).astype(dtype)
        np.testing.assert_array_equal(board.once(handle, x, y), [0, 2, 14, 200])
    whole = board.init(twin(models.double(tmp_path / "i.onnx", (4,), np.int64))[0])
    x = np.array([-1, 2, 3, 4])
    assert (board.set(whole, x), board.run(whole), board.get(whole, y, want_float=True)) == (0, 0, 0)
    np.testing.assert_array_equal(y, 2 * x)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.floats(width=32), min_size=4, max_size=4))
def test_half_precision_rounds_as_numpy_does(board: Board, small: Path, values: list[float]) -> None:
    board.library.configure(SimulatedNpu(fp16=True))
    x, raw = np.array(values, np.float32), np.empty(4, np.float16)
    handle = board.init(small)
    with np.errstate(all="ignore"):
        expected = (2 * x.astype(np.float16).astype(np.float32)).astype(np.float16)
    np.testing.assert_array_equal(board.once(handle, x, raw), expected)
    assert board.call.rknn_destroy(handle) == 0
    board.made.clear()


def test_too_little_data_and_wrong_counts_are_refused_and_surplus_is_not(board: Board, small: Path) -> None:
    handle, y = board.init(small), np.empty(4, np.float32)
    assert board.run(handle) == INPUT
    assert board.get(handle, y) < 0
    assert board.set(handle, numbers(3)) == INPUT
    assert board.set(handle, numbers(4), numbers(4)) == INPUT
    assert board.set(handle, numbers(9)) == 0
    assert board.run(handle) == 0
    assert board.get(handle, np.empty(3, np.float32)) == OUTPUT
    assert board.get(handle, y, y) == OUTPUT
    assert board.get(handle, y) == 0


def test_outputs_that_the_library_allocates_live_until_they_are_released(board: Board, small: Path) -> None:
    handle, x = board.init(small), numbers(4)
    outputs = (c.Output * 1)()
    assert (board.set(handle, x), board.run(handle)) == (0, 0)
    assert board.call.rknn_outputs_get(handle, 1, outputs, None) == 0
    assert board.library.counter("outputs") == 1
    found = np.ctypeslib.as_array(ctypes.cast(outputs[0].buf, ctypes.POINTER(ctypes.c_float)), (4,))
    np.testing.assert_array_equal(found, x + x)
    assert board.call.rknn_outputs_release(handle, 1, outputs) == 0
    assert board.library.counter("outputs") == 0


def test_caches_hide_what_was_not_flushed(board: Board, small: Path) -> None:
    handle = board.init(small, flags=c.FLAG_DISABLE_FLUSH_INPUT | c.FLAG_DISABLE_FLUSH_OUTPUT)
    (into, to_write), (out_of, to_read) = (board.bind(handle, board.attribute(handle, kind)) for kind in (1, 2))
    to_write.view(np.float32)[:] = 3
    assert board.run(handle) == 0
    assert board.call.rknn_mem_sync(handle, out_of, c.SYNC_FROM_DEVICE) == 0
    assert list(to_read.view(np.float32)) == [0] * 4
    assert board.call.rknn_mem_sync(handle, into, c.SYNC_TO_DEVICE) == 0
    assert board.run(handle) == 0
    assert list(to_read.view(np.float32)) == [0] * 4
    assert board.call.rknn_mem_sync(handle, out_of, c.SYNC_FROM_DEVICE) == 0
    assert list(to_read.view(np.float32)) == [6] * 4
    for memory in (into, out_of):
        board.call.rknn_destroy_mem(handle, memory)


def test_a_flush_more_than_needed_changes_nothing(board: Board, small: Path) -> None:
    handle = board.init(small)
    (into, to_write), (out_of, to_read) = (board.bind(handle, board.attribute(handle, kind)) for kind in (1, 2))
    to_write.view(np.float32)[:] = 3
    assert board.call.rknn_mem_sync(handle, into, c.SYNC_TO_DEVICE) == 0
    assert board.run(handle) == 0
    assert board.call.rknn_mem_sync(handle, out_of, c.SYNC_FROM_DEVICE) == 0
    assert list(to_read.view(np.float32)) == [6] * 4
    for memory in (into, out_of):
        board.call.rknn_destroy_mem(handle, memory)


def test_memory_is_checked_counted_and_missed_when_it_is_gone(board: Board, small: Path) -> None:
    handle = board.init(small)
    attribute = board.attribute(handle, c.QUERY_INPUT)
    tiny = board.call.rknn_create_mem(handle, 15)
    assert board.call.rknn_set_io_mem(handle, tiny, byref(attribute)) == PARAMETER
    stranger = c.TensorAttr.from_buffer_copy(attribute)
    stranger.name = b"nobody"
    assert board.call.rknn_set_io_mem(handle, tiny, byref(stranger)) == PARAMETER
    memory, _ = board.bind(handle, attribute)
    assert board.library.counter("mems") == 2
    assert board.call.rknn_destroy_mem(handle, memory) == 0
    assert board.call.rknn_destroy_mem(handle, memory) == PARAMETER
    assert board.run(handle) == INPUT
    assert board.call.rknn_destroy_mem(handle, tiny) == 0
    assert board.library.counter("mems") == 0


def test_images_cannot_be_shared_as_nchw(board: Board, tmp_path: Path) -> None:
    handle = board.init(twin(shifted_image(tmp_path / "m.onnx", (1, 3, 4, 4)))[0])
    attribute = board.attribute(handle, c.QUERY_INPUT)
    attribute.fmt = c.NCHW
    memory = board.call.rknn_create_mem(handle, 4096)
    assert board.call.rknn_set_io_mem(handle, memory, byref(attribute)) == PARAMETER
    board.call.rknn_destroy_mem(handle, memory)


def test_memory_from_a_file_descriptor_is_the_files(board: Board, small: Path) -> None:
    handle = board.init(small)
    attribute = board.attribute(handle, c.QUERY_INPUT)
    descriptor = os.memfd_create("input")
    os.pwrite(descriptor, np.arange(8, dtype=np.float32).tobytes(), 0)
    memory = board.call.rknn_create_mem_from_fd(handle, descriptor, None, 16, 16)
    assert board.call.rknn_set_io_mem(handle, memory, byref(attribute)) == 0
    y = np.empty(4, np.float32)
    assert (board.run(handle), board.get(handle, y)) == (0, 0)
    assert list(y) == [8, 10, 12, 14]
    board.call.rknn_destroy_mem(handle, memory)
    os.close(descriptor)


# ---- cores

MASKS = {
    "rk3588": {0: 0, 1: 0, 2: 0, 4: 0, 3: 0, 7: 0, 0xFFFF: 0, 5: PARAMETER, 6: PARAMETER, 8: PARAMETER, -1: PARAMETER},
    "rk3576": {0: 0, 1: 0, 2: 0, 3: 0, 4: 0, 7: 0, 5: PARAMETER, 6: PARAMETER},
    "rk3566": {0: 0, 1: PLATFORM, 2: PLATFORM, 3: PLATFORM, 7: PLATFORM, 0xFFFF: PLATFORM},
}


@pytest.mark.parametrize("platform", MASKS)
def test_masks_are_accepted_as_on_the_chip(board: Board, tmp_path: Path, platform: str) -> None:
    board.library.configure(SimulatedNpu(platform))
    handle = board.init(twin(models.double(tmp_path / "m.onnx"), [platform])[0])
    assert {mask: board.call.rknn_set_core_mask(handle, mask) for mask in MASKS[platform]} == MASKS[platform]


@pytest.mark.parametrize(
    ("platform", "mask", "cores", "warned"),
    [
        ("rk3588", 4, (0, 0, 1), False),
        ("rk3588", 3, (1, 1, 0), False),
        ("rk3588", 7, (1, 1, 1), False),
        ("rk3588", 0xFFFF, (1, 1, 1), False),
        ("rk3588", 0, (1, 0, 0), False),
        ("rk3576", 4, (1, 0, 0), True),
        ("rk3576", 7, (1, 1, 0), True),
        ("rk3566", 0, (1, 0, 0), False),
    ],
)
def test_a_job_runs_on_the_cores_of_its_mask(
    board: Board,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    platform: str,
    mask: int,
    cores: Sequence[int],
    warned: bool,
) -> None:
    board.library.configure(SimulatedNpu(platform))
    handle = board.init(twin(models.double(tmp_path / "m.onnx"), [platform])[0])
    assert board.call.rknn_set_core_mask(handle, mask) == 0
    board.once(handle, numbers(4), np.empty(4, np.float32))
    assert [board.library.counter(name) for name in ("jobs_0", "jobs_1", "jobs_2")] == list(cores)
    assert ("is taken as" in capfd.readouterr().err) is warned


class Running:
    """Runs of contexts in threads of their own."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self.codes: dict[int, int] = {}
        self.threads: list[threading.Thread] = []

    def start(self, handle: Any) -> None:
        number = len(self.threads)

        def work() -> None:
            self.codes[number] = self.board.run(handle)

        self.threads.append(in_thread(work))

    def wait(self, **counters: int) -> None:
        wait_for(lambda: all(self.board.library.counter(name) == value for name, value in counters.items()))  # type: ignore[arg-type]

    def join(self) -> list[int]:
        for thread in self.threads:
            thread.join()
        return [self.codes[number] for number in range(len(self.threads))]


def contexts(board: Board, small: Path, masks: Sequence[int]) -> list[Any]:
    made = [board.init(small)]
    made += [board.dup(made[0]) for _ in masks[1:]]
    for handle, mask in zip(made, masks, strict=True):
        assert board.call.rknn_set_core_mask(handle, mask) == 0
        assert board.set(handle, numbers(4)) == 0
    return made


@pytest.mark.parametrize("masks", [(1, 2, 4), (0, 0, 0), (4, 0, 0)])
def test_cores_work_at_once_and_a_fourth_job_waits(board: Board, small: Path, masks: Sequence[int]) -> None:
    handles = contexts(board, small, [*masks, masks[0]])
    board.library.configure(SimulatedNpu(faults={"hang": 1.0}))
    running = Running(board)
    for count, handle in enumerate(handles[:3], 1):
        running.start(handle)
        running.wait(hung=count)
    running.start(handles[3])
    running.wait(hung=3, waiting=1)
    assert [board.library.counter(name) for name in ("jobs_0", "jobs_1", "jobs_2")] == [1, 1, 1]
    board.library.release_hangs()
    assert running.join() == [TIMEOUT, TIMEOUT, TIMEOUT, 0]
    assert board.library.counter("peak") == 3


def test_a_job_for_several_cores_waits_for_all_and_is_not_overtaken(board: Board, small: Path) -> None:
    handles = contexts(board, small, [1, 3, 2, 4])
    board.library.configure(SimulatedNpu(hung_core=0))
    running = Running(board)
    running.start(handles[0])
    running.wait(hung=1)
    running.start(handles[1])
    running.wait(waiting=1)
    # Core 1 is idle, and kept for the job before.
    running.start(handles[2])
    running.wait(waiting=2)
    # Core 2 is nobody's.
    assert board.run(handles[3]) == 0
    assert board.library.counter("jobs") == 2
    board.library.release_hangs()
    assert running.join() == [TIMEOUT, 0, 0]


def test_a_core_hangs_after_as_many_jobs_as_it_was_told(board: Board, small: Path) -> None:
    board.library.configure(SimulatedNpu(hung_core=1, hung_after=2))
    first, second = contexts(board, small, [2, 1])
    assert [board.run(handle) for handle in (first, first, second, second, second)] == [0] * 5
    running = Running(board)
    running.start(first)
    running.wait(hung=1)
    assert board.run(second) == 0
    board.library.release_hangs()
    assert running.join() == [TIMEOUT]
    assert board.run(first) == 0
    board.library.configure(SimulatedNpu(hung_core=1))
    running.start(first)
    running.wait(hung=1)


def test_a_run_with_a_time_limit_gives_up_in_the_hang_and_in_the_queue(board: Board, small: Path) -> None:
    board.library.configure(SimulatedNpu(hung_core=0))
    first, second = contexts(board, small, [1, 1])
    running = Running(board)
    running.start(first)
    running.wait(hung=1)
    assert board.run(second, RunExtend(timeout_ms=10)) == TIMEOUT
    board.library.release_hangs()
    assert running.join() == [TIMEOUT]
    board.library.configure(SimulatedNpu(hung_core=0))
    assert board.run(second, RunExtend(timeout_ms=10)) == TIMEOUT
    board.library.configure(SimulatedNpu(job_seconds=60))
    assert board.run(second, RunExtend(timeout_ms=10)) == TIMEOUT
    assert board.library.counter("running") == 0


def test_a_run_that_does_not_block_is_waited_for(board: Board, small: Path) -> None:
    board.library.configure(SimulatedNpu(hung_core=0))
    (handle,) = contexts(board, small, [1])
    assert board.run(handle, RunExtend(non_block=NON_BLOCK)) == 0
    wait_for(lambda: board.library.counter("hung") == 1)
    board.library.release_hangs()
    assert board.call.rknn_wait(handle, None) == TIMEOUT
    x, y = numbers(4), np.empty(4, np.float32)
    assert board.set(handle, x) == 0
    assert board.run(handle, RunExtend(non_block=NON_BLOCK)) == 0
    assert board.get(handle, y) == 0
    np.testing.assert_array_equal(y, x + x)
    assert board.library.counter("misuse") == 0


def test_time_is_modelled_by_speedup_and_slowness(board: Board, small: Path) -> None:
    board.library.configure(SimulatedNpu(job_seconds=0.02, slowness=(1, 2, 1), speedup=(1, 2, 4)))
    (handle,) = contexts(board, small, [1])
    duration = ctypes.c_int64()
    for mask, least in ((1, 20_000), (2, 40_000), (3, 20_000), (7, 10_000)):
        board.call.rknn_set_core_mask(handle, mask)
        assert board.run(handle) == 0
        assert board.call.rknn_query(handle, 4, byref(duration), 8) == 0
        # How much longer depends on the machine; shorter would be wrong everywhere.
        assert duration.value >= least


# ---- what goes wrong


@pytest.mark.parametrize(("fault", "code"), [("fail", FAIL), ("timeout", TIMEOUT), ("lost", UNAVAILABLE)])
def test_a_fault_has_the_vendors_code_and_leaves_no_answer(board: Board, small: Path, fault: Any, code: int) -> None:
    (handle,) = contexts(board, small, [1])
    board.library.configure(SimulatedNpu(faults={fault: 1.0}))
    assert board.run(handle) == code
    assert board.get(handle, np.empty(4, np.float32)) == code
    assert board.library.counter("running") == 0


def test_wrong_answers_are_wrong_in_the_way_they_should_be(board: Board, small: Path) -> None:
    handle, x, y = board.init(small), numbers(4), np.empty(4, np.float32)
    board.library.configure(SimulatedNpu(faults={"nan": 1.0}))
    board.once(handle, x, y)
    assert np.isnan(y).sum() == 1
    np.testing.assert_array_equal(y[~np.isnan(y)], (x + x)[~np.isnan(y)])
    board.library.configure(SimulatedNpu(faults={"garbage": 1.0}))
    board.once(handle, x, y)
    assert np.isfinite(y).all()
    assert not (y == x + x).any()


def test_faults_are_drawn_from_the_seed_in_their_shares(board: Board, small: Path) -> None:
    handle, x = board.init(small), numbers(4)

    def codes(seed: int) -> list[int]:
        board.library.configure(SimulatedNpu(faults={"fail": 0.2, "lost": 0.1}, seed=seed))
        assert board.set(handle, x) == 0
        return [board.run(handle) for _ in range(1000)]

    first = codes(1)
    assert first == codes(1)
    assert first != codes(2)
    # Five standard deviations of a binomial draw.
    assert abs(first.count(FAIL) - 200) < 64
    assert abs(first.count(UNAVAILABLE) - 100) < 48
    assert set(first) == {0, FAIL, UNAVAILABLE}


def test_two_threads_in_one_context_are_noticed_and_get_wrong_answers(board: Board, small: Path) -> None:
    blocker, shared = contexts(board, small, [1, 1])
    board.library.configure(SimulatedNpu(hung_core=0))
    x, y = numbers(4), np.empty(4, np.float32)
    running = Running(board)
    running.start(blocker)
    running.wait(hung=1)
    running.start(shared)
    running.wait(waiting=1)
    intruder = in_thread(lambda: board.set(shared, x))
    running.wait(misuse=1)
    board.library.release_hangs()
    assert running.join() == [TIMEOUT, 0]
    intruder.join()
    assert board.get(shared, y) == 0
    assert not (y == x + x).any()
    np.testing.assert_array_equal(board.once(shared, x, y), x + x)


def test_inputs_set_over_another_threads_unfetched_ones_are_noticed(board: Board, small: Path) -> None:
    handle, x = board.init(small), numbers(4)
    assert board.set(handle, x) == 0
    in_thread(lambda: board.set(handle, 2 * x)).join()
    assert board.library.counter("misuse") == 1
    board.once(board.init(small), x, np.empty(4, np.float32))
    assert board.library.counter("misuse") == 1


def test_one_thread_after_the_other_is_no_misuse(board: Board, small: Path) -> None:
    handle, x = board.init(small), numbers(4)
    for _ in range(3):
        in_thread(lambda: board.once(handle, x, np.empty(4, np.float32))).join()
    assert board.library.counter("misuse") == 0
    assert board.library.counter("jobs") == 3


def test_a_duplicate_shares_the_weights_and_outlives_the_original_here(board: Board, small: Path) -> None:
    original, x = board.init(small), numbers(4)
    copies = [board.dup(original), board.dup(original)]
    assert (board.library.counter("contexts"), board.library.counter("sessions")) == (3, 1)
    assert board.call.rknn_destroy(original) == 0
    assert board.library.counter("orphans") == 1
    for copy in copies:
        np.testing.assert_array_equal(board.once(copy, x, np.empty(4, np.float32)), x + x)
        assert board.call.rknn_destroy(copy) == 0
    assert (board.library.counter("contexts"), board.library.counter("sessions")) == (0, 0)
    assert isinstance(board.init(small), c.Handle)
