"""The stand-in for `aie_api` computes what the public headers say, against plain Python and numpy."""

from __future__ import annotations

from fractions import Fraction
from math import ceil, floor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hetero.errors import CompileError, InputError, OptionError, Unavailable, WrongAnswer
from hetero_kernels.aie2.function import Buffer, CoreFunction
from hetero_kernels.aie2.host import HostKernel, build, compiler
from tests.kernels.aie2.probe import ROUNDING, SATURATION, c_type, probe

# (element bits of A, of B, accumulator bits, M, K, N): detail/aie2/mmul_*.hpp of the public headers.
SHAPES = [
    *[(8, 8, 32, *shape) for shape in [(4, 8, 4), (4, 16, 4), (4, 8, 8), (8, 8, 8), (8, 8, 4), (2, 8, 8)]],
    *[(8, 8, 32, *shape) for shape in [(1, 16, 8), (2, 16, 8), (4, 16, 8), (8, 16, 8), (4, 16, 16)]],
    *[(8, 8, 64, *shape) for shape in [(4, 8, 4), (4, 16, 4), (8, 8, 4)]],
    *[(16, 8, 32, *shape) for shape in [(4, 8, 4), (4, 4, 8), (8, 4, 4), (8, 4, 8), (4, 4, 4)]],
    *[(16, 8, 32, *shape) for shape in [(2, 8, 8), (2, 16, 8), (4, 16, 8)]],
    *[(8, 16, 32, *shape) for shape in [(4, 4, 8), (4, 4, 4)]],
    *[(16, 16, 32, *shape) for shape in [(4, 2, 8), (8, 2, 8), (8, 1, 8)]],
    *[(16, 16, 64, *shape) for shape in [(2, 4, 8), (4, 4, 8), (4, 4, 4), (2, 8, 8), (4, 8, 8), (2, 8, 16)]],
    *[(32, 16, 64, *shape) for shape in [(4, 2, 4), (4, 4, 4), (2, 4, 8), (4, 4, 8), (4, 1, 8)]],
    *[(16, 32, 64, *shape) for shape in [(4, 4, 4), (2, 4, 8)]],
    *[(32, 32, 64, *shape) for shape in [(4, 2, 4), (4, 4, 4), (8, 2, 4), (4, 1, 8)]],
]


def wrap(value: int, dtype: str) -> int:
    info = np.iinfo(dtype)
    return (value - int(info.min)) % (int(info.max) - int(info.min) + 1) + int(info.min)


def rounded(value: Fraction, mode: str) -> int:
    low, high = floor(value), ceil(value)
    exact = {
        "floor": low,
        "ceil": high,
        "symmetric_floor": high if value < 0 else low,
        "symmetric_ceil": low if value < 0 else high,
    }
    if mode in exact:
        return exact[mode]
    if value - low != Fraction(1, 2):
        return low if value - low < Fraction(1, 2) else high
    even, odd = (low, high) if low % 2 == 0 else (high, low)
    away, towards = (low, high) if value < 0 else (high, low)
    return {
        "positive_inf": high,
        "negative_inf": low,
        "symmetric_inf": away,
        "symmetric_zero": towards,
        "conv_even": even,
        "conv_odd": odd,
    }[mode]


def saturated(value: int, dtype: str, mode: str) -> int:
    info = np.iinfo(dtype)
    if mode == "none":
        return wrap(value, dtype)
    least = -int(info.max) if mode == "symmetric" and info.min < 0 else int(info.min)
    return min(max(value, least), int(info.max))


def examples(dtype: str, count: int, seed: int = 0) -> np.ndarray[Any, np.dtype[Any]]:
    """Values at the ends, around halves, and anywhere."""
    info = np.iinfo(dtype)
    values = np.random.default_rng(seed).integers(info.min, info.max, count, endpoint=True, dtype=dtype)
    special = [info.min, info.min + 1, -24, -12, -8, -5, -4, -3, -1, 0, 1, 3, 4, 5, 8, 12, 24, info.max - 1, info.max]
    fitting = [value for value in special if info.min <= value <= info.max]
    values[: len(fitting)] = fitting
    return values


