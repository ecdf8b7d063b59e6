"""A `kernel.toml` says all that a launch needs, and every mistake in one is named with its key and a way out."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hetero.errors import ArtifactMissing, BundleError, HeteroError, ProgramInvalid
from hetero.testing.xrt.stand_in import read_image, write_stand_in
from hetero_kernels import get, names
from hetero_xrt.manifest import Batch, Manifest
from hetero_xrt.reading import read_manifest

Edit = Callable[[str], str]


def stand_in(folder: Path, kernel: str = "attention_i8_64x64", **options: Any) -> Path:
    return write_stand_in(folder, get(kernel).program(), **options)


def edited(folder: Path, *edits: tuple[str, str], **options: Any) -> Path:
    """A stand-in's manifest with texts replaced, each of which must be there."""
    path = stand_in(folder, **options)
    text = path.read_text()
    for old, new in edits:
        assert old in text, old
        text = text.replace(old, new, 1)
    path.write_text(text)
    return path


def test_a_packed_kernel_is_read(tmp_path: Path) -> None:
    manifest = read_manifest(stand_in(tmp_path, columns=4, tiles_per_launch=64, rows=4))
    assert (manifest.name, manifest.logical, manifest.target) == ("MLIR_AIE", "attention_i8_64x64", "npu1")
    assert (manifest.columns, manifest.rows, manifest.tiles_per_launch, manifest.tiles_per_column) == (4, 4, 64, 16)
    assert manifest.opcode == 3
    assert manifest.batch == Batch("columns", "zeros", "stacked")
    source, target = manifest.arguments
    assert (source.index, source.role, source.layout, source.column, source.group) == (3, "in", "packed", None, None)
    assert [(t.name, t.dtype, t.shape, t.shared) for t in source.tensors] == [
        (name, np.dtype(np.int8), (64, 64), False) for name in "qkv"
    ]
    assert (source.tile_size, manifest.size_of(source)) == (12_288, 64 * 12_288)
    assert (target.tile_size, manifest.size_of(target)) == (4096, 64 * 4096)
    assert manifest.xclbin.columns == 4
    assert manifest.instructions.read_bytes()
    assert [manifest.launches(tiles) for tiles in (0, 1, 64, 65)] == [0, 1, 1, 2]


def test_a_kernel_with_a_buffer_for_each_column_is_read(tmp_path: Path) -> None:
    manifest = read_manifest(stand_in(tmp_path, layout="separate", order="interleaved", fill="repeat"))
    assert [a.name for a in manifest.arguments] == [*(f"in{i}" for i in range(4)), *(f"out{i}" for i in range(4))]
    assert [a.column for a in manifest.arguments] == [0, 1, 2, 3] * 2
    assert {manifest.size_of(a) for a in manifest.arguments if a.role == "in"} == {12_288}
    assert manifest.batch == Batch("interleaved", "repeat", "stacked")


def test_weights_are_shared_by_tiles_or_an_argument_of_their_own(tmp_path: Path) -> None:
    tiled = read_manifest(stand_in(tmp_path / "tile", "layernorm_i8_256"))
    assert [(t.name, t.shape, t.shared) for t in tiled.arguments[0].tensors] == [
        ("x", (256,), False),
        ("gamma", (256,), True),
        ("beta", (256,), True),
    ]
    apart = read_manifest(stand_in(tmp_path / "apart", "layernorm_i8_256", weights="argument", tile_rows=8))
    weight = apart.arguments[1]
    assert (weight.role, weight.tiled, apart.size_of(weight)) == ("weight", False, 512)
    assert apart.batch.tiles == "joined"


@pytest.mark.parametrize("kernel", names())
@pytest.mark.parametrize("layout", ["packed", "separate"])
def test_a_manifest_says_what_its_stand_in_computes(tmp_path: Path, kernel: str, layout: Any) -> None:
    """The two were written from one design and are read apart: any difference would be a wrong answer."""
    manifest = read_manifest(stand_in(tmp_path, kernel, columns=2, tiles_per_launch=6, layout=layout))
    image = read_image(manifest.xclbin.path.read_bytes())
    assert image is not None
    design = image.design
    assert manifest.xclbin.uuid == image.uuid
    assert [(a.index, a.name, a.role, a.column, manifest.size_of(a)) for a in manifest.arguments] == [
        (a.index, a.name, a.role, a.column, design.size_of(a)) for a in design.arguments
    ]
    signature = {spec.name for spec in (*get(kernel).inputs, *get(kernel).outputs)}
    assert {t.name for a in manifest.arguments for t in a.tensors} == signature


