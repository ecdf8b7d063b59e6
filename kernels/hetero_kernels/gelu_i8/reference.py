"""The exact answer of `gelu_i8`, and the GELU that it approximates.

The tanh form is that of Hendrycks and Gimpel, "Gaussian Error Linear Units", arXiv:1606.08415.
"""

from __future__ import annotations

import math

import numpy as np

from hetero.tensors import Array


def _gelu(t: float) -> float:
    return t / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (t + 0.044715 * t**3)))


# By the bits of x: 0 .. 127, then -128 .. -1. No entry lies near a half, so every libm gives this table.
TABLE = np.array([round(127 * _gelu(x / 127)) for x in (*range(128), *range(-128, 0))], np.int8)
TABLE.setflags(write=False)


def reference(*, x: Array) -> dict[str, Array]:
    """round(127 gelu(x / 127)), looked up.

    Args:
        x: int8 `[n]`.

    Returns:
        `y`, int8 `[n]`.
    """
    return {"y": TABLE[x.view(np.uint8)]}


def model(*, x: Array) -> dict[str, Array]:
    """127 gelu(x / 127) in float32; arguments as for `reference`."""
    t = x.astype(np.float32) / np.float32(127)
    inner = np.float32(math.sqrt(2 / math.pi)) * (t + np.float32(0.044715) * t * t * t)
    return {"y": np.float32(63.5) * t * (1 + np.tanh(inner))}