@pytest.mark.parametrize("target", ["int8", "uint8", "int16", "uint16", "int32"])
@pytest.mark.parametrize("saturation", SATURATION)
@pytest.mark.parametrize("rounding", ROUNDING)
def test_leaving_an_accumulator_shifts_rounds_and_saturates(
    rounding: str, saturation: str, target: str, libraries: Path
) -> None:
    accumulator = "acc64" if target == "int32" else "acc32"
    body = f"""
    const auto modes = aie::load_unaligned_v<16>(settings);
    aie::set_rounding(aie::rounding_mode(modes.get(0)));
    aie::set_saturation(aie::saturation_mode(modes.get(1)));
    for (unsigned i = 0; i < 256; i += 32) {{
        aie::accum<{accumulator}, 32> a(aie::load_v<32>(x + i));
        aie::store_v(by0 + i, a.to_vector<{c_type(target)}>(0));
        aie::store_v(by3 + i, a.to_vector<{c_type(target)}>(3));
        aie::store_v(by20 + i, a.to_vector<{c_type(target)}>(20));
    }}"""
    outputs = [Buffer(name, target, (256,), "out") for name in ("by0", "by3", "by20")]
    buffers = (Buffer("settings", "int32", (16,), "in"), Buffer("x", "int32", (256,), "in"), *outputs)
    kernel = probe(libraries, "g++", f"leave_{target}", body, *buffers)
    x = examples("int32", 256)
    settings = np.zeros(16, np.int32)
    settings[:2] = ROUNDING.index(rounding), {"none": 0, "saturate": 1, "symmetric": 3}[saturation]
    got = [np.zeros(256, target) for _ in outputs]
    kernel(settings, x, *got)
    for shift, answer in zip((0, 3, 20), got, strict=True):
        wanted = [saturated(rounded(Fraction(int(value), 2**shift), rounding), target, saturation) for value in x]
        assert answer.tolist() == wanted, f"shift {shift}"


def products(libraries: Path, types: tuple[int, int, int]) -> HostKernel:
    """All shapes of these element and accumulator sizes in one function, which is told which one to take."""
    bits_a, bits_b, accumulator = types
    a_type, b_type = f"int{bits_a}", f"int{bits_b}"
    # From 32 bits to 32 an accumulator does not shift.
    last = "aie::downshift(sum.to_vector<int32_t>(), 9)" if accumulator == 32 else "sum.to_vector<int32_t>(9)"
    cases = [
        f"""
    case {SHAPES.index((*types, m, k, n))}: {{
        aie::mmul<{m}, {k}, {n}, {c_type(a_type)}, {c_type(b_type)}, acc{accumulator}> sum;
        for (unsigned i = 0; i < 3; ++i)
            sum.mac(aie::load_unaligned_v<{m * k}>(a + i * {m * k}), aie::load_unaligned_v<{k * n}>(b + i * {k * n}));
        aie::store_unaligned_v(low, sum.to_vector<int32_t>());
        aie::store_unaligned_v(high, {last});
        break;
    }}"""
        for *kind, m, k, n in SHAPES
        if tuple(kind) == types
    ]
    buffers = (
        Buffer("which", "int32", (1,), "in"),
        Buffer("a", a_type, (3 * 128,), "in"),
        Buffer("b", b_type, (3 * 256,), "in"),
        Buffer("low", "int32", (64,), "inout"),
        Buffer("high", "int32", (64,), "inout"),
    )
    body = f"switch (which[0]) {{{''.join(cases)}\n}}"
    return probe(libraries, "g++", "mmul_" + "_".join(map(str, types)), body, *buffers)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def test_every_shape_of_mmul_is_the_matrix_product_modulo_the_accumulator(
    shape: tuple[int, int, int, int, int, int], libraries: Path
) -> None:
    bits_a, bits_b, accumulator, m, k, n = shape
    kernel = products(libraries, (bits_a, bits_b, accumulator))
    rng = np.random.default_rng(1)
    for extreme in (False, True):
        flat = []
        for buffer in kernel.function.buffers[1:3]:
            info = np.iinfo(buffer.dtype)
            values = rng.integers(info.min, info.max, buffer.elements, buffer.dtype, endpoint=True)
            flat.append(np.full_like(values, info.min) if extreme else values)
        low, high = np.zeros(64, np.int32), np.zeros(64, np.int32)
        kernel(np.array([SHAPES.index(shape)], np.int32), *flat, low, high)
        a = flat[0][: 3 * m * k].reshape(3, m, k).astype(object)
        b = flat[1][: 3 * k * n].reshape(3, k, n).astype(object)
        held = [wrap(int(value), f"int{accumulator}") for value in np.einsum("imk,ikn->mn", a, b).reshape(-1)]
        assert low[: m * n].tolist() == [wrap(value, "int32") for value in held]
        assert high[: m * n].tolist() == [wrap(value >> 9, "int32") for value in held]


