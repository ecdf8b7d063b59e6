"""Nodes that move elements."""

from __future__ import annotations

import numpy as np

from hetero.errors import Unsupported
from hetero.graph.memory import storages
from hetero.graph.node import Node
from hetero_vulkan.nodes.elementwise import low_words
from hetero_vulkan.nodes.lowering import LONG, Lowering, register, words_of
from hetero_vulkan.ops.movement import concat, copy, gather, pad
from hetero_vulkan.ops.scan import check_range
from hetero_vulkan.ops.tensors import Tensor


def _wide(work: Lowering, node: Node) -> bool:
    return words_of(work.type(node).dtype) == 2


def _reshape(work: Lowering, node: Node) -> None:
    y = work.output(node)
    work.add(copy(work.device, work.input(node).reshaped(*y.shape), y))


register(["Identity", "Reshape"], _reshape)


def _transpose(work: Lowering, node: Node) -> None:
    perm = node.integers("perm")
    order = (*perm, len(perm)) if _wide(work, node) else perm
    work.add(copy(work.device, work.input(node).transposed(*order), work.output(node)))


register(["Transpose"], _transpose)


def _expand(work: Lowering, node: Node) -> None:
    work.add(copy(work.device, work.input(node), work.output(node)))


register(["Expand"], _expand)


def _slice(work: Lowering, node: Node) -> None:
    x = work.input(node)
    turned = []
    for axis, (start, size, step) in enumerate(zip(*map(node.integers, ("starts", "sizes", "steps")), strict=True)):
        if step > 0:
            x = x.sliced(axis, start, min(start + size * step, x.shape[axis]), step) if size else x.sliced(axis, 0, 0)
        else:
            turned.append((axis, np.arange(start, start + size * step, step, dtype=np.int32)))
    # Backwards by places that are known: the first of them may still be strided.
    for number, (axis, places) in enumerate(turned):
        if not x.contiguous:
            ordered = work.spare(x.shape, x.kind)
            work.add(copy(work.device, x, ordered))
            x = ordered
        shape = (*x.shape[:axis], places.size, *x.shape[axis + 1 :])
        target = work.output(node) if number == len(turned) - 1 else work.spare(shape, x.kind)
        work.add(gather(work.device, x, work.known(places), target, axis))
        x = target
    if not turned:
        work.add(copy(work.device, x, work.output(node)))


register(["Slice"], _slice)


def _concat(work: Lowering, node: Node) -> None:
    axis = node.integer("axis") % work.type(node).rank
    sources = [source for source in work.inputs(node) if source.size]
    work.add(concat(work.device, sources, work.output(node), axis))


register(["Concat"], _concat)


def _tile(work: Lowering, node: Node) -> None:
    x, y = work.input(node), work.output(node)
    apart, seen = [], []
    repeats = (*node.integers("repeats"), 1) if _wide(work, node) else node.integers("repeats")
    for count, size in zip(repeats, x.shape, strict=True):
        apart += [1, size]
        seen += [count, size]
    work.add(copy(work.device, x.reshaped(*apart).broadcast(seen), y.reshaped(*seen)))


register(["Tile"], _tile)


def _pad(work: Lowering, node: Node) -> None:
    x, y = work.input(node), work.output(node)
    pads, rank, mode = node.integers("pads"), work.type(node).rank, node.text("mode", "constant")
    value = float(node.number("value"))
    before = list(pads[:rank])
    if mode not in ("constant", "edge", "reflect"):
        raise Unsupported(f"padding in the mode {mode} is not done on the device")
    if mode != "constant" and (min(pads, default=0) < 0 or _longest(pads, work.type(node).shape) > 0):
        raise Unsupported(f"padding in the mode {mode} that cuts, or repeats more than there is")
    if x.kind == "i32" and (value != int(value) or abs(value) > 1 << 24 or (_wide(work, node) and value)):
        raise Unsupported(f"padding {work.type(node).dtype} with {value} is not done on the device")
    if _wide(work, node):
        before.append(0)
    work.add(pad(work.device, x, y, before, mode=mode, value=value))  # type: ignore[arg-type]


def _longest(pads: tuple[int, ...], shape: tuple[int, ...]) -> int:
    """By how much the longest pad is more than a reflection has."""
    return max((pad - size + 1 for pad, size in zip(pads, (*shape, *shape), strict=True)), default=0)


register(["Pad"], _pad)


def _gather(work: Lowering, node: Node) -> None:
    x = work.input(node)
    axis = node.integer("axis") % work.type(node).rank
    look_at_indices(work, node, x.shape[axis])
    work.add(gather(work.device, x, indices_of(work, node), work.output(node), axis))


def look_at_indices(work: Lowering, node: Node, size: int) -> None:
    """Have a node's second input checked: each is one of so many elements, counted from either end."""
    root = storages(work.graph)[node.inputs[1]]
    name = node.name or node.output
    if root in work.graph.constants or root in work.graph.inputs:
        # A shader cannot raise an error, and ONNX wants one: the host looks at indices before they are used.
        work.indices.append((root, size, name))
    else:
        # Those that are computed are looked at on the device, and the host sees a flag when the work has ended.
        index, wide = work.input(node, 1), work.type(node, 1).dtype == LONG
        flags, slot = work.flag(size, name)
        work.add(check_range(work.device, index, size, flags, slot, wide=wide))


def indices_of(work: Lowering, node: Node) -> Tensor:
    """A node's second input as i32."""
    index = work.input(node, 1)
    if work.type(node, 1).dtype != LONG:
        return index
    ordered = work.spare(index.shape[:-1], "i32")
    work.add(copy(work.device, low_words(index), ordered))
    return ordered


register(["Gather"], _gather)
