"""A toy Whisper model with random weights, written in each format that hetero reads."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from hetero.whisper.models import Dims

Weights = dict[str, NDArray[np.float32]]

DIMS = Dims(
    n_mels=4,
    n_audio_ctx=12,
    n_audio_state=16,
    n_audio_head=4,
    n_audio_layer=2,
    n_vocab=40,
    n_text_ctx=10,
    n_text_state=16,
    n_text_head=2,
    n_text_layer=3,
)
SUPPRESS, SUPPRESS_FIRST = (1, 5), (7, 39)
EMBEDDING = "decoder.embed_tokens.weight"


def weights(dims: Dims = DIMS, seed: int = 0) -> Weights:
    """Random values that half precision holds exactly; norms' factors are around 1."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, shape in dims.tensors():
        values = rng.normal(0.0, 0.3, shape) + (1.0 if name.endswith("norm.weight") else 0.0)
        found[name] = values.astype(np.float16).astype(np.float32)
    return found


def tokenizer(path: Path, tokens: int = DIMS.n_vocab) -> None:
    """A `tokenizer.json` of that many tokens, the last of them an added one."""
    vocabulary = {f"t{i}": i for i in range(tokens - 1)}
    content = {
        "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
        "added_tokens": [{"id": tokens - 1, "content": "<end>"}],
    }
    path.write_text(json.dumps(content), encoding="utf-8")


def hugging_face_config(folder: Path, dims: Dims = DIMS, **changes: Any) -> None:
    """`config.json` and `generation_config.json`; a change to None takes the key out."""
    config = {
        "model_type": "whisper",
        "activation_function": "gelu",
        "num_mel_bins": dims.n_mels,
        "max_source_positions": dims.n_audio_ctx,
        "d_model": dims.n_audio_state,
        "encoder_attention_heads": dims.n_audio_head,
        "encoder_layers": dims.n_audio_layer,
        "vocab_size": dims.n_vocab,
        "max_target_positions": dims.n_text_ctx,
        "decoder_attention_heads": dims.n_text_head,
        "decoder_layers": dims.n_text_layer,
        **changes,
    }
    config = {key: value for key, value in config.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(config))
    generation = {"suppress_tokens": SUPPRESS, "begin_suppress_tokens": SUPPRESS_FIRST}
    (folder / "generation_config.json").write_text(json.dumps(generation))


def safetensors_file(path: Path, tensors: Mapping[str, NDArray[Any]], dtype: str = "F32") -> None:
    """A safetensors file, by hand: the library cannot write bfloat16 from numpy."""
    header, data = {}, b""
    for name, values in tensors.items():
        if dtype == "BF16":
            raw = (np.ascontiguousarray(values, np.float32).view(np.uint32) >> 16).astype("<u2").tobytes()
        else:
            raw = values.astype({"F32": "<f4", "F16": "<f2", "I32": "<i4"}[dtype]).tobytes()
        header[name] = {"dtype": dtype, "shape": values.shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    head = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head + data)


def hugging_face(folder: Path, tensors: Weights, dims: Dims = DIMS, dtype: str = "F32", pieces: int = 1) -> Path:
    """A Hugging Face folder."""
    folder.mkdir(parents=True)
    named = {f"model.{name}" if name != "proj_out.weight" else name: values for name, values in tensors.items()}
    if pieces == 1:
        safetensors_file(folder / "model.safetensors", named, dtype)
    else:
        places = {name: f"model-{i % pieces + 1:05}-of-{pieces:05}.safetensors" for i, name in enumerate(named)}
        for file in set(places.values()):
            safetensors_file(folder / file, {name: named[name] for name in named if places[name] == file}, dtype)
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    hugging_face_config(folder, dims)
    tokenizer(folder / "tokenizer.json", dims.n_vocab)
    return folder


_CT2_TYPES = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4, "bfloat16": 5}


def ctranslate2_file(path: Path, variables: Mapping[str, Any], *, version: int = 6, spec: str = "WhisperSpec") -> None:
    """A `model.bin`; a value is an array, or a dtype's name with an array of its raw elements."""

    def text(value: str) -> bytes:
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    content = struct.pack("<I", version) + text(spec) + struct.pack("<II", 3, len(variables))
    for name, value in variables.items():
        kind, array = value if isinstance(value, tuple) else (value.dtype.name, value)
        content += (
            text(name) + struct.pack("<B", array.ndim) + b"".join(struct.pack("<I", size) for size in array.shape)
        )
        content += struct.pack("<BI", _CT2_TYPES[kind], array.nbytes) + array.tobytes()
    path.write_bytes(
        content + struct.pack("<I", 1) + text("decoder/projection/weight") + text("decoder/embeddings/weight")
    )


