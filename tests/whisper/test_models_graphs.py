"""The graphs compute what the paper says, whatever the checkpoint's format, and in whatever steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from hetero.bundle import open_program
from hetero.whisper.models import Dims, WhisperModel, open_model
from hetero.whisper.models.checkpoint import Checkpoint, Tensor
from hetero.whisper.models.model import load_model, write_model
from tests.whisper import checkpoints
from tests.whisper.checkpoints import DIMS
from tests.whisper.reference import Reference

RNG = np.random.default_rng(1)
MEL = RNG.standard_normal((2, DIMS.n_mels, 2 * DIMS.n_audio_ctx), dtype=np.float32)
TOKENS = [3, 17, 0, 39, 8, 8, 21]


class Graphs:
    """The three graphs in ONNX Runtime, one call after another."""

    def __init__(self, model: WhisperModel) -> None:
        ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
        self.dims = model.dims
        self._sessions = {
            part: ort.InferenceSession(str(model.folder / part / f"{part}.onnx"), providers=["CPUExecutionProvider"])
            for part in ("encoder", "cross", "decoder")
        }

    def _run(self, part: str, feed: dict[str, Any]) -> dict[str, NDArray[Any]]:
        session = self._sessions[part]
        return dict(zip([output.name for output in session.get_outputs()], session.run(None, feed), strict=True))

    def encode(self, mel: NDArray[np.float32]) -> NDArray[np.float32]:
        return self._run("encoder", {"mel": mel})["hidden"]

    def cross(self, hidden: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        return self._run("cross", {"hidden": hidden})

    def decode(
        self,
        tokens: NDArray[np.int64],
        at: list[int],
        cross: dict[str, NDArray[np.float32]],
        past: dict[str, NDArray[np.float32]],
    ) -> tuple[NDArray[np.float32], dict[str, NDArray[np.float32]]]:
        feed = {"tokens": tokens, "logits_at": np.array(at, np.int64), **cross, **past}
        outputs = self._run("decoder", feed)
        now = {name: np.concatenate([old, outputs[name.replace("self", "new")]]) for name, old in past.items()}
        return outputs["logits"], now

    def nothing_said(self, batch: int) -> dict[str, NDArray[np.float32]]:
        shape = (0, batch, self.dims.n_text_state)
        return {f"self_{kind}_{i}": np.zeros(shape, np.float32) for i in range(self.dims.n_text_layer) for kind in "kv"}


@pytest.fixture(scope="module")
def weights() -> checkpoints.Weights:
    return checkpoints.weights()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, weights: checkpoints.Weights) -> WhisperModel:
    folder = tmp_path_factory.mktemp("model")
    return open_model(checkpoints.hugging_face(folder / "toy", weights), cache=folder / "cache")


@pytest.fixture(scope="module")
def graphs(model: WhisperModel) -> Graphs:
    return Graphs(model)


@pytest.fixture(scope="module")
def reference(weights: checkpoints.Weights) -> Reference:
    return Reference(DIMS, weights.__getitem__)


def test_the_encoder_is_the_papers(graphs: Graphs, reference: Reference) -> None:
    hidden = graphs.encode(MEL)
    assert hidden.dtype == np.float32
    for row, mel in zip(hidden, MEL, strict=True):
        np.testing.assert_allclose(row, reference.encode(mel), atol=2e-5)


@pytest.mark.parametrize("frames", [1, 2, 7, 2 * DIMS.n_audio_ctx - 1])
def test_shorter_audio_gets_the_first_positions(graphs: Graphs, reference: Reference, frames: int) -> None:
    mel = MEL[:1, :, :frames]
    hidden = graphs.encode(np.ascontiguousarray(mel))
    assert hidden.shape == (1, (frames + 1) // 2, DIMS.n_audio_state)
    np.testing.assert_allclose(hidden[0], reference.encode(mel[0]), atol=2e-5)


def test_all_tokens_at_once_are_scored_as_the_paper_says(graphs: Graphs, reference: Reference) -> None:
    hidden = graphs.encode(MEL)
    tokens = np.array([TOKENS, TOKENS[::-1]], np.int64)
    logits, _ = graphs.decode(tokens, list(range(len(TOKENS))), graphs.cross(hidden), graphs.nothing_said(2))
    assert logits.shape == (2, len(TOKENS), DIMS.n_vocab)
    for row, mel, sequence in zip(logits, MEL, tokens, strict=True):
        np.testing.assert_allclose(row, reference.logits(list(sequence), reference.encode(mel)), atol=1e-4)


@pytest.mark.parametrize("cuts", [[1] * 7, [3, 4], [4, 1, 1, 1], [1, 5, 1]])
def test_the_cache_gives_what_all_at_once_gives(graphs: Graphs, cuts: list[int]) -> None:
    cross = graphs.cross(graphs.encode(MEL))
    tokens = np.array([TOKENS, TOKENS[::-1]], np.int64)
    at_once, _ = graphs.decode(tokens, list(range(len(TOKENS))), cross, graphs.nothing_said(2))
    past, begin = graphs.nothing_said(2), 0
    for count in cuts:
        part = np.ascontiguousarray(tokens[:, begin : begin + count])
        logits, past = graphs.decode(part, list(range(count)), cross, past)
        np.testing.assert_allclose(logits, at_once[:, begin : begin + count], atol=2e-5)
        begin += count


def test_only_the_wanted_places_are_scored(graphs: Graphs) -> None:
    cross, tokens = graphs.cross(graphs.encode(MEL[:1])), np.array([TOKENS], np.int64)
    everything, _ = graphs.decode(tokens, list(range(len(TOKENS))), cross, graphs.nothing_said(1))
    some, _ = graphs.decode(tokens, [5, 1], cross, graphs.nothing_said(1))
    np.testing.assert_allclose(some, everything[:, [5, 1]], atol=1e-5)
    none, _ = graphs.decode(tokens, [], cross, graphs.nothing_said(1))
    assert none.shape == (1, 0, DIMS.n_vocab)


def test_one_window_serves_all_rows(graphs: Graphs) -> None:
    one = graphs.cross(graphs.encode(MEL[:1]))
    each = {name: np.repeat(value, 2, axis=0) for name, value in one.items()}
    tokens = np.array([TOKENS, TOKENS[::-1]], np.int64)
    shared, _ = graphs.decode(tokens, [6], one, graphs.nothing_said(2))
    repeated, _ = graphs.decode(tokens, [6], each, graphs.nothing_said(2))
    np.testing.assert_allclose(shared, repeated, atol=1e-5)


def test_the_bundles_declare_what_the_documentation_says(model: WhisperModel) -> None:
    encoder, cross, decoder = (open_program(part) for part in (model.encoder, model.cross, model.decoder))
    assert [str(spec) for spec in (*encoder.inputs, *encoder.outputs)] == [
        "mel: float32[batch, 4, frames]",
        "hidden: float32[batch, context, 16]",
    ]
    assert [str(spec) for spec in cross.outputs[:2]] == [
        "cross_k_0: float32[batch, 2, 8, context]",
        "cross_v_0: float32[batch, 2, context, 8]",
    ]
    assert [str(spec) for spec in decoder.inputs[:4]] == [
        "tokens: int64[batch, n]",
        "logits_at: int64[m]",
        "self_k_0: float32[past, batch, 16]",
        "self_v_0: float32[past, batch, 16]",
    ]
    assert [str(spec) for spec in decoder.inputs[8:10]] == [
        "cross_k_0: float32[cross_batch, 2, 8, context]",
        "cross_v_0: float32[cross_batch, 2, context, 8]",
    ]
    assert [str(spec) for spec in decoder.outputs[:3]] == [
        "logits: float32[batch, m, 40]",
        "new_k_0: float32[n, batch, 16]",
        "new_v_0: float32[n, batch, 16]",
    ]
    assert len(decoder.inputs) == 2 + 4 * DIMS.n_text_layer
    assert len(decoder.outputs) == 1 + 2 * DIMS.n_text_layer


@pytest.mark.parametrize("part", ["encoder", "cross", "decoder"])
def test_the_graphs_use_the_standards_operators_and_are_valid(model: WhisperModel, part: str) -> None:
    file = onnx.load(model.folder / part / f"{part}.onnx")
    onnx.checker.check_model(file, full_check=True)
    assert [(entry.domain, entry.version) for entry in file.opset_import] == [("", 17)]
    assert {node.domain for node in file.graph.node} == {""}


def test_the_embedding_is_in_the_file_once(model: WhisperModel) -> None:
    file = onnx.load(model.decoder / "decoder.onnx")
    large = [tensor.name for tensor in file.graph.initializer if DIMS.n_vocab in tensor.dims]
    assert large == ["decoder.embed_tokens.weight"]


def checkpoint_of(weights: checkpoints.Weights, dims: Dims = DIMS) -> Checkpoint:
    return Checkpoint(dims, {name: tensor_of(name, values) for name, values in weights.items()})


def tensor_of(name: str, values: NDArray[np.float32]) -> Tensor:
    return Tensor(values.shape, str(values.dtype), name, lambda: values)


def test_a_large_model_keeps_its_weights_beside_the_graphs(
    tmp_path: Path, weights: checkpoints.Weights, graphs: Graphs
) -> None:
    tokenizer = tmp_path / "tokenizer.json"
    checkpoints.tokenizer(tokenizer)
    folder = tmp_path / "large"
    folder.mkdir()
    write_model(folder, checkpoint_of(weights), tokenizer, name="x", origin="y", progress=lambda *_: None, largest=1000)
    large = load_model(folder)
    assert (large.encoder / "encoder.onnx.data").stat().st_size > (large.encoder / "encoder.onnx").stat().st_size
    assert list(open_program(large.decoder).artifacts[0].companions) == ["decoder.onnx.data"]
    for tensor in onnx.load(large.decoder / "decoder.onnx", load_external_data=False).graph.initializer:
        places = {entry.key: entry.value for entry in tensor.external_data}
        # On a page of memory, so that a runtime can map it.
        assert int(places.get("offset", 0)) % 4096 == 0
    hidden = Graphs(large).encode(MEL)
    np.testing.assert_array_equal(hidden, graphs.encode(MEL))
    tokens = np.array([TOKENS, TOKENS], np.int64)
    found, expected = (
        each.decode(tokens, [6], each.cross(hidden), each.nothing_said(2))[0] for each in (Graphs(large), graphs)
    )
    np.testing.assert_array_equal(found, expected)


def test_logits_with_a_matrix_of_their_own(tmp_path: Path, weights: checkpoints.Weights) -> None:
    own = RNG.standard_normal((DIMS.n_vocab, DIMS.n_text_state), dtype=np.float32)
    untied = {**weights, "proj_out.weight": own}
    model = open_model(checkpoints.hugging_face(tmp_path / "untied", untied), cache=tmp_path)
    each = Graphs(model)
    hidden = each.encode(MEL[:1])
    logits, _ = each.decode(np.array([TOKENS], np.int64), [6], each.cross(hidden), each.nothing_said(1))
    reference = Reference(DIMS, weights.__getitem__)
    states = reference.states(TOKENS, reference.encode(MEL[0]))
    np.testing.assert_allclose(logits[0, 0], states[6] @ own.T.astype(np.float64), atol=1e-4)
