"""What a `.rknn` file says about itself, and whether a board and a program can use it: without Rockchip's library."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hetero.errors import Unsupported
from hetero.tensors import TensorSpec, shape_text
from hetero_rknn.model_body import Body
from hetero_rknn.model_container import Container, damaged, read_container
from hetero_rknn.platforms import Platform

_MOST_DIMENSIONS = 16
_DTYPES = frozenset(
    ("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64")
)
# The newest format that a runtime reads, from that version of it on. From reports of "Invalid RKNN model version 6" on
# github.com, which print both: "6, 1" with librknnrt 1.3.0 and 1.4.0 (airockchip/rknn-toolkit2 issues 254 and 281),
# "6, 4" with 1.5.0 (rockchip-linux/rknn-toolkit2 issue 316). Toolkit 1.5.2 began to write format 6.
_NEWEST_FORMAT = (((1, 5, 2), None), ((1, 5, 0), 4), ((0, 0, 0), 1))


@dataclass(frozen=True)
class ModelTensor:
    """An input or output as a `.rknn` file declares it.

    Attributes:
        name: As in the original graph.
        dtype: Of the original graph: what the caller hands over or gets. The toolkit makes float32 of float16.
        shape: Of the original graph (NCHW for images). Of a file with several shapes, the first.
        dtype_known: The file says its dtype; if not, `dtype` is float32 for want of better.
        shapes: All shapes that the file was compiled for, `shape` first; empty when it has but one.
        layout: Of the original graph by the toolkit's account, `nchw` or `nhwc`; empty when the file does not say.
        native_dtype: On the NPU: `float16`, `int8`; empty when the file does not say.
        native_layout: On the NPU: `NHWC`, `NCHW` or `UNDEFINED`; empty when the file does not say. Where a 4-D input
            has NHWC, the vendor's runtime wants it transposed from `shape`.
        transforms: What the file does to this input before the graph sees it: `mean [127], std [128]`; empty for
            nothing.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    dtype_known: bool = True
    shapes: tuple[tuple[int, ...], ...] = ()
    layout: str = ""
    native_dtype: str = ""
    native_layout: str = ""
    transforms: str = ""


@dataclass(frozen=True)
class ModelFile:
    """What the header of a `.rknn` file says.

    Attributes:
        platform: The SoC it was compiled for, in lower case: `rk3588`.
        version: Of the toolkit that wrote it, such as `2.3.2`; None when the file does not say.
        format_version: Of the file's format, such as 6.
        inputs: In the model's order.
        outputs: In the model's order.
        custom_ops: It needs operators from a library of the user's. Known by the vendor's custom of letting their names
            begin with `cst`; others are not recognised.
        platforms: All SoCs that it names, `platform` first.
        path: The file, for messages.
    """

    platform: str
    version: str | None
    format_version: int
    inputs: tuple[ModelTensor, ...]
    outputs: tuple[ModelTensor, ...]
    custom_ops: bool = False
    platforms: tuple[str, ...] = ()
    path: Path | None = field(default=None, compare=False)

    @property
    def label(self) -> str:
        """The file's name, for messages."""
        return self.path.name if self.path else "the model"


def read_model_file(path: Path) -> ModelFile:
    """Read what a `.rknn` file says about itself; of the weights, nothing is read.

    Raises:
        ProgramNotFound: There is no such file.
        ProgramInvalid: It is empty, truncated, damaged, encrypted, or something else altogether.
    """
    return _model(read_container(path))


def check_model(model: ModelFile, platform: Platform, library_version: str | None) -> tuple[str, ...]:
    """Whether a board can run a model, before the vendor's library is asked.

    Args:
        model: The file.
        platform: The board's SoC.
        library_version: Of `librknnrt`; None when it is not known, then it is not checked.

    Returns:
        Remarks for people: what may go wrong.

    Raises:
        Unsupported: It was compiled for another SoC, or in a format that this `librknnrt` does not read.
    """
    compiled_for = model.platforms or (model.platform,)
    if not set(compiled_for) & set(platform.targets):
        raise Unsupported(
            f"{model.label} was compiled for {', '.join(name.upper() for name in compiled_for)}, this is an "
            f"{platform.title}",
            fix=f"compile it for this board: hetero compile MODEL.onnx --target {platform.target}",
        )
    runtime = _version(library_version)
    if runtime is None:
        return _custom_note(model)
    newest = next(newest for since, newest in _NEWEST_FORMAT if runtime >= since)
    if newest is not None and model.format_version > newest:
        toolkit = f" (rknn-toolkit2 {model.version})" if model.version else ""
        raise Unsupported(
            f"{model.label} has format {model.format_version}{toolkit}; librknnrt {library_version} reads formats up "
            f"to {newest}",
            fix=f"put librknnrt {model.version or '1.5.2 or later'} from github.com/airockchip/rknn-toolkit2 "
            "(rknpu2/runtime/Linux/librknn_api) into /usr/lib, or compile the model with rknn-toolkit2 "
            f"{library_version}",
        )
    return (*_version_note(model, runtime, library_version), *_custom_note(model))


