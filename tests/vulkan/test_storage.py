"""Values of fp16 and matrices of int8 in the executor, against numpy in float32; run at every subgroup size too."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from hetero.backend import Call, Program
from hetero.graph import evaluate, import_onnx
from hetero.graph.passes import fuse
from hetero.onnx_file import open_onnx
from hetero.tensors import Array
from hetero_vulkan.backend import VulkanBackend
from hetero_vulkan.buffers import PlacedLater
from hetero_vulkan.executable import GraphExecutable
from hetero_vulkan.holder import DeviceHolder
from hetero_vulkan.nodes.elementwise import FUSED
from hetero_vulkan.nodes.lowering import Lowering
from hetero_vulkan.onnx_program import load_onnx
from hetero_vulkan.ops.tensors import Tensor
from hetero_vulkan.precision import PRECISIONS
from hetero_vulkan.storage import computed, halves, holds, kind_of_matrix, quantised, rounding, stored, tensor_of
from hetero_vulkan.weights import Matrix
from tests.models import save, tensor
from tests.vulkan.machine import Faults, Machine, with_matrices
from tests.vulkan.test_executable import known

Load = Callable[..., GraphExecutable]
OPTIONS = {option.name: option.default for option in VulkanBackend.options} | {"timeout": 60.0, "tune": False}
HALF_STEP = 2.0**-11
LARGE = float(np.finfo(np.float16).max)


@pytest.fixture
def load(machine: Machine, faults: Faults) -> Iterator[Load]:
    holder = DeviceHolder(machine.instance, machine.choice, None, faults.clock)
    loaded = []

    def made(program: Program, precision: str = "fp16-fp16", **options: Any) -> GraphExecutable:
        loaded.append(load_onnx(program, holder, None, {**OPTIONS, "precision": precision, **options}))
        return loaded[-1]

    yield made
    for executable in loaded:
        executable.close()
    holder.close()


def normal(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def program(
    path: Path, nodes: list[onnx.NodeProto], x: tuple[int, ...], dtype: Any = np.float32, **weights: Array
) -> Program:
    """A model of `x` and `y`."""
    model = save(path / "m.onnx", nodes, [tensor("x", x, dtype)], [tensor("y", None, dtype)], known(**weights))
    return open_onnx(model)


def block(path: Path, width: int, dtype: Any = np.float32, rows: int = 10, heads: int = 2) -> Program:
    """A layer of a transformer, as models have it: attention and a feed-forward part, both with residuals."""
    size = width // heads
    weights: dict[str, Array] = {f"w{name}": 0.3 * normal(seed, width, width) for seed, name in enumerate("qkvo")}
    weights |= {"w1": 0.3 * normal(5, width, 3 * width), "w2": 0.3 * normal(6, 3 * width, width)}
    weights |= {"b1": normal(7, 3 * width), "scale": normal(8, width), "shift": normal(9, width)}
    weights |= {"places": normal(10, rows, width), "root": np.array(size**-0.5, np.float32)}
    weights = {name: array.astype(dtype) for name, array in weights.items()}
    weights["apart"] = np.array([rows, heads, size], np.int64)
    weights["together"] = np.array([rows, width], np.int64)
    make = helper.make_node
    nodes = [make("Add", ["x", "places"], ["s"]), make("LayerNormalization", ["s", "scale", "shift"], ["n"], axis=-1)]
    for name in "qkv":
        nodes += [
            make("MatMul", ["n", f"w{name}"], [f"{name}0"]),
            make("Reshape", [f"{name}0", "apart"], [f"{name}1"]),
            make("Transpose", [f"{name}1"], [name], perm=[1, 2, 0] if name == "k" else [1, 0, 2]),
        ]
    nodes += [
        make("MatMul", ["q", "k"], ["scores"]),
        make("Mul", ["scores", "root"], ["scaled"]),
        make("Softmax", ["scaled"], ["p"], axis=-1),
        make("MatMul", ["p", "v"], ["o1"]),
        make("Transpose", ["o1"], ["o2"], perm=[1, 0, 2]),
        make("Reshape", ["o2", "together"], ["o3"]),
        make("MatMul", ["o3", "wo"], ["o4"]),
        make("Add", ["o4", "s"], ["r"]),
        make("MatMul", ["r", "w1"], ["f1"]),
        make("Add", ["f1", "b1"], ["f2"]),
        make("Relu", ["f2"], ["f3"]),
        make("MatMul", ["f3", "w2"], ["f4"]),
        make("Add", ["f4", "r"], ["z"]),
        make("Concat", ["z", "s"], ["y"], axis=-1),
    ]
    return program(path, nodes, (rows, width), dtype, **weights)


def expected(model: Program, x: Array) -> Array:
    graph = import_onnx(model.artifact("onnx").file, {"x": x.shape})
    return evaluate(graph, {"x": x})["y"].astype(np.float32)


def error(got: Array, right: Array) -> float:
    """The largest, as a share of the largest number."""
    assert got.shape == right.shape
    assert np.isfinite(got).all()
    return float(np.abs(got.astype(np.float32) - right).max() / np.abs(right).max())


@pytest.mark.parametrize("width", [8, 10, 26])
@pytest.mark.parametrize(
    ("precision", "most"), [("fp16", 2e-3), ("fp16-fp16", 4e-3), ("int8", 3e-2), ("int8-fp16", 3e-2)]
)
def test_a_layer_of_a_transformer_is_near_what_float32_gives(
    load: Load, tmp_path: Path, width: int, precision: str, most: float
) -> None:
    model, x = block(tmp_path, width), normal(1, 10, width)
    executable = load(model, precision)
    answer = executable.run({"x": x}, Call(0))["y"]
    assert answer.dtype == np.float32
    off = error(answer, expected(model, x))
    assert off < most
    # It did use fewer bits.
    assert off > 1e-5
    assert executable.details["precision"].startswith(precision + ": ")


def test_a_model_of_float16_gives_float16_and_sums_in_float32(load: Load, tmp_path: Path) -> None:
    model, x = block(tmp_path, 26, np.float16), normal(1, 10, 26).astype(np.float16)
    executable = load(model, "fp32")
    answer = executable.run({"x": x}, Call(0))["y"]
    assert answer.dtype == np.float16
    # The same weights in float32 are the same model without roundings in between.
    wide = block(tmp_path, 26)
    assert error(answer, expected(wide, x.astype(np.float32))) < 6e-3
    assert "what is float16 in the model stays so" in executable.details["precision"]
    assert "fp16" in executable.details["weights"]
    assert executable.min_cosine == 0.999


def test_sums_are_of_float32(load: Load, tmp_path: Path) -> None:
    """4096 ones and a thousandth each: sums of float16 would stop growing at 2048, or lose the thousandths."""
    w = np.full((4096, 8), 1.001, np.float16)
    make = helper.make_node
    model = program(
        tmp_path, [make("MatMul", ["x", "w"], ["p"]), make("Relu", ["p"], ["y"])], (2, 4096), np.float16, w=w
    )
    answer = load(model).run({"x": np.ones((2, 4096), np.float16)}, Call(0))["y"]
    np.testing.assert_array_equal(answer, (4096 * w[0, 0].astype(np.float64)).astype(np.float16))


def test_what_is_beyond_a_half_is_its_greatest_number_and_infinity_stays(load: Load, tmp_path: Path) -> None:
    make = helper.make_node
    thousand, least = np.array(1000, np.float32), np.array(1 / 1000, np.float32)
    nodes = [
        make("Mul", ["x", "thousand"], ["large"]),
        make("Tanh", ["x"], ["t"]),
        make("Mul", ["large", "least"], ["y"]),
    ]
    model = program(tmp_path, nodes, (7,), thousand=thousand, least=least)
    x = np.array([1, 65, -65, 1e20, -1e30, np.inf, np.nan], np.float32)
    executable = load(model)
    answer = executable.run({"x": x}, Call(0))["y"]
    right = np.array([1, 65, -65, LARGE / 1000, -LARGE / 1000, np.inf, np.nan], np.float32)
    np.testing.assert_allclose(answer, right, rtol=2 * HALF_STEP)
    assert "beyond 65504 are stored as 65504" in executable.details["precision"]
    np.testing.assert_allclose(load(model, "fp32").run({"x": x}, Call(0))["y"], x, rtol=1e-6)


@pytest.mark.parametrize("activation", ["Relu", "Gelu", "Sigmoid", "Tanh"])
def test_large_sums_give_no_infinity_and_no_nan(load: Load, tmp_path: Path, activation: str) -> None:
    make = helper.make_node
    nodes = [make("MatMul", ["x", "w"], ["p"]), make(activation, ["p"], ["a"]), make("Mul", ["a", "least"], ["y"])]
    if activation == "Gelu":
        weights = known(w=np.full((16, 16), 1e4, np.float32), least=np.array(1e-3, np.float32))
        file = save(tmp_path / "m.onnx", nodes, [tensor("x", (2, 16))], [tensor("y", None)], weights, opset=20)
        model = open_onnx(file)
    else:
        model = program(
            tmp_path, nodes, (2, 16), w=np.full((16, 16), 1e4, np.float32), least=np.array(1e-3, np.float32)
        )
    x = np.stack([np.full(16, 9, np.float32), np.full(16, -9, np.float32)])
    answer = load(model).run({"x": x}, Call(0))["y"]
    right = np.clip(expected(model, x), -LARGE * 1e-3, LARGE * 1e-3)
    np.testing.assert_allclose(answer, right, rtol=1e-3, atol=1e-7)


def test_squares_of_rows_are_not_squeezed_into_halves(load: Load, tmp_path: Path) -> None:
    """A normalisation by nodes of its own: squares of some hundreds are beyond fp16, their mean's root is not."""
    make = helper.make_node
    nodes = [
        make("Mul", ["x", "w"], ["s"]),
        make("Pow", ["s", "two"], ["q"]),
        make("ReduceMean", ["q"], ["m"], axes=[-1], keepdims=1),
        make("Add", ["m", "eps"], ["e"]),
        make("Sqrt", ["e"], ["r"]),
        make("Div", ["s", "r"], ["d"]),
        make("Relu", ["d"], ["y"]),
    ]
    weights = {"w": 1 + np.abs(normal(2, 16)), "two": np.array(2, np.float32), "eps": np.array(1e-5, np.float32)}
    model, x = program(tmp_path, nodes, (3, 16), **weights), 900 * normal(1, 3, 16)
    executable = load(model)
    assert error(executable.run({"x": x}, Call(0))["y"], expected(model, x)) < 2e-3
    told = executable.details["kept in fp32"]
    assert all(f"{op} 1" in told for op in ("Pow", "ReduceMean", "Add", "Sqrt"))
    assert "Div" not in told


