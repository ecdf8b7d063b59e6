"""The graph: values of concrete shapes and nodes in the order in which they can run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hetero.errors import ProgramInvalid
from hetero.graph.node import Array, Node, ValueType, fresh_name, frozen
from hetero.graph.ops import infer


@dataclass(frozen=True)
class Graph:
    """A program as values and nodes. Nothing in it changes: a pass makes another graph, which shares the constants.

    Every value has one name and is an input, a constant or the output of one node. `Graph.build` infers the types and
    `with_nodes` derives one graph from another; neither leaves constants or types of values that are not there.

    Attributes:
        name: For people.
        inputs: Names, in the order of the program's inputs.
        outputs: Names, in the order of the program's outputs. An output may be an input or a constant.
        nodes: Each stands behind those whose values it takes.
        constants: Values that are known, by name; not writeable.
        types: Dtype and shape of every value, by name.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    constants: Mapping[str, Array]
    types: Mapping[str, ValueType]

    @classmethod
    def build(
        cls,
        name: str,
        inputs: Mapping[str, ValueType],
        outputs: Iterable[str],
        nodes: Iterable[Node],
        constants: Mapping[str, Array] | None = None,
    ) -> Graph:
        """A graph with the types of all its values inferred, verified.

        Raises:
            Unsupported: An op that is not in the table.
            ProgramInvalid: The nodes are out of order, name values that are not there, or take what they cannot.
        """
        bare = cls(name, tuple(inputs), tuple(outputs), (), {}, dict(inputs))
        graph = bare.with_nodes(nodes, constants or {})
        graph.verify()
        return graph

    def with_nodes(self, nodes: Iterable[Node], constants: Mapping[str, Array] | None = None) -> Graph:
        """The graph with other nodes, and constants added to those that it has.

        Types of new values are inferred. Constants that nothing uses any more are dropped; nodes are not (that is
        `passes.drop_dead`).

        Args:
            nodes: In an order in which they can run.
            constants: By name. One that a node gave before takes its place.

        Raises:
            Unsupported: An op that is not in the table.
            ProgramInvalid: A node takes a value that is not there yet, or what it cannot take.
        """
        ordered = tuple(nodes)
        known = {**self.constants, **(constants or {})}
        used = {value for node in ordered for value in node.inputs} | set(self.outputs)
        kept = {value: _fixed(array) for value, array in known.items() if value in used}
        types = {value: self.types[value] for value in self.inputs}
        types |= {value: ValueType.of(array) for value, array in kept.items()}
        for node in ordered:
            missing = [value for value in node.inputs if value and value not in types]
            if missing:
                raise node.broken(f"takes {missing[0]!r}, which is not there before it")
            if self.producers.get(node.output) is node:
                types |= {value: self.types[value] for value in node.outputs}
                continue
            inferred = infer(node, [types[value] if value else None for value in node.inputs])
            types |= dict(zip(node.outputs, inferred, strict=False))
        return Graph(self.name, self.inputs, self.outputs, ordered, kept, types)

    @cached_property
    def producers(self) -> Mapping[str, Node]:
        """The node that gives a value; inputs and constants are not in it."""
        return {value: node for node in self.nodes for value in node.outputs}

    @cached_property
    def consumers(self) -> Mapping[str, tuple[Node, ...]]:
        """The nodes that take a value, in their order, once for each time; values that nobody takes are not in it."""
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            for value in node.inputs:
                if value:
                    found.setdefault(value, []).append(node)
        return {value: tuple(nodes) for value, nodes in found.items()}

    def uses(self, value: str) -> int:
        """How often a value is taken: by nodes, and as an output of the graph."""
        return len(self.consumers.get(value, ())) + self.outputs.count(value)

    def type_of(self, value: str) -> ValueType | None:
        """A value's type; None for an input that is left out (`""`)."""
        return self.types[value] if value else None

    def input_types(self, node: Node) -> list[ValueType | None]:
        """The types of a node's inputs; None for those left out."""
        return [self.type_of(value) for value in node.inputs]

    def count(self) -> dict[str, int]:
        """How many nodes of each op there are, the most frequent first."""
        return dict(Counter(node.op for node in self.nodes).most_common())

    def fresh(self, stem: str) -> str:
        """A name that no value has: the stem, or with a number behind it."""
        return fresh_name(stem, self.types)

    def verify(self) -> None:
        """Check what every graph promises.

        Raises:
            Unsupported: An op that is not in the table.
            ProgramInvalid: A value is missing, defined twice or of another type than its node gives, a node stands
                before one that it needs, or something is left over; names it.
        """
        for value in (*self.inputs, *self.constants):
            if value not in self.types:
                raise ProgramInvalid(f"graph {self.name!r}: {value!r} has no type")
        for value, array in self.constants.items():
            if ValueType.of(array) != self.types[value]:
                raise ProgramInvalid(
                    f"graph {self.name!r}: the constant {value!r} is {ValueType.of(array)}, not {self.types[value]}"
                )
            if array.flags.writeable:
                raise ProgramInvalid(f"graph {self.name!r}: the constant {value!r} can be written to")
        defined = {*self.inputs, *self.constants}
        if len(defined) < len(self.inputs) + len(self.constants):
            raise ProgramInvalid(f"graph {self.name!r}: two inputs or constants have one name")
        for node in self.nodes:
            missing = [value for value in node.inputs if value and value not in defined]
            if missing:
                raise node.broken(f"takes {missing[0]!r}, which is not there before it")
            types = infer(node, self.input_types(node))
            for value, wanted in zip(node.outputs, types, strict=False):
                if value in defined:
                    raise node.broken(f"gives {value!r}, which is there already")
                if self.types.get(value) != wanted:
                    raise node.broken(f"gives {value!r} as {wanted}, but it is noted as {self.types.get(value)}")
                defined.add(value)
            if len(node.outputs) != len(types):
                raise node.broken(f"{len(node.outputs)} outputs, expected {len(types)}")
        missing = [value for value in self.outputs if value not in defined]
        if missing:
            raise ProgramInvalid(f"graph {self.name!r}: the output {missing[0]!r} is not there")
        if defined != set(self.types):
            surplus = sorted(set(self.types) - defined)
            raise ProgramInvalid(f"graph {self.name!r}: {surplus[0]!r} has a type but is not there")

    def __str__(self) -> str:
        lines = [f"graph {self.name}"]
        lines += [f"  input  %{value}: {self.types[value]}" for value in self.inputs]
        weight = sum(array.nbytes for array in self.constants.values())
        lines += [f"  {len(self.constants)} constants, {weight} bytes"]
        lines += [f"  {node} : {', '.join(str(self.types[value]) for value in node.outputs)}" for node in self.nodes]
        lines += [f"  output %{value}: {self.types[value]}" for value in self.outputs]
        return "\n".join(lines)


def _fixed(array: Array) -> Array:
    """The array, not writeable; a copy only where it is."""
    if not array.flags.writeable:
        return array
    return frozen(np.array(array))


def constant_of(graph: Graph, value: str) -> Array | None:
    """A value where it is known; None where it is not, or is left out."""
    return graph.constants.get(value) if value else None


def scalar_of(graph: Graph, value: str) -> float | None:
    """The number that a value is, where it is a known one of one element."""
    array = constant_of(graph, value)
    return float(array.reshape(-1)[0]) if array is not None and array.size == 1 else None
