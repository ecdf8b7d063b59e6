"""The rungs that need AMD's tools: what they do with those that are there, and what they say without them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hetero.errors import CompileError, OptionError, Unavailable
from hetero.testing.xrt.stand_in import write_stand_in
from hetero_kernels.aie2 import catalogue, toolchain
from hetero_kernels.aie2.column_map import Geometry
from hetero_xrt.reading import read_manifest

DESIGNS = (*catalogue.designs(), *(family.name(**family.usual[0]) for family in catalogue.families()))
ATTENTION = catalogue.design("attention_i8_64x64")

AIECC = """#!{python}
import os, pathlib, shutil, sys
source = pathlib.Path(os.environ["FAKE_XCLBIN"])
assert pathlib.Path(sys.argv[-1]).read_text().startswith("module"), "the MLIR is there"
for option in sys.argv[1:-1]:
    name, _, value = option.partition("=")
    if name == "--npu-insts-name":
        shutil.copy(next(source.glob("*.insts.bin")), value)
    elif name == "--xclbin-name":
        assert list(pathlib.Path(".").glob("*.o")), "the cores' code is there"
        shutil.copy(next(source.glob("*.xclbin")), value)
    else:
        assert name in ("--get-npu-insts", "--get-xclbin"), name
if os.environ.get("FAKE_AIECC") == "fails":
    sys.exit("error: 'aie.tile' op allocated buffers exceeded available memory")
if os.environ.get("FAKE_AIECC") == "makes nothing":
    for made in pathlib.Path(".").glob("*.xclbin"):
        made.unlink()
"""

PEANO = """#!{python}
import os, pathlib, sys
arguments = sys.argv[1:]
assert "--target=aie2-none-unknown-elf" in arguments and "-std=c++20" in arguments
source = pathlib.Path(arguments[arguments.index("-c") + 1])
assert source.is_file() and all("stand_in" not in argument for argument in arguments), "the real headers, not ours"
target = pathlib.Path(arguments[arguments.index("-o") + 1])
target.write_bytes(b"code")
target.with_suffix(".su").write_text(f"{{source}}:1:kernel\\t{{os.environ['FAKE_FRAME']}}\\tstatic\\n")
"""

CONFIG = """
from pathlib import Path
here = Path(__file__).parents[2]
def aiecc_path(): return str(here / "aiecc")
def peano_cxx_path(): return str(here / "clang++")
def cxx_header_path(): return str(here)
"""

IRON = """
from hetero_kernels.aie2.simulate import design
from hetero_kernels.aie2.simulate.design import Buffer, Kernel, ObjectFifo, Runtime, TaskGroup, Worker
class Program(design.Program):
    def resolve_program(self):
        return f"module of {len(self.workers)} cores"
"""


@pytest.fixture
def amd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package `aie` and tools that take what the real ones take, and give a stand-in xclbin."""
    root = tmp_path / "amd"
    for place, text in {
        "aie/__init__.py": "",
        "aie/utils/__init__.py": "",
        "aie/utils/config.py": CONFIG,
        "aie/helpers/__init__.py": "",
        "aie/helpers/taplib.py": "from hetero_kernels.aie2.simulate.design import TensorAccessPattern\n",
        "aie/iron/__init__.py": IRON,
        "aie/iron/controlflow.py": "range_ = range\n",
        "aie/iron/device.py": "from hetero_kernels.aie2.simulate.design import Phoenix as NPU1, Tile\n",
        "aiecc": AIECC.format(python=sys.executable),
        "clang++": PEANO.format(python=sys.executable),
    }.items():
        file = root / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(0o755)
    for module in [name for name in sys.modules if name.partition(".")[0] == "aie"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.syspath_prepend(str(root))
    write_stand_in(tmp_path / "made", "attention_i8_64x64", 2, 8, rows=2)
    monkeypatch.setenv("FAKE_XCLBIN", str(tmp_path / "made"))
    monkeypatch.setenv("FAKE_FRAME", "4000")
    yield root
    for module in [name for name in sys.modules if name.partition(".")[0] == "aie"]:
        del sys.modules[module]


def test_a_build_is_a_folder_that_the_backend_reads(amd: Path, tmp_path: Path) -> None:
    files = toolchain.build(ATTENTION.at(Geometry(2, 2, 2)), tmp_path / "kernels" / "attention_i8_64x64")
    folder = tmp_path / "kernels" / "attention_i8_64x64"
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in files)
    read = read_manifest(folder)
    assert (read.logical, read.columns, read.rows, read.tiles_per_launch) == ("attention_i8_64x64", 2, 2, 8)


