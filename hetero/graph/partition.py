"""Cutting a graph into parts that a device runs and parts that the host runs, by what a backend claims."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from hetero.errors import InputError
from hetero.graph.cost import total_cost
from hetero.graph.evaluate import evaluate
from hetero.graph.ir import Graph
from hetero.graph.node import Array, Node

#: Whether a device runs a node: True, or False or the reason why not.
Claims = Callable[[Node], "bool | str"]
#: How a device runs a part: its graph and the part's inputs by name, giving the part's outputs by name.
RunPart = Callable[["Part", Mapping[str, Array]], Mapping[str, Array]]

_UNSAID = "not claimed"


@dataclass(frozen=True)
class Part:
    """Nodes that run together.

    Attributes:
        place: Among the parts, from 0.
        device: The device runs it; else the host.
        graph: Its inputs are inputs of the whole or outputs of earlier parts, under the same names.
    """

    place: int
    device: bool
    graph: Graph


@dataclass(frozen=True)
class Partition:
    """A graph in parts.

    Attributes:
        whole: The graph.
        parts: In the order in which they run; device and host take turns.
        refused: The nodes that were not claimed, each with the reason.
    """

    whole: Graph
    parts: tuple[Part, ...]
    refused: tuple[tuple[Node, str], ...]

    def run(self, inputs: Mapping[str, Array], device: RunPart) -> dict[str, Array]:
        """The outputs of the whole: the device's parts by `device`, the host's in numpy.

        Args:
            inputs: By name.
            device: Runs a part.

        Raises:
            InputError: An input that is missing or not known; those of parts are checked where they run.
        """
        if set(inputs) != set(self.whole.inputs):
            raise InputError(f"got the inputs {', '.join(sorted(inputs))}, expected {', '.join(self.whole.inputs)}")
        last = {value: part.place for part in self.parts for value in part.graph.inputs}
        constants = self.whole.constants
        values = {**inputs, **{value: constants[value] for value in self.whole.outputs if value in constants}}
        for part in self.parts:
            own = {value: values[value] for value in part.graph.inputs}
            values |= device(part, own) if part.device else evaluate(part.graph, own)
            for value in own:
                if last[value] == part.place and value not in self.whole.outputs:
                    del values[value]
        return {value: values[value] for value in self.whole.outputs}

    def explain(self) -> str:
        """What runs where and why, in lines for people."""
        flops = [total_cost(part.graph).flops for part in self.parts]
        lines = []
        for part in self.parts:
            ops = ", ".join(f"{count} {op}" for op, count in part.graph.count().items())
            where = "device" if part.device else "host"
            share = 100 * flops[part.place] / max(1, sum(flops))
            lines.append(f"part {part.place} on the {where}: {ops} ({share:.1f}% of the operations)")
        reasons = Counter((node.op, reason) for node, reason in self.refused)
        lines += [f"not on the device: {count} {op}: {reason}" for (op, reason), count in reasons.most_common()]
        return "\n".join(lines)


def partition(graph: Graph, claims: Claims) -> Partition:
    """The graph in as few parts as its order allows, device and host taking turns.

    Every part takes all nodes of its kind that can run when it begins, and those that can then: no order has fewer
    turns for the kind that begins, and both kinds are tried. Parts cannot wait for each other in a circle, as each
    needs only earlier ones.

    Args:
        graph: What to cut.
        claims: Asked once for each node, in order.
    """
    refused: dict[str, str] = {}
    for node in graph.nodes:
        answer = claims(node)
        if answer is not True:
            refused[node.output] = answer or _UNSAID
    tries = [list(_turns(graph, refused, device)) for device in (True, False)]
    chosen = min(tries, key=len)
    parts = tuple(Part(place, device, _cut(graph, nodes)) for place, (device, nodes) in enumerate(chosen))
    return Partition(
        graph, parts, tuple((node, refused[node.output]) for node in graph.nodes if node.output in refused)
    )


def _turns(graph: Graph, refused: Mapping[str, str], device: bool) -> Iterator[tuple[bool, list[Node]]]:
    """Turns of nodes, the first one the device's or the host's; an empty first one is left out."""
    there = {"", *graph.inputs, *graph.constants}
    waiting = list(graph.nodes)
    while waiting:
        taken: list[Node] = []
        held: list[Node] = []
        # Nodes stand in an order in which they can run, so one walk finds all that can.
        for node in waiting:
            if (node.output not in refused) == device and there.issuperset(node.inputs):
                taken.append(node)
                there.update(node.outputs)
            else:
                held.append(node)
        if taken:
            yield device, taken
        waiting, device = held, not device


def _cut(graph: Graph, nodes: Sequence[Node]) -> Graph:
    """The nodes as a graph: what they take from outside is its inputs, what others take its outputs."""
    inside = {value for node in nodes for value in node.outputs}
    taken = dict.fromkeys(value for node in nodes for value in node.inputs if value)
    inputs = [value for value in taken if value not in inside and value not in graph.constants]
    own = {node.output for node in nodes}
    outputs = [
        value
        for node in nodes
        for value in node.outputs
        if value in graph.outputs or any(user.output not in own for user in graph.consumers.get(value, ()))
    ]
    constants = {value: graph.constants[value] for value in taken if value in graph.constants}
    types = {value: graph.types[value] for value in (*inputs, *constants, *inside)}
    return Graph(graph.name, tuple(inputs), tuple(outputs), tuple(nodes), constants, types)
