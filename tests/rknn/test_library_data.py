"""Numbers through the simulated `librknnrt.so`: real answers, in every type, order and kind of memory."""

from __future__ import annotations

import ctypes
import os
from ctypes import byref
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hetero.backend import Array
from hetero.testing.rknn.npu import SimulatedNpu
from hetero_rknn.drivers import capi_types as c
from tests import models
from tests.rknn.board import (
    INPUT,
    OUTPUT,
    PARAMETER,
    Board,
    numbers,
)
from tests.rknn.sim_models import answers, shifted_image, twin


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


def test_half_precision_rounds_as_numpy_does(board: Board, tmp_path: Path) -> None:
    """Every half-precision number, every point half-way between two, and the next single-precision ones beside them."""
    halves = np.arange(0x7C01, dtype=np.uint16).view(np.float16).astype(np.float32)
    halves[-1] = 65536
    between = (halves[1:] + halves[:-1]) / 2
    points = np.concatenate([halves, between, [np.inf, np.nan, 1e30, 3e-8]]).astype(np.float32)
    points = np.concatenate([points, np.nextafter(points, np.float32(0)), np.nextafter(points, np.float32(np.inf))])
    x = np.concatenate([points, -points])
    board.library.configure(SimulatedNpu(fp16=True))
    handle = board.init(twin(models.identity(tmp_path / "m.onnx", x.shape))[0])
    with np.errstate(all="ignore"):
        expected = x.astype(np.float16)
    np.testing.assert_array_equal(board.once(handle, x, np.empty(x.shape, np.float16)), expected)
    single = np.empty(x.shape, np.float32)
    assert board.get(handle, single, want_float=True) == 0
    np.testing.assert_array_equal(single, expected.astype(np.float32))


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