def test_a_shape_that_the_cores_do_not_have_does_not_compile(libraries: Path) -> None:
    body = "aie::mmul<8, 8, 16, int8_t, int8_t> m; aie::store_v(c, m.to_vector<int8_t>());"
    with pytest.raises(CompileError, match="AIE2 has no mmul of this shape"):
        probe(libraries, "g++", "no_such_shape", body, Buffer("c", "int8", (128,), "out"))


ELEMENTWISE = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "max": max,
    "min": min,
    "bit_and": lambda x, y: x & y,
    "bit_or": lambda x, y: x | y,
    "bit_xor": lambda x, y: x ^ y,
}


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32"])
def test_lane_by_lane_operations_wrap_and_take_scalars_on_either_side(dtype: str, libraries: Path) -> None:
    lanes = 64 // np.dtype(dtype).itemsize
    scalar = 5
    body = f"""
    using V = aie::vector<{c_type(dtype)}, {lanes}>;
    const {c_type(dtype)} s = {scalar};
    for (unsigned i = 0; i < 4; ++i) {{
        const V a = aie::load_v<{lanes}>(x + i * {lanes}), b = aie::load_v<{lanes}>(y + i * {lanes});
        auto to = out + i * {lanes};
        const unsigned next = 4 * {lanes};
        V made[] = {{{", ".join(f"aie::{name}(a, b), aie::{name}(a, s), aie::{name}(s, b)" for name in ELEMENTWISE)}}};
        for (const V &one : made) {{ aie::store_v(to, one); to += next; }}
    }}"""
    count = 4 * lanes
    buffers = (
        Buffer("x", dtype, (count,), "in"),
        Buffer("y", dtype, (count,), "in"),
        Buffer("out", dtype, (3 * len(ELEMENTWISE), count), "out"),
    )
    kernel = probe(libraries, "g++", f"elementwise_{dtype}", body, *buffers)
    x, y = examples(dtype, count, 2), examples(dtype, count, 3)[::-1].copy()
    out = np.zeros((3 * len(ELEMENTWISE), count), dtype)
    kernel(x, y, out)
    for row, (name, operation) in enumerate(ELEMENTWISE.items()):
        pairs = [(x.tolist(), y.tolist()), (x.tolist(), [scalar] * count), ([scalar] * count, y.tolist())]
        for kind, (left, right) in enumerate(pairs):
            wanted = [wrap(operation(a, b), dtype) for a, b in zip(left, right, strict=True)]
            assert out[3 * row + kind].tolist() == wanted, name


def test_comparisons_select_and_masks(libraries: Path) -> None:
    names = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "neq": "!="}
    body = "const auto a = aie::load_v<32>(x), b = aie::load_v<32>(y);\n" + "\n".join(
        f"aie::store_v(out + {32 * i}, aie::select(a, b, aie::{name}(a, b)));" for i, name in enumerate(names)
    )
    body += """
    const auto less = aie::lt(a, b);
    aie::store_v(out + 192, aie::select(int16_t(7), b, ~less & aie::neq(a, b)));
    auto counts = aie::zeros<int16_t, 32>();
    counts.set(less.count(), 0);
    counts.set(aie::mask<32>::from_uint32(0x80000001u).count(), 1);
    counts.set(less.to_uint32(0) & 0x7fff, 2);
    counts.set(less.empty() ? 1 : 0, 3);
    aie::store_v(out + 224, counts);"""
    buffers = (
        Buffer("x", "int16", (32,), "in"),
        Buffer("y", "int16", (32,), "in"),
        Buffer("out", "int16", (8, 32), "out"),
    )
    kernel = probe(libraries, "g++", "comparisons", body, *buffers)
    x, y = examples("int16", 32, 4), examples("int16", 32, 5)
    y[::3] = x[::3]
    out = np.zeros((8, 32), np.int16)
    kernel(x, y, out)
    masks = (x < y, x <= y, x > y, x >= y, x == y, x != y)
    for row, mask in enumerate(masks):
        assert out[row].tolist() == np.where(mask, y, x).tolist()
    assert out[6].tolist() == np.where(x > y, y, 7).tolist()
    low = int(sum(1 << i for i in range(15) if x[i] < y[i]))
    assert out[7, :4].tolist() == [int((x < y).sum()), 2, low, 0]


