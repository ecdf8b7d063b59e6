"""From inputs to outputs by way of `kernel.toml`: what the backend puts into buffers, the design finds there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hetero.errors import BundleError, OptionError, ProgramInvalid
from hetero.kernel_manifest import TileTensor
from hetero.pieces import Dealt
from hetero.tensors import Array
from hetero.testing.xrt import stand_in
from hetero.testing.xrt.design import Design, DesignArgument
from hetero_kernels.aie2 import catalogue, checks
from hetero_kernels.aie2.array_design import ArrayDesign
from hetero_kernels.aie2.geometry import Geometry
from hetero_kernels.aie2.manifest import constants, manifest
from hetero_kernels.aie2.packing import pack
from hetero_xrt import simulated
from hetero_xrt.layout import Tiles
from hetero_xrt.manifest import Manifest
from hetero_xrt.reading import read_manifest
from tests.xrt import npu

# The usual geometry of each, and others: fewer columns and rows, several rounds, buffers of their own for columns.
CASES: list[tuple[str, Geometry | None]] = [
    *((name, None) for name in catalogue.designs()),
    ("gelu_i8_scaled", Geometry(2, 3, 2, "separate")),
    ("attention_i8_64x64_v2", Geometry(3, 2, 1, "separate")),
    ("gemm_i8_i32_384x384", None),
    ("gemm_i8_i32_128x384", Geometry(3, 4, 1)),
    ("gemm_i8_i32_64x128", Geometry(2, 1, 3)),
    ("gemm_i8_i8_128x1536", None),
    ("gemm_i8_i8_384x384", Geometry(3, 2, 1)),
    ("gemm_i8_i8_64x64", Geometry(1, 3, 5)),
    ("attention_i8_exact_512", None),
    ("attention_i8_exact_192", Geometry(2, 3, 2)),
    ("attention_i8_exact_64", Geometry(4, 1, 1)),
    ("layernorm_i8_384", None),
    ("layernorm_i8_4096", Geometry(2, 1, 2, "separate")),
    ("mel_i16_80", None),
    ("mel_i16_128", Geometry(2, 3, 2)),
]


def placed(name: str, geometry: Geometry | None) -> ArrayDesign:
    design = catalogue.design(name)
    return design if geometry is None else design.at(geometry)


def written(folder: Path, design: ArrayDesign) -> Manifest:
    """The generated manifest beside an xclbin of that many columns and what else it names."""
    folder.mkdir(parents=True, exist_ok=True)
    made = Design(design.name, (), design.geometry.columns, design.tiles)
    (folder / "a.xclbin").write_bytes(stand_in.xclbin_of(made))
    (folder / "a.insts.bin").write_bytes(stand_in.instructions_of(made))
    (folder / "kernel.toml").write_text(manifest(design, "a.xclbin", "a.insts.bin"))
    for name, content in constants(design).items():
        (folder / name).write_bytes(content)
    return read_manifest(folder)


def filled(read: Manifest, tiles: Tiles, inputs: dict[str, Array], entries: int) -> list[Array]:
    """The buffers as the backend fills them."""
    buffers = []
    for argument in read.arguments:
        buffer = np.full(read.size_of(argument), 0x5A, np.uint8)
        if argument.file is not None:
            buffer[:] = np.fromfile(argument.file, np.uint8)
        elif argument.role != "out":
            tiles.fill(tiles.pieces(argument, buffer.data), inputs, 0, entries)
        buffers.append(buffer)
    return buffers


def launched(folder: Path, design: ArrayDesign, entries: int | None, libraries: Path, seed: int = 0) -> None:
    read = written(folder, design)
    tiles = Tiles(read, design.kernel.program())
    inputs = design.examples(np.random.default_rng(seed))
    if entries is not None:
        whole = tiles.per_launch
        weights = {tensor.name for argument in read.arguments for tensor in argument.tensors if tensor.shared}
        weights |= set(tiles.weights(inputs))
        assert entries < whole
        inputs = {name: array if name in weights else array[:entries] for name, array in inputs.items()}
    count = tiles.count(inputs)
    buffers = filled(read, tiles, inputs, count)
    checks.launched(design, buffers, cache=libraries)
    outputs = tiles.empty_outputs(count)
    for argument, buffer in zip(read.arguments, buffers, strict=True):
        if argument.role == "out":
            tiles.take(tiles.pieces(argument, buffer.data), outputs, 0, count)
    assert checks.same(design, outputs, inputs) > 0


@pytest.mark.parametrize(("name", "geometry"), CASES, ids=str)
def test_what_the_backend_packs_the_design_computes_bit_for_bit(
    name: str, geometry: Geometry | None, tmp_path: Path, libraries: Path
) -> None:
    launched(tmp_path, placed(name, geometry), None, libraries)


@pytest.mark.parametrize(
    ("name", "entries"),
    [
        ("gemm_i8_i32_128x384", 700),
        ("gemm_i8_i8_128x256", 1),
        ("attention_i8_exact_256", 3),
        ("layernorm_i8_384", 100),
        ("mel_i16_80", 77),
    ],
)
def test_a_launch_that_is_not_full_is_right_as_far_as_it_goes(
    name: str, entries: int, tmp_path: Path, libraries: Path
) -> None:
    launched(tmp_path, placed(name, None), entries, libraries, seed=1)


@pytest.mark.parametrize(("name", "geometry"), CASES, ids=str)
def test_the_backend_and_the_checks_pack_the_same_bytes(name: str, geometry: Geometry | None, tmp_path: Path) -> None:
    design = placed(name, geometry)
    read = written(tmp_path, design)
    inputs = design.examples(np.random.default_rng(3))
    tiles = Tiles(read, design.kernel.program())
    theirs = filled(read, tiles, inputs, tiles.count(inputs))
    for argument, mine, other in zip(design.arguments, pack(design, inputs), theirs, strict=True):
        if argument.role != "out":
            pieces = [
                b.reshape(-1, argument.piece_size)[:, : argument.piece_size - argument.padding] for b in (mine, other)
            ]
            np.testing.assert_array_equal(*pieces)


@pytest.mark.parametrize(
    "name", ["attention_i8_64x64", "gemm_i8_i32_384x384", "gemm_i8_i8_384x1536", "attention_i8_exact_1536"]
)
def test_the_simulators_kernel_has_the_buffers_of_the_real_one(name: str, tmp_path: Path) -> None:
    design = catalogue.design(name)
    if design.worker == "core":
        design = design.at(Geometry(4, 1, 1))
    ours = written(tmp_path / "ours", design)
    theirs = read_manifest(stand_in.write_usual(tmp_path / "theirs", design.kernel.program(), design.geometry.columns))
    assert ours.arguments == theirs.arguments
    assert (ours.batch, ours.worker, ours.columns) == (theirs.batch, theirs.worker, theirs.columns)
    assert ours.tiles_per_launch == theirs.tiles_per_launch
    assert [ours.size_of(a) for a in ours.arguments] == [theirs.size_of(a) for a in theirs.arguments]


@pytest.mark.parametrize("name", ["gemm_i8_i32_64x128", "attention_i8_exact_64", "mel_i16_80"])
def test_designs_with_buffers_for_all_columns_refuse_one_for_each(name: str) -> None:
    with pytest.raises(OptionError, match="has buffers for all columns together"):
        catalogue.design(name).at(Geometry(1, 1, 1, "separate"))


@pytest.mark.parametrize(
    ("name", "count"),
    [("mel_i16_80", 200), ("gemm_i8_i8_128x384", 1000), ("gemm_i8_i32_64x192", 70), ("attention_i8_exact_192", 5)],
)
def test_a_real_kernels_manifest_runs_on_the_simulated_npu(
    name: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the flow, residency of weights and all: pieces are dealt, a constant is there before the first launch."""
    design = catalogue.design(name)
    if design.joined:
        # So that the launch has a number of tiles that the columns could not share.
        design = design.at(Geometry(design.geometry.columns, design.geometry.rows, 1))
    written(tmp_path / "real", design)
    xclbin = tmp_path / "real" / "a.xclbin"
    xclbin.write_bytes(xclbin.read_bytes().replace(b'"kernel":', b'"theirs":'))
    real = read_manifest(tmp_path / "real")
    found = simulated.stand_in(design.kernel.program(), real, 4, tmp_path / "cache")
    assert found.path != real.path
    assert [(a.role, a.pieces, a.padding, a.tensors) for a in found.arguments] == [
        (a.role, a.pieces, a.padding, a.tensors) for a in real.arguments
    ]
    monkeypatch.setattr(npu, "REFERENCES", {name: design.kernel.reference})
    laptop = npu.Laptop(tmp_path / "laptop")
    executable = laptop.load(found)
    for seed in range(2):
        npu.check(executable, count, name, seed)
    laptop.check_clean()


