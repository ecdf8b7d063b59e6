"""How close the integer kernels come to the float32 operations, and that docs/kernels.md says the same.

`pytest tests/kernels/test_accuracy.py --log-cli-level=INFO` shows what was measured.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from hetero.tensors import Array
from hetero_kernels import get
from hetero_kernels.gemm_i8_i8.spec import fixed_point
from hetero_kernels.softmax import temperatures

DOCS = Path(__file__).parents[2] / "docs" / "kernels.md"
LIMITS = {"correlation": 0.002, "gain": 0.01, "bias": 0.03}

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Accuracy:
    """The kernel against its model, whose output is clipped to the kernel's dtype. Differences are in output steps."""

    correlation: float
    gain: float  # slope of the kernel's output over the model's: 1 is right
    bias: float  # mean difference
    mean: float  # mean absolute difference
    largest: float  # largest absolute difference

    def __str__(self) -> str:
        return f"{self.correlation:.3f} | {self.gain:.2f} | {self.bias:+.2f} | {self.mean:.2f} | {self.largest:.1f}"


def measure(name: str, given: dict[str, Array]) -> Accuracy:
    kernel = get(name)
    (integer,) = kernel.reference(**given).values()
    (exact,) = kernel.model(**given).values()
    got = integer.astype(np.float64).ravel()
    limits = np.iinfo(integer.dtype)
    wanted = np.clip(exact.astype(np.float64).ravel(), limits.min, limits.max)
    off = got - wanted
    gain = float(np.polyfit(wanted, got, 1)[0])
    largest = float(np.abs(off).max())
    return Accuracy(float(np.corrcoef(got, wanted)[0, 1]), gain, float(off.mean()), float(np.abs(off).mean()), largest)


def gaussian(sigma: float, *shape: int, seed: int) -> Array:
    return np.clip(np.rint(np.random.default_rng(seed).normal(0, sigma, shape)), -128, 127).astype(np.int8)


def attention(sigma: float) -> dict[str, Array]:
    q, k = gaussian(sigma, 2, 100, 64, 64, seed=1)
    return {"q": q, "k": k, "v": gaussian(32, 100, 64, 64, seed=2)}


def uniform_attention() -> dict[str, Array]:
    q, k, v = np.random.default_rng(3).integers(-128, 128, (3, 100, 64, 64)).astype(np.int8)
    return {"q": q, "k": k, "v": v}


def with_temperature(sigma: float) -> dict[str, Array]:
    """The same with the temperature that `attention_i8_64x64` always has."""
    return {**attention(sigma), "temperature": np.full((100, 1), temperatures(np.array(1 / 256)), np.int32)}


def all_keys(sigma: float) -> dict[str, Array]:
    q, k = gaussian(sigma, 2, 4, 512, 64, seed=6)
    return {
        "q": q,
        "k": k,
        "v": gaussian(32, 4, 512, 64, seed=7),
        "temperature": np.full((4, 512), temperatures(np.array(1 / 256)), np.int32),
        "keys": np.full((4, 1), 500, np.int32),
    }


def scaled_product() -> dict[str, Array]:
    multiplier, shift = fixed_point(np.linspace(0.002, 0.02, 384))
    return {
        "a": gaussian(32, 200, 384, seed=8),
        "w": gaussian(10, 384, 384, seed=9),
        "bias": np.arange(-192, 192, dtype=np.int32) * 10,
        "multiplier": multiplier,
        "shift": shift,
    }


def wide_layernorm(sigma: float) -> dict[str, Array]:
    x = np.random.default_rng(10).normal(sigma, sigma, (1000, 384))
    return {
        "x": np.clip(np.rint(x), -32768, 32767).astype(np.int16),
        "gamma": np.full(384, 8000, np.int16),
        "beta": np.zeros(384, np.int16),
    }


def mel_of_noise() -> dict[str, Array]:
    return {"x": np.rint(np.random.default_rng(11).normal(0, 1000, (500, 400))).astype(np.int16)}


def matmul(sigma: float) -> dict[str, Array]:
    a, b = gaussian(sigma, 2, 100, 64, 64, seed=4)
    return {"a": a, "b": b}


def layernorm(sigma: float) -> dict[str, Array]:
    return {
        "x": gaussian(sigma, 1000, 256, seed=5),
        "gamma": np.full(256, 32, np.int8),
        "beta": np.zeros(256, np.int8),
    }


