"""The `kernel.toml` of every design is one that the XRT backend reads, and says what the design does."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from hetero.testing.xrt import stand_in
from hetero_kernels.aie2 import catalogue
from hetero_kernels.aie2.geometry import Geometry, Layout
from hetero_kernels.aie2.manifest import manifest
from hetero_kernels.aie2.packing import pack
from hetero_xrt.manifest import Manifest
from hetero_xrt.reading import read_manifest

DESIGNS = catalogue.designs()
GEOMETRIES = [(columns, rows, tiles) for columns, rows, tiles in ((1, 1, 1), (2, 4, 3), (4, 4, 2))]


def written(folder: Path, name: str, geometry: Geometry) -> tuple[Manifest, Manifest]:
    """Our manifest beside a stand-in xclbin, and the stand-in's own."""
    design = catalogue.design(name)
    first = design.inputs[0].shape[0] if design.joined else None
    theirs = stand_in.write_stand_in(
        folder / "theirs",
        name,
        geometry.columns,
        geometry.tiles,
        geometry.layout,
        rows=geometry.rows,
        tile_rows=first,
    )
    ours = folder / "ours"
    shutil.copytree(theirs.parent, ours)
    (ours / "kernel.toml").write_text(manifest(design.at(geometry), f"{name}.xclbin", f"{name}.insts.bin"))
    return read_manifest(ours), read_manifest(theirs)


@pytest.mark.parametrize("layout", ["packed", "separate"])
@pytest.mark.parametrize(("columns", "rows", "tiles"), GEOMETRIES)
@pytest.mark.parametrize("name", DESIGNS)
def test_the_backend_reads_it(name: str, columns: int, rows: int, tiles: int, layout: Layout, tmp_path: Path) -> None:
    geometry = Geometry(columns, rows, tiles, layout)
    ours, theirs = written(tmp_path, name, geometry)
    assert ours.logical == name
    assert (ours.columns, ours.rows, ours.tiles_per_launch) == (columns, rows, columns * rows * tiles)
    assert ours.arguments == theirs.arguments
    assert ours.batch == theirs.batch
    design = catalogue.design(name).at(geometry)
    assert [ours.size_of(argument) for argument in ours.arguments] == [a.size for a in design.arguments]


def test_separate_buffers_are_four_in_and_then_four_out(tmp_path: Path) -> None:
    ours, _ = written(tmp_path, "attention_i8_64x64", Geometry(4, 1, 1, "separate"))
    assert [(a.index, a.name) for a in ours.arguments] == [
        (3, "in0"),
        (4, "in1"),
        (5, "in2"),
        (6, "in3"),
        (7, "out0"),
        (8, "out1"),
        (9, "out2"),
        (10, "out3"),
    ]


@pytest.mark.parametrize("layout", ["packed", "separate"])
@pytest.mark.parametrize("name", DESIGNS)
def test_a_buffer_is_column_by_column_and_tile_by_tile(name: str, layout: Layout) -> None:
    geometry = Geometry(2, 2, 2, layout)
    design = catalogue.design(name).at(geometry)
    inputs = design.examples(np.random.default_rng(0))
    buffers = pack(design, inputs)
    assert [buffer.nbytes for buffer in buffers] == [argument.size for argument in design.arguments]
    first = b"".join(
        (inputs[tensor.name] if tensor.shared else inputs[tensor.name].reshape(geometry.tiles, -1)[5]).tobytes()
        for tensor in design.inputs
    )
    column = buffers[0].reshape(2, -1)[1] if layout == "packed" else buffers[1]
    assert column.reshape(4, -1)[1].tobytes() == first
