"""Networks as exporters write them, wholly on the device: ONNX Runtime's answers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hetero.backend import Call
from hetero.errors import InputError
from hetero.tensors import Array
from hetero_vulkan.executable import GraphExecutable
from tests.vulkan import networks

ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

TOLERANCE = 1e-5
"""Of the largest value of each output."""

RANDOM = np.random.default_rng(7)


def text(batch: int, length: int) -> dict[str, Array]:
    """Sentences; all but the first are shorter, and padded with 1."""
    ids = RANDOM.integers(2, 60, (batch, length))
    mask = np.ones((batch, length), np.int64)
    for row in range(1, batch):
        ids[row, length - row :], mask[row, length - row :] = 1, 0
    return {"input_ids": ids, "attention_mask": mask}


def step(past: int, batch: int = 1) -> dict[str, Array]:
    """What a decoder is given after so many tokens."""
    memory = {name: normal(batch, 4, past, 8) for name in ("past_k", "past_v")}
    cross = {name: normal(batch, 4, 15, 8) for name in ("cross_k", "cross_v")}
    return {"token": np.full((batch, 1), 9), "place": np.full((batch, 1), past), **memory, **cross}


def normal(*shape: int) -> Array:
    return RANDOM.standard_normal(shape, dtype=np.float32)


CASES: dict[str, tuple[Callable[[Path], Path], list[dict[str, Array]]]] = {
    "bert": (networks.bert, [text(1, 7), text(3, 12)]),
    "bert fused": (functools.partial(networks.bert, fused=True), [text(2, 9)]),
    "roberta": (functools.partial(networks.bert, roberta=True), [text(1, 7), text(3, 12)]),
    "decoder": (networks.decoder, [step(1), step(4, 2)]),
    "resnet": (networks.resnet, [{"image": normal(2, 3, 32, 32)}]),
    "mobilenet": (networks.mobilenet, [{"image": normal(2, 30, 22, 3)}]),
    "audio": (networks.audio, [{"signal": normal(1, 400)}, {"signal": normal(2, 333)}]),
}


@pytest.mark.parametrize("name", CASES)
def test_an_exported_network_runs_wholly_on_the_device(
    load: Callable[..., GraphExecutable], tmp_path: Path, name: str
) -> None:
    make, given = CASES[name]
    path = make(tmp_path / "model.onnx")
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    executable = load(path, given[0])
    # What the device does not do is refused (partition=forbid), so that nothing ran on the host.
    assert "100.0% of the operations" in executable.details["on the device"]
    assert "on the host" not in executable.details
    for inputs in given:
        answers = executable.run(inputs, Call(0))
        expected = session.run(None, inputs)
        for output, array in zip(session.get_outputs(), expected, strict=True):
            compare(output.name, answers[output.name], array)


def compare(name: str, answer: Array, expected: Array) -> None:
    assert answer.shape == expected.shape
    assert answer.dtype == expected.dtype
    if expected.dtype.kind == "i":
        np.testing.assert_array_equal(answer, expected, err_msg=name)
    else:
        most = float(np.abs(expected).max())
        np.testing.assert_allclose(answer, expected, rtol=0, atol=TOLERANCE * most, err_msg=name)


def test_a_place_that_the_model_computes_and_that_is_not_there_is_the_caller_s_error(
    load: Callable[..., GraphExecutable], tmp_path: Path
) -> None:
    path = networks.decoder(tmp_path / "model.onnx")
    inputs = step(3)
    executable = load(path, inputs)
    right = executable.run(inputs, Call(0))["logits"].copy()
    for place in (20, -21, 1 << 32, -(1 << 40)):
        wrong: dict[str, Any] = {**inputs, "place": np.full((1, 1), place)}
        with pytest.raises(InputError, match=rf"index {place}, which the model computed, but .* 20 elements"):
            executable.run(wrong, Call(0))
    # From the end is allowed, and what was wrong before is forgotten.
    executable.run({**inputs, "place": np.full((1, 1), -20)}, Call(0))
    np.testing.assert_array_equal(executable.run(inputs, Call(0))["logits"], right)