def test_shifts_of_vectors_obey_the_modes(libraries: Path) -> None:
    body = """
    const auto a = aie::load_v<16>(x);
    aie::store_v(out, aie::downshift(a, 3));
    aie::store_v(out + 16, aie::upshift(a, 3));
    aie::store_v(out + 32, aie::logical_downshift(a, 3));
    aie::set_rounding(aie::rounding_mode::conv_even);
    aie::set_saturation(aie::saturation_mode::saturate);
    aie::store_v(out + 48, aie::downshift(a, 3));
    aie::store_v(out + 64, aie::upshift(a, 3));"""
    kernel = probe(
        libraries, "g++", "shifts", body, Buffer("x", "int32", (16,), "in"), Buffer("out", "int32", (5, 16), "out")
    )
    x = examples("int32", 32)[:16]
    out = np.zeros((5, 16), np.int32)
    kernel(x, out)
    values = x.tolist()
    assert out[0].tolist() == [value >> 3 for value in values]
    assert out[1].tolist() == [wrap(value << 3, "int32") for value in values]
    assert out[2].tolist() == (x.view(np.uint32) >> 3).view(np.int32).tolist()
    assert out[3].tolist() == [rounded(Fraction(value, 8), "conv_even") for value in values]
    assert out[4].tolist() == [saturated(value << 3, "int32", "saturate") for value in values]


def test_products_in_accumulators_and_reductions(libraries: Path) -> None:
    body = """
    const auto a = aie::load_v<32>(x), b = aie::load_v<32>(y);
    auto sum = aie::mul(a, b);
    sum = aie::mac(sum, a, int16_t(-3));
    sum = aie::msc(sum, b, b);
    sum = aie::add(sum, aie::negmul(a, a));
    aie::store_v(out, sum.to_vector<int32_t>());
    auto widened = [](const auto &v) { return aie::accum<acc32, 32>(v).template to_vector<int32_t>(); };
    auto wide = aie::mul<acc64>(widened(a), widened(b));
    wide = aie::mac(wide, aie::broadcast<int32_t, 32>(1 << 20), aie::broadcast<int32_t, 32>(1 << 20));
    aie::store_v(out + 32, wide.to_vector<int32_t>(12));
    auto reduced = aie::zeros<int32_t, 32>();
    reduced.set(aie::reduce_add(a), 0);
    reduced.set(aie::reduce_max(a), 1);
    reduced.set(aie::reduce_min(b), 2);
    reduced.set(aie::reduce_add(widened(a)), 3);
    aie::store_v(out + 64, reduced);"""
    buffers = (
        Buffer("x", "int16", (32,), "in"),
        Buffer("y", "int16", (32,), "in"),
        Buffer("out", "int32", (3, 32), "out"),
    )
    kernel = probe(libraries, "g++", "products", body, *buffers)
    x, y = examples("int16", 32, 6), examples("int16", 32, 7)[::-1].copy()
    out = np.zeros((3, 32), np.int32)
    kernel(x, y, out)
    pairs = list(zip(x.tolist(), y.tolist(), strict=True))
    assert out[0].tolist() == [wrap(a * b - 3 * a - b * b - a * a, "int32") for a, b in pairs]
    assert out[1].tolist() == [wrap((a * b + 2**40) >> 12, "int32") for a, b in pairs]
    total = int(x.astype(int).sum())
    assert out[2, :4].tolist() == [wrap(total, "int16"), max(x.tolist()), min(y.tolist()), total]