@pytest.mark.parametrize("name", ["gemm_i8_i8_384x384", "attention_i8_exact_1536", "mel_i16_80", "layernorm_i8_384"])
def test_a_build_of_a_family_is_one_object_and_whatever_the_manifest_names(
    name: str, amd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    design = catalogue.design(name)
    made = tmp_path / "other"
    write_stand_in(made, name, design.geometry.columns, design.geometry.cores, rows=design.geometry.rows)
    monkeypatch.setenv("FAKE_XCLBIN", str(made))
    monkeypatch.setenv("FAKE_FRAME", "1000")
    files = toolchain.build(design, tmp_path / "kernels" / name)
    folder = tmp_path / "kernels" / name
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in files)
    read = read_manifest(folder)
    assert (read.logical, read.worker, read.tiles_per_launch) == (name, design.worker, design.tiles)
    assert [read.size_of(argument) for argument in read.arguments] == [a.size for a in design.arguments]


def test_the_instructions_alone_need_no_code_for_cores(amd: Path, tmp_path: Path) -> None:
    (amd / "clang++").unlink()
    assert toolchain.lower(ATTENTION.at(Geometry(2, 2, 2)), tmp_path).stat().st_size > 0


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("FAKE_AIECC", "fails", "aiecc failed: .*exceeded available memory"),
        ("FAKE_AIECC", "makes nothing", r"made no attention_i8_64x64\.xclbin"),
        ("FAKE_FRAME", "9000", "Peano reports a frame of 9,000 bytes, and the stack has 6,656"),
    ],
)
def test_a_build_that_fails_leaves_nothing(
    variable: str, value: str, says: str, amd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(CompileError, match=says):
        toolchain.build(ATTENTION.at(Geometry(2, 2, 2)), tmp_path / "out" / "kernel")
    assert not list((tmp_path / "out").iterdir())


def test_what_is_in_the_folder_is_left_alone(amd: Path, tmp_path: Path) -> None:
    (tmp_path / "kernel").mkdir()
    (tmp_path / "kernel" / "mine.txt").write_text("mine")
    with pytest.raises(OptionError, match="is there and not empty"):
        toolchain.build(ATTENTION.at(Geometry(2, 2, 2)), tmp_path / "kernel")
    assert (tmp_path / "kernel" / "mine.txt").read_text() == "mine"


def test_a_missing_tool_is_named(amd: Path, tmp_path: Path) -> None:
    (amd / "aie" / "utils" / "config.py").write_text(
        CONFIG.replace('return str(here / "clang++")', "raise RuntimeError")
    )
    with pytest.raises(Unavailable, match=r"this machine has no Peano \(llvm-aie\)\n") as missing:
        toolchain.build(ATTENTION.at(Geometry(2, 2, 2)), tmp_path / "kernel")
    assert "pip install mlir_aie llvm-aie" in missing.value.fix
    assert not (tmp_path / "kernel").exists()


def test_another_version_of_iron_is_told(amd: Path) -> None:
    (amd / "aie" / "iron" / "__init__.py").write_text("from hetero_kernels.aie2.simulate.design import Kernel\n")
    with pytest.raises(Unavailable, match=r"the installed mlir-aie is not version 1\.4\.4"):
        toolchain.generate(ATTENTION)


def test_without_the_tools_nothing_is_written_and_the_fix_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "aie", None)
    with pytest.raises(Unavailable, match="needs AMD's tools") as missing:
        toolchain.build(ATTENTION, tmp_path / "kernel")
    assert "releases/expanded_assets" in missing.value.fix
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", DESIGNS)
def test_the_real_iron_generates_and_verifies_every_design(name: str) -> None:
    pytest.importorskip("aie.iron", reason="mlir-aie is on no package registry (docs: kernels)")
    text = toolchain.generate(catalogue.design(name))
    assert text.count("aie.core(") == catalogue.design(name).geometry.cores
    assert name in text


@pytest.mark.parametrize("name", DESIGNS)
def test_the_real_aiecc_lowers_every_design(name: str, tmp_path: Path) -> None:
    pytest.importorskip("aie.iron", reason="mlir-aie is on no package registry (docs: kernels)")
    assert toolchain.lower(catalogue.design(name), tmp_path).stat().st_size % 4 == 0


@pytest.mark.parametrize("name", DESIGNS)
def test_the_real_tools_build_every_design(name: str, tmp_path: Path) -> None:
    pytest.importorskip("aie.iron", reason="mlir-aie is on no package registry (docs: kernels)")
    try:
        toolchain.find_tools()
    except Unavailable as missing:
        pytest.skip(str(missing))
    toolchain.build(catalogue.design(name), tmp_path / name)
    assert read_manifest(tmp_path / name).logical == name
