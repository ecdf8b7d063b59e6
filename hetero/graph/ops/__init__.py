"""The ops that a graph's nodes can be; `docs/graph.md` lists them with their attributes."""

from hetero.graph.ops import (
    convolution,
    elementwise,
    indexing,
    linear,
    movement,
    normalisation,
    quantisation,
    reduction,
)
from hetero.graph.ops.table import OPS, Op, evaluate_node, infer, op_of

__all__ = [
    "OPS",
    "Op",
    "convolution",
    "elementwise",
    "evaluate_node",
    "indexing",
    "infer",
    "linear",
    "movement",
    "normalisation",
    "op_of",
    "quantisation",
    "reduction",
]
