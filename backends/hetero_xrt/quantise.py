"""Float32 to int8 and back, for products with constant weights and for attention.

Every step is symmetric: real value = step * integer, integers from -127 to 127, no zero point.

- **Weights**: a step for each output channel, settled once.
- **Activations**: a step for each row (token), found anew in each call. So a token with a huge value costs that token
  alone its precision. With 16 bits a number is 256 high + low, two int8 numbers: a row becomes two, and what the NPU
  makes of them is added up on the host.
- **Smoothing**: activations have channels that are large in every token, weights hardly do. Activations are divided by
  a number for each input channel, and the weights' rows multiplied by it: the product is the same, and both fit their
  steps better. Xiao et al., "SmoothQuant", 2023 (arXiv 2211.10438), section 4; there the numbers come from the largest
  activations in samples. Without samples only the weights are known: their rows are brought nearer to one size.
- **Attention**: queries have a step for each row, keys and values one for each head.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hetero.backend import Unsupported
from hetero.tensors import Array
from hetero_xrt.blocks import Blocks

Floats = NDArray[np.float32]

MOST = 127
MOST_WIDE = 127 << 8
"""With 16 bits: 256 * 127, so that the low part, -128 to 127, fits beside a high one up to 127."""

ALPHA = 0.5
"""How much of the activations' range goes over to the weights."""

_ALONE = Blocks(1)

# Channels of no content, of weights or of activations, are neither made huge nor lost.
_LEAST = 1e-5


@dataclass(frozen=True, eq=False)
class Matrix:
    """A weight in int8.

    Attributes:
        values: int8 `[K, N]`, both filled up with zeros to the kernel's sizes.
        steps: float32 `[n]`, of each output channel; n of the weight itself.
        divisors: float32 `[k]`, by which activations are divided first; None for 1.
    """

    values: NDArray[np.int8]
    steps: Floats
    divisors: Floats | None


def matrix_of(weight: Floats, depth: int, channels: int, divisors: Floats | None = None) -> Matrix:
    """Quantise a weight.

    Args:
        weight: `[k, n]`, finite.
        depth: The kernel's K, at least k.
        channels: The kernel's N, at least n.
        divisors: What the activations are divided by, `[k]`.
    """
    k, n = weight.shape
    scaled = weight if divisors is None else weight * divisors[:, np.newaxis]
    steps = _steps(_magnitude(scaled, (0,)))
    values = np.zeros((depth, channels), np.int8)
    values[:k, :n] = np.rint(scaled / steps)
    return Matrix(values, steps[0], divisors)


def smoothing(weight: Floats, largest: Floats | None = None, alpha: float = ALPHA) -> Floats:
    """Numbers to divide the activations by, `[k]`.

    Args:
        weight: `[k, n]`.
        largest: The largest magnitude of each input channel in samples, `[k]`; None when there are none.
        alpha: How much of the activations' range goes over to the weights, 0 to 1.
    """
    rows = _positive(np.abs(weight).max(axis=1))
    tops = np.ones_like(rows) if largest is None else _positive(np.asarray(largest, np.float32))
    divisors: Floats = (tops**alpha / rows ** (1 - alpha)).astype(np.float32)
    return divisors


def rows_of(
    x: Floats, depth: int, divisors: Floats | None = None, *, wide: bool = False, blocks: Blocks = _ALONE
) -> tuple[NDArray[np.int8], Floats]:
    """Quantise activations, each row by itself.

    Args:
        x: `[rows, k]`.
        depth: The kernel's K, at least k.
        divisors: As `Matrix.divisors`.
        wide: With 16 bits.
        blocks: Shares the work.

    Returns:
        int8 `[rows, depth]`, filled up with zeros, or `[2 rows, depth]`, the high parts first; and the steps, float32
        `[rows, 1]`.

    Raises:
        Unsupported: A number that is not finite.
    """
    rows, k = x.shape
    values = np.empty((2 * rows if wide else rows, depth), np.int8)
    values[:, k:] = 0
    steps = np.empty((rows, 1), np.float32)

    def work(some: slice) -> None:
        scaled = x[some] / (np.float32(1) if divisors is None else divisors)
        steps[some] = _steps(_magnitude(scaled, (1,)), MOST_WIDE if wide else MOST)
        scaled /= steps[some]
        np.rint(scaled, out=scaled)
        if not wide:
            values[some, :k] = scaled
            return
        whole = scaled.astype(np.int16)
        high = (whole >> 8) + ((whole >> 7) & 1)
        values[some, :k] = high
        values[some.start + rows : some.stop + rows, :k] = whole - (high << 8)

    blocks.each(rows, depth, work)
    return values, steps


