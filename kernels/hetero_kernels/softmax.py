"""Softmax in integers, with weights of 15 bits: what the attention kernels are made of.

The exponential is one of base 2, whose whole part is a shift. A row is scaled by the power of two at or above its
maximum, not by the maximum itself, so that a larger maximum in a later block of keys costs one shift of what was summed
(the online softmax of Milakov and Gimelshein, arXiv:1805.02867, with powers of two as in Stevens et al., "Softermax",
arXiv:2103.09301). The division is one reciprocal a row, by Newton's iteration.

A core has all of this as vector instructions: int32 by int16 products in 64-bit accumulators that are rounded and
saturated on their way out, int16 by int16 products, shifts, maxima and selections. A shift by each lane's own amount is
four selections between a value and its half, quarter, ...
"""

from __future__ import annotations

import math

import numpy as np

from hetero.errors import InputError
from hetero.tensors import Array
from hetero_kernels.kernel import shift_round

FRACTION_BITS = 12
"""Of an exponent."""

TEMPERATURE_BITS = 34
"""Of a temperature: 2**34 stands for a whole exponent, a factor of two, for each step of a score."""

# 2**15 * 2**-x for x from 0 to 1, a cubic in x fitted for the least relative error (1.2e-4) among integers.
_EXP2 = (32767, -22648, 7541, -1277)
MASKED = -(1 << 30)
"""The exponent of a key that is not to count: below every other, and no difference to it leaves int32."""

_WHOLE = 1 << FRACTION_BITS
# Where a weight rounds to zero: 2**15 / 2**16 is just below a half.
_NOTHING = 16 << FRACTION_BITS


def exponents(scores: Array, temperature: Array) -> Array:
    """⌊scores * temperature / 2**22 + 1/2⌋ in steps of 2**-12, with the temperature cut to its highest 15 bits.

    With at most 15 bits it is an int16 operand; a row's own shift gives the rest. |scores| <= 2**20 times 15 bits, over
    at least 2**6, stays within 2**29.

    Args:
        scores: Integers of magnitude up to 2**20, of an integer or float dtype, `[..., keys]`.
        temperature: int32, broadcast to `[..., 1]`; less than 0 counts as 0.

    Returns:
        int32 `[..., keys]`.
    """
    positive = np.maximum(temperature, 0)
    # frexp of an integer gives its number of bits.
    surplus = np.maximum(np.frexp(positive.astype(np.float64))[1] - 15, 0)
    shift = TEMPERATURE_BITS - FRACTION_BITS - surplus
    # Exact in float64: the products have 35 bits, the shift adds at most 22 behind the point, which a half needs too.
    factor = np.ldexp((positive >> surplus).astype(np.float64), -shift)
    scaled = scores * factor
    scaled += 0.5
    rounded: Array = np.floor(scaled, out=scaled).astype(np.int32)
    return rounded


def scale_of(largest: Array) -> Array:
    """The whole exponent at or above an exponent: ⌈largest / 2**12⌉; it is within 2**17."""
    whole: Array = -(-largest >> FRACTION_BITS)
    return whole


def weights(exponent: Array, scale: Array) -> Array:
    """2**15 * 2**(exponent - scale), rounded; the largest of a row is between 2**14 and 2**15 - 1.

    Args:
        exponent: int32 `[..., keys]`, at most `scale`.
        scale: Whole exponents, int32, broadcast to it.

    Returns:
        int16 `[..., keys]`, 0 to 32767.
    """
    below = (scale << FRACTION_BITS) - exponent
    found: Array = np.take(WEIGHTS, np.minimum(below, _NOTHING, out=below))
    return found


def exp2_fraction(fraction: Array) -> Array:
    """2**15 * 2**-(fraction / 2**12) by a cubic; each step is rounded to nearest, halves up, and fits int16.

    Args:
        fraction: Integers from 0 to 2**12 - 1.

    Returns:
        int32, from 2**14 + 1 to 2**15 - 1.
    """
    x = fraction.astype(np.int32) << (15 - FRACTION_BITS)
    value = np.full_like(x, _EXP2[3])
    for coefficient in _EXP2[2::-1]:
        value = shift_round(value * x, 15) + coefficient
    return value


def _weights_table() -> Array:
    below = np.arange(_NOTHING + 1, dtype=np.int32)
    whole = below >> FRACTION_BITS
    rounded = (exp2_fraction(below & (_WHOLE - 1)) + ((1 << whole) >> 1)) >> whole
    table: Array = rounded.astype(np.int16)
    table.setflags(write=False)
    return table


WEIGHTS = _weights_table()
"""The weight of every distance below the scale, up to where it is 0: a table for numpy, where a core computes."""


def reciprocal(total: Array) -> tuple[Array, Array]:
    """Mantissa and shift of 1 / total, to 14 bits: mantissa / 2**(29 + shift).

    Newton's iteration for 1/x, with x in [1/2, 1) as 15 bits, from the line 48/17 - 32/17 x: three steps square its
    error of 1/17 down to where rounding ends it. An estimate is about 2**15 at most, and so is what it is multiplied
    by: the products fit int32.

    Args:
        total: int32 from 2**14 to 2**31 - 1.

    Returns:
        `mantissa`, int32 from 2**14 to 2**15 - 1, and `shift`, int32 from 0: the bits that `total` has beyond 15.
    """
    bits: Array = np.frexp(total.astype(np.float64))[1]
    shift = bits.astype(np.int32) - 15
    x = total >> shift
    estimate = 46261 - ((30840 * x) >> 15)
    for _ in range(3):
        product = (x * estimate) >> 15
        estimate = (estimate * ((1 << 15) - product)) >> 14
    return np.minimum(estimate, 32767), shift


def temperatures(steps: Array, *, size: int = 64) -> Array:
    """Temperatures of scores that have float steps: those of softmax(q k^T / sqrt(size)).

    Args:
        steps: The step of q times the step of k, of each query, head or tile; any shape.
        size: Features of a head; 1 where q already carries the factor 1 / sqrt(size), as in Whisper's exports.

    Returns:
        int32 of the same shape.

    Raises:
        InputError: A step that is negative or not finite, or so large that a score's step is worth an eighth of a whole
            exponent.
    """
    wanted = np.rint(np.asarray(steps, np.float64) * (math.log2(math.e) / math.sqrt(size) * 2.0**TEMPERATURE_BITS))
    # NaN is not within either.
    if not np.all((wanted >= 0) & (wanted < 2**31)):
        raise InputError(
            f"steps of q k^T go from {np.min(steps):g} to {np.max(steps):g}, expected 0 or more and below "
            f"{math.sqrt(size) / (8 * math.log2(math.e)):g}",
            fix="quantise q and k with finer steps",
        )
    return wanted.astype(np.int32)
