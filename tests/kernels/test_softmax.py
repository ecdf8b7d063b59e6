"""Softmax with 15-bit weights: its parts, the tile that is made of them, and attention to all keys."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hetero.errors import InputError
from hetero.tensors import Array
from hetero_kernels import get
from hetero_kernels.softmax import WEIGHTS, exp2_fraction, exponents, reciprocal, temperatures
from tests.kernels import scalar

TILE = get("attention_i8_64x64_v2").reference
EXACT = get("attention_i8_exact_192").reference
FEW = settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
MANY = settings(max_examples=200, deadline=None)

temperature = st.one_of(st.integers(0, 2**31 - 1), st.integers(0, 31).map(lambda bits: 2**bits - 1), st.just(-5))
seeds = st.integers(0, 2**32 - 1)


def drawn(seed: int, *shape: int) -> Array:
    """Gaussian from narrow to saturating."""
    rng = np.random.default_rng(seed)
    return np.clip(np.rint(rng.normal(0, rng.uniform(0.5, 150), shape)), -128, 127).astype(np.int8)


@MANY
@given(st.integers(-(2**20), 2**20), temperature)
def test_exponents_are_rounded_to_nearest_and_leave_room_for_differences(score: int, t: int) -> None:
    got = exponents(np.array([score]), np.array([t], np.int32))
    assert got.tolist() == [scalar.exponent(score, t)]
    assert abs(int(got[0])) <= 2**29


def test_the_weights_are_the_cubics_and_fall_to_nothing() -> None:
    every = range(0, len(WEIGHTS), 7)
    assert WEIGHTS[every].tolist() == [scalar.weight(below) for below in every]
    assert (WEIGHTS[0], WEIGHTS[-1]) == (32767, 0)
    assert (np.diff(WEIGHTS) <= 0).all()


def test_the_cubic_is_within_its_error_of_the_power_of_two() -> None:
    fraction = np.arange(1 << 12)
    got = exp2_fraction(fraction)
    np.testing.assert_allclose(got, 2.0 ** (15 - fraction / 2**12), rtol=1.3e-4)
    assert (int(got.min()), int(got.max())) == (2**14 + 1, 2**15 - 1)


@MANY
@given(st.integers(2**14, 2**31 - 1))
def test_reciprocals_are_newtons_and_good_to_14_bits(total: int) -> None:
    mantissa, shift = reciprocal(np.array([total], np.int32))
    assert (int(mantissa[0]), int(shift[0])) == scalar.reciprocal(total)
    assert int(mantissa[0]) * total / 2 ** (29 + int(shift[0])) == pytest.approx(1, abs=2**-13)


def test_every_reciprocal_of_15_bits_is_newtons() -> None:
    totals = np.arange(2**14, 2**15, dtype=np.int32)
    mantissa, shift = reciprocal(totals)
    assert not shift.any()
    assert mantissa.tolist() == [scalar.reciprocal(total)[0] for total in totals.tolist()]


def test_temperatures_are_those_of_the_scores_steps() -> None:
    # One step of 1/16 each and heads of 64: 1/2048 of a natural exponent, as attention_i8_64x64 has it.
    assert temperatures(np.array([1 / 256])).tolist() == [round(2**34 / 2048 * np.log2(np.e))]
    assert temperatures(np.array([1 / 2048, 0.0]), size=1).tolist() == [round(2**34 / 2048 * np.log2(np.e)), 0]


@pytest.mark.parametrize("step", [-1e-6, 0.7, float("nan"), float("inf")])
def test_steps_that_no_temperature_can_give_are_refused(step: float) -> None:
    with pytest.raises(InputError, match=r"expected 0 or more and below 0\.693147"):
        temperatures(np.array([0.001, step]))


@FEW
@given(seeds, temperature)
def test_a_tile_is_exact(seed: int, t: int) -> None:
    q, k, v = (drawn(seed + i, 64, 64) for i in range(3))
    got = TILE(q=q[None], k=k[None], v=v[None], temperature=np.array([[t]], np.int32))["o"][0]
    some = [0, 1, 31, 63]
    assert got[some].tolist() == scalar.attention_tile(q[some].tolist(), k.tolist(), v.tolist(), t)


@FEW
@given(seeds, temperature, st.integers(0, 192))
def test_attention_to_all_keys_is_exact(seed: int, t: int, keys: int) -> None:
    q, k, v = (drawn(seed + i, 192, 64) for i in range(3))
    heat = np.random.default_rng(seed).integers(0, max(t, 1), (1, 192), endpoint=True).astype(np.int32)
    got = EXACT(q=q[None], k=k[None], v=v[None], temperature=heat, keys=np.array([[keys]], np.int32))["o"][0]
    for row in (0, 63, 64, 191):
        assert got[row].tolist() == scalar.attention_exact(
            q[row].tolist(), k.tolist(), v.tolist(), int(heat[0, row]), keys
        )


@pytest.mark.parametrize("order", ["rising", "falling", "peak in the middle"])
@pytest.mark.parametrize("t", [0, 2**20, 2**24, 2**31 - 1])
def test_the_maximum_may_rise_with_any_block(order: str, t: int) -> None:
    ramp = np.linspace(-128, 127, 192)
    ramp = {"rising": ramp, "falling": -ramp - 1, "peak in the middle": 127 - 2 * np.abs(ramp)}[order]
    k = np.repeat(np.rint(ramp).astype(np.int8)[:, np.newaxis], 64, axis=1)
    q, v = np.full((192, 64), 127, np.int8), drawn(3, 192, 64)
    heat = np.full((1, 192), t, np.int32)
    got = EXACT(q=q[None], k=k[None], v=v[None], temperature=heat, keys=np.array([[192]], np.int32))["o"][0]
    assert got[5].tolist() == scalar.attention_exact(q[5].tolist(), k.tolist(), v.tolist(), t, 192)


@pytest.mark.parametrize("value", [-128, 127])
def test_the_most_keys_of_the_largest_values_do_not_overflow(value: int) -> None:
    # All weights alike: the sums are as large as they can be, and the answer is the value itself.
    kernel = get("attention_i8_exact_4096")
    zero = np.zeros((1, 4096, 64), np.int8)
    v = np.full((1, 4096, 64), value, np.int8)
    got = kernel(zero, zero, v, np.zeros((1, 4096), np.int32), np.array([[4096]], np.int32))["o"]
    assert len(np.unique(got)) == 1
    assert abs(int(got[0, 0, 0]) - value * 256) <= 3


@FEW
@given(seeds, st.integers(1, 192))
def test_what_lies_behind_the_valid_keys_does_not_matter(seed: int, keys: int) -> None:
    q, k, v = (drawn(seed + i, 1, 192, 64) for i in range(3))
    rest = {"q": q, "temperature": np.full((1, 192), 2**24, np.int32), "keys": np.array([[keys]], np.int32)}
    first = EXACT(k=k, v=v, **rest)["o"]
    k[:, keys:], v[:, keys:] = 127, -128
    np.testing.assert_array_equal(EXACT(k=k, v=v, **rest)["o"], first)


def test_numbers_of_keys_beyond_the_ends_count_as_the_ends() -> None:
    q, k, v = (drawn(i, 2, 192, 64) for i in range(3))
    heat = np.full((2, 192), 2**24, np.int32)
    got = EXACT(q=q, k=k, v=v, temperature=heat, keys=np.array([[-1], [10**9]], np.int32))["o"]
    ends = EXACT(q=q, k=k, v=v, temperature=heat, keys=np.array([[0], [192]], np.int32))["o"]
    assert not got[0].any()
    np.testing.assert_array_equal(got, ends)