def test_values_between_stay_fp32_where_weights_are_fp16(load: Load, tmp_path: Path) -> None:
    """Weights that fp16 has exactly cost nothing; with values of fp16 the same network is a hundred times off."""
    model, x = block(tmp_path, 26, dtype=np.float32), normal(1, 10, 26)
    held = onnx.load(model.artifact("onnx").file)
    for constant in held.graph.initializer:
        array = numpy_helper.to_array(constant)
        if array.dtype == np.float32:
            constant.CopyFrom(numpy_helper.from_array(halves(array).astype(np.float32), constant.name))
    onnx.save(held, tmp_path / "held.onnx")
    model = open_onnx(tmp_path / "held.onnx")
    wide, narrow = load(model, "fp16"), load(model, "fp16-fp16")
    right = expected(model, x)
    assert error(wide.run({"x": x}, Call(0))["y"], right) < 1e-6
    assert error(narrow.run({"x": x}, Call(0))["y"], right) > 1e-4
    assert "values in between, 0.0 MB more than in fp16" in wide.details["kept in fp32"]
    assert "fp16 changes" not in wide.details["weights"]
    # Of others half a step, 2^-11, at most.
    assert re.search(
        r"fp16 changes a number by at most 0\.000[1-5] of", load(block(tmp_path, 26), "fp16").details["weights"]
    )


