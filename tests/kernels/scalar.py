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


def layernorm_wide(x: Row, gamma: Row, beta: Row) -> list[int]:
    """Layer normalisation of a row that is scaled to 14 bits."""
    width = len(x)
    up = 14 - max(map(abs, x)).bit_length()
    row = [value << up if up >= 0 else shifted_up(value, -up) for value in x]
    mean = floor(Fraction(sum(row), width) + Fraction(1, 2))
    centred = [value - mean for value in row]
    squares = max(sum(c * c for c in centred), 64)
    halved = (squares.bit_length() - 14) // 2
    u = squares >> 2 * halved if halved >= 0 else squares << -2 * halved
    r = round(Fraction("2.2") * 2**14) - (round(Fraction("1.3") * 2**14) * u >> 15)
    for _ in range(3):
        r = r * (3 * 2**13 - (u * (r * r >> 15) >> 15)) >> 14
    bits = max(bits for bits in range(16) if width * 4**bits < 2 * 4**15)
    root = max(root for root in range(2**15) if (2 * root - 1) ** 2 * 2 < 4 * width * 4**bits)
    inverse = min(shifted_up(min(r, 32767) * root, 15), 32767)
    normal = [clip(shifted_up(c * inverse, halved + bits - 3), -(2**15), 2**15 - 1) for c in centred]
    return [clip(shifted_up(n * g + b * 512, 17)) for n, g, b in zip(normal, gamma, beta, strict=True)]


def erf_gelu(x: int, step_x: Fraction, step_y: Fraction) -> Decimal:
    """gelu(x step_x) / step_y, by the series of the error function."""
    with localcontext(Context(prec=80)):
        t = Decimal(x) * step_x.numerator / step_x.denominator
        z = t / Decimal(2).sqrt()
        term = total = z
        for n in range(1, 400):
            term *= -z * z / n
            total += term / (2 * n + 1)
        erf = 2 / PI.sqrt() * total
        return t / 2 * (1 + erf) * step_y.denominator / step_y.numerator


def log2_steps(value: int, table: Row) -> int:
    """The logarithm of base 2 in steps of 2**-15: a table of 256 sections, and a line within each."""
    bits = value.bit_length()
    mantissa = value * 2 ** (64 - bits) // 2 ** (64 - 15)
    section, rest = divmod(mantissa - 2**14, 64)
    return 2**15 * (bits - 1) + table[section] + shifted_up((table[section + 1] - table[section]) * rest, 6)


def mel(x: Row, matrices: Sequence[Matrix], filters: Matrix, offsets: Row, table: Row) -> list[int]:
    """The log-mel spectrum of one window, of the kernel's tables."""
    up = 14 - max(map(abs, x)).bit_length()
    row = [value << up if up >= 0 else shifted_up(value, -up) for value in x]
    even = [clip(row[n] + row[400 - n], -(2**15), 2**15 - 1) for n in range(1, 200)] + [row[200]]
    odd = [clip(row[n] - row[400 - n], -(2**15), 2**15 - 1) for n in range(1, 200)] + [0]
    products = [
        [dot(part, column) for column in zip(*matrix, strict=True)]
        for part, matrix in zip((even, odd), matrices, strict=True)
    ]
    rounded = [[shifted_up(value, 8) for value in part] for part in products]
    left = 30 - max(abs(value) for part in rounded for value in part).bit_length()
    assert left >= 1
    real, imaginary = ([value << left for value in part] for part in rounded)
    power = [
        min(shifted_up((re * re >> 15) + (im * im >> 15), 15), 2**31 - 1)
        for re, im in zip(real, imaginary, strict=True)
    ]
    y = []
    for weights, offset in zip(filters, offsets, strict=True):
        energy = dot(power, weights)
        logarithm = log2_steps(energy, table) + offset + 2**16 * (8 - left - up) if energy else 0
        y.append(clip(shifted_up(logarithm, 6), -17008, 2**15 - 1) if energy else -17008)
    return y
