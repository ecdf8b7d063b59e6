"""The exact answer of `matmul_i8_64x64`, and the product that it approximates."""

from __future__ import annotations

import numpy as np

from hetero.tensors import Array
from hetero_kernels.kernel import clip_int8, exact_matmul


def reference(*, a: Array, b: Array) -> dict[str, Array]:
    """clip((a b) >> 7) of every pair of tiles; sums stay within 2**20, the shift is arithmetic: it rounds down.

    Args:
        a: int8 `[tiles, 64, 64]`.
        b: int8 `[tiles, 64, 64]`.

    Returns:
        `c`, int8 `[tiles, 64, 64]`.
    """
    return {"c": clip_int8(exact_matmul(a, b) >> 7)}


def model(*, a: Array, b: Array) -> dict[str, Array]:
    """A b / 128 in float32; arguments as for `reference`."""
    return {"c": np.matmul(a.astype(np.float32), b.astype(np.float32)) / np.float32(128)}
