"""Layer normalisation of int16 rows of any width."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hetero.tensors import Array
from hetero_kernels import get
from hetero_kernels.layernorm_i8.reference import inverse_deviation
from tests.kernels import scalar

REFERENCE = get("layernorm_i8_64").reference
MANY = settings(max_examples=60, deadline=None)


def drawn(seed: int, *shape: int) -> Array:
    """Rows from constant to saturating, with a mean of their own."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(rng.normal(0, 3000), 10 ** rng.uniform(-2, 4.5), shape)
    return np.clip(np.rint(rows), -32768, 32767).astype(np.int16)


@MANY
@given(st.integers(0, 2**32 - 1), st.sampled_from([64, 192, 384, 448, 4096]))
def test_layernorm_is_exact(seed: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    x = drawn(seed, 2, width)
    gamma, beta = rng.integers(-32768, 32768, (2, width)).astype(np.int16)
    got = REFERENCE(x=x, gamma=gamma, beta=beta)["y"]
    assert got.tolist() == [scalar.layernorm_wide(row, gamma.tolist(), beta.tolist()) for row in x.tolist()]


@pytest.mark.parametrize("width", [64, 384, 4096])
@pytest.mark.parametrize("low", [-32768, -32767, -1, 0])
@pytest.mark.parametrize("high", [0, 1, 32767])
@pytest.mark.parametrize("many", ["low", "high", "both"])
def test_layernorm_is_exact_for_rows_of_two_values(width: int, low: int, high: int, many: str) -> None:
    """The largest centred values and sums of squares, and rows that hardly vary."""
    share = {"low": 1, "high": width - 1, "both": width // 2}[many]
    x = np.full((1, width), low, np.int16)
    x[0, :share] = high
    gamma, beta = np.full(width, 32767, np.int16), np.full(width, -32768, np.int16)
    got = REFERENCE(x=x, gamma=gamma, beta=beta)["y"]
    assert got[0].tolist() == scalar.layernorm_wide(x[0].tolist(), gamma.tolist(), beta.tolist())


@MANY
@given(st.integers(64, 2**40), st.sampled_from([64, 384, 512, 2752, 4096]))
def test_the_inverse_of_the_deviation_is_good_to_a_part_in_5000(squares: int, width: int) -> None:
    mantissa, shift = inverse_deviation(np.array([squares]), width)
    got = int(mantissa[0]) / 2 ** (int(shift[0]) + 9)
    assert got == pytest.approx((width / squares) ** 0.5, rel=2e-4)
    assert (int(mantissa[0]) < 2**15, int(shift[0]) >= 2) == (True, True)


def test_a_constant_row_gives_beta() -> None:
    x = np.array([[-32768], [-7], [0], [1], [20000], [32767]], np.int16).repeat(384, axis=1)
    gamma, beta = np.full(384, 8192, np.int16), np.arange(-192, 192).astype(np.int16) * 100
    got = get("layernorm_i8_384").reference(x=x, gamma=gamma, beta=beta)["y"]
    np.testing.assert_array_equal(got, np.clip((beta.astype(int) + 128) >> 8, -128, 127)[np.newaxis].repeat(6, axis=0))


@pytest.mark.parametrize("width", [64, 384, 512, 1280])
@pytest.mark.parametrize("sd", [4, 16, 300, 8000])
def test_layernorm_is_as_close_to_float_as_int8_can_be(width: int, sd: float) -> None:
    rng = np.random.default_rng(1)
    x = np.clip(np.rint(rng.normal(sd, sd, (100, width))), -32768, 32767).astype(np.int16)
    given_ = {"x": x, "gamma": np.full(width, 8000, np.int16), "beta": np.zeros(width, np.int16)}
    kernel = get(f"layernorm_i8_{width}")
    exact = np.clip(kernel.model(**given_)["y"], -128, 127)
    got = kernel.reference(**given_)["y"]
    assert np.abs(got - exact).max() < 0.6
    assert np.corrcoef(got.ravel(), exact.ravel())[0, 1] >= 0.9999
