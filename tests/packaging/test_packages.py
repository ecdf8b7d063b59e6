"""What is installed works outside the checkout, imports cheaply, and brings nothing under a foreign name."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.core.test_bundle import write_model

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs" / "examples" / "hetero-reference"


def run(*command: str, cwd: Path, path: Path | None = None) -> str:
    environment = {**os.environ, "PYTHONPATH": str(path) if path else ""}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(source: Path, into: Path) -> Path:
    # Built without isolation so that the test needs no network; hatchling is a development dependency.
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(into), str(source), cwd=into)
    return next(into.glob("*.whl"))


def install(wheel: Path, target: Path) -> None:
    run(
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--target",
        str(target),
        str(wheel),
        cwd=target.parent,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, tmp_path_factory.mktemp("wheel"))


def test_the_wheel_installs_only_our_import_names(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as content:
        top = {name.split("/")[0] for name in content.namelist()}
        names = content.namelist()
    expected = {"hetero", "hetero_cpu", "hetero_kernels", "hetero_rknn", "hetero_vulkan", "hetero_xrt"}
    assert {name for name in top if not name.endswith(".dist-info")} == expected
    assert "hetero/py.typed" in names
    assert "hetero_kernels/vulkan/add.spv" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_wheel_brings_the_kernels_sources(wheel: Path) -> None:
    kernels = ROOT / "kernels"
    sources = {str(path.relative_to(kernels)) for kind in ("*.cc", "*.hpp") for path in kernels.rglob(kind)}
    with zipfile.ZipFile(wheel) as content:
        assert "hetero_kernels/aie2/stand_in/aie_api/aie.hpp" in sources <= set(content.namelist())


def test_the_wheel_works_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    install(wheel, site)
    model = write_model(tmp_path / "m.onnx")
    code = f"""
import json, hetero
with hetero.Runtime() as rt:
    y = rt.load({str(model)!r})([[1.0, 2.0]])
    kernels = rt.program_names()
print(json.dumps([hetero.__file__, y.tolist(), "attention_i8_64x64" in kernels, [str(b) for b in rt.broken_plugins]]))
"""
    where, y, kernels, broken = json.loads(run(sys.executable, "-c", code, cwd=tmp_path, path=site))
    assert Path(where).is_relative_to(site)
    assert y == [[6.0, 9.0, 12.0]]
    assert kernels
    assert broken == []


def test_the_backend_of_the_docs_is_installed_found_and_used_by_name(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    install(build(EXAMPLE, tmp_path), site)
    model = write_model(tmp_path / "m.onnx")
    out = run(
        sys.executable,
        "-m",
        "hetero",
        "run",
        str(model),
        "--device",
        "reference",
        "--input",
        "x=1,2",
        "--shape",
        "x=1x2",
        "--json",
        cwd=tmp_path,
        path=site,
    )
    assert json.loads(out)["device"] == "reference"


def test_the_backend_of_the_docs_is_forty_lines_of_code() -> None:
    lines = (EXAMPLE / "hetero_reference.py").read_text().splitlines()
    assert len([line for line in lines if line.strip()]) <= 40


def test_importing_hetero_brings_in_no_vendor_runtime() -> None:
    code = "import sys, hetero; hetero.Runtime; print('\\n'.join(sys.modules))"
    loaded = set(run(sys.executable, "-c", code, cwd=ROOT).split())
    assert "hetero.runtime" in loaded
    vendors = {"onnxruntime", "onnx", "rknnlite", "pyxrt", "vulkan", "av", "tokenizers", "huggingface_hub", "rich"}
    assert not loaded & vendors


def test_finding_devices_brings_in_no_vendor_runtime() -> None:
    code = "import sys, hetero; hetero.Runtime().devices; print('\\n'.join(sys.modules))"
    loaded = set(run(sys.executable, "-c", code, cwd=ROOT).split())
    assert not loaded & {"onnxruntime", "onnx", "rknnlite", "av", "tokenizers", "rich"}


def test_imports_point_one_way() -> None:
    core = list((ROOT / "hetero").rglob("*.py"))
    testing = ROOT / "hetero" / "testing"
    foreign = ("hetero_cpu", "hetero_kernels", "hetero_rknn", "hetero_xrt", "hetero_vulkan")
    for path in core:
        for line in path.read_text().splitlines():
            words = line.split()
            if words[:1] in (["import"], ["from"]):
                assert not words[1].startswith(foreign), f"{path}: {line}"
                assert not words[1].startswith("hetero.testing") or testing in path.parents, f"{path}: {line}"


def test_every_extra_and_what_it_brings_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    text = (ROOT / "docs" / "dependencies.md").read_text().replace("_", "-")
    extras = project["optional-dependencies"]
    for name, requirements in extras.items():
        assert f"`{name}`" in text, f"the extra {name}"
        if name in ("dev", "docs"):
            continue  # tools, which the table sums up
        for requirement in requirements:
            package = re.split(r"[\[<>=; ]", requirement)[0].replace("_", "-")
            assert package in text, f"{package} of {name}"
    for requirement in project["dependencies"]:
        assert f"| {re.split('[<>=; ]', requirement)[0]} |" in text, requirement
    own = {name for entry in extras["all"] for name in re.findall(r"[\w-]+", entry.partition("[")[2])}
    assert own == set(extras) - {
        "all",
        "simulator",
        "whisper-tiny-en",
        "whisper-base",
        "build-kernels",
        "testing",
        "docs",
        "dev",
    }, "an extra is neither in `all` nor left out of it on purpose"
