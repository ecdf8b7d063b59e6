"""Parts: as few as can be, with what was not claimed and why."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from hetero.errors import InputError
from hetero.graph import Graph, Node, evaluate
from hetero.graph.cost import Cost, cost_of, costs_by_op, total_cost
from hetero.graph.partition import Part, partition
from tests.graph.building import Array, Builder, random_inputs, weights


def ladder() -> Graph:
    """x -> Neg -> Exp -> Neg -> Exp -> sum, and beside it x -> Exp -> Neg -> the same sum."""
    build = Builder()
    x = build.input("x", 3)
    left = build.op("Exp", build.op("Neg", build.op("Exp", build.op("Neg", x))))
    right = build.op("Neg", build.op("Exp", x))
    return build.graph(build.op("Add", left, right))


def takes_exp(node: Node) -> bool | str:
    return node.op == "Exp" or f"{node.op} is for the host"


def on_device(part: Part, inputs: Mapping[str, Array]) -> dict[str, Array]:
    assert part.device
    return evaluate(part.graph, inputs)


def test_branches_share_turns() -> None:
    cut = partition(ladder(), takes_exp)
    # The right branch's Exp does not make a turn of its own in front; it waits for the left one's.
    assert [(part.device, part.graph.count()) for part in cut.parts] == [
        (False, {"Neg": 1}),
        (True, {"Exp": 2}),
        (False, {"Neg": 2}),
        (True, {"Exp": 1}),
        (False, {"Add": 1}),
    ]
    given = random_inputs(cut.whole)
    got, expected = cut.run(given, on_device), evaluate(cut.whole, given)
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(got[name], array)


@pytest.mark.parametrize(("claim", "device"), [(True, True), (False, False), ("", False)])
def test_what_is_claimed_wholly_or_not_at_all_is_one_part(claim: bool | str, device: bool) -> None:
    cut = partition(ladder(), lambda node: claim)
    assert [part.device for part in cut.parts] == [device]
    assert cut.parts[0].graph.nodes == cut.whole.nodes
    assert [reason for _, reason in cut.refused] == [] if device else ["not claimed"] * 7


def test_what_was_not_claimed_is_told_with_the_reason_and_the_share_of_the_work() -> None:
    lines = partition(ladder(), takes_exp).explain().splitlines()
    assert lines[1] == "part 1 on the device: 2 Exp (28.6% of the operations)"
    assert lines[-2:] == [
        "not on the device: 3 Neg: Neg is for the host",
        "not on the device: 1 Add: Add is for the host",
    ]


def test_parts_bring_their_constants_and_give_what_others_need() -> None:
    build = Builder()
    x = build.input("x", 2, 4)
    y = build.op("MatMul", x, build.constant(weights(4, 4)))
    z = build.op("Exp", y)
    cut = partition(build.graph(build.op("Add", z, build.constant(weights(4))), y, z), takes_exp)
    first, second, third = cut.parts
    assert (first.graph.inputs, first.graph.outputs, set(first.graph.constants)) == (("x",), (y,), {"c0"})
    assert (second.graph.inputs, second.graph.outputs) == ((y,), (z,))
    assert (set(third.graph.inputs), set(third.graph.constants)) == ({z}, {"c1"})
    assert cut.run(random_inputs(cut.whole), on_device).keys() == set(cut.whole.outputs)


def test_outputs_that_no_node_gives_are_delivered() -> None:
    build = Builder()
    x = build.input("x", 2)
    cut = partition(build.graph(x, build.constant([5.0])), takes_exp)
    assert cut.parts == ()
    got = cut.run({"x": np.ones(2, np.float32)}, on_device)
    np.testing.assert_array_equal(got["x"], [1, 1])
    np.testing.assert_array_equal(got["c0"], [5])


def test_inputs_that_do_not_fit_are_refused() -> None:
    cut = partition(ladder(), takes_exp)
    with pytest.raises(InputError, match="got the inputs z, expected x"):
        cut.run({"z": np.ones(3, np.float32)}, on_device)


def test_the_cost_of_a_linear_with_all_that_goes_into_it() -> None:
    build = Builder()
    x, residual = build.input("x", 2, 3, 4), build.input("r", 2, 3, 5)
    inputs = x, build.constant(weights(4, 5)), build.constant(weights(5)), residual
    graph = build.graph(build.op("Linear", *inputs, activation="Relu"))
    # 30 numbers of 4 products and sums each, then bias, activation and residual; four bytes a number.
    assert total_cost(graph) == Cost(30 * (8 + 3), 4 * (24 + 20 + 5 + 30), 4 * 30, 4 * (20 + 5))


@pytest.mark.parametrize("heads", [0, 2])
def test_attention_costs_the_same_with_heads_apart_or_together(heads: int) -> None:
    build = Builder()
    shapes = [(2, 5, 8), (2, 6, 8), (2, 6, 8)] if heads else [(2, 2, 5, 4), (2, 2, 6, 4), (2, 2, 6, 4)]
    q, k, v = (build.input(name, *shape) for name, shape in zip("qkv", shapes, strict=True))
    graph = build.graph(build.op("Attention", q, k, v, heads=heads, scale=0.5))
    # 2 x 2 x 5 x 6 scores: 4 products and sums for each, as many for its share of the result, scale and softmax.
    assert total_cost(graph).flops == 120 * (8 + 8 + 6)


def test_a_convolution_in_groups_costs_its_share_and_a_reshape_nothing() -> None:
    build = Builder()
    y = build.op("Conv", build.input("x", 1, 4, 8), build.constant(weights(6, 2, 3)), group=2, pads=(1, 1))
    graph = build.graph(build.op("Reshape", y, shape=(48,)))
    assert cost_of(graph, graph.nodes[0]).flops == 6 * 8 * 2 * 2 * 3
    assert cost_of(graph, graph.nodes[1]) == Cost()
    assert list(costs_by_op(graph)) == ["Conv", "Reshape"]
