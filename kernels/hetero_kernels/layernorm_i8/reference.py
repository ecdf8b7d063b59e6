"""The exact answer of `layernorm_i8_{D}`, and the layer normalisation that it approximates.

A row is scaled to 14 bits first (by a shift), so that its mean and its squares need no fractions. Then 1 / deviation
comes from the sum of squares by Newton's iteration for the inverse square root.

Ranges, which show that nothing overflows: D is at most 4096. Scaled values are within 2**14, their sum within 2**26.
Centred ones are within 2**15 - 7: the mean of a row that has a value at one end is at least 2**15 / D away from the
other. Their squares add up to at most D 2**28 = 2**40, in 64 bits. A product of the iteration is below 2**30. A centred
value times a deviation's inverse, and a normal value times gamma, are int16 by int16 products, within 2**30, and beta's
2**15 * 2**9 leaves room for rounding.
"""

from __future__ import annotations

import functools
import math

import numpy as np

from hetero.tensors import Array
from hetero_kernels.kernel import clip_int8, shift_round

MOST_WIDTH = 4096

GAMMA_BITS = 8
"""A step of gamma and beta is a step of y over 2**8."""

EPSILON = 1e-5

_ROW_BITS = 14
# Of a value in units of its row's deviation, which is at most sqrt(4096).
_NORMAL_BITS = 9
# Below this, a row of 14 bits varies by rounding only.
_LEAST_SQUARES = 64


def reference(*, x: Array, gamma: Array, beta: Array) -> dict[str, Array]:
    """Integer layer normalisation of every row; all shifts are rounded to nearest, halves up, unless marked as cuts.

    Args:
        x: int16 `[rows, D]`.
        gamma: int16 `[D]`, the same for all rows, in steps of y's over 256.
        beta: int16 `[D]`, likewise.

    Returns:
        `y`, int8 `[rows, D]`.
    """
    width = x.shape[-1]
    row = _scaled(x.astype(np.int32))
    total = row.sum(axis=-1, keepdims=True, dtype=np.int32)
    centred = row - (2 * total + width) // (2 * width)
    squares = np.square(centred, dtype=np.int64).sum(axis=-1, keepdims=True)
    inverse, shift = inverse_deviation(squares, width)
    normal = np.clip((centred * inverse + ((1 << shift) >> 1)) >> shift, -32768, 32767)
    scaled = normal * gamma.astype(np.int32) + (beta.astype(np.int32) << _NORMAL_BITS)
    return {"y": clip_int8(shift_round(scaled, _NORMAL_BITS + GAMMA_BITS))}


def _scaled(x: Array) -> Array:
    """Rows times the power of two that brings their largest value to 14 bits."""
    # frexp of an integer gives its number of bits.
    bits = np.frexp(np.abs(x).max(axis=-1, keepdims=True).astype(np.float32))[1]
    down = np.maximum(bits - _ROW_BITS, 0)
    scaled: Array = ((x << np.maximum(_ROW_BITS - bits, 0)) + ((1 << down) >> 1)) >> down
    return scaled


def inverse_deviation(squares: Array, width: int) -> tuple[Array, Array]:
    """1 / sqrt(squares / width) in steps of 2**-9, as a mantissa and the shift of what is multiplied by it.

    Newton's iteration r (3 - u r**2) / 2 for 1 / sqrt(u), with u in [1/4, 1) as 15 bits, from the line 2.2 - 1.3 u:
    three steps take its error of 11% to where rounding ends it, about 1e-4, which is the same for all of a row.

    Args:
        squares: Sums of squares, int64 from 0 to 2**40; less than 64 counts as 64.
        width: How many were added.

    Returns:
        `mantissa`, int32 below 2**15, and `shift`, int32 from 2: c / deviation is c * mantissa / 2**shift.
    """
    at_least = np.maximum(squares, _LEAST_SQUARES)
    bits = np.frexp(at_least.astype(np.float64))[1]
    # An even shift leaves 14 or 15 bits.
    halved = (bits - 14) >> 1
    u = ((at_least << np.maximum(-2 * halved, 0)) >> np.maximum(2 * halved, 0)).astype(np.int32)
    r = 36045 - ((21299 * u) >> 15)
    for _ in range(3):
        rest = 3 * 2**13 - ((u * ((r * r) >> 15)) >> 15)
        r = (r * rest) >> 14
    factor, factor_bits = root(width)
    mantissa = np.minimum(shift_round(np.minimum(r, 32767) * factor, 15), 32767)
    return mantissa, halved + (factor_bits + 6 - _NORMAL_BITS)


@functools.cache
def root(width: int) -> tuple[int, int]:
    """sqrt(width / 2) as 15 bits, and how many of these lie behind the point."""
    exact = math.sqrt(width / 2)
    bits = 15 - math.frexp(exact)[1]
    return round(math.ldexp(exact, bits)), bits


def model(*, x: Array, gamma: Array, beta: Array) -> dict[str, Array]:
    """(x - mean) / sqrt(variance + 1e-5) * gamma + beta in float32, in steps of y; arguments as for `reference`."""
    wide = x.astype(np.float32)
    centred = wide - wide.mean(axis=-1, keepdims=True)
    deviation = np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + np.float32(EPSILON))
    step = np.float32(1 << GAMMA_BITS)
    return {"y": gamma.astype(np.float32) / step * (centred / deviation) + beta.astype(np.float32) / step}
