"""The log-mel spectrum's C++, compiled for this machine, against its reference: equal in every bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hetero.tensors import Array
from hetero_kernels import get
from hetero_kernels.aie2 import budgets
from hetero_kernels.aie2.budgets import Need
from hetero_kernels.aie2.function import CoreFunction
from hetero_kernels.aie2.host import HostKernel, build
from hetero_kernels.aie2.simulate import run, stand_in
from hetero_kernels.mel_i16.aie2.design import PARTS, SPECTRUM, WINDOWS, MelArray, functions, slices, tables
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
    made = MelArray(bands, columns, rows, rounds)
    program = made.program(stand_in()).resolve_program()
    budgets.check(program, {f.name: Need(f.frame) for f in functions(bands)})
    calls, roles = {}, {}
    for function in functions(bands):
        built = build(function, "g++", libraries)
        assert built.frame is not None
        assert built.frame <= function.frame

        def on_core(*parts: Array, built: HostKernel = built, function: CoreFunction = function) -> None:
            built(*(p.view(b.dtype) for p, b in zip(parts, function.buffers, strict=True)), fresh=False)

        calls[function.name] = on_core
        roles[function.name] = tuple(buffer.role for buffer in function.buffers)
    rng = np.random.default_rng(rows)
    x = np.rint(rng.normal(0, 10 ** rng.uniform(0, 3.5, (made.frames, 1)), (made.frames, 400))).astype(np.int16)
    y = np.zeros((made.frames, bands), np.int16)
    buffers = [x.reshape(-1).view(np.uint8), slices().reshape(-1).view(np.uint8), y.reshape(-1).view(np.uint8)]
    outcome = run(program, buffers, calls, roles, 500, ["in", "weight", "out"])
    np.testing.assert_array_equal(y, made.kernel.reference(x=x)["y"])
    assert not outcome.one_after_the_other
