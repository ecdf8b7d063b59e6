"""What every graph promises, and that breaking it is noticed."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

from hetero.errors import InputError, ProgramInvalid, Unsupported
from hetero.graph import Graph, Node, ValueType, evaluate
from tests.graph.building import Builder, random_inputs, weights


def small() -> Graph:
    build = Builder()
    x = build.input("x", 2, 4)
    y = build.op("MatMul", x, build.constant(weights(4, 3)))
    return build.graph(build.op("Relu", y, output="out"))


def test_types_of_all_values_are_inferred() -> None:
    graph = small()
    assert {value: str(kind) for value, kind in graph.types.items()} == {
        "x": "float32[2, 4]",
        "c0": "float32[4, 3]",
        "v0": "float32[2, 3]",
        "out": "float32[2, 3]",
    }


def test_a_graph_prints_its_inputs_nodes_with_attributes_and_outputs() -> None:
    build = Builder()
    x = build.input("x", 2, 3)
    graph = build.graph(build.op("Transpose", x, output="out", perm=(1, 0)))
    assert str(graph).splitlines() == [
        "graph test",
        "  input  %x: float32[2, 3]",
        "  0 constants, 0 bytes",
        "  %out = Transpose(%x) {perm=[1, 0]} : float32[3, 2]",
        "  output %out: float32[3, 2]",
    ]


def test_neither_a_graph_nor_its_constants_can_be_changed() -> None:
    graph = small()
    with pytest.raises(FrozenInstanceError):
        graph.name = "other"  # type: ignore[misc]
    with pytest.raises(ValueError, match="read-only"):
        graph.constants["c0"][0, 0] = 1


def test_building_a_graph_leaves_the_caller_s_array_writeable() -> None:
    array = np.ones(3, dtype=np.float32)
    Graph.build("g", {"x": ValueType.of(array)}, ["y"], [Node("Add", ("x", "c"), ("y",))], {"c": array})
    array[0] = 2


def test_constants_that_nothing_uses_are_left_out() -> None:
    graph = small()
    assert set(graph.with_nodes([Node("Relu", ("x",), ("out",))]).constants) == set()


def test_uses_count_consumers_and_outputs() -> None:
    build = Builder()
    x = build.input("x", 2)
    y = build.op("Add", x, x)
    graph = build.graph(y, build.op("Neg", y))
    assert graph.uses(x) == 2
    assert graph.uses(y) == 2


@pytest.mark.parametrize(
    ("nodes", "problem"),
    [
        ([Node("Relu", ("later",), ("out",)), Node("Relu", ("x",), ("later",))], "takes 'later', which is not there"),
        ([Node("Relu", ("x",), ("other",))], "the output 'out' is not there"),
        ([Node("Add", ("x",), ("out",))], "1 inputs, expected 2"),
        ([Node("Add", ("x", ""), ("out",))], "1 inputs, expected 2"),
        ([Node("Relu", ("x",), ("out",)), Node("Neg", ("x",), ("out",))], "gives 'out', which is there already"),
        ([Node("Relu", ("x",), ("x",)), Node("Relu", ("x",), ("out",))], "gives 'x', which is there already"),
        ([Node("Relu", ("x",), ("out", "more"))], "2 outputs, expected 1"),
        ([Node("Reshape", ("x",), ("out",), {"shape": (3, 3)})], "has not the elements of shape"),
        ([Node("Transpose", ("x",), ("out",), {"perm": (0, 0)})], "perm"),
        ([Node("Softmax", ("x",), ("out",), {"axis": 2})], "axis 2 of a value of rank 2"),
        ([Node("MatMul", ("x", "x"), ("out",))], "cannot be multiplied"),
    ],
)
def test_a_broken_graph_is_refused_with_the_node_s_problem(nodes: list[Node], problem: str) -> None:
    with pytest.raises(ProgramInvalid, match=problem):
        Graph.build("g", {"x": ValueType(np.dtype(np.float32), (2, 4))}, ["out"], nodes)


def test_an_op_that_is_not_known_is_refused_with_its_node() -> None:
    with pytest.raises(Unsupported, match="the op Einsum of 'e' is not known"):
        Graph.build("g", {"x": ValueType(np.dtype(np.float32), (2,))}, ["y"], [Node("Einsum", ("x",), ("y",), {}, "e")])


def test_a_type_that_is_not_what_the_node_gives_is_noticed() -> None:
    graph = small()
    wrong = replace(graph, types={**graph.types, "v0": ValueType(np.dtype(np.float32), (9,))})
    with pytest.raises(ProgramInvalid, match=r"gives 'v0' as float32\[2, 3\], but it is noted as float32\[9\]"):
        wrong.verify()


@pytest.mark.parametrize(
    "change", [{}, {"x": np.zeros((2, 4), np.float64)}, {"x": np.zeros(4, np.float32)}, {"y": np.zeros(1)}]
)
def test_evaluation_refuses_inputs_that_do_not_fit(change: dict[str, np.ndarray]) -> None:
    with pytest.raises(InputError):
        evaluate(small(), change)


def test_double_precision_is_kept_through_a_graph_of_single() -> None:
    graph = small()
    given = random_inputs(graph)
    (answer,) = evaluate(graph, given, double=True).values()
    expected = np.maximum(given["x"].astype(np.float64) @ weights(4, 3).astype(np.float64), 0)
    assert answer.dtype == np.float64
    np.testing.assert_allclose(answer, expected, rtol=1e-15)
    assert not np.array_equal(answer, answer.astype(np.float32))
    assert evaluate(graph, given)["out"].dtype == np.float32


def test_outputs_are_the_caller_s_own() -> None:
    build = Builder()
    x = build.input("x", 2, 2)
    graph = build.graph(build.op("Identity", x), build.constant(3.0))
    given = random_inputs(graph)
    before = given["x"].copy()
    for array in evaluate(graph, given).values():
        array[...] = 7
    np.testing.assert_array_equal(given["x"], before)
    assert graph.constants["c0"] == 3