def test_the_simulated_npu_takes_no_launch_without_the_designs_constant() -> None:
    design = catalogue.design("mel_i16_80")
    arguments = tuple(
        DesignArgument(
            3 + place,
            a.name,
            a.role,
            tuple(TileTensor(t.name, t.dtype, t.shape) for t in a.tensors),
            content="" if a.content is None else a.content.tobytes().hex(),
        )
        for place, a in enumerate(design.arguments)
    )
    made = Design(design.name, arguments, 4, design.tiles, 4, joined=True)
    contents = {3: np.zeros(made.size_of(arguments[0]), np.uint8), 4: np.zeros(160_000, np.uint8)}
    with pytest.raises(RuntimeError, match="does not hold the design's constant"):
        made.compute(contents, design.kernel.reference)


def test_a_piece_has_a_part_of_every_tensor() -> None:
    """[piece][two rows | one number | the word], by hand."""
    memory = np.zeros(2 * 8, np.uint8)
    rows = Dealt((4, 2), np.dtype(np.uint8), 2)
    number = Dealt((2,), np.dtype(np.uint8), 2)
    word = Dealt((1,), np.dtype(np.uint16), 2, repeated=True)
    rows.view(memory.data, 0, 8, 1)[:] = np.arange(1, 9, dtype=np.uint8).reshape(rows.cells)
    number.view(memory.data, 4, 8, 1)[:] = np.array([9, 10], np.uint8).reshape(number.cells)
    word.view(memory.data, 6, 8, 1)[:] = np.array([0x0C0B], np.uint16).reshape(word.cells)
    assert memory.tolist() == [1, 2, 3, 4, 9, 0, 11, 12, 5, 6, 7, 8, 10, 0, 11, 12]


