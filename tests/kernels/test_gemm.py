"""The matrix products whose sizes are in their names: exact for every size, and scaled as float scales ask."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hetero.errors import InputError
from hetero.tensors import Array
from hetero_kernels import get
from hetero_kernels.gemm_i8_i8.spec import fixed_point
from tests.kernels import scalar

EXACT = get("gemm_i8_i32_64x64").reference
SCALED = get("gemm_i8_i8_64x64").reference
FEW = settings(max_examples=25, deadline=None)


def int8s(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).integers(-128, 128, shape).astype(np.int8)


@FEW
@given(st.integers(0, 2**32 - 1), st.integers(0, 3), st.sampled_from([64, 128, 1088]))
def test_the_product_is_exact(seed: int, rows: int, depth: int) -> None:
    a, w = int8s(seed, rows, depth), int8s(seed + 1, depth, 64)
    got = EXACT(a=a, w=w)["c"]
    expected = np.array(scalar.gemm(a.tolist(), w.tolist()), np.int32).reshape(rows, 64)
    np.testing.assert_array_equal(got, expected, strict=True)


@pytest.mark.parametrize("depth", [960, 1024, 1088, 2048, 5120, 8192])
@pytest.mark.parametrize("a", [-128, 127])
@pytest.mark.parametrize("w", [-128, 127])
def test_the_largest_sums_are_exact_at_every_depth(depth: int, a: int, w: int) -> None:
    # Around 1024 float32 stops holding every sum; an odd product shows what would be rounded away.
    left = np.full((2, depth), a, np.int8)
    left[1, ::7] = 1
    right = np.full((depth, 64), w, np.int8)
    right[::5, 3] = -1
    got = EXACT(a=left, w=right)["c"]
    np.testing.assert_array_equal(got, left.astype(np.int64) @ right.astype(np.int64))


@FEW
@given(
    seed=st.integers(0, 2**32 - 1),
    bias=st.sampled_from([1, 2**16, 2**30, 2**31 - 1]),
    shift=st.integers(-128, 127),
    multiplier=st.sampled_from([1, 300, 32767]),
)
def test_the_scaled_product_is_exact(seed: int, bias: int, shift: int, multiplier: int) -> None:
    rng = np.random.default_rng(seed)
    a, w = int8s(seed, 2, 64), int8s(seed + 1, 64, 64)
    offset = rng.integers(-bias - 1, bias, 64, endpoint=True).astype(np.int32)
    factor = rng.integers(-multiplier - 1, multiplier, 64, endpoint=True).astype(np.int16)
    got = SCALED(a=a, w=w, bias=offset, multiplier=factor, shift=np.array([shift], np.int8))["c"]
    expected = scalar.gemm_scaled(a.tolist(), w.tolist(), offset.tolist(), factor.tolist(), shift)
    np.testing.assert_array_equal(got, np.array(expected, np.int8), strict=True)


def test_halves_are_rounded_up_on_both_sides_of_zero() -> None:
    bias = np.array([-5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, *range(53)], np.int32)
    zero = np.zeros((1, 64), np.int8)
    got = SCALED(
        a=zero,
        w=np.zeros((64, 64), np.int8),
        bias=bias,
        multiplier=np.ones(64, np.int16),
        shift=np.array([1], np.int8),
    )["c"]
    assert got[0, :11].tolist() == [-2, -2, -1, -1, 0, 0, 1, 1, 2, 2, 3]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(1e-9, 30000), min_size=1, max_size=8))
def test_fixed_point_multipliers_give_the_scales_to_a_part_of_the_largest(scales: list[float]) -> None:
    multiplier, shift = fixed_point(np.array(scales))
    assert (multiplier.dtype, shift.dtype, shift.shape) == (np.int16, np.int8, (1,))
    back = np.ldexp(multiplier.astype(np.float64), -int(shift[0]))
    # Half a step of 2**-shift; a value that rounds to 2**15 is a whole one short.
    np.testing.assert_allclose(back, scales, rtol=0, atol=max(max(scales) * 2.0**-14, 2.0**-47))


@pytest.mark.parametrize("scale", [40000.0, float("nan"), float("inf")])
def test_scales_that_no_multiplier_can_give_are_refused(scale: float) -> None:
    with pytest.raises(InputError, match="expected finite ones below 32768"):
        fixed_point(np.array([1.0, scale]))


def test_float_scales_and_a_bias_come_out_as_the_float_product() -> None:
    rng = np.random.default_rng(5)
    x, weight, bias = rng.normal(0, 1, (200, 384)), rng.normal(0, 0.05, (384, 128)), rng.normal(0, 1, 128)
    step_x, step_w, step_c = np.abs(x).max() / 127, np.abs(weight).max(axis=0) / 127, 0.05
    a, w = np.rint(x / step_x).astype(np.int8), np.rint(weight / step_w).astype(np.int8)
    multiplier, shift = fixed_point(step_x * step_w / step_c)
    kernel = get("gemm_i8_i8_384x128")
    c = kernel(a, w, np.rint(bias / (step_x * step_w)).astype(np.int32), multiplier, shift)["c"]
    exact = x @ weight + bias
    assert np.corrcoef((c * step_c).ravel(), exact.ravel())[0, 1] > 0.999
