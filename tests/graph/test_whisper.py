"""Whisper's graphs, with toy and with real weights: fused to the last op, and equal to ONNX Runtime's answers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hetero.graph import Graph, evaluate, import_onnx
from hetero.graph.cost import costs_by_op
from hetero.graph.memory import plan_arena
from hetero.graph.partition import partition
from hetero.graph.passes import fuse
from hetero.whisper.models import open_model
from hetero.whisper.models.carried import CARRIED
from hetero.whisper.models.graphs import write_cross, write_decoder, write_encoder
from tests.graph.building import Array
from tests.whisper.checkpoints import DIMS, weights

CONTEXT, PAST, TOKENS = DIMS.n_audio_ctx, 3, 2
SIZES: Mapping[str, Mapping[str, int]] = {
    "encoder": {"batch": 2, "frames": 2 * CONTEXT},
    "cross": {"batch": 2, "context": CONTEXT},
    "decoder": {"batch": 2, "n": TOKENS, "m": 1, "past": PAST, "cross_batch": 1, "context": CONTEXT},
}
WRITERS = {"encoder": write_encoder, "cross": write_cross, "decoder": write_decoder}


def reference(path: Path, inputs: Mapping[str, Array]) -> dict[str, Array]:
    ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return dict(zip([output.name for output in session.get_outputs()], session.run(None, dict(inputs)), strict=True))


def inputs_of(graph: Graph) -> dict[str, Array]:
    rng = np.random.default_rng(4)
    made: dict[str, Any] = {}
    for name in graph.inputs:
        kind = graph.types[name]
        whole = kind.dtype.kind == "i"
        made[name] = (
            rng.integers(0, TOKENS, kind.shape) if whole else rng.standard_normal(kind.shape).astype(kind.dtype)
        )
    return made


@pytest.mark.parametrize("part", WRITERS)
@pytest.mark.parametrize("external", [False, True])
def test_every_part_of_a_toy_model_is_what_onnx_runtime_makes_of_it(part: str, external: bool, tmp_path: Path) -> None:
    path = tmp_path / f"{part}.onnx"
    WRITERS[part](path, DIMS, weights().__getitem__, external=external)
    graph = import_onnx(path, SIZES[part])
    graph.verify()
    inputs = inputs_of(graph)
    expected = reference(path, inputs)
    for candidate in (graph, fuse(graph), fuse(graph, merge=2, activations=["Gelu"], residuals=True)):
        candidate.verify()
        got = evaluate(candidate, inputs)
        assert got.keys() == expected.keys()
        for name, array in expected.items():
            np.testing.assert_allclose(got[name], array, rtol=1e-4, atol=1e-4, err_msg=name)


def test_the_decoder_s_masked_attention_is_found(tmp_path: Path) -> None:
    path = tmp_path / "decoder.onnx"
    write_decoder(path, DIMS, weights().__getitem__)
    count = fuse(import_onnx(path, SIZES["decoder"])).count()
    assert count["Attention"] == 2 * DIMS.n_text_layer
    assert "Softmax" not in count


def encoder(name: str) -> tuple[Path, Graph]:
    if CARRIED[name].find() is None:
        pytest.skip(f"the weights of {name} are not installed: {CARRIED[name].install}")
    path = open_model(name).encoder / "encoder.onnx"
    return path, import_onnx(path, {"batch": 1, "frames": 3000})


@pytest.mark.parametrize(("name", "layers"), [("tiny.en", 4), ("base", 6)])
def test_the_real_encoder_is_fused_to_the_last_op_and_answers_as_onnx_runtime_does(
    name: str, layers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    path, graph = encoder(name)
    fused = fuse(graph)
    assert fused.count() == {
        "Linear": 6 * layers,
        "Add": 2 * layers + 1,
        "LayerNormalization": 2 * layers + 1,
        "Gelu": layers + 2,
        "Attention": layers,
        "Conv": 2,
        "Transpose": 1,
    }
    mel = np.random.default_rng(0).standard_normal((1, 80, 3000), dtype=np.float32)
    expected = reference(path, {"mel": mel})["hidden"]
    errors = {}
    for what, candidate in (("as imported", graph), ("fused", fused)):
        got = evaluate(candidate, {"mel": mel})["hidden"]
        errors[what] = float(np.max(np.abs(got - expected)) / np.max(np.abs(expected)))
    with capsys.disabled():
        print(f"\n{name}: error against ONNX Runtime, of the largest value: {errors}")  # noqa: T201
    # Single precision through so many layers; a wrong op is off by far more.
    assert max(errors.values()) < 5e-5


def test_the_real_encoder_in_parts_for_a_device_of_products() -> None:
    _, graph = encoder("tiny.en")
    fused = fuse(graph)
    cut = partition(fused, lambda node: node.op in ("Linear", "Attention") or "no kernel")
    # Of each layer the attention with the products around it, the first and the second of the feed-forward.
    assert [part.device for part in cut.parts].count(True) == 3 * 4
    costs = costs_by_op(fused)
    share = (costs["Linear"].flops + costs["Attention"].flops) / sum(cost.flops for cost in costs.values())
    assert share > 0.9
    assert "4 Linear, 1 Attention" in cut.explain()
    assert plan_arena(fused).size < 0.2 * plan_arena(fused).separate