def test_a_tensor_is_cut_along_its_axis() -> None:
    memory = np.zeros(8, np.uint8)
    columns = Dealt((2, 4), np.dtype(np.uint8), 2, axis=1)
    columns.view(memory.data, 0, 4, 1)[:] = np.arange(8, dtype=np.uint8).reshape(columns.cells)
    assert memory.tolist() == [0, 1, 4, 5, 2, 3, 6, 7]
    assert not Dealt((2, 3), np.dtype(np.uint8), 2, axis=1).possible
    assert not Dealt((2,), np.dtype(np.uint8), 2, axis=1).possible


@pytest.mark.parametrize(
    ("name", "old", "new", "error", "says"),
    [
        ("attention_i8_exact_256", "pieces = 4", "pieces = 3", BundleError, "3 pieces cannot share dimension 0 of 'q'"),
        ("attention_i8_exact_256", "pieces = 4", "pieces = 0", BundleError, "pieces is 0"),
        ("attention_i8_exact_256", "padding = 252", "padding = -1", BundleError, "padding is -1"),
        ("attention_i8_exact_256", "repeated = true", "repeated = 1", BundleError, "repeated is 1"),
        ("attention_i8_exact_256", 'worker = "column"', 'worker = "me"', BundleError, "kernel.worker is 'me'"),
        ("gemm_i8_i8_64x128", "axis = 1", "axis = 2", BundleError, "cannot share dimension 2 of 'w'"),
        ("gemm_i8_i32_64x128", 'order = "columns"', 'order = "interleaved"', BundleError, "work on each tile"),
        ("mel_i16_80", 'file = "', 'file = "no', Exception, "is not there"),
        ("mel_i16_80", "[25, 3200]", "[25, 3199]", ProgramInvalid, "has 160,000 bytes"),
        ("mel_i16_80", 'role = "constant"', 'role = "scratch"', BundleError, "has no content of its own"),
    ],
)
def test_a_manifest_that_cannot_be_is_refused(
    name: str, old: str, new: str, error: Any, says: str, tmp_path: Path
) -> None:
    written(tmp_path, catalogue.design(name))
    text = (tmp_path / "kernel.toml").read_text()
    assert old in text
    (tmp_path / "kernel.toml").write_text(text.replace(old, new, 1))
    with pytest.raises(error, match=says):
        read_manifest(tmp_path)
