"""Running a graph in numpy: what the host does for the parts that no device takes, and what tests compare with."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hetero.errors import InputError
from hetero.graph.ir import Graph
from hetero.graph.node import Array, ValueType
from hetero.graph.ops import evaluate_node


def evaluate(graph: Graph, inputs: Mapping[str, Array], *, double: bool = False) -> dict[str, Array]:
    """The outputs by name, C-contiguous and the caller's own.

    A value is let go of when nothing needs it any more. The numbers are what ONNX specifies, half precision is computed
    in single; `hetero.graph.ops` has each op.

    Args:
        graph: The graph.
        inputs: By name, of the graph's dtypes and shapes.
        double: All that is float32 is taken for float64, and so are the outputs: the truth by which errors of single
            precision are told. Where a cast to float32 is part of the graph it is done.

    Raises:
        InputError: An input that is missing, not known, or of another dtype or shape than the graph's.
    """
    if set(inputs) != set(graph.inputs):
        raise InputError(f"got the inputs {', '.join(sorted(inputs)) or 'none'}, expected {', '.join(graph.inputs)}")
    for name in graph.inputs:
        if ValueType.of(np.asarray(inputs[name])) != graph.types[name]:
            raise InputError(
                f"input {name!r} is {ValueType.of(np.asarray(inputs[name]))}, expected {graph.types[name]}"
            )
    left = {value: graph.uses(value) for value in graph.types}
    values: dict[str, Array] = {**graph.constants, **{name: np.asarray(inputs[name]) for name in graph.inputs}}
    if double:
        values = {name: x.astype(np.float64) if x.dtype == np.float32 else x for name, x in values.items()}
    for node in graph.nodes:
        results = evaluate_node(node, [values[value] if value else None for value in node.inputs])
        values |= {value: array for value, array in zip(node.outputs, results, strict=True) if left[value]}
        for value in node.inputs:
            if value:
                left[value] -= 1
                if not left[value]:
                    del values[value]
    return {name: np.array(values[name], order="C") for name in graph.outputs}
