"""Twin files: the vendor's outside, the ONNX model inside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from hetero.errors import HeteroError, InputError, ProgramInvalid
from hetero.testing.rknn.twin import imitate, read_twin, write_twin
from hetero_rknn.model_file import read_model_file
from tests.rknn.sim_models import perceptron

DATA = Path(__file__).parents[1] / "data" / "rknn"


def dynamic(path: Path, shape: list[int | str]) -> Path:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_a_twin_reads_as_a_file_of_the_vendors(tmp_path: Path) -> None:
    model = perceptron(tmp_path / "m.onnx")
    write_twin(model, tmp_path / "m.rknn", platform="rk3576", version="2.2.0")
    read = read_model_file(tmp_path / "m.rknn")
    assert (read.platform, read.version, read.format_version) == ("rk3576", "2.2.0", 6)
    assert [(tensor.name, tensor.shape) for tensor in read.inputs] == [("x", (3, 64))]
    assert [(tensor.name, tensor.shape) for tensor in read.outputs] == [("y", (3, 64))]
    content, described = read_twin(tmp_path / "m.rknn")
    assert onnx.load_from_string(content).graph == onnx.load(model).graph
    assert described["target_platform"] == ["rk3576"]


def test_a_first_dimension_that_is_open_becomes_one_and_outputs_follow(tmp_path: Path) -> None:
    write_twin(dynamic(tmp_path / "m.onnx", ["batch", 4]), tmp_path / "m.rknn", platform="rk3588")
    read = read_model_file(tmp_path / "m.rknn")
    assert read.inputs[0].shape == read.outputs[0].shape == (1, 4)


def test_open_dimensions_take_the_shapes_that_are_given(tmp_path: Path) -> None:
    model = dynamic(tmp_path / "m.onnx", ["batch", "length"])
    with pytest.raises(InputError, match="no fixed size in dimension 1"):
        write_twin(model, tmp_path / "m.rknn", platform="rk3588")
    assert not (tmp_path / "m.rknn").exists()
    write_twin(model, tmp_path / "m.rknn", platform="rk3588", shapes={"x": (2, 7)})
    assert read_model_file(tmp_path / "m.rknn").outputs[0].shape == (2, 7)


def test_a_shape_that_the_model_does_not_have_is_refused(tmp_path: Path) -> None:
    model = dynamic(tmp_path / "m.onnx", [1, 4])
    for wrong in ((1, 5), (1, 4, 1)):
        with pytest.raises(InputError):
            write_twin(model, tmp_path / "m.rknn", platform="rk3588", shapes={"x": wrong})


def test_a_real_file_and_its_model_make_a_twin_of_the_same_description(tmp_path: Path) -> None:
    real = tmp_path / "real.rknn"
    model = perceptron(tmp_path / "m.onnx")
    write_twin(model, real, platform="rk3566")
    real.write_bytes(real.read_bytes().replace(b"HETERO-ONNX-TWIN", b"weights-and-code"))
    with pytest.raises(ProgramInvalid, match=r"real \.rknn file"):
        read_twin(real)
    imitate(real, model, tmp_path / "twin.rknn")
    assert read_model_file(tmp_path / "twin.rknn") == read_model_file(real)
    content, _ = read_twin(tmp_path / "twin.rknn")
    assert onnx.load_from_string(content).graph == onnx.load(model).graph


def test_files_of_the_vendors_own_toolkit_are_told_from_twins() -> None:
    files = sorted(DATA.glob("*.rknn"))
    assert files
    for file in files:
        with pytest.raises(ProgramInvalid, match=r"real \.rknn file"):
            read_twin(file)


@given(st.data())
def test_a_damaged_twin_is_refused_and_nothing_else_is_raised(data: st.DataObject) -> None:
    whole = _whole()
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(HeteroError):
        read_twin(whole[:cut])


def _whole() -> bytes:
    import functools
    import tempfile

    @functools.cache
    def made() -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder)
            write_twin(dynamic(path / "m.onnx", [1, 2]), path / "m.rknn", platform="rk3588")
            return (path / "m.rknn").read_bytes()

    return made()


def test_numbers_of_the_model_are_those_of_the_twin(tmp_path: Path) -> None:
    ort = pytest.importorskip("onnxruntime")
    model = perceptron(tmp_path / "m.onnx")
    write_twin(model, tmp_path / "m.rknn", platform="rk3588")
    x = np.ones((3, 64), np.float32)
    answers = [
        ort.InferenceSession(source, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
        for source in (str(model), read_twin(tmp_path / "m.rknn")[0])
    ]
    assert np.array_equal(*answers)