def test_constants_that_fp16_does_not_hold_stay_fp32(load: Load, tmp_path: Path) -> None:
    """A mask of -1e9, places beyond 2048 and tiny numbers; beside them a table that it does hold."""
    make = helper.make_node
    constants: dict[str, Array] = {
        "mask": np.where(np.tri(4, dtype=bool), 0, -1e9).astype(np.float32),
        "places": np.arange(4001, 4017, dtype=np.float32).reshape(4, 4),
        "tiny": 1e-7 * (1 + np.abs(normal(3, 4, 4))),
        "table": normal(4, 4, 4),
    }
    nodes = [
        make("Add", ["x", "mask"], ["masked"]),
        make("Add", ["x", "places"], ["placed"]),
        make("Mul", ["x", "tiny"], ["t"]),
        make("Mul", ["x", "table"], ["u"]),
        make("Concat", ["masked", "placed", "t", "u"], ["y"], axis=0),
    ]
    model, x = program(tmp_path, nodes, (4, 4), **constants), np.ones((4, 4), np.float32)
    executable = load(model, "fp16")
    masked, placed, tiny, table = np.split(executable.run({"x": x}, Call(0))["y"], 4)
    np.testing.assert_array_equal(masked, constants["mask"] + 1)
    np.testing.assert_array_equal(placed, constants["places"] + 1)
    np.testing.assert_array_equal(tiny, constants["tiny"])
    np.testing.assert_array_equal(table, halves(constants["table"]).astype(np.float32))
    assert executable.sizes == {"f32": 3 * 4 * 16, "f16": 2 * 16}


