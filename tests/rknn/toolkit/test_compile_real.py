"""The same with Rockchip's own toolkit, where it is installed: what the stand-in imitates is so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import hetero
from hetero.bundle import open_bundle
from hetero.errors import CompileError
from hetero_cpu.backend import CpuBackend
from hetero_rknn.toolkit import environment, pc
from tests import models
from tests.rknn.toolkit.environments import Rknn, needs_toolkit

pytestmark = needs_toolkit


@pytest.fixture
def real(make_runtime: Callable[..., hetero.Runtime], tmp_path: Path) -> hetero.Runtime:
    found = environment.find(hetero.Host())
    assert found is not None
    environ = {environment.VARIABLE: str(found.python.parent.parent)}
    host = hetero.Host(environ, tmp_path / "root", tmp_path / "cache", simulate=(pc.MACHINE,))
    return make_runtime(Rknn, CpuBackend, host=host)


@pytest.mark.parametrize("target", ["rk3588", "rk3576", "rk3566"])
def test_a_real_rknn_file_is_written_and_simulated_close_to_onnx_runtime(
    real: hetero.Runtime, tmp_path: Path, target: str
) -> None:
    model = models.perceptron(tmp_path / "perceptron.onnx", n=64)
    compiled = real.compile(model, target, out=tmp_path / "out", shapes=[("batch", (2,))])
    artifact = open_bundle(compiled.bundle).artifact("rknn", target)
    assert artifact.file.read_bytes().startswith(b"RKNN\0\0\0\0")
    assert target.encode() in artifact.file.read_bytes()
    (output,) = compiled.reports[0].outputs
    assert 0.9999 < output.cosine <= 1
    assert 0 < output.max_abs_error < 0.05, "half precision differs, and not by much"


def test_int8_is_coarser_than_fp16_and_names_layers_when_asked_too_much(real: hetero.Runtime, tmp_path: Path) -> None:
    model = models.perceptron(tmp_path / "perceptron.onnx", n=64)
    data = [{"x": np.random.default_rng(seed).standard_normal((2, 64)).astype(np.float32)} for seed in range(6)]
    with pytest.raises(CompileError, match=r"loses most: \["):
        real.compile(
            model, "rk3588", out=tmp_path / "out", shapes=[("batch", (2,))], int8=True, calibration=data, min_cosine=1
        )
    compiled = real.compile(
        model, "rk3588", out=tmp_path / "out", shapes=[("batch", (2,))], int8=True, calibration=data, min_cosine=0.9
    )
    assert 0.9 < compiled.reports[0].cosine < 0.99999


def test_an_image_keeps_its_layout(real: hetero.Runtime, tmp_path: Path) -> None:
    from onnx import helper, numpy_helper

    weight = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])
    ends = [models.tensor("x", [1, 3, 8, 10]), models.tensor("y", [1, 4, 8, 10])]
    model = models.save(tmp_path / "c.onnx", [node], ends[:1], ends[1:], [numpy_helper.from_array(weight, "w")])
    assert real.compile(model, "rk3588", out=tmp_path / "out").reports[0].cosine > 0.9999


def test_unused_inputs_and_half_precision_are_as_the_stand_in_has_them(real: hetero.Runtime, tmp_path: Path) -> None:
    from onnx import helper

    ends = [
        models.tensor("unused", [1, 8]),
        models.tensor("x", [1, 8]),
        models.tensor("k", [1]),
        models.tensor("y", [1, 8]),
    ]
    model = models.save(tmp_path / "m.onnx", [helper.make_node("Mul", ["x", "k"], ["y"])], ends[:3], ends[3:])
    (report,) = real.compile(model, "rk3588", out=tmp_path / "out").reports
    assert report.cosine > 0.9999
    assert "'unused' is used by nothing" in report.notes[0]
    half = models.double(tmp_path / "half.onnx", (1, 8), np.float16)
    assert real.compile(half, "rk3588", out=tmp_path / "half").reports[0].cosine > 0.9999


def test_refusals_are_in_the_vendors_words(real: hetero.Runtime, tmp_path: Path) -> None:
    from onnx import helper

    ends = [models.tensor("x", [4, 4]), models.tensor("y", [4, 4])]
    new = models.save(tmp_path / "new.onnx", [helper.make_node("Add", ["x", "x"], ["y"])], ends[:1], ends[1:], opset=22)
    with pytest.raises(CompileError, match="failed to load 'new' for rk3588: Unsupport onnx opset 22, need <= 19!"):
        real.compile(new, "rk3588", out=tmp_path / "out")
    det = models.save(
        tmp_path / "det.onnx", [helper.make_node("Det", ["x"], ["y"])], ends[:1], [models.tensor("y", [])], opset=13
    )
    (report,) = real.compile(det, "rk3588", out=tmp_path / "det").reports
    assert "Det (at y) has no implementation" in report.notes[0]


def test_the_simulator_as_a_device_computes_in_half_precision(real: hetero.Runtime, tmp_path: Path) -> None:
    session = real.load(models.double(tmp_path / "double.onnx", (1, 8)), device="rknn:pc", canary=False)
    x = np.float32([[0.1, 1, 2, 3, 1000.3, -0.1, 0, 5]])
    result = session.run(x)
    assert (result.record.device, result.record.simulated) == ("rknn:pc", True)
    np.testing.assert_allclose(result.outputs["y"], 2 * x, rtol=1e-3)
    assert not np.array_equal(result.outputs["y"], 2 * x)
    assert np.isinf(session.run(np.full((1, 8), 40000, np.float32)).outputs["y"]).all(), "80000 is beyond fp16"
