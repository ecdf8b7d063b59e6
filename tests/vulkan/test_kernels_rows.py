"""Reductions and normalisations against numpy in float64; run at every subgroup size of lavapipe by `test_widths`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hetero.errors import OptionError, Unsupported
from hetero.tensors import Array
from hetero_vulkan.device import VulkanDevice
from hetero_vulkan.ops.rows import normalise, reduce
from tests.vulkan.arrays import bench, close

REDUCTIONS = {"sum": np.sum, "mean": np.mean, "max": np.max, "min": np.min}


def normal(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def softmax(x: Array, axis: int) -> Array:
    with np.errstate(invalid="ignore"):
        e = np.exp(x - x.max(axis, keepdims=True))
        return e / e.sum(axis, keepdims=True)


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), how=st.sampled_from(list(REDUCTIONS)))
def test_reductions_over_any_axes_are_numpys(device: VulkanDevice, data: st.DataObject, how: str) -> None:
    shape = data.draw(st.lists(st.integers(1, 7), min_size=1, max_size=5))
    axes = data.draw(st.sets(st.integers(0, len(shape) - 1)))
    x = normal(1, *shape)
    expected = np.asarray(REDUCTIONS[how](x.astype(float), axis=tuple(axes)))
    with bench(device) as on:
        y = on.empty(expected.shape)
        steps = reduce(device, how, on.put(x), y, sorted(axes), on.scratch)  # type: ignore[arg-type]
        close(on.answer(steps, y), expected, np.sum(np.abs(x), axis=tuple(axes)), 2e-6)


@pytest.mark.parametrize("how", REDUCTIONS)
@pytest.mark.parametrize("length", [1, 63, 64, 65, 1000])
@pytest.mark.parametrize("kind", [np.float32, np.float16, np.int32])
def test_rows_of_any_length_and_kind_are_reduced(
    device: VulkanDevice, how: str, length: int, kind: type[np.generic]
) -> None:
    x = (normal(1, 3, length) * 10).astype(kind)
    with bench(device) as on:
        y = on.empty((3,))
        steps = reduce(device, how, on.put(x), y, [1])  # type: ignore[arg-type]
        close(on.answer(steps, y), REDUCTIONS[how](x.astype(float), 1), np.abs(x.astype(float)).sum(1) + 1, 1e-6)


@pytest.mark.parametrize("how", REDUCTIONS)
def test_nan_and_infinity_pass_reductions_as_in_numpy(device: VulkanDevice, how: str) -> None:
    x = normal(1, 5, 200)
    x[1, 150], x[2, 3], x[3, 77], x[4, 5], x[4, 6] = np.nan, np.inf, -np.inf, np.inf, -np.inf
    with bench(device) as on, np.errstate(invalid="ignore"):
        y = on.empty((5,))
        steps = reduce(device, how, on.put(x), y, [-1])  # type: ignore[arg-type]
        close(on.answer(steps, y), REDUCTIONS[how](x.astype(float), 1), 200.0, 1e-6)


def test_nothing_is_summed_to_zero_and_has_no_mean_and_infinite_extremes(device: VulkanDevice) -> None:
    with bench(device) as on:
        x, y = on.empty((3, 0)), on.empty((3,))
        np.testing.assert_array_equal(on.answer(reduce(device, "sum", x, y, [1]), y), [0, 0, 0])
        assert np.isnan(on.answer(reduce(device, "mean", x, y, [1]), y)).all()
        assert (on.answer(reduce(device, "max", x, y, [1]), y) == -np.inf).all()
        assert (on.answer(reduce(device, "product", x, y, [1]), y) == 1).all()


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
@pytest.mark.parametrize("how", ["softmax", "log_softmax"])
@pytest.mark.parametrize("scale", [1.0, 1e30])
def test_softmax_along_any_axis_is_right(device: VulkanDevice, axis: int, how: str, scale: float) -> None:
    x = normal(1, 5, 67, 3) * np.float32(scale)
    expected = softmax(x.astype(float), axis)
    if how == "log_softmax":
        shifted = x.astype(float) - x.max(axis, keepdims=True)
        expected = shifted - np.log(np.exp(shifted).sum(axis, keepdims=True))
    with bench(device) as on:
        y = on.empty(x.shape)
        answer = on.answer(normalise(device, how, on.put(x), y, axis), y)  # type: ignore[arg-type]
        close(answer, expected, np.maximum(np.abs(expected), 1.0), 1e-6)


def test_softmax_of_nan_and_of_hidden_rows_is_numpys(device: VulkanDevice) -> None:
    x = normal(1, 5, 70)
    x[0, 3], x[1], x[2, :69], x[3, 4] = np.nan, -np.inf, -np.inf, np.inf
    with bench(device) as on:
        y = on.empty(x.shape)
        close(on.answer(normalise(device, "softmax", on.put(x), y), y), softmax(x.astype(float), 1), 1.0, 1e-6)


@pytest.mark.parametrize("length", [1, 7, 64, 512])
@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_layer_and_rms_normalisation_are_right(device: VulkanDevice, length: int, kind: type[np.generic]) -> None:
    x = (normal(1, 4, 5, length) * 3 + 2).astype(kind)
    weight, bias = normal(2, length), normal(3, length)
    exact = x.astype(float)
    away = exact - exact.mean(-1, keepdims=True)
    layer = away / np.sqrt((away**2).mean(-1, keepdims=True) + 1e-5) * weight + bias
    rms = exact / np.sqrt((exact**2).mean(-1, keepdims=True) + 1e-6) * weight
    with bench(device) as on:
        held, y, w, b = on.put(x), on.empty(x.shape), on.put(weight), on.put(bias)
        close(on.answer(normalise(device, "layer_norm", held, y, weight=w, bias=b), y), layer, 1 + abs(layer), 3e-6)
        close(on.answer(normalise(device, "rms_norm", held, y, weight=w, epsilon=1e-6), y), rms, 1 + abs(rms), 3e-6)
        if kind is np.float16 and length % 2 == 0:
            half = on.empty(x.shape, "f16")
            steps = normalise(device, "layer_norm", held, half, weight=w, bias=b)
            close(on.answer(steps, half), layer, 1 + abs(layer), 2.0**-10)


def test_a_large_mean_does_not_drown_the_variance(device: VulkanDevice) -> None:
    x = (normal(1, 3, 256) + 1000).astype(np.float32)
    away = x.astype(float) - x.astype(float).mean(-1, keepdims=True)
    with bench(device) as on:
        y = on.put(x)
        expected = away / np.sqrt((away**2).mean(-1, keepdims=True) + 1e-5)
        close(on.answer(normalise(device, "layer_norm", y, y), y), expected, 1.0, 3e-4)


@pytest.mark.parametrize("how", ["layer_norm", "rms_norm"])
@pytest.mark.parametrize(("rows", "length"), [(1, 8), (17, 72), (33, 384), (5, 504), (3, 2056)])
def test_rows_of_whole_eights_are_normalised_in_place_and_elsewhere(
    device: VulkanDevice, how: Literal["layer_norm", "rms_norm"], rows: int, length: int
) -> None:
    x, weight, bias = normal(rows, rows, length) + 3, normal(1, length), normal(2, length)
    away = x.astype(float) - (x.astype(float).mean(-1, keepdims=True) if how == "layer_norm" else 0)
    plain = away / np.sqrt((away**2).mean(-1, keepdims=True) + 1e-5)
    with bench(device) as on:
        given, y = on.put(x), on.empty(x.shape)
        weighted = normalise(device, how, given, y, weight=on.put(weight), bias=on.put(bias))
        close(on.answer(weighted, y), plain * weight + bias, 1.0, 2e-5)
        close(on.answer(normalise(device, how, given, y, weight=on.put(weight)), y), plain * weight, 1.0, 2e-5)
        close(on.answer(normalise(device, how, given, given), given), plain, 1.0, 2e-5)


def test_sums_are_wrong_without_their_barriers(device: VulkanDevice, without_barriers: Callable[[str], bytes]) -> None:
    """The comparison of these tests notices a missing barrier."""

    def check_all() -> None:
        # One run may be right by chance: by what shared memory still holds of the run before, or by who was quick.
        for scale in (1, 3, 7, 11, 13, 17):
            x = scale * (np.abs(normal(scale, 64, 640)) + 1)
            with bench(device) as on:
                y = on.empty((64,))
                (step,) = reduce(device, "sum", on.put(x), y, [1])
                broken = device.pipeline(
                    "rows without barriers", step.pipeline.constants, code=without_barriers("rows")
                )
                on.run([type(step)(broken, step.buffers, step.groups, step.push)])
                close(on.get(y), x.astype(float).sum(1), x.astype(float).sum(1), 2e-6)

    with pytest.raises(AssertionError, match=r"an error of|Arrays are not equal"):
        check_all()


def test_what_does_not_fit_is_refused_in_words(device: VulkanDevice) -> None:
    with bench(device) as on:
        x = on.empty((3, 4, 5))
        with pytest.raises(OptionError, match="f32 of 15 in order"):
            reduce(device, "sum", x, on.empty((4,)), [1])
        with pytest.raises(OptionError, match="no scratch"):
            reduce(device, "sum", x, on.empty((4,)), [0, 2])
        with pytest.raises(OptionError, match="axes"):
            reduce(device, "sum", x, x, [3])
        with pytest.raises(OptionError, match=r"expected f32 \(5,\)"):
            normalise(device, "layer_norm", x, x, weight=on.empty((4,)))
        half = on.empty((3, 5), "f16")
        with pytest.raises(Unsupported, match="of an even length"):
            normalise(device, "softmax", half, half)
        with pytest.raises(Unsupported, match="copy it first"):
            normalise(device, "softmax", x.transposed(2, 1, 0), on.empty((5, 4, 3)))