@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_what_fp16_holds_is_within_half_a_step_of_the_largest(data: st.DataObject) -> None:
    shape = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    array = normal(data.draw(st.integers(0, 99)), *shape) * np.float32(10.0) ** data.draw(st.integers(-12, 8))
    array = np.rint(array) if data.draw(st.booleans()) else array
    largest = np.abs(array).max()
    off = float(np.abs(halves(array).astype(np.float64) - array).max())
    assert rounding(array) == pytest.approx(off / largest if largest else 0, rel=1e-3)
    whole = np.array_equal(array, np.rint(array))
    if holds(array):
        assert off <= (0 if whole else HALF_STEP * largest)
    else:
        assert off > 0
        assert whole or largest > LARGE or largest < 2.0**-14


@pytest.mark.parametrize(
    ("numbers", "held"),
    [
        ([0.0, -np.inf], True),
        ([0.5, np.inf, np.nan], True),
        ([np.nan, 2049], False),
        ([0.5, -3e38], False),
        ([0.5, np.inf, 7e4], False),
        ([], True),
        ([np.inf, -np.inf], True),
    ],
)
def test_infinity_and_nan_do_not_say_whether_fp16_holds_an_array(numbers: list[float], held: bool) -> None:
    assert holds(np.array(numbers, np.float32)) == held


