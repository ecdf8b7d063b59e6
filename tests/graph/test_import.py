"""Importing ONNX: versions made one, shapes made concrete, and what cannot be imported told by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from hetero.errors import HeteroError, OptionError, ProgramInvalid, Unsupported
from hetero.graph import Graph, evaluate, import_onnx
from tests import models
from tests.graph.building import Array, random_inputs


def model(
    nodes: Sequence[onnx.NodeProto],
    weights: Mapping[str, Any] | None = None,
    shape: Sequence[int | str] = (2, 3, 4),
    opset: int = 17,
    outputs: Sequence[str] = ("y",),
    dtype: Any = np.float32,
) -> onnx.ModelProto:
    """A model of the input x; its outputs have no declared shape."""
    constants = [numpy_helper.from_array(np.asarray(array), name) for name, array in (weights or {}).items()]
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs]
    graph = helper.make_graph(nodes, "test", [models.tensor("x", shape, dtype)], ends, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def node(op: str, *inputs: str, outputs: Sequence[str] = ("y",), **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs or ("x",), outputs, **attributes)


def imported(nodes: Sequence[onnx.NodeProto], weights: Mapping[str, Any] | None = None, **options: Any) -> Graph:
    graph = import_onnx(model(nodes, weights, **options))
    graph.verify()
    return graph


def answer(graph: Graph, x: Array) -> Array:
    return evaluate(graph, {"x": x})["y"]


X = np.arange(-12, 12, dtype=np.float32).reshape(2, 3, 4)
F32 = np.float32


@pytest.mark.parametrize(
    ("old", "new", "weights", "expected"),
    [
        ((11, {"axes": [1]}), 13, {"a": [1]}, ("ReduceSum", X.sum(1, keepdims=True))),
        ((17, {"axes": [-1], "keepdims": 0}), 18, {"a": [-1]}, ("ReduceMean", X.mean(-1))),
        ((11, {"axes": [0]}), 13, {"a": [0]}, ("Unsqueeze", X[np.newaxis])),
    ],
)
def test_axes_may_be_an_attribute_or_an_input(
    old: tuple[int, dict[str, Any]], new: int, weights: dict[str, list[int]], expected: tuple[str, Array]
) -> None:
    op, wanted = expected
    opset, attributes = old
    others = {key: value for key, value in attributes.items() if key != "axes"}
    before = imported([node(op, **attributes)], opset=opset)
    after = imported([node(op, "x", "a", **others)], {"a": np.array(weights["a"])}, opset=new)
    assert [(found.op, found.attributes) for found in before.nodes] == [(n.op, n.attributes) for n in after.nodes]
    np.testing.assert_allclose(answer(before, X), wanted, rtol=1e-6)


@pytest.mark.parametrize(
    ("opset", "nodes", "weights"),
    [
        (10, [node("Clip", min=-3.0, max=5.0)], {}),
        (13, [node("Clip", "x", "low", "high")], {"low": F32(-3), "high": F32(5)}),
    ],
)
def test_bounds_of_clip_become_attributes(opset: int, nodes: list[onnx.NodeProto], weights: dict[str, Any]) -> None:
    graph = imported(nodes, weights, opset=opset)
    assert [(n.op, dict(n.attributes)) for n in graph.nodes] == [("Clip", {"min": -3.0, "max": 5.0})]
    np.testing.assert_array_equal(answer(graph, X), X.clip(-3, 5))


def test_bounds_of_clip_that_are_computed_become_min_and_max() -> None:
    graph = imported([node("ReduceMax", outputs=["high"]), node("Clip", "x", "", "high")])
    assert graph.count() == {"ReduceMax": 1, "Min": 1}
    np.testing.assert_array_equal(answer(graph, X), X)


@pytest.mark.parametrize(
    ("opset", "nodes", "weights"),
    [
        (9, [node("Slice", starts=[1], ends=[9], axes=[-1])], {}),
        (13, [node("Slice", "x", "s", "e", "a")], {"s": [1], "e": [9], "a": [2]}),
        (13, [node("Slice", "x", "s", "e", "a", "t")], {"s": [-3], "e": [2**62], "a": [2], "t": [1]}),
    ],
)
def test_every_form_of_a_slice_is_the_same_node(
    opset: int, nodes: list[onnx.NodeProto], weights: dict[str, Any]
) -> None:
    graph = imported(nodes, {key: np.array(value) for key, value in weights.items()}, opset=opset)
    (found,) = graph.nodes
    assert found.attributes == {"starts": (0, 0, 1), "sizes": (2, 3, 3), "steps": (1, 1, 1)}


@pytest.mark.parametrize("step", [-1, -2, 2, 3])
def test_steps_of_slices(step: int) -> None:
    ends = {"s": np.array([-1 if step < 0 else 0]), "e": np.array([-99 if step < 0 else 99])}
    graph = imported([node("Slice", "x", "s", "e", "a", "t")], {**ends, "a": np.array([2]), "t": np.array([step])})
    np.testing.assert_array_equal(answer(graph, X), X[:, :, ::step])


@pytest.mark.parametrize(
    ("opset", "attributes", "sizes", "counts"),
    [(11, {"split": [1, 3]}, None, (1, 3)), (13, {}, [1, 3], (1, 3)), (18, {"num_outputs": 2}, None, (2, 2))],
)
def test_a_split_becomes_slices(
    opset: int, attributes: dict[str, Any], sizes: list[int] | None, counts: tuple[int, int]
) -> None:
    inputs = ("x", "sizes") if sizes else ("x",)
    split = node("Split", *inputs, outputs=["y", "z"], axis=-1, **attributes)
    graph = imported([split], {"sizes": np.array(sizes)} if sizes else {}, opset=opset, outputs=("y", "z"))
    assert graph.count() == {"Slice": 2}
    got = evaluate(graph, {"x": X})
    np.testing.assert_array_equal(got["y"], X[..., : counts[0]])
    np.testing.assert_array_equal(got["z"], X[..., counts[0] :])


def test_an_output_of_a_split_that_nobody_takes_costs_nothing() -> None:
    graph = imported([node("Split", outputs=["y", "z"], axis=-1)], opset=11)
    assert len(graph.nodes) == 1


def test_softmax_before_opset_13_takes_the_later_dimensions_together() -> None:
    graph = imported([node("Softmax", axis=1)], opset=11)
    exponents = np.exp(X - X.max((1, 2), keepdims=True))
    np.testing.assert_allclose(answer(graph, X), exponents / exponents.sum((1, 2), keepdims=True), rtol=1e-6)
    assert imported([node("Softmax", axis=-1)], opset=11).count() == {"Softmax": 1}


@pytest.mark.parametrize(
    ("op", "weights", "attributes", "shape"),
    [
        ("Squeeze", {}, {"axes": [0]}, (3, 4)),
        ("Squeeze", {}, {}, (3, 4)),
        ("Unsqueeze", {}, {"axes": [0, -1]}, (1, 1, 3, 4, 1)),
        ("Flatten", {}, {"axis": -1}, (3, 4)),
        ("Flatten", {}, {}, (1, 12)),
        ("Reshape", {"s": [0, -1, 2]}, {}, (1, 6, 2)),
    ],
)
def test_what_only_changes_the_shape_is_a_reshape(
    op: str, weights: dict[str, Any], attributes: dict[str, Any], shape: tuple[int, ...]
) -> None:
    arrays = {key: np.array(value) for key, value in weights.items()}
    graph = imported([node(op, "x", *arrays, **attributes)], arrays, shape=(1, 3, 4), opset=11)
    assert graph.count() == {"Reshape": 1}
    assert graph.types["y"].shape == shape


def test_gemm_becomes_a_product_with_what_goes_with_it() -> None:
    b, c = np.ones((5, 3), F32), np.arange(5, dtype=F32)
    gemm = node("Gemm", "x", "b", "c", transB=1, transA=1, alpha=0.5, beta=2.0)
    graph = imported([gemm], {"b": b, "c": c}, shape=(3, 2))
    x = np.arange(6, dtype=F32).reshape(3, 2)
    assert set(graph.count()) == {"Transpose", "MatMul", "Mul", "Add"}
    np.testing.assert_allclose(answer(graph, x), 0.5 * x.T @ b.T + 2 * c, rtol=1e-6)


def test_shapes_are_worked_out_and_leave_nothing_behind() -> None:
    nodes = [
        node("Shape", outputs=["s"]),
        node("Gather", "s", "first", outputs=["n"]),
        node("Unsqueeze", "n", "axis", outputs=["n1"]),
        node("Concat", "n1", "rest", outputs=["shape"], axis=0),
        node("Reshape", "x", "shape"),
    ]
    weights = {"first": np.array(0), "axis": np.array([0]), "rest": np.array([-1])}
    graph = imported(nodes, weights)
    assert graph.count() == {"Reshape": 1}
    assert graph.types["y"].shape == (2, 12)
    assert not graph.constants


def test_ranges_and_filled_shapes_are_constants() -> None:
    nodes = [
        node("Shape", outputs=["s"]),
        node("ConstantOfShape", "s", outputs=["f"], value=numpy_helper.from_array(np.array([2.5], F32))),
        node("Range", "zero", "four", "one", outputs=["r"]),
        node("Add", "f", "r", outputs=["t"]),
        node("Add", "x", "t"),
    ]
    graph = imported(nodes, {"zero": F32(0), "four": F32(4), "one": F32(1)})
    assert graph.count() == {"Add": 1}
    np.testing.assert_array_equal(answer(graph, X), X + 2.5 + np.arange(4))


def test_what_does_nothing_when_not_training_is_gone() -> None:
    nodes = [
        node("Dropout", outputs=["d", "mask"]),
        node("Identity", "d", outputs=["i"]),
        node("Cast", "i", outputs=["c"], to=1),
        node("Relu", "c"),
    ]
    assert [found.inputs for found in imported(nodes).nodes] == [("x",)]


def test_an_output_that_is_the_input_is_delivered() -> None:
    graph = imported([node("Identity")])
    np.testing.assert_array_equal(answer(graph, X), X)


@pytest.mark.parametrize("condition", [True, False])
def test_an_if_of_a_known_condition_is_its_branch(condition: bool) -> None:
    def branch(op: str) -> onnx.GraphProto:
        end = helper.make_tensor_value_info("inner", onnx.TensorProto.FLOAT, None)
        return helper.make_graph([node(op, "x", "one", outputs=["inner"])], op, [], [end])

    nodes = [
        node("If", "c", then_branch=branch("Add"), else_branch=branch("Mul"), outputs=["a"]),
        node("If", "c", then_branch=branch("Mul"), else_branch=branch("Sub"), outputs=["b"]),
        node("Concat", "a", "b", axis=0),
    ]
    graph = imported(nodes, {"c": np.array(condition), "one": F32(3)})
    expected = (X + 3, X * 3) if condition else (X * 3, X - 3)
    np.testing.assert_array_equal(answer(graph, X), np.concatenate(expected))


def test_functions_of_the_model_are_inlined() -> None:
    twice = helper.make_function(
        "own", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 17)]
    )
    made = model([helper.make_node("Twice", ["x"], ["y"], domain="own")])
    made.functions.append(twice)
    made.opset_import.append(helper.make_opsetid("own", 1))
    np.testing.assert_array_equal(answer(import_onnx(made), X), 2 * X)


def test_symbolic_dimensions_get_their_sizes_by_name_or_by_the_input_s_shape() -> None:
    made = model([node("Relu")], shape=("batch", 3, "width"))
    for sizes in ({"batch": 5, "width": 7}, {"x": (5, 3, 7)}):
        assert import_onnx(made, sizes).types["y"].shape == (5, 3, 7)


@pytest.mark.parametrize(
    ("sizes", "problem"),
    [
        ({}, r"dimension 0 of the input 'x' \(batch\) has no size"),
        ({"batch": 1, "bacth": 2}, "no input or dimension 'bacth'"),
        ({"x": (1, 4)}, r"'x' is \[batch, 3\], \[1, 4\] does not fit"),
        ({"x": (1, 3, 1)}, r"\[1, 3, 1\] does not fit"),
        ({"x": (-1, 3)}, r"\[-1, 3\] does not fit"),
    ],
)
def test_sizes_that_are_missing_or_wrong_are_told(sizes: dict[str, Any], problem: str) -> None:
    with pytest.raises(OptionError, match=problem):
        import_onnx(model([node("Relu")], shape=("batch", 3)), sizes)


def test_an_input_that_is_always_the_same_becomes_a_constant() -> None:
    made = model([node("Reshape", "x", "s")])
    made.graph.input.append(models.tensor("s", [2], np.int64))
    graph = import_onnx(made, values={"s": np.array([4, 6])})
    assert graph.inputs == ("x",)
    assert graph.types["y"].shape == (4, 6)
    with pytest.raises(Unsupported, match=r"Reshape 'y': shape \(s\) must be constant"):
        import_onnx(made)
    with pytest.raises(OptionError, match="expected int64"):
        import_onnx(made, values={"s": np.array([4.0, 6.0])})


@pytest.mark.parametrize(
    ("nodes", "options", "problem"),
    [
        ([node("NonZero", name="nz")], {}, "NonZero 'nz': the operator is not supported"),
        ([helper.make_node("FusedThing", ["x"], ["y"], domain="com.acme")], {}, "com.acme.FusedThing 'y'"),
        ([node("Add", "x", "x", broadcast=1)], {}, "Add 'y': the attribute broadcast=1 is not known"),
        ([node("Conv", "x", "x", auto_pad="ODD")], {}, "auto_pad='ODD' is not known"),
        ([node("MaxPool", outputs=["a", "y"], kernel_shape=[2])], {}, "the output 'y' behind the first"),
        ([node("BatchNormalization", *"xxxxx", training_mode=1)], {}, "only normalisation by the stored mean"),
        ([node("Cast", to=onnx.TensorProto.BFLOAT16)], {}, "element type BFLOAT16"),
        ([node("Relu")], {"opset": 6}, "opset 6, expected 7 to"),
        ([node("Relu")], {"dtype": object}, "the input 'x' is of the element type STRING"),
    ],
)
def test_what_is_not_supported_is_told_by_name(
    nodes: list[onnx.NodeProto], options: dict[str, Any], problem: str
) -> None:
    with pytest.raises(Unsupported, match=problem):
        import_onnx(model(nodes, **options))


@pytest.mark.parametrize(
    ("nodes", "weights", "problem"),
    [
        ([node("Relu", "nowhere")], {}, "no value 'nowhere'"),
        ([node("Relu", outputs=["z"])], {}, "no value 'y'"),
        ([node("MatMul", "x", "w")], {"w": np.zeros((3, 3), F32)}, "4 columns, 3 rows"),
        ([node("Reshape", "x", "s")], {"s": np.array([5, 5])}, "has not the elements of shape"),
        ([node("Concat")], {}, "lacks the attribute axis"),
        ([node("Squeeze", "x", "s")], {"s": np.array([0])}, "Squeeze 'y' is not valid: axes"),
        ([node("Gather", "x", "i", axis=1)], {"i": np.array([3])}, "indices from 3 to 3 in a dimension of 3"),
        ([node("Unsqueeze", "x", "s")], {"s": np.array([0, 0])}, "not different ones"),
        ([node("Add")], {}, "1 inputs, expected 2"),
        ([helper.make_node("Softmax", [], ["y"])], {}, "lacks its input 0"),
        ([node("Transpose", perm=[0, 1])], {}, "perm"),
        ([node("Tile", "x", "r")], {"r": np.array([1])}, "repeats"),
    ],
)
def test_models_that_contradict_themselves_are_refused(
    nodes: list[onnx.NodeProto], weights: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ProgramInvalid, match=problem):
        import_onnx(model(nodes, weights))


@pytest.mark.parametrize("data", [b"", b"no model at all", model([node("Relu")]).SerializeToString()[:-9]])
def test_bytes_that_are_no_model_are_refused(data: bytes) -> None:
    with pytest.raises(HeteroError):
        import_onnx(data)


def test_files_with_external_data_are_read_and_checked(tmp_path: Path) -> None:
    path = models.external_data(tmp_path / "m.onnx", n=8)
    graph = import_onnx(path, {"batch": 2})
    x = random_inputs(graph)["x"]
    np.testing.assert_array_equal(evaluate(graph, {"x": x})["y"], 2 * x)
    (tmp_path / "weights.bin").write_bytes(b"short")
    with pytest.raises(ProgramInvalid, match="truncated"):
        import_onnx(path, {"batch": 2})


def test_bytes_and_files_give_the_same_graph(tmp_path: Path) -> None:
    path = models.perceptron(tmp_path / "p.onnx", layers=2, n=8)
    from_file, from_bytes = (import_onnx(source, {"batch": 3}) for source in (path, path.read_bytes()))
    assert str(from_file) == str(from_bytes)


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_auto_pad_is_what_onnx_runtime_makes_of_it(mode: str, stride: int) -> None:
    ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    weight = np.random.default_rng(2).standard_normal((6, 2, 3, 2), dtype=F32)
    conv = node("Conv", "x", "w", auto_pad=mode, strides=[stride] * 2, group=2)
    made = model([conv], {"w": weight}, shape=(2, 4, 9, 10))
    x = np.random.default_rng(3).standard_normal((2, 4, 9, 10), dtype=F32)
    session = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(answer(import_onnx(made), x), session.run(None, {"x": x})[0], rtol=1e-5, atol=1e-5)
