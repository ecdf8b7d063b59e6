"""Reading what an `.onnx` file says about itself: inputs, outputs, opset and external data. Weights are not loaded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

import numpy as np

from hetero.errors import ProgramInvalid
from hetero.program import Artifact, Program
from hetero.tensors import Dim, TensorSpec

if TYPE_CHECKING:
    import onnx


def open_onnx(path: Path, name: str | None = None) -> Program:
    """The program in an `.onnx` file.

    Raises:
        ProgramInvalid: Not an ONNX model, truncated, without opset or outputs, with inputs that are no tensors, or with
            external data that is missing, too short or outside the model's folder.
    """
    model = _parse(path)
    weights = {tensor.name for tensor in model.graph.initializer}
    weights |= {tensor.values.name for tensor in model.graph.sparse_initializer}
    inputs = tuple(_spec(value, path) for value in model.graph.input if value.name not in weights)
    outputs = tuple(_spec(value, path) for value in model.graph.output)
    artifact = Artifact("onnx", path=path, companions=_external_files(model, path))
    return Program(name or path.stem, inputs, outputs, (artifact,), source=str(path))


def _parse(path: Path) -> onnx.ModelProto:
    import onnx
    from google.protobuf.message import DecodeError

    if path.stat().st_size == 0:
        raise ProgramInvalid(f"{path} is empty", fix="export or download the model again")
    try:
        model = onnx.load(path, format="protobuf", load_external_data=False)
    except DecodeError:
        raise ProgramInvalid(
            f"{path} is not an ONNX model, or is truncated ({path.stat().st_size} bytes)",
            fix="export or download the model again",
        ) from None
    if not model.ir_version or not model.graph.output:
        missing = "IR version" if not model.ir_version else "graph with outputs"
        raise ProgramInvalid(
            f"{path} has no {missing}: not an ONNX model, or truncated", fix="export or download the model again"
        )
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    if not opsets or opsets.get("", 1) < 1:
        raise ProgramInvalid(
            f"{path} declares no valid opset version ({opsets or 'none'})",
            fix="export the model again with an opset of 11 or later",
        )
    return model


def _spec(value: onnx.ValueInfoProto, path: Path) -> TensorSpec:
    import onnx

    if value.type.WhichOneof("value") != "tensor_type":
        kind = value.type.WhichOneof("value") or "untyped value"
        raise ProgramInvalid(
            f"{path}: {value.name!r} is a {kind.removesuffix('_type')}; only tensors can be passed",
            fix="export a model whose inputs and outputs are tensors",
        )
    tensor = value.type.tensor_type
    try:
        dtype: np.dtype[Any] = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    except (KeyError, TypeError):
        raise ProgramInvalid(f"{path}: {value.name!r} has the unknown element type {tensor.elem_type}") from None
    shape: tuple[Dim, ...] | None = tuple(map(_dim, tensor.shape.dim)) if tensor.HasField("shape") else None
    return TensorSpec(value.name, dtype, shape)


def _dim(dim: Any) -> Dim:
    if dim.HasField("dim_value"):
        return int(dim.dim_value) if dim.dim_value >= 0 else None
    return dim.dim_param or None


def _external_files(model: onnx.ModelProto, path: Path) -> dict[str, Path]:
    """The files of external data by location, each checked to lie in the model's folder and to be long enough."""
    import onnx

    files: dict[str, Path] = {}
    for tensor in _tensors(model.graph):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        if location not in files:
            files[location] = _contained(path, location, tensor.name)
        try:
            needed = int(entries.get("offset", 0)) + int(entries.get("length", 0))
        except ValueError:
            raise ProgramInvalid(f"{path}: external data of {tensor.name!r} has no valid offset and length") from None
        size = files[location].stat().st_size
        if needed > size:
            raise ProgramInvalid(
                f"{files[location]} is truncated: {size} bytes, {tensor.name!r} needs {needed}", fix="download it again"
            )
    return files


def _contained(model: Path, location: str, tensor: str) -> Path:
    parts = PurePosixPath(location)
    if (
        not location
        or parts.is_absolute()
        or PureWindowsPath(location).is_absolute()
        or ".." in location.replace("\\", "/").split("/")
    ):
        raise ProgramInvalid(
            f"{model}: external data of {tensor!r} lies at {location!r}, outside the model's folder",
            fix="only use models whose external data stands beside them",
        )
    file = model.parent / parts
    if not file.is_file():
        raise ProgramInvalid(
            f"{model} keeps weights in {location!r}, which is not beside it", fix=f"put {location} into {model.parent}"
        )
    # A model hub's cache links both the model and its data into one store: that the two real files share a folder is
    # as good as sharing the link's folder.
    real = file.resolve()
    if not any(real.is_relative_to(root) for root in (model.parent.resolve(), model.resolve().parent)):
        raise ProgramInvalid(
            f"{model}: external data {location!r} is a link to {real}, outside the model's folder",
            fix="replace the link by the file itself",
        )
    return file


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every tensor that is stored in a graph, subgraphs and attributes included."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        yield from _attribute_tensors(node.attribute)


def _attribute_tensors(attributes: Iterable[onnx.AttributeProto]) -> Iterator[onnx.TensorProto]:
    for attribute in attributes:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        if attribute.HasField("g"):
            yield from _tensors(attribute.g)
        for graph in attribute.graphs:
            yield from _tensors(graph)
