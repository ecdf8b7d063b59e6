"""Copies, padding, gathering and series against numpy; run at every subgroup size of lavapipe by `test_widths`."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hetero.errors import OptionError, Unsupported
from hetero_vulkan.device import VulkanDevice
from hetero_vulkan.ops.movement import concat, copy, gather, pad, series
from hetero_vulkan.ops.tensors import merged
from tests.vulkan.arrays import bench

KINDS = [np.float32, np.float16, np.int8, np.int32]

few = settings(
    max_examples=15, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.mark.parametrize("kind", KINDS)
@few
@given(data=st.data())
def test_transposes_of_up_to_six_dimensions_move_every_element(
    device: VulkanDevice, kind: type[np.generic], data: st.DataObject
) -> None:
    shape = data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=6))
    order = data.draw(st.permutations(range(len(shape))))
    source = (np.arange(math.prod(shape)) % 120).astype(kind).reshape(shape)
    with bench(device) as on:
        target = on.put(np.zeros_like(source.transpose(order)))
        on.run(copy(device, on.put(source).transposed(*order), target))
        np.testing.assert_array_equal(on.get(target), source.transpose(order))


def test_all_orders_of_four_dimensions_are_right(device: VulkanDevice) -> None:
    source = np.arange(2 * 3 * 5 * 7, dtype=np.float32).reshape(2, 3, 5, 7)
    with bench(device) as on:
        held = on.put(source)
        pairs = [(order, on.put(np.zeros_like(source.transpose(order)))) for order in permutations(range(4))]
        on.run([step for order, target in pairs for step in copy(device, held.transposed(*order), target)])
        for order, target in pairs:
            np.testing.assert_array_equal(on.get(target), source.transpose(order))


def test_slices_and_expansions_are_copies_by_strides(device: VulkanDevice) -> None:
    source = np.random.default_rng(0).normal(size=(6, 9, 1, 4)).astype(np.float32)
    with bench(device) as on:
        held, target = on.put(source), on.empty((3, 4, 5, 4))
        seen = held.sliced(0, 1, 6, 2).sliced(1, 2, 9, 2)
        on.run(copy(device, seen, target))
        expected = np.broadcast_to(source[1:6:2, 2:9:2], (3, 4, 5, 4))
        np.testing.assert_array_equal(on.get(target), expected)
        part = target.sliced(1, 1, 3)
        on.run(copy(device, on.put(np.float32(7.0)), part))
        changed = expected.copy()
        changed[:, 1:3] = 7
        np.testing.assert_array_equal(on.get(target), changed)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_parts_are_put_one_behind_the_other(device: VulkanDevice, kind: type[np.generic], axis: int) -> None:
    shapes = [(4, 8, 12), (4, 8, 12), (4, 8, 12)]
    parts = [np.random.default_rng(i).integers(-99, 99, shape).astype(kind) for i, shape in enumerate(shapes)]
    expected = np.concatenate(parts, axis)
    with bench(device) as on:
        target = on.put(np.zeros_like(expected))
        on.run(concat(device, [on.put(part) for part in parts], target, axis))
        np.testing.assert_array_equal(on.get(target), expected)


@few
@given(sizes=st.lists(st.integers(0, 7), min_size=1, max_size=4), axis=st.integers(0, 2), rest=st.integers(1, 5))
def test_parts_of_any_length_are_put_together(device: VulkanDevice, sizes: list[int], axis: int, rest: int) -> None:
    shapes = [tuple(size if i == axis else rest for i in range(3)) for size in sizes]
    parts = [np.random.default_rng(i).normal(size=shape).astype(np.float32) for i, shape in enumerate(shapes)]
    expected = np.concatenate(parts, axis)
    with bench(device) as on:
        target = on.empty(expected.shape)
        on.run(concat(device, [on.put(part) for part in parts], target, axis))
        np.testing.assert_array_equal(on.get(target), expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["constant", "edge", "reflect"])
def test_padding_is_numpys(device: VulkanDevice, kind: type[np.generic], mode: str) -> None:
    source = np.random.default_rng(0).integers(-50, 50, (3, 4, 5)).astype(kind)
    widths = [(1, 0), (3, 2), (0, 4)]
    expected = np.pad(source, widths, mode=mode, **({"constant_values": 9} if mode == "constant" else {}))  # type: ignore[call-overload]
    with bench(device) as on:
        target = on.put(np.zeros_like(expected))
        on.run(pad(device, on.put(source), target, [1, 3, 0], mode=mode, value=9))  # type: ignore[arg-type]
        np.testing.assert_array_equal(on.get(target), expected)


def test_padding_below_zero_cuts_and_nothing_is_padded_with_a_value(device: VulkanDevice) -> None:
    source = np.arange(20, dtype=np.float32).reshape(4, 5)
    with bench(device) as on:
        target = on.empty((3, 6))
        on.run(pad(device, on.put(source), target, [-2, 1], value=-1))
        np.testing.assert_array_equal(on.get(target), np.pad(source[2:], ((0, 1), (1, 0)), constant_values=-1))
        on.run(pad(device, on.empty((0, 5)), target, [0, 0], value=3))
        np.testing.assert_array_equal(on.get(target), np.full((3, 6), 3))
        with pytest.raises(Unsupported, match="of which there is none"):
            pad(device, on.empty((0, 5)), target, [0, 0], mode="edge")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_gathering_is_numpys_take(device: VulkanDevice, kind: type[np.generic], axis: int) -> None:
    source = np.random.default_rng(0).integers(-99, 99, (4, 5, 6)).astype(kind)
    indices = np.array([[0, -1, 2], [3, 3, -4]], np.int32)
    expected = np.take(source, indices, axis)
    with bench(device) as on:
        target = on.put(np.zeros_like(expected))
        on.run(gather(device, on.put(source), on.put(indices), target, axis))
        np.testing.assert_array_equal(on.get(target), expected)


def test_an_index_beyond_reads_nothing_beyond(device: VulkanDevice) -> None:
    with bench(device) as on:
        target = on.empty((2,))
        indices = on.put(np.array([99, -99], np.int32))
        on.run(gather(device, on.put(np.arange(5, dtype=np.float32)), indices, target))
        np.testing.assert_array_equal(on.get(target), [4, 0])


def test_series_and_fills(device: VulkanDevice) -> None:
    with bench(device) as on:
        whole, floats, halves = on.put(np.zeros(33, np.int32)), on.empty((33,)), on.empty((33,), "f16")
        on.run([
            *series(device, whole, 2**24 + 1, -3),
            *series(device, floats, 0.5, 0.25),
            *series(device, halves, 1.5),
        ])  # fmt: skip
        np.testing.assert_array_equal(on.get(whole), 2**24 + 1 - 3 * np.arange(33))
        np.testing.assert_array_equal(on.get(floats), 0.5 + 0.25 * np.arange(33))
        np.testing.assert_array_equal(on.get(halves), np.full(33, 1.5))
        with pytest.raises(OptionError, match="whole numbers"):
            series(device, whole, 0.5)


def test_what_does_not_fit_is_refused_in_words(device: VulkanDevice) -> None:
    with bench(device) as on:
        x = on.empty((4, 6))
        with pytest.raises(OptionError, match="cannot be broadcast"):
            copy(device, x, on.empty((4, 5)))
        with pytest.raises(OptionError, match="along axis 1"):
            concat(device, [x, x], on.empty((4, 11)), 1)
        with pytest.raises(OptionError, match="expected i32"):
            gather(device, x, x, on.empty((4, 6, 6)))
        with pytest.raises(OptionError, match="as many dimensions"):
            pad(device, x, x, [1])
        half = on.empty((4, 7), "f16")
        with pytest.raises(Unsupported, match="a multiple of 2"):
            copy(device, on.empty((4, 3)), half.sliced(1, 2, 5))
        seven = on.empty((2,) * 7)
        with pytest.raises(Unsupported, match="7 dimensions"):
            copy(device, seven.transposed(6, 5, 4, 3, 2, 1, 0), on.empty((2,) * 7))


def test_dimensions_are_merged_where_all_strides_allow() -> None:
    assert merged((2, 3, 4), (12, 4, 1), (12, 4, 1)) == ((24,), [(1,), (1,)])
    assert merged((2, 3, 4), (12, 4, 1), (1, 8, 2)) == ((2, 12), [(12, 1), (1, 2)])
    assert merged((1, 1), (5, 5)) == ((1,), [(0,)])
    assert merged((2, 1, 3), (3, 99, 1)) == ((6,), [(1,)])
