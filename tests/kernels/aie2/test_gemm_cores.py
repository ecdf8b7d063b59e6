"""The matrix products' C++, compiled for this machine, against their references: equal in every bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hetero.tensors import Array
from hetero_kernels import get
from hetero_kernels.aie2.host import build
from hetero_kernels.gemm_i8_i8.aie2 import functions as scaled
from hetero_kernels.gemm_i8_i32.aie2 import functions as exact
from tests.kernels.aie2.blocks import blocked, unblocked


def operands(kind: str, depth: int) -> tuple[Array, Array]:
    if kind == "largest":
        return np.full((64, depth), -128, np.int8), np.full((depth, 64), -128, np.int8)
    rng = np.random.default_rng(depth)
    return rng.integers(-128, 128, (64, depth)).astype(np.int8), rng.integers(-128, 128, (depth, 64)).astype(np.int8)


def steps(a: Array, w: Array) -> list[tuple[Array, Array]]:
    return [(blocked(a[:, k : k + 64]), blocked(w[k : k + 64])) for k in range(0, len(w), 64)]


@pytest.mark.parametrize("depth", [64, 384])
@pytest.mark.parametrize("kind", ["random", "largest"])
def test_a_tile_of_the_product_is_the_references(libraries: Path, compiler_name: str, kind: str, depth: int) -> None:
    a, w = operands(kind, depth)
    begin, block = (build(f, compiler_name, libraries) for f in (exact.BEGIN, exact.BLOCK))
    c = np.full(4096, 0x55555555, np.int32)
    begin(c)
    for part in steps(a, w):
        block(*part, c)
    np.testing.assert_array_equal(unblocked(c, 64, 64), get(f"gemm_i8_i32_{depth}x64")(a, w)["c"])


@pytest.mark.parametrize("kind", ["random", "largest"])
@pytest.mark.parametrize("bias", [0, 1000, 2**31 - 1])
@pytest.mark.parametrize("shift", [-3, 0, 7, 20, 31, 47, 90])
def test_a_tile_of_the_scaled_product_is_the_references(
    libraries: Path, compiler_name: str, kind: str, bias: int, shift: int
) -> None:
    a, w = operands(kind, 128)
    rng = np.random.default_rng([bias, shift % 256])
    biases = rng.integers(-bias - 1, bias, 64, endpoint=True).astype(np.int32)
    multipliers = rng.integers(-32768, 32768, 64).astype(np.int16)
    multipliers[:3] = -32768, 0, 32767
    channels = np.zeros(scaled.CHANNELS, np.int8)
    channels[:256], channels[256:384] = biases.view(np.int8), multipliers.view(np.int8)
    channels[384] = shift
    begin, block, end = (build(f, compiler_name, libraries) for f in (scaled.BEGIN, scaled.BLOCK, scaled.END))
    sums, c = np.empty(4096, np.int32), np.empty(4096, np.int8)
    begin(sums)
    for part in steps(a, w):
        block(*part, sums)
    end(sums, channels, c)
    expected = get("gemm_i8_i8_128x64")(a, w, biases, multipliers, np.array([shift], np.int8))["c"]
    np.testing.assert_array_equal(unblocked(c, 64, 64), expected)
