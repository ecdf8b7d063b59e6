"""The exact answer of `gemm_i8_i8_{K}x{N}`, and the affine map that it approximates.

Ranges: K is at most 8192, so |a w| <= 2**27. With a bias within 2**30 the sum fits int32; beyond, it wraps, as a core's
accumulator does. A sum times a multiplier is within 2**31 * 2**15 = 2**46, and rounding adds at most 2**46: both fit
the 64 bits of an accumulator of int32 by int16 products.
"""

from __future__ import annotations

import numpy as np

from hetero.tensors import Array
from hetero_kernels.kernel import clip_int8, exact_matmul, shift_round

MOST_SHIFT = 47


def reference(*, a: Array, w: Array, bias: Array, multiplier: Array, shift: Array) -> dict[str, Array]:
    """clip(⌊(a w + bias) multiplier / 2**shift + 1/2⌋): rounded to nearest, halves up.

    Args:
        a: Activations, int8 `[rows, K]`.
        w: Weights, int8 `[K, N]`, the same for all rows.
        bias: In steps of a w, int32 `[N]`. The sum is taken modulo 2**32: keep it within 2**30, and it never wraps.
        multiplier: int16 `[N]`.
        shift: int8 `[1]`, for all channels. Less than 0 counts as 0, more than 47 as 47.

    Returns:
        `c`, int8 `[rows, N]`.
    """
    total = exact_matmul(a, w) + bias
    scaled = total.astype(np.int64) * multiplier
    return {"c": clip_int8(shift_round(scaled, int(np.clip(shift[0], 0, MOST_SHIFT))))}


def model(*, a: Array, w: Array, bias: Array, multiplier: Array, shift: Array) -> dict[str, Array]:
    """(a w + bias) multiplier / 2**shift in float32; arguments as for `reference`."""
    total = np.matmul(a.astype(np.float32), w.astype(np.float32)) + bias.astype(np.float32)
    scale = np.ldexp(multiplier.astype(np.float32), -int(np.clip(shift[0], 0, MOST_SHIFT)))
    return {"c": total * scale}
