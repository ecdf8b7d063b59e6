"""The SPIR-V that is shipped is what the pinned compiler makes of the sources, byte for byte."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import pytest

from hetero_kernels import vulkan as kernels
from hetero_kernels.vulkan import build as building

VERSION_1_5 = 0x00010500


def test_every_source_has_its_spirv_and_every_spirv_its_source() -> None:
    assert kernels.names() == tuple(path.stem for path in building.sources())


@pytest.mark.parametrize("name", kernels.names())
def test_no_spirv_is_newer_than_the_oldest_driver_understands(name: str) -> None:
    magic, version = struct.unpack_from("<II", kernels.spirv(name))
    assert magic == 0x07230203
    assert version <= VERSION_1_5


@pytest.fixture
def glslang() -> None:
    if building.tool("glslang") is None and building.tool("glslangValidator") is None:
        pytest.skip("glslang is not here: pip install 'hetero[build-kernels]'")


@pytest.mark.parametrize("name", kernels.names())
def test_building_again_gives_the_same_bytes(glslang: None, name: str) -> None:
    (source,) = building.sources([name])
    assert building.build(source) == kernels.spirv(name), "run: python -m hetero_kernels.vulkan.build"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of two shaders."""
    for name in ("add.comp", "add.spv", "transpose.comp", "transpose.spv"):
        shutil.copy(building.FOLDER / name, tmp_path)
    monkeypatch.setattr(building, "FOLDER", tmp_path)
    return tmp_path


def test_a_changed_source_is_found_and_built(glslang: None, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert building.main(["--check"]) == 0
    before = (folder / "add.spv").read_bytes()
    source = folder / "add.comp"
    source.write_text(source.read_text().replace("x[i] + y[i]", "x[i] - y[i]"))
    assert building.main(["--check"]) == 1
    assert "not up to date: add.spv" in capsys.readouterr().out
    assert (folder / "add.spv").read_bytes() == before
    assert building.main([]) == 0
    assert (folder / "add.spv").read_bytes() != before
    assert building.main(["--check"]) == 0


def test_an_error_in_a_source_is_told_in_the_compilers_words(
    glslang: None, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "add.comp").write_text("#version 450\nvoid main() { undeclared = 1; }\n")
    assert building.main([]) == 1
    told = capsys.readouterr().err
    assert "add.comp" in told
    assert "undeclared" in told


def test_a_target_that_is_too_new_is_refused(glslang: None, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = folder / "add.comp"
    source.write_text(source.read_text().replace("#version 450", "#version 450\n// target: vulkan1.3"))
    assert building.main(["add"]) == 1
    assert "expected vulkan1.1 or vulkan1.2" in capsys.readouterr().err


def test_an_unknown_name_and_a_missing_compiler_are_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert building.main(["substract"]) == 1
    assert "there is no substract" in capsys.readouterr().err
    monkeypatch.setattr(building, "tool", lambda name: None)
    assert building.main([]) == 1
    assert "hetero[build-kernels]" in capsys.readouterr().err
