"""A running call of ONNX Runtime ends when it is cancelled, and the device is not blamed for it."""

from __future__ import annotations

import concurrent.futures
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import hetero

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")


def long_model(path: Path) -> Path:
    """A loop of matrix products that runs as long as the input says: y = x @ x, n times over."""
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["state", "state"], ["product"]),
            helper.make_node("Softmax", ["product"], ["next"]),
            helper.make_node("Identity", ["go"], ["on"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, [256, 256]),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, [256, 256]),
        ],
    )
    graph = helper.make_graph(
        [helper.make_node("Loop", ["n", "", "x"], ["y"], body=body)],
        "long",
        [
            helper.make_tensor_value_info("n", TensorProto.INT64, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [256, 256]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [256, 256])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_a_cancelled_run_ends_long_before_its_time_and_the_next_one_works(tmp_path: Path, host: hetero.Host) -> None:
    x = np.zeros((256, 256), np.float32)
    with hetero.Runtime(chain=["cpu"], learn=False) as runtime:
        session = runtime.load(long_model(tmp_path / "long.onnx"))
        future = session.submit(1 << 40, x)  # years of work
        executable = session._candidates[0].executable
        tick = threading.Event()
        while not future.cancel():
            assert not future.done()
            tick.wait(0.001)  # until the worker is inside ONNX Runtime
        with pytest.raises(concurrent.futures.CancelledError):
            future.result(30)
        assert session(2, x).shape == (256, 256)
        assert session.explain().candidates[0].state == "ready"
        assert executable is session._candidates[0].executable
