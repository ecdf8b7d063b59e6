"""A graph's nodes as operators of the device: what it claims of a model, and the steps that it is run by.

`lowering` has the table and what is common; the other modules fill it, family by family.
"""

from hetero_vulkan.nodes import elementwise, indexing, movement, products, quantised, rows, scan, windows
from hetero_vulkan.nodes.lowering import LOWERS, Lowering, claims

__all__ = [
    "LOWERS",
    "Lowering",
    "claims",
    "elementwise",
    "indexing",
    "movement",
    "products",
    "quantised",
    "rows",
    "scan",
    "windows",
]
