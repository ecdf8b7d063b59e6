"""What a precision makes of a graph's values: how many bits each of them has on a device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from hetero.graph.ir import Graph
from hetero.graph.memory import storages
from hetero.graph.node import ValueType
from hetero.tensors import Array
from hetero_vulkan.buffers import Buffer
from hetero_vulkan.ops.tensors import Kind, Tensor
from hetero_vulkan.precision import Precision

FLOAT, HALF, INT, BOOL, LONG = (np.dtype(kind) for kind in ("float32", "float16", "int32", "bool", "int64"))

SMALL = tuple(np.dtype(kind) for kind in ("int8", "uint8", "int16", "uint16"))
"""Integers that lie on the device as int32."""

GREATEST_HALF = 65504.0
"""What is finite and beyond it is stored as this number."""

LEAST_HALF = 2.0**-14
"""The least that float16 has to all its bits."""

_WORDS = {"float32": 1, "int32": 1, "uint32": 1, "bool": 1, "int64": 2, "uint64": 2, "float64": 2}
_WORDS.update({kind.name: 1 for kind in SMALL})

# What a row's statistics are made with, where a model computes them by nodes of their own.
_REDUCTIONS = ("CumSum", "ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "ReduceSumSquare")
_GROWING = ("Exp", "Mul", "Pow")
_OF_STATISTICS = ("Add", "Div", "Exp", "Log", "Max", "Min", "Mul", "Neg", "Pow", "Reciprocal", "Sqrt", "Sub")

# Below so many elements of a column a scale for each of them saves little.
_LEAST_ROWS = 16


def words_of(dtype: np.dtype[Any]) -> int:
    """32-bit words of an element on the device, float16 stored in whole words; 0: such elements are not taken."""
    return 1 if dtype == HALF else _WORDS.get(dtype.name, 0)


def on_device(kind: ValueType) -> ValueType:
    """How an array lies on the device as it is: a bool is an int32, 0 or 1, and so are small integers."""
    return ValueType(INT, kind.shape) if kind.dtype in (BOOL, *SMALL) else kind


def tensor_of(buffer: Buffer, kind: ValueType) -> Tensor:
    """A value in a buffer, in order. Elements of 64 bits are two `i32`, a last dimension more."""
    wide = words_of(kind.dtype) == 2
    return Tensor(buffer, (*kind.shape, 2) if wide else kind.shape, kind_of(kind.dtype))


def kind_of(dtype: np.dtype[Any]) -> Kind:
    """How shaders see elements that are stored so."""
    return "f32" if dtype == FLOAT else "f16" if dtype == HALF else "i32"


def bytes_of(kind: ValueType) -> int:
    """Of the buffer of a value that is stored so; no buffer is empty, and each has whole words."""
    if kind.dtype == HALF:
        return max(4, 2 * (kind.size + kind.size % 2))
    return max(4, 4 * words_of(kind.dtype) * kind.size)


def computed(graph: Graph) -> Graph:
    """The graph as shaders compute it: float16 is a way to store float32. Constants stay what they are."""
    if all(kind.dtype != HALF for kind in graph.types.values()):
        return graph
    types = {name: ValueType(FLOAT, kind.shape) if kind.dtype == HALF else kind for name, kind in graph.types.items()}
    return replace(graph, types=types)


def stored(graph: Graph, precision: Precision) -> dict[str, ValueType]:
    """How each value lies on the device.

    float16 of the model stays float16. Where values are to be fp16, those of float32 are too, but for the graph's
    inputs and outputs, vectors that are constants (biases, scales), and statistics: see `statistics`. Where only
    weights are to be, constants are that are no vectors and that `holds` lets.
    """
    roots = storages(graph)
    ends = {roots[value] for value in (*graph.inputs, *graph.outputs)}
    kept = statistics(graph, roots) - ends if _any_halves(graph, precision) else set()
    narrow_constants = _narrow_constants(graph, precision)
    found = {}
    for value, kind in graph.types.items():
        root = roots[value]
        dtype = on_device(kind).dtype
        if dtype in (FLOAT, HALF):
            vector = root in graph.constants and graph.types[root].rank < 2
            wanted = precision.values == "f16" or root in narrow_constants
            narrow = dtype == HALF or (wanted and root not in ends)
            dtype = HALF if narrow and not vector and root not in kept else FLOAT
        found[value] = ValueType(dtype, kind.shape)
    return found


def statistics(graph: Graph, roots: Mapping[str, str]) -> set[str]:
    """Values that stay float32 for what is made of them.

    Those are sums and means of rows, and whole numbers that were or will be cast; what is made of those alone; and
    squares and exponentials on the way to sums, which would soon be beyond float16.

    Args:
        graph: The graph.
        roots: The value whose memory each value is.
    """
    found: set[str] = set()
    for node in graph.nodes:
        # What is known, such as an epsilon, says nothing.
        taken = {roots[value] for value in node.inputs if value and roots[value] not in graph.constants}
        if node.op in _REDUCTIONS:
            found.add(roots[node.output])
            found |= {root for root in taken if root in graph.producers and graph.producers[root].op in _GROWING}
        elif node.op == "Cast" and graph.types[node.inputs[0]].dtype not in (FLOAT, HALF):
            found.add(roots[node.output])
        elif node.op == "Cast" and graph.types[node.output].dtype not in (FLOAT, HALF):
            found |= taken
        elif node.op in _OF_STATISTICS and taken and taken <= found:
            found.add(roots[node.output])
    return found


def holds(array: Array) -> bool:
    """Whether float16 has an array's numbers to within half a step of its own, 2^-11, of the largest of them.

    It has not where one is finite and beyond its range (a mask's -1e9), where all are tiny, and where they are whole
    numbers (places) of which it has not each.
    """
    flat = array.reshape(-1)
    if not flat.size or array.dtype == HALF:
        return True
    # Few arrays of weights begin with whole numbers, and those that do not need no copy.
    if all(np.array_equal(part, np.rint(part), equal_nan=True) for part in (flat[:64], flat)):
        return np.array_equal(halves(array).astype(array.dtype), array, equal_nan=True)
    largest = _largest(flat)
    if not np.isfinite(largest):
        largest = _largest(flat[np.isfinite(flat)])
    return LEAST_HALF <= largest <= GREATEST_HALF


def rounding(array: Array) -> float:
    """By how much float16 changes an array at most, as a share of its largest number; of those that are finite."""
    whole = np.asarray(array, np.float32).reshape(-1)
    whole = whole[np.isfinite(whole)]
    largest = _largest(whole)
    return float(np.abs(halves(whole) - whole).max() / largest) if largest else 0.0


def halves(array: Array) -> Array:
    """An array of floats as float16: what is finite and beyond its range becomes its greatest number."""
    finite = np.isfinite(array)
    return np.where(finite, np.clip(array, -GREATEST_HALF, GREATEST_HALF), array).astype(np.float16)


def quantised(matrix: Array) -> tuple[Array, Array]:
    """A matrix `[k, n]` as int8, and the scale of each column, float32: symmetric, the largest element is 127."""
    whole = np.asarray(matrix, np.float32)
    largest = np.abs(whole).max(axis=0)
    scales = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    return np.rint(np.clip(whole / scales, -127, 127)).astype(np.int8), scales


def kind_of_matrix(matrix: Array, precision: Precision) -> Kind:
    """How a known matrix `[k, n]` of a product is stored."""
    if matrix.dtype == np.int8:
        return "i8"
    if precision.weights == "i8" and matrix.shape[0] >= _LEAST_ROWS and np.isfinite(matrix).all():
        return "i8"
    if matrix.dtype == HALF or precision.values == "f16":
        return "f16"
    return "f16" if precision.weights == "f16" and holds(matrix) else "f32"


def _narrow_constants(graph: Graph, precision: Precision) -> set[str]:
    """Constants that are float16 whatever values are."""
    if precision.weights != "f16" or precision.values == "f16":
        return set()
    # Those of products are made from the model's arrays and not read from here, and looking through them takes long.
    read = {value for node in graph.nodes for value in (node.inputs[::2] if node.op == "Linear" else node.inputs)}
    read |= {value for node in graph.nodes if node.op == "Linear" for value in node.inputs[3:]}
    return {
        name
        for name, array in graph.constants.items()
        if array.dtype == FLOAT and array.ndim > 1 and name in read and holds(array)
    }


def _largest(array: Array) -> float:
    """The largest size of a number; of nothing, 0. No copy is made."""
    return float(max(array.max(), -array.min())) if array.size else 0.0


def _any_halves(graph: Graph, precision: Precision) -> bool:
    return precision.values == "f16" or any(kind.dtype == HALF for kind in graph.types.values())
