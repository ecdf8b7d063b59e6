"""Twin files: `.rknn` files that a simulator can compute.

The outside is the vendor's: magic, format, lengths, and a JSON with the SoC, the toolkit's version and the tensors, so
that whatever reads a `.rknn` file reads them. Inside, in place of weights and commands for the NPU, is the ONNX model.
"""

from __future__ import annotations

import json
import os
import struct
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hetero.errors import InputError, ProgramInvalid

if TYPE_CHECKING:
    import onnx

MARK = b"HETERO-ONNX-TWIN"

_MAGIC = b"RKNN\0\0\0\0"
_START = 64


def write_twin(
    onnx_file: Path,
    out: Path,
    *,
    platform: str,
    version: str = "2.3.2",
    shapes: Mapping[str, Sequence[int]] | None = None,
    format_version: int = 6,
) -> None:
    """Make a twin file of an ONNX model.

    Args:
        onnx_file: The model; external data is taken in.
        out: Where to write; appears whole or not at all.
        platform: The SoC that it says to be compiled for: `rk3588`.
        version: Of the toolkit that it says to be written by.
        shapes: Of inputs with dimensions that are not fixed, by name; a first dimension that is not becomes 1 without.
        format_version: Of the `.rknn` format.

    Raises:
        ProgramInvalid: The model cannot be read.
        InputError: A shape is not fixed, or does not fit the model.
    """
    model = _fixed(_loaded(onnx_file), shapes or {})
    inputs, outputs = _ends(model)
    tensors = [*inputs, *outputs]
    described = {
        "target_platform": [platform],
        "version": f"{version} (a stand-in for simulators, made by hetero)",
        "norm_tensor": [{"tensor_id": i, "url": name, "size": list(size)} for i, (name, size) in enumerate(tensors)],
        "graph": [
            {"left": "input", "left_tensor_id": i, "right": "norm_tensor", "right_tensor_id": i}
            for i in range(len(inputs))
        ]
        + [
            {"left": "output", "left_tensor_id": i, "right": "norm_tensor", "right_tensor_id": len(inputs) + i}
            for i in range(len(outputs))
        ],
    }
    _write(out, format_version, model.SerializeToString(), described)


def imitate(rknn: Path, onnx_file: Path, out: Path) -> None:
    """Make a twin of a real `.rknn` file: its description, over the ONNX model that it was compiled from.

    Raises:
        ProgramInvalid: One of the files cannot be read.
        InputError: The model does not have the file's inputs.
    """
    format_version, described = _description(rknn.read_bytes(), rknn)
    sizes = {entry["url"]: entry["size"] for entry in described.get("norm_tensor", []) if isinstance(entry, dict)}
    model = _loaded(onnx_file)
    names = [value.name for value in _inputs(model)]
    missing = [name for name in names if name not in sizes]
    if missing:
        raise InputError(f"{rknn.name} has no input {missing[0]!r}, as {onnx_file.name} has", fix="compile it again")
    model = _fixed(model, {name: sizes[name] for name in names})
    _write(out, format_version, model.SerializeToString(), described)


def read_twin(source: Path | bytes) -> tuple[bytes, dict[str, Any]]:
    """The ONNX model and the description in a twin file.

    Raises:
        ProgramInvalid: It is no twin file.
    """
    content = source if isinstance(source, bytes) else source.read_bytes()
    name = "the model" if isinstance(source, bytes) else source
    _, described = _description(content, name)
    (length,) = struct.unpack_from("<Q", content, 16)
    body = content[_START : _START + length]
    if not body.startswith(MARK):
        raise ProgramInvalid(
            f"{name} is a real .rknn file; a simulator computes with the ONNX model it was made from",
            fix="keep the ONNX model in the bundle beside it",
        )
    return body[len(MARK) :], described


def _description(content: bytes, name: object) -> tuple[int, dict[str, Any]]:
    try:
        if not content.startswith(_MAGIC):
            raise ValueError("wrong magic")
        format_version, length = struct.unpack_from("<QQ", content, 8)
        start = _START + length
        (size,) = struct.unpack_from("<Q", content, start)
        text = content[start + 8 : start + 8 + size]
        described = json.loads(text.rstrip(b"\0"))
        if len(text) < size or not isinstance(described, dict):
            raise ValueError("no description")
    except (struct.error, ValueError) as error:
        raise ProgramInvalid(f"{name} is no .rknn file, or is truncated ({error})", fix="compile it again") from None
    return format_version, described


def _loaded(path: Path) -> onnx.ModelProto:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        return onnx.load(path)
    except (OSError, DecodeError, ValueError) as error:
        raise ProgramInvalid(f"{path} cannot be read as an ONNX model: {error}") from error


def _inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    weights = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


def _fixed(model: onnx.ModelProto, shapes: Mapping[str, Sequence[int]]) -> onnx.ModelProto:
    """The model with every dimension a number: the NPU takes no others."""
    import onnx

    sizes: dict[str, int] = {}
    for value in _inputs(model):
        dims = value.type.tensor_type.shape.dim
        wanted = shapes.get(value.name)
        if wanted is not None and len(wanted) != len(dims):
            raise InputError(f"input {value.name!r} has {len(dims)} dimensions, the shape {list(wanted)} was given")
        for axis, dim in enumerate(dims):
            if dim.dim_value and wanted is not None and wanted[axis] != dim.dim_value:
                raise InputError(
                    f"input {value.name!r} has {dim.dim_value} in dimension {axis}, {wanted[axis]} was given"
                )
            if not dim.dim_value:
                size = sizes.get(dim.dim_param) if dim.dim_param else None
                size = wanted[axis] if wanted is not None else size or (1 if axis == 0 else None)
                if size is None:
                    raise InputError(
                        f"input {value.name!r} has no fixed size in dimension {axis} ({dim.dim_param or '?'}), and an "
                        "NPU takes fixed shapes only",
                        fix="compile it for the shapes you need: hetero compile MODEL.onnx --shape NAME=1,...",
                    )
                if dim.dim_param:
                    sizes[dim.dim_param] = size
                dim.dim_value = size
    if sizes:
        for value in (*model.graph.output, *model.graph.value_info):
            for dim in value.type.tensor_type.shape.dim:
                if dim.dim_param in sizes:
                    dim.dim_value = sizes[dim.dim_param]
    if any(not dim.dim_value for value in model.graph.output for dim in value.type.tensor_type.shape.dim):
        model = onnx.shape_inference.infer_shapes(model)
    return model


def _ends(model: onnx.ModelProto) -> tuple[list[tuple[str, tuple[int, ...]]], list[tuple[str, tuple[int, ...]]]]:
    return _sizes(_inputs(model)), _sizes(model.graph.output)


def _sizes(values: Iterable[onnx.ValueInfoProto]) -> list[tuple[str, tuple[int, ...]]]:
    named = [(value.name, tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)) for value in values]
    for name, size in named:
        if not all(size):
            raise InputError(
                f"{name!r} has no fixed shape ({list(size)})", fix="export the model with fixed shapes, or simplify it"
            )
    return named


def _write(out: Path, format_version: int, model: bytes, described: Mapping[str, Any]) -> None:
    text = json.dumps(described).encode()
    body = MARK + model
    head = (_MAGIC + struct.pack("<QQ", format_version, len(body))).ljust(_START, b"\0")
    handle, name = tempfile.mkstemp(prefix=f".{out.name}.", dir=out.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.writelines([head, body, struct.pack("<Q", len(text)), text])
        os.replace(name, out)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
