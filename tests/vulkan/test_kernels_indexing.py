"""Elements by their places, mixed, in order and quantised, against numpy; run at every subgroup size of lavapipe."""

from __future__ import annotations

import numpy as np
import pytest

from hetero.errors import OptionError, Unsupported
from hetero_vulkan.device import VulkanDevice
from hetero_vulkan.ops.indexing import MOST_RANKED, gather_elements, interpolate, scatter_elements, top_places
from hetero_vulkan.ops.quantised import quantise
from hetero_vulkan.ops.tensors import Tensor
from tests.vulkan.arrays import bench, close

RANDOM = np.random.default_rng(5)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_neighbours_are_mixed_along_an_axis(device: VulkanDevice, axis: int, dtype: type[np.floating]) -> None:
    x = RANDOM.standard_normal((3, 5, 7)).astype(dtype)
    places = RANDOM.integers(0, x.shape[axis], (9, 4)).astype(np.int32)
    weights = RANDOM.standard_normal((9, 4)).astype(np.float32)
    seen = np.moveaxis(np.take(x, places, axis=axis).astype(float), (axis, axis + 1), (-2, -1))
    expected = np.moveaxis((seen * weights).sum(-1), -1, axis)
    with bench(device) as on:
        y = on.put(np.zeros(expected.shape, dtype))
        answer = on.answer(interpolate(device, on.put(x), on.put(places), on.put(weights), y, axis), y)
        close(answer, expected, 10.0, 1e-6 if dtype == np.float32 else 1e-3)
        with pytest.raises(OptionError, match="along axis"):
            interpolate(device, on.put(x), on.put(places), on.put(weights), on.empty((1, 2, 3)), axis)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_single_elements_are_looked_up_and_written(device: VulkanDevice, axis: int) -> None:
    x = RANDOM.standard_normal((4, 6, 5)).astype(np.float32)
    size = x.shape[axis]
    # Of the other axes the first elements alone.
    shape = tuple(3 if place == axis else count - 1 for place, count in enumerate(x.shape))
    order = np.argsort(RANDOM.random((*shape[:axis], size, *shape[axis + 1 :])), axis=axis)
    indices = np.take(order, range(3), axis=axis).astype(np.int32)
    indices.reshape(-1)[::2] -= size
    corner = x[tuple(slice(None) if place == axis else slice(count) for place, count in enumerate(shape))]
    updates = RANDOM.standard_normal(shape).astype(np.float32)
    written = x.copy()
    inner = written[tuple(slice(None) if place == axis else slice(count) for place, count in enumerate(shape))]
    np.put_along_axis(inner, np.where(indices < 0, indices + size, indices), updates, axis)
    with bench(device) as on:
        target = on.empty(shape)
        answer = on.answer(gather_elements(device, on.put(x), on.put(indices), target, axis), target)
        np.testing.assert_array_equal(answer, np.take_along_axis(corner, indices, axis))
        whole = on.put(x)
        answer = on.answer(scatter_elements(device, on.put(updates), on.put(indices), whole, axis), whole)
        np.testing.assert_array_equal(answer, written)


def test_elements_of_64_bits_are_pairs_of_words(device: VulkanDevice) -> None:
    x = RANDOM.integers(-(1 << 60), 1 << 60, (3, 5))
    indices = np.array([[4, -1, 0], [2, 2, 3]], np.int32)
    with bench(device) as on:
        source = on.put(x.view(np.int32).reshape(3, 5, 2))
        target = on.empty((2, 3, 2), "i32")
        answer = on.answer(gather_elements(device, source, on.put(indices), target, 1, wide=True), target)
        found = np.ascontiguousarray(answer).view(np.int64)[..., 0]
        np.testing.assert_array_equal(found, np.take_along_axis(x[:2], indices, 1))


def test_what_is_written_beyond_an_axis_goes_nowhere(device: VulkanDevice) -> None:
    with bench(device) as on:
        target = on.put(np.zeros(3, np.float32))
        updates, indices = on.put(np.ones(3, np.float32)), on.put(np.array([3, -4, 1], np.int32))
        answer = on.answer(scatter_elements(device, updates, indices, target, 0), target)
        np.testing.assert_array_equal(answer, [0, 1, 0])


