"""ONNX -> a small graph of concrete shapes -> fused ops -> parts that a device can run.

::

    graph = import_onnx(path, {"batch": 1, "frames": 3000})
    graph = fuse(graph)
    cut = partition(graph, lambda node: node.op == "Linear" or "no kernel")
    outputs = cut.run(inputs, run_on_the_device)
"""

from hetero.graph.cost import Cost, cost_of, costs_by_op, total_cost
from hetero.graph.evaluate import evaluate
from hetero.graph.ir import Graph
from hetero.graph.memory import Arena, LiveRange, live_ranges, plan_arena, storages
from hetero.graph.node import Node, ValueType
from hetero.graph.onnx_import import import_onnx
from hetero.graph.partition import Part, Partition, partition
from hetero.graph.passes import fuse, simplify

__all__ = [
    "Arena",
    "Cost",
    "Graph",
    "LiveRange",
    "Node",
    "Part",
    "Partition",
    "ValueType",
    "cost_of",
    "costs_by_op",
    "evaluate",
    "fuse",
    "import_onnx",
    "live_ranges",
    "partition",
    "plan_arena",
    "simplify",
    "storages",
    "total_cost",
]
