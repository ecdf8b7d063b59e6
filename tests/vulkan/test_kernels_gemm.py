"""Matrix products against numpy in float64; run at every subgroup size of lavapipe by `test_widths`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hetero.errors import OptionError, Unsupported
from hetero.tensors import Array
from hetero_kernels.vulkan import spirv
from hetero_vulkan.device import VulkanDevice
from hetero_vulkan.ops.gemm import ACTIVATIONS, Tuning, default_tuning, gemm, matrix_fits
from hetero_vulkan.ops.packing import Packed, pack, packed_shape
from hetero_vulkan.ops.tensors import Tensor, words
from hetero_vulkan.spirv import read_shader
from tests.vulkan.arrays import bench, close
from tests.vulkan.machine import made_up, with_matrices

EPSILON = {"f32": 2.0**-24, "f16": 2.0**-11}

FAMILIES = {
    "subgroup": Tuning("subgroup", rows=8),
    "addresses": Tuning("subgroup", rows=8, addressed=True),
    "tiles": Tuning("tiles", tile=(32, 32, 16), each=(4, 2)),
    "large tiles": Tuning("tiles", tile=(64, 64, 16), each=(4, 4)),
}


def _erf(x: Array) -> Array:
    return np.vectorize(math.erf, otypes=[np.float64])(x)


REFERENCE = {
    "": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: x * 0.5 * (1 + _erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: x * 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "silu": lambda x: x / (1 + np.exp(-x)),
}


def normal(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def bound(k: int, out: str = "f32") -> float:
    """Of the error, relative to the product of the magnitudes: each of k sums is rounded."""
    return (k + 2) * EPSILON["f32"] + EPSILON[out]


SIZES = [
    (1, 1, 1),
    (1, 64, 64),
    (3, 7, 5),
    (8, 64, 64),
    (17, 31, 65),
    (33, 128, 130),
    (64, 72, 8),
    (5, 200, 257),
    (9, 8, 512),
]


@pytest.mark.parametrize(
    ("family", "m", "k", "n"),
    # Where k is no multiple of 8 addresses are not used.
    [(family, *size) for family in FAMILIES for size in SIZES if family != "addresses" or size[1] % 8 == 0],
)
def test_products_of_any_size_are_right(device: VulkanDevice, family: str, m: int, k: int, n: int) -> None:
    a, b = normal(m, m, k), normal(n, k, n)
    with bench(device) as on:
        c = on.empty((m, n))
        steps = gemm(device, on.put(a), on.put(b), c, tuning=FAMILIES[family], scratch=on.scratch)
        exact, scale = a.astype(float) @ b, np.abs(a).astype(float) @ np.abs(b)
        close(on.answer(steps, c), exact, scale, bound(k))


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    m=st.integers(0, 40), k=st.integers(1, 70), n=st.integers(0, 140), outer=st.integers(1, 2), inner=st.integers(1, 3),
    turned=st.booleans(), shared_b=st.booleans(), family=st.sampled_from(["subgroup", "tiles"]),
)  # fmt: skip
def test_batches_turned_and_shared_matrices_are_right(
    device: VulkanDevice, m: int, k: int, n: int, outer: int, inner: int, turned: bool, shared_b: bool, family: str
) -> None:
    a = normal(1, outer, inner, m, k)
    b = normal(2, *((1, 1) if shared_b else (outer, inner)), k, n)
    with bench(device) as on:
        c = on.empty((outer, inner, m, n))
        put = on.put(b.swapaxes(2, 3)).transposed(0, 1, 3, 2) if turned else on.put(b)
        steps = gemm(device, on.put(a), put, c, tuning=FAMILIES[family], scratch=on.scratch)
        exact, scale = a.astype(float) @ b, np.abs(a).astype(float) @ np.abs(b)
        close(on.answer(steps, c), exact, scale + 1e-30, bound(k))


@pytest.mark.parametrize("family", ["subgroup", "tiles"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_bias_activation_and_residual_are_fused(device: VulkanDevice, family: str, activation: str) -> None:
    a, b, bias, rest = normal(1, 13, 24), normal(2, 24, 40) / 2, normal(3, 40), normal(4, 13, 40)
    with bench(device) as on:
        c = on.empty((13, 40))
        steps = gemm(
            device, on.put(a), on.put(b), c, bias=on.put(bias), residual=on.put(rest), activation=activation,
            alpha=0.5, tuning=FAMILIES[family], scratch=on.scratch,
        )  # fmt: skip
        before = 0.5 * (a.astype(float) @ b) + bias
        close(on.answer(steps, c), REFERENCE[activation](before) + rest, 1 + np.abs(before), 3e-6)


@pytest.mark.parametrize("family", ["subgroup", "tiles"])
@pytest.mark.parametrize("k", [32, 36])
@pytest.mark.parametrize("n", [48, 66])
def test_half_precision_is_summed_in_single(device: VulkanDevice, family: str, k: int, n: int) -> None:
    a, b, rest = normal(1, 18, k).astype(np.float16), normal(2, k, n).astype(np.float16), normal(3, 18, n)
    half = rest.astype(np.float16)
    with bench(device) as on:
        c, d = on.empty((18, n)), on.empty((18, n), "f16")
        tuning = FAMILIES[family]
        exact, scale = a.astype(float) @ b.astype(float), np.abs(a).astype(float) @ np.abs(b).astype(float)
        steps = gemm(device, on.put(a), on.put(b), c, tuning=tuning, scratch=on.scratch)
        close(on.answer(steps, c), exact, scale, bound(k))
        steps = gemm(device, on.put(a), on.put(b), d, residual=on.put(half), tuning=tuning, scratch=on.scratch)
        close(on.answer(steps, d), exact + half, scale + np.abs(half), bound(k, "f16"))
        steps = gemm(device, on.put(a), on.put(b), d, activation="gelu", tuning=tuning, scratch=on.scratch)
        close(on.answer(steps, d), REFERENCE["gelu"](exact), scale, 3 * bound(k, "f16"))


@pytest.mark.parametrize("family", ["subgroup", "tiles"])
def test_bytes_with_a_scale_for_each_column_are_dequantised(device: VulkanDevice, family: str) -> None:
    a, scales = normal(1, 11, 40), np.abs(normal(2, 70)) / 100
    b = np.random.default_rng(3).integers(-128, 128, (40, 70)).astype(np.int8)
    with bench(device) as on:
        c = on.empty((11, 70))
        steps = gemm(device, on.put(a), on.put(b), c, scale=on.put(scales), tuning=FAMILIES[family], scratch=on.scratch)
        exact = a.astype(float) @ (b * scales.astype(float))
        close(on.answer(steps, c), exact, np.abs(a).astype(float) @ np.abs(b * scales.astype(float)), bound(42))


def test_weights_are_packed_once_and_halved_on_the_way(device: VulkanDevice) -> None:
    a, b = normal(1, 10, 48), normal(2, 48, 100)
    shape = packed_shape(device.physical, 48, 100)
    with bench(device) as on:
        held = on.empty(shape, "f16")
        on.run(pack(device, on.put(b), held))
        packed, c = Packed(held, 100, 48), on.empty((10, 100))
        exact = a.astype(float) @ b.astype(np.float16).astype(float)
        close(on.answer(gemm(device, on.put(a), packed, c), c), exact, np.abs(a) @ np.abs(b) + 1.0, bound(48))


@pytest.mark.parametrize("family", ["subgroup", "tiles"])
def test_a_convolution_is_a_product_of_rows_that_overlap(device: VulkanDevice, family: str) -> None:
    """As in Whisper: 3 taps, stride 2, over 16 channels that lie last."""
    x, w = normal(1, 41, 16), normal(2, 48, 24)
    with bench(device) as on:
        whole = on.put(x)
        rows = Tensor(whole.buffer, (20, 48), "f32", 0, (32, 1))
        c = on.empty((20, 24))
        steps = gemm(device, rows, on.put(w), c, tuning=FAMILIES[family], scratch=on.scratch)
        exact = np.stack([x[2 * t : 2 * t + 3].ravel() for t in range(20)]).astype(float) @ w
        close(on.answer(steps, c), exact, 1.0, 1e-4)


@pytest.mark.parametrize("family", ["subgroup", "tiles"])
def test_heads_are_written_where_they_belong(device: VulkanDevice, family: str) -> None:
    """[H, M, K] times [H, K, N] into [M, H * N], for 3 heads."""
    a, b = normal(1, 3, 9, 16), normal(2, 3, 16, 8)
    with bench(device) as on:
        c = on.empty((9, 24))
        heads = Tensor(c.buffer, (1, 3, 9, 8), "f32", 0, (0, 8, 24, 1))
        steps = gemm(device, on.put(a[None]), on.put(b[None]), heads, tuning=FAMILIES[family], scratch=on.scratch)
        close(on.answer(steps, c), np.concatenate(list(a.astype(float) @ b), axis=1), 1.0, 2e-5)


@pytest.mark.parametrize("family", ["subgroup", "tiles"])
def test_infinity_and_nan_reach_their_row_and_no_other(device: VulkanDevice, family: str) -> None:
    a, b = np.abs(normal(1, 12, 20)) + 1, np.abs(normal(2, 20, 33)) + 1
    # The last of a row too: what is computed beyond it, up to whole blocks, must not be infinity times 0.
    a[3, 5], a[7, 19], b[2, 4], a[9, 19], b[19, 32] = np.inf, np.nan, -np.inf, np.inf, np.inf
    with bench(device) as on:
        c = on.empty((12, 33))
        answer = on.answer(gemm(device, on.put(a), on.put(b), c, tuning=FAMILIES[family], scratch=on.scratch), c)
        with np.errstate(invalid="ignore"):
            close(answer, a.astype(float) @ b, 100.0, 1e-5)


@pytest.mark.parametrize("family", ["subgroup", "tiles"])
def test_infinity_does_not_reach_the_matrix_before_its_own(device: VulkanDevice, family: str) -> None:
    a, b = np.abs(normal(1, 2, 4, 12)) + 1, np.abs(normal(2, 2, 12, 20)) + 1
    b[1, 0], a[1, 0] = np.inf, np.inf
    with bench(device) as on:
        c = on.empty((2, 4, 20))
        answer = on.answer(gemm(device, on.put(a), on.put(b), c, tuning=FAMILIES[family], scratch=on.scratch), c)
        with np.errstate(invalid="ignore"):
            close(answer, a.astype(float) @ b, 100.0, 1e-5)


@pytest.mark.parametrize("activation", ["gelu_tanh", "gelu", "silu", "tanh", "sigmoid"])
def test_large_numbers_give_no_false_nan(device: VulkanDevice, activation: str) -> None:
    x = np.array([[-np.inf, -3e38, -1e20, -1e5, -100, -20, 0, 20, 100, 1e5, 1e20, 3e38, np.inf]], np.float32)
    with bench(device) as on:
        c = on.empty((1, 13))
        steps = gemm(
            device, on.put(np.ones((1, 1), np.float32)), on.put(x), c, activation=activation, scratch=on.scratch
        )
        answer = on.answer(steps, c)
        limits = {"tanh": (-1, 1), "sigmoid": (0, 1)}.get(activation, (0, np.inf))
        assert not np.isnan(answer).any()
        assert (answer[0, 0], answer[0, -1]) == limits


def test_rows_of_halves_that_share_words_are_refused(device: VulkanDevice) -> None:
    with bench(device) as on, pytest.raises(Unsupported, match="even numbers"):
        gemm(device, on.put(normal(1, 4, 8)), on.put(normal(2, 8, 5)), on.empty((4, 5), "f16"), scratch=on.scratch)


def test_what_does_not_fit_is_refused_in_words(device: VulkanDevice) -> None:
    with bench(device) as on:
        a, b, c = on.put(normal(1, 4, 8)), on.put(normal(2, 8, 6)), on.empty((4, 6))
        with pytest.raises(OptionError, match=r"expected \[M, K\] \[K, N\]"):
            gemm(device, a, b, on.empty((4, 7)))
        with pytest.raises(OptionError, match="no scratch"):
            gemm(device, a, b, c, tuning=Tuning("subgroup"))
        with pytest.raises(OptionError, match="there are: "):
            gemm(device, a, b, c, activation="swish")
        with pytest.raises(OptionError, match="a bias of f32"):
            gemm(device, a, b, c, bias=on.put(normal(3, 5)))
        with pytest.raises(OptionError, match="in a buffer of"):
            Tensor(c.buffer, (400, 6))


def test_tiles_are_wrong_without_their_barriers(device: VulkanDevice, without_barriers: Callable[[str], bytes]) -> None:
    """The comparison of these tests notices a missing barrier."""
    a, b = normal(1, 64, 256), normal(2, 256, 64)
    with bench(device) as on:
        c = on.empty((64, 64))
        (step,) = gemm(device, on.put(a), on.put(b), c, tuning=FAMILIES["tiles"])
        broken = device.pipeline(
            "gemm_tiles without barriers", step.pipeline.constants, code=without_barriers("gemm_tiles")
        )
        on.run([type(step)(broken, step.buffers, step.groups, step.push)])
        with pytest.raises(AssertionError, match=r"an error of|Arrays are not equal"):
            close(on.get(c), a.astype(float) @ b, np.abs(a).astype(float) @ np.abs(b), bound(256))


def test_the_family_follows_the_device() -> None:
    limits = {"maxComputeSharedMemorySize": 32768}
    assert default_tuning(made_up(limits=limits, sort="cpu", subgroup=8)).family == "subgroup"
    assert default_tuning(made_up(limits=limits, sort="cpu", subgroup=8, subgroup_operations=1)).family == "tiles"
    assert default_tuning(made_up(limits=limits, subgroup=64)).tile == (64, 64, 16)
    assert default_tuning(made_up(limits=limits, subgroup=16)).tile == (32, 32, 16)
    assert default_tuning(with_matrices(limits=limits)).family == "tiles"
    assert default_tuning(with_matrices(limits=limits), "f16").family == "matrix"


def test_addresses_are_used_where_the_driver_gathers_from_them(device: VulkanDevice) -> None:
    limits = {"maxComputeSharedMemorySize": 32768}
    able = dict.fromkeys(("bufferDeviceAddress", "shaderInt64"), True)

    def tuning(**told: Any) -> Tuning:
        lavapipe = {"limits": limits, "sort": "cpu", "subgroup": 8, "driver_id": 13, "driver_info": "Mesa 25.0.7"}
        return default_tuning(made_up(**{**lavapipe, "features": able, **told}))

    assert tuning() == Tuning("subgroup", rows=24, addressed=True)
    assert tuning(subgroup=16) == Tuning("subgroup", rows=16, addressed=True)
    assert tuning(driver_info="Mesa 22.3.6 (LLVM 15.0.6)") == Tuning("subgroup")
    assert tuning(driver_info="a build of my own") == Tuning("subgroup")
    assert tuning(driver_id=3) == Tuning("subgroup")
    assert tuning(subgroup_operations=16) == Tuning("subgroup")
    for feature in able:
        assert tuning(features={**able, feature: False}) == Tuning("subgroup")
    # What it does not take goes another way, though the tuning says so.
    with bench(device) as on:
        for k, name in ((64, "gemm_subgroup_address"), (63, "gemm_subgroup_wide")):
            a, b, c = on.put(normal(1, 4, k)), on.put(normal(2, k, 8)), on.empty((4, 8))
            *_, step = gemm(device, a, b, c, tuning=FAMILIES["addresses"], scratch=on.scratch)
            assert step.pipeline.name == name
        device.physical = replace(device.physical, features={**device.physical.features, "bufferDeviceAddress": False})
        a, b, c = on.put(normal(1, 4, 64)), on.put(normal(2, 64, 8)), on.empty((4, 8))
        *_, step = gemm(device, a, b, c, tuning=FAMILIES["addresses"], scratch=on.scratch)
        assert step.pipeline.name == "gemm_subgroup_wide"


def test_addresses_are_of_the_parts_that_are_bound(device: VulkanDevice) -> None:
    """Rows and panels in the middle of larger buffers, with what is not theirs around them."""
    a, b = normal(1, 16, 64), normal(2, 64, 64)
    with bench(device) as on:
        around = on.put(np.full((4, 16, 64), np.nan, np.float32))
        part = around.buffer.view(2 * a.nbytes, a.nbytes)
        part.write(a)
        packed = Packed(on.empty(packed_shape(device.physical, 64, 64)), 64, 64)
        on.run(pack(device, on.put(b), packed.tensor))
        c = on.empty((16, 64))
        on.run(gemm(device, Tensor(part, a.shape), packed, c, tuning=FAMILIES["addresses"]))
        close(on.get(c), a.astype(float) @ b, np.abs(a).astype(float) @ np.abs(b), bound(64))
        second = Tensor(around.buffer, (8, 64), offset=2 * a.size + 8 * 64)
        on.run(gemm(device, second, packed, Tensor(c.buffer, (8, 64)), tuning=FAMILIES["addresses"]))
        close(on.get(c)[:8], a[8:].astype(float) @ b, np.abs(a[8:]).astype(float) @ np.abs(b), bound(64))


def test_cooperative_matrices_are_used_only_where_they_are_listed(device: VulkanDevice) -> None:
    with bench(device) as on:
        a, c = on.put(normal(1, 16, 32).astype(np.float16)), on.empty((16, 16))
        b = on.put(normal(2, 32, 16).astype(np.float16))
        assert not matrix_fits(device, a, b, c)
        (step,) = gemm(device, a, b, c, tuning=Tuning("matrix"))
        assert step.pipeline.name == "gemm_tiles"

        def fits(a: Tensor, b: Tensor, c: Tensor, **features: bool) -> bool:
            physical = with_matrices()
            listed = SimpleNamespace(physical=replace(physical, features={**physical.features, **features}))
            return matrix_fits(listed, a, b, c)  # type: ignore[arg-type]

        assert fits(a, b, c)
        for feature in read_shader(spirv("gemm_matrix")).features:
            assert not fits(a, b, c, **{feature: False})
        assert not fits(a, b, on.empty((16, 15)))
        assert not fits(a, on.put(normal(2, 32, 16)), c)
        assert not fits(on.put(normal(1, 15, 32).astype(np.float16)), b, on.empty((15, 16)))
        assert not fits(on.put(normal(1, 16, 24).astype(np.float16)), on.put(normal(2, 24, 16).astype(np.float16)), c)
        # The last rows and columns begin where 16 still fit.
        wide = on.put(normal(2, 32, 24).astype(np.float16))
        assert fits(on.put(normal(1, 1500, 32).astype(np.float16)), wide, on.empty((1500, 24), "f16"))


def test_words_are_counted_up() -> None:
    assert [words(3, "f16"), words(5, "i8"), words(2, "f32")] == [2, 2, 2]
