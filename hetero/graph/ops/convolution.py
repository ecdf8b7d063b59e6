"""Convolution and pooling over any number of dimensions, channels first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hetero.graph.node import Array, Node, ValueType
from hetero.graph.ops.elementwise import activate
from hetero.graph.ops.table import Arrays, Types, as_type, floats, given, register, wide


@dataclass(frozen=True)
class Window:
    """How a kernel goes over the dimensions behind batch and channels.

    Attributes:
        kernel: Its sizes.
        strides: Steps from one place to the next.
        dilations: Steps from one of its elements to the next.
        pads: Elements added before and after each dimension.
        ceil: A last place that the kernel reaches only partly counts, if it starts within the input.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    ceil: bool = False

    @classmethod
    def of(cls, node: Node, kernel: Sequence[int]) -> Window:
        """From the attributes `strides`, `dilations` (1 where left out), `pads` (0) and `ceil_mode`.

        Raises:
            ProgramInvalid: They do not fit the kernel.
        """
        rank = len(kernel)
        strides = node.integers("strides") or (1,) * rank
        dilations = node.integers("dilations") or (1,) * rank
        pads = node.integers("pads") or (0,) * 2 * rank
        if len(strides) != rank or len(dilations) != rank or len(pads) != 2 * rank or min(strides + dilations) < 1:
            raise node.broken(f"strides, dilations and pads do not fit a kernel of {list(kernel)}")
        pairs = tuple(zip(pads[:rank], pads[rank:], strict=True))
        return cls(tuple(kernel), strides, dilations, pairs, bool(node.integer("ceil_mode")))

    def places(self, node: Node, sizes: Sequence[int]) -> tuple[int, ...]:
        """How many places there are in each dimension.

        Raises:
            ProgramInvalid: The kernel is larger than the input.
        """
        result = []
        for axis, size in enumerate(sizes):
            before, after = self.pads[axis]
            free = size + before + after - self.reach(axis)
            if free < 0:
                raise node.broken(f"a kernel of {list(self.kernel)} is larger than {list(sizes)} with its pads")
            stride = self.strides[axis]
            count = (-(-free // stride) if self.ceil else free // stride) + 1
            # A place that starts behind the input and its first pads is none.
            if self.ceil and (count - 1) * stride >= size + before:
                count -= 1
            result.append(count)
        return tuple(result)

    def reach(self, axis: int) -> int:
        """From the kernel's first element to its last, both counted."""
        return (self.kernel[axis] - 1) * self.dilations[axis] + 1

    def view(self, node: Node, x: Array, fill: float) -> Array:
        """[n, c, *sizes] -> what the kernel sees: [n, c, *places, *kernel], not writeable."""
        places = self.places(node, x.shape[2:])
        margins = []
        for axis, size in enumerate(x.shape[2:]):
            before, after = self.pads[axis]
            needed = (places[axis] - 1) * self.strides[axis] + self.reach(axis) - size - before
            margins.append((before, max(after, needed)))
        padded = np.pad(x, [(0, 0), (0, 0), *margins], constant_values=fill) if np.any(margins) else x
        steps = padded.strides[2:]
        return np.lib.stride_tricks.as_strided(
            padded,
            (*x.shape[:2], *places, *self.kernel),
            (
                *padded.strides[:2],
                *(step * stride for step, stride in zip(steps, self.strides, strict=True)),
                *(step * dilation for step, dilation in zip(steps, self.dilations, strict=True)),
            ),
            writeable=False,
        )


def _infer_conv(node: Node, types: Types) -> ValueType:
    x, weight = floats(node, types[0]), given(types[1])
    group = node.integer("group", 1)
    if x.rank < 3 or weight.rank != x.rank or weight.dtype != x.dtype:
        raise node.broken(f"weight {weight} for the input {x}")
    if group < 1 or x.shape[1] != weight.shape[1] * group or weight.shape[0] % group:
        raise node.broken(f"weight {weight} in {group} groups for the channels of {x}")
    bias = types[2] if len(types) > 2 else None
    if bias is not None and bias != ValueType(x.dtype, weight.shape[:1]):
        raise node.broken(f"bias {bias} for weight {weight}")
    places = Window.of(node, weight.shape[2:]).places(node, x.shape[2:])
    return ValueType(x.dtype, (x.shape[0], weight.shape[0], *places))


def _conv(node: Node, arrays: Arrays) -> Array:
    x, weight = given(arrays[0]), given(arrays[1])
    bias = arrays[2] if len(arrays) > 2 else None
    group, kernel = node.integer("group", 1), weight.shape[2:]
    seen = Window.of(node, kernel).view(node, wide(x), 0)
    rank = len(kernel)
    places = seen.shape[2 : 2 + rank]
    order = (0, 1, *range(2 + rank, 2 + 2 * rank), *range(2, 2 + rank))
    columns = seen.transpose(order).reshape(x.shape[0], group, -1, math.prod(places))
    rows = wide(weight).reshape(group, weight.shape[0] // group, -1)
    result = np.matmul(rows, columns).reshape(x.shape[0], weight.shape[0], *places)
    if bias is not None:
        result += wide(bias).reshape(1, -1, *(1,) * rank)
    return as_type(activate(node, result), x.dtype)


def _flops_of_conv(node: Node, types: Types, output: ValueType) -> int:
    extra = sum(value is not None for value in types[2:]) + bool(node.text("activation"))
    return output.size * (2 * math.prod(given(types[1]).shape[1:]) + extra)


#: Inputs x [n, c, ...], weight [m, c/group, ...], bias [m] (optional). Attributes: `strides`, `dilations`, `pads`
#: (before each dimension, then behind each), `group`, `activation` (see `elementwise.activate`).
register("Conv", (2, 3), _infer_conv, _conv, flops=_flops_of_conv)


def _infer_pool(node: Node, types: Types) -> ValueType:
    x, kernel = given(types[0]), node.integers("kernel_shape")
    if x.rank < 3 or len(kernel) != x.rank - 2:
        raise node.broken(f"kernel {list(kernel)} for {x}")
    return ValueType(x.dtype, (*x.shape[:2], *Window.of(node, kernel).places(node, x.shape[2:])))


def _max_pool(node: Node, arrays: Arrays) -> Array:
    x, kernel = given(arrays[0]), node.integers("kernel_shape")
    least = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    seen = Window.of(node, kernel).view(node, x, least)
    return np.asarray(np.max(seen, axis=tuple(range(-len(kernel), 0))))


def _average_pool(node: Node, arrays: Arrays) -> Array:
    x, kernel = wide(given(arrays[0])), node.integers("kernel_shape")
    window, axes = Window.of(node, kernel), tuple(range(-len(kernel), 0))
    total = np.sum(window.view(node, x, 0), axis=axes)
    # Ones where an element counts, seen by the same window: the number of elements in each mean.
    ones = np.ones((1, 1, *x.shape[2:]), dtype=x.dtype)
    if node.integer("count_include_pad"):
        ones = np.pad(ones, [(0, 0), (0, 0), *window.pads], constant_values=1)
        inner = Window(window.kernel, window.strides, window.dilations, ((0, 0),) * len(kernel), window.ceil)
        places = (slice(None), slice(None), *(slice(place) for place in total.shape[2:]))
        seen = inner.view(node, ones, 0)[places]
    else:
        seen = window.view(node, ones, 0)
    return as_type(total / np.sum(seen, axis=axes), given(arrays[0]).dtype)


def _flops_of_pool(node: Node, types: Types, output: ValueType) -> int:
    return output.size * math.prod(node.integers("kernel_shape"))


#: Attributes of both: `kernel_shape`, `strides`, `dilations`, `pads`, `ceil_mode`; of the mean `count_include_pad`.
register("MaxPool", 1, _infer_pool, _max_pool, flops=_flops_of_pool)
register("AveragePool", 1, _infer_pool, _average_pool, flops=_flops_of_pool)
