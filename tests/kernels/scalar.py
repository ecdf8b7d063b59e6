"""The kernels once more, one Python integer at a time, from the formulas and not from the code under test.

Python integers neither overflow nor wrap, `>>` and `//` on them round down, and the tables come from decimal
arithmetic: whatever numpy, BLAS or the platform's libm might do wrongly shows up as a difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext
from math import isqrt
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


def nearest_up(value: int, shift: int) -> int:
    """value / 2**shift to the nearest integer, halves up."""
    return (2 * value + 2**shift) // 2 ** (shift + 1)


def wrapped(value: int) -> int:
    """What 32 bits hold of it."""
    return (value + 2**31) % 2**32 - 2**31


def gemm(a: Matrix, w: Matrix) -> list[list[int]]:
    columns = list(zip(*w, strict=True))
    return [[dot(row, column) for column in columns] for row in a]


def gemm_scaled(a: Matrix, w: Matrix, bias: Row, multiplier: Row, shift: int) -> list[list[int]]:
    return [
        [
            clip(nearest_up(wrapped(c + b) * m, clip(shift, 0, 47)))
            for c, b, m in zip(row, bias, multiplier, strict=True)
        ]
        for row in gemm(a, w)
    ]