def test_a_folder_stands_for_its_manifest(tmp_path: Path) -> None:
    path = stand_in(tmp_path)
    assert read_manifest(tmp_path) == read_manifest(path)


def test_what_is_optional_can_be_left_out(tmp_path: Path) -> None:
    batch = '[batch]\norder = "columns"\nfill = "zeros"\ntiles = "stacked"\n'
    path = edited(tmp_path, ("opcode = 3\n", ""), ("rows = 1\n", ""), (batch, ""))
    manifest: Manifest = read_manifest(path)
    assert (manifest.opcode, manifest.rows, manifest.batch) == (3, 1, Batch())


def test_a_group_and_an_opcode_can_be_written(tmp_path: Path) -> None:
    path = edited(tmp_path, ("opcode = 3", "opcode = 7"), ('role = "in"', 'role = "in"\ngroup = 65536'))
    manifest = read_manifest(path)
    assert (manifest.opcode, manifest.arguments[0].group) == (7, 65536)


TENSOR = '{ name = "q", dtype = "int8", shape = [64, 64] }'


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("format = 1", "format = 2", "kernel.format is 2, expected 1"),
        ("format = 1\n", "", "kernel.format is None, expected 1"),
        ('name = "MLIR_AIE"', "name = 3", "kernel.name is 3"),
        ('name = "MLIR_AIE"', 'name = "DPU"', "kernel.name is 'DPU', but attention_i8_64x64.xclbin has MLIR_AIE"),
        ('target = "npu1"', 'target = "npu9"', "kernel.target is 'npu9'"),
        ('target = "npu1"\n', "", "kernel.target is missing"),
        ("opcode = 3", 'opcode = "3"', "kernel.opcode is '3'"),
        ("opcode = 3", "opcode = true", "kernel.opcode is True"),
        ("columns = 4", "columns = 5", "kernel.columns is 5, expected an integer from 1 to 4"),
        ("columns = 4", "columns = 2", "kernel.columns is 2, but attention_i8_64x64.xclbin was built for 4"),
        ("rows = 1", "rows = 0", "kernel.rows is 0"),
        ("rows = 1", "rows = 4", "which 4 columns of 4 rows cannot share evenly"),
        ("tiles_per_launch = 4", "tiles_per_launch = 6", "kernel.tiles_per_launch is 6"),
        ("tiles_per_launch = 4\n", "", "kernel.tiles_per_launch is missing"),
        ("tiles_per_launch = 4", "tile_per_launch = 4", "unknown key 'tile_per_launch'"),
        ("[batch]", "[batching]", "the top level has the unknown key 'batching'"),
        ('order = "columns"', 'order = "rows"', "batch.order is 'rows'"),
        ('fill = "zeros"', 'fill = "ones"', "batch.fill is 'ones'"),
        ('tiles = "stacked"', 'tiles = "piled"', "batch.tiles is 'piled'"),
        ("index = 4", "index = 3", r"the indices \[3, 3\], expected \[3, 4\]"),
        ("index = 3", "index = 0", r"the indices \[0, 4\], expected \[3, 4\]"),
        ("index = 4", "index = -4", "index is -4"),
        ('name = "out"', 'name = "in"', "argument 'in' is there 2 times"),
        ('role = "out"', 'role = "output"', r"argument 2 \(out\): role is 'output'"),
        ('role = "out"', 'role = "in"', "no argument has the role 'out'"),
        ('role = "in"', 'role = "scratch"', "no argument has the role 'in'"),
        ('role = "in"', 'role = "in"\nlayout = "tiled"', "layout is 'tiled'"),
        ('role = "in"', 'role = "in"\ncolumn = 1', "a packed buffer holds every column"),
        ('role = "in"', 'role = "in"\nlayout = "separate"', "column is missing"),
        ('role = "in"', 'role = "in"\nlayout = "separate"\ncolumn = 4', "column is 4"),
        ('role = "in"', 'role = "in"\nlayout = "separate"\ncolumn = 1', "expected one packed buffer, or one for each"),
        ('role = "in"', 'role = "in"\ngroup = -1', "group is -1"),
        ('role = "in"', 'role = "in"\nsize = 3', "unknown key 'size'"),
        (TENSOR, '{ name = "q", dtype = "int7", shape = [64, 64] }', "tensor 1: dtype 'int7' is unknown"),
        (TENSOR, '{ name = "q", dtype = "int8", shape = [64, 0] }', r"shape is \[64, 0\]"),
        (TENSOR, '{ name = "q", dtype = "int8", shape = 64 }', "shape is 64"),
        (TENSOR, '{ dtype = "int8", shape = [64] }', "tensor 1: name is missing"),
        (TENSOR, '{ name = "k", dtype = "int8", shape = [64, 64] }', "tensor 'k' is in in, in"),
        (TENSOR, '{ name = "k", dtype = "int8", shape = [64] }', "tensor 'k' is not the same"),
        (TENSOR, '{ name = "q", dtype = "int8", shape = [64, 64], shared = 1 }', "shared is 1"),
        (
            '{ name = "o", dtype = "int8", shape = [64, 64] }',
            '{ name = "o", dtype = "int8", shape = [64, 64], shared = true }',
            "shared is True",
        ),
        (f"tensors = [\n    {TENSOR},", "tensors = [\n    3,", "tensors is"),
        ("[[argument]]\nindex = 3", "[kernel.argument]\nindex = 3", "unknown key 'argument'"),
        ('xclbin = "attention', 'xclbin = "../attention', "lies outside the folder"),
        ('instructions = "attention_i8_64x64.insts.bin"', "instructions = 1", "kernel.instructions is 1"),
    ],
)
def test_every_mistake_is_named_with_a_way_out(tmp_path: Path, old: str, new: str, told: str) -> None:
    path = edited(tmp_path, (old, new))
    with pytest.raises(BundleError, match=told) as caught:
        read_manifest(path)
    assert caught.value.problem.startswith(f"{path}: ")
    assert caught.value.fix


