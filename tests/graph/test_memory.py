"""Live ranges, views and the arena on graphs whose answers can be counted by hand."""

from __future__ import annotations

import pytest

from hetero.errors import OptionError
from hetero.graph.memory import LiveRange, best_fit, live_ranges, plan_arena, storages
from tests.graph.building import Builder, weights


def test_a_value_is_kept_from_its_node_to_its_last_use_and_outputs_to_the_end() -> None:
    build = Builder()
    x = build.input("x", 4)
    a = build.op("Neg", x)
    b = build.op("Exp", a)
    c = build.op("Add", a, b)
    ranges = live_ranges(build.graph(build.op("Mul", c, build.constant(2.0)), b))
    assert ranges == {
        "x": LiveRange(-1, 0),
        a: LiveRange(0, 2),
        b: LiveRange(1, 4),
        c: LiveRange(2, 3),
        "v3": LiveRange(3, 4),
    }


def test_an_input_that_nothing_takes_is_kept_nowhere_but_at_the_start() -> None:
    build = Builder()
    build.input("unused", 4)
    assert live_ranges(build.graph(build.op("Neg", build.input("x", 4))))["unused"] == LiveRange(-1, -1)


def test_a_reshape_is_its_input_s_memory_and_keeps_it() -> None:
    build = Builder()
    a = build.op("Neg", build.input("x", 4))
    view = build.op("Reshape", build.op("Reshape", a, shape=(2, 2)), shape=(4, 1))
    graph = build.graph(build.op("Exp", build.op("Neg", view)))
    assert storages(graph)[view] == a
    assert live_ranges(graph)[a] == LiveRange(0, 3)
    assert view not in live_ranges(graph)
    assert view in live_ranges(graph, views=())


def test_outputs_that_are_views_have_memory_of_their_own_where_they_must() -> None:
    build = Builder()
    x = build.input("x", 4)
    a = build.op("Neg", x)
    outputs = [
        build.op("Reshape", x, shape=(2, 2), output="of an input"),
        build.op("Reshape", build.constant(weights(4)), shape=(2, 2), output="of a constant"),
        build.op("Reshape", a, shape=(2, 2), output="first of a"),
        build.op("Reshape", a, shape=(1, 4), output="second of a"),
    ]
    found = storages(build.graph(*outputs))
    assert [found[name] for name in outputs] == ["of an input", "of a constant", a, "second of a"]


def test_a_chain_needs_two_places_however_long_it_is() -> None:
    build = Builder()
    value = build.input("x", 100)
    for _ in range(10):
        value = build.op("Neg", value)
    arena = plan_arena(build.graph(value), alignment=64)
    assert (arena.size, arena.separate) == (2 * 448, 9 * 448)


@pytest.mark.parametrize(
    ("size", "place"),
    [(4, 24), (6, 24), (7, 40), (8, 40), (9, 0), (10, 0), (11, 50)],
)
def test_the_smallest_gap_that_is_large_enough_is_taken(size: int, place: int) -> None:
    # Gaps: 10 bytes at 0, 6 at 24, 8 at 40; what overlaps leaves none between it.
    assert best_fit([(10, 20), (12, 24), (30, 40), (48, 50)], size) == place


def test_values_that_are_all_needed_at_once_share_nothing() -> None:
    build = Builder()
    x = build.input("x", 64)
    sizes = {"wide": 48, "narrow": 8, "first": 16, "second": 32}
    made = {name: build.op("Slice", x, starts=(0,), sizes=(size,), steps=(1,)) for name, size in sizes.items()}
    joined = build.op("Concat", *made.values(), axis=0)
    arena = plan_arena(build.graph(build.op("Neg", joined)), alignment=4)
    # All four and what they are joined to are needed at once: nothing can be shared.
    assert arena.size == arena.separate == 4 * (48 + 8 + 16 + 32 + 104)


def test_inputs_and_outputs_are_the_caller_s_unless_they_are_wanted() -> None:
    build = Builder()
    graph = build.graph(build.op("Exp", build.op("Neg", build.input("x", 4)), output="out"))
    assert set(plan_arena(graph).offsets) == {"v0"}
    assert set(plan_arena(graph, ends=True).offsets) == {"x", "v0", "out"}


def test_a_graph_of_nothing_but_ends_needs_no_memory() -> None:
    build = Builder()
    arena = plan_arena(build.graph(build.op("Neg", build.input("x", 4))))
    assert (arena.size, dict(arena.offsets), arena.separate) == (0, {}, 0)


def test_an_alignment_of_nothing_is_refused() -> None:
    build = Builder()
    with pytest.raises(OptionError, match="alignment of 0"):
        plan_arena(build.graph(build.op("Neg", build.input("x", 4))), alignment=0)
