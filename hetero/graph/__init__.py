"""ONNX -> a small graph of concrete shapes -> fused ops -> parts that a device can run."""

from hetero.graph.evaluate import evaluate
from hetero.graph.ir import Graph
from hetero.graph.node import Node, ValueType
from hetero.graph.onnx_import import import_onnx

__all__ = ["Graph", "Node", "ValueType", "evaluate", "import_onnx"]