def test_lanes_change_places_as_documented(libraries: Path) -> None:
    body = """
    const auto a = aie::load_v<64>(x), b = aie::load_v<64>(x + 64);
    int8_t *to = out;
    auto put = [&](const aie::vector<int8_t, 64> &v) { aie::store_v(to, v); to += 64; };
    put(aie::transpose(a, 4, 16));
    put(aie::interleave_zip(a, b, 4).first);
    put(aie::interleave_zip(a, b, 4).second);
    put(aie::interleave_unzip(aie::interleave_zip(a, b, 2).first, aie::interleave_zip(a, b, 2).second, 2).second);
    put(aie::concat(aie::filter_even(a, 2), aie::filter_odd(a, 2)));
    put(aie::reverse(a));
    put(aie::shuffle_down_rotate(a, 5));
    put(aie::shuffle_down_fill(a, b, 5));
    put(aie::shuffle_up_rotate(a, 5));
    put(aie::shuffle_up_fill(a, b, 5));
    put(aie::concat(a.extract<16>(2), b.extract<32>(1).extract<16>(0), a.extract<16>(0), b.extract<16>(3)));
    put(a.unpack().pack());"""
    kernel = probe(
        libraries, "g++", "places", body, Buffer("x", "int8", (128,), "in"), Buffer("out", "int8", (12, 64), "out")
    )
    x = np.arange(128, dtype=np.int8)
    out = np.zeros((12, 64), np.int8)
    kernel(x, out)
    a, b = x[:64], x[64:]
    zipped = np.stack([a.reshape(-1, 4), b.reshape(-1, 4)], 1).reshape(2, 64)
    pairs = a.reshape(-1, 2)
    wanted = [
        a.reshape(4, 16).T.reshape(-1),
        zipped[0],
        zipped[1],
        b,
        np.concatenate([pairs[::2].reshape(-1), pairs[1::2].reshape(-1)]),
        a[::-1],
        np.roll(a, -5),
        np.concatenate([a[5:], b[:5]]),
        np.roll(a, 5),
        np.concatenate([b[-5:], a[:-5]]),
        np.concatenate([a[32:48], b[32:48], a[:16], b[48:]]),
        a,
    ]
    for row, expected in enumerate(wanted):
        assert out[row].tolist() == expected.tolist(), f"row {row}"


def lookup_body(damage: str = "") -> str:
    return f"""
    alignas(aie::vector_decl_align) int16_t ab[512], cd[512];
    for (unsigned i = 0; i < 256; ++i)
        for (unsigned copy = 0; copy < 2; ++copy)
            ab[i / 8 * 16 + copy * 8 + i % 8] = cd[i / 8 * 16 + copy * 8 + i % 8] = int16_t(int(i) - 128);
    {damage}
    const aie::lut<4, int8_t> table(256, ab, cd);
    aie::parallel_lookup<int8_t, aie::lut<4, int8_t>> all(table, 0, 128);
    aie::parallel_lookup<uint8_t, aie::lut<4, int8_t>> half(table, 1);
    const auto index = aie::load_v<32>(x);
    aie::store_v(out, all.fetch(index));
    aie::store_v(out + 32, half.fetch(index.cast_to<uint8_t>()));"""


LOOKUP = (Buffer("x", "int8", (32,), "in"), Buffer("out", "int8", (2, 32), "out"))