def check_signature(model: ModelFile, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> frozenset[str]:
    """Whether a file is of the program that it stands for: names, shapes and dtypes. The order may differ.

    A symbolic dimension of the program fits every size; the file has the one it was compiled for, and calls with
    another have to be refused. The file may have outputs that the program does not name.

    Args:
        model: The file.
        inputs: The program's.
        outputs: The program's.

    Returns:
        The names of those tensors that are float16 in the program and float32 in the file, which is what the vendor's
        toolkit makes of them: to be converted by the caller.

    Raises:
        Unsupported: A name, shape, dtype or layout that differs, or a file that normalises its inputs by itself.
    """
    sizes: dict[str, tuple[int, str]] = {}
    converted = set()
    for kind, specs, tensors in (("input", inputs, model.inputs), ("output", outputs, model.outputs)):
        by_name = {tensor.name: tensor for tensor in tensors}
        _check_names(model, kind, [spec.name for spec in specs], by_name)
        for spec in specs:
            where = f"{model.label}: {kind} {spec.name!r}"
            tensor = by_name[spec.name]
            _check_layout(where, tensor)
            _check_shape(where, spec, tensor, sizes)
            if _check_dtype(where, spec, tensor):
                converted.add(spec.name)
    return frozenset(converted)


def _model(container: Container) -> ModelFile:
    described, body, path = container.description, container.body, container.path
    platforms = described.get("target_platform")
    names = [platforms] if isinstance(platforms, str) else platforms
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        raise damaged(path, f"it names no SoC (target_platform is {platforms!r})")
    tensors = {}
    for entry in _list(described, "norm_tensor", path):
        if not isinstance(entry, dict):
            raise damaged(path, "a tensor is no JSON object")
        tensors[_number(entry, "tensor_id", path)] = _tensor(entry, body, path)
    version = re.match(r"\d+\.\d+\.\d+[0-9A-Za-z]*", str(described.get("version", "")))
    ends: dict[str, list[tuple[int, ModelTensor]]] = {"input": [], "output": []}
    for edge in _list(described, "graph", path):
        if not isinstance(edge, dict) or edge.get("right") != "norm_tensor" or str(edge.get("left")) not in ends:
            continue
        tensor = tensors.get(_number(edge, "right_tensor_id", path))
        if tensor is None:
            raise damaged(path, "its graph names a tensor that it does not have")
        ends[edge["left"]].append((_number(edge, "left_tensor_id", path), tensor))
    inputs, outputs = (tuple(tensor for _, tensor in sorted(end, key=lambda pair: pair[0])) for end in ends.values())
    if not outputs:
        raise damaged(path, "it has no outputs")
    for side in (inputs, outputs):
        if len({tensor.name for tensor in side}) < len(side):
            raise damaged(path, f"two tensors have one name: {', '.join(tensor.name for tensor in side)}")
    lower = tuple(name.lower() for name in names)
    return ModelFile(
        lower[0],
        version[0] if version else None,
        container.format_version,
        inputs,
        outputs,
        any(operator.startswith("cst") for operator in body.operators),
        lower,
        path,
    )


def _list(described: Mapping[str, Any], key: str, path: Path) -> list[Any]:
    entries = described.get(key)
    if not isinstance(entries, list):
        raise damaged(path, f"its description has no list {key!r}")
    return entries


def _number(entry: Mapping[str, Any], key: str, path: Path) -> int:
    value = entry.get(key)
    if type(value) is not int:
        raise damaged(path, f"{key} is {value!r}, expected a number")
    return value


def _tensor(entry: Mapping[str, Any], body: Body, path: Path) -> ModelTensor:
    name, shape = entry.get("url"), _shape(entry.get("size"))
    if not isinstance(name, str) or not name or shape is None:
        raise damaged(path, f"a tensor without a name or a shape ({name!r}, {entry.get('size')!r})")
    attributes = body.attributes.get(name, {})
    native = body.native.get(name, {})
    dtype = _dtype(attributes.get("dtype"))
    shapes = tuple(shape for shape in map(_shape, _sequence(body.dynamic_shapes.get(name))) if shape is not None)
    return ModelTensor(
        name,
        dtype or np.dtype(np.float32),
        shape,
        dtype is not None,
        shapes if len(shapes) > 1 else (),
        str(attributes.get("layout_ori") or attributes.get("layout") or "").lower(),
        str(native.get("dtype", "")),
        str(native.get("layout", "")),
        _transforms(attributes),
    )


def _shape(value: Any) -> tuple[int, ...] | None:
    if not isinstance(value, list) or len(value) > _MOST_DIMENSIONS:
        return None
    return tuple(value) if all(type(size) is int and 0 < size < 1 << 31 for size in value) else None


def _dtype(name: Any) -> np.dtype[Any] | None:
    return np.dtype(name) if isinstance(name, str) and name in _DTYPES else None


def _sequence(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()


def _transforms(attributes: Mapping[str, Any]) -> str:
    """Mean, deviation and channel order that were compiled in; the toolkit writes 0, 1 and False for none."""
    parts = []
    for key, neutral in (("mean", 0), ("std", 1)):
        values = _sequence(attributes.get(key))
        if any(value != neutral for value in values):
            parts.append(f"{key} {list(values)}")
    return ", ".join([*parts, "RGB to BGR"] if attributes.get("rgb2bgr") is True else parts)


def _version(text: str | None) -> tuple[int, int, int] | None:
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", text or "")
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


def _version_note(model: ModelFile, runtime: tuple[int, int, int], library_version: str | None) -> Iterable[str]:
    """Most models of a newer toolkit run, with a warning; some have an operator that the older runtime lacks."""
    toolkit = _version(model.version)
    if toolkit is not None and toolkit > runtime:
        yield (
            f"{model.label} was compiled with rknn-toolkit2 {model.version}, librknnrt is {library_version}: if it "
            f'says "Unsupport CPU op", install librknnrt {model.version}'
        )


def _custom_note(model: ModelFile) -> tuple[str, ...]:
    return (f"{model.label} uses custom operators, whose library librknnrt has to be given",) * model.custom_ops


def _check_names(model: ModelFile, kind: str, wanted: Sequence[str], there: Mapping[str, ModelTensor]) -> None:
    missing = [name for name in wanted if name not in there]
    surplus = [name for name in there if name not in wanted] if kind == "input" else []
    if missing or surplus:
        raise Unsupported(
            f"{model.label} has the {kind}s {', '.join(there) or 'none'}, the program {', '.join(wanted) or 'none'}",
            fix="compile the program's own ONNX model, with its names: hetero compile MODEL.onnx --target SOC",
        )


def _check_layout(where: str, tensor: ModelTensor) -> None:
    if tensor.layout == "nhwc" and len(tensor.shape) == 4:
        raise Unsupported(
            f"{where} is channels last (NHWC), as models from TensorFlow are; programs hand over what their ONNX model "
            "declares",
            fix="compile the ONNX model: hetero compile MODEL.onnx --target SOC",
        )
    if tensor.transforms:
        raise Unsupported(
            f"{where} is transformed inside the file ({tensor.transforms}): the same input means something else "
            "here than on other devices",
            fix="compile it without mean_values, std_values and quant_img_RGB2BGR, and normalise before the call",
        )


def _check_shape(where: str, spec: TensorSpec, tensor: ModelTensor, sizes: dict[str, tuple[int, str]]) -> None:
    if spec.shape is None:
        return
    if not any(_fits(spec, shape) for shape in (tensor.shape, *tensor.shapes)):
        hint = "compile the program's own ONNX model with its shapes: hetero compile MODEL.onnx --target SOC"
        if len(tensor.shape) == 4 and _fits(spec, tuple(tensor.shape[axis] for axis in (0, 3, 1, 2))):
            hint = "the file is channels last (NHWC), the program channels first: compile the program's own ONNX model"
        raise Unsupported(
            f"{where} has shape {shape_text(tensor.shape)}, the program's is {shape_text(spec.shape)}", fix=hint
        )
    if tensor.shapes:
        return
    for dim, size in zip(spec.shape, tensor.shape, strict=True):
        if not isinstance(dim, str):
            continue
        first, elsewhere = sizes.setdefault(dim, (size, spec.name))
        if first != size:
            raise Unsupported(
                f"{where} has {dim} = {size}, {elsewhere!r} has {dim} = {first}; in the program they are equal",
                fix="compile it with one size for all",
            )


def _fits(spec: TensorSpec, shape: tuple[int, ...]) -> bool:
    dims = spec.shape or ()
    return len(dims) == len(shape) and all(
        dim == size for dim, size in zip(dims, shape, strict=True) if isinstance(dim, int)
    )


def _check_dtype(where: str, spec: TensorSpec, tensor: ModelTensor) -> bool:
    """Whether the caller has to convert."""
    if not tensor.dtype_known or tensor.dtype == spec.dtype:
        return False
    if (spec.dtype, tensor.dtype) == (np.dtype(np.float16), np.dtype(np.float32)):
        return True
    raise Unsupported(
        f"{where} is {tensor.dtype}, the program's is {spec.dtype}",
        fix="compile the program's own ONNX model: hetero compile MODEL.onnx --target SOC",
    )
