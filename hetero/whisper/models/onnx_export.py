"""Reading the ONNX files that optimum exports: the weights are taken out of them, and our own graphs are made.

So an export runs through the same decoder as any other model, with the cache that its own graphs lack. Its parameters
keep their names, but for the matrices of linear layers: the exporter transposes those and numbers them, and the node
that uses one tells its place: `/model/decoder/layers.0/fc1/MatMul`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from hetero.errors import ModelError, ProgramError
from hetero.whisper.models.checkpoint import Checkpoint, Tensor
from hetero.whisper.models.huggingface import read_config, without_copy

if TYPE_CHECKING:
    import onnx

_FLOATS = ("FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE")
_QUANTISED = {"MatMulInteger", "DynamicQuantizeLinear", "QLinearMatMul", "DequantizeLinear", "MatMulNBits"}
_MERGED = re.compile(r"_merged_\d+$")
_EXPORT = "optimum-cli export onnx --model ID --task automatic-speech-recognition-with-past FOLDER"


def read_onnx_export(encoder: Path, decoder: Path, config: Path, generation: Path | None) -> Checkpoint:
    """The checkpoint in an export.

    Args:
        encoder: `encoder_model.onnx`.
        decoder: `decoder_model.onnx` or `decoder_model_merged.onnx`.
        config: Hugging Face's `config.json`.
        generation: Its `generation_config.json`, where there is one.

    Raises:
        ModelError: Not ONNX, truncated, quantised, with fused operators, or no Whisper model.
    """
    dims, suppress, suppress_first = read_config(config, generation)
    tensors = {
        name: tensor
        for part, path in (("encoder", encoder), ("decoder", decoder))
        for name, tensor in _tensors(path, part)
    }
    return Checkpoint(dims, without_copy(tensors), suppress, suppress_first)


def _tensors(path: Path, part: str) -> Iterator[tuple[str, Tensor]]:
    import onnx

    from hetero.onnx_file import open_onnx

    try:
        # Refuses what is truncated, and external data that lies elsewhere.
        open_onnx(path)
    except ProgramError as error:
        raise ModelError(error.problem, fix=error.fix) from None
    model = onnx.load(path, load_external_data=False)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    matrices: set[str] = set()
    for node in _nodes(model.graph):
        if node.op_type in _QUANTISED:
            raise ModelError(
                f"{path} is quantised ({node.op_type}), expected float weights", fix=f"export it again: {_EXPORT}"
            )
        if node.domain not in ("", "ai.onnx"):
            raise ModelError(
                f"{path} has the fused operator {node.domain}.{node.op_type}",
                fix=f"export it without --optimize: {_EXPORT}",
            )
        if node.op_type == "MatMul" and len(node.input) == 2 and node.input[1] in weights:
            matrix = weights[node.input[1]]
            matrices.add(node.input[1])
            where = _text(node.name, path).rpartition("/")[0].strip("/").replace("/", ".")
            name = _text(matrix.name, path)
            own = name if name.endswith(".weight") else f"{where}.weight"
            yield _canonical(_MERGED.sub("", own), part), _tensor(matrix, path, transposed=True)
    for name, tensor in weights.items():
        if name not in matrices:
            yield _canonical(_MERGED.sub("", _text(name, path)), part), _tensor(tensor, path)


def _nodes(graph: onnx.GraphProto) -> Iterable[onnx.NodeProto]:
    """The nodes, with those in the branches of a merged decoder."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nodes(attribute.g)


def _text(name: object, path: Path) -> str:
    """A name of the file; protobuf gives bytes where it is no text."""
    if not isinstance(name, str):
        raise ModelError(f"{path} has the name {name!r}, which is no text", fix="the file is damaged: get it again")
    return name


def _canonical(name: str, part: str) -> str:
    """A parameter's name as `Dims.tensors` has it; the exporter's depends on which module was exported."""
    name = name.removeprefix("model.")
    return name if name.startswith(("encoder.", "decoder.", "proj_out.")) else f"{part}.{name}"


def _tensor(tensor: onnx.TensorProto, path: Path, transposed: bool = False) -> Tensor:
    import onnx

    shape = tuple(tensor.dims)
    dtype = onnx.TensorProto.DataType.Name(tensor.data_type)
    origin = f"{path}: {tensor.name}"
    return Tensor(shape[::-1] if transposed else shape, dtype, origin, partial(_read, tensor, path, origin, transposed))


def _read(tensor: onnx.TensorProto, path: Path, origin: str, transposed: bool) -> NDArray[Any]:
    from onnx import numpy_helper

    dtype = tensor.data_type
    if dtype not in (1, 10, 11, 16):
        raise ModelError(f"{origin} is of ONNX's element type {dtype}, expected {', '.join(_FLOATS)}")
    array: NDArray[Any] = numpy_helper.to_array(tensor, base_dir=str(path.parent))
    return array.T if transposed else array
