"""The CPU is always a device, and what is wrong with onnxruntime is told."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hetero
from hetero import Artifact, Program, TensorSpec
from hetero.backend import Unavailable, Unsupported
from hetero_cpu.backend import CpuBackend, OrtProvidersBackend
from hetero_cpu.kernels import KernelExecutable
from hetero_cpu.library import _distribution, onnxruntime
from hetero_cpu.processor import processor_features, processor_name

ONNX = Artifact("onnx", path=Path("nothing.onnx"))


class Adder:
    @staticmethod
    def reference(*, x: Any) -> dict[str, Any]:
        return {"y": x + x}


KERNEL = Artifact("kernel", name="adder", payload=Adder())
X = TensorSpec("x", np.dtype(np.int8), ("n",))


def program(*artifacts: Artifact) -> Program:
    return Program("p", (X,), (X,), artifacts)


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without onnxruntime."""
    find = importlib.util.find_spec
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "onnxruntime" else find(name))

    class Blocker:
        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            if name == "onnxruntime":
                raise ModuleNotFoundError("No module named 'onnxruntime'", name="onnxruntime")

    monkeypatch.setattr(sys, "meta_path", [Blocker(), *sys.meta_path])


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An onnxruntime whose import fails as it does where a library is missing."""
    package = tmp_path / "site" / "onnxruntime"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('libfoo.so.1: cannot open shared object file')\n")
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))


def test_looking_for_devices_does_not_import_onnxruntime() -> None:
    code = (
        "import sys, hetero, hetero_cpu\n"
        "from hetero_cpu.backend import CpuBackend, OrtProvidersBackend\n"
        "assert CpuBackend(hetero.Host()).probe()[0].name == 'cpu'\n"
        "assert 'onnxruntime' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_plugin_offers_both_backends_and_imports_nothing_of_the_vendors() -> None:
    code = (
        "import sys, hetero_cpu\n"
        "assert not {'onnx', 'onnxruntime'} & set(sys.modules)\n"
        "assert [backend.name for backend in hetero_cpu.hetero_backend()] == ['cpu', 'ort']\n"
        "assert not {'onnx', 'onnxruntime'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_device_tells_version_and_threads(host: hetero.Host) -> None:
    pytest.importorskip("onnxruntime")
    (device,) = CpuBackend(host).probe()
    assert (device.name, device.kind, device.lanes, device.notes) == ("cpu", "cpu", 1, ())
    names = importlib.metadata.packages_distributions()["onnxruntime"]
    assert device.properties["onnxruntime"] in {importlib.metadata.version(name) for name in names}
    assert device.properties["threads"] >= 1


@pytest.mark.usefixtures("absent")
def test_without_onnxruntime_the_cpu_is_still_there_and_says_what_is_missing(host: hetero.Host) -> None:
    (device,) = CpuBackend(host).probe()
    assert device.properties["onnxruntime"] is None
    assert any('pip install "hetero[cpu]"' in note for note in device.notes)


@pytest.mark.usefixtures("absent")
def test_without_onnxruntime_kernels_run_and_models_are_refused_with_the_fix(host: hetero.Host) -> None:
    backend = CpuBackend(host)
    (device,) = backend.probe()
    executable = backend.load(program(ONNX, KERNEL), device, {})
    assert isinstance(executable, KernelExecutable)
    np.testing.assert_array_equal(executable.run({"x": np.arange(3)}, hetero.Call())["y"], [0, 2, 4])
    with pytest.raises(Unsupported, match="onnxruntime is not installed") as got:
        backend.load(program(ONNX), device, {})
    assert got.value.fix == 'pip install "hetero[cpu]"'


@pytest.mark.usefixtures("absent")
def test_without_onnxruntime_there_are_no_providers_and_the_fix_is_told(host: hetero.Host) -> None:
    with pytest.raises(Unavailable, match="onnxruntime is not installed") as got:
        OrtProvidersBackend(host).probe()
    assert got.value.fix


@pytest.mark.usefixtures("broken")
def test_a_broken_onnxruntime_is_told_with_its_reason(host: hetero.Host) -> None:
    backend = CpuBackend(host)
    (device,) = backend.probe()
    with pytest.raises(Unsupported, match=r"cannot be imported: ImportError: libfoo\.so\.1") as got:
        backend.load(program(ONNX), device, {})
    assert "--force-reinstall" in got.value.fix
    with pytest.raises(Unavailable, match=r"libfoo\.so\.1"):
        onnxruntime()


def test_what_an_incomplete_removal_leaves_is_not_an_installation(
    host: hetero.Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "site" / "onnxruntime" / "capi").mkdir(parents=True)
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site")])
    assert CpuBackend(host).probe()[0].properties["onnxruntime"] is None


def test_a_kernel_runs_where_a_program_has_no_model(host: hetero.Host) -> None:
    backend = CpuBackend(host)
    executable = backend.load(program(KERNEL), backend.probe()[0], {"lanes": 3})
    assert executable.lanes == 3
    np.testing.assert_array_equal(executable.run({"x": np.arange(3)}, hetero.Call(2))["y"], [0, 2, 4])


def test_a_kernel_without_a_reference_is_refused(host: hetero.Host) -> None:
    backend = CpuBackend(host)
    with pytest.raises(Unsupported, match="'hollow' has no reference"):
        backend.load(program(Artifact("kernel", name="hollow")), backend.probe()[0], {})


def test_a_program_of_foreign_artifacts_is_refused_and_they_are_named(host: hetero.Host) -> None:
    backend = CpuBackend(host)
    with pytest.raises(Unsupported, match="no artifact of kind onnx; it has rknn for rk3588"):
        backend.load(program(Artifact("rknn", target="rk3588", path=Path("a.rknn"))), backend.probe()[0], {})


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            {"proc/cpuinfo": "processor\t: 0\nmodel name\t: AMD Ryzen 9 7940HS\nprocessor\t: 1\nmodel name\t: other\n"},
            "AMD Ryzen 9 7940HS",
        ),
        ({"proc/cpuinfo": "Features\t: fp asimd\nHardware\t: Rockchip RK3588\n"}, "Rockchip RK3588"),
        ({"proc/cpuinfo": "Features\t: fp asimd\n", "proc/device-tree/model": "Orange Pi 5\0"}, "Orange Pi 5"),
    ],
)
def test_the_processor_is_called_what_people_call_it(tmp_path: Path, files: dict[str, str], expected: str) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert processor_name(tmp_path) == expected


def test_a_processor_that_nothing_is_told_about_has_a_name_anyway(tmp_path: Path) -> None:
    assert processor_name(tmp_path)


def test_features_differ_between_processors_and_not_with_their_order(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    features = []
    for line in ("flags\t: avx2 sse", "flags\t: sse avx2", "flags\t: sse", "Features\t: asimd"):
        (tmp_path / "proc/cpuinfo").write_text(line + "\n")
        features.append(processor_features(tmp_path))
    assert features[0] == features[1]
    assert len(set(features)) == 3


def test_a_dependency_that_onnxruntime_misses_is_not_taken_for_onnxruntime_itself(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = tmp_path / "site" / "onnxruntime"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("import a_module_that_is_nowhere\n")
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    with pytest.raises(Unavailable, match=r"cannot be imported: ModuleNotFoundError: .*a_module_that_is_nowhere"):
        onnxruntime()


def test_another_distribution_of_the_same_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    version = importlib.metadata.version

    def without_plain(name: str) -> str:
        if name == "onnxruntime":
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.24.4" if name == "onnxruntime-directml" else version(name)

    monkeypatch.setattr(importlib.metadata, "version", without_plain)
    monkeypatch.setattr(importlib.metadata, "packages_distributions", lambda: {"onnxruntime": ["onnxruntime-directml"]})
    assert _distribution() == ("onnxruntime-directml", "1.24.4")
    monkeypatch.setattr(importlib.metadata, "packages_distributions", dict)
    assert _distribution() == ("unknown", "unknown")
