"""Convolution and pooling against numpy; run at every subgroup size of lavapipe by `test_widths`."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from hetero.errors import OptionError, Unsupported
from hetero.tensors import Array
from hetero_vulkan.device import VulkanDevice
from hetero_vulkan.ops.windows import Window, conv, image, pool
from tests.vulkan.arrays import bench, close


def normal(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def patches(x: Array, kernel: tuple[int, int], window: Window, fill: float) -> Array:
    """[N, C, H', W', KH, KW] in float64."""
    top, left, bottom, right = window.pads
    whole = np.pad(x.astype(float), ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=fill)
    height, width = window.places(x.shape[2:], kernel)  # type: ignore[arg-type]
    rows = [
        np.arange(size)[:, None] * stride + np.arange(taps) * dilation
        for size, taps, stride, dilation in zip((height, width), kernel, window.strides, window.dilations, strict=True)
    ]
    return whole[:, :, rows[0][:, None, :, None], rows[1][None, :, None, :]]


def exact_conv(x: Array, w: Array, window: Window, groups: int) -> Array:
    cut = patches(x, w.shape[2:], window, 0.0)  # type: ignore[arg-type]
    n, _, height, width = cut.shape[:4]
    cut = cut.reshape(n, groups, -1, height, width, *w.shape[2:])
    weights = w.astype(float).reshape(groups, -1, *w.shape[1:])
    return np.einsum("ngchwij,gmcij->ngmhw", cut, weights).reshape(n, -1, height, width)


small = settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
windows = st.builds(
    Window,
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilations=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    pads=st.tuples(*[st.integers(0, 2)] * 4),
)


@small
@given(
    window=windows, n=st.integers(1, 2), groups=st.integers(1, 3), each=st.integers(1, 3), out=st.integers(1, 5),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)), kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
)  # fmt: skip
def test_convolutions_of_any_window_are_right(
    device: VulkanDevice, window: Window, n: int, groups: int, each: int, out: int, size: tuple[int, int],
    kernel: tuple[int, int],
) -> None:  # fmt: skip
    x, w, bias = normal(1, n, groups * each, *size), normal(2, groups * out, each, *kernel), normal(3, groups * out)
    places = window.places(size, kernel)
    assume(all(places))
    with bench(device) as on:
        y = on.empty((n, groups * out, *places))
        steps = conv(device, on.put(x), on.put(w), y, window, groups=groups, bias=on.put(bias), activation="relu")
        expected = np.maximum(exact_conv(x, w, window, groups) + bias[:, None, None], 0)
        close(on.answer(steps, y), expected, 10.0, 2e-6)


def test_depthwise_convolutions_of_signals_are_right(device: VulkanDevice) -> None:
    x, w, window = normal(1, 2, 16, 50), normal(2, 16, 1, 5), Window((1, 2), (1, 1), (0, 2, 0, 2))
    with bench(device) as on:
        y = on.empty((2, 16, 25))
        steps = conv(device, image(on.put(x)), image(on.put(w)), image(y), window, groups=16, activation="gelu")
        before = exact_conv(x[:, :, None], w[:, :, None], window, 16)[:, :, 0]
        from tests.vulkan.test_kernels_gemm import REFERENCE

        close(on.answer(steps, y), REFERENCE["gelu"](before), 10.0, 2e-6)


@pytest.mark.parametrize("weights", [np.float16, np.int8])
def test_convolutions_of_halves_and_bytes_are_summed_in_single(device: VulkanDevice, weights: type[np.generic]) -> None:
    x, w = normal(1, 1, 3, 8, 8).astype(np.float16), (normal(2, 5, 3, 3, 3) * 20).astype(weights)
    window = Window(pads=(1, 1, 1, 1))
    with bench(device) as on:
        y = on.empty((1, 5, 8, 8), "f16")
        expected = exact_conv(x, w, window, 1)
        close(on.answer(conv(device, on.put(x), on.put(w), y, window), y), expected, 1 + np.abs(expected), 2.0**-10)


@small
@given(
    window=windows, size=st.tuples(st.integers(2, 9), st.integers(2, 9)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)), how=st.sampled_from(["max", "mean"]), counted=st.booleans(),
)  # fmt: skip
def test_pools_of_any_window_are_right(
    device: VulkanDevice, window: Window, size: tuple[int, int], kernel: tuple[int, int], how: str, counted: bool
) -> None:
    x, places = normal(1, 2, 3, *size), window.places(size, kernel)
    assume(all(places))
    cut = patches(x, kernel, window, -np.inf)
    if how == "max":
        expected = cut.max((-1, -2))
    else:
        inside = np.isfinite(cut)
        taken = np.full(inside.shape[:-2], kernel[0] * kernel[1]) if counted else inside.sum((-1, -2))
        assume((taken > 0).all())
        expected = np.where(inside, cut, 0).sum((-1, -2)) / taken
    with bench(device) as on:
        y = on.empty((2, 3, *places))
        steps = pool(device, how, on.put(x), y, kernel, window, count_padding=counted)  # type: ignore[arg-type]
        close(on.answer(steps, y), expected, 4.0, 1e-6)


def test_a_window_that_reaches_beyond_counts_what_is_there(device: VulkanDevice) -> None:
    """ONNX's ceil_mode: the last window of 2 over 5 has one element; padding that was not asked for is not counted."""
    x = np.arange(1, 6, dtype=np.float32).reshape(1, 1, 1, 5)
    with bench(device) as on:
        held, y, half = on.put(x), on.empty((1, 1, 1, 3)), on.empty((1, 1, 1, 3), "f16")
        window = Window(strides=(1, 2))
        for counted in (False, True):
            on.run(pool(device, "mean", held, y, (1, 2), window, count_padding=counted))
            np.testing.assert_array_equal(on.get(y).ravel(), [1.5, 3.5, 5])
        on.run(pool(device, "max", held, half, (1, 2), window))
        np.testing.assert_array_equal(on.get(half).ravel(), [2, 4, 5])


def test_nan_passes_a_pool(device: VulkanDevice) -> None:
    x = np.array([1, np.nan, 2, -np.inf, np.inf, 3], np.float32).reshape(1, 1, 1, 6)
    with bench(device) as on:
        y = on.empty((1, 1, 1, 3))
        on.run(pool(device, "max", on.put(x), y, (1, 2), Window(strides=(1, 2))))
        np.testing.assert_array_equal(on.get(y).ravel(), [np.nan, 2, np.inf])


def test_what_does_not_fit_is_refused_in_words(device: VulkanDevice) -> None:
    with bench(device) as on:
        x, w, y = on.empty((1, 4, 5, 5)), on.empty((6, 4, 3, 3)), on.empty((1, 6, 3, 3))
        with pytest.raises(OptionError, match="channels in groups"):
            conv(device, x, w, y, groups=2)
        with pytest.raises(OptionError, match=r"\(1, 6, 3, 3\)"):
            conv(device, x, w, on.empty((1, 6, 4, 3)))
        with pytest.raises(OptionError, match="see `image`"):
            conv(device, x.reshaped(4, 25), w, y)
        with pytest.raises(Unsupported, match="planes share words"):
            conv(device, x, w, on.empty((1, 6, 3, 3), "f16"))
        with pytest.raises(OptionError, match="max of"):
            pool(device, "max", x, y, (3, 3))
