"""Rules for ONNX operators that go over an input with a window: convolution and pooling."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hetero.graph.importing import Importing, OnnxNode

_WINDOW = ("auto_pad", "dilations", "kernel_shape", "pads", "strides")


def window_of(importing: Importing, node: OnnxNode, kernel: Sequence[int]) -> dict[str, Any]:
    """Strides, dilations and pads of a window over the first input, all written out.

    Raises:
        Unsupported: An `auto_pad` that is not known.
    """
    sizes = importing.type_of(node).shape[2:]
    strides = tuple(node.get("strides", ())) or (1,) * len(kernel)
    dilations = tuple(node.get("dilations", ())) or (1,) * len(kernel)
    pads = tuple(node.get("pads", ())) or (0,) * 2 * len(kernel)
    mode = node.get("auto_pad", "NOTSET")
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        before, after = [], []
        for size, stride, dilation, length in zip(sizes, strides, dilations, kernel, strict=True):
            total = max(0, (-(-size // stride) - 1) * stride + (length - 1) * dilation + 1 - size)
            small, large = total // 2, total - total // 2
            before.append(small if mode == "SAME_UPPER" else large)
            after.append(large if mode == "SAME_UPPER" else small)
        pads = (*before, *after)
    elif mode == "VALID":
        pads = (0,) * 2 * len(kernel)
    elif mode != "NOTSET":
        raise node.refused(f"the attribute auto_pad={mode!r} is not known")
    return {"strides": strides, "dilations": dilations, "pads": pads}


def _conv(importing: Importing, node: OnnxNode) -> None:
    node.only(*_WINDOW, "group")
    kernel = importing.type_of(node, 1).shape[2:]
    if tuple(node.get("kernel_shape", kernel)) != kernel:
        raise ValueError(f"kernel_shape {node.get('kernel_shape', ())} for a weight of {list(kernel)}")
    window = window_of(importing, node, kernel)
    importing.emit(node, "Conv", importing.inputs(node), node.outputs[0], group=node.get("group", 1), **window)


def _pool(importing: Importing, node: OnnxNode) -> None:
    node.single()
    kernel = tuple(node.must("kernel_shape"))
    more = {"ceil_mode": node.get("ceil_mode", 0)}
    if node.op == "AveragePool":
        node.only(*_WINDOW, "ceil_mode", "count_include_pad")
        more["count_include_pad"] = node.get("count_include_pad", 0)
    else:
        # The order in memory concerns only the second output, which is not supported.
        node.only(*_WINDOW, "ceil_mode", "storage_order")
    window = window_of(importing, node, kernel)
    importing.emit(node, node.op, importing.inputs(node), node.outputs[0], kernel_shape=kernel, **window, **more)


def _global_pool(importing: Importing, node: OnnxNode) -> None:
    node.only()
    op = {"GlobalAveragePool": "ReduceMean", "GlobalMaxPool": "ReduceMax"}[node.op]
    axes = tuple(range(2, importing.type_of(node).rank))
    importing.emit(node, op, importing.inputs(node), node.outputs[0], axes=axes, keepdims=1)


WINDOW_RULES: Mapping[str, Callable[[Importing, OnnxNode], None]] = {
    "AveragePool": _pool,
    "Conv": _conv,
    "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _global_pool,
    "MaxPool": _pool,
}
