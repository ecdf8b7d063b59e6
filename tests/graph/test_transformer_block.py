"""A transformer block as exporters write it before opset 17, from the file to the fused graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hetero.graph import evaluate, fuse, import_onnx
from hetero.whisper.models.onnx_writer import OnnxWriter
from tests.graph.building import Array, weights

WIDTH, HEADS = 16, 4


def layer_norm(graph: OnnxWriter, x: str, name: str) -> str:
    mean = graph.op("ReduceMean", x, axes=[-1])
    # The difference is written twice, as PyTorch does where it did not see that the two are one.
    centred, again = graph.op("Sub", x, mean), graph.op("Sub", x, mean)
    variance = graph.op(
        "ReduceMean", graph.op("Pow", again, graph.weight(f"{name}.two", np.array(2, np.float32))), axes=[-1]
    )
    epsilon = graph.weight(f"{name}.epsilon", np.array(1e-5, np.float32))
    y = graph.op("Div", centred, graph.op("Sqrt", graph.op("Add", variance, epsilon)))
    y = graph.op("Mul", y, graph.weight(f"{name}.scale", weights(WIDTH, seed=5)))
    return graph.op("Add", y, graph.weight(f"{name}.bias", weights(WIDTH, seed=6)))


def linear(graph: OnnxWriter, x: str, name: str, size: int = WIDTH, width: int = WIDTH) -> str:
    # The weight stands as [out, in] and is turned round in the graph.
    matrix = graph.weight(f"{name}.weight", weights(size, width, seed=sum(map(ord, name))) / np.float32(width**0.5))
    y = graph.op("MatMul", x, graph.op("Transpose", matrix, perm=[1, 0]))
    return graph.op("Add", graph.weight(f"{name}.bias", weights(size, seed=8)), y)


def shape_of(graph: OnnxWriter, x: str, *rest: int) -> str:
    """[batch, length, *rest] as an exporter that traced the model computes it."""
    sizes = [graph.op("Gather", graph.op("Shape", x), graph.shape(place)) for place in (0, 1)]
    return graph.op("Concat", *sizes, graph.shape(*rest), axis=0)


def attention(graph: OnnxWriter, x: str, mask: str) -> str:
    q, k, v = (linear(graph, x, name) for name in ("query", "key", "value"))
    split = shape_of(graph, x, HEADS, WIDTH // HEADS)
    heads = [graph.op("Reshape", y, split) for y in (q, k, v)]
    turns = ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
    q, k, v = (graph.op("Transpose", y, perm=perm) for y, perm in zip(heads, turns, strict=True))
    scores = graph.op("Div", graph.op("MatMul", q, k), graph.weight("root", np.array(2.0, np.float32)))
    y = graph.op("MatMul", graph.op("Softmax", graph.op("Add", scores, mask), axis=-1), v)
    y = graph.op("Reshape", graph.op("Transpose", y, perm=[0, 2, 1, 3]), shape_of(graph, x, WIDTH))
    return linear(graph, y, "out")


def tanh_gelu(graph: OnnxWriter, x: str) -> str:
    half, one, cubic, root, three = (
        graph.weight(f"gelu/{value}", np.array(value, np.float32)) for value in (0.5, 1.0, 0.044715, 0.7978846, 3.0)
    )
    inner = graph.op("Mul", graph.op("Add", x, graph.op("Mul", graph.op("Pow", x, three), cubic)), root)
    return graph.op("Mul", graph.op("Mul", x, half), graph.op("Add", graph.op("Tanh", inner), one))


@pytest.fixture
def block(tmp_path: Path) -> Path:
    path = tmp_path / "block.onnx"
    with OnnxWriter(path, "block") as graph:
        x = graph.input("x", np.float32, ("batch", "length", WIDTH))
        mask = graph.input("mask", np.float32, ("batch", 1, 1, "length"))
        x = graph.op("Add", x, attention(graph, layer_norm(graph, x, "first"), mask))
        y = linear(graph, layer_norm(graph, x, "second"), "up", 4 * WIDTH)
        x = graph.op("Add", x, linear(graph, tanh_gelu(graph, y), "down", width=4 * WIDTH))
        graph.output(x, "y", np.float32, ("batch", "length", WIDTH))
    return path


def given(batch: int, length: int) -> dict[str, Array]:
    mask = np.zeros((batch, 1, 1, length), np.float32)
    mask[..., length // 2 :] = -1e4
    return {"x": weights(batch, length, WIDTH, seed=9), "mask": mask}


def test_the_whole_block_is_fused(block: Path) -> None:
    graph = fuse(import_onnx(block, {"batch": 2, "length": 6}))
    assert graph.count() == {"Linear": 6, "LayerNormalization": 2, "Add": 2, "Attention": 1, "Gelu": 1}
    attention = next(node for node in graph.nodes if node.op == "Attention")
    assert attention.attributes == {"heads": HEADS, "scale": 0.5}
    assert attention.inputs[3] == "mask"


@pytest.mark.parametrize(("batch", "length"), [(1, 1), (2, 6), (3, 65)])
def test_it_answers_as_onnx_runtime_does(block: Path, batch: int, length: int) -> None:
    ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    inputs = given(batch, length)
    session = ort.InferenceSession(str(block), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, inputs)
    imported = import_onnx(block, {name: array.shape for name, array in inputs.items()})
    everything = fuse(imported, merge=3, activations=["Gelu"], residuals=True)
    for graph in (imported, fuse(imported), everything):
        graph.verify()
        np.testing.assert_allclose(evaluate(graph, inputs)["y"], expected, rtol=1e-4, atol=1e-4)
    assert everything.count() == {"Linear": 4, "Slice": 3, "LayerNormalization": 2, "Attention": 1}
