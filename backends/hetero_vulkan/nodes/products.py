"""Matrix products and attention."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hetero.errors import OptionError, Unsupported
from hetero.graph.node import Node
from hetero_vulkan.nodes.lowering import FLOAT, Lowering, only, register
from hetero_vulkan.nodes.windows import activation_of
from hetero_vulkan.ops.attention import attention
from hetero_vulkan.ops.elementwise import binary
from hetero_vulkan.ops.gemm import gemm
from hetero_vulkan.ops.rows import normalise
from hetero_vulkan.ops.tensors import Tensor, merged
from hetero_vulkan.weights import Matrix


def _right(work: Lowering, node: Node) -> Matrix:
    """The matrix on the right; where it is known, prepared as the shaders want it."""
    weight = work.graph.constants.get(node.inputs[1])
    if weight is not None and weight.ndim == 2 and weight.size:
        return work.matrix(weight)
    return Matrix(work.input(node, 1))


def _linear(work: Lowering, node: Node) -> None:
    only(node, work.type(node), FLOAT)
    x, y, residual = work.input(node), work.output(node), work.option(node, 3)
    # Of weights that the model has in int8; those that are made so have scales of their own.
    scale = work.whole(node, 4)
    rows = math.prod(x.shape[:-1])
    c, right = y.reshaped(rows, y.shape[-1]), _right(work, node)
    work.add(
        gemm(
            work.device,
            x.reshaped(rows, x.shape[-1]),
            right.tensor,
            c,
            bias=work.whole(node, 2),
            scale=right.scale if scale is None else scale,
            activation=activation_of(node),
            residual=None if residual is None else work.as_kind(residual, c.kind).reshaped(*c.shape),
            tuning=work.gemm_tuning,
            scratch=work.scratch,
        )
    )


register(["Linear"], _linear)


def _matmul(work: Lowering, node: Node) -> None:
    only(node, work.type(node), FLOAT)
    a, b, c = work.input(node), work.input(node, 1), work.output(node)
    if len(a.shape) == 1:
        a = a.reshaped(1, *a.shape)
    if len(b.shape) == 1:
        b = b.reshaped(*b.shape, 1)
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    c = c.reshaped(*batch, a.shape[-2], b.shape[-1])
    if len(b.shape) == 2:
        rows = math.prod(a.shape[:-1])
        c, a = c.reshaped(rows, c.shape[-1]), a.reshaped(rows, a.shape[-1])
        right = _right(work, node) if b.shape == work.type(node, 1).shape else Matrix(b)
        work.add(
            gemm(work.device, a, right.tensor, c, scale=right.scale, tuning=work.gemm_tuning, scratch=work.scratch)
        )
        return
    (outer, inner), steps = _two(
        batch, *(x.broadcast((*batch, *x.shape[-2:])).steps[:-2] for x in (a, b, c)), what="a product"
    )
    a, b, c = (_batched(x, (outer, inner), own) for x, own in zip((a, b, c), steps, strict=True))
    # What is the same for all of a dimension is told by its size.
    b = replace(
        b,
        shape=tuple(1 if not step else size for size, step in zip(b.shape[:2], b.steps[:2], strict=True)) + b.shape[2:],
    )
    _multiply(work, a, b, c)


register(["MatMul"], _matmul)


def _multiply(work: Lowering, a: Tensor, b: Tensor, c: Tensor, alpha: float = 1.0) -> None:
    work.add(gemm(work.device, a, b, c, alpha=alpha, tuning=work.gemm_tuning, scratch=work.scratch))


def _two(batch: Sequence[int], *steps: Sequence[int], what: str) -> tuple[tuple[int, int], list[tuple[int, int]]]:
    """Leading dimensions as two, and each operand's strides.

    Raises:
        Unsupported: They cannot be put together.
    """
    sizes, found = merged(batch, *steps)
    if len(sizes) > 2:
        raise Unsupported(f"{what} batched over {len(sizes)} dimensions that cannot be put together")
    if len(sizes) == 1:
        return (1, sizes[0]), [(0, own[0]) for own in found]
    return (sizes[0], sizes[1]), [(own[0], own[1]) for own in found]


def _batched(x: Tensor, batch: tuple[int, int], steps: tuple[int, int]) -> Tensor:
    return replace(x, shape=(*batch, *x.shape[-2:]), strides=(*steps, *x.steps[-2:]))


def _attention(work: Lowering, node: Node) -> None:
    only(node, work.type(node), FLOAT)
    heads = node.integer("heads")
    q, k, v, o = (work.input(node), work.input(node, 1), work.input(node, 2), work.output(node))
    if len({x.kind for x in (q, k, v, o)}) > 1:
        raise Unsupported("attention of fp16 and fp32 at once")
    if heads:
        q, k, v, o = (_apart(x, heads) for x in (q, k, v, o))
    elif node.integer("k_transposed"):
        rank = len(k.shape)
        k = k.transposed(*range(rank - 2), rank - 1, rank - 2)
    batch = np.broadcast_shapes(q.shape[:-2], k.shape[:-2], v.shape[:-2])
    mask = work.whole(node, 3)
    operands = [q, k, v, o]
    if mask is not None:
        operands.append(mask.broadcast((*batch, q.shape[-2], k.shape[-2])))
    steps = [x.broadcast((*batch, *x.shape[-2:])).steps[:-2] for x in operands]
    outer_inner, found = _two(batch, *steps, what="attention")
    q, k, v, o, *masks = (_batched(x, outer_inner, own) for x, own in zip(operands, found, strict=True))
    scale = node.number("scale", 1.0)
    seen = masks[0] if masks else None
    before = len(work.steps)
    try:
        work.add(attention(work.device, q, k, v, o, scale=scale, mask=seen, tuning=work.attention_tuning))
    except (Unsupported, OptionError):
        # Heads that the one shader does not take: of two sizes, transposed, or too large.
        del work.steps[before:]
        _attention_in_steps(work, (q, k, v, o), seen, scale)


register(["Attention"], _attention)


def _apart(x: Tensor, heads: int) -> Tensor:
    """`[..., t, h*d]` as `[..., h, t, d]`."""
    *batch, length, width = x.shape
    size = width // heads
    *steps, row, _ = x.steps
    return replace(x, shape=(*batch, heads, length, size), strides=(*steps, size, row, 1))


def _attention_in_steps(
    work: Lowering, operands: tuple[Tensor, Tensor, Tensor, Tensor], mask: Tensor | None, scale: float
) -> None:
    q, k, v, o = operands
    scores = work.spare((*q.shape[:3], k.shape[2]))
    _multiply(work, q, k.transposed(0, 1, 3, 2), scores, scale)
    if mask is not None:
        masked = work.spare(scores.shape)
        work.add(binary(work.device, "add", scores, mask, masked))
        scores = masked
    work.add(normalise(work.device, "softmax", scores, scores))
    _multiply(work, scores, v, o)