def ctranslate2_variables(tensors: Weights, dims: Dims = DIMS, dtype: Any = np.float32) -> dict[str, Any]:
    """The weights as CTranslate2 names and fuses them."""
    zeros = np.zeros(dims.n_text_state, np.float32)
    found: dict[str, Any] = {}

    def fused(target: str, source: str, parts: str) -> None:
        found[f"{target}/weight"] = np.concatenate([tensors[f"{source}.{part}_proj.weight"] for part in parts])
        found[f"{target}/bias"] = np.concatenate([tensors.get(f"{source}.{part}_proj.bias", zeros) for part in parts])

    def plain(target: str, source: str, names: tuple[str, str] = ("weight", "bias")) -> None:
        for name, kind in zip(names, ("weight", "bias"), strict=True):
            found[f"{target}/{name}"] = tensors[f"{source}.{kind}"]

    def norm(target: str, source: str) -> None:
        plain(target, source, ("gamma", "beta"))

    plain("encoder/conv1", "encoder.conv1")
    plain("encoder/conv2", "encoder.conv2")
    for part, layers in (("encoder", dims.n_audio_layer), ("decoder", dims.n_text_layer)):
        found[f"{part}/position_encodings/encodings"] = tensors[f"{part}.embed_positions.weight"]
        norm(f"{part}/layer_norm", f"{part}.layer_norm")
        for i in range(layers):
            ours, theirs = f"{part}.layers.{i}", f"{part}/layer_{i}"
            norm(f"{theirs}/self_attention/layer_norm", f"{ours}.self_attn_layer_norm")
            fused(f"{theirs}/self_attention/linear_0", f"{ours}.self_attn", "qkv")
            plain(f"{theirs}/self_attention/linear_1", f"{ours}.self_attn.out_proj")
            if part == "decoder":
                norm(f"{theirs}/attention/layer_norm", f"{ours}.encoder_attn_layer_norm")
                fused(f"{theirs}/attention/linear_0", f"{ours}.encoder_attn", "q")
                fused(f"{theirs}/attention/linear_1", f"{ours}.encoder_attn", "kv")
                plain(f"{theirs}/attention/linear_2", f"{ours}.encoder_attn.out_proj")
            norm(f"{theirs}/ffn/layer_norm", f"{ours}.final_layer_norm")
            plain(f"{theirs}/ffn/linear_0", f"{ours}.fc1")
            plain(f"{theirs}/ffn/linear_1", f"{ours}.fc2")
    found["decoder/embeddings/weight"] = tensors[EMBEDDING]
    found = {name: values.astype(dtype) for name, values in found.items()}
    for part, heads in (("encoder", dims.n_audio_head), ("decoder", dims.n_text_head)):
        found[f"{part}/num_heads"] = np.array(heads, np.int16)
        found[f"{part}/activation"] = np.array(3, np.int8)
    return found


def ctranslate2(folder: Path, tensors: Weights, dims: Dims = DIMS, dtype: Any = np.float32) -> Path:
    """A CTranslate2 folder."""
    folder.mkdir(parents=True)
    ctranslate2_file(folder / "model.bin", ctranslate2_variables(tensors, dims, dtype))
    config = {"suppress_ids": SUPPRESS, "suppress_ids_begin": SUPPRESS_FIRST}
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer(folder / "tokenizer.json", dims.n_vocab)
    return folder


def onnx_export(
    folder: Path,
    tensors: Weights,
    dims: Dims = DIMS,
    *,
    subfolder: str = "",
    merged: bool = False,
    extra: onnx.NodeProto | None = None,
) -> Path:
    """A folder named as optimum's exports are: parameters by name, transposed matrices by number and their node's name.

    The graphs do not compute anything; the reader takes only the weights out of them.

    Args:
        folder: To write to.
        tensors: The weights.
        dims: Their sizes.
        subfolder: Where the graphs are put.
        merged: The decoder is one for both cases, with its nodes in a branch.
        extra: One more node.
    """
    place = folder / subfolder
    place.mkdir(parents=True)
    for part in ("encoder", "decoder"):
        joined = merged and part == "decoder"
        name = f"{part}_model_merged.onnx" if joined else f"{part}_model.onnx"
        (place / name).write_bytes(_export(part, tensors, joined, extra).SerializeToString())
    hugging_face_config(folder, dims)
    tokenizer(folder / "tokenizer.json", dims.n_vocab)
    return folder


def _export(part: str, tensors: Weights, joined: bool, extra: onnx.NodeProto | None) -> onnx.ModelProto:
    """One graph of an export; `joined`: the nodes stand in a branch."""
    prefix, suffix = "model.decoder." if part == "decoder" else "", "_merged_0" if joined else ""
    nodes, initializers = [], []
    for number, (name, values) in enumerate(tensors.items(), 1):
        if not name.startswith(part):
            continue
        own = prefix + name.removeprefix(f"{part}.")
        if values.ndim == 2 and "embed" not in name:
            path = "/" + own.removesuffix(".weight").replace("model.decoder.", "model/decoder/")
            path = path.replace("attn.", "attn/").replace(".fc", "/fc")
            initializers.append(_transposed(f"onnx::MatMul_{number}{suffix}", values))
            nodes.append(
                helper.make_node("MatMul", ["x", initializers[-1].name], [f"y{number}"], name=f"{path}/MatMul")
            )
        else:
            initializers.append(numpy_helper.from_array(values, own + suffix))
    if part == "decoder":
        initializers.append(_transposed(f"onnx::MatMul_0{suffix}", tensors[EMBEDDING]))
        nodes.append(helper.make_node("MatMul", ["x", initializers[-1].name], ["y0"], name="/proj_out/MatMul"))
    if extra is not None:
        nodes.append(extra)
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in ("x", nodes[0].output[0])]
    if joined:
        branch = helper.make_graph(nodes, "branch", [], ends[1:])
        nodes = [helper.make_node("If", ["x"], [ends[1].name], then_branch=branch, else_branch=branch)]
    graph = helper.make_graph(nodes, part, ends[:1], ends[1:], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)])


def _transposed(name: str, values: NDArray[Any]) -> onnx.TensorProto:
    return numpy_helper.from_array(np.ascontiguousarray(values.T), name)