def test_a_column_that_is_missing_or_there_twice_is_an_error(tmp_path: Path) -> None:
    path = edited(tmp_path, ("column = 1", "column = 0"), layout="separate")
    with pytest.raises(BundleError, match="tensor 'q' is in in0, in1, in2, in3"):
        read_manifest(path)


def test_a_weight_has_no_layout(tmp_path: Path) -> None:
    path = stand_in(tmp_path, "layernorm_i8_256", weights="argument")
    text = path.read_text().replace('role = "weight"', 'role = "weight"\nlayout = "separate"\ncolumn = 0')
    path.write_text(text)
    with pytest.raises(BundleError, match="a weight holds no tiles"):
        read_manifest(path)


def test_a_syntax_error_is_named_with_its_line(tmp_path: Path) -> None:
    path = edited(tmp_path, ("columns = 4", "columns = = 4"))
    with pytest.raises(BundleError, match=r"not valid TOML.*line 10"):
        read_manifest(path)


def test_arguments_must_be_a_list(tmp_path: Path) -> None:
    path = stand_in(tmp_path)
    head = path.read_text().split("[[argument]]")[0]
    path.write_text("argument = 3\n" + head)
    with pytest.raises(BundleError, match="argument is no list of tables"):
        read_manifest(path)
    path.write_text(head)
    with pytest.raises(BundleError, match="no argument has the role 'in'"):
        read_manifest(path)


@pytest.mark.parametrize("name", ["attention_i8_64x64.xclbin", "attention_i8_64x64.insts.bin", "kernel.toml"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    path = stand_in(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(ArtifactMissing, match=name) as caught:
        read_manifest(path)
    assert caught.value.fix


@pytest.mark.parametrize("content", [b"", b"12345"])
def test_instructions_that_are_no_words_are_refused(tmp_path: Path, content: bytes) -> None:
    path = stand_in(tmp_path)
    (tmp_path / "attention_i8_64x64.insts.bin").write_bytes(content)
    with pytest.raises(ProgramInvalid, match="whole number of 32-bit instruction words"):
        read_manifest(path)


@pytest.mark.parametrize("length", [0, 100, 460])
def test_an_xclbin_that_is_not_whole_is_refused_before_any_vendor_s_call(tmp_path: Path, length: int) -> None:
    path = stand_in(tmp_path)
    xclbin = tmp_path / "attention_i8_64x64.xclbin"
    xclbin.write_bytes(xclbin.read_bytes()[:length])
    with pytest.raises(ProgramInvalid):
        read_manifest(path)


def test_every_refusal_is_an_error_of_hetero(tmp_path: Path) -> None:
    path = tmp_path / "kernel.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(HeteroError):
        read_manifest(path)


def test_the_example_of_the_docs_is_a_manifest(tmp_path: Path) -> None:
    docs = (Path(__file__).parents[2] / "docs/kernels.md").read_text()
    (example,) = re.findall(r"```toml\n(\[kernel\].*?)```", docs, re.DOTALL)
    written = read_manifest(stand_in(tmp_path, tiles_per_launch=64))
    written.path.write_text(example)
    assert read_manifest(tmp_path) == written
