"""The log-mel spectrum's C++, compiled for this machine, against its reference: equal in every bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hetero.tensors import Array
from hetero_kernels import get
from hetero_kernels.aie2 import checks
from hetero_kernels.aie2.geometry import Geometry
from hetero_kernels.aie2.host import build
from hetero_kernels.mel_i16.aie2.design import PARTS, SLICES, SPECTRUM, WINDOWS, design, functions, slices, tables
from tests.kernels.test_mel import sounds


def spectra(libraries: Path, compiler_name: str, bands: int, windows: Array) -> Array:
    """Eight windows, as a core does them."""
    begin, each, end = (build(function, compiler_name, libraries) for function in functions(bands))
    parts, ups = np.empty(PARTS, np.int16), np.empty(WINDOWS, np.int32)
    begin(np.ascontiguousarray(windows).reshape(-1), parts, ups)
    spectrum, number = np.full(SPECTRUM, 0x55555555, np.int32), np.zeros(1, np.int32)
    for one in slices():
        each(one, parts, spectrum, number)
    y = np.empty(WINDOWS * bands, np.int16)
    end(spectrum, ups, number, tables(bands), y)
    assert number[0] == 0
    return y.reshape(WINDOWS, bands)


@pytest.mark.parametrize("bands", [80, 128])
def test_the_spectrum_is_the_references(libraries: Path, compiler_name: str, bands: int) -> None:
    rng = np.random.default_rng(bands)
    noises = rng.normal(0, 10 ** rng.uniform(-1, 5, (49, 1)), (49, 400))
    x = np.concatenate([np.stack(list(sounds().values())), np.clip(np.rint(noises), -32768, 32767).astype(np.int16)])
    x = x[: len(x) // WINDOWS * WINDOWS]
    got = np.concatenate([spectra(libraries, compiler_name, bands, x[i : i + 8]) for i in range(0, len(x), WINDOWS)])
    np.testing.assert_array_equal(got, get(f"mel_i16_{bands}").reference(x=x)["y"])


@pytest.mark.parametrize(("bands", "columns", "rows", "rounds"), [(80, 1, 1, 1), (128, 4, 4, 1), (80, 2, 3, 3)])
def test_the_design_fits_and_gives_the_references_bits(
    libraries: Path, bands: int, columns: int, rows: int, rounds: int
) -> None:
    made = design(bands).at(Geometry(columns, rows, rounds))
    checks.fits(made)
    assert checks.design_runs(made, cache=libraries, seed=rows).calls > made.tiles * SLICES


@pytest.mark.parametrize("bands", [80, 128])
def test_the_source_gives_the_references_bits(libraries: Path, compiler_name: str, bands: int) -> None:
    assert checks.equals_reference(design(bands), compiler_name, 40, libraries) == 40 * 8 * bands
