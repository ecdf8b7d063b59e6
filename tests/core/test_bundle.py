"""The same folder works on every machine, and nothing in it can lead outside."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from hetero import errors
from hetero.bundle import open_program
from tests.fakes import DOUBLE


def write_model(path: Path, external: str | None = None) -> Path:
    """y = x @ w with x float32 [batch, 2] and w float32 [2, 3], kept in a file of its own when `external` is given."""
    weights = helper.make_tensor("w", TensorProto.FLOAT, [2, 3], np.arange(6, dtype=np.float32).tobytes(), raw=True)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "matmul",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if external is not None:
        tensor = model.graph.initializer[0]
        data, tensor.raw_data = tensor.raw_data, b""
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", external), ("offset", "0"), ("length", str(len(data)))):
            entry = tensor.external_data.add()
            entry.key, entry.value = key, value
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    return path


DATA = np.arange(6, dtype=np.float32).tobytes()


def test_an_onnx_file_tells_its_inputs_and_outputs(tmp_path: Path) -> None:
    program = open_program(write_model(tmp_path / "m.onnx"))
    assert program.name == "m"
    assert [str(spec) for spec in program.inputs] == ["x: float32[batch, 2]"]
    assert [str(spec) for spec in program.outputs] == ["y: float32[batch, 3]"]


def test_a_path_may_be_text_and_a_program_stays_itself(tmp_path: Path) -> None:
    assert open_program(str(write_model(tmp_path / "m.onnx"))).artifact("onnx").file == tmp_path / "m.onnx"
    assert open_program(DOUBLE) is DOUBLE


def test_a_bundle_carries_artifacts_for_several_machines(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m.onnx")
    (tmp_path / "m.rk3588.rknn").write_bytes(b"RKNN")
    (tmp_path / "m.xclbin").write_bytes(b"xclbin2")
    (tmp_path / "insts.bin").write_bytes(b"i")
    (tmp_path / "hetero.toml").write_text(
        f"""
        [program]
        format = 1
        name = "matmul"
        [[artifact]]
        kind = "onnx"
        path = "m.onnx"
        sha256 = "{hashlib.sha256(model.read_bytes()).hexdigest()}"
        [[artifact]]
        kind = "rknn"
        path = "m.rk3588.rknn"
        target = "rk3588"
        [[artifact]]
        kind = "xclbin"
        path = "m.xclbin"
        companions = {{ instructions = "insts.bin" }}
        [[input]]
        name = "x"
        dtype = "float32"
        shape = [1, 2]
        [options.rknn]
        core_mask = "0_1"
        """
    )
    for source in (tmp_path, tmp_path / "hetero.toml"):
        program = open_program(source)
        assert program.name == "matmul"
        assert program.inputs[0].shape == (1, 2), "the manifest may fix what the model leaves free"
        assert program.artifact("rknn", target="rk3588").file.name == "m.rk3588.rknn"
        assert program.artifact("xclbin").companions["instructions"].name == "insts.bin"
        assert program.options == {"rknn": {"core_mask": "0_1"}}
    with pytest.raises(errors.Unsupported, match="no artifact of kind rknn for rk3576; it has onnx, rknn for rk3588"):
        program.artifact("rknn", target="rk3576")


def test_a_bundle_may_name_a_kernel(tmp_path: Path) -> None:
    (tmp_path / "hetero.toml").write_text('program = {format = 1}\nartifact = [{kind = "kernel", name = "double"}]')
    program = open_program(tmp_path, find=lambda name: DOUBLE if name == "double" else None)
    assert program.inputs == DOUBLE.inputs
    assert program.name == tmp_path.name


def test_external_data_beside_the_model_is_found(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(DATA)
    program = open_program(write_model(tmp_path / "m.onnx", external="w.bin"))
    assert program.artifact("onnx").companions == {"w.bin": tmp_path / "w.bin"}


def test_external_data_linked_into_one_store_is_accepted_as_model_hubs_lay_it_out(tmp_path: Path) -> None:
    store, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    store.mkdir()
    snapshot.mkdir()
    write_model(store / "aaa", external="w.bin")
    (store / "bbb").write_bytes(DATA)
    os.symlink(store / "aaa", snapshot / "m.onnx")
    os.symlink(store / "bbb", snapshot / "w.bin")
    assert open_program(snapshot / "m.onnx").artifact("onnx").companions


@pytest.mark.parametrize(
    "location", ["../secret.bin", "/etc/hostname", "a/../../secret.bin", "..\\secret.bin", "C:\\secret", ""]
)
def test_external_data_cannot_lead_outside_the_models_folder(tmp_path: Path, location: str) -> None:
    (tmp_path / "secret.bin").write_bytes(DATA)
    with pytest.raises(errors.ProgramInvalid, match="outside the model's folder"):
        open_program(write_model(tmp_path / "model" / "m.onnx", external=location))


def test_external_data_cannot_be_a_link_that_leads_outside(tmp_path: Path) -> None:
    (tmp_path / "secret.bin").write_bytes(DATA)
    path = write_model(tmp_path / "model" / "m.onnx", external="w.bin")
    os.symlink(tmp_path / "secret.bin", path.parent / "w.bin")
    with pytest.raises(errors.ProgramInvalid, match="is a link to"):
        open_program(path)


def test_external_data_that_is_missing_or_short_is_told(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.onnx", external="w.bin")
    with pytest.raises(errors.ProgramInvalid, match=r"'w\.bin', which is not beside it"):
        open_program(path)
    (tmp_path / "w.bin").write_bytes(DATA[:-1])
    with pytest.raises(errors.ProgramInvalid, match="truncated: 23 bytes, 'w' needs 24"):
        open_program(path)


def test_weights_in_subgraphs_are_checked_too(tmp_path: Path) -> None:
    inner = onnx.load(write_model(tmp_path / "m.onnx", external="../secret.bin"), load_external_data=False).graph
    constant = helper.make_graph(
        [helper.make_node("Identity", ["w"], ["z"])],
        "branch",
        [],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [2, 3])],
        list(inner.initializer),
    )
    node = helper.make_node("If", ["c"], ["z"], then_branch=constant, else_branch=constant)
    graph = helper.make_graph(
        [node],
        "outer",
        [helper.make_tensor_value_info("c", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [2, 3])],
    )
    (tmp_path / "outer.onnx").write_bytes(helper.make_model(graph).SerializeToString())
    with pytest.raises(errors.ProgramInvalid, match="outside the model's folder"):
        open_program(tmp_path / "outer.onnx")


def test_the_digest_follows_the_content(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.onnx")
    first = open_program(path).artifacts[0].digest
    assert open_program(path).artifacts[0].digest == first
    path.write_bytes(path.read_bytes() + b"\x22\x00")
    assert open_program(path).artifacts[0].digest != first
