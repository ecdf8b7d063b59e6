"""The exact answer of `attention_i8_64x64_v2`, and the softmax attention that it approximates.

Ranges, which show that nothing overflows: a score is at most 2**20 and an exponent within 2**29 (`exponents`). Weights
are below 2**15, a row's sum of them below 2**21, and weights times v within 2**15 * 2**7 * 64 = 2**28. The key of a
row's largest exponent has a weight of 2**14 or more, as `reciprocal` needs. That product times a mantissa of 15 bits is
within 2**43, in 64 bits.
"""

from __future__ import annotations

import numpy as np

from hetero.tensors import Array
from hetero_kernels.kernel import clip_int8, exact_matmul
from hetero_kernels.softmax import TEMPERATURE_BITS, exponents, reciprocal, scale_of, weights

# Keeps the steps in between (32 KiB a tile each) in the processor's cache.
_TILES_AT_ONCE = 16


def reference(*, q: Array, k: Array, v: Array, temperature: Array) -> dict[str, Array]:
    """Integer softmax attention of every tile on its own, rounded to nearest.

    Args:
        q: Queries, int8 `[tiles, 64, 64]`: row, feature.
        k: Keys, likewise.
        v: Values, likewise.
        temperature: int32 `[tiles, 1]`, the whole exponents of base 2 that a step of a tile's scores is worth, times
            2**34; less than 0 counts as 0.

    Returns:
        `o`, int8 `[tiles, 64, 64]`, in steps of v's.
    """
    o = np.empty(q.shape, np.int8)
    for start in range(0, len(q), _TILES_AT_ONCE):
        some = slice(start, start + _TILES_AT_ONCE)
        o[some] = _attend(q[some], k[some], v[some], temperature[some, :, np.newaxis])
    return {"o": o}


def _attend(q: Array, k: Array, v: Array, temperature: Array) -> Array:
    exponent = exponents(exact_matmul(q, np.swapaxes(k, -1, -2)), temperature)
    weight = weights(exponent, scale_of(exponent.max(axis=-1, keepdims=True)))
    # Exact: float64 holds the products' sums, which are within 2**28.
    product = np.matmul(weight.astype(np.float64), v.astype(np.float64)).astype(np.int64)
    mantissa, shift = reciprocal(weight.sum(axis=-1, keepdims=True, dtype=np.int32))
    right = (29 + shift).astype(np.int64)
    return clip_int8((product * mantissa + ((1 << right) >> 1)) >> right)


def model(*, q: Array, k: Array, v: Array, temperature: Array) -> dict[str, Array]:
    """Softmax attention of every tile in float32, `o` in steps of v's; arguments as for `reference`."""
    steps = np.ldexp(np.maximum(temperature, 0).astype(np.float32), -TEMPERATURE_BITS) * np.float32(np.log(2))
    logits = np.matmul(q.astype(np.float32), np.swapaxes(k, -1, -2).astype(np.float32)) * steps[..., np.newaxis]
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return {"o": np.matmul(e / e.sum(axis=-1, keepdims=True), v.astype(np.float32))}
