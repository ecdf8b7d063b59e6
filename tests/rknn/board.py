"""A simulated board as a C program meets it: the vendor's calls, with their arguments put together."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Sequence
from ctypes import byref
from pathlib import Path
from typing import Any

import numpy as np

from hetero.backend import Array
from hetero.testing.rknn.library import SimulatedLibrary
from hetero_rknn.drivers import capi_types as c
from tests.rknn.sim_models import wait_for

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


def numbers(*shape: int) -> Array:
    return np.random.default_rng(1).standard_normal(shape, dtype=np.float32)


def in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


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
