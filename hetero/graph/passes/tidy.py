"""Passes that leave nothing superfluous: constants worked out, dead and repeated nodes gone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from hetero.graph.ir import Graph
from hetero.graph.node import Array, Node
from hetero.graph.ops import evaluate_node


def drop_dead(graph: Graph) -> Graph:
    """Without the nodes that no output needs."""
    needed = set(graph.outputs)
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if not needed.isdisjoint(node.outputs):
            kept.append(node)
            needed.update(node.inputs)
    if len(kept) == len(graph.nodes):
        return graph
    return graph.with_nodes(reversed(kept))
