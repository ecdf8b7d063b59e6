"""The exact answer of `attention_i8_exact_{T}`, and the softmax attention that it approximates.

For each query, over blocks of 64 keys from the first to the last that holds a valid key::

    scale' = max(scale, scale_of(largest exponent of the block))        a power of two: see hetero_kernels.softmax
    total  = round(total / 2**(scale' - scale)) + sum of the block's weights
    sum    = round(sum / 2**(scale' - scale)) + round(weights v / 2**4)
    o      = clip(round(sum * 2**12 / total))                           by one reciprocal

Ranges, which show that nothing overflows. A score is at most 2**20 and an exponent within 2**29 (`exponents`). T is at
most 4096. Weights are below 2**15: a total is below 2**15 * 4096 = 2**27. A block's weights times v are within
64 * 2**15 * 2**7 = 2**28, over 2**4 within 2**24, and T / 64 = 64 of them within 2**30: below it by 2**15 at least, as
a weight is below 2**15 by one, more than rounding can add. A shift by 31 adds 2**30 for rounding, which 32 bits hold
too. The key of the largest exponent has a weight of 2**14 or more, as `reciprocal` needs. A sum times a mantissa of 15
bits is within 2**45, in 64 bits, and is shifted by 17 to 29 bits.
"""

from __future__ import annotations

import numpy as np

from hetero.tensors import Array
from hetero_kernels.kernel import shift_round
from hetero_kernels.softmax import MASKED, TEMPERATURE_BITS, exponents, reciprocal, scale_of, weights

BLOCK = 64
"""Keys in a block."""

MOST_KEYS = 4096

OUTPUT_BITS = 8
"""A step of the output is a step of v over 2**8."""

# The block's products give way to the sum of all blocks.
_SUM_SHIFT = 4
# Before the first block: lower than any scale, and the shift from here moves nothing but zeros.
_LOWEST = -(1 << 20)
# Keeps what lies between scores and weights in the processor's cache.
_QUERIES_AT_ONCE = 64


def reference(*, q: Array, k: Array, v: Array, temperature: Array, keys: Array) -> dict[str, Array]:
    """Integer softmax attention of every query to the valid keys of its head, all shifts rounded to nearest.

    Args:
        q: Queries, int8 `[heads, T, 64]`: row, feature.
        k: Keys, likewise.
        v: Values, likewise.
        temperature: int32 `[heads, T]`, for each query the whole exponents of base 2 that a step of its scores is
            worth, times 2**34; less than 0 counts as 0.
        keys: int32 `[heads, 1]`: the first so many keys are valid, from 0 (the answer is 0) to T; what lies outside
            counts as the nearer of the two.

    Returns:
        `o`, int16 `[heads, T, 64]`, in steps of v's over 256.
    """
    o = np.zeros(q.shape, np.int16)
    for head, valid in enumerate(np.clip(keys[:, 0], 0, q.shape[1]).tolist()):
        if valid:
            _attend(q[head], k[head, :valid], v[head, :valid], temperature[head], o[head])
    return {"o": o}


def _attend(q: Array, k: Array, v: Array, temperature: Array, o: Array) -> None:
    """One head, of valid keys only; writes `o`."""
    blocks = -(-len(k) // BLOCK)
    spare = blocks * BLOCK - len(k)
    # Products of blocks are too small for BLAS to share out among threads, which costs more than it gains.
    transposed = np.pad(k, ((0, spare), (0, 0))).reshape(blocks, BLOCK, -1).transpose(0, 2, 1).astype(np.float32)
    values = np.pad(v, ((0, spare), (0, 0))).reshape(blocks, BLOCK, -1).astype(np.float64)
    # Float products are exact here: scores stay within 2**20 in float32, weights times v within 2**28 in float64.
    for start in range(0, len(q), _QUERIES_AT_ONCE):
        some = slice(start, start + _QUERIES_AT_ONCE)
        scores = np.matmul(q[some].astype(np.float32), transposed).transpose(1, 0, 2)
        exponent = exponents(scores, temperature[some, np.newaxis, np.newaxis])
        if spare:
            exponent[:, -1, -spare:] = MASKED
        scale = np.maximum.accumulate(scale_of(exponent.max(axis=-1)), axis=-1)
        weight = weights(exponent, scale[..., np.newaxis])
        if spare:
            weight[:, -1, -spare:] = 0
        products = np.matmul(weight.transpose(1, 0, 2).astype(np.float64), values).astype(np.int32)
        o[some] = _join(products, weight.sum(axis=-1, dtype=np.int32), scale)


def _join(products: Array, totals: Array, scale: Array) -> Array:
    """The online part: from each block's weights times v and sums of weights to the output.

    Args:
        products: int32 `[blocks, queries, 64]`.
        totals: int32 `[queries, blocks]`.
        scale: Of each block and those before it, int32 `[queries, blocks]`.

    Returns:
        int16 `[queries, 64]`.
    """
    rises = np.minimum(np.diff(scale, axis=-1, prepend=_LOWEST), 31).astype(np.int64)
    halves = (1 << rises) >> 1
    total = np.zeros(len(scale), np.int64)
    summed = np.zeros(products.shape[1:], np.int64)
    parts = shift_round(products, _SUM_SHIFT)
    for block, part in enumerate(parts):
        rise, half = rises[:, block], halves[:, block]
        if rise.any():
            total = (total + half) >> rise
            summed += half[:, np.newaxis]
            summed >>= rise[:, np.newaxis]
        total += totals[:, block]
        summed += part
    mantissa, shift = reciprocal(total.astype(np.int32))
    right = (29 - OUTPUT_BITS - _SUM_SHIFT + shift)[:, np.newaxis].astype(np.int64)
    rounded = (summed * mantissa[:, np.newaxis] + ((1 << right) >> 1)) >> right
    clipped: Array = np.clip(rounded, -32768, 32767).astype(np.int16)
    return clipped


def model(*, q: Array, k: Array, v: Array, temperature: Array, keys: Array) -> dict[str, Array]:
    """Softmax attention to the valid keys in float32, `o` in steps of v's over 256; arguments as for `reference`."""
    o = np.zeros(q.shape, np.float32)
    steps = np.ldexp(np.maximum(temperature, 0).astype(np.float32), -TEMPERATURE_BITS) * np.float32(np.log(2))
    for head, valid in enumerate(np.clip(keys[:, 0], 0, q.shape[1]).tolist()):
        if valid:
            logits = np.matmul(q[head].astype(np.float32), k[head, :valid].astype(np.float32).T)
            logits *= steps[head, :, np.newaxis]
            e = np.exp(logits - logits.max(axis=-1, keepdims=True))
            share = e / e.sum(axis=-1, keepdims=True)
            o[head] = np.matmul(share, v[head, :valid].astype(np.float32)) * np.float32(1 << OUTPUT_BITS)
    return {"o": o}
