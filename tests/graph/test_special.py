"""Functions that numpy lacks, against the C library's."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hetero.graph.ops.special import erf, gelu, sigmoid


def test_erf_in_single_precision_is_within_1_2e_7_everywhere() -> None:
    x = np.concatenate([np.linspace(-6, 6, 300_001), np.geomspace(1e-30, 1, 5_000)]).astype(np.float32)
    expected = np.array([math.erf(value) for value in x.astype(np.float64)])
    assert np.max(np.abs(erf(x) - expected)) < 1.2e-7
    small = np.abs(x) < 1e-3
    np.testing.assert_allclose(erf(x)[small], expected[small], rtol=3e-7)


def test_erf_of_extremes() -> None:
    x = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 3e38, 1e-45], dtype=np.float32)
    y = erf(x)
    np.testing.assert_array_equal(y[:4], [0, 0, 1, -1])
    assert np.signbit(y[1])
    assert np.isnan(y[4])
    assert y[5] == 1


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_erf_keeps_dtype_and_shape(dtype: type) -> None:
    x = np.linspace(-3, 3, 24, dtype=dtype).reshape(2, 3, 4)[:, ::2]
    assert erf(x).dtype == dtype
    assert erf(x).shape == x.shape
    expected = np.vectorize(math.erf)(x.astype(np.float64))
    np.testing.assert_allclose(erf(x), expected, rtol=2 * np.finfo(dtype).eps)


def test_both_forms_of_gelu() -> None:
    x = np.linspace(-8, 8, 2001, dtype=np.float32)
    exact = np.array([value / 2 * math.erfc(-value / math.sqrt(2)) for value in x.astype(np.float64)])
    np.testing.assert_allclose(gelu(x), exact, atol=5e-7)
    np.testing.assert_allclose(gelu(x, "tanh"), exact, atol=5e-4)
    assert not np.allclose(gelu(x, "tanh"), exact, atol=1e-5)


def test_sigmoid_does_not_overflow() -> None:
    with np.errstate(over="raise"):
        np.testing.assert_array_equal(sigmoid(np.array([-1e5, 0, 1e5], dtype=np.float32)), [0, 0.5, 1])
