"""Nodes of quantised models."""

from __future__ import annotations

import math

import numpy as np

from hetero.errors import Unsupported
from hetero.graph.node import Node
from hetero_vulkan.nodes.lowering import FLOAT, INT, SMALL, Lowering, only, register
from hetero_vulkan.nodes.windows import window_of
from hetero_vulkan.ops.elementwise import binary, unary
from hetero_vulkan.ops.gemm import gemm
from hetero_vulkan.ops.quantised import quantise
from hetero_vulkan.ops.tensors import Tensor
from hetero_vulkan.ops.windows import conv, image

EXACT = 1 << 24
"""Up to here sums of whole numbers in float32 are exact."""


def _convert(work: Lowering, node: Node) -> None:
    how = {"QuantizeLinear": "quantise", "DequantizeLinear": "dequantise", "FakeQuantize": "both"}[node.op]
    only(node, work.type(node), *((*SMALL, INT) if how == "dequantise" else (FLOAT,)))
    dtype = np.dtype(node.text("to", "uint8"))
    if how != "dequantise" and dtype not in SMALL:
        raise Unsupported(f"{node.op} to {dtype} is not computed on the device")
    limits = np.iinfo(dtype)
    work.add(
        quantise(
            work.device,
            how,  # type: ignore[arg-type]
            work.input(node),
            work.output(node),
            work.as_kind(work.input(node, 1), "f32"),
            work.option(node, 2),
            axis=node.integer("axis", 1) % max(1, work.type(node).rank),
            block=node.integer("block"),
            limits=(int(limits.min), int(limits.max)),
        )
    )


register(["DequantizeLinear", "FakeQuantize", "QuantizeLinear"], _convert)


def _less_zero(work: Lowering, node: Node, place: int, axis: int) -> Tensor:
    """An input without its zero point, as floats."""
    x, zero = work.input(node, place), work.option(node, place + 2)
    shifted = work.spare(x.shape)
    if zero is None:
        work.add(unary(work.device, "cast", x, shifted))
        return shifted
    if zero.size == 1:
        zero = zero.reshaped()
    elif len(zero.shape) == 1:
        zero = zero.reshaped(*(zero.size if i == axis else 1 for i in range(len(x.shape))))
    work.add(binary(work.device, "sub", x, zero, shifted))
    return shifted


def _terms(work: Lowering, node: Node, count: int) -> None:
    """Refuse sums of so many products that might not be exact.

    Raises:
        Unsupported: They are.
    """
    most = 1
    for place in range(2):
        dtype = work.type(node, place).dtype
        most *= 255 if node.input(place + 2) or dtype == np.uint8 else 128
    if count * most > EXACT:
        raise Unsupported(
            f"{node.op} of sums of {count} products, exact up to {EXACT // most}, is not computed on the device"
        )


def _matmul(work: Lowering, node: Node) -> None:
    k = work.type(node).shape[-1]
    a_shape, b_shape = work.type(node).shape, work.type(node, 1).shape
    if len(b_shape) > 2 and len(b_shape) != len(a_shape):
        raise Unsupported(f"{node.op} of {len(a_shape)} and {len(b_shape)} dimensions is not computed on the device")
    _terms(work, node, k)
    a, b = _less_zero(work, node, 0, len(a_shape) - 2), _less_zero(work, node, 1, len(b_shape) - 1)
    y = work.output(node)
    if len(b_shape) == 2:
        a = a.reshaped(math.prod(a_shape[:-1]), k)
    elif a_shape[:-2] == b_shape[:-2]:
        batch = math.prod(a_shape[:-2])
        a, b = a.reshaped(batch, *a_shape[-2:]), b.reshaped(batch, *b_shape[-2:])
    else:
        raise Unsupported(f"{node.op} of batches {a_shape[:-2]} and {b_shape[:-2]} is not computed on the device")
    sums = work.spare((*a.shape[:-1], b.shape[-1]))
    work.add(gemm(work.device, a, b, sums, tuning=work.gemm_tuning, scratch=work.scratch))
    work.add(unary(work.device, "cast", sums, y.reshaped(*sums.shape)))


register(["MatMulInteger"], _matmul)


def _conv(work: Lowering, node: Node) -> None:
    _terms(work, node, math.prod(work.type(node, 1).shape[1:]))
    x, weight = _less_zero(work, node, 0, 1), _less_zero(work, node, 1, 0)
    y = work.output(node)
    window, _ = window_of(node, weight.shape[2:])
    if len(x.shape) == 3:
        x, weight, y = image(x), image(weight), image(y)
    sums = work.spare(y.shape)
    work.add(conv(work.device, x, weight, sums, window, groups=node.integer("group", 1)))
    work.add(unary(work.device, "cast", sums, y))


register(["ConvInteger"], _conv)
