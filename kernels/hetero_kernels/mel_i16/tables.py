"""The tables of `mel_i16`: transform, filters, logarithm."""

from __future__ import annotations

import functools
import math

import numpy as np

from hetero.tensors import Array

WINDOW = 400
HALF = WINDOW // 2
BINS = HALF - 1
"""All but the first and the last, which are in no filter."""

FRACTION_BITS = 6
"""Of the logarithm's 14 bits, those within a section of its table."""

_LARGEST = 32767
# A multiple of 8, so that products of a window's and an angle's cosine that are eighths are integers, and none a half.
_AMPLITUDE = 32760


def _log2_table() -> Array:
    table = np.array([round(2**15 * math.log2(1 + i / 256)) for i in range(257)], np.int64)
    table.setflags(write=False)
    return table


LOG2 = _log2_table()
"""log2(1 + i / 256) in steps of 2**-15, for i up to 256."""


@functools.cache
def matrices() -> Array:
    """32760 hann(n) cos(2 pi n k / 400), and the same with the sine; n from 1 to 200, k from 1 to 199.

    Returns:
        int16 `[2, 200, 199]`, for the even and the odd part of a window; read-only.
    """
    n, k = np.arange(1, HALF + 1)[:, np.newaxis], np.arange(1, BINS + 1)
    # The angle is taken modulo a turn as an integer, so that it is as exact for the last bin as for the first.
    angle = 2 * np.pi / WINDOW * (n * k % WINDOW)
    hann = _AMPLITUDE * (0.5 - 0.5 * np.cos(2 * np.pi / WINDOW * n))
    made: Array = np.rint(hann * np.stack([np.cos(angle), np.sin(angle)])).astype(np.int16)
    made.setflags(write=False)
    return made


@functools.cache
def filters(bands: int) -> Array:
    """Whisper's filters, each scaled so that its largest weight is 32767.

    Returns:
        int16 `[bands, 199]`; read-only.
    """
    weights = _weights(bands)
    made: Array = np.rint(weights * (_LARGEST / weights.max(axis=1, keepdims=True))).astype(np.int16)
    made.setflags(write=False)
    return made


@functools.cache
def offsets(bands: int) -> Array:
    """What the scales of all steps are in the logarithm: those of samples, matrices, powers and filters.

    Returns:
        int64 `[bands]`, in steps of 2**-15; read-only.
    """
    # Samples are in 2**-15, which 2**30 of a power takes out again.
    scale = np.log2(_weights(bands).max(axis=1)) - 2 * np.log2(_AMPLITUDE) - np.log2(_LARGEST)
    made: Array = np.rint(2**15 * scale).astype(np.int64)
    made.setflags(write=False)
    return made


def exact_filters(bands: int) -> Array:
    """Whisper's filters: float32 `[bands, 201]`."""
    # Not at import: the package of Whisper is large, and the other kernels do without it.
    from hetero.whisper.mel import mel_filters

    return mel_filters(bands)


def _weights(bands: int) -> Array:
    weights: Array = exact_filters(bands)[:, 1:HALF].astype(np.float64)
    return weights