def test_whole_numbers_in_floats_stay_exact(load: Load, tmp_path: Path) -> None:
    """Places beyond 2048, which fp16 has only every second of."""
    make = helper.make_node
    nodes = [
        make("Cast", ["x"], ["whole"], to=onnx.TensorProto.INT32),
        make("Add", ["whole", "many"], ["sum"]),
        make("Cast", ["sum"], ["float"], to=onnx.TensorProto.FLOAT),
        make("Add", ["float", "one"], ["next"]),
        make("Mul", ["next", "one"], ["y"]),
    ]
    model = program(tmp_path, nodes, (4,), many=np.array(4000, np.int32), one=np.array(1, np.float32))
    x = np.array([0, 1, 2, 3], np.float32)
    np.testing.assert_array_equal(load(model).run({"x": x}, Call(0))["y"], x + 4001)


def test_rows_that_share_words_go_by_way_of_float32(load: Load, tmp_path: Path) -> None:
    make = helper.make_node
    nodes = [
        make("MatMul", ["x", "w"], ["p"]),
        make("Concat", ["p", "p"], ["c"], axis=1),
        make("Softmax", ["c"], ["s"], axis=0),
        make("Mul", ["s", "c"], ["y"]),
    ]
    model, x = program(tmp_path, nodes, (5, 16), w=normal(1, 16, 7)), normal(2, 5, 16)
    executable = load(model)
    assert error(executable.run({"x": x}, Call(0))["y"], expected(model, x)) < 2e-3
    told = executable.details["by way of fp32"]
    assert all(f"{op} 1 (" in told for op in ("Concat", "Softmax"))
    assert "even numbers" in told
    assert "by way of fp32" not in load(model, "fp32").details


@pytest.mark.parametrize("lowest", [-np.inf, -3e38])
def test_a_mask_hides_what_it_hides(load: Load, tmp_path: Path, lowest: float) -> None:
    make = helper.make_node
    q = normal(1, 6, 8)
    mask = np.triu(np.full((6, 6), lowest, np.float32), 1)
    nodes = [
        make("MatMul", ["x", "w"], ["q"]),
        make("Transpose", ["q"], ["k"], perm=[1, 0]),
        make("MatMul", ["q", "k"], ["s"]),
        make("Add", ["s", "mask"], ["m"]),
        make("Softmax", ["m"], ["p"], axis=-1),
        make("MatMul", ["p", "q"], ["o"]),
        make("Relu", ["o"], ["y"]),
    ]
    model = program(tmp_path, nodes, (6, 8), mask=mask, w=normal(2, 8, 8))
    assert error(load(model).run({"x": q}, Call(0))["y"], expected(model, q)) < 4e-3


def test_memory_and_weights_are_half_and_a_quarter(load: Load, tmp_path: Path, machine: Machine) -> None:
    model = block(tmp_path, 64, rows=16)
    plans, weights = {}, {}
    for precision in PRECISIONS:
        executable = load(model, precision)
        (plan,) = executable.plans((("x", (16, 64)),))
        plans[precision], weights[precision] = plan.arena_bytes, executable.memory
        assert plan.end_bytes == 4 * 16 * (64 + 128)
        # What fp32 costs is told for those that could be narrower.
        assert plan.wide_bytes == (0 if precision.endswith("-fp16") else plan.arena_bytes / 2)
    assert plans["fp16-fp16"] == plans["fp32"] / 2 == plans["int8-fp16"]
    assert plans["fp16"] == plans["int8"] == plans["fp32"]
    assert weights["fp16"] == weights["fp16-fp16"] < 0.53 * weights["fp32"]
    assert weights["int8-fp16"] < 0.33 * weights["fp32"]


@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_int8_columns_keep_to_half_a_step_of_their_own(data: st.DataObject) -> None:
    k, n, seed = (data.draw(st.integers(1, 20)) for _ in range(3))
    matrix = normal(seed, k, n) * np.float32(10.0) ** data.draw(st.integers(-30, 30))
    matrix[:, 0] = 0
    whole, scales = quantised(matrix)
    assert whole.dtype == np.int8
    assert scales.shape == (n,)
    assert (np.abs(whole.astype(int)).max(axis=0)[1:] == 127).all()
    assert (np.abs(whole * scales.astype(np.float64) - matrix) <= 0.5001 * scales).all()
    assert (whole[:, 0] == 0).all()


