"""Models that torch exported (`tests/data/exported`): wholly on the device, fused, ONNX Runtime's answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from hetero import Runtime
from hetero.backend import Call
from hetero.cli.root import cli
from hetero.graph import fuse, import_onnx
from hetero.onnx_file import open_onnx
from hetero.tensors import Array
from hetero_vulkan.choosing import VARIABLE
from hetero_vulkan.executable import GraphExecutable
from tests.vulkan.machine import WHICH

ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

FOLDER = Path(__file__).parents[1] / "data" / "exported"
TOLERANCE = 1e-5
"""Of the largest value of each output."""


TEXT = [{"batch": 1, "length": 5}, {"batch": 3, "length": 12}]
IMAGES = [{"batch": 1}, {"batch": 3}]
SIGNALS = [{"batch": 1, "samples": 700}, {"batch": 2, "samples": 900}]

ENCODER = {"Attention": 2, "LayerNormalization": 5, "Gelu": 2, "MatMul": 0, "Softmax": 0, "Erf": 0}
"""What two layers are fused into; an op that must be gone has 0."""

#: By model: sizes to run it with, and how many of these ops are left after fusion.
CASES: dict[str, tuple[list[dict[str, int]], dict[str, int]]] = {
    "ts-bert-opset11": (TEXT, {**ENCODER, "Linear": 13}),
    "ts-bert": (TEXT, {**ENCODER, "Linear": 13, "Transpose": 0}),
    "ts-distilbert": (TEXT, {**ENCODER, "Linear": 14, "Where": 1, "Transpose": 0}),
    "ts-roberta": (TEXT, {**ENCODER, "Linear": 13, "Transpose": 0}),
    "ts-electra": (TEXT, {**ENCODER, "Linear": 13, "Transpose": 0}),
    "ts-gpt2": (TEXT, {**ENCODER, "Linear": 9, "Tanh": 0, "Transpose": 0}),
    "dynamo-bert": (TEXT, {**ENCODER, "Linear": 13, "Transpose": 0}),
    "ts-vit": (IMAGES, {**ENCODER, "Conv": 1, "Linear": 12, "Transpose": 1}),
    "ts-wav2vec2": (SIGNALS, {**ENCODER, "LayerNormalization": 9, "Gelu": 6, "Conv": 4, "Linear": 14}),
    "ts-whisper-encoder": (IMAGES, {**ENCODER, "Gelu": 4, "Conv": 2, "Linear": 12, "Transpose": 1, "Reshape": 0}),
    "ts-convnext": (IMAGES, {"Conv": 4, "LayerNormalization": 3, "Gelu": 2, "Linear": 5}),
    "ts-resnet": (IMAGES, {"Conv": 8, "BatchNormalization": 0, "Linear": 1}),
    "dynamo-resnet": (IMAGES, {"Conv": 8, "BatchNormalization": 0, "Linear": 1}),
    "ts-mobilenet-v3": (IMAGES, {"Conv": 19, "BatchNormalization": 0, "Linear": 2}),
    "ts-shufflenet": (IMAGES, {"Conv": 26, "BatchNormalization": 0, "Linear": 1}),
    "ts-densenet": (IMAGES, {"Conv": 10, "BatchNormalization": 6, "Linear": 1}),
}


def path_of(name: str) -> Path:
    return FOLDER / f"{name}.onnx"


def inputs_of(path: Path, sizes: Mapping[str, int]) -> dict[str, Array]:
    """Random words, images and signals; all texts but the first are shorter, and padded."""
    random = np.random.default_rng(3)
    inputs: dict[str, Array] = {}
    for spec in open_onnx(path).inputs:
        shape = tuple(sizes[dim] if isinstance(dim, str) else int(dim or 0) for dim in spec.shape or ())
        if spec.name == "input_ids":
            inputs[spec.name] = random.integers(3, 60, shape)
        elif spec.name == "attention_mask":
            inputs[spec.name] = (np.arange(shape[1]) < shape[1] - np.arange(shape[0])[:, np.newaxis]).astype(np.int64)
        else:
            inputs[spec.name] = random.standard_normal(shape, dtype=np.float32)
    return inputs


def compare(answers: Mapping[str, Array], path: Path, inputs: Mapping[str, Array]) -> None:
    """With ONNX Runtime's."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for output, expected in zip(session.get_outputs(), session.run(None, dict(inputs)), strict=True):
        answer, most = answers[output.name], float(np.abs(expected).max())
        assert answer.dtype == expected.dtype
        np.testing.assert_allclose(answer, expected, rtol=0, atol=TOLERANCE * most, err_msg=output.name)


def test_every_model_of_the_folder_is_tried() -> None:
    assert {path.stem for path in FOLDER.glob("*.onnx")} == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_fusion_finds_what_the_exporter_took_apart(name: str) -> None:
    sizes, expected = CASES[name]
    graph = fuse(import_onnx(path_of(name), sizes[-1]))
    found = Counter(node.op for node in graph.nodes)
    assert {op: found[op] for op in expected} == expected


@pytest.mark.parametrize("name", CASES)
def test_an_exported_model_runs_wholly_on_the_device(load: Callable[..., GraphExecutable], name: str) -> None:
    path, (every, _) = path_of(name), CASES[name]
    executable = load(path, inputs_of(path, every[0]))
    assert "100.0% of the operations" in executable.details["on the device"]
    assert "on the host" not in executable.details
    for sizes in every:
        inputs = inputs_of(path, sizes)
        compare(executable.run(inputs, Call(0)), path, inputs)


@pytest.mark.parametrize("name", CASES)
def test_an_exported_model_runs_on_the_cpu(name: str) -> None:
    path, (every, _) = path_of(name), CASES[name]
    with Runtime() as runtime:
        session = runtime.load(path, device="cpu")
        for sizes in every:
            inputs = inputs_of(path, sizes)
            compare(session.run(inputs).outputs, path, inputs)


@pytest.mark.parametrize("name", ["ts-bert", "ts-mobilenet-v3", "ts-wav2vec2"])
def test_the_command_line_runs_an_exported_model(validated: bool, tmp_path: Path, name: str) -> None:
    path, sizes = path_of(name), CASES[name][0][0]
    inputs = inputs_of(path, sizes)
    arguments = ["run", str(path), "--device", "vulkan", "--output-dir", str(tmp_path)]
    for given, array in inputs.items():
        np.save(tmp_path / f"given-{given}.npy", array)
        arguments += ["--input", f"{given}={tmp_path / f'given-{given}.npy'}"]
    result = CliRunner().invoke(cli, arguments, env={VARIABLE: WHICH})
    assert result.exit_code == 0, result.output
    outputs = open_onnx(path).outputs
    compare({spec.name: np.load(tmp_path / f"{spec.name}.npy") for spec in outputs}, path, inputs)
