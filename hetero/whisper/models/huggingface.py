"""Reading a Hugging Face folder: `model.safetensors`, whole or in shards, `config.json`, `generation_config.json`."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hetero.errors import ModelError
from hetero.whisper.models.checkpoint import UNTIED, Checkpoint, Tensor, tokens_of
from hetero.whisper.models.dims import Dims
from hetero.whisper.models.files import read_json

_FLOATS = ("F32", "F16", "BF16", "F64")
_SIZES = {
    "n_mels": "num_mel_bins",
    "n_audio_ctx": "max_source_positions",
    "n_audio_state": "d_model",
    "n_audio_head": "encoder_attention_heads",
    "n_audio_layer": "encoder_layers",
    "n_vocab": "vocab_size",
    "n_text_ctx": "max_target_positions",
    "n_text_state": "d_model",
    "n_text_head": "decoder_attention_heads",
    "n_text_layer": "decoder_layers",
}
# What the graphs take for granted, and what a configuration that does not say means.
_REQUIRED = {"model_type": "whisper", "activation_function": "gelu", "scale_embedding": False}


def read_safetensors(weights: Sequence[Path], config: Path, generation: Path | None) -> Checkpoint:
    """The checkpoint in a Hugging Face folder.

    Args:
        weights: `model.safetensors`, or its shards.
        config: `config.json`.
        generation: `generation_config.json`, with the suppressed tokens; older folders have them in `config.json`.

    Raises:
        ModelError: No Whisper model, truncated, of a dtype that is not a float, or safetensors is not installed.
    """
    dims, suppress, suppress_first = read_config(config, generation)
    tensors: dict[str, Tensor] = {}
    for path in weights:
        tensors.update(_tensors(path))
    return Checkpoint(dims, without_copy(tensors), suppress, suppress_first)


def without_copy(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors less the logits' matrix, where that is a copy of the embedding."""
    embedding, projection = tensors.get("decoder.embed_tokens.weight"), tensors.get(UNTIED)
    if embedding and projection and np.array_equal(projection.read(), embedding.read()):
        return {name: tensor for name, tensor in tensors.items() if name != UNTIED}
    return tensors


def read_config(config: Path, generation: Path | None) -> tuple[Dims, tuple[int, ...], tuple[int, ...]]:
    """Sizes, suppressed tokens, and tokens suppressed at first, from Hugging Face's configuration.

    Raises:
        ModelError: No Whisper model, or one that differs in what the graphs take for granted.
    """
    settings = read_json(config)
    for key, wanted in _REQUIRED.items():
        if settings.get(key, wanted) != wanted or (key == "model_type" and key not in settings):
            raise ModelError(f"{config}: {key} is {settings.get(key)!r}, expected {wanted!r}")
    missing = [theirs for theirs in _SIZES.values() if theirs not in settings]
    if missing:
        raise ModelError(f"{config} has no {missing[0]!r}", fix="get the config.json of the weights")
    dims = Dims(**{ours: settings[theirs] for ours, theirs in _SIZES.items()})
    source, path = settings, config
    if generation is not None and generation.is_file():
        told = read_json(generation)
        if "suppress_tokens" in told or "begin_suppress_tokens" in told:
            source, path = told, generation
    return dims, tokens_of(source, "suppress_tokens", path), tokens_of(source, "begin_suppress_tokens", path)


def _tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    """The tensors of one file, under their names without the leading `model.`."""
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        raise ModelError(
            f"{path} cannot be read: safetensors is not installed", fix="pip install 'hetero[whisper]'"
        ) from None
    try:
        file: Any = safe_open(path, framework="numpy")
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is no whole safetensors file: {error}", fix="get the file again") from None
    for name in file.keys():  # noqa: SIM118  the file is no mapping
        part = file.get_slice(name)
        dtype = part.get_dtype()
        if dtype not in _FLOATS:
            raise ModelError(
                f"{path}: {name!r} is {dtype}, expected one of {', '.join(_FLOATS)}",
                fix="save the model in a float dtype",
            )
        read = partial(_bfloat16, path, name) if dtype == "BF16" else partial(file.get_tensor, name)
        yield name.removeprefix("model."), Tensor(tuple(part.get_shape()), dtype, f"{path}: {name}", read)


def _bfloat16(path: Path, name: str) -> NDArray[np.float32]:
    """A tensor in a dtype that numpy does not have: the upper half of each float32."""
    with path.open("rb") as file:
        length = struct.unpack("<Q", file.read(8))[0]
        entry: Mapping[str, Any] = json.loads(file.read(length))[name]
        start, end = entry["data_offsets"]
        file.seek(8 + length + start)
        halves = np.frombuffer(file.read(end - start), "<u2")
    values: NDArray[np.float32] = (halves.astype(np.uint32) << 16).view(np.float32).reshape(entry["shape"])
    return values
