"""Reading a CTranslate2 folder: `model.bin` in CTranslate2's binary format 6, with numpy alone.

The format, little-endian, as CTranslate2's `model_spec.py` writes it: the version (u32), the specification's name and
revision, the number of variables (u32), then each variable as name, rank (u8), dimensions (u32 each), dtype (u8), size
in bytes (u32) and values; at the end aliases, a name and the name it stands for. A name is its length with the closing
zero (u16), then the bytes.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hetero.errors import ModelError
from hetero.tensors import shape_text
from hetero.whisper.models.checkpoint import Checkpoint, Tensor, tokens_of
from hetero.whisper.models.dims import Dims
from hetero.whisper.models.files import Joined, read_json

_VERSION = 6
_SPEC = ("WhisperSpec", 3)
_GELU = 3
_DTYPES = ("float32", "int8", "int16", "int32", "float16", "bfloat16")
_ITEM_SIZES = (4, 1, 2, 4, 2, 2)
_FLOATS = ("float32", "float16", "bfloat16")
_CONVERT = "convert the model again with ct2-transformers-converter --quantization float16, or give its Hugging Face id"


def read_ctranslate2(parts: Sequence[Path], config: Path) -> Checkpoint:
    """The checkpoint in a `model.bin`.

    Args:
        parts: The file, or the pieces that it was cut into, in order.
        config: The `config.json` beside it, with the suppressed tokens.

    Raises:
        ModelError: No CTranslate2 model, another version of the format, no Whisper model, truncated, or quantised in a
            way that is not read (int16; int8 is).
    """
    variables = _Variables(Joined(parts))
    settings = read_json(config)
    suppress = tokens_of(settings, "suppress_ids", config)
    return Checkpoint(
        _dims(variables), _tensors(variables), suppress, tokens_of(settings, "suppress_ids_begin", config)
    )


class _Variables:
    """The table of contents of a `model.bin`: shape, dtype and place of each variable."""

    def __init__(self, file: Joined) -> None:
        self.file = file
        self._at = 0
        version = self._number("I")
        if version != _VERSION:
            raise ModelError(f"{file} is of CTranslate2's binary format {version}, expected {_VERSION}", fix=_CONVERT)
        spec = (self._name(), self._number("I"))
        if spec != _SPEC:
            raise ModelError(
                f"{file} is a {spec[0]!r} of revision {spec[1]}, expected {_SPEC[0]!r} of revision {_SPEC[1]}",
                fix=_CONVERT,
            )
        self.table: dict[str, tuple[tuple[int, ...], str, int]] = {}
        for _ in range(self._number("I")):
            self._variable()

    def _variable(self) -> None:
        name = self._name()
        shape = tuple(self._number("I") for _ in range(self._number("B")))
        kind, size = self._number("B"), self._number("I")
        if kind >= len(_DTYPES):
            raise ModelError(f"{self.file}: {name!r} has the unknown element type {kind}", fix=_CONVERT)
        if math.prod(shape) * _ITEM_SIZES[kind] != size:
            raise ModelError(
                f"{self.file}: {name!r} is {_DTYPES[kind]}{shape_text(shape)} in {size} bytes, which does not fit"
            )
        if self._at + size > self.file.size:
            raise self.file.truncated(self._at + size, name)
        self.table[name] = (shape, _DTYPES[kind], self._at)
        self._at += size

    def _number(self, kind: str) -> int:
        size = struct.calcsize(kind)
        value: int = struct.unpack("<" + kind, self.file.read(self._at, size))[0]
        self._at += size
        return value

    def _name(self) -> str:
        size = self._number("H")
        text = self.file.read(self._at, size)
        self._at += size
        if not text.endswith(b"\0") or not text[:-1].isascii():
            raise ModelError(
                f"{self.file} has no valid name at byte {self._at - size}",
                fix="the file is damaged or no CTranslate2 model",
            )
        return text[:-1].decode()

    def __contains__(self, name: str) -> bool:
        return name in self.table

    def shape(self, name: str) -> tuple[int, ...]:
        return self._entry(name)[0]

    def scalar(self, name: str) -> int:
        return int(self.read(name))

    def read(self, name: str) -> NDArray[Any]:
        """The values, those of bfloat16 widened to float32."""
        shape, dtype, at = self._entry(name)
        count = math.prod(shape)
        data = self.file.read(at, count * _ITEM_SIZES[_DTYPES.index(dtype)])
        if dtype == "bfloat16":
            return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32).reshape(shape)
        return np.frombuffer(data, np.dtype(dtype).newbyteorder("<")).reshape(shape)

    def weights(self, name: str) -> NDArray[Any]:
        """The values, those of int8 multiplied out: a row of a quantised weight was scaled by its `_scale`."""
        values = self.read(name)
        if values.dtype != np.int8:
            return values
        scale = self.read(f"{name}_scale").astype(np.float32)
        return values / scale.reshape(-1, *[1] * (values.ndim - 1))

    def tensor(self, name: str, rows: slice | None = None) -> Tensor:
        """A variable, or some rows of it, as a float tensor."""
        shape, dtype, _ = self._entry(name)
        origin = f"{self.file}: {name}"
        if dtype not in _FLOATS and not (dtype == "int8" and self.shape(f"{name}_scale") == shape[:1]):
            raise ModelError(
                f"{origin} is {dtype}, expected one of {', '.join(_FLOATS)}, int8 with a scale for each row",
                fix=_CONVERT,
            )
        if rows is None:
            return Tensor(shape, dtype, origin, partial(self.weights, name))
        count = len(range(*rows.indices(shape[0])))
        return Tensor((count, *shape[1:]), dtype, origin, lambda: self.weights(name)[rows])

    def _entry(self, name: str) -> tuple[tuple[int, ...], str, int]:
        try:
            return self.table[name]
        except KeyError:
            raise ModelError(
                f"{self.file}: the variable {name!r} is missing; found {len(self.table)}",
                fix="the file is not whole: get it again",
            ) from None


def _dims(variables: _Variables) -> Dims:
    for part in ("encoder", "decoder"):
        activation = variables.scalar(f"{part}/activation") if f"{part}/activation" in variables else _GELU
        if activation != _GELU:
            raise ModelError(f"{variables.file}: {part}/activation is {activation}, expected {_GELU} (exact GELU)")
    audio_ctx, audio_state = _matrix(variables, "encoder/position_encodings/encodings")
    n_vocab, text_state = _matrix(variables, "decoder/embeddings/weight")
    conv = variables.shape("encoder/conv1/weight")
    return Dims(
        n_mels=conv[1] if len(conv) == 3 else 0,
        n_audio_ctx=audio_ctx,
        n_audio_state=audio_state,
        n_audio_head=variables.scalar("encoder/num_heads"),
        n_audio_layer=_layers(variables, "encoder"),
        n_vocab=n_vocab,
        n_text_ctx=_matrix(variables, "decoder/position_encodings/encodings")[0],
        n_text_state=text_state,
        n_text_head=variables.scalar("decoder/num_heads"),
        n_text_layer=_layers(variables, "decoder"),
    )


def _matrix(variables: _Variables, name: str) -> tuple[int, int]:
    shape = variables.shape(name)
    if len(shape) != 2:
        raise ModelError(f"{variables.file}: {name} has shape {shape_text(shape)}, expected a matrix")
    return shape[0], shape[1]


def _layers(variables: _Variables, part: str) -> int:
    prefix = f"{part}/layer_"
    found = {name[len(prefix) :].partition("/")[0] for name in variables.table if name.startswith(prefix)}
    return len(found - {"norm"})


def _tensors(variables: _Variables) -> Mapping[str, Tensor]:
    """The variables under Hugging Face's names; fused projections are taken apart."""
    tensors: dict[str, Tensor] = {}

    def take(target: str, source: str, rows: slice | None = None) -> None:
        for kind, theirs in (("weight", "weight"), ("bias", "bias")):
            if f"{source}/{theirs}" in variables:
                tensors[f"{target}.{kind}"] = variables.tensor(f"{source}/{theirs}", rows)

    def norm(target: str, source: str) -> None:
        for kind, theirs in (("weight", "gamma"), ("bias", "beta")):
            if f"{source}/{theirs}" in variables:
                tensors[f"{target}.{kind}"] = variables.tensor(f"{source}/{theirs}")

    for part in ("encoder", "decoder"):
        tensors[f"{part}.embed_positions.weight"] = variables.tensor(f"{part}/position_encodings/encodings")
        norm(f"{part}.layer_norm", f"{part}/layer_norm")
        width = variables.shape(f"{part}/position_encodings/encodings")[1]
        q, k, v = (slice(i * width, (i + 1) * width) for i in range(3))
        for i in range(_layers(variables, part)):
            ours, theirs = f"{part}.layers.{i}", f"{part}/layer_{i}"
            for name, rows in (("q_proj", q), ("k_proj", k), ("v_proj", v)):
                take(f"{ours}.self_attn.{name}", f"{theirs}/self_attention/linear_0", rows)
            take(f"{ours}.self_attn.out_proj", f"{theirs}/self_attention/linear_1")
            norm(f"{ours}.self_attn_layer_norm", f"{theirs}/self_attention/layer_norm")
            if part == "decoder":
                take(f"{ours}.encoder_attn.q_proj", f"{theirs}/attention/linear_0")
                for name, rows in (("k_proj", q), ("v_proj", k)):
                    take(f"{ours}.encoder_attn.{name}", f"{theirs}/attention/linear_1", rows)
                take(f"{ours}.encoder_attn.out_proj", f"{theirs}/attention/linear_2")
                norm(f"{ours}.encoder_attn_layer_norm", f"{theirs}/attention/layer_norm")
            take(f"{ours}.fc1", f"{theirs}/ffn/linear_0")
            take(f"{ours}.fc2", f"{theirs}/ffn/linear_1")
            norm(f"{ours}.final_layer_norm", f"{theirs}/ffn/layer_norm")
    take("encoder.conv1", "encoder/conv1")
    take("encoder.conv2", "encoder/conv2")
    tensors["decoder.embed_tokens.weight"] = variables.tensor("decoder/embeddings/weight")
    if "decoder/projection/weight" in variables:
        tensors["proj_out.weight"] = variables.tensor("decoder/projection/weight")
    return tensors
