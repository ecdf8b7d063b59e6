"""Layer normalisation of int16 rows for AIE2 cores: C++ and design, for several widths of its family."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hetero_kernels.aie2 import checks, host
from hetero_kernels.aie2.column_map import Geometry
from hetero_kernels.layernorm_i8.aie2.design import design

WIDTHS = [64, 384, 448, 512, 1280, 4096]


@pytest.mark.parametrize("width", WIDTHS)
def test_the_source_gives_the_references_bits(width: int, compiler_name: str, libraries: Path) -> None:
    made = design(width)
    assert checks.equals_reference(made, compiler_name, 60, libraries) == 60 * made.out_size


@pytest.mark.parametrize("width", [64, 384])
def test_rows_of_two_values_are_right(width: int, libraries: Path) -> None:
    """The largest sums there are, and rows that hardly vary."""
    made = design(width)
    kernel = host.build(made.function, "g++", libraries)
    rows = made.inputs[0].shape[0]
    gamma, beta = np.full(width, 32767, np.int16), np.full(width, -32768, np.int16)
    for low in (-32768, -32767, -1, 0, 32766):
        for high in (0, 1, 32767):
            x = np.full((rows, width), low, np.int16)
            for i, row in enumerate(x):
                row[: 1 + i * (width - 2) // rows] = high
            y = np.zeros((rows, width), np.int8)
            kernel(np.concatenate([x.reshape(-1), gamma, beta]).view(np.int8), y.reshape(-1))
            np.testing.assert_array_equal(y, made.kernel.reference(x=x, gamma=gamma, beta=beta)["y"])


@pytest.mark.parametrize("width", WIDTHS)
def test_the_design_fits_and_runs(width: int, libraries: Path) -> None:
    for geometry in (Geometry(4, 4, 2), Geometry(2, 1, 1, "separate")):
        checks.fits(design(width).at(geometry))
        assert checks.design_runs(design(width).at(geometry), cache=libraries).calls == geometry.tiles
