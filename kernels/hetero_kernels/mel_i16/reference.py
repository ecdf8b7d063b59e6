"""The exact answer of `mel_i16_{M}`, and the log-mel spectrum that it approximates.

The 400-point transform is two matrix products. 400 = 2**4 * 5**2 suits no vector width: a mixed-radix transform would
spend its time on moving and rounding, where an AIE2 core does 64 products of int16 a cycle. A real signal's even and
odd parts need half of the matrix each, the Hann window is part of the matrix, and neither its first sample nor the
first and last bins count: 200 samples to 199 bins, twice, 79,600 products a window, rounded once.

A window is scaled to 14 bits by a shift; its spectrum is rounded to 32 bits, and then brought to 30 bits by a shift to
the left. Quiet windows and quiet bins lose next to nothing, and the shifts come back in the logarithm.

Ranges, which show that nothing overflows: even and odd parts are saturated to int16. Their products with matrix entries
of 15 bits are within 2**30, and 200 of them within 2**15 * 2**15 * 100 < 2**37, in 64 bits: a column's entries add up
to those of the Hann window at most. Over 2**8 they are within 2**29. A bin of 30 bits is x = h 2**15 + l with int16 h
and l, so that ⌊x**2 / 2**15⌋ = x h + ⌊x l / 2**15⌋ takes int32 by int16 products, each within 2**45; two of these over
2**15 are within 2**31, saturated. A filter has at most 14 bins: 14 powers times filters of 15 bits are within 2**50.
"""

from __future__ import annotations

import numpy as np

from hetero.tensors import Array
from hetero_kernels.kernel import shift_round
from hetero_kernels.mel_i16.tables import (
    FRACTION_BITS,
    HALF,
    LOG2,
    WINDOW,
    exact_filters,
    filters,
    matrices,
    offsets,
)

OUTPUT_BITS = 9
"""A step of the output is 2**-9 in the logarithm of base 2."""

FLOOR = -17008
"""The least output, the logarithm of Whisper's 1e-10; also that of silence."""

_SAMPLE_BITS = 14
_SPECTRUM_SHIFT = 8
_SPECTRUM_BITS = 30
_MANTISSA_BITS = 15
# Of the logarithm before it is rounded.
_LOG_BITS = 15


def reference(*, x: Array, bands: int) -> dict[str, Array]:
    """The logarithm of the power in each band; shifts are rounded to nearest, halves up, where ⌊ ⌋ does not stand.

    Args:
        x: Windows of samples, int16 `[frames, 400]`.
        bands: 80 or 128.

    Returns:
        `y`, int16 `[frames, bands]`, in steps of 2**-9 of the logarithm of base 2, of samples from -1 to 1.
    """
    spectrum, exponent = _spectrum(x)
    squares = np.square(spectrum) >> _MANTISSA_BITS
    power = np.minimum(shift_round(squares[0] + squares[1], _MANTISSA_BITS), 2**31 - 1)
    # Exact: float64 holds 14 products of 31 and 15 bits.
    energy = np.matmul(power.astype(np.float64), filters(bands).T.astype(np.float64)).astype(np.int64)
    logarithm = log2(energy) + offsets(bands) + (exponent << (_LOG_BITS + 1))
    steps = shift_round(logarithm, _LOG_BITS - OUTPUT_BITS)
    return {"y": np.where(energy > 0, np.clip(steps, FLOOR, 32767), FLOOR).astype(np.int16)}


def _spectrum(x: Array) -> tuple[Array, Array]:
    """Real and imaginary parts of bins 1 to 199, 30 bits, and the exponent of two that they stand for.

    Returns:
        int64 `[2, frames, 199]` and `[frames, 1]`.
    """
    wide = x.astype(np.int32)
    up = _SAMPLE_BITS - _bits(np.abs(wide).max(axis=-1, keepdims=True, initial=0))
    down = np.maximum(-up, 0)
    scaled = ((wide << np.maximum(up, 0)) + ((1 << down) >> 1)) >> down
    parts = np.zeros((2, len(x), HALF), np.int32)
    mirrored = scaled[:, WINDOW - 1 : HALF : -1]
    parts[:, :, : HALF - 1] = scaled[:, 1:HALF] + mirrored, scaled[:, 1:HALF] - mirrored
    parts[0, :, -1] = scaled[:, HALF]
    np.clip(parts, -32768, 32767, out=parts)
    # Exact: float64 holds sums within 2**37.
    products = np.matmul(parts.astype(np.float64), matrices().astype(np.float64)).astype(np.int64)
    rounded = shift_round(products, _SPECTRUM_SHIFT)
    left = _SPECTRUM_BITS - _bits(np.abs(rounded).max(axis=(0, 2), initial=0))[:, np.newaxis]
    return rounded << left, (_SPECTRUM_SHIFT - left - up).astype(np.int64)


def log2(values: Array) -> Array:
    """The logarithm of base 2 in steps of 2**-15, by a table of 256 sections and a line within each.

    Args:
        values: int64 from 0 to 2**52; that of 0 is of no meaning.

    Returns:
        int64.
    """
    bits = _bits(values).astype(np.int64)
    mantissa = (values << np.maximum(_MANTISSA_BITS - bits, 0)) >> np.maximum(bits - _MANTISSA_BITS, 0)
    within = np.maximum(mantissa - (1 << (_MANTISSA_BITS - 1)), 0)
    section, rest = within >> FRACTION_BITS, within & ((1 << FRACTION_BITS) - 1)
    line = shift_round((LOG2[section + 1] - LOG2[section]) * rest, FRACTION_BITS)
    logarithm: Array = ((bits - 1) << _LOG_BITS) + LOG2[section] + line
    return logarithm


def _bits(values: Array) -> Array:
    """The number of bits of integers of 0 or more, up to 2**53."""
    bits: Array = np.frexp(values.astype(np.float64))[1]
    return bits


def model(*, x: Array, bands: int) -> dict[str, Array]:
    """The same with float64 Fourier transform, power and filters, in float32 steps; arguments as for `reference`."""
    hann = np.hanning(WINDOW + 1)[:-1]
    power = np.square(np.abs(np.fft.rfft(x / 32768.0 * hann)))
    return {"y": np.log2(np.maximum(power @ exact_filters(bands).T, 1e-10)).astype(np.float32) * (1 << OUTPUT_BITS)}
