"""The exact answer of `layernorm_i8_256`, and the layer normalisation that it approximates.

Ranges, which show that int32 never overflows: (x - m)**2 <= 255**2, and 256 of them stay within 2**24. One of them is
at most their sum, so |x - m| <= 16 sqrt(v + 1). An integer square root is at most a factor sqrt(3) too small (that of
3). So |x - m| * r <= 16 * 32768 * sqrt(3) < 2**20, and gamma times the 2**12 that the shift leaves stays within 2**19.
"""

from __future__ import annotations

import numpy as np

from hetero.tensors import Array
from hetero_kernels.kernel import clip_int8

EPSILON = 1e-5


def reference(*, x: Array, gamma: Array, beta: Array) -> dict[str, Array]:
    """Integer layer normalisation of every row. Shifts and divisions round down; the mean alone rounds to zero.

    Args:
        x: int8 `[rows, 256]`.
        gamma: int8 `[256]`, the same for all rows.
        beta: int8 `[256]`, likewise.

    Returns:
        `y`, int8 `[rows, 256]`.
    """
    wide = x.astype(np.int32)
    total = wide.sum(axis=-1, keepdims=True, dtype=np.int32)
    centred = wide - np.sign(total) * (np.abs(total) >> 8)
    variance = (centred * centred).sum(axis=-1, keepdims=True, dtype=np.int32) >> 8
    # float64 gives the integer square root exactly: IEEE square roots round correctly, and v + 1 is far below 2**52.
    root = np.sqrt((variance + 1).astype(np.float64)).astype(np.int32)
    unit = (centred * (32768 // root)) >> 8
    return {"y": clip_int8(((gamma.astype(np.int32) * unit) >> 7) + beta)}


def model(*, x: Array, gamma: Array, beta: Array) -> dict[str, Array]:
    """(x - mean) / sqrt(variance + 1e-5) * gamma + beta in float32; arguments as for `reference`."""
    wide = x.astype(np.float32)
    centred = wide - wide.mean(axis=-1, keepdims=True)
    deviation = np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + np.float32(EPSILON))
    return {"y": gamma.astype(np.float32) * (centred / deviation) + beta.astype(np.float32)}
