"""The matrix products' C++, compiled for this machine, against their references: equal in every bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hetero.errors import OptionError
from hetero.tensors import Array
from hetero_kernels import get
from hetero_kernels.aie2 import checks
from hetero_kernels.aie2.host import build
from hetero_kernels.aie2.whole_array import WholeArray
from hetero_kernels.gemm_i8_i8.aie2.design import design as scaled_design
from hetero_kernels.gemm_i8_i32.aie2.design import design
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
    begin, block = (build(f, compiler_name, libraries) for f in design(depth, 64).functions)
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
    about = np.zeros(4096, np.int8)
    about[:256], about[256:384] = biases.view(np.int8), multipliers.view(np.int8)
    about[384] = shift
    channels = blocked(about.reshape(64, 64))
    begin, block, end = (build(f, compiler_name, libraries) for f in scaled_design(128, 64).functions)
    sums, c = np.empty(4096, np.int32), np.empty(4096, np.int8)
    begin(sums)
    for part in steps(a, w):
        block(*part, sums)
    end(sums, channels, c)
    expected = get("gemm_i8_i8_128x64")(a, w, biases, multipliers, np.array([shift], np.int8))["c"]
    np.testing.assert_array_equal(unblocked(c, 64, 64), expected)


@pytest.mark.parametrize(
    ("depth", "channels", "columns", "rows", "strips"),
    [(64, 64, 1, 1, 1), (128, 256, 4, 4, 1), (192, 512, 4, 2, 5), (128, 384, 3, 4, 2), (64, 384, 2, 3, 1)],
)
def test_the_design_fits_and_gives_the_whole_product(
    libraries: Path, depth: int, channels: int, columns: int, rows: int, strips: int
) -> None:
    made = design(depth, channels, columns=columns, rows=rows, strips=strips)
    checks.fits(made)
    outcome = checks.design_runs(made, cache=libraries, seed=depth)
    # Each core has begun one block more, for which nothing comes.
    assert outcome.calls == strips * rows * (channels // 64) * (depth // 64 + 1) + columns * rows


@pytest.mark.parametrize(
    ("depth", "channels", "columns", "rows", "strips"), [(64, 64, 1, 1, 1), (128, 256, 4, 4, 1), (64, 384, 3, 2, 5)]
)
def test_the_design_of_the_scaled_product_fits_and_gives_the_references_bits(
    libraries: Path, depth: int, channels: int, columns: int, rows: int, strips: int
) -> None:
    made = scaled_design(depth, channels, columns=columns, rows=rows, strips=strips)
    checks.fits(made)
    for seed in range(3):
        checks.design_runs(made, cache=libraries, seed=seed)


def test_the_examples_of_the_scaled_product_are_not_all_clipped() -> None:
    made = scaled_design(128, 128)
    answers = [made.kernel.reference(**made.examples(np.random.default_rng(seed)))["c"] for seed in range(10)]
    assert sum(len(np.unique(answer)) > 200 for answer in answers) >= 5


@pytest.mark.parametrize("made", [design(64, 64), scaled_design(64, 64)], ids=["exact", "scaled"])
def test_the_stated_frame_holds_what_the_compiler_reports(libraries: Path, made: WholeArray) -> None:
    for function in made.functions:
        frame = build(function, "g++", libraries).frame
        assert frame is not None
        assert frame <= function.frame


def test_columns_that_cannot_share_the_channels_are_refused() -> None:
    with pytest.raises(OptionError, match="4 columns cannot share 6 blocks") as caught:
        design(384, 384, columns=4)
    assert caught.value.fix == "take 3 columns"
    assert (design(384, 384).columns, design(384, 1536).columns, design(64, 64).columns) == (3, 4, 1)


@pytest.mark.parametrize("sizes", [{"rows": 5}, {"rows": 0}, {"strips": 0}, {"columns": 5}])
def test_an_array_that_is_not_there_is_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(OptionError, match="expected 1"):
        design(64, 64 * 5, **sizes)
