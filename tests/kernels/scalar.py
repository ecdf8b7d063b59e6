"""The kernels once more, one Python integer at a time, from the formulas and not from the code under test.

Python integers neither overflow nor wrap, `>>` and `//` on them round down, and the tables come from decimal
arithmetic: whatever numpy, BLAS or the platform's libm might do wrongly shows up as a difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext
from fractions import Fraction
from math import ceil, floor, isqrt
from operator import mul

Row = Sequence[int]
Matrix = Sequence[Row]

PI = Decimal("3.14159265358979323846264338327950288419716939937510")


def clip(value: int, low: int = -128, high: int = 127) -> int:
    return max(low, min(high, value))


def nearest(value: Decimal) -> int:
    return int(value.to_integral_value(ROUND_HALF_EVEN))


def exp_value(i: int) -> Decimal:
    with localcontext(Context(prec=50)):
        return 2**20 * Decimal(-i).exp()


def gelu_value(x: int) -> Decimal:
    with localcontext(Context(prec=50)):
        t = Decimal(x) / 127
        e = (2 * (2 / PI).sqrt() * (t + Decimal("0.044715") * t**3)).exp()
        return 127 * t / 2 * (1 + (e - 1) / (e + 1))


EXP = [max(1, nearest(exp_value(i))) for i in range(128)]


def dot(a: Row, b: Row) -> int:
    return sum(map(mul, a, b))


def attention(q: Matrix, k: Matrix, v: Matrix) -> list[list[int]]:
    columns = list(zip(*v, strict=True))
    o = []
    for query in q:
        s = [dot(query, key) >> 3 for key in k]
        x = [clip((score - max(s)) >> 8, -127, 0) for score in s]
        e = [EXP[-step] >> 10 for step in x]
        total = max(sum(e), 1)
        p = [min(127, 127 * part // total) for part in e]
        row = [dot(p, column) for column in columns]
        o.append([clip((w + 64 if w >= 0 else w - 64) >> 7) for w in row])
    return o


def matmul(a: Matrix, b: Matrix) -> list[list[int]]:
    columns = list(zip(*b, strict=True))
    return [[clip(dot(row, column) >> 7) for column in columns] for row in a]


def layernorm(x: Row, gamma: Row, beta: Row) -> list[int]:
    total = sum(x)
    m = total // 256 if total >= 0 else -(-total // 256)
    v = sum((value - m) ** 2 for value in x) // 256
    r = 32768 // isqrt(v + 1)
    return [clip(((g * (((value - m) * r) >> 8)) >> 7) + b) for value, g, b in zip(x, gamma, beta, strict=True)]


def gelu(x: int) -> int:
    return nearest(gelu_value(x))


def shifted_up(value: int, shift: int) -> int:
    """value / 2**shift to the nearest integer, halves up, by fractions."""
    return floor(Fraction(value, 2**shift) + Fraction(1, 2))


def wrapped(value: int) -> int:
    """What 32 bits hold of it."""
    return (value + 2**31) % 2**32 - 2**31


def gemm(a: Matrix, w: Matrix) -> list[list[int]]:
    columns = list(zip(*w, strict=True))
    return [[dot(row, column) for column in columns] for row in a]


def gemm_scaled(a: Matrix, w: Matrix, bias: Row, multiplier: Row, shift: int) -> list[list[int]]:
    return [
        [
            clip(shifted_up(wrapped(c + b) * m, clip(shift, 0, 47)))
            for c, b, m in zip(row, bias, multiplier, strict=True)
        ]
        for row in gemm(a, w)
    ]


def exponent(score: int, temperature: int) -> int:
    """In steps of 2**-12, of a temperature in steps of 2**-34 that is cut to its 15 highest bits."""
    surplus = max(max(temperature, 0).bit_length() - 15, 0)
    return shifted_up(score * (max(temperature, 0) >> surplus), 22 - surplus)


def weight(below: int) -> int:
    """2**15 * 2**-(below / 2**12) by the cubic of the kernels' softmax."""
    whole, x = divmod(below, 2**12)
    value = -1277
    for coefficient in (7541, -22648, 32767):
        value = shifted_up(value * 8 * x, 15) + coefficient
    return shifted_up(value, whole)


def reciprocal(total: int) -> tuple[int, int]:
    """1 / total as mantissa / 2**(29 + shift), by Newton's iteration from 48/17 - 32/17 x."""
    shift = total.bit_length() - 15
    x = total >> shift
    r = round(Fraction(48, 17) * 2**14) - (round(Fraction(32, 17) * 2**14) * x >> 15)
    for _ in range(3):
        r = r * (2**15 - (x * r >> 15)) >> 14
    return min(r, 32767), shift


def attention_tile(q: Matrix, k: Matrix, v: Matrix, temperature: int) -> list[list[int]]:
    o = []
    for query in q:
        exponents = [exponent(dot(query, key), temperature) for key in k]
        scale = ceil(Fraction(max(exponents), 2**12))
        parts = [weight(2**12 * scale - each) for each in exponents]
        mantissa, shift = reciprocal(sum(parts))
        o.append([clip(shifted_up(dot(parts, column) * mantissa, 29 + shift)) for column in zip(*v, strict=True)])
    return o


def attention_exact(query: Row, k: Matrix, v: Matrix, temperature: int, keys: int) -> list[int]:
    """One query of the online softmax: weights of a block are scaled by the largest exponent so far."""
    scale: int | None = None
    total, summed = 0, [0] * 64
    for start in range(0, keys, 64):
        some = slice(start, min(start + 64, keys))
        exponents = [exponent(dot(query, key), temperature) for key in k[some]]
        highest = ceil(Fraction(max(exponents), 2**12))
        scale, before = highest if scale is None else max(scale, highest), scale
        rise = min(scale - before, 31) if before is not None else 0
        parts = [weight(2**12 * scale - each) for each in exponents]
        total = shifted_up(total, rise) + sum(parts)
        products = [dot(parts, column) for column in zip(*v[some], strict=True)]
        summed = [shifted_up(s, rise) + shifted_up(p, 4) for s, p in zip(summed, products, strict=True)]
        assert max(map(abs, summed)) < 2**31
    if not total:
        return [0] * 64
    mantissa, shift = reciprocal(total)
    return [clip(shifted_up(s * mantissa, 17 + shift), -(2**15), 2**15 - 1) for s in summed]
