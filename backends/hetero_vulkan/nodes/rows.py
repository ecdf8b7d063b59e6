"""Nodes that take dimensions together: reductions and normalisations."""

from __future__ import annotations

import math

import numpy as np

from hetero.graph.node import Node
from hetero_vulkan.nodes.lowering import BOOL, FLOAT, SMALL, Lowering, only, register
from hetero_vulkan.ops.elementwise import binary, unary
from hetero_vulkan.ops.rows import Reduction, normalise, reduce
from hetero_vulkan.ops.tensors import Tensor

_REDUCTIONS: dict[str, Reduction] = {
    "ReduceMax": "max",
    "ReduceMean": "mean",
    "ReduceMin": "min",
    "ReduceProd": "product",
    "ReduceSum": "sum",
}


def _reduce(work: Lowering, node: Node) -> None:
    if work.type(node).dtype in (BOOL, *SMALL) and node.op in ("ReduceMax", "ReduceMin") and work.type(node).size:
        # As floats, which are exact so far.
        found = work.spare(work.output(node).shape)
        how = _REDUCTIONS[node.op]
        work.add(reduce(work.device, how, work.input(node), found, node.integers("axes"), work.scratch))
        work.add(unary(work.device, "cast", found, work.output(node)))
        return
    only(node, work.type(node), FLOAT)
    x, y = work.input(node), work.output(node)
    axes, device = node.integers("axes"), work.device
    if node.op in ("ReduceL2", "ReduceSumSquare"):
        squares = work.spare(x.shape)
        work.add(binary(device, "mul", x, x, squares))
        x = squares
    elif node.op == "ReduceL1":
        sizes = work.spare(x.shape)
        work.add(unary(device, "abs", x, sizes))
        x = sizes
    root = node.op == "ReduceL2"
    target = work.spare(y.shape) if root else y
    how = _REDUCTIONS.get(node.op, "sum")
    work.add(reduce(device, how, x, target, axes, work.scratch))
    if root:
        work.add(unary(device, "sqrt", target, y))


register([*_REDUCTIONS, "ReduceL1", "ReduceL2", "ReduceSumSquare"], _reduce)


def _softmax(work: Lowering, node: Node) -> None:
    only(node, work.type(node), FLOAT)
    how = "softmax" if node.op == "Softmax" else "log_softmax"
    work.add(normalise(work.device, how, work.input(node), work.output(node), node.integer("axis", -1)))  # type: ignore[arg-type]


register(["Softmax", "LogSoftmax"], _softmax)


def _layer_norm(work: Lowering, node: Node) -> None:
    only(node, work.type(node), FLOAT)
    x, y = work.input(node), work.output(node)
    axis = node.integer("axis", -1) % len(x.shape)
    length = math.prod(x.shape[axis:])
    weight, bias = work.whole(node, 1), work.whole(node, 2)
    known = work.graph.constants.get(node.inputs[1])
    if known is not None and (known == 1).all():
        weight = None
    apart = any(each is not None and each.size != length for each in (weight, bias))
    flat = (math.prod(x.shape[:axis]), length)
    # What is broadcast to a row comes after it.
    target = work.spare(x.shape) if apart else y
    work.add(
        normalise(
            work.device,
            "layer_norm",
            x.reshaped(*flat),
            target.reshaped(*flat),
            weight=None if weight is None or apart else weight.reshaped(length),
            bias=None if bias is None or apart else bias.reshaped(length),
            epsilon=node.number("epsilon", 1e-5),
        )
    )
    if apart and weight is not None:
        scaled = y if bias is None else work.spare(x.shape)
        work.add(binary(work.device, "mul", target, weight, scaled))
        target = scaled
    if apart and bias is not None:
        work.add(binary(work.device, "add", target, bias, y))


register(["LayerNormalization"], _layer_norm)


def _batch_norm(work: Lowering, node: Node) -> None:
    only(node, work.type(node), FLOAT)
    device, y = work.device, work.output(node)
    x, scale, bias, mean, variance = work.inputs(node)
    channels = scale.shape

    def seen(tensor: Tensor) -> Tensor:
        return tensor.reshaped(*channels, *(1,) * (len(x.shape) - 2))

    epsilon = work.known(np.array(node.number("epsilon", 1e-5), np.float32))
    shifted, root, factor = (work.spare(channels) for _ in range(3))
    work.add(binary(device, "add", variance, epsilon, shifted))
    work.add(unary(device, "sqrt", shifted, root))
    work.add(binary(device, "div", scale, root, factor))
    centred, scaled = work.spare(x.shape), work.spare(x.shape)
    work.add(binary(device, "sub", x, seen(mean), centred))
    work.add(binary(device, "mul", centred, seen(factor), scaled))
    work.add(binary(device, "add", scaled, seen(bias), y))


register(["BatchNormalization"], _batch_norm)
