"""Floats to int8 and back: how far off a product or attention may be, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hetero.errors import Unsupported
from hetero_kernels import get
from hetero_kernels.softmax import temperatures
from hetero_xrt import blocks
from hetero_xrt.blocks import Blocks
from hetero_xrt.quantise import MOST, MOST_WIDE, heads_of, matrix_of, product, rows_of, smoothing

finite = st.floats(-1e4, 1e4, width=32)


def normal(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def cosine(a: Any, b: Any) -> float:
    a, b = a.reshape(-1).astype(np.float64), b.reshape(-1).astype(np.float64)
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def multiplied(x: Any, w: Any, *, wide: bool = False, divisors: Any = None) -> Any:
    """As a step does it, with the kernel's arithmetic."""
    depth, channels = (-(-size // 64) * 64 for size in w.shape)
    matrix = matrix_of(w, depth, channels, divisors)
    rows, steps = rows_of(x, depth, divisors, wide=wide)
    sums = get(f"gemm_i8_i32_{depth}x{channels}").reference(a=rows, w=matrix.values)["c"]
    return product(sums, steps, matrix)


@settings(max_examples=60, deadline=None)
@given(
    x=arrays(np.float32, st.tuples(st.integers(0, 5), st.integers(1, 70)), elements=finite),
    wide=st.booleans(),
    spare=st.integers(0, 9),
)
@example(x=np.array([[np.finfo(np.float32).tiny]], np.float32), wide=True, spare=0)
@example(x=np.array([[1e-45, -1e-45]], np.float32), wide=False, spare=0)
def test_a_row_comes_back_to_within_half_a_step(x: Any, wide: bool, spare: int) -> None:
    rows, k = x.shape
    values, steps = rows_of(x, k + spare, wide=wide)
    assert values.dtype == np.int8
    assert (values[:, k:] == 0).all()
    whole = values.astype(np.int64)
    if wide:
        whole = 256 * whole[:rows] + whole[rows:]
    assert np.abs(whole).max(initial=0) <= (MOST_WIDE if wide else MOST)
    np.testing.assert_allclose(whole[:, :k] * steps.astype(np.float64), x, rtol=0, atol=steps.max(initial=0) * 0.51)


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 40), k=st.integers(1, 200), n=st.integers(1, 100), wide=st.booleans(), smooth=st.booleans())
def test_a_product_is_as_near_as_its_steps_allow(rows: int, k: int, n: int, wide: bool, smooth: bool) -> None:
    x, w = normal(rows, k, seed=k), normal(k, n, seed=n)
    y = multiplied(x, w, wide=wide, divisors=smoothing(w) if smooth else None)
    # Each factor is off by half a step at most.
    bound = np.abs(x).max(1)[:, None] / (2 * (MOST_WIDE if wide else MOST)) * np.abs(w).sum(0)
    bound = bound + np.abs(x).sum(1)[:, None] * np.abs(w).max(0) / (2 * MOST)
    slack = 1.1 if not smooth else 4.0
    assert (np.abs(y - x @ w) <= slack * bound + 1e-4).all()


def test_sixteen_bits_are_nearer_than_eight_where_a_row_has_an_outlier() -> None:
    x, w = normal(50, 256), normal(256, 128, seed=1)
    x[:, 3] *= 80
    w[3] *= 0.01
    exact = x @ w
    narrow, wide = cosine(multiplied(x, w), exact), cosine(multiplied(x, w, wide=True), exact)
    assert narrow < 0.99 < wide


def test_smoothing_by_samples_takes_outlying_channels_off_the_activations() -> None:
    x, w = normal(50, 256), normal(256, 128, seed=1)
    x[:, 3] *= 80
    w[3] *= 0.01
    exact = x @ w
    plain = cosine(multiplied(x, w), exact)
    smoothed = cosine(multiplied(x, w, divisors=smoothing(w, np.abs(x).max(0))), exact)
    assert plain < 0.99 < smoothed


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_channels_of_zeros_are_neither_lost_nor_huge(alpha: float) -> None:
    x, w = normal(20, 64), normal(64, 64, seed=1)
    x[:, 1] = 0
    w[2] = 0
    divisors = smoothing(w, np.abs(x).max(0), alpha)
    assert np.isfinite(divisors).all()
    assert (divisors > 0).all()
    assert cosine(multiplied(x, w, divisors=divisors), x @ w) > 0.99


