"""ONNX -> `Graph`: shapes made concrete, versions of the operator set made one, what can be known known."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hetero.errors import HeteroError, OptionError, ProgramInvalid, Unsupported
from hetero.graph.elements import array_of, dtype_of
from hetero.graph.importing import Importing, OnnxNode
from hetero.graph.ir import Graph
from hetero.graph.node import Array, Shape, ValueType
from hetero.graph.onnx_ops import rule_of
from hetero.graph.passes.tidy import drop_dead
from hetero.onnx_file import open_onnx
from hetero.tensors import shape_text

if TYPE_CHECKING:
    import onnx

#: Before 7 operators broadcast in another way; later than 28 nobody has looked at what changed.
_OPSETS = range(7, 29)


def import_onnx(
    model: Path | bytes | onnx.ModelProto,
    sizes: Mapping[str, int | Sequence[int]] | None = None,
    values: Mapping[str, Array] | None = None,
) -> Graph:
    """The graph of an ONNX model.

    Shape computations are carried out on the way, so every shape is concrete and no `Shape`, `Size`, `Range` or
    `ConstantOfShape` is left. Variants of one operator become one op: `Squeeze`, `Unsqueeze` and `Flatten` are
    `Reshape`, `Split` is some `Slice`s, `Gemm` is `MatMul` with what goes with it, axes and bounds are attributes.
    `docs/graph.md` has the list. An `If` whose condition is known is replaced by its branch.

    Args:
        model: A file (external data is read from beside it), its bytes, or a parsed model with its data in it.
        sizes: The size of symbolic dimensions by their name (`{"batch": 1}`), or an input's whole shape by the input's
            name (`{"mel": (1, 80, 3000)}`).
        values: Inputs that are always the same, by name: they become constants.

    Raises:
        ProgramInvalid: No ONNX model, truncated, or one that contradicts itself.
        Unsupported: An operator, attribute or dtype that is not known, named with its node; a shape that depends on an
            input's values.
        OptionError: A size that is missing, or of a dimension that is not there.
    """
    proto = _parsed(model)
    opset = _opset(proto)
    importing = Importing(opset, values or {})
    graph = proto.graph
    inputs = _inputs(graph, sizes or {}, importing.bound)
    importing.types |= inputs
    _initializers(graph, importing)
    _run(graph.node, importing, _used(graph))
    names = [output.name for output in graph.output]
    for name in names:
        importing.deliver(name)
    built = Graph.build(
        graph.name or "graph",
        {name: kind for name, kind in inputs.items() if name not in importing.bound},
        names,
        importing.nodes,
        importing.constants,
    )
    return drop_dead(built)


def _parsed(model: Path | bytes | onnx.ModelProto) -> onnx.ModelProto:
    import onnx
    from google.protobuf.message import DecodeError

    if isinstance(model, Path):
        open_onnx(model)
        proto = onnx.load_model(model)
    elif isinstance(model, bytes):
        try:
            proto = onnx.load_model_from_string(model)
        except DecodeError:
            raise ProgramInvalid(f"{len(model)} bytes that are no ONNX model, or a truncated one") from None
    else:
        proto = model
    if proto.functions:
        import onnx.inliner

        proto = onnx.inliner.inline_local_functions(proto)
    return proto


def _opset(proto: onnx.ModelProto) -> int:
    versions = {entry.domain: entry.version for entry in proto.opset_import}
    version = versions.get("", versions.get("ai.onnx", 0))
    if version not in _OPSETS:
        raise Unsupported(
            f"the model is of opset {version}, expected {_OPSETS.start} to {_OPSETS.stop - 1}",
            fix="export it with an opset of 17, or convert it with onnx.version_converter",
        )
    return int(version)


def _inputs(
    graph: onnx.GraphProto, sizes: Mapping[str, int | Sequence[int]], bound: Mapping[str, Array]
) -> dict[str, ValueType]:
    """The types of the inputs that are not weights, with every dimension given a size."""
    weights = {tensor.name for tensor in graph.initializer}
    values = [value for value in graph.input if value.name not in weights]
    names = {value.name for value in values}
    symbols = {dim.dim_param for value in values for dim in value.type.tensor_type.shape.dim if dim.dim_param}
    unknown = [name for name in sizes if name not in names and name not in symbols]
    if unknown:
        raise OptionError(
            f"the model has no input or dimension {unknown[0]!r}",
            fix=f"inputs: {', '.join(sorted(names))}; dimensions: {', '.join(sorted(symbols)) or 'none'}",
        )
    surplus = [name for name in bound if name not in names]
    if surplus:
        raise OptionError(f"the model has no input {surplus[0]!r}", fix=f"inputs: {', '.join(sorted(names))}")
    types = {}
    for value in values:
        if value.type.WhichOneof("value") != "tensor_type":
            raise Unsupported(f"the input {value.name!r} is no tensor")
        dtype = dtype_of(value.type.tensor_type.elem_type, f"the input {value.name!r}")
        if value.name not in bound:
            types[value.name] = ValueType(dtype, _shape(value, sizes))
            continue
        types[value.name] = ValueType.of(np.asarray(bound[value.name]))
        if types[value.name].dtype != dtype:
            raise OptionError(f"the value of {value.name!r} is {types[value.name]}, expected {dtype}")
    return types


def _shape(value: onnx.ValueInfoProto, sizes: Mapping[str, int | Sequence[int]]) -> Shape:
    declared = value.type.tensor_type
    dims = list(declared.shape.dim)
    whole = sizes.get(value.name)
    if whole is not None and not isinstance(whole, int):
        shape = tuple(int(size) for size in whole)
        fits = not declared.HasField("shape") or (
            len(shape) == len(dims)
            and all(
                not dim.HasField("dim_value") or dim.dim_value == size for dim, size in zip(dims, shape, strict=True)
            )
        )
        if not fits or any(size < 0 for size in shape):
            wanted = shape_text(dim.dim_param or (dim.dim_value if dim.HasField("dim_value") else None) for dim in dims)
            raise OptionError(f"{value.name!r} is {wanted}, {list(shape)} does not fit")
        return shape
    found = []
    for place, dim in enumerate(dims):
        size = dim.dim_value if dim.HasField("dim_value") else sizes.get(dim.dim_param) if dim.dim_param else None
        if not isinstance(size, int):
            raise OptionError(
                f"dimension {place} of the input {value.name!r} ({dim.dim_param or 'unnamed'}) has no size",
                fix=f"give it: sizes={{{(dim.dim_param or value.name)!r}: ...}}",
            )
        found.append(size)
    if not declared.HasField("shape"):
        raise OptionError(
            f"the input {value.name!r} is of unknown rank", fix=f"give its shape: sizes={{{value.name!r}: (...)}}"
        )
    return tuple(found)


def _initializers(graph: onnx.GraphProto, importing: Importing) -> None:
    if graph.sparse_initializer:
        raise Unsupported(f"{graph.sparse_initializer[0].values.name!r} is a sparse tensor", fix="export it dense")
    for tensor in graph.initializer:
        importing.define(tensor.name, array_of(tensor, f"the weight {tensor.name!r}"))


def _used(graph: onnx.GraphProto) -> set[str]:
    """The names of values that something takes, in the graph and in its subgraphs."""
    names = {output.name for output in graph.output}
    for node in graph.node:
        names.update(node.input)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                names |= _used(attribute.g)
    return names


def _run(nodes: Iterable[onnx.NodeProto], importing: Importing, used: Collection[str]) -> None:
    for proto in nodes:
        node = _node(proto, used)
        if node.op == "If" and not node.domain:
            _branch(node, importing, used)
            continue
        try:
            rule_of(node)(importing, node)
        except HeteroError:
            raise
        except (ValueError, IndexError, TypeError, OverflowError, AssertionError) as error:
            # A rule takes a node at its word; what contradicts itself shows as one of these.
            raise ProgramInvalid(f"{node.op} {node.name!r} is not valid: {error}") from error


def _node(proto: onnx.NodeProto, used: Collection[str]) -> OnnxNode:
    domain = "" if proto.domain == "ai.onnx" else proto.domain
    name = proto.name or next(iter(proto.output), "")
    return OnnxNode(
        proto.op_type,
        domain,
        tuple(proto.input),
        # Exporters name outputs that nobody takes; only the first one counts as wanted anyway.
        tuple(output if place == 0 or output in used else "" for place, output in enumerate(proto.output)),
        {entry.name: _attribute(entry, f"{proto.op_type} {name!r}") for entry in proto.attribute},
        name,
    )


def _attribute(entry: onnx.AttributeProto, where: str) -> Any:
    import onnx

    if entry.type == onnx.AttributeProto.TENSOR:
        return array_of(entry.t, f"the attribute {entry.name} of {where}")
    if entry.type == onnx.AttributeProto.GRAPH:
        return entry.g
    value = onnx.helper.get_attribute_value(entry)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return list(value) if entry.type in (onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS) else value


def _branch(node: OnnxNode, importing: Importing, used: Collection[str]) -> None:
    condition = importing.needed(node, 0, "the condition")
    taken = node.must("then_branch" if condition.reshape(-1)[0] else "else_branch")
    _initializers(taken, importing)
    _run(taken.node, importing, used)
    for outer, inner in zip(node.outputs, taken.output, strict=True):
        if outer:
            importing.alias(inner.name, outer)
