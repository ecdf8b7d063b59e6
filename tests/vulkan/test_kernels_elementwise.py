"""Functions of elements against numpy in float64; run at every subgroup size of lavapipe by `test_widths`."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.extra.numpy import mutually_broadcastable_shapes

from hetero.errors import OptionError, Unsupported
from hetero.tensors import Array
from hetero_vulkan.device import VulkanDevice
from hetero_vulkan.ops.elementwise import BINARY, UNARY, binary, unary, where
from hetero_vulkan.ops.tensors import Tensor
from tests.vulkan.arrays import bench, close

ODD = np.array(
    [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.5, -2.5, 1e-30, 1e30, -1e30, 3e38, -3e38, np.inf, -np.inf, np.nan, 88.0, -88.0,
     100.0, -100.0, 1e5, -1e5, 6.0, -6.0, 3.0, -3.0, 7.0]
).astype(np.float32)  # fmt: skip

erf = np.vectorize(math.erf, otypes=[np.float64])


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def times(x: Array, factor: Array) -> Array:
    """The product, and 0 where the factor is."""
    return np.where(factor == 0, 0.0, x * np.where(np.isnan(factor), np.nan, factor))


EXACT = {
    "cast": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: times(x, 0.5 + 0.5 * erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: times(x, 0.5 + 0.5 * np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "sigmoid": sigmoid,
    "tanh": np.tanh,
    "silu": lambda x: times(x, sigmoid(x)),
    "erf": erf,
    "exp": lambda x: np.where(x > 88.7228, np.inf, np.exp(x)),
    "log": np.log,
    "sqrt": np.sqrt,
    "leaky_relu": lambda x: np.where(x >= 0, x, x * np.float32(0.01)),
    "clip": lambda x: np.clip(x, -2, 3),
    "neg": np.negative,
    "abs": np.abs,
    "reciprocal": lambda x: 1 / x,
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.round,
    "sign": np.sign,
    "not": lambda x: (x == 0).astype(float),
    "isnan": lambda x: np.isnan(x).astype(float),
    "hard_sigmoid": lambda x: np.clip(0.2 * x + 0.5, 0, 1),
    "hard_swish": lambda x: times(x, np.clip(x / 6 + 0.5, 0, 1)),
    "softplus": lambda x: np.logaddexp(x, 0),
    "elu": lambda x: np.where(x >= 0, x, np.expm1(np.minimum(x, 0))),
    "affine": lambda x: 2 * x - 1,
}
GIVEN = {"clip": (-2.0, 3.0), "affine": (2.0, -1.0)}


@pytest.mark.parametrize("function", [name for name in UNARY if name not in ("sin", "cos")])
def test_functions_are_numpys_for_every_float(device: VulkanDevice, function: str) -> None:
    x = np.concatenate([ODD, np.linspace(-12, 12, 1000)]).astype(np.float32)
    with bench(device) as on, np.errstate(all="ignore"):
        y = on.empty(x.shape)
        answer = on.answer(unary(device, function, on.put(x), y, GIVEN.get(function)), y)
        expected = EXACT[function](x.astype(np.float64))
        expected = np.where(np.abs(expected) > 3.4028236e38, np.sign(expected) * np.inf, expected)
        # Relative; and for what is a difference of larger numbers, absolute. A driver may flush numbers below 1.2e-38.
        scale = np.maximum(np.abs(expected), 0.1 if function not in ("exp", "sqrt", "cast") else 1e-30)
        close(answer, expected, np.where(np.isfinite(scale), scale, 1.0), 4e-6)


@pytest.mark.parametrize(("function", "exact"), [("sin", np.sin), ("cos", np.cos)])
def test_sines_are_right_near_zero(device: VulkanDevice, function: str, exact: np.ufunc) -> None:
    x = np.linspace(-np.pi, np.pi, 501).astype(np.float32)
    with bench(device) as on:
        y = on.empty(x.shape)
        close(on.answer(unary(device, function, on.put(x), y), y), exact(x.astype(float)), 1.0, 2.0**-11)


@pytest.mark.parametrize("count", [0, 1, 2, 7, 64, 1001])
def test_casts_between_all_kinds_keep_what_they_can(device: VulkanDevice, count: int) -> None:
    arrays: list[Array] = [
        (np.arange(count) % 101 - 50).astype(kind) for kind in (np.float32, np.float16, np.int8, np.int32)
    ]
    with bench(device) as on:
        for source in arrays:
            for expected in arrays:
                x, y = on.put(source), on.put(np.zeros_like(expected))
                np.testing.assert_array_equal(on.answer(unary(device, "cast", x, y), y), expected)


def test_integers_are_exact_and_floats_are_cut_to_them(device: VulkanDevice) -> None:
    large = np.array([2**31 - 1, -(2**31), 16777217, -16777219, 0, 5], np.int32)
    floats = np.array([1.9, -1.9, np.nan, 1e20, -1e20, 0.0], np.float32)
    with bench(device) as on:
        y = on.put(np.zeros(6, np.int32))
        np.testing.assert_array_equal(on.answer(unary(device, "cast", on.put(large), y), y), large)
        answer = on.answer(unary(device, "cast", on.put(floats), y), y)
        np.testing.assert_array_equal(answer, [1, -1, 0, 2**31 - 1, -(2**31), 0])
        for function, exact in {"add": np.add, "sub": np.subtract, "mul": np.multiply, "max": np.maximum}.items():
            with np.errstate(over="ignore"):
                expected = exact(large, large[::-1])
            answer = on.answer(binary(device, function, on.put(large), on.put(large[::-1].copy()), y), y)
            np.testing.assert_array_equal(answer, expected)


def test_small_integers_are_the_lower_bits(device: VulkanDevice) -> None:
    x = np.array([127, 128, -129, 255, 256, -1, 70000], np.int32)
    with bench(device) as on:
        y = on.empty(x.shape, "i32")
        for function, dtype in (("signed_bits", np.int8), ("bits", np.uint8), ("bits", np.uint16)):
            steps = unary(device, function, on.put(x), y, (8.0 * np.dtype(dtype).itemsize, 0.0))
            np.testing.assert_array_equal(on.answer(steps, y), x.astype(dtype))
        with pytest.raises(OptionError, match="'bits' of f32"):
            unary(device, "bits", on.put(x.astype(np.float32)), y)


def test_remainders_of_integers_have_the_sign_of_either(device: VulkanDevice) -> None:
    a, b = (
        x.ravel().copy() for x in np.meshgrid(np.arange(-9, 10, dtype=np.int32), np.array([-4, -1, 1, 3, 7], np.int32))
    )
    with bench(device) as on:
        z = on.empty(a.shape, "i32")
        for function, exact in {"mod": np.mod, "fmod": np.fmod}.items():
            np.testing.assert_array_equal(on.answer(binary(device, function, on.put(a), on.put(b), z), z), exact(a, b))


EXACT_TWO = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "pow": np.power,
    "min": np.minimum,
    "max": np.maximum,
    "equal": np.equal,
    "not_equal": np.not_equal,
    "less": np.less,
    "less_equal": np.less_equal,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "and": np.logical_and,
    "or": np.logical_or,
    "xor": np.logical_xor,
    "mod": np.mod,
    "fmod": np.fmod,
}


@pytest.mark.parametrize("function", BINARY)
def test_pairs_are_numpys_for_every_two_floats(device: VulkanDevice, function: str) -> None:
    a, b = (x.ravel().copy() for x in np.meshgrid(ODD, ODD))
    with bench(device) as on, np.errstate(all="ignore"):
        z = on.empty(a.shape)
        answer = on.answer(binary(device, function, on.put(a), on.put(b), z), z)
        expected = EXACT_TWO[function](a, b).astype(np.float32).astype(np.float64)
        if function == "div":
            # Vulkan lets a driver divide beyond 2^126 by way of a reciprocal that is flushed to 0.
            known = (np.abs(b) < 2**126) | ~np.isfinite(b)
            answer, expected = answer[known], expected[known]
        finite = np.isfinite(expected)
        # A power is as exact as its logarithm: 20 powers of 2 lose 20 times as much.
        bound = 3e-5 if function == "pow" else 4e-7
        close(answer, expected, np.maximum(np.where(finite, np.abs(expected), 1.0), 1e-30), bound)


@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shapes=mutually_broadcastable_shapes(num_shapes=3, max_dims=5, max_side=5, min_side=0))
def test_shapes_are_broadcast_as_numpy_does(device: VulkanDevice, shapes: object) -> None:
    given_, result = shapes.input_shapes, shapes.result_shape  # type: ignore[attr-defined]
    random = np.random.default_rng(0)
    a, b = (random.normal(size=shape).astype(np.float32) for shape in given_[:2])
    c = random.integers(0, 2, given_[2]).astype(np.int32)
    with bench(device) as on:
        z = on.empty(np.broadcast_shapes(a.shape, b.shape))
        on.run(binary(device, "sub", on.put(a), on.put(b), z))
        np.testing.assert_array_equal(on.get(z), a - b)
        z = on.empty(result)
        on.run(where(device, on.put(c), on.put(a), on.put(b), z))
        np.testing.assert_array_equal(on.get(z), np.where(c, a, b))


def test_halves_are_rounded_once(device: VulkanDevice) -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 33)).astype(np.float16)
    with bench(device) as on:
        z = on.empty((33,), "f16")
        on.run(binary(device, "add", on.put(a), on.put(b), z))
        np.testing.assert_array_equal(on.get(z), (a.astype(np.float32) + b).astype(np.float16))


def test_a_turned_operand_is_read_by_its_strides(device: VulkanDevice) -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 6, 5, 4)).astype(np.float32)
    with bench(device) as on:
        z = on.empty((4, 5, 6))
        on.run(binary(device, "mul", on.put(a).transposed(2, 1, 0), on.put(b).transposed(2, 1, 0), z))
        np.testing.assert_array_equal(on.get(z), (a * b).transpose(2, 1, 0))


def test_what_does_not_fit_is_refused_in_words(device: VulkanDevice) -> None:
    with bench(device) as on:
        x = on.put(np.zeros((4, 6), np.float32))
        with pytest.raises(OptionError, match="there are: cast"):
            unary(device, "exponent", x, x)
        with pytest.raises(OptionError, match="the same shape"):
            unary(device, "exp", x, on.empty((6, 4)))
        with pytest.raises(Unsupported, match="copy it first"):
            unary(device, "exp", x.transposed(1, 0), on.empty((6, 4)))
        with pytest.raises(OptionError, match="numpy would broadcast"):
            binary(device, "add", x, on.empty((5,)), x)
        half = Tensor(on.empty((8,), "f16").buffer, (4,), "f16", 1)
        with pytest.raises(Unsupported, match="a multiple of 2"):
            unary(device, "exp", on.empty((4,)), half)