def test_zeros_stay_zeros() -> None:
    assert (multiplied(np.zeros((3, 10), np.float32), normal(10, 5)) == 0).all()
    assert (multiplied(normal(3, 10), np.zeros((10, 5), np.float32)) == 0).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("wide", [False, True])
def test_what_is_not_finite_is_refused(value: float, wide: bool) -> None:
    x = normal(4, 64)
    x[2, 5] = value
    with pytest.raises(Unsupported, match="not finite"):
        rows_of(x, 64, wide=wide)
    heads = [normal(2, 8, 64, seed=seed) for seed in range(3)]
    heads[1][1, 2, 3] = value
    with pytest.raises(Unsupported, match="not finite"):
        heads_of(*heads, 0.125, 64, 64)


@pytest.mark.parametrize("threads", [1, 3])
def test_blocks_and_threads_change_no_bit(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, w = normal(333, 200), normal(200, 64, seed=1)
    heads = [normal(5, 70, 64, seed=seed) for seed in range(3)]
    matrix = matrix_of(w, 256, 64)

    def all_of(shared: Blocks) -> list[Any]:
        rows, steps = rows_of(x, 256, wide=True, blocks=shared)
        sums = get("gemm_i8_i32_256x64").reference(a=rows, w=matrix.values)["c"]
        of = heads_of(*heads, 1.0, 128, 64, blocks=shared)  # type: ignore[misc]
        return [rows, steps, product(sums, steps, matrix, w[0], blocks=shared), of.q, of.k, of.v, of.score_steps]

    whole = all_of(Blocks(1))
    monkeypatch.setattr(blocks, "_ELEMENTS", 1000)
    shared = Blocks(threads)
    for one, other in zip(whole, all_of(shared), strict=True):
        np.testing.assert_array_equal(one, other, strict=True)
    shared.close()


@settings(max_examples=50, deadline=None)
@given(rows=st.integers(0, 100), width=st.integers(0, 100_000), threads=st.integers(1, 3))
def test_every_row_is_in_one_block(rows: int, width: int, threads: int) -> None:
    counts = np.zeros(rows, int)
    shared = Blocks(threads)

    def work(some: slice) -> None:
        counts[some] += 1

    shared.each(rows, width, work)
    shared.close()
    assert (counts == 1).all()


def test_what_a_block_raises_is_raised() -> None:
    x = normal(5000, 64)
    x[4999, 3] = np.nan
    shared = Blocks(2)
    with pytest.raises(Unsupported, match="not finite"):
        rows_of(x, 64, blocks=shared)
    shared.close()


@pytest.mark.parametrize(("n", "t", "size"), [(64, 64, 64), (50, 50, 64), (1, 100, 64), (100, 3, 32)])
def test_attention_of_fewer_queries_keys_and_features_than_the_kernel_takes(n: int, t: int, size: int) -> None:
    q, k, v = (normal(3, count, size, seed=seed) for seed, count in enumerate((n, t, t)))
    heads = heads_of(q, k, v, size**-0.5, 128, 64)
    o = get("attention_i8_exact_128").reference(
        q=heads.q,
        k=heads.k,
        v=heads.v,
        temperature=temperatures(heads.score_steps, size=1),
        keys=np.full((3, 1), t, np.int32),
    )["o"]
    answer = o[:, :n, :size] * (heads.value_steps / 256)
    scores = q @ k.transpose(0, 2, 1) * size**-0.5
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    assert cosine(answer, weights / weights.sum(-1, keepdims=True) @ v) > 0.999
