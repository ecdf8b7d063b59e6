"""Rules for ONNX's operators of quantised models."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from hetero.graph.elements import dtype_of
from hetero.graph.importing import Importing, OnnxNode
from hetero.graph.node import Attribute
from hetero.graph.onnx_windows import window_of

_WINDOW = ("auto_pad", "dilations", "kernel_shape", "pads", "strides", "group")


def _where(importing: Importing, node: OnnxNode) -> dict[str, Attribute]:
    """The attributes that say which elements have one scale."""
    rank = importing.type_of(node).rank
    axis, block = node.get("axis", 1), node.get("block_size", 0)
    scale = importing.type_of(node, 1)
    if scale.size == 1 and scale.rank < 2:
        return {}
    return {"axis": axis % rank, **({"block": block} if block else {})}


def _quantize(importing: Importing, node: OnnxNode) -> None:
    # `saturate` concerns float8 alone, which is refused.
    node.only("axis", "block_size", "output_dtype", "precision", "saturate")
    if node.get("precision", 0) not in (0, 1):
        raise node.refused("divisions in another precision than float32")
    given = node.get("output_dtype", 0)
    if node.has(2):
        dtype = importing.type_of(node, 2).dtype
    else:
        dtype = dtype_of(given, f"the output of {node.name!r}") if given else np.dtype(np.uint8)
    if importing.type_of(node).dtype.kind in "iu":
        raise node.refused("it quantises integers")
    importing.emit(
        node, "QuantizeLinear", importing.inputs(node), node.outputs[0], to=str(dtype), **_where(importing, node)
    )


def _dequantize(importing: Importing, node: OnnxNode) -> None:
    node.only("axis", "block_size", "output_dtype")
    given = node.get("output_dtype", 0)
    if given and dtype_of(given, f"the output of {node.name!r}") != importing.type_of(node, 1).dtype:
        raise node.refused("its result is of another type than its scale")
    importing.emit(node, "DequantizeLinear", importing.inputs(node), node.outputs[0], **_where(importing, node))


def _dynamic(importing: Importing, node: OnnxNode) -> None:
    node.only()
    (x,) = importing.inputs(node)

    def number(value: float) -> str:
        return importing.constant(node, np.array(value, np.float32))

    def extreme(op: str, among: str) -> str:
        found, rank = x, importing.types[x].rank
        # Rows first: devices take them one by one, and all of them at once.
        for axes in ((rank - 1,), tuple(range(rank - 1))) if rank > 1 else (tuple(range(rank)),):
            found = importing.emit(node, op, (found,), axes=axes, keepdims=1)
        found = importing.emit(node, "Reshape", (found,), shape=())
        return importing.emit(node, among, (found, number(0)))

    low, high = extreme("ReduceMin", "Min"), extreme("ReduceMax", "Max")
    reach = importing.emit(node, "Sub", (high, low))
    # Of nothing but zeros the scale is 1.
    none = importing.emit(node, "Cast", (importing.emit(node, "Equal", (reach, number(0))),), to="float32")
    step = importing.emit(node, "Div", (reach, number(255)))
    scale = importing.emit(node, "Add", (step, none), node.outputs[1] if len(node.outputs) > 1 else None)
    place = importing.emit(node, "Div", (importing.emit(node, "Neg", (low,)), scale))
    place = importing.emit(node, "Clip", (importing.emit(node, "Round", (place,)),), min=0.0, max=255.0)
    zero = importing.emit(node, "Cast", (place,), node.outputs[2] if len(node.outputs) > 2 else None, to="uint8")
    importing.emit(node, "QuantizeLinear", (x, scale, zero), node.outputs[0], to="uint8")


def _matmul_integer(importing: Importing, node: OnnxNode) -> None:
    node.only()
    if importing.type_of(node).rank < 2 or importing.type_of(node, 1).rank < 2:
        raise node.refused("products of vectors")
    importing.emit(node, node.op, importing.inputs(node), node.outputs[0])


def _conv_integer(importing: Importing, node: OnnxNode) -> None:
    node.only(*_WINDOW)
    window = window_of(importing, node, importing.type_of(node, 1).shape[2:])
    importing.emit(node, node.op, importing.inputs(node), node.outputs[0], group=node.get("group", 1), **window)


def _dequantized(importing: Importing, node: OnnxNode, place: int, axis: int) -> str:
    """An input with its scale and zero point behind it, as floats."""
    x, scale, zero = (importing.name(node.inputs[place + i]) for i in range(3))
    where: dict[str, Attribute] = {}
    if importing.types[scale].size > 1:
        where["axis"] = axis % importing.types[x].rank
    return importing.emit(node, "DequantizeLinear", (x, scale, zero), None, **where)


def _qlinear_matmul(importing: Importing, node: OnnxNode) -> None:
    node.only()
    a, b = _dequantized(importing, node, 0, -2), _dequantized(importing, node, 3, -1)
    product = importing.emit(node, "MatMul", (a, b))
    _requantized(importing, node, product, 6)


def _requantized(importing: Importing, node: OnnxNode, value: str, place: int) -> None:
    scale, zero = (importing.name(node.inputs[place + i]) for i in range(2))
    dtype = str(importing.types[zero].dtype)
    importing.emit(node, "QuantizeLinear", (value, scale, zero), node.outputs[0], to=dtype)


def _qlinear_conv(importing: Importing, node: OnnxNode) -> None:
    node.only(*_WINDOW)
    x, weight = _dequantized(importing, node, 0, 1), _dequantized(importing, node, 3, 0)
    bias: tuple[str, ...] = ()
    if node.has(8):
        # The bias counts in steps of both scales.
        whole = importing.emit(node, "Cast", (importing.name(node.inputs[8]),), to="float32")
        step = importing.emit(node, "Mul", (importing.name(node.inputs[1]), importing.name(node.inputs[4])))
        scaled = importing.emit(node, "Mul", (whole, step))
        bias = (importing.emit(node, "Reshape", (scaled,), shape=importing.types[whole].shape),)
    window = window_of(importing, node, importing.types[weight].shape[2:])
    made = importing.emit(node, "Conv", (x, weight, *bias), group=node.get("group", 1), **window)
    _requantized(importing, node, made, 6)


QUANTISED_RULES: Mapping[str, Callable[[Importing, OnnxNode], None]] = {
    "ConvInteger": _conv_integer,
    "DequantizeLinear": _dequantize,
    "DynamicQuantizeLinear": _dynamic,
    "MatMulInteger": _matmul_integer,
    "QLinearConv": _qlinear_conv,
    "QLinearMatMul": _qlinear_matmul,
    "QuantizeLinear": _quantize,
}
