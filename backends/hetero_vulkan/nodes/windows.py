"""Convolution and pooling nodes."""

from __future__ import annotations

import numpy as np

from hetero.errors import Unsupported
from hetero.graph.node import Node
from hetero.graph.ops.convolution import Window as GraphWindow
from hetero.tensors import Array
from hetero_vulkan.nodes.elementwise import FUSED, function_of
from hetero_vulkan.nodes.lowering import FLOAT, Lowering, only, register
from hetero_vulkan.ops.gemm import gemm
from hetero_vulkan.ops.movement import copy, series
from hetero_vulkan.ops.tensors import Tensor
from hetero_vulkan.ops.windows import Window, conv, image, pool

LEAST_CHANNELS = 16
"""Of a convolution that is done as a product."""


def activation_of(node: Node) -> str:
    """The activation of a fused node, as shaders call it.

    Raises:
        Unsupported: They do not have it.
    """
    name = node.text("activation")
    if name and name not in FUSED:
        raise Unsupported(f"{node.op} with the activation {name}")
    return function_of(node, name) if name else ""


def window_of(node: Node, kernel: tuple[int, ...]) -> tuple[Window, tuple[int, int]]:
    """The window, and the kernel's sizes; of a signal's, height 1."""
    if len(kernel) not in (1, 2):
        raise Unsupported(f"{node.op} over {len(kernel)} dimensions, the device's shaders have 1 and 2")
    found = GraphWindow.of(node, kernel)
    lines = len(kernel) == 1
    strides, dilations = (((1,) if lines else ()) + steps for steps in (found.strides, found.dilations))
    pads = (((0, 0),) if lines else ()) + found.pads
    (top, bottom), (left, right) = pads
    height, width = ((1,) if lines else ()) + kernel
    return Window((strides[0], strides[1]), (dilations[0], dilations[1]), (top, left, bottom, right)), (height, width)


def _conv(work: Lowering, node: Node) -> None:
    for place in range(len(node.inputs)):
        if node.inputs[place]:
            only(node, work.type(node, place), FLOAT)
    weight = work.graph.constants.get(node.inputs[1])
    if weight is not None and weight.ndim == 3 and _is_product(node, weight.shape):
        _conv_by_product(work, node, weight)
        return
    x, kernel, y = work.input(node), work.input(node, 1), work.output(node)
    window, _ = window_of(node, kernel.shape[2:])
    if len(x.shape) == 3:
        x, kernel, y = image(x), image(kernel), image(y)
    work.add(
        conv(
            work.device,
            x,
            kernel,
            y,
            window,
            groups=node.integer("group", 1),
            bias=work.whole(node, 2),
            activation=activation_of(node),
        )
    )


def _is_product(node: Node, shape: tuple[int, ...]) -> bool:
    dilations = node.integers("dilations") or (1,)
    return node.integer("group", 1) == 1 and set(dilations) == {1} and shape[1] >= LEAST_CHANNELS


def _conv_by_product(work: Lowering, node: Node, weight: Array) -> None:
    """A signal's convolution as a product: channels last and padded, its rows overlap.

    Row t of A is the elements from t * stride on, of `kernel` places with all their channels.
    """
    device = work.device
    x, y = work.input(node), work.output(node)
    batch, channels, length = x.shape
    out, places = y.shape[1:]
    kernel = weight.shape[2]
    strides, pads = node.integers("strides") or (1,), node.integers("pads") or (0, 0)
    padded = work.spare((batch, length + sum(pads), channels), x.kind)
    if any(pads):
        work.add(series(device, padded))
    work.add(copy(device, x.transposed(0, 2, 1), padded.sliced(1, pads[0], pads[0] + length)))
    step = padded.shape[1] * channels
    rows = Tensor(padded.buffer, (batch, places, kernel * channels), x.kind, strides=(step, strides[0] * channels, 1))
    result = work.spare((batch, places, out), y.kind)
    matrix = np.ascontiguousarray(weight.transpose(2, 1, 0).reshape(kernel * channels, out))
    b = work.matrix(matrix)
    work.add(
        gemm(
            device,
            rows,
            b.tensor,
            result,
            bias=work.whole(node, 2),
            scale=b.scale,
            activation=activation_of(node),
            tuning=work.gemm_tuning,
        )
    )
    work.add(copy(device, result.transposed(0, 2, 1), y))


register(["Conv"], _conv)


def _pool(work: Lowering, node: Node) -> None:
    only(node, work.type(node), FLOAT)
    x, y = work.input(node), work.output(node)
    window, kernel = window_of(node, node.integers("kernel_shape"))
    if len(x.shape) == 3:
        x, y = image(x), image(y)
    how = "max" if node.op == "MaxPool" else "mean"
    counted = bool(node.integer("count_include_pad"))
    work.add(pool(work.device, how, x, y, kernel, window, count_padding=counted))  # type: ignore[arg-type]


register(["AveragePool", "MaxPool"], _pool)