def product(
    sums: NDArray[np.int32], steps: Floats, matrix: Matrix, bias: Floats | None = None, *, blocks: Blocks = _ALONE
) -> Floats:
    """What int32 sums mean.

    Args:
        sums: `[rows, N]`, of the integers; `[2 rows, N]` with 16 bits.
        steps: Of the rows, `[rows, 1]`.
        matrix: The weight.
        bias: `[n]`, added in float32.
        blocks: Shares the work.

    Returns:
        `[rows, n]`.
    """
    rows, n = len(steps), len(matrix.steps)
    y = np.empty((rows, n), np.float32)

    def work(some: slice) -> None:
        part = y[some]
        part[:] = sums[some, :n]
        if len(sums) > rows:
            part *= np.float32(256)
            part += sums[some.start + rows : some.stop + rows, :n]
        part *= steps[some]
        part *= matrix.steps
        if bias is not None:
            part += bias

    blocks.each(rows, n, work)
    return y


@dataclass(frozen=True, eq=False)
class Heads:
    """Attention's inputs in int8, filled up with zeros to the kernel's length.

    Attributes:
        q: int8 `[heads, T, size]`.
        k: Likewise.
        v: Likewise.
        score_steps: float32 `[heads, T]`, what a step of each query's scores is worth; 0 behind the last query.
        value_steps: float32 `[heads, 1, 1]`.
    """

    q: NDArray[np.int8]
    k: NDArray[np.int8]
    v: NDArray[np.int8]
    score_steps: Floats
    value_steps: Floats


def heads_of(
    q: Floats, k: Floats, v: Floats, scale: float, length: int, size: int, *, blocks: Blocks = _ALONE
) -> Heads:
    """Quantise attention's inputs.

    Args:
        q: Queries, `[heads, n, s]`.
        k: Keys, `[heads, t, s]`.
        v: Values, `[heads, t, s]`.
        scale: What the scores are multiplied by.
        length: The kernel's T, at least n and t.
        size: The kernel's size of a head, at least s.
        blocks: Shares the work.

    Raises:
        Unsupported: A number that is not finite.
    """
    count = len(q)
    integers = np.zeros((3, count, length, size), np.int8)
    score_steps = np.zeros((count, length), np.float32)
    value_steps = np.empty((count, 1, 1), np.float32)

    def work(some: slice) -> None:
        steps = []
        for x, axes, into in zip((q, k, v), ((2,), (1, 2), (1, 2)), integers, strict=True):
            part = x[some]
            step = _steps(_magnitude(part, axes))
            scaled = part / step
            into[some, : x.shape[1], : x.shape[2]] = np.rint(scaled, out=scaled)
            steps.append(step)
        score_steps[some, : q.shape[1]] = (steps[0] * steps[1])[:, :, 0] * np.float32(scale)
        value_steps[some] = steps[2]

    blocks.each(count, length * size, work)
    return Heads(integers[0], integers[1], integers[2], score_steps, value_steps)


def _magnitude(x: Floats, axes: tuple[int, ...]) -> Floats:
    """The largest magnitude, without an array of magnitudes."""
    top: Floats = np.maximum(x.max(axis=axes, keepdims=True), -x.min(axis=axes, keepdims=True))
    return top


def _steps(largest: Array, most: int = MOST) -> Floats:
    """Steps that make numbers up to `largest` integers up to `most`; 1 where there are none but zeros."""
    if not np.isfinite(largest).all():
        raise Unsupported("there are numbers that are not finite, which int8 does not hold")
    # A step below the normal numbers is too coarsely rounded to divide by.
    steps: Floats = np.maximum((largest / most).astype(np.float32), np.finfo(np.float32).tiny)
    steps[largest == 0] = 1
    return steps


def _positive(x: Floats) -> Floats:
    clipped: Floats = np.maximum(x, max(float(x.max(initial=0.0)) * _LEAST, float(np.finfo(np.float32).tiny)))
    return clipped