def test_single_elements_that_share_words_are_refused(device: VulkanDevice) -> None:
    with bench(device) as on:
        halves, indices = on.put(np.zeros(4, np.float16)), on.put(np.zeros(4, np.int32))
        with pytest.raises(Unsupported, match="single elements of f16"):
            gather_elements(device, halves, indices, on.put(np.zeros(4, np.float16)), 0)
        with pytest.raises(OptionError, match="at most as many elsewhere"):
            gather_elements(device, on.empty((2, 2)), on.empty((3, 1), "i32"), on.empty((3, 1)), 1)


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize(("shape", "axis"), [((7,), 0), ((3, 65), 1), ((33, 4), 0), ((2, 9, 3), 1)])
def test_places_are_in_order_and_equal_ones_in_that_of_their_places(
    device: VulkanDevice, shape: tuple[int, ...], axis: int, largest: bool
) -> None:
    x = RANDOM.integers(-5, 6, shape).astype(np.float32)
    x.reshape(-1)[:4] = np.nan, np.inf, -np.inf, -0.0
    # numpy puts NaN last, which is the greatest; the negative order of what is turned keeps equal ones apart.
    if largest:
        order = x.shape[axis] - 1 - np.flip(np.argsort(np.flip(x, axis), axis=axis, kind="stable"), axis)
    else:
        order = np.argsort(x, axis=axis, kind="stable")
    k = min(5, shape[axis])
    expected = np.take(order, range(k), axis=axis)
    with bench(device) as on:
        y = on.empty((*expected.shape, 2), "i32")
        answer = on.answer(top_places(device, on.put(x), y, axis, largest=largest), y)
        np.testing.assert_array_equal(answer[..., 0], expected)
        assert not answer[..., 1].any()


def test_lines_that_would_take_too_long_to_put_in_order_are_refused(device: VulkanDevice) -> None:
    with bench(device) as on, pytest.raises(Unsupported, match=f"at most {MOST_RANKED}"):
        top_places(device, on.empty((MOST_RANKED + 1,)), on.empty((1, 2), "i32"), 0)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize(("scales", "block"), [((), 0), ((5,), 0), ((3, 2, 7), 3)])
def test_integers_are_numpys_and_so_is_what_they_stand_for(
    device: VulkanDevice, scales: tuple[int, ...], block: int, dtype: type[np.floating]
) -> None:
    x = (20 * RANDOM.standard_normal((3, 5, 7))).astype(dtype)
    # Powers of 2: no quotient is near the middle between two integers by rounding alone.
    scale = (2.0 ** RANDOM.integers(-3, 2, scales)).astype(np.float32)
    zero = RANDOM.integers(0, 256, scales).astype(np.int32)
    axis = 1
    if block:
        wide_scale, wide_zero = (np.repeat(each, block, axis)[:, :5] for each in (scale, zero))
    else:
        wide_scale, wide_zero = (each.reshape((-1, 1)) if scales else each for each in (scale, zero))
    whole = np.clip(np.rint(x / wide_scale) + wide_zero, 0, 255).astype(np.int32)
    exact = ((whole - wide_zero) * wide_scale).astype(np.float32)
    with bench(device) as on:
        given, own = on.put(x), (on.put(np.asarray(scale)), on.put(np.asarray(zero)))
        where = {"axis": axis, "block": block, "limits": (0, 255)}
        integers: Tensor = on.empty(x.shape, "i32")
        answer = on.answer(quantise(device, "quantise", given, integers, *own, **where), integers)  # type: ignore[arg-type]
        np.testing.assert_array_equal(answer, whole)
        for how, source in (("dequantise", integers), ("both", given)):
            y = on.put(np.zeros(x.shape, dtype))
            answer = on.answer(quantise(device, how, source, y, *own, **where), y)  # type: ignore[arg-type]
            np.testing.assert_array_equal(answer, exact.astype(dtype))
        with pytest.raises(OptionError, match="by scales"):
            quantise(device, "both", given, given, on.empty((4,)), axis=1)
