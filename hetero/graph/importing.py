"""The state of an import: what is known so far, and the nodes that came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hetero.errors import ProgramInvalid, Unsupported
from hetero.graph.node import Array, Attribute, Node, ValueType, fresh_name
from hetero.graph.ops import evaluate_node, infer

# Larger values are not worked out on the way: nobody computes shapes of so many numbers, and folding can do it later.
_SMALL = 1 << 16


@dataclass(frozen=True)
class OnnxNode:
    """A node as the model has it.

    Attributes:
        op: The operator.
        domain: Of the operator; `""` for ONNX's own.
        inputs: Names in the model; `""` where one is left out.
        outputs: Names in the model; `""` where nobody wants one.
        attributes: Numbers, texts, lists, arrays, and graphs as they are.
        name: Its name, or its first output's.
    """

    op: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    name: str

    def has(self, place: int) -> bool:
        """Whether an input is given."""
        return place < len(self.inputs) and bool(self.inputs[place])

    def get(self, attribute: str, default: Any) -> Any:
        """An attribute, or what it is by default."""
        return self.attributes.get(attribute, default)

    def must(self, attribute: str) -> Any:
        """An attribute that has no default.

        Raises:
            ProgramInvalid: It is missing.
        """
        if attribute not in self.attributes:
            raise ProgramInvalid(f"{self.op} {self.name!r} lacks the attribute {attribute}")
        return self.attributes[attribute]

    def only(self, *known: str) -> None:
        """Refuse attributes that are not among these.

        Raises:
            Unsupported: Names the attribute.
        """
        for name, value in self.attributes.items():
            if name not in known:
                raise self.refused(f"the attribute {name}={value!r} is not known")

    def single(self) -> None:
        """Refuse outputs behind the first that something takes.

        Raises:
            Unsupported: There is one.
        """
        extra = [name for name in self.outputs[1:] if name]
        if extra:
            raise self.refused(f"the output {extra[0]!r} behind the first is not supported")

    def refused(self, problem: str) -> Unsupported:
        """The error that this node cannot be imported."""
        domain = f"{self.domain}." if self.domain else ""
        return Unsupported(
            f"{domain}{self.op} {self.name!r}: {problem}",
            fix="run the model on the CPU, or export it with other operators",
        )


class Importing:
    """Values and nodes so far. Rules for operators read from it and `emit` into it.

    Args:
        opset: Version of the operator set.
        bound: Inputs that are constants.
    """

    def __init__(self, opset: int, bound: Mapping[str, Array]) -> None:
        self.opset = opset
        self.bound = bound
        self.nodes: list[Node] = []
        self.constants: dict[str, Array] = {name: np.asarray(array) for name, array in bound.items()}
        self.types: dict[str, ValueType] = {}
        # Names in the model that stand for another value.
        self._aliases: dict[str, str] = {}

    def name(self, value: str) -> str:
        """The value that a name in the model stands for.

        Raises:
            ProgramInvalid: There is none.
        """
        found = self._aliases.get(value, value)
        if found and found not in self.types:
            raise ProgramInvalid(f"the model has no value {value!r} at the place where it is used")
        return found

    def inputs(self, node: OnnxNode) -> tuple[str, ...]:
        """The values that a node takes."""
        return tuple(self.name(value) for value in node.inputs)

    def type_of(self, node: OnnxNode, place: int = 0) -> ValueType:
        """The type of an input that must be there."""
        if not node.has(place):
            raise ProgramInvalid(f"{node.op} {node.name!r} lacks its input {place}")
        return self.types[self.name(node.inputs[place])]

    def known(self, node: OnnxNode, place: int) -> Array | None:
        """An input's value; None where it is left out or depends on the graph's inputs."""
        return self.constants.get(self.name(node.inputs[place])) if node.has(place) else None

    def needed(self, node: OnnxNode, place: int, what: str) -> Array:
        """An input's value, which shapes depend on.

        Raises:
            Unsupported: It depends on the graph's inputs.
        """
        value = self.known(node, place)
        if value is None:
            raise node.refused(f"{what} ({node.inputs[place] if node.has(place) else 'left out'}) must be constant")
        return value

    def define(self, name: str, array: Array) -> str:
        """A constant under the model's name for it."""
        own = self._own(name)
        self.constants[own] = array
        self.types[own] = ValueType.of(array)
        return own

    def constant(self, node: OnnxNode, array: Array) -> str:
        """A constant that the model does not have."""
        return self.define(fresh_name(f"{node.name}/constant", self.types), array)

    def alias(self, value: str, name: str) -> None:
        """Let `name` stand for what `value` stands for."""
        self._aliases[name] = self.name(value)

    def emit(
        self,
        node: OnnxNode,
        op: str,
        inputs: tuple[str, ...],
        output: str | None = None,
        **attributes: Attribute,
    ) -> str:
        """Add a node, or work its value out where it is known and small; quantised numbers are `fuse_quantised`'s.

        Args:
            node: The model's node that it comes from.
            op: Of the table.
            inputs: Values, as `name` gives them.
            output: The model's name for the result; None for a value in between, `""` is such a value too.
            attributes: Of the op.

        Returns:
            The result's value.
        """
        while inputs and not inputs[-1]:
            inputs = inputs[:-1]
        result = self._own(output) if output else fresh_name(f"{node.name}/{op}", self.types)
        made = Node(op, inputs, (result,), attributes, node.name)
        kind = infer(made, [self.types[value] if value else None for value in inputs])[0]
        self.types[result] = kind
        if (
            op != "DequantizeLinear"
            and kind.size <= _SMALL
            and all(value in self.constants for value in inputs if value)
        ):
            arrays = [self.constants[value] if value else None for value in inputs]
            self.constants[result] = np.array(evaluate_node(made, arrays)[0], order="C")
        else:
            self.nodes.append(made)
        return result

    def deliver(self, name: str) -> None:
        """Make an output of the graph a value of that name."""
        value = self.name(name)
        if value != name:
            self.nodes.append(Node("Identity", (value,), (name,), {}, name))
            self.types[name] = self.types[value]

    def _own(self, name: str) -> str:
        """The name itself, or another one where a branch of an `If` defined it before."""
        self._aliases.pop(name, None)
        if name not in self.types:
            return name
        self._aliases[name] = fresh_name(name, self.types)
        return self._aliases[name]
