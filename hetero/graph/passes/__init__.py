"""Passes: each takes a graph and gives one that computes the same."""

from __future__ import annotations

from collections.abc import Collection

from hetero.graph.ir import Graph
from hetero.graph.passes.attention import fuse_attention
from hetero.graph.passes.gelu import fuse_gelu
from hetero.graph.passes.layer_norm import fuse_layer_norm
from hetero.graph.passes.linear import fuse_activations, fuse_linear, fuse_residuals, merge_linears
from hetero.graph.passes.quantised import fuse_quantised, take_int8
from hetero.graph.passes.tidy import (
    drop_dead,
    drop_idle,
    drop_repeated,
    fold_constants,
    join_moves,
    simplify,
)

__all__ = [
    "drop_dead",
    "drop_idle",
    "drop_repeated",
    "fold_constants",
    "fuse",
    "fuse_activations",
    "fuse_attention",
    "fuse_gelu",
    "fuse_layer_norm",
    "fuse_linear",
    "fuse_quantised",
    "fuse_residuals",
    "join_moves",
    "merge_linears",
    "simplify",
    "take_int8",
]


def fuse(
    graph: Graph, *, merge: int = 0, activations: Collection[str] = (), residuals: bool = False, int8: bool = False
) -> Graph:
    """The graph simplified, with `LayerNormalization`, `Gelu`, `Linear` and `Attention` for what they are made of.

    Args:
        graph: What to change.
        merge: Also `merge_linears` where at least so many `Linear`s have one input; 0 for not.
        activations: Ops that the `Linear` or `Conv` before them is to do too (`fuse_activations`).
        residuals: Also `fuse_residuals`.
        int8: Leave known matrices that the model has in int8 so, in `Linear`s with scales; else they become floats.
    """
    graph = simplify(fuse_quantised(graph, int8=int8))
    graph = fuse_linear(fuse_gelu(fuse_layer_norm(graph)))
    graph = fuse_attention(graph)
    if merge:
        graph = merge_linears(graph, merge)
    if activations:
        graph = fuse_activations(graph, activations)
    if residuals:
        graph = fuse_residuals(graph)
    if int8:
        graph = take_int8(graph)
    return simplify(graph)
