"""Every reference gives, bit for bit, what the formulas say."""

from __future__ import annotations

import itertools
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hetero.tensors import Array
from hetero_kernels import get
from hetero_kernels.attention_i8_64x64.reference import EXP
from tests.kernels import scalar

ATTENTION = get("attention_i8_64x64").reference
MATMUL = get("matmul_i8_64x64").reference
LAYERNORM = get("layernorm_i8_256").reference
GELU = get("gelu_i8").reference

# A scalar attention tile takes tens of milliseconds, so examples are few; what is rare stands in EXTREMES.
FEW = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
MANY = settings(max_examples=100, deadline=None)


def one_hot(*shape: int, high: int = 127) -> Array:
    array = np.zeros(shape, np.int8)
    array[..., 0] = high
    return array


def constant(value: int, *shape: int) -> Array:
    return np.full(shape, value, np.int8)


def alternating(*shape: int) -> Array:
    return np.where(np.arange(np.prod(shape)) % 2, -128, 127).astype(np.int8).reshape(shape)


def extremes(*shape: int) -> dict[str, Array]:
    return {
        "-128": constant(-128, *shape),
        "127": constant(127, *shape),
        "0": constant(0, *shape),
        "-1": constant(-1, *shape),
        "one-hot": one_hot(*shape),
        "one-hot -128": one_hot(*shape, high=-128),
        "alternating": alternating(*shape),
    }


def arrays(*shape: int) -> st.SearchStrategy[Array]:
    """Random bytes, gaussians from narrow to saturating, and few odd values on an even ground, which shrink well."""

    def gaussian(seed: int, sigma: float) -> Array:
        drawn = np.random.default_rng(seed).normal(0, sigma, shape)
        return np.clip(np.rint(drawn), -128, 127).astype(np.int8)

    def uniform(seed: int) -> Array:
        return np.random.default_rng(seed).integers(-128, 128, shape).astype(np.int8)

    seeds = st.integers(0, 2**32 - 1)
    return st.one_of(
        st.builds(uniform, seeds),
        st.builds(gaussian, seeds, st.floats(0.5, 100)),
        hnp.arrays(np.int8, shape, fill=st.integers(-128, 127)),
    )


def pairs(*shape: int) -> list[Any]:
    named = extremes(*shape)
    return [pytest.param(a, b, id=f"{x}, {y}") for (x, a), (y, b) in itertools.product(named.items(), repeat=2)]


def same(got: Array, expected: Any) -> None:
    np.testing.assert_array_equal(got, np.array(expected))


@FEW
@given(arrays(64, 64), arrays(64, 64), arrays(64, 64))
def test_attention_is_exact(q: Array, k: Array, v: Array) -> None:
    got = ATTENTION(q=q[None], k=k[None], v=v[None])["o"][0]
    same(got, scalar.attention(q.tolist(), k.tolist(), v.tolist()))


@pytest.mark.parametrize(("q", "k"), pairs(64, 64))
def test_attention_is_exact_for_extreme_scores(q: Array, k: Array) -> None:
    v = np.random.default_rng(0).integers(-128, 128, (64, 64)).astype(np.int8)
    got = ATTENTION(q=q[None], k=k[None], v=v[None])["o"][0]
    # Rows of these q are alike, and one row and one that is not first say all.
    same(got[[0, 9]], scalar.attention(q[[0, 9]].tolist(), k.tolist(), v.tolist()))


@pytest.mark.parametrize("v", [pytest.param(array, id=name) for name, array in extremes(64, 64).items()])
@pytest.mark.parametrize("sigma", [1, 16, 100])
def test_attention_is_exact_for_extreme_values(v: Array, sigma: float) -> None:
    drawn = np.random.default_rng(1).normal(0, sigma, (2, 64, 64))
    q, k = np.clip(np.rint(drawn), -128, 127).astype(np.int8)
    got = ATTENTION(q=q[None], k=k[None], v=v[None])["o"][0]
    same(got[:8], scalar.attention(q[:8].tolist(), k.tolist(), v.tolist()))


def test_the_widest_spread_of_scores_stays_within_the_table() -> None:
    # One key matches every query and the others oppose it: the exponent reaches its clip at -127.
    q = constant(-128, 64, 64)
    k = constant(127, 64, 64)
    k[5] = -128
    v = np.random.default_rng(2).integers(-128, 128, (64, 64)).astype(np.int8)
    got = ATTENTION(q=q[None], k=k[None], v=v[None])["o"][0]
    same(got, scalar.attention(q.tolist(), k.tolist(), v.tolist()))


@FEW
@given(arrays(64, 64), arrays(64, 64))
def test_matmul_is_exact(a: Array, b: Array) -> None:
    same(MATMUL(a=a[None], b=b[None])["c"][0], scalar.matmul(a.tolist(), b.tolist()))


@pytest.mark.parametrize(("a", "b"), pairs(64, 64))
def test_matmul_is_exact_for_extremes(a: Array, b: Array) -> None:
    same(MATMUL(a=a[None], b=b[None])["c"][0, :9], scalar.matmul(a[:9].tolist(), b.tolist()))


@MANY
@given(arrays(256), arrays(256), arrays(256))
def test_layernorm_is_exact(x: Array, gamma: Array, beta: Array) -> None:
    got = LAYERNORM(x=x[None], gamma=gamma, beta=beta)["y"][0]
    same(got, scalar.layernorm(x.tolist(), gamma.tolist(), beta.tolist()))


@pytest.mark.parametrize(("x", "gamma"), pairs(256))
def test_layernorm_is_exact_for_extremes(x: Array, gamma: Array) -> None:
    for beta in extremes(256).values():
        got = LAYERNORM(x=x[None], gamma=gamma, beta=beta)["y"][0]
        same(got, scalar.layernorm(x.tolist(), gamma.tolist(), beta.tolist()))


def test_layernorm_is_exact_for_every_sum_around_a_multiple_of_256() -> None:
    # The mean rounds to zero, everything else rounds down; they differ for negative sums that 256 does not divide.
    rows = np.full((1025, 256), -1, np.int8)
    for total, row in enumerate(rows):
        row[: total % 256] += 1
        row += np.int8(2 * (total // 256) - 3)
    gamma, beta = constant(127, 256), constant(0, 256)
    got = LAYERNORM(x=rows, gamma=gamma, beta=beta)["y"]
    same(got, [scalar.layernorm(row.tolist(), gamma.tolist(), beta.tolist()) for row in rows])


def test_gelu_is_exact_for_every_value() -> None:
    x = np.arange(-128, 128).astype(np.int8)
    same(GELU(x=x)["y"], [scalar.gelu(value) for value in x.tolist()])


def test_the_exponential_table_is_the_formulas() -> None:
    assert EXP.tolist() == scalar.EXP


@pytest.mark.parametrize(
    "values", [[scalar.exp_value(i) for i in range(128)], [scalar.gelu_value(x) for x in range(-128, 128)]]
)
def test_no_table_entry_is_so_near_a_half_that_a_libm_could_round_it_otherwise(values: list[Decimal]) -> None:
    assert (
        min(abs(value % 1 - Decimal("0.5") if value >= 0 else -value % 1 - Decimal("0.5")) for value in values) > 1e-3
    )