CASES: dict[tuple[str, str], Callable[[], dict[str, Array]]] = {
    ("attention_i8_64x64", "q, k gaussian, sd 8"): lambda: attention(8),
    ("attention_i8_64x64", "q, k gaussian, sd 16"): lambda: attention(16),
    ("attention_i8_64x64", "q, k gaussian, sd 20"): lambda: attention(20),
    ("attention_i8_64x64", "q, k gaussian, sd 32"): lambda: attention(32),
    ("attention_i8_64x64", "q, k gaussian, sd 64"): lambda: attention(64),
    ("attention_i8_64x64", "q, k, v uniform"): uniform_attention,
    ("attention_i8_64x64_v2", "q, k gaussian, sd 8"): lambda: with_temperature(8),
    ("attention_i8_64x64_v2", "q, k gaussian, sd 20"): lambda: with_temperature(20),
    ("attention_i8_64x64_v2", "q, k gaussian, sd 32"): lambda: with_temperature(32),
    ("attention_i8_64x64_v2", "q, k gaussian, sd 64"): lambda: with_temperature(64),
    ("attention_i8_exact_512", "q, k gaussian, sd 8"): lambda: all_keys(8),
    ("attention_i8_exact_512", "q, k gaussian, sd 32"): lambda: all_keys(32),
    ("attention_i8_exact_512", "q, k gaussian, sd 64"): lambda: all_keys(64),
    ("gemm_i8_i8_384x384", "a gaussian, sd 32; w, sd 10"): scaled_product,
    ("layernorm_i8_384", "x gaussian, sd 4"): lambda: wide_layernorm(4),
    ("layernorm_i8_384", "x gaussian, sd 1000"): lambda: wide_layernorm(1000),
    ("mel_i16_80", "noise, sd 1000"): mel_of_noise,
    ("mel_i16_128", "noise, sd 1000"): mel_of_noise,
    ("matmul_i8_64x64", "a, b gaussian, sd 8"): lambda: matmul(8),
    ("matmul_i8_64x64", "a, b gaussian, sd 16"): lambda: matmul(16),
    ("layernorm_i8_256", "x gaussian, sd 1"): lambda: layernorm(1),
    ("layernorm_i8_256", "x gaussian, sd 4"): lambda: layernorm(4),
    ("layernorm_i8_256", "x gaussian, sd 16"): lambda: layernorm(16),
    ("layernorm_i8_256", "x gaussian, sd 32"): lambda: layernorm(32),
    ("gelu_i8", "all 256 values"): lambda: {"x": np.arange(-128, 128).astype(np.int8)},
}


def documented(name: str, inputs: str) -> Accuracy:
    for line in DOCS.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("| ").split("|")]
        if cells[:2] == [f"`{name}`", inputs]:
            return Accuracy(*map(float, cells[2:]))
    raise AssertionError(f"{DOCS.name} has no row for {name}, {inputs}")


@pytest.mark.parametrize(("name", "inputs"), CASES, ids=[" ".join(case) for case in CASES])
def test_the_docs_give_the_accuracy_that_is_measured(name: str, inputs: str) -> None:
    measured = measure(name, CASES[name, inputs]())
    _log.info("| `%s` | %s | %s |", name, inputs, measured)
    told = documented(name, inputs)
    for field, limit in LIMITS.items():
        assert getattr(measured, field) == pytest.approx(getattr(told, field), abs=limit), field
    assert measured.mean == pytest.approx(told.mean, rel=0.05)
    # The tails of random data differ most between versions of numpy.
    assert measured.largest == pytest.approx(told.largest, rel=0.25)


@pytest.mark.parametrize("sigma", [20, 24, 32, 48, 64])
def test_attention_correlates_with_float32_attention_where_the_docs_claim_it(sigma: float) -> None:
    assert measure("attention_i8_64x64", attention(sigma)).correlation >= 0.95


def test_gelu_is_the_nearest_integer() -> None:
    assert measure("gelu_i8", CASES["gelu_i8", "all 256 values"]()).largest <= 0.5


@pytest.mark.parametrize("sigma", [4, 8, 16, 32, 64])
@pytest.mark.parametrize(
    ("name", "drawn", "least"),
    [("attention_i8_64x64_v2", with_temperature, 0.99), ("attention_i8_exact_512", all_keys, 0.99999)],
)
def test_attention_with_weights_of_15_bits_correlates_at_every_spread(
    name: str, drawn: Callable[[float], dict[str, Array]], least: float, sigma: float
) -> None:
    assert measure(name, drawn(sigma)).correlation >= least