def test_weights_that_are_not_finite_or_small_are_not_made_int8() -> None:
    int8 = PRECISIONS["int8"]
    good = normal(1, 64, 4)
    assert kind_of_matrix(good, int8) == "i8"
    assert kind_of_matrix(good[:4], int8) == "f32"
    good[3, 1] = np.inf
    assert kind_of_matrix(good, int8) == "f32"
    assert kind_of_matrix(good, PRECISIONS["int8-fp16"]) == "f16"


def test_halves_round_as_numpy_does_and_do_not_overflow() -> None:
    given_ = np.array([0.1, 65504, 65519, 65520, -1e9, np.inf, -np.inf, np.nan, 1e-9], np.float32)
    right = np.array([0.1, LARGE, LARGE, LARGE, -LARGE, np.inf, -np.inf, np.nan, 0], np.float16)
    np.testing.assert_array_equal(halves(given_), right)


class Recorded:
    """A device that is not there: it lists cooperative matrices, and notes the shaders that it is asked for."""

    def __init__(self) -> None:
        self.physical = with_matrices(
            limits={
                "maxComputeSharedMemorySize": 49152,
                "maxComputeWorkGroupCount": (65535, 65535, 65535),
                "minStorageBufferOffsetAlignment": 16,
            }
        )

    def pipeline(self, name: str, constants: dict[str, Any], **more: Any) -> Any:
        return SimpleNamespace(name=name, constants=constants)


class Nowhere:
    """Values of a graph for such a device."""

    def __init__(self, device: Any, graph: Any, precision: str) -> None:
        self.device, self.precision = device, PRECISIONS[precision]
        self.there = stored(graph, self.precision)

    def value(self, name: str) -> Tensor:
        kind = self.there[name]
        return tensor_of(PlacedLater(self.device, max(4, 4 * kind.size)), kind)

    def known(self, array: Array, dtype: Any = None) -> Tensor:
        return Tensor(PlacedLater(self.device, 4 * array.size), array.shape)

    def matrix(self, array: Array, packed: bool) -> Matrix:
        assert not packed
        kind = kind_of_matrix(array, self.precision)
        return Matrix(Tensor(PlacedLater(self.device, 4 * array.size), array.shape, kind))


@pytest.mark.parametrize(
    ("precision", "dtype", "families"),
    [
        ("fp16-fp16", np.float32, {"gemm_matrix"}),
        ("fp16", np.float32, {"gemm_tiles"}),
        ("fp32", np.float16, {"gemm_matrix"}),
        ("fp32", np.float32, {"gemm_tiles"}),
        ("int8-fp16", np.float32, {"gemm_tiles"}),
    ],
)
def test_products_of_halves_go_to_cooperative_matrices_where_these_are_listed(
    tmp_path: Path, precision: str, dtype: Any, families: set[str]
) -> None:
    """With 100 rows, which are no multiple of 16."""
    model = block(tmp_path, 32, dtype, rows=100)
    graph = fuse(import_onnx(model.artifact("onnx").file, {"x": (100, 32)}), activations=FUSED, residuals=True)
    device: Any = Recorded()
    lowering = Lowering(device, computed(graph), Nowhere(device, graph, precision), precision=PRECISIONS[precision])
    for node in graph.nodes:
        lowering.lower(node)
    steps: list[Any] = [step for step in lowering.steps if step.pipeline.name.startswith("gemm")]  # type: ignore[union-attr]
    assert len(steps) == 6
    assert {step.pipeline.name for step in steps} == families
    if families == {"gemm_matrix"}:
        # 7 squares of 16 rows hold 100; 32 columns are two, of one workgroup.
        assert {step.groups for step in steps if step.push["n"] == 32} == {(1, 7, 1)}
