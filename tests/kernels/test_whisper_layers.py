"""The integer kernels on what goes through Whisper's own encoder, where its weights are installed.

`pytest tests/kernels/test_whisper_layers.py --log-cli-level=INFO` shows what was measured.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hetero.tensors import Array
from hetero_kernels import get
from hetero_kernels.gelu_i8_scaled.reference import gelu_table
from hetero_kernels.mel_i16 import host
from hetero_kernels.softmax import temperatures

SPEECH = Path(__file__).parents[1] / "data" / "speech"
MODEL = "tiny.en"
LAYERS = range(4)
LENGTH = 1536

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Encoder:
    """tiny.en's encoder in float32, with every value in it to be had.

    Attributes:
        values: By name, of one window of speech.
        weights: By name.
    """

    values: dict[str, Array]
    weights: dict[str, Array]

    def attention(self, layer: int) -> tuple[Array, Array, Array, Array]:
        """q (with 1 / sqrt(64) in it), k, v and the answer: float32 `[heads, 1500, 64]`."""
        name = f"encoder.layers.{layer}.self_attn"
        q, k, v = (self.values[f"{name}.{part}_proj/Transpose"][0] for part in "qkv")
        return q, k.transpose(0, 2, 1), v, self.values[f"{name}/weighted"][0]


@pytest.fixture(scope="module", params=["librivox-0870.flac", "two_cities.flac"])
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    for module in ("onnx", "onnxruntime", "av", "tokenizers"):
        pytest.importorskip(module, reason=f"{module} is not installed")
    from hetero.whisper.models.carried import CARRIED

    if CARRIED[MODEL].find() is None:
        pytest.skip(f"the weights of {MODEL} are not installed: {CARRIED[MODEL].install}")
    import onnx
    import onnxruntime

    from hetero.whisper import decode_audio, log_mel
    from hetero.whisper.models import open_model

    graph = onnx.load(open_model(MODEL).encoder / "encoder.onnx")
    wanted = [
        name
        for node in graph.graph.node
        if node.op_type in ("MatMul", "LayerNormalization", "Erf")
        for name in (node.input[0], *node.output)
    ]
    wanted += [name for node in graph.graph.node if node.op_type == "Transpose" for name in node.output]
    known = {output.name for output in graph.graph.output}
    for name in dict.fromkeys(wanted):
        if name not in known:
            graph.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    audio = decode_audio(SPEECH / request.param)[:480000]
    mel = log_mel(audio, padding=480000 - len(audio))
    values: list[Any] = session.run(None, {"mel": mel[np.newaxis]})
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
    return Encoder(dict(zip([output.name for output in session.get_outputs()], values, strict=True)), weights)


def correlation(got: Array, exact: Array) -> float:
    return float(np.corrcoef(got.ravel(), exact.ravel())[0, 1])


def step(values: Array, *axes: int) -> Array:
    """The step with which the largest value is 127."""
    return np.asarray(np.abs(values).max(axis=axes or None, keepdims=True) / 127)


def int8s(values: Array, steps: Array | float) -> Array:
    return np.asarray(np.rint(values / steps), np.int8)


@pytest.mark.parametrize("layer", LAYERS)
def test_attention_to_all_keys_keeps_every_head(encoder: Encoder, layer: int) -> None:
    q, k, v, exact = encoder.attention(layer)
    steps = {"q": step(q, 2), "k": step(k, 1, 2), "v": step(v, 1, 2)}
    room = ((0, 0), (0, LENGTH - q.shape[1]), (0, 0))
    given = {name: np.pad(int8s(x, steps[name]), room) for name, x in {"q": q, "k": k, "v": v}.items()}
    heat = np.pad(temperatures((steps["q"] * steps["k"])[..., 0], size=1), room[:2])
    keys = np.full((len(q), 1), q.shape[1], np.int32)
    o = get(f"attention_i8_exact_{LENGTH}")({**given, "temperature": heat, "keys": keys})["o"]
    got = o[:, : q.shape[1]] * (steps["v"] / 256)
    each = [correlation(head, wanted) for head, wanted in zip(got, exact, strict=True)]
    _log.info("layer %d, heads: %s", layer, " ".join(f"{c:.5f}" for c in each))
    assert min(each) >= 0.9999


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize(("axes", "least"), [((0, 1, 2), 0.995), ((1, 2), 0.999)], ids=["one step a layer", "a tile"])
def test_independent_tiles_keep_every_tile(encoder: Encoder, layer: int, axes: tuple[int, ...], least: float) -> None:
    whole = [x[:, : 23 * 64].reshape(-1, 64, 64) for x in encoder.attention(layer)[:3]]
    q, k, v = whole
    logits = q @ k.swapaxes(1, 2)
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    exact = (e / e.sum(axis=-1, keepdims=True)) @ v
    steps = [np.broadcast_to(step(x, *axes), (len(x), 1, 1)) for x in whole]
    inputs = [int8s(x, s) for x, s in zip(whole, steps, strict=True)]
    o = get("attention_i8_64x64_v2")(*inputs, temperatures((steps[0] * steps[1])[..., 0], size=1))["o"]
    each = [correlation(tile, wanted) for tile, wanted in zip(o * steps[2], exact, strict=True)]
    _log.info("layer %d: worst %.5f, all %.5f", layer, min(each), correlation(o * steps[2], exact))
    assert min(each) >= least


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("part", ["self_attn_layer_norm", "final_layer_norm"])
def test_layernorm_is_as_good_as_rounding_floats_answer_to_int8(encoder: Encoder, layer: int, part: str) -> None:
    name = f"encoder.layers.{layer}.{part}"
    before = f"encoder.layers.{layer}.self_attn.out_proj/residual"
    if part == "self_attn_layer_norm":
        before = f"encoder.layers.{layer - 1}.fc2/residual" if layer else "encoder.embed_positions/Add"
    x, exact = encoder.values[before][0], encoder.values[f"{name}/LayerNormalization"][0]
    out = step(exact)
    gamma, beta = (
        np.rint(encoder.weights[f"{name}.{kind}"] * 256 / out[0]).astype(np.int16) for kind in ("weight", "bias")
    )
    row = np.abs(x).max() / 32767
    got = get(f"layernorm_i8_{x.shape[1]}")(np.rint(x / row).astype(np.int16), gamma, beta)["y"] * out
    best = correlation(np.rint(exact / out) * out, exact)
    _log.info("%s: %.5f, of float's rounded %.5f", name, correlation(got, exact), best)
    assert correlation(got, exact) >= best - 1e-5


@pytest.mark.parametrize("layer", LAYERS)
def test_gelu_loses_no_more_than_rounding_what_goes_in_and_out(encoder: Encoder, layer: int) -> None:
    # The graph divides by sqrt(2) ahead of the error function.
    x = encoder.values[f"encoder.layers.{layer}.fc1/Div"][0, :200] * np.sqrt(2)

    def gelu(values: Array) -> Array:
        return np.asarray(values * 0.5 * (1 + np.vectorize(math.erf)(values / math.sqrt(2))))

    step_x = float(step(x).item())
    given = int8s(x, step_x)
    rounded = gelu(given * step_x)
    step_y = float(step(rounded).item())
    got = get("gelu_i8_scaled")(given.reshape(-1), gelu_table(step_x, step_y))["y"].reshape(x.shape) * step_y
    _log.info(
        "layer %d: %.5f, of float's for the rounded input %.5f",
        layer,
        *(correlation(y, gelu(x)) for y in (got, rounded)),
    )
    assert np.abs(got - rounded).max() <= 0.5001 * step_y


def test_speech_is_transcribed_alike_from_the_integer_mel(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("onnxruntime", "av", "tokenizers"):
        pytest.importorskip(module, reason=f"{module} is not installed")
    import hetero
    from hetero.whisper import Transcriber, transcription
    from hetero.whisper.models.carried import CARRIED
    from hetero_cpu.backend import CpuBackend

    if CARRIED[MODEL].find() is None:
        pytest.skip(f"the weights of {MODEL} are not installed: {CARRIED[MODEL].install}")

    calls = 0

    def integer(audio: Array, n_mels: int = 80, *, padding: int = 0) -> Array:
        nonlocal calls
        calls += 1
        return host.log_mel(get(f"mel_i16_{n_mels}")(host.windows(audio, padding=padding))["y"])

    sounds = sorted(SPEECH.glob("librivox-*.flac"))
    with (
        hetero.Runtime(backends=(CpuBackend,), plugins=False, options={"cpu": {"threads": 1}}) as runtime,
        Transcriber(MODEL, runtime=runtime) as transcriber,
    ):
        expected = [transcriber.transcribe(sound).text for sound in sounds]
        monkeypatch.setattr(transcription, "log_mel", integer)
        assert [transcriber.transcribe(sound).text for sound in sounds] == expected
    assert calls >= len(sounds)
