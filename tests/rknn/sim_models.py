"""Twin files for the simulators, ONNX Runtime's answers to hold theirs against, and the simulated library."""

from __future__ import annotations

import functools
import json
import struct
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from hetero.backend import Array
from hetero.cache import cache_dir
from hetero.errors import Unavailable
from hetero.testing.rknn.library import SimulatedLibrary, built_library
from hetero_rknn.model_file import ModelFile, ModelTensor
from tests.models import save, tensor

MARK = b"HETERO-ONNX-TWIN"


@functools.cache
def _library() -> SimulatedLibrary | Unavailable:
    pytest.importorskip("onnxruntime")
    try:
        return SimulatedLibrary(built_library(cache_dir() / "simulators"))
    except Unavailable as error:
        return error


def simulated_library() -> SimulatedLibrary:
    """The library; skips the test where it cannot be built."""
    found = _library()
    if isinstance(found, Unavailable):
        pytest.skip(str(found))
    return found


def twin_bytes(model: bytes, platforms: Sequence[str] = ("rk3588",), version: int = 6, mark: bytes = MARK) -> bytes:
    text = json.dumps({"target_platform": list(platforms), "version": "2.3.2", "norm_tensor": []}).encode()
    body = mark + model
    head = b"RKNN\0\0\0\0" + struct.pack("<QQ", version, len(body))
    return head.ljust(64, b"\0") + body + struct.pack("<Q", len(text)) + text


def twin(model: Path, platforms: Sequence[str] = ("rk3588",)) -> tuple[Path, ModelFile]:
    """A twin file beside an ONNX file, and its parsed header."""
    path = model.with_suffix(".rknn")
    path.write_bytes(twin_bytes(model.read_bytes(), platforms))
    graph = onnx.load(model).graph
    inputs, outputs = (tuple(map(_declared, ends)) for ends in (graph.input, graph.output))
    return path, ModelFile(platforms[0], "2.3.2", 6, inputs, outputs)


def _declared(value: Any) -> ModelTensor:
    kind = value.type.tensor_type
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(kind.elem_type))
    return ModelTensor(value.name, dtype, tuple(dim.dim_value for dim in kind.shape.dim))


def answers(model: Path, inputs: Sequence[Array]) -> list[Array]:
    """What ONNX Runtime answers, with one thread as in the simulator."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    names = [end.name for end in session.get_inputs()]
    return list(session.run(None, dict(zip(names, inputs, strict=True))))


def perceptron(path: Path, width: int = 64) -> Path:
    """y = tanh(x @ w), float32 `[3, width]`, seeded weights."""
    w = np.random.default_rng(3).standard_normal((width, width), dtype=np.float32) / np.float32(width**0.5)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Tanh", ["m"], ["y"])]
    ends = [tensor(name, [3, width]) for name in ("x", "y")]
    return save(path, nodes, ends[:1], ends[1:], [numpy_helper.from_array(w, "w")])


def shifted_image(path: Path, shape: Sequence[int]) -> Path:
    """y = x + b, float32 NCHW, where b differs in every element, so that no two orders of the elements look alike."""
    b = np.arange(int(np.prod(shape)), dtype=np.float32).reshape(shape)
    node = helper.make_node("Add", ["x", "b"], ["y"])
    return save(path, [node], [tensor("x", shape)], [tensor("y", shape)], [numpy_helper.from_array(b, "b")])


def wait_for(condition: Callable[[], bool]) -> None:
    """Return once something that other threads bring about holds; fail when it never does."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.001)
