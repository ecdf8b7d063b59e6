"""The table of ops: one entry an op, with its inference, its evaluation in numpy and its cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from hetero.errors import Unsupported
from hetero.graph.node import Array, Node, ValueType

#: Types of a node's inputs; None for one that is left out.
Types = Sequence[ValueType | None]
#: A node's inputs; None for one that is left out.
Arrays = Sequence[Array | None]
Infer = Callable[[Node, Types], ValueType]
Evaluate = Callable[[Node, Arrays], Array]
#: Of a node with these inputs and this output.
Flops = Callable[[Node, Types, ValueType], int]

_T = TypeVar("_T")


@dataclass(frozen=True)
class Op:
    """What is known of an op.

    Attributes:
        name: As nodes call it.
        inputs: How many inputs it takes: at least, and at most.
        infer: The type of its output. Raises ProgramInvalid where the inputs do not fit.
        evaluate: Its output, of exactly the type that `infer` tells; may be a view of an input.
        flops: How many operations on numbers it takes.
    """

    name: str
    inputs: tuple[int, int]
    infer: Infer
    evaluate: Evaluate
    flops: Flops


#: Every op, by its name.
OPS: dict[str, Op] = {}


def register(
    name: str, inputs: int | tuple[int, int], infer: Infer, evaluate: Evaluate, flops: Flops | float = 0
) -> None:
    """Add an entry.

    Args:
        name: As nodes call it.
        inputs: How many: exactly, or at least and at most.
        infer: As `Op.infer`.
        evaluate: As `Op.evaluate`.
        flops: As `Op.flops`, or so many for each element of the output.
    """
    assert name not in OPS, name
    bounds = (inputs, inputs) if isinstance(inputs, int) else inputs
    if isinstance(flops, int | float):
        each = flops
        OPS[name] = Op(name, bounds, infer, evaluate, lambda node, types, output: int(each * output.size))
    else:
        OPS[name] = Op(name, bounds, infer, evaluate, flops)


def op_of(node: Node) -> Op:
    """The node's entry.

    Raises:
        Unsupported: There is none.
    """
    op = OPS.get(node.op)
    if op is None:
        raise Unsupported(
            f"the op {node.op} of {node.name or node.output!r} is not known to hetero's graphs",
            fix="run the model on the CPU, or express the op by others when exporting",
        )
    return op


def infer(node: Node, types: Types) -> tuple[ValueType, ...]:
    """The types of a node's outputs.

    Raises:
        Unsupported: The op is not known.
        ProgramInvalid: The inputs do not fit.
    """
    op = op_of(node)
    least, most = op.inputs
    if not least <= len(types) <= most or any(value is None for value in types[:least]):
        wanted = str(least) if least == most else f"{least} to {most}"
        raise node.broken(f"{sum(value is not None for value in types)} inputs, expected {wanted}")
    return (op.infer(node, types),)


def evaluate_node(node: Node, arrays: Arrays) -> tuple[Array, ...]:
    """A node's outputs in numpy."""
    # What overflows or is not a number is the model's answer, as on every device.
    with np.errstate(all="ignore"):
        return (np.asarray(op_of(node).evaluate(node, arrays)),)


def given(value: _T | None) -> _T:
    """An input that the op cannot do without."""
    assert value is not None
    return value


def floats(node: Node, value: ValueType | None) -> ValueType:
    """The type of a required input of floating point.

    Raises:
        ProgramInvalid: It is of another dtype.
    """
    found = given(value)
    if found.dtype.kind != "f":
        raise node.broken(f"input of dtype {found.dtype}, expected floating point")
    return found


def wide(array: Array) -> Array:
    """Half precision as single: sums and functions are computed so, and rounded once."""
    return array.astype(np.float32) if array.dtype == np.float16 else array


def axis_of(node: Node, axis: int, rank: int) -> int:
    """An axis counted from the front.

    Raises:
        ProgramInvalid: It is not there.
    """
    if not -rank <= axis < max(rank, 1):
        raise node.broken(f"axis {axis} of a value of rank {rank}")
    return axis % rank if rank else 0


def broadcast(node: Node, *shapes: Sequence[int]) -> tuple[int, ...]:
    """The shape that these broadcast to.

    Raises:
        ProgramInvalid: They do not.
    """
    try:
        return tuple(np.broadcast_shapes(*map(tuple, shapes)))
    except ValueError:
        raise node.broken(f"the shapes {', '.join(str(list(shape)) for shape in shapes)} do not broadcast") from None


def as_type(array: Array, dtype: np.dtype[Any]) -> Array:
    """The array in another dtype; itself where it has it."""
    return array.astype(dtype, copy=False)
