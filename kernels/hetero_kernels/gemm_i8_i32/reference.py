"""The exact answer of `gemm_i8_i32_{K}x{N}`.

Ranges, which show that int32 never overflows: K is at most 8192, and |a w| <= 8192 * 128 * 128 = 2**27.
"""

from __future__ import annotations

import numpy as np

from hetero.tensors import Array
from hetero_kernels.kernel import exact_matmul


def reference(*, a: Array, w: Array) -> dict[str, Array]:
    """The matrix product, exact.

    Args:
        a: Activations, int8 `[rows, K]`.
        w: Weights, int8 `[K, N]`, the same for all rows.

    Returns:
        `c`, int32 `[rows, N]`.
    """
    return {"c": exact_matmul(a, w)}


def model(*, a: Array, w: Array) -> dict[str, Array]:
    """A w in float32; arguments as for `reference`."""
    return {"c": np.matmul(a.astype(np.float32), w.astype(np.float32))}
