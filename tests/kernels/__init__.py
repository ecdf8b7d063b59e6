"""Kernels: their specs, their exact answers, how close those come, and being found by name."""
