"""Small ONNX models for tests: each function writes one to `path` and returns the path."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
# What onnxruntime 1.19, the oldest that hetero supports, can read; onnx itself would write its newest.
IR_VERSION = 8

Shape = Sequence[int | str | None]


def save(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    weights: Sequence[onnx.TensorProto] = (),
    opset: int = OPSET,
    domains: Sequence[str] = (),
) -> Path:
    """A model of these parts, unchecked, so that broken ones can be made too."""
    graph = helper.make_graph(nodes, path.stem, inputs, outputs, list(weights))
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="hetero-tests")
    path.write_bytes(model.SerializeToString())
    return path


def tensor(name: str, shape: Shape | None, dtype: Any = np.float32) -> onnx.ValueInfoProto:
    """An input or output; `object` is the dtype of strings."""
    element = TensorProto.STRING if dtype is object else helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return helper.make_tensor_value_info(name, element, shape)


def matmul(path: Path, n: int = 64) -> Path:
    """c = a @ b, float32, all `[n, n]`."""
    shape = [n, n]
    node = helper.make_node("MatMul", ["a", "b"], ["c"])
    return save(path, [node], [tensor("a", shape), tensor("b", shape)], [tensor("c", shape)])


def double(path: Path, shape: Shape | None = (4,), dtype: Any = np.float32) -> Path:
    """y = x + x, elementwise, of the shape and dtype given."""
    node = helper.make_node("Add", ["x", "x"], ["y"])
    return save(path, [node], [tensor("x", shape, dtype)], [tensor("y", shape, dtype)])


def identity(path: Path, shape: Shape | None = (4,), dtype: Any = np.float32) -> Path:
    """y = x."""
    node = helper.make_node("Identity", ["x"], ["y"])
    return save(path, [node], [tensor("x", shape, dtype)], [tensor("y", shape, dtype)])


def two_outputs(path: Path) -> Path:
    """total = x + y and product = x * y, float32 `[4]`."""
    nodes = [helper.make_node("Add", ["x", "y"], ["total"]), helper.make_node("Mul", ["x", "y"], ["product"])]
    ends = [tensor(name, [4]) for name in ("x", "y", "total", "product")]
    return save(path, nodes, ends[:2], ends[2:])


def dynamic(path: Path) -> Path:
    """y = x + x, float32 `[batch, width]`, both symbolic."""
    return double(path, ["batch", "width"])


def many(path: Path, count: int = 25, shape: Shape = ("batch", 8)) -> Path:
    """y0 = x0 + x0, y1 = x1 + x1, ... float32: as a decoder with a key-value cache, many small inputs and outputs."""
    nodes = [helper.make_node("Add", [f"x{i}", f"x{i}"], [f"y{i}"]) for i in range(count)]
    inputs = [tensor(f"x{i}", shape) for i in range(count)]
    return save(path, nodes, inputs, [tensor(f"y{i}", shape) for i in range(count)])


def strings(path: Path) -> Path:
    """y = x, strings `[n]`."""
    return identity(path, ["n"], object)


def external_data(path: Path, location: str = "weights.bin", n: int = 64, write: bool = True) -> Path:
    """y = x @ w, float32, x and y `[batch, n]`, w = 2 * identity in a file of its own.

    Args:
        path: The model.
        location: What the model says about where the weights are; relative to its folder, or an attempt to get out.
        n: Size of the matrix.
        write: Also write the weights there.
    """
    weights = (2 * np.eye(n)).astype(np.float32)
    if write:
        (path.parent / location).write_bytes(weights.tobytes())
    stored = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[n, n], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, "offset": "0", "length": str(weights.nbytes)}.items():
        stored.external_data.add(key=key, value=value)
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    return save(path, [node], [tensor("x", ["batch", n])], [tensor("y", ["batch", n])], [stored])


def perceptron(path: Path, layers: int = 4, n: int = 256) -> Path:
    """y = relu(... relu(x @ w0 + b0) ...), float32 `[batch, n]`, with seeded weights: something to optimise."""
    random = np.random.default_rng(7)
    nodes, weights, last = [], [], "x"
    for layer in range(layers):
        w = random.standard_normal((n, n), dtype=np.float32) / np.float32(n**0.5)
        b = random.standard_normal(n, dtype=np.float32)
        weights += [numpy_helper.from_array(w, f"w{layer}"), numpy_helper.from_array(b, f"b{layer}")]
        nodes += [
            helper.make_node("MatMul", [last, f"w{layer}"], [f"m{layer}"]),
            helper.make_node("Add", [f"m{layer}", f"b{layer}"], [f"s{layer}"]),
            helper.make_node("Relu", [f"s{layer}"], ["y" if layer == layers - 1 else f"r{layer}"]),
        ]
        last = f"r{layer}"
    return save(path, nodes, [tensor("x", ["batch", n])], [tensor("y", ["batch", n])], weights)


def unknown_op(path: Path, domain: str = "") -> Path:
    """A model whose only op nobody knows."""
    node = helper.make_node("Frobnicate", ["x"], ["y"], domain=domain)
    return save(path, [node], [tensor("x", [4])], [tensor("y", [4])], domains=[domain] if domain else [])


def future_opset(path: Path, opset: int = 999) -> Path:
    """A model of an opset that is not written yet."""
    node = helper.make_node("Add", ["x", "x"], ["y"])
    return save(path, [node], [tensor("x", [4])], [tensor("y", [4])], opset=opset)


def inconsistent(path: Path) -> Path:
    """A well-formed file with a graph that means nothing: its node reads a tensor nobody makes."""
    node = helper.make_node("Add", ["x", "nowhere"], ["y"])
    return save(path, [node], [tensor("x", [4])], [tensor("y", [4])])


def gather(path: Path, rows: int = 4) -> Path:
    """y = (0, 1, ... rows-1)[index]: fails in the run, not before it, for an index out of range."""
    table = numpy_helper.from_array(np.arange(rows, dtype=np.float32), "table")
    node = helper.make_node("Gather", ["table", "index"], ["y"], axis=0)
    return save(path, [node], [tensor("index", ["n"], np.int64)], [tensor("y", ["n"])], [table])
