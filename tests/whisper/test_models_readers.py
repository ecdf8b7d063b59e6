"""Every format gives the same model, and a file that is not what it should be is refused with what is wrong with it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from hetero.errors import ModelError
from hetero.whisper.models import WhisperModel, open_model
from hetero.whisper.models.files import Joined
from hetero.whisper.models.formats import find_model
from tests.whisper import checkpoints
from tests.whisper.checkpoints import DIMS, EMBEDDING, SUPPRESS, SUPPRESS_FIRST, Weights

Write = Callable[[Path, Weights], Path]

FORMATS: dict[str, Write] = {
    "safetensors": checkpoints.hugging_face,
    "safetensors in half precision": lambda folder, weights: checkpoints.hugging_face(folder, weights, dtype="F16"),
    "safetensors in pieces": lambda folder, weights: checkpoints.hugging_face(folder, weights, pieces=3),
    "ctranslate2": checkpoints.ctranslate2,
    "ctranslate2 in half precision": lambda folder, weights: checkpoints.ctranslate2(folder, weights, dtype=np.float16),
    "onnx": checkpoints.onnx_export,
    "onnx, the decoder merged": lambda folder, weights: checkpoints.onnx_export(folder, weights, merged=True),
    "onnx in a subfolder": lambda folder, weights: checkpoints.onnx_export(folder, weights, subfolder="onnx"),
}


def contents(model: WhisperModel) -> dict[str, bytes]:
    return {part: (model.folder / part / f"{part}.onnx").read_bytes() for part in ("encoder", "cross", "decoder")}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("expected")
    return contents(open_model(checkpoints.hugging_face(folder / "toy", checkpoints.weights()), cache=folder))


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_graphs(tmp_path: Path, expected: dict[str, bytes], name: str) -> None:
    model = open_model(FORMATS[name](tmp_path / "toy", checkpoints.weights()), cache=tmp_path / "cache")
    assert contents(model) == expected
    assert (model.dims, model.suppress, model.suppress_first) == (DIMS, SUPPRESS, SUPPRESS_FIRST)
    assert json.loads(model.tokenizer.read_text())["added_tokens"][0]["id"] == DIMS.n_vocab - 1


def test_bfloat16_is_read_to_the_bit(tmp_path: Path, expected: dict[str, bytes]) -> None:
    weights = checkpoints.weights()
    upper = {
        name: (np.ascontiguousarray(values).view(np.uint32) & 0xFFFF0000).view(np.float32)
        for name, values in weights.items()
    }
    exact = open_model(checkpoints.hugging_face(tmp_path / "exact", upper), cache=tmp_path / "cache")
    model = open_model(checkpoints.hugging_face(tmp_path / "toy", weights, dtype="BF16"), cache=tmp_path / "cache")
    assert contents(model) == contents(exact) != expected
    variables = checkpoints.ctranslate2_variables(weights)
    for name, values in variables.items():
        if values.dtype == np.float32:
            variables[name] = ("bfloat16", (values.view(np.uint32) >> 16).astype(np.uint16))
    folder = checkpoints.ctranslate2(tmp_path / "ct2", weights)
    checkpoints.ctranslate2_file(folder / "model.bin", variables)
    assert contents(open_model(folder, cache=tmp_path / "cache")) == contents(exact)


def test_int8_of_ctranslate2_is_multiplied_out(tmp_path: Path) -> None:
    weights = checkpoints.weights()
    variables = checkpoints.ctranslate2_variables(weights)
    rounded = dict(variables)
    for name, values in list(variables.items()):
        if values.ndim >= 2 and "position" not in name:
            rows = values.reshape(len(values), -1)
            scale = 127 / np.abs(rows).max(axis=1)
            whole = np.round(rows * scale[:, None]).astype(np.int8)
            variables[name], variables[f"{name}_scale"] = whole.reshape(values.shape), scale
            rounded[name] = (whole / scale[:, None]).astype(np.float32).reshape(values.shape)
    folders = [checkpoints.ctranslate2(tmp_path / name, weights) for name in ("int8", "rounded")]
    for folder, content in zip(folders, (variables, rounded), strict=True):
        checkpoints.ctranslate2_file(folder / "model.bin", content)
    first, second = (contents(open_model(folder, cache=tmp_path / "cache")) for folder in folders)
    assert first == second


def test_a_projection_that_copies_the_embedding_is_left(tmp_path: Path, expected: dict[str, bytes]) -> None:
    weights = checkpoints.weights()
    folder = checkpoints.hugging_face(tmp_path / "toy", {**weights, "proj_out.weight": weights[EMBEDDING]})
    assert contents(open_model(folder, cache=tmp_path / "cache")) == expected


def test_suppressed_tokens_may_stand_in_an_older_config(tmp_path: Path) -> None:
    folder = checkpoints.hugging_face(tmp_path / "toy", checkpoints.weights())
    (folder / "generation_config.json").unlink()
    checkpoints.hugging_face_config(folder, suppress_tokens=[2, -1], begin_suppress_tokens=[4])
    (folder / "generation_config.json").write_text("{}")
    model = open_model(folder, cache=tmp_path / "cache")
    assert (model.suppress, model.suppress_first) == ((2,), (4,))


def refused(folder: Path, *parts: str) -> None:
    """The folder is refused with all of these in the message, and nothing is left in the cache."""
    cache = folder.parent / "cache"
    with pytest.raises(ModelError) as caught:
        open_model(folder, cache=cache)
    for part in parts:
        assert part in str(caught.value)
    left = [path for path in cache.rglob("*") if path.is_file() and path.parent.name != "sums"]
    assert left == []


@pytest.mark.parametrize("name", ["safetensors", "ctranslate2", "onnx"])
def test_a_tensor_of_another_shape_is_refused_by_name(tmp_path: Path, name: str) -> None:
    weights = checkpoints.weights()
    weights["decoder.layers.1.fc1.bias"] = weights["decoder.layers.1.fc1.bias"][:-1]
    folder = FORMATS[name](tmp_path / "toy", weights)
    refused(folder, "'decoder.layers.1.fc1.bias'", "has shape [63], expected [64]")


@pytest.mark.parametrize("name", ["safetensors", "onnx"])
def test_a_missing_tensor_is_refused_by_name(tmp_path: Path, name: str) -> None:
    weights = checkpoints.weights()
    del weights["decoder.layers.2.encoder_attn.v_proj.weight"]
    folder = FORMATS[name](tmp_path / "toy", weights)
    refused(folder, "'decoder.layers.2.encoder_attn.v_proj.weight' of shape [16, 16] is missing; found")


def test_a_missing_variable_of_ctranslate2_is_refused_by_name(tmp_path: Path) -> None:
    variables = checkpoints.ctranslate2_variables(checkpoints.weights())
    folder = checkpoints.ctranslate2(tmp_path / "toy", checkpoints.weights())
    for name in ("decoder/layer_2/ffn/linear_0/weight", "decoder/embeddings/weight"):
        checkpoints.ctranslate2_file(folder / "model.bin", {key: variables[key] for key in variables if key != name})
        refused(folder, "decoder.layers.2.fc1.weight" if "ffn" in name else name, "missing")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    weights = checkpoints.weights()
    weights["encoder.layers.0.fc2.weight"][3, 5] = value
    refused(checkpoints.hugging_face(tmp_path / "toy", weights), "encoder.layers.0.fc2.weight", "not finite")


def test_sizes_that_the_weights_do_not_have_are_refused(tmp_path: Path) -> None:
    folder = checkpoints.hugging_face(tmp_path / "toy", checkpoints.weights())
    checkpoints.hugging_face_config(folder, encoder_layers=3)
    refused(folder, "encoder.layers.2.self_attn.q_proj.weight", "is missing")
    checkpoints.hugging_face_config(folder, vocab_size=50)
    refused(folder, "'decoder.embed_tokens.weight'", "has shape [40, 16], expected [50, 16]")


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"model_type": "bert"}, ["model_type is 'bert', expected 'whisper'"]),
        ({"model_type": None}, ["model_type is None"]),
        ({"activation_function": "relu"}, ["activation_function is 'relu', expected 'gelu'"]),
        ({"scale_embedding": True}, ["scale_embedding is True"]),
        ({"d_model": None}, ["has no 'd_model'"]),
        ({"d_model": "16"}, ["n_audio_state is '16', expected a whole number"]),
        ({"encoder_layers": 0}, ["n_audio_layer is 0"]),
        ({"encoder_attention_heads": 3}, ["a width of 16 cannot be divided among 3 attention heads"]),
    ],
)
def test_a_configuration_of_something_else_is_refused(
    tmp_path: Path, changes: dict[str, Any], parts: list[str]
) -> None:
    folder = checkpoints.hugging_face(tmp_path / "toy", checkpoints.weights())
    checkpoints.hugging_face_config(folder, **changes)
    refused(folder, *parts)


@pytest.mark.parametrize(
    ("generation", "message"),
    [
        ({"suppress_tokens": "all"}, "suppress_tokens is 'all', expected a list of tokens"),
        ({"suppress_tokens": [1, 40]}, "the suppressed token 40 is outside the vocabulary of 40"),
        ({"begin_suppress_tokens": [-3]}, "the suppressed at first token -3 is outside"),
    ],
)
def test_suppressed_tokens_that_cannot_be_are_refused(tmp_path: Path, generation: dict[str, Any], message: str) -> None:
    folder = checkpoints.hugging_face(tmp_path / "toy", checkpoints.weights())
    (folder / "generation_config.json").write_text(json.dumps(generation))
    refused(folder, message)


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    folder = checkpoints.hugging_face(tmp_path / "toy", checkpoints.weights())
    checkpoints.tokenizer(folder / "tokenizer.json", DIMS.n_vocab + 1)
    refused(folder, "has tokens up to 40, but the model knows 40", "do not belong together")
    (folder / "tokenizer.json").write_text('{"version": "1.0"}')
    refused(folder, "has no vocabulary")
    (folder / "tokenizer.json").write_text('{"version"')
    refused(folder, "tokenizer.json is not valid JSON")


FILES = [
    *(("safetensors", f"model.safetensors@{at}") for at in (0, 7, 1000, -1)),
    *(("ctranslate2", f"model.bin@{at}") for at in (0, 3, 17, 1000, -700)),
    *(("onnx", f"{part}_model.onnx@{at}") for part in ("encoder", "decoder") for at in (0, 40, -1)),
]


@pytest.mark.parametrize(("name", "cut"), FILES)
def test_a_truncated_file_is_refused(tmp_path: Path, name: str, cut: str) -> None:
    folder = FORMATS[name](tmp_path / "toy", checkpoints.weights())
    file, _, at = cut.partition("@")
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content[: int(at)])
    refused(folder, file)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("safetensors", "model.safetensors"),
        ("safetensors", "config.json"),
        ("safetensors in pieces", "model.safetensors.index.json"),
        ("ctranslate2", "model.bin"),
        ("onnx", "decoder_model.onnx"),
    ],
)
def test_a_damaged_file_is_refused_or_makes_no_difference(tmp_path: Path, name: str, file: str) -> None:
    folder = FORMATS[name](tmp_path / "toy", checkpoints.weights())
    content = (folder / file).read_bytes()
    rng = random.Random(f"{name} {file}")
    refusals = 0
    for _ in range(150):
        damaged = bytearray(content)
        for _ in range(rng.choice([1, 3])):
            damaged[rng.randrange(min(len(damaged), 3000))] = rng.randrange(256)
        (folder / file).write_bytes(damaged)
        try:
            checkpoint = find_model(folder).read()
            checkpoint.check()
            for tensor, shape in checkpoint.dims.tensors():
                assert checkpoint.tensors[tensor].float32().shape == shape
        except ModelError:
            refusals += 1
    assert refusals > 10


@pytest.mark.parametrize("name", ["safetensors", "ctranslate2", "onnx"])
def test_a_foreign_file_is_refused(tmp_path: Path, name: str) -> None:
    folder = FORMATS[name](tmp_path / "toy", checkpoints.weights())
    (file,) = folder.glob(
        "model.safetensors" if name == "safetensors" else "model.bin" if name == "ctranslate2" else "decoder_model.onnx"
    )
    file.write_bytes(b"<!DOCTYPE html><title>404 Not Found</title>" * 40)
    refused(folder, file.name)


def test_weights_that_are_no_floats_are_refused(tmp_path: Path) -> None:
    folder = checkpoints.hugging_face(tmp_path / "toy", checkpoints.weights())
    checkpoints.safetensors_file(folder / "model.safetensors", {"a": np.zeros(2)}, "I32")
    refused(folder, "'a' is I32, expected one of F32")


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"version": 5}, ["binary format 5, expected 6", "ct2-transformers-converter"]),
        ({"spec": "TransformerSpec"}, ["is a 'TransformerSpec' of revision 3, expected 'WhisperSpec'"]),
    ],
)
def test_another_kind_of_ctranslate2_model_is_refused(tmp_path: Path, change: dict[str, Any], parts: list[str]) -> None:
    folder = checkpoints.ctranslate2(tmp_path / "toy", checkpoints.weights())
    variables = checkpoints.ctranslate2_variables(checkpoints.weights())
    checkpoints.ctranslate2_file(folder / "model.bin", variables, **change)
    refused(folder, *parts)


def test_int16_and_other_activations_of_ctranslate2_are_refused(tmp_path: Path) -> None:
    folder = checkpoints.ctranslate2(tmp_path / "toy", checkpoints.weights())
    variables = checkpoints.ctranslate2_variables(checkpoints.weights())
    name = "encoder/layer_0/ffn/linear_0/weight"
    checkpoints.ctranslate2_file(folder / "model.bin", {**variables, name: variables[name].astype(np.int16)})
    refused(folder, f"{name} is int16, expected one of float32, float16, bfloat16, int8")
    checkpoints.ctranslate2_file(folder / "model.bin", {**variables, "encoder/activation": np.array(0, np.int8)})
    refused(folder, "encoder/activation is 0, expected 3")


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (helper.make_node("DequantizeLinear", ["a", "b"], ["c"]), "is quantised (DequantizeLinear)"),
        (
            helper.make_node("Attention", ["a"], ["c"], domain="com.microsoft"),
            "the fused operator com.microsoft.Attention",
        ),
    ],
)
def test_quantised_and_fused_exports_are_refused(tmp_path: Path, node: Any, message: str) -> None:
    refused(
        checkpoints.onnx_export(tmp_path / "toy", checkpoints.weights(), extra=node), message, "optimum-cli export onnx"
    )


def test_shards_outside_the_folder_are_refused(tmp_path: Path) -> None:
    folder = checkpoints.hugging_face(tmp_path / "toy", checkpoints.weights(), pieces=2)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../../secret.safetensors"}}))
    refused(folder, "'../../secret.safetensors', expected a file beside it")
    index.write_text(json.dumps({"weight_map": {"a": "model-00003-of-00003.safetensors"}}))
    refused(folder, "model-00003-of-00003.safetensors (weights) is not there")


@pytest.mark.parametrize("name", ["safetensors", "ctranslate2", "onnx"])
@pytest.mark.parametrize("file", ["config.json", "tokenizer.json"])
def test_a_missing_file_of_a_known_format_is_named(tmp_path: Path, name: str, file: str) -> None:
    folder = FORMATS[name](tmp_path / "toy", checkpoints.weights())
    (folder / file).unlink()
    refused(folder, "looks like a", f"but {file}", "is not there")


def test_a_folder_without_a_model_tells_what_each_format_would_need(tmp_path: Path) -> None:
    folder = tmp_path / "toy"
    folder.mkdir()
    refused(
        folder,
        "Hugging Face: config.json, model.safetensors, tokenizer.json not there",
        "CTranslate2: ",
        "optimum's ONNX: ",
        "hetero's own: ",
        "the folder is empty",
    )
    (folder / "config.json").write_text("{}")
    refused(folder, "Hugging Face: model.safetensors, tokenizer.json not there")


@pytest.mark.parametrize(
    ("file", "hint"),
    [
        ("pytorch_model.bin", "safe_serialization=True"),
        ("tiny.pt", "OpenAI's .pt files"),
        ("ggml-tiny.bin", "ggml files are not read"),
    ],
)
def test_formats_that_are_not_read_are_named(tmp_path: Path, file: str, hint: str) -> None:
    folder = tmp_path / "toy"
    folder.mkdir()
    (folder / file).touch()
    refused(folder, hint)


def test_pieces_are_read_as_one(tmp_path: Path) -> None:
    whole = bytes(range(50))
    parts = [tmp_path / str(i) for i in range(4)]
    for part, (begin, end) in zip(parts, [(0, 10), (10, 10), (10, 31), (31, 50)], strict=True):
        part.write_bytes(whole[begin:end])
    joined = Joined(parts)
    for at in range(51):
        for size in range(51 - at):
            assert joined.read(at, size) == whole[at : at + size]
    with pytest.raises(ModelError, match="truncated: 50 bytes, at least 51"):
        joined.read(40, 11)
