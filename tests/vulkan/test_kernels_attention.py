"""Attention against numpy in float64; run at every subgroup size of lavapipe by `test_widths`."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from hetero.errors import OptionError, Unsupported
from hetero.tensors import Array
from hetero_vulkan.device import VulkanDevice
from hetero_vulkan.ops.attention import AttentionTuning, attention
from hetero_vulkan.ops.tensors import Tensor
from tests.vulkan.arrays import bench, close

SMALL = AttentionTuning(rows=4, keys=2)


def normal(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def reference(q: Array, k: Array, v: Array, mask: Array | None = None, scale: float | None = None) -> Array:
    q, k, v = (x.astype(np.float64) for x in (q, k, v))
    k, v = (np.repeat(x, q.shape[1] // x.shape[1], axis=1) for x in (k, v))
    scores = q @ k.swapaxes(2, 3) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if mask is not None:
        scores = scores + mask
    with np.errstate(invalid="ignore"):
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        return (scores / scores.sum(-1, keepdims=True)) @ v


@pytest.mark.parametrize("size", [1, 2, 6, 32, 64, 80, 96, 128])
@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (5, 17), (33, 64), (1, 131)])
def test_attention_is_right_at_any_size(device: VulkanDevice, size: int, queries: int, keys: int) -> None:
    q, k, v = normal(1, 1, 2, queries, size), normal(2, 1, 2, keys, size), normal(3, 1, 2, keys, size)
    with bench(device) as on:
        o = on.empty(q.shape)
        steps = attention(device, on.put(q), on.put(k), on.put(v), o, tuning=SMALL)
        close(on.answer(steps, o), reference(q, k, v), 1.0, 2e-6)


@pytest.mark.parametrize("addressed", [False, True])
@pytest.mark.parametrize("tuning", [AttentionTuning(1, 1), AttentionTuning(16, 4), AttentionTuning()])
def test_every_tuning_gives_the_same(device: VulkanDevice, tuning: AttentionTuning, addressed: bool) -> None:
    tuning = dataclasses.replace(tuning, addressed=addressed)
    q, k, v = normal(1, 1, 1, 37, 64), normal(2, 1, 1, 150, 64), normal(3, 1, 1, 150, 64)
    with bench(device) as on:
        o = on.empty(q.shape)
        steps = attention(device, on.put(q), on.put(k), on.put(v), o, tuning=tuning, scale=0.2)
        close(on.answer(steps, o), reference(q, k, v, scale=0.2), 1.0, 2e-6)


@pytest.mark.parametrize(("queries", "keys"), [(19, 19), (3, 40), (40, 33)])
def test_a_causal_query_sees_nothing_behind_its_place(device: VulkanDevice, queries: int, keys: int) -> None:
    q, k, v = normal(1, 2, 2, queries, 16), normal(2, 2, 2, keys, 16), normal(3, 2, 2, keys, 16)
    mask = np.where(np.arange(keys)[None] > np.arange(queries)[:, None] + keys - queries, -np.inf, 0.0)
    with bench(device) as on:
        o = on.empty(q.shape)
        steps = attention(device, on.put(q), on.put(k), on.put(v), o, causal=True, tuning=SMALL)
        close(on.answer(steps, o), reference(q, k, v, mask), 1.0, 2e-6)


@pytest.mark.parametrize("shape", [(2, 4, 9, 21), (1, 1, 9, 21), (2, 1, 1, 21), (1, 4, 9, 1)])
def test_masks_are_added_and_broadcast(device: VulkanDevice, shape: tuple[int, ...]) -> None:
    q, k, v = normal(1, 2, 4, 9, 24), normal(2, 2, 2, 21, 24), normal(3, 2, 2, 21, 24)
    mask = np.where(np.random.default_rng(4).random(shape) < 0.3, -np.inf, normal(5, *shape)).astype(np.float32)
    with bench(device) as on:
        o = on.empty(q.shape)
        steps = attention(device, on.put(q), on.put(k), on.put(v), o, mask=on.put(mask), tuning=SMALL)
        close(on.answer(steps, o), reference(q, k, v, mask), 1.0, 2e-6)


def test_heads_lie_side_by_side_in_rows(device: VulkanDevice) -> None:
    """As a projection leaves them: [B, rows, H * D], for queries, keys and values in one buffer."""
    whole = normal(1, 2, 11, 3 * 4 * 8)
    q, k, v = (whole[:, :, 32 * i : 32 * i + 32].reshape(2, 11, 4, 8).swapaxes(1, 2) for i in range(3))
    with bench(device) as on:
        held, o = on.put(whole), on.empty((2, 11, 32))
        seen = [Tensor(held.buffer, (2, 4, 11, 8), "f32", 32 * i, (11 * 96, 8, 96, 1)) for i in range(3)]
        to = Tensor(o.buffer, (2, 4, 11, 8), "f32", 0, (11 * 32, 8, 32, 1))
        answer = on.answer(attention(device, *seen, to, tuning=SMALL), o)
        close(answer, reference(q, k, v).swapaxes(1, 2).reshape(2, 11, 32), 1.0, 2e-6)


def test_addresses_are_of_the_parts_that_are_bound_and_kept_to(device: VulkanDevice) -> None:
    """Heads of a batch in the middle of a buffer, with a mask, grouped queries, and NaN all around."""
    q, k, v = normal(1, 2, 4, 9, 64), normal(2, 2, 2, 21, 64), normal(3, 2, 2, 21, 64)
    mask = np.where(np.random.default_rng(4).random((2, 1, 9, 21)) < 0.3, -np.inf, 0.0).astype(np.float32)
    addressed = dataclasses.replace(SMALL, addressed=True)

    def within(array: Array) -> Tensor:
        whole = on.put(np.full((3, *array.shape), np.nan, np.float32))
        part = whole.buffer.view(array.nbytes, array.nbytes)
        part.write(array)
        return Tensor(part, array.shape)

    with bench(device) as on:
        o = on.empty(q.shape)
        steps = attention(device, within(q), within(k), within(v), o, mask=on.put(mask), tuning=addressed)
        if device.physical.subgroup <= 8:
            assert steps[0].pipeline.name == "attention_address"
        close(on.answer(steps, o), reference(q, k, v, mask), 1.0, 2e-6)
        device.physical = dataclasses.replace(
            device.physical, features={**device.physical.features, "bufferDeviceAddress": False}
        )
        (step,) = attention(device, within(q), within(k), within(v), o, tuning=addressed)
        assert step.pipeline.name != "attention_address"


@pytest.mark.parametrize("size", [6, 64])
def test_half_precision_is_summed_in_single(device: VulkanDevice, size: int) -> None:
    q, k, v = (normal(i, 1, 2, 21, size).astype(np.float16) for i in range(3))
    with bench(device) as on:
        o = on.empty(q.shape, "f16")
        steps = attention(device, on.put(q), on.put(k), on.put(v), o, tuning=SMALL)
        close(on.answer(steps, o), reference(q, k, v), 4.0, 2.0**-11)


def test_scores_of_any_magnitude_give_no_false_nan(device: VulkanDevice) -> None:
    q, k, v = normal(1, 1, 1, 5, 16) * 1e4, normal(2, 1, 1, 50, 16) * 1e4, normal(3, 1, 1, 50, 16)
    with bench(device) as on:
        o = on.empty(q.shape)
        answer = on.answer(attention(device, on.put(q), on.put(k), on.put(v), o, tuning=SMALL), o)
        close(answer, reference(q, k, v), 1.0, 1e-5)


def test_what_is_masked_with_the_lowest_float_is_numpys(device: VulkanDevice) -> None:
    """As exporters do it: where every key has it, all of them count."""
    q, k, v = normal(1, 1, 1, 9, 8), normal(2, 1, 1, 40, 8), normal(3, 1, 1, 40, 8)
    mask = np.zeros((1, 1, 9, 40), np.float32)
    lowest = np.finfo(np.float32).min
    mask[0, 0, 2], mask[0, 0, 3, :39], mask[0, 0, 4, 5:] = lowest, lowest, lowest
    with bench(device) as on:
        o = on.empty(q.shape)
        steps = attention(device, on.put(q), on.put(k), on.put(v), o, mask=on.put(mask), tuning=SMALL)
        close(on.answer(steps, o), reference(q, k, v, mask), 1.0, 2e-6)


def test_nan_and_masked_rows_are_numpys(device: VulkanDevice) -> None:
    q, k, v = normal(1, 1, 1, 9, 8), normal(2, 1, 1, 20, 8), normal(3, 1, 1, 20, 8)
    q[0, 0, 2, 3] = np.nan
    mask = np.zeros((1, 1, 9, 20), np.float32)
    mask[0, 0, 5] = -np.inf
    with bench(device) as on:
        o = on.empty(q.shape)
        steps = attention(device, on.put(q), on.put(k), on.put(v), o, mask=on.put(mask), tuning=SMALL)
        close(on.answer(steps, o), reference(q, k, v, mask), 1.0, 2e-6)


def test_what_does_not_fit_is_refused_in_words(device: VulkanDevice) -> None:
    with bench(device) as on:
        q, k = on.put(normal(1, 1, 4, 5, 8)), on.put(normal(2, 1, 3, 7, 8))
        with pytest.raises(OptionError, match="H a multiple of G"):
            attention(device, q, k, k, q)
        with pytest.raises(OptionError, match="4 dimensions"):
            attention(device, q.reshaped(4, 5, 8), k, k, q)
        turned = on.put(normal(1, 1, 4, 8, 5)).transposed(0, 1, 3, 2)
        with pytest.raises(Unsupported, match="do not lie in order"):
            attention(device, turned, q, q, on.empty((1, 4, 5, 8)))
        odd = on.empty((1, 1, 3, 5), "f16")
        with pytest.raises(Unsupported, match="within a word"):
            attention(device, odd, odd, odd, odd)
