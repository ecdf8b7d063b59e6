"""Where a graph's values lie while it runs: how long each is needed, and an arena in which they share memory."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from hetero.errors import OptionError
from hetero.graph.ir import Graph

#: Ops whose output can be the memory of their first input.
VIEWS = ("Identity", "Reshape")


@dataclass(frozen=True)
class LiveRange:
    """When a value's memory must be kept: from one step to another, both included.

    Attributes:
        first: The place of the node that gives it; -1 for an input of the graph.
        last: The place of the last node that takes it; the number of nodes for an output of the graph.
    """

    first: int
    last: int

    def overlaps(self, other: LiveRange) -> bool:
        """Whether there is a step at which both are needed."""
        return self.first <= other.last and other.first <= self.last


def storages(graph: Graph, views: Collection[str] = VIEWS) -> dict[str, str]:
    """For every value, the value whose memory it is: itself, or what an op of `views` was made of.

    A view of a constant is that constant's memory. A view that is an output of the graph is memory of its own where it
    is made of an input, a constant or another output, which stay as they are.
    """
    found = {value: value for value in (*graph.inputs, *graph.constants)}
    for node in graph.nodes:
        for value in node.outputs:
            found[value] = value
        if node.op in views:
            root = found[node.inputs[0]]
            taken = root not in graph.producers or any(found.get(output) == root for output in graph.outputs)
            if not (node.output in graph.outputs and taken):
                found[node.output] = root
    return found


def live_ranges(graph: Graph, views: Collection[str] = VIEWS) -> dict[str, LiveRange]:
    """How long the memory of each value is needed; values that are others' memory and constants are not in it.

    Args:
        graph: The nodes run in their order.
        views: Ops whose output is their first input's memory.
    """
    storage = storages(graph, views)
    first: dict[str, int] = dict.fromkeys(graph.inputs, -1)
    last: dict[str, int] = dict.fromkeys(graph.inputs, -1)
    for place, node in enumerate(graph.nodes):
        for value in (*node.inputs, *node.outputs):
            if value and storage[value] not in graph.constants:
                first.setdefault(storage[value], place)
                last[storage[value]] = place
    for value in graph.outputs:
        if storage[value] in first:
            last[storage[value]] = len(graph.nodes)
    return {value: LiveRange(place, last[value]) for value, place in first.items()}


@dataclass(frozen=True)
class Arena:
    """One piece of memory for many values.

    Attributes:
        size: In bytes.
        offsets: Where each value's memory begins, in bytes.
        separate: The bytes that it would take without sharing.
    """

    size: int
    offsets: Mapping[str, int]
    separate: int


def plan_arena(graph: Graph, alignment: int = 256, *, views: Collection[str] = VIEWS, ends: bool = False) -> Arena:
    """An arena for the graph's values in which no two overlap that are needed at one step.

    The largest value is placed first, each into the smallest gap that holds it and else at the end: greedy by size with
    best fit, after Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020.

    Args:
        graph: The nodes run in their order.
        alignment: Every value begins at a multiple of it, in bytes, and the size is one.
        views: Ops whose output is their first input's memory; `storages` tells whose.
        ends: Place the graph's inputs and outputs too; else they are left to the caller.

    Raises:
        OptionError: The alignment is not positive.
    """
    if alignment < 1:
        raise OptionError(f"an alignment of {alignment} bytes, expected 1 or more")
    ranges = live_ranges(graph, views)
    if not ends:
        storage = storages(graph, views)
        outside = {storage[value] for value in (*graph.inputs, *graph.outputs)}
        ranges = {value: kept for value, kept in ranges.items() if value not in outside}
    sizes = {value: -(-graph.types[value].nbytes // alignment) * alignment for value in ranges}
    offsets: dict[str, int] = {}
    for value in sorted(ranges, key=lambda value: (-sizes[value], ranges[value].first, value)):
        taken = sorted(
            (offsets[other], offsets[other] + sizes[other])
            for other in offsets
            if ranges[other].overlaps(ranges[value])
        )
        offsets[value] = best_fit(taken, sizes[value])
    end = max((offset + sizes[value] for value, offset in offsets.items()), default=0)
    return Arena(end, offsets, sum(sizes.values()))


def best_fit(taken: list[tuple[int, int]], size: int) -> int:
    """Where to put `size` bytes: into the smallest gap that holds them, or behind everything.

    Args:
        taken: Begin and end of what is there, in order of the begin; may overlap.
        size: In bytes.
    """
    best, best_gap, end = None, 0, 0
    for start, stop in taken:
        gap = start - end
        if gap >= size and (best is None or gap < best_gap):
            best, best_gap = end, gap
        end = max(end, stop)
    return end if best is None else best
