"""Models that ONNX Runtime's quantiser makes, wholly on the device: ONNX Runtime's answers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from hetero.backend import Call
from hetero.graph import evaluate, import_onnx
from hetero.graph.ir import Graph
from hetero.graph.passes import fuse
from hetero.tensors import Array
from hetero_vulkan.executable import GraphExecutable
from tests.vulkan import networks

ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
quantization = pytest.importorskip("onnxruntime.quantization", reason="onnxruntime's quantiser needs more packages")

RANDOM = np.random.default_rng(11)

Network = Callable[[Path], Path]


def text() -> dict[str, Array]:
    return {"input_ids": RANDOM.integers(2, 60, (2, 9)), "attention_mask": np.ones((2, 9), np.int64)}


def picture() -> dict[str, Array]:
    return {"image": RANDOM.standard_normal((2, 3, 32, 32), dtype=np.float32)}


NETWORKS: dict[str, tuple[Network, Callable[[], dict[str, Array]]]] = {
    "bert": (networks.bert, text),
    "resnet": (networks.resnet, picture),
}


class _Samples(quantization.CalibrationDataReader):  # type: ignore[misc,name-defined]
    """What a static quantiser is shown."""

    def __init__(self, samples: list[dict[str, Array]]) -> None:
        self._left = iter(samples)

    def get_next(self) -> dict[str, Array] | None:
        return next(self._left, None)


def quantise(source: Path, target: Path, how: str, make: Callable[[], dict[str, Array]]) -> Path:
    """The model quantised as `how` says: `dynamic`, or `qdq`, whose ranges come of samples."""
    logging.getLogger().setLevel(logging.ERROR)
    form, _, kind = how.partition(" ")
    weights = quantization.QuantType.QUInt8 if kind == "unsigned" else quantization.QuantType.QInt8
    if form == "dynamic":
        quantization.quantize_dynamic(source, target, weight_type=weights, per_channel=kind == "channels")
    else:
        quantization.quantize_static(
            source,
            target,
            _Samples([make() for _ in range(4)]),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=kind == "channels",
            weight_type=weights,
            activation_type=quantization.QuantType.QUInt8,
        )
    return target


def graph_of(path: Path, inputs: Mapping[str, Array]) -> Graph:
    return fuse(import_onnx(path, {name: array.shape for name, array in inputs.items()}), int8=True)


CASES = [
    ("bert", "dynamic"),
    ("bert", "qdq channels"),
    ("resnet", "dynamic unsigned"),
    ("resnet", "qdq"),
]

STEPS = 0.03
"""Of the largest value: a number near the middle between two integers may be rounded to the other one."""


@pytest.mark.parametrize(("name", "how"), CASES)
def test_a_quantised_network_runs_wholly_on_the_device(
    load: Callable[..., GraphExecutable], tmp_path: Path, name: str, how: str
) -> None:
    make, sample = NETWORKS[name]
    path = quantise(make(tmp_path / "model.onnx"), tmp_path / "quantised.onnx", how, sample)
    options = ort.SessionOptions()
    # Without them QDQ stays what it says: products of floats that were rounded to integers.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    inputs = sample()
    executable = load(path, inputs)
    # What the device does not do is refused (partition=forbid), so that nothing ran on the host.
    assert "100.0% of the operations" in executable.details["on the device"]
    # Matrices are int8 there as in the model; those of uint8 need not fit, and kernels of convolutions are floats.
    assert ("int8" in executable.details["weights"]) == ("unsigned" not in how)
    answers, expected = executable.run(inputs, Call(0)), session.run(None, inputs)
    for output, array in zip(session.get_outputs(), expected, strict=True):
        error = float(np.abs(answers[output.name] - array).max() / np.abs(array).max())
        typical = float(np.median(np.abs(answers[output.name] - array)) / np.abs(array).max())
        print(f"{name} {how} {output.name}: {error:.2g} at most, {typical:.2g} typically")  # noqa: T201
        assert error < STEPS
        assert typical < STEPS / 10
    # Other runtimes put operators together, and then round to other integers: single numbers say nothing.
    assert executable.min_cosine == 0.99


def test_integers_in_between_become_fakes_and_products_of_floats(tmp_path: Path) -> None:
    path = quantise(networks.bert(tmp_path / "model.onnx"), tmp_path / "quantised.onnx", "dynamic", text)
    inputs = text()
    count = graph_of(path, inputs).count()
    assert "MatMulInteger" not in count
    assert "QuantizeLinear" not in count
    assert count["Linear"] == 13
    assert count["Attention"] == 2


@pytest.mark.parametrize("how", ["dynamic", "dynamic unsigned", "qdq channels"])
def test_fused_or_not_the_graph_gives_the_same(tmp_path: Path, how: str) -> None:
    path = quantise(networks.resnet(tmp_path / "model.onnx"), tmp_path / "quantised.onnx", how, picture)
    inputs = picture()
    plain = import_onnx(path, {name: array.shape for name, array in inputs.items()})
    expected = evaluate(plain, inputs)["logits"]
    for int8 in (False, True):
        graph = fuse(plain, int8=int8)
        graph.verify()
        close = np.abs(evaluate(graph, inputs)["logits"] - expected).max() / np.abs(expected).max()
        assert close < STEPS
