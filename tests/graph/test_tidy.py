"""Passes that leave nothing superfluous."""

from __future__ import annotations

import numpy as np

from hetero.graph import evaluate
from hetero.graph.passes import drop_dead, drop_idle, drop_repeated, fold_constants, join_moves, simplify
from tests.graph.building import Builder, random_inputs, weights


def test_what_no_output_needs_is_dropped_with_its_constants() -> None:
    build = Builder()
    x = build.input("x", 4)
    build.op("Mul", build.op("Add", x, build.constant(weights(4))), x)
    graph = drop_dead(build.graph(build.op("Relu", x)))
    assert graph.count() == {"Relu": 1}
    assert not graph.constants


def test_what_is_known_is_worked_out() -> None:
    build = Builder()
    x = build.input("x", 2, 3)
    turned = build.op("Transpose", build.constant(weights(3, 2)), perm=(1, 0))
    graph = fold_constants(build.graph(build.op("Add", x, build.op("Mul", turned, build.constant(2.0)))))
    assert graph.count() == {"Add": 1}
    given = random_inputs(graph)
    np.testing.assert_array_equal(next(iter(evaluate(graph, given).values())), given["x"] + 2 * weights(3, 2).T)


def test_a_constant_that_would_become_far_larger_is_left_as_it_is() -> None:
    build = Builder()
    large = build.op("Expand", build.constant(1.0), shape=(1024, 1024))
    graph = build.graph(build.op("Add", build.input("x", 1024, 1024), large))
    assert fold_constants(graph).count() == {"Expand": 1, "Add": 1}


def test_a_known_output_is_a_constant_of_its_name() -> None:
    build = Builder()
    graph = fold_constants(build.graph(build.op("Neg", build.constant(2.0), output="out")))
    assert not graph.nodes
    assert evaluate(graph, {})["out"] == -2


def test_nodes_that_do_nothing_are_dropped() -> None:
    build = Builder()
    x = build.input("x", 2, 3)
    y = build.op("Identity", x)
    y = build.op("Reshape", y, shape=(2, 3))
    y = build.op("Transpose", y, perm=(0, 1))
    y = build.op("Slice", y, starts=(0, 0), sizes=(2, 3), steps=(1, 1))
    y = build.op("Pad", y, pads=(0, 0, 0, 0))
    y = build.op("Concat", y, axis=0)
    y = build.op("Cast", y, to="float32")
    graph = drop_idle(build.graph(build.op("Relu", y)))
    assert [node.inputs for node in graph.nodes] == [("x",)]


def test_a_slice_that_turns_a_dimension_round_is_no_identity() -> None:
    build = Builder()
    x = build.input("x", 3)
    assert drop_idle(build.graph(build.op("Slice", x, starts=(2,), sizes=(3,), steps=(-1,)))).count() == {"Slice": 1}


def test_an_identity_at_an_output_gives_its_name_to_the_node_before() -> None:
    build = Builder()
    x = build.input("x", 3)
    y = build.op("Relu", x)
    graph = drop_idle(build.graph(build.op("Identity", y, output="out"), build.op("Neg", y)))
    graph.verify()
    assert [(node.op, node.output) for node in graph.nodes] == [("Relu", "out"), ("Neg", "v2")]


def test_two_outputs_that_are_one_value_both_stay() -> None:
    build = Builder()
    x = build.input("x", 3)
    y = build.op("Relu", x)
    outputs = (
        build.op("Identity", y, output="a"),
        build.op("Identity", y, output="b"),
        build.op("Identity", x, output="c"),
    )
    graph = simplify(build.graph(*outputs))
    graph.verify()
    given = random_inputs(graph)
    got = evaluate(graph, given)
    assert got.keys() == {"a", "b", "c"}
    np.testing.assert_array_equal(got["a"], got["b"])
    np.testing.assert_array_equal(got["c"], given["x"])


def test_moves_in_a_row_become_one() -> None:
    build = Builder()
    x = build.input("x", 2, 3, 4)
    y = build.op("Transpose", build.op("Transpose", x, perm=(1, 2, 0)), perm=(1, 2, 0))
    z = build.op("Reshape", build.op("Reshape", y, shape=(24,)), shape=(4, 6))
    before = build.graph(z)
    graph = join_moves(before)
    assert graph.count() == {"Transpose": 1, "Reshape": 1}
    given = random_inputs(graph)
    np.testing.assert_array_equal(evaluate(graph, given)[z], evaluate(before, given)[z])


def test_moves_that_undo_each_other_are_gone() -> None:
    build = Builder()
    x = build.input("x", 2, 3, 4)
    y = build.op("Transpose", build.op("Transpose", x, perm=(1, 2, 0)), perm=(2, 0, 1))
    assert simplify(build.graph(build.op("Relu", y))).count() == {"Relu": 1}


def test_what_is_computed_twice_is_computed_once() -> None:
    build = Builder()
    x = build.input("x", 3)
    first, second = (build.op("Mul", x, build.constant(2.0)) for _ in range(2))
    graph = drop_repeated(build.graph(build.op("Add", first, second)))
    assert graph.count() == {"Mul": 1, "Add": 1}
    assert len(graph.constants) == 1


def test_nodes_that_differ_in_an_attribute_or_constants_in_their_dtype_are_not_repeated() -> None:
    build = Builder()
    x = build.input("x", 3, 3)
    both = build.op("Add", build.op("Softmax", x, axis=0), build.op("Softmax", x, axis=1))
    numbers = build.constant(1, np.int32), build.constant(1, np.float32)
    graph = drop_repeated(build.graph(both, *(build.op("Neg", number) for number in numbers)))
    assert graph.count() == {"Softmax": 2, "Add": 1, "Neg": 2}
    assert len(graph.constants) == 2


def test_a_repeated_output_keeps_its_name() -> None:
    build = Builder()
    x = build.input("x", 3)
    graph = drop_repeated(build.graph(build.op("Neg", x, output="a"), build.op("Neg", x, output="b")))
    graph.verify()
    assert graph.outputs == ("a", "b")