def test_a_parallel_lookup_reads_the_table_with_bias_and_step(libraries: Path) -> None:
    x, out = examples("int8", 32), np.zeros((2, 32), np.int8)
    probe(libraries, "g++", "lookup", lookup_body(), *LOOKUP)(x, out)
    assert out[0].tolist() == x.tolist()
    assert out[1].tolist() == [(int(value) % 256 // 2) - 128 for value in x]


@pytest.mark.parametrize(
    ("name", "body", "says"),
    [
        ("misaligned", "aie::store_v(out, aie::load_v<32>(x + 1));", "not aligned"),
        ("lane", "auto v = aie::load_v<32>(x); out[0] = v.get(32 + (x[0] & 0));", "lane out of range"),
        ("lut", lookup_body("ab[8] = 1;"), "copies of an entry differ"),
        (
            "shift_out",
            "aie::accum<acc32, 16> a(aie::load_v<16>(reinterpret_cast<const int32_t *>(x) - 8 * 0)); "
            "out[0] = int8_t(a.to_vector<int32_t>(1).get(0));",
            "AIE2 ignores a shift",
        ),
        ("past", "for (int i = 0; i < 65; ++i) out[i] = x[0];", "outside of its buffer 'out'"),
        ("before", "out[-1] = x[0];", "outside of its buffer 'out'"),
        ("input", "const_cast<int8_t *>(x)[3] = int8_t(x[3] + 1); out[0] = 0;", "into its input 'x'"),
    ],
)
def test_what_a_core_would_not_forgive_is_an_error(name: str, body: str, says: str, libraries: Path) -> None:
    kernel = probe(libraries, "g++", f"fault_{name}", body, *LOOKUP)
    with pytest.raises(WrongAnswer, match=says):
        kernel(np.zeros(32, np.int8), np.zeros((2, 32), np.int8))


def test_modes_stay_on_the_core_until_they_are_set_again(libraries: Path) -> None:
    body = """
    aie::store_v(out, aie::accum<acc32, 32>(aie::load_v<32>(x).unpack()).to_vector<int8_t>(1));
    aie::store_v(out + 32, aie::zeros<int8_t, 32>());
    aie::set_rounding(aie::rounding_mode::ceil);"""
    kernel = probe(libraries, "g++", "modes_stay", body, *LOOKUP)
    x, out = np.full(32, 1, np.int8), np.zeros((2, 32), np.int8)
    kernel(x, out)
    assert out[0, 0] == 0
    kernel(x, out, fresh=False)
    assert out[0, 0] == 1, "the first call's ceil holds"
    kernel(x, out)
    assert out[0, 0] == 0


def test_both_compilers_agree_on_undefined_looking_things(compiler_name: str, libraries: Path) -> None:
    """Wrapping of int32 sums and left shifts of negative numbers: defined here, whatever the compiler."""
    body = """
    const auto a = aie::load_v<16>(x);
    aie::store_v(out, aie::add(a, a));
    aie::store_v(out + 16, aie::upshift(a, 7));
    aie::store_v(out + 32, aie::mul<acc32>(a, a).to_vector<int32_t>());
    aie::store_v(out + 48, aie::abs(a));"""
    kernel = probe(
        libraries,
        compiler_name,
        "wraps",
        body,
        Buffer("x", "int32", (16,), "in"),
        Buffer("out", "int32", (4, 16), "out"),
    )
    x, out = examples("int32", 32)[:16], np.zeros((4, 16), np.int32)
    kernel(x, out)
    for row, operation in enumerate((lambda v: 2 * v, lambda v: v << 7, lambda v: v * v, abs)):
        assert out[row].tolist() == [wrap(operation(value), "int32") for value in x.tolist()]


def test_a_source_that_does_not_compile_says_where(tmp_path: Path) -> None:
    source = tmp_path / "broken.cc"
    source.write_text("#include <aie_api/aie.hpp>\nint x = no_such_name;\n")
    with pytest.raises(CompileError, match=r"broken\.cc:2.*no_such_name"):
        build(CoreFunction("broken", source, (), 0), "g++", tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache").iterdir() if not path.name.startswith(".")]


def test_arrays_that_do_not_fit_are_refused(libraries: Path) -> None:
    kernel = probe(libraries, "g++", "fits", "aie::store_v(out, aie::load_v<32>(x)); (void)out;", *LOOKUP)
    good = np.zeros((2, 32), np.int8)
    with pytest.raises(InputError, match=r"buffer 'x': got int16 \[32\], expected int8 \[32\]"):
        kernel(np.zeros(32, np.int16), good)
    with pytest.raises(InputError, match=r"buffer 'x': got int8 \[31\], expected"):
        kernel(np.zeros(31, np.int8), good)
    with pytest.raises(InputError, match=r"takes 2 buffers \(x, out\), got 1"):
        kernel(good)


def test_without_a_compiler_the_fix_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    function = CoreFunction("f", tmp_path / "f.cc", (), 0)
    for name, fix in (("g++", "apt install g"), ("clang", "hetero.simulator")):
        with pytest.raises(Unavailable, match=r"cannot be compiled for this machine.*installed") as missing:
            build(function, name, tmp_path)
        assert fix.split(".")[0] in missing.value.fix
    with pytest.raises(OptionError, match="there is no compiler 'tcc'"):
        build(function, "tcc", tmp_path)


def test_the_package_ziglang_stands_in_for_clang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if name == "ziglang" else None)
    assert compiler("clang")[1:] == ["-m", "ziglang", "c++"]
