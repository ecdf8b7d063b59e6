"""Whatever graph it is: passes change no answer, parts together answer like the whole, and memory is never shared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hetero.errors import ProgramInvalid
from hetero.graph import Graph, evaluate
from hetero.graph import passes as all_passes
from hetero.graph.memory import live_ranges, plan_arena, storages
from hetero.graph.ops import evaluate_node
from hetero.graph.partition import partition
from tests.graph.building import Array, graphs, random_inputs

PASSES: Mapping[str, Callable[[Graph], Graph]] = {
    name: getattr(all_passes, name) for name in all_passes.__all__ if name != "fuse"
} | {
    "fuse": all_passes.fuse,
    "fuse with everything": lambda graph: all_passes.fuse(
        graph, merge=2, activations=("Relu", "Tanh", "Sigmoid", "Gelu"), residuals=True
    ),
}


def same(got: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        assert got[name].dtype == array.dtype
        size = float(np.max(np.abs(array), initial=1.0))
        # Products of products can leave what the arithmetic can hold; then there is nothing to compare.
        assume(size < 1e9)
        np.testing.assert_allclose(got[name], array, rtol=1e-6, atol=1e-9 * size, err_msg=name)


@pytest.mark.parametrize("name", PASSES)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_pass_changes_no_answer_and_no_interface(name: str, data: st.DataObject) -> None:
    before = data.draw(graphs())
    after = PASSES[name](before)
    after.verify()
    assert after.inputs == before.inputs
    assert after.outputs == before.outputs
    given_ = random_inputs(before)
    same(evaluate(after, given_), evaluate(before, given_))


@pytest.mark.parametrize("name", ["simplify", "fuse", "fuse with everything"])
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_a_second_time_finds_nothing_more_to_do(name: str, data: st.DataObject) -> None:
    once = PASSES[name](data.draw(graphs()))
    assert len(PASSES[name](once).nodes) == len(once.nodes)


def fewest_turns(graph: Graph, claimed: set[str]) -> int:
    """By trying both kinds as the first: for each node, the earliest turn at which it can be."""
    best = []
    for start in (True, False):
        turn: dict[str, int] = {}
        for node in graph.nodes:
            earliest = max((turn.get(value, 0) for value in node.inputs), default=0)
            device = node.output in claimed
            turn[node.output] = earliest + ((device == start) != (earliest % 2 == 0))
        best.append(len(set(turn.values())))
    return min(best)


@given(graph=graphs(), seed=st.integers(0, 1000))
@settings(max_examples=150, deadline=None)
def test_parts_together_answer_like_the_whole_in_as_few_turns_as_can_be(graph: Graph, seed: int) -> None:
    rng = np.random.default_rng(seed)
    claimed = {node.output for node in graph.nodes if rng.random() < 0.5}
    cut = partition(graph, lambda node: node.output in claimed or "not today")
    seen: set[str] = set(graph.inputs)
    for part in cut.parts:
        part.graph.verify()
        assert seen.issuperset(part.graph.inputs)
        assert all((node.output in claimed) == part.device for node in part.graph.nodes)
        seen.update(part.graph.outputs)
    assert sorted(node.output for part in cut.parts for node in part.graph.nodes) == sorted(
        node.output for node in graph.nodes
    )
    assert all(a.device != b.device for a, b in zip(cut.parts, cut.parts[1:], strict=False))
    assert len(cut.parts) == fewest_turns(graph, claimed)
    given_ = random_inputs(graph)
    same(cut.run(given_, lambda part, inputs: evaluate(part.graph, inputs)), evaluate(graph, given_))


def run_in_arena(graph: Graph, alignment: int) -> dict[str, Array]:
    """The outputs, with every value written to its place in one piece of memory, which is overwritten as planned."""
    arena = plan_arena(graph, alignment, ends=True)
    memory = np.full(arena.size, 0xFF, dtype=np.uint8)
    whose = storages(graph)

    def place(value: str) -> Array:
        if whose[value] in graph.constants:
            return graph.constants[whose[value]].reshape(graph.types[value].shape)
        kind, start = graph.types[value], arena.offsets[whose[value]]
        return memory[start : start + kind.nbytes].view(kind.dtype).reshape(kind.shape)

    for name, array in random_inputs(graph).items():
        place(name)[...] = array
    for node in graph.nodes:
        (result,) = evaluate_node(node, [place(value) if value else None for value in node.inputs])
        if whose[node.output] == node.output:
            place(node.output)[...] = np.array(result)
    return {value: place(value).copy() for value in graph.outputs}


@given(graph=graphs(), alignment=st.sampled_from((8, 64, 256)))
@settings(max_examples=150, deadline=None)
def test_no_value_in_the_arena_is_overwritten_while_it_is_needed(graph: Graph, alignment: int) -> None:
    same(run_in_arena(graph, alignment), evaluate(graph, random_inputs(graph)))


@given(graph=graphs(), alignment=st.sampled_from((1, 64, 256)), ends=st.booleans())
@settings(max_examples=150, deadline=None)
def test_no_two_values_share_bytes_at_one_step(graph: Graph, alignment: int, ends: bool) -> None:
    arena, ranges = plan_arena(graph, alignment, ends=ends), live_ranges(graph)
    places = [(ranges[value], start, start + graph.types[value].nbytes) for value, start in arena.offsets.items()]
    assert all(start % alignment == 0 and end <= arena.size for _, start, end in places)
    assert arena.size % alignment == 0
    assert arena.size <= arena.separate
    for place, (first, start, end) in enumerate(places):
        for second, other_start, other_end in places[:place]:
            assert not first.overlaps(second) or end <= other_start or other_end <= start
    # No plan can do with less than the values that are needed at one step.
    steps = range(-1, len(graph.nodes) + 1)
    kept: Any = [(ranges[value], graph.types[value].nbytes) for value in arena.offsets]
    assert arena.size >= max(sum(size for live, size in kept if live.first <= step <= live.last) for step in steps)


@given(graph=graphs())
@settings(max_examples=60, deadline=None)
def test_nodes_that_do_not_follow_one_another_are_refused(graph: Graph) -> None:
    for place, node in enumerate(graph.nodes):
        if place and graph.nodes[place - 1].output in node.inputs:
            swapped = [*graph.nodes]
            swapped[place - 1 : place + 1] = reversed(swapped[place - 1 : place + 1])
            with pytest.raises(ProgramInvalid, match="not there before it"):
                graph.with_nodes(swapped)
