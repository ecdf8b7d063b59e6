"""What goes in comes out right, whatever the dtype and shape, and nobody's arrays are touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from hetero import Call
from hetero.errors import ClosedError, OutOfMemory, Unsupported
from tests import models
from tests.cpu.conftest import Load, call

RANDOM = np.random.default_rng(3)


def test_small_fixed_shapes_are_bound_and_answer_right(load: Load, tmp_path: Path) -> None:
    executable = load(models.matmul(tmp_path / "m.onnx", 8))
    assert executable.details["binding"] == "buffers"
    for _ in range(3):
        a, b = RANDOM.random((2, 8, 8), np.float32)
        np.testing.assert_allclose(call(executable, a=a, b=b)["c"], a @ b, rtol=1e-5)


@pytest.mark.parametrize("shape", [(70, 70), ("batch", 8)], ids=["large", "dynamic"])
def test_other_tensors_are_handed_over_and_answer_right(
    load: Load, tmp_path: Path, shape: tuple[int | str, ...]
) -> None:
    executable = load(models.double(tmp_path / "d.onnx", shape))
    assert executable.details["binding"] == "direct"
    x = RANDOM.random([size if isinstance(size, int) else 3 for size in shape]).astype(np.float32)
    np.testing.assert_array_equal(call(executable, x=x)["y"], x + x)


@pytest.mark.parametrize("path", ["buffers", "direct"])
def test_an_answer_is_not_written_to_by_later_calls_nor_by_closing(load: Load, tmp_path: Path, path: str) -> None:
    executable = load(models.double(tmp_path / "d.onnx", (4,) if path == "buffers" else ("n",)))
    assert executable.details["binding"] == path
    first = call(executable, x=np.ones(4, np.float32))["y"]
    second = call(executable, x=np.full(4, 5, np.float32))["y"]
    first[0] = -1  # the caller's own: no later answer may show it
    third = call(executable, x=np.ones(4, np.float32))["y"]
    executable.close()
    np.testing.assert_array_equal(first, [-1, 2, 2, 2])
    np.testing.assert_array_equal(second, np.full(4, 10))
    np.testing.assert_array_equal(third, np.full(4, 2))


@pytest.mark.parametrize("shape", [(4,), ("n",)], ids=["bound", "direct"])
def test_read_only_inputs_are_taken_and_left_alone(load: Load, tmp_path: Path, shape: tuple[int | str]) -> None:
    executable = load(models.double(tmp_path / "d.onnx", shape))
    x = np.arange(4, dtype=np.float32)
    x.setflags(write=False)
    np.testing.assert_array_equal(call(executable, x=x)["y"], [0, 2, 4, 6])
    np.testing.assert_array_equal(x, [0, 1, 2, 3])


def test_an_input_that_is_also_an_output_is_given_as_a_copy(load: Load, tmp_path: Path) -> None:
    path = models.save(
        tmp_path / "p.onnx",
        [helper.make_node("Add", ["x", "x"], ["y"])],
        [models.tensor("x", [4])],
        [models.tensor("x", [4]), models.tensor("y", [4])],
    )
    x = np.ones(4, np.float32)
    outputs = call(load(path), x=x)
    outputs["x"][:] = 9
    np.testing.assert_array_equal(x, np.ones(4))
    np.testing.assert_array_equal(outputs["y"], np.full(4, 2))


@pytest.mark.parametrize(
    "dtype", [np.float16, np.float32, np.float64, np.int8, np.uint8, np.int16, np.int32, np.int64, np.bool_]
)
@pytest.mark.parametrize("shape", [(4,), ("n",)], ids=["fixed", "dynamic"])
def test_every_common_dtype_passes_through(
    load: Load, tmp_path: Path, dtype: type[np.generic], shape: tuple[int | str]
) -> None:
    x = np.array([0, 1, 1, 0]).astype(dtype)
    (y,) = call(load(models.identity(tmp_path / "i.onnx", shape, dtype)), x=x).values()
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, x)


@pytest.mark.parametrize("shape", [(4,), ("n",)], ids=["fixed", "dynamic"])
@pytest.mark.parametrize("ends", ["in", "out", "both"])
def test_bfloat16_goes_in_and_comes_out(load: Load, tmp_path: Path, shape: tuple[int | str], ends: str) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    if not hasattr(pytest.importorskip("onnxruntime").OrtValue, "ortvalue_from_numpy_with_onnx_type"):
        pytest.skip("this onnxruntime is too old to exchange bfloat16")
    taken = ml_dtypes.bfloat16 if ends in ("in", "both") else np.float32
    given = ml_dtypes.bfloat16 if ends in ("out", "both") else np.float32
    target = TensorProto.BFLOAT16 if given is ml_dtypes.bfloat16 else TensorProto.FLOAT
    path = models.save(
        tmp_path / "b.onnx",
        [helper.make_node("Cast", ["x"], ["y"], to=target)],
        [models.tensor("x", shape, taken)],
        [models.tensor("y", shape, given)],
    )
    x = np.array([0.5, 1, -2, 3]).astype(taken)
    x.setflags(write=False)
    (y,) = call(load(path), x=x).values()
    assert y.dtype == given
    np.testing.assert_array_equal(y.astype(np.float32), [0.5, 1, -2, 3])


def test_a_dtype_that_onnxruntime_does_not_exchange_is_refused_at_load(load: Load, tmp_path: Path) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    path = models.save(
        tmp_path / "f.onnx",
        [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT8E4M3FN)],
        [models.tensor("x", [4])],
        [models.tensor("y", [4], ml_dtypes.float8_e4m3fn)],
        opset=19,
    )
    with pytest.raises(Unsupported, match="float8e4m3fn"):
        load(path)


@pytest.mark.parametrize("words", [["ab", "", "grüße 😀"], []])
def test_strings_pass_through(load: Load, tmp_path: Path, words: list[str]) -> None:
    (y,) = call(load(models.strings(tmp_path / "s.onnx")), x=np.array(words, object)).values()
    assert y.dtype == object
    assert list(y) == words


@pytest.mark.parametrize("shape", [("batch", 8), (0, 8), ()], ids=["dynamic", "fixed at zero", "scalar"])
def test_empty_arrays_and_scalars_work(load: Load, tmp_path: Path, shape: tuple[int | str, ...]) -> None:
    x = np.ones([0 if size == "batch" else int(size) for size in shape], np.float32)
    (y,) = call(load(models.double(tmp_path / "d.onnx", shape)), x=x).values()
    assert y.shape == x.shape
    np.testing.assert_array_equal(y, x + x)


def test_several_outputs_keep_their_names(load: Load, tmp_path: Path) -> None:
    x, y = np.arange(4, dtype=np.float32), np.full(4, 3, np.float32)
    outputs = call(load(models.two_outputs(tmp_path / "t.onnx")), x=x, y=y)
    np.testing.assert_array_equal(outputs["total"], x + y)
    np.testing.assert_array_equal(outputs["product"], x * y)


def test_many_dynamic_tensors_keep_their_names(load: Load, tmp_path: Path) -> None:
    inputs: dict[str, Any] = {f"x{i}": np.full((2, 8), i, np.float32) for i in range(25)}
    outputs = call(load(models.many(tmp_path / "m.onnx")), **inputs)
    assert {name: float(value[0, 0]) for name, value in outputs.items()} == {f"y{i}": 2.0 * i for i in range(25)}


def test_external_data_beside_the_model_is_read(load: Load, tmp_path: Path) -> None:
    x = RANDOM.random((2, 64), np.float32)
    (y,) = call(load(models.external_data(tmp_path / "e.onnx")), x=x).values()
    np.testing.assert_allclose(y, 2 * x, rtol=1e-6)


@pytest.mark.parametrize(
    ("x", "binding"),
    [
        (np.ones((4, 4), np.float32), "buffers"),
        (np.ones(1, np.float32), "buffers"),
        (np.ones((), np.float32), "buffers"),
        (np.ones(4, np.float64), "buffers"),
        (np.ones((2, 2, 2), np.float32), "direct"),
    ],
)
def test_a_shape_or_dtype_that_does_not_fit_is_refused_not_broadcast(
    load: Load, tmp_path: Path, x: np.ndarray[tuple[int, ...], np.dtype[np.floating]], binding: str
) -> None:
    executable = load(models.double(tmp_path / "d.onnx", (4,) if binding == "buffers" else ("n", 4)))
    assert executable.details["binding"] == binding
    with pytest.raises(Unsupported, match="refuses these inputs or their shapes"):
        call(executable, x=x)
    good = np.ones((4,) if binding == "buffers" else (1, 4), np.float32)
    np.testing.assert_array_equal(call(executable, x=good)["y"], good * 2)


def test_shapes_that_clash_inside_the_graph_are_unsupported_not_a_fault(load: Load, tmp_path: Path) -> None:
    ends = [models.tensor("x", ["n"]), models.tensor("y", ["m"]), models.tensor("z", ["k"])]
    path = models.save(tmp_path / "b.onnx", [helper.make_node("Add", ["x", "y"], ["z"])], ends[:2], ends[2:])
    with pytest.raises(Unsupported, match=r"Add node: Attempting to broadcast .* 3 by 4"):
        call(load(path), x=np.ones(3, np.float32), y=np.ones(4, np.float32))


def test_an_index_out_of_range_is_refused_and_the_next_call_works(load: Load, tmp_path: Path) -> None:
    executable = load(models.gather(tmp_path / "g.onnx", 4))
    with pytest.raises(Unsupported, match="out of data bounds, idx=9"):
        call(executable, index=np.array([9]))
    np.testing.assert_array_equal(call(executable, index=np.array([3, 0]))["y"], [3, 0])


def test_a_tensor_that_no_memory_holds_is_out_of_memory(load: Load, tmp_path: Path) -> None:
    node = helper.make_node("ConstantOfShape", ["shape"], ["y"])
    path = models.save(
        tmp_path / "c.onnx", [node], [models.tensor("shape", ["n"], np.int64)], [models.tensor("y", None)]
    )
    with pytest.raises(OutOfMemory):
        call(load(path), shape=np.array([1 << 42]))


def test_a_failing_run_prints_nothing(load: Load, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    executable = load(models.gather(tmp_path / "g.onnx"))
    capfd.readouterr()  # what importing onnxruntime said
    with pytest.raises(Unsupported):
        call(executable, index=np.array([99]))
    assert capfd.readouterr() == ("", "")


def test_a_closed_executable_says_so_and_can_be_closed_again(load: Load, tmp_path: Path) -> None:
    executable = load(models.double(tmp_path / "d.onnx"))
    executable.close()
    executable.close()
    with pytest.raises(ClosedError):
        executable.run({"x": np.ones(4, np.float32)}, Call())
