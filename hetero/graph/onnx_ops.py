"""What becomes of each ONNX operator: a rule reads the model's node and emits ops of the table."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from hetero.graph.elements import dtype_of
from hetero.graph.importing import Importing, OnnxNode
from hetero.graph.onnx_composed import COMPOSED_RULES
from hetero.graph.onnx_indexing import INDEXING_RULES
from hetero.graph.onnx_quantised import QUANTISED_RULES
from hetero.graph.onnx_shapes import SHAPE_RULES
from hetero.graph.onnx_upsampling import UPSAMPLING_RULES
from hetero.graph.onnx_windows import WINDOW_RULES
from hetero.graph.ops.reduction import REDUCTIONS

Rule = Callable[[Importing, OnnxNode], None]

# fmt: off
_PLAIN = (
    "Abs", "Add", "And", "Ceil", "Cos", "Div", "Equal", "Erf", "Exp", "Floor", "Greater", "GreaterOrEqual", "HardSwish",
    "Less", "LessOrEqual", "Log", "MatMul", "Max", "Min", "Mul", "Neg", "Not", "Or", "PRelu", "Pow", "Reciprocal",
    "Relu", "Round", "Sigmoid", "Sign", "Sin", "Softplus", "Sqrt", "Sub", "Tanh", "Where", "Xor",
)
# fmt: on
#: Operators that are ops of the same name, with the attributes that they have in common.
_SAME: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(_PLAIN, ()),
    "Elu": ("alpha",),
    "Gelu": ("approximate",),
    "HardSigmoid": ("alpha", "beta"),
    "LeakyRelu": ("alpha",),
    "Mod": ("fmod",),
}


def rule_of(node: OnnxNode) -> Rule:
    """The rule for a node.

    Raises:
        Unsupported: There is none.
    """
    rule = RULES.get(node.op) if not node.domain else None
    if rule is None:
        raise node.refused("the operator is not supported")
    return rule


def _same(importing: Importing, node: OnnxNode) -> None:
    node.only(*_SAME[node.op])
    node.single()
    importing.emit(node, node.op, importing.inputs(node), node.outputs[0], **node.attributes)


def _concat(importing: Importing, node: OnnxNode) -> None:
    node.only("axis")
    axis = node.must("axis") % importing.type_of(node).rank
    importing.emit(node, "Concat", importing.inputs(node), node.outputs[0], axis=axis)


def _alias(importing: Importing, node: OnnxNode) -> None:
    importing.alias(node.inputs[0], node.outputs[0])


def _dropout(importing: Importing, node: OnnxNode) -> None:
    node.only("seed", "ratio")
    node.single()
    if node.has(2) and importing.needed(node, 2, "training_mode").any():
        raise node.refused("it is in training mode")
    _alias(importing, node)


def _constant(importing: Importing, node: OnnxNode) -> None:
    (kind, value), *rest = node.attributes.items()
    dtypes: dict[str, type | None] = {"value": None, "value_float": np.float32, "value_floats": np.float32}
    dtypes |= {"value_int": np.int64, "value_ints": np.int64}
    if rest or kind not in dtypes:
        raise node.refused(f"a constant given as {', '.join(node.attributes)} is not supported")
    importing.define(node.outputs[0], np.asarray(value, dtype=dtypes[kind]))


def _cast(importing: Importing, node: OnnxNode) -> None:
    node.only("to", "saturate", "round_mode")
    if node.op == "CastLike":
        dtype = importing.type_of(node, 1).dtype
    else:
        dtype = dtype_of(node.must("to"), f"the target of {node.name!r}")
    if importing.type_of(node).dtype == dtype:
        _alias(importing, node)
    else:
        importing.emit(node, "Cast", importing.inputs(node)[:1], node.outputs[0], to=str(dtype))


def _clip(importing: Importing, node: OnnxNode) -> None:
    node.only("min", "max")
    x, output = importing.name(node.inputs[0]), node.outputs[0]
    if not any(node.has(place) and importing.known(node, place) is None for place in (1, 2)):
        bounds = dict(node.attributes)
        bounds |= {name: importing.needed(node, i, name).item() for i, name in ((1, "min"), (2, "max")) if node.has(i)}
        importing.emit(node, "Clip", (x,), output, **bounds)
        return
    if node.has(1):
        x = importing.emit(node, "Max", (x, importing.name(node.inputs[1])), output if not node.has(2) else None)
    if node.has(2):
        importing.emit(node, "Min", (x, importing.name(node.inputs[2])), output)


def _many(importing: Importing, node: OnnxNode) -> None:
    """Sum and Mean of any number of inputs."""
    node.only()
    total, *rest = importing.inputs(node)
    kind = importing.types[total]
    mean = node.op == "Mean" and len(rest) > 0
    if not rest:
        _alias(importing, node)
    for place, value in enumerate(rest):
        last = place == len(rest) - 1 and not mean
        total = importing.emit(node, "Add", (total, value), node.outputs[0] if last else None)
    if mean:
        count = importing.constant(node, np.array(len(rest) + 1, dtype=kind.dtype))
        importing.emit(node, "Div", (total, count), node.outputs[0])


def _gemm(importing: Importing, node: OnnxNode) -> None:
    node.only("alpha", "beta", "transA", "transB")
    a, b, *_ = importing.inputs(node)
    dtype = importing.types[a].dtype
    if node.get("transA", 0):
        a = importing.emit(node, "Transpose", (a,), perm=(1, 0))
    if node.get("transB", 0):
        b = importing.emit(node, "Transpose", (b,), perm=(1, 0))

    def scaled(value: str, factor: float, output: str | None = None) -> str:
        number = importing.constant(node, np.array(factor, dtype=dtype))
        return importing.emit(node, "Mul", (value, number), output)

    alpha, beta, biased = node.get("alpha", 1.0), node.get("beta", 1.0), node.has(2)
    output = node.outputs[0]
    product = importing.emit(node, "MatMul", (a, b), None if alpha != 1 or biased else output)
    if alpha != 1:
        product = scaled(product, alpha, None if biased else output)
    if biased:
        c = importing.name(node.inputs[2])
        importing.emit(node, "Add", (product, c if beta == 1 else scaled(c, beta)), output)


def _reduce(importing: Importing, node: OnnxNode) -> None:
    node.only("axes", "keepdims", "noop_with_empty_axes")
    x = importing.type_of(node)
    axes = importing.needed(node, 1, "axes").tolist() if node.has(1) else node.get("axes", [])
    if not axes and node.get("noop_with_empty_axes", 0):
        # Nothing is reduced, but squares and absolute values are taken all the same.
        chosen: tuple[int, ...] = ()
    else:
        chosen = tuple(sorted(axis % x.rank for axis in axes)) if axes else tuple(range(x.rank))
    keep = node.get("keepdims", 1)
    importing.emit(node, node.op, importing.inputs(node)[:1], node.outputs[0], axes=chosen, keepdims=keep)


def _arg(importing: Importing, node: OnnxNode) -> None:
    node.only("axis", "keepdims", "select_last_index")
    attributes = {"keepdims": 1, "select_last_index": 0, **node.attributes}
    attributes["axis"] = node.get("axis", 0) % importing.type_of(node).rank
    importing.emit(node, node.op, importing.inputs(node), node.outputs[0], **attributes)


def _softmax(importing: Importing, node: OnnxNode) -> None:
    node.only("axis")
    x, value = importing.type_of(node), importing.name(node.inputs[0])
    if importing.opset >= 13:
        axis = node.get("axis", -1) % max(x.rank, 1)
        importing.emit(node, node.op, (value,), node.outputs[0], axis=axis)
        return
    axis = node.get("axis", 1) % x.rank
    if axis == x.rank - 1:
        importing.emit(node, node.op, (value,), node.outputs[0], axis=axis)
        return
    # Before opset 13 all dimensions from the axis on were one.
    rows = math.prod(x.shape[:axis])
    flat = importing.emit(node, "Reshape", (value,), shape=(rows, x.size // max(rows, 1)))
    flat = importing.emit(node, node.op, (flat,), axis=1)
    importing.emit(node, "Reshape", (flat,), node.outputs[0], shape=x.shape)


def _layer_norm(importing: Importing, node: OnnxNode) -> None:
    node.only("axis", "epsilon", "stash_type")
    node.single()
    axis = node.get("axis", -1) % importing.type_of(node).rank
    epsilon = node.get("epsilon", 1e-5)
    importing.emit(node, node.op, importing.inputs(node), node.outputs[0], axis=axis, epsilon=epsilon)


def _batch_norm(importing: Importing, node: OnnxNode) -> None:
    node.only("epsilon", "momentum", "training_mode", "spatial")
    node.single()
    if node.get("training_mode", 0) or not node.get("spatial", 1):
        raise node.refused("only normalisation by the stored mean of each channel is supported")
    importing.emit(node, node.op, importing.inputs(node), node.outputs[0], epsilon=node.get("epsilon", 1e-5))


def _cumsum(importing: Importing, node: OnnxNode) -> None:
    node.only("exclusive", "reverse")
    axis = int(importing.needed(node, 1, "the axis").item()) % importing.type_of(node).rank
    importing.emit(node, "CumSum", importing.inputs(node)[:1], node.outputs[0], axis=axis, **node.attributes)


def _trilu(importing: Importing, node: OnnxNode) -> None:
    node.only("upper")
    k = int(importing.needed(node, 1, "k").item()) if node.has(1) else 0
    importing.emit(node, "Trilu", importing.inputs(node)[:1], node.outputs[0], upper=node.get("upper", 1), k=k)


#: Every operator of ONNX's own domain that can be imported; `If` is the import's own affair.
RULES: dict[str, Rule] = {
    **dict.fromkeys(_SAME, _same),
    **dict.fromkeys(REDUCTIONS, _reduce),
    **COMPOSED_RULES,
    **INDEXING_RULES,
    **QUANTISED_RULES,
    **SHAPE_RULES,
    **UPSAMPLING_RULES,
    **WINDOW_RULES,
    "ArgMax": _arg,
    "ArgMin": _arg,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "CastLike": _cast,
    "Clip": _clip,
    "Concat": _concat,
    "Constant": _constant,
    "CumSum": _cumsum,
    "Dropout": _dropout,
    "Gemm": _gemm,
    "Identity": _alias,
    "LayerNormalization": _layer_norm,
    "LogSoftmax": _softmax,
    "Mean": _many,
    "Softmax": _softmax,
    "Sum": _many,
    "Trilu": _trilu,
}
