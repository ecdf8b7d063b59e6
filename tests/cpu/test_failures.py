"""A model that cannot be loaded ends in the right error, with a sentence that a person can use."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

import hetero
from hetero import Artifact, Program
from hetero.backend import DeviceLost, ExecutionError, OutOfMemory, Unsupported
from hetero.errors import ArtifactMissing, HeteroError, ProgramInvalid
from hetero.onnx_file import open_onnx
from hetero_cpu.backend import CpuBackend
from hetero_cpu.failures import load_failure, run_failure
from tests import models
from tests.cpu.conftest import Load


def test_a_newer_opset_names_both_and_the_way_out(load: Load, tmp_path: Path) -> None:
    with pytest.raises(
        Unsupported, match=r"^the model has opset 999; onnxruntime [\d.]+ reads up to opset \d+\n"
    ) as got:
        load(models.future_opset(tmp_path / "f.onnx"))
    assert "export the model with opset" in got.value.fix


def test_a_newer_ir_version_names_both(load: Load, tmp_path: Path) -> None:
    model = onnx.load(models.double(tmp_path / "d.onnx"))
    model.ir_version = 99
    (tmp_path / "d.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(
        Unsupported, match=r"the model has IR version 99; onnxruntime [\d.]+ reads up to IR version \d+"
    ):
        load(tmp_path / "d.onnx")


@pytest.mark.parametrize("domain", ["", "com.acme"])
def test_an_unknown_op_is_unsupported_and_named(load: Load, tmp_path: Path, domain: str) -> None:
    with pytest.raises(Unsupported, match="Frobnicate"):
        load(models.unknown_op(tmp_path / "u.onnx", domain))


def test_an_op_without_a_kernel_for_the_dtype_is_unsupported_and_named(load: Load, tmp_path: Path) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    with pytest.raises(Unsupported, match="Could not find an implementation for Add"):
        load(models.double(tmp_path / "b.onnx", (4,), ml_dtypes.bfloat16))


def test_a_graph_that_makes_no_sense_is_unsupported(load: Load, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="nowhere"):
        load(models.inconsistent(tmp_path / "i.onnx"))


def test_messages_have_neither_codes_nor_places_in_the_vendors_source(load: Load, tmp_path: Path) -> None:
    for broken in (models.inconsistent, models.unknown_op):
        with pytest.raises(Unsupported) as got:
            load(broken(tmp_path / "x.onnx"))
        for noise in ("[ONNXRuntimeError]", ".cc:", ".h:", "\n"):
            assert noise not in got.value.problem


def test_a_failing_load_prints_nothing(load: Load, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load(models.double(tmp_path / "d.onnx"))
    capfd.readouterr()  # what importing onnxruntime said
    with pytest.raises(Unsupported):
        load(models.unknown_op(tmp_path / "u.onnx"))
    assert capfd.readouterr() == ("", "")


def direct(path: Path, host: hetero.Host) -> hetero.Executable:
    """Loaded without opening the model first, as after a change between the two."""
    pytest.importorskip("onnxruntime")
    backend = CpuBackend(host)
    program = Program("x", (), (), (Artifact("onnx", path=path),))
    executable = backend.load(program, backend.probe()[0], {})
    executable.close()
    return executable


@pytest.mark.parametrize("content", [b"no model " * 50, b"\x08"])
def test_a_file_that_is_no_model_is_broken_for_every_device(host: hetero.Host, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.onnx").write_bytes(content)
    with pytest.raises(ProgramInvalid, match="not an ONNX model, or truncated"):
        direct(tmp_path / "x.onnx", host)


def test_a_truncated_model_is_broken_for_every_device(host: hetero.Host, tmp_path: Path) -> None:
    path = models.perceptron(tmp_path / "p.onnx", layers=1)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ProgramInvalid):
        direct(path, host)


def test_a_model_that_vanished_is_missing(host: hetero.Host, tmp_path: Path) -> None:
    with pytest.raises(ArtifactMissing, match=r"gone\.onnx"):
        direct(tmp_path / "gone.onnx", host)


def test_external_data_outside_the_models_folder_is_not_read(load: Load, tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    path = models.external_data(tmp_path / "inner" / "e.onnx", "../outside.bin")
    with pytest.raises(ProgramInvalid, match="outside the model's folder"):
        load(path)


def test_external_data_that_vanished_after_opening_is_an_error_that_names_it(host: hetero.Host, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    program = open_onnx(models.external_data(tmp_path / "e.onnx"))
    (tmp_path / "weights.bin").unlink()
    backend = CpuBackend(host)
    with pytest.raises(HeteroError, match=r"weights\.bin"):
        backend.load(program, backend.probe()[0], {})


class Fail(Exception):
    """As onnxruntime's: of no base but Exception, told apart by name and text."""


class InvalidArgument(Exception):
    pass


class DeviceReset(Exception):
    pass


MEMORY = (
    "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running ConstantOfShape node. Name:'big' "
    "Status Message: /src/onnxruntime/core/framework/bfc_arena.cc:360 "
    "void* onnxruntime::BFCArena::AllocateRawInternal(size_t, bool, onnxruntime::Stream*) "
    "Failed to allocate memory for requested buffer of size 17592186044416\n"
)
REMOVED = "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code 887A0005: The GPU device instance has been suspended."


@pytest.mark.parametrize(
    ("error", "expected", "message"),
    [
        (
            Fail(MEMORY),
            OutOfMemory,
            "not enough memory: ConstantOfShape node 'big': Failed to allocate memory for requested buffer of size "
            "17592186044416",
        ),
        (MemoryError("std::bad_alloc"), OutOfMemory, "not enough memory: std::bad_alloc"),
        (Fail(REMOVED), DeviceLost, "Non-zero status code 887A0005: The GPU device instance has been suspended."),
        (DeviceReset("device was reset"), DeviceLost, "device was reset"),
        (
            InvalidArgument("[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Invalid rank for input: a Got: 1 Expected: 2"),
            Unsupported,
            "onnxruntime refuses these inputs or their shapes: Invalid rank for input: a Got: 1 Expected: 2",
        ),
        (
            ValueError("Required inputs (['b']) are missing from input feed (['a'])."),
            Unsupported,
            "onnxruntime refuses these inputs or their shapes: "
            "Required inputs (['b']) are missing from input feed (['a']).",
        ),
        (Fail("[ONNXRuntimeError] : 1 : FAIL : it broke"), ExecutionError, "onnxruntime failed: it broke"),
        (Fail("x" * 1000), ExecutionError, "onnxruntime failed: " + "x" * 397 + "..."),
    ],
)
def test_run_failures_are_told_apart_and_shortened(error: Exception, expected: type[HeteroError], message: str) -> None:
    got = run_failure(error)
    assert type(got) is expected
    assert got.problem == message


def test_too_little_memory_to_load_is_no_refusal_of_the_model() -> None:
    assert type(load_failure(MemoryError("std::bad_alloc"), "1.0")) is OutOfMemory
