"""Every kernel with a design: its C++ gives the reference's bits with each compiler, and its design runs and fits."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from hetero.errors import CompileError, ProgramNotFound
from hetero_kernels import names
from hetero_kernels.aie2 import catalogue, checks, host
from hetero_kernels.aie2.geometry import Geometry, Layout
from hetero_kernels.attention_i8_64x64.reference import EXP
from hetero_kernels.gelu_i8.reference import TABLE

DESIGNS = catalogue.designs()
KERNELS = Path(checks.__file__).parents[1]


def test_the_first_four_kernels_have_a_design() -> None:
    assert {"attention_i8_64x64", "gelu_i8", "layernorm_i8_256", "matmul_i8_64x64"} <= set(DESIGNS) <= set(names())
    with pytest.raises(ProgramNotFound, match="no kernel 'nothing'"):
        catalogue.design("nothing")


@pytest.mark.parametrize("name", DESIGNS)
def test_the_source_gives_the_references_bits(name: str, compiler_name: str, libraries: Path) -> None:
    compared = checks.equals_reference(catalogue.design(name), compiler_name, 200, libraries)
    assert compared >= 200 * 4096


@pytest.mark.parametrize("seed", [1, 2])
def test_attention_gives_the_references_bits_on_more_tiles(seed: int, compiler_name: str, libraries: Path) -> None:
    design = catalogue.design("attention_i8_64x64")
    assert checks.equals_reference(design, compiler_name, 250, libraries, seed) == 250 * 4096


def test_gelu_is_right_for_every_value_there_is(compiler_name: str, libraries: Path) -> None:
    kernel = host.build(catalogue.design("gelu_i8").function, compiler_name, libraries)
    x = np.tile(np.arange(-128, 128, dtype=np.int8), 16)
    y = np.zeros_like(x)
    kernel(x, y)
    assert y.tolist() == TABLE[x.view(np.uint8)].tolist()


def test_layernorm_is_right_where_roots_and_quotients_step(libraries: Path) -> None:
    """Rows of every variance: from all alike to half smallest and half largest."""
    design = catalogue.design("layernorm_i8_256")
    kernel = host.build(design.function, "g++", libraries)
    rows = np.zeros((256, 256), np.int8)
    for height in range(256):
        rows[height, ::2] = height // 2
        rows[height, 1::2] = -((height + 1) // 2)
    gamma = np.arange(-128, 128, dtype=np.int8)
    beta = gamma[::-1].copy()
    wanted = design.kernel.reference(x=rows, gamma=gamma, beta=beta)["y"]
    for start in range(0, 256, 16):
        y = np.zeros((16, 256), np.int8)
        kernel(np.concatenate([rows[start : start + 16].reshape(-1), gamma, beta]), y.reshape(-1))
        assert (y == wanted[start : start + 16]).all()


@pytest.mark.parametrize("layout", ["packed", "separate"])
@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("columns", [1, 2, 4])
def test_attention_runs_on_every_part_of_the_array(columns: int, rows: int, layout: Layout, libraries: Path) -> None:
    design = catalogue.design("attention_i8_64x64")
    for tiles_per_core in (1, 5):
        geometry = Geometry(columns, rows, tiles_per_core, layout)
        checks.fits(design.at(geometry))
        outcome = checks.design_runs(design.at(geometry), cache=libraries, seed=tiles_per_core)
        assert outcome.calls == columns * rows * tiles_per_core


@pytest.mark.parametrize("layout", ["packed", "separate"])
@pytest.mark.parametrize("name", DESIGNS)
def test_every_design_fits_and_runs(name: str, layout: Layout, libraries: Path) -> None:
    design = catalogue.design(name)
    for geometry in (Geometry(4, 4, 4, layout), Geometry(3, 2, 1, layout)):
        checks.fits(design.at(geometry))
        assert checks.design_runs(design.at(geometry), cache=libraries).calls == geometry.tiles


@pytest.mark.parametrize("name", DESIGNS)
def test_the_default_stack_holds_the_frame(name: str, libraries: Path) -> None:
    design = catalogue.design(name)
    frame = host.build(design.function, "g++", libraries).frame
    assert frame is not None
    assert frame <= design.frame <= design.stack


@pytest.mark.parametrize("name", DESIGNS)
def test_a_kernel_is_one_text_for_core_and_host(name: str) -> None:
    text = catalogue.design(name).source.read_text(encoding="utf-8")
    assert not re.search(r"^\s*#\s*(if|ifdef|ifndef|pragma)\b", text, re.MULTILINE)
    assert "aie_api/aie.hpp" in text


@pytest.mark.parametrize("name", DESIGNS)
def test_the_design_takes_what_the_spec_says(name: str) -> None:
    design = catalogue.design(name)
    for specs, tensors in ((design.kernel.inputs, design.inputs), (design.kernel.outputs, design.outputs)):
        assert [spec.name for spec in specs] == [tensor.name for tensor in tensors]
        for spec, tensor in zip(specs, tensors, strict=True):
            assert spec.dtype == tensor.dtype
            inner = tensor.shape if tensor.shared else tensor.shape[1:] if design.joined else tensor.shape
            assert tuple(spec.shape or ())[0 if tensor.shared else 1 :] == inner


def test_attentions_levels_are_those_of_the_references_table() -> None:
    text = catalogue.design("attention_i8_64x64").source.read_text()
    high, low = (
        [int(number) for number in re.search(rf"{part}\[LEVELS\] = {{(.*?)}}", text).group(1).split(",")]  # type: ignore[union-attr]
        for part in ("EXP_HIGH", "EXP_LOW")
    )
    table = (EXP >> 10).tolist()
    assert [8 * a + b for a, b in zip(high, low, strict=True)] == table[:7]
    assert set(table[7:]) == {0}


def test_a_frame_that_is_stated_too_small_is_refused(libraries: Path) -> None:
    import dataclasses

    design = dataclasses.replace(catalogue.design("attention_i8_64x64"), frame=4096)
    with pytest.raises(CompileError, match=r"reports a frame of [\d,]+ bytes, and the design states 4,096") as refused:
        checks.equals_reference(design, "g++", 1, libraries)
    assert "design.py" in refused.value.fix


@pytest.mark.parametrize("name", DESIGNS)
def test_everything_that_a_kernel_needs_lies_in_the_package(name: str) -> None:
    assert catalogue.design(name).source.resolve().is_relative_to(KERNELS)
