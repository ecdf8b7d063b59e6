"""What a graph is made of: the types of values, and nodes."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hetero.errors import ProgramInvalid
from hetero.tensors import shape_text

Array = NDArray[Any]
Shape = tuple[int, ...]
#: Of inputs, by name.
Shapes = tuple[tuple[str, Shape], ...]
#: What an attribute can be; a dtype is given by its name (`float32`).
Attribute = int | float | str | tuple[int, ...]


def frozen(array: Array) -> Array:
    """The array itself, made read-only: a constant of a graph that nobody else writes to."""
    array.flags.writeable = False
    return array


def fresh_name(stem: str, taken: Container[str]) -> str:
    """A name that is not taken: the stem, or with a number behind it."""
    name, count = stem, 1
    while name in taken:
        count += 1
        name = f"{stem}_{count}"
    return name


@dataclass(frozen=True)
class ValueType:
    """Dtype and concrete shape of a value."""

    dtype: np.dtype[Any]
    shape: Shape

    @property
    def rank(self) -> int:
        """How many dimensions it has; 0 for a scalar."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """How many elements it has."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Its bytes when it lies in memory without gaps."""
        return self.size * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{self.dtype}{shape_text(self.shape)}"

    @classmethod
    def of(cls, array: Array) -> ValueType:
        """The type of an array."""
        return cls(array.dtype, array.shape)


@dataclass(frozen=True)
class Node:
    """One operation.

    Attributes:
        op: Its name in `hetero.graph.ops.OPS`.
        inputs: Names of values; `""` for an optional input that is left out.
        outputs: Names of values that no other node gives. Every op of the table has one.
        attributes: As the op's entry describes them; an attribute that is left out has the default given there.
        name: For people; what the model called it. Two nodes may have the same.
    """

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute] = field(default_factory=dict, hash=False)
    name: str = ""

    @property
    def output(self) -> str:
        """The name of its first output; no two nodes share it."""
        return self.outputs[0]

    def input(self, place: int) -> str:
        """The name of an input; `""` where it is left out, at the end too."""
        return self.inputs[place] if place < len(self.inputs) else ""

    def integer(self, attribute: str, default: int = 0) -> int:
        """An attribute that is a whole number."""
        return int(self.attributes.get(attribute, default))  # type: ignore[arg-type]

    def number(self, attribute: str, default: float = 0.0) -> float:
        """An attribute that is a number."""
        return float(self.attributes.get(attribute, default))  # type: ignore[arg-type]

    def text(self, attribute: str, default: str = "") -> str:
        """An attribute that is a word."""
        return str(self.attributes.get(attribute, default))

    def integers(self, attribute: str) -> tuple[int, ...]:
        """An attribute that is a list of whole numbers; `()` where it is left out."""
        value = self.attributes.get(attribute, ())
        assert isinstance(value, tuple)
        return value

    def broken(self, problem: str) -> ProgramInvalid:
        """The error that this node cannot be: names the node and the problem."""
        return ProgramInvalid(f"{self.op} {self.name or self.output!r}: {problem}")

    def __str__(self) -> str:
        attributes = " ".join(f"{key}={_text(value)}" for key, value in self.attributes.items())
        inputs = ", ".join(f"%{value}" if value else "-" for value in self.inputs)
        outputs = ", ".join(f"%{value}" for value in self.outputs)
        return f"{outputs} = {self.op}({inputs})" + (f" {{{attributes}}}" if attributes else "")


def _text(value: Attribute) -> str:
    if isinstance(value, tuple):
        return shape_text(value)
    return f"{value:.7g}" if isinstance(value, float) else str(value)
