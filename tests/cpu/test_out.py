"""Answers that end in the caller's array: right, whole, and nobody's but the caller's when the call is over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import hetero
from hetero.backend import Array
from tests import models
from tests.cpu.conftest import Load

RANDOM = np.random.default_rng(5)


def call_into(executable: hetero.Executable, outputs: dict[str, Array], **inputs: Any) -> dict[str, Array]:
    call = hetero.Call(0)
    call.outputs = outputs
    return dict(executable.run(inputs, call))


@pytest.mark.parametrize("shape", [(4,), (300, 300), ("n", 300)], ids=["small", "large", "dynamic"])
def test_the_array_is_filled_and_left_alone_afterwards(load: Load, tmp_path: Path, shape: Any) -> None:
    executable = load(models.double(tmp_path / "d.onnx", shape))
    sizes = [size if isinstance(size, int) else 300 for size in shape]
    first, second = np.empty(sizes, np.float32), np.empty(sizes, np.float32)
    x = RANDOM.random(sizes, np.float32)
    assert call_into(executable, {"y": first}, x=x)["y"] is first
    assert call_into(executable, {"y": second}, x=x + 1)["y"] is second
    third = dict(executable.run({"x": x + 2}, hetero.Call(0)))["y"]
    np.testing.assert_array_equal(first, x * 2)
    np.testing.assert_array_equal(second, (x + 1) * 2)
    np.testing.assert_array_equal(third, (x + 2) * 2)


def test_an_output_without_an_array_is_given_all_the_same(load: Load, tmp_path: Path) -> None:
    executable = load(models.double(tmp_path / "d.onnx", (300, 300)))
    x = RANDOM.random((300, 300), np.float32)
    np.testing.assert_array_equal(call_into(executable, {}, x=x)["y"], x * 2)


def test_a_model_that_declares_another_shape_than_it_gives_answers_as_without_arrays(
    load: Load, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """y says n x 300 and is the first 100 rows."""
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 300])
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 300])
    ends = [onnx.numpy_helper.from_array(np.array([value]), name) for name, value in (("from", 0), ("to", 200))]
    node = onnx.helper.make_node("Slice", ["x", "from", "to"], ["y"])
    graph = onnx.helper.make_graph([node], "g", [x], [y], ends)
    path = tmp_path / "lies.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), path)
    executable = load(path)
    given, out = RANDOM.random((300, 300), np.float32), np.zeros((300, 300), np.float32)
    for _ in range(2):
        answer = call_into(executable, {"y": out}, x=given)["y"]
        assert answer is not out
        np.testing.assert_array_equal(answer, given[:200])
    assert not out.any()


def test_the_doors_give_the_callers_array(make_runtime: Any, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from hetero_cpu.backend import CpuBackend

    runtime = make_runtime(CpuBackend)
    session = runtime.load(models.double(tmp_path / "d.onnx", ("n", 300)))
    x = RANDOM.random((300, 300), np.float32)
    with runtime.buffer((300, 300)) as y:
        with runtime.buffer((300, 300)) as given:
            given[...] = x
            assert session(given, out=y) is y.array
        assert runtime.memory["host"].buffers == 1, "nobody but the caller holds an array when the call is over"
        np.testing.assert_array_equal(y, x * 2)
        assert session.submit(x + 1, out=y).result(60) is y.array
        np.testing.assert_array_equal(y, (x + 1) * 2)
    assert [record.attempts[-1].copy_seconds > 0 for record in runtime.records] == [False, True]
