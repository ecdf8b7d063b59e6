"""From nodes to steps: the table of what runs each op, what it is given, and what the device claims by it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from hetero.errors import OptionError, Unsupported
from hetero.graph.ir import Graph
from hetero.graph.node import Node, ValueType
from hetero.tensors import Array
from hetero_vulkan.buffers import Buffer, PlacedLater
from hetero_vulkan.commands import Dispatch, Step
from hetero_vulkan.ops.attention import AttentionTuning
from hetero_vulkan.ops.gemm import Tuning, default_tuning
from hetero_vulkan.ops.packing import Packed, packed_shape
from hetero_vulkan.ops.scan import FLAG_WORDS
from hetero_vulkan.ops.tensors import Kind, Tensor
from hetero_vulkan.ops.tuning import Tunings

if TYPE_CHECKING:
    from hetero_vulkan.device import VulkanDevice

ALIGNMENT = 256
"""Of values in an arena, bytes: the most that a device may ask of a binding's beginning."""

MOST_FLAGS = 256
"""Nodes of a graph whose indices the device looks at."""

FLOAT, INT, BOOL, LONG = (np.dtype(kind) for kind in ("float32", "int32", "bool", "int64"))

_WORDS = {"float32": 1, "int32": 1, "uint32": 1, "bool": 1, "int64": 2, "uint64": 2, "float64": 2}


def words_of(dtype: np.dtype[Any]) -> int:
    """32-bit words of an element on the device; 0: such elements are not taken."""
    return _WORDS.get(dtype.name, 0)


def on_device(kind: ValueType) -> ValueType:
    """How a value lies on the device: a bool is an int32, 0 or 1; all else is as on the host."""
    return ValueType(INT, kind.shape) if kind.dtype == BOOL else kind


def tensor_of(buffer: Buffer, kind: ValueType) -> Tensor:
    """A value in a buffer, in order. Elements of 64 bits are two `i32`, a last dimension more."""
    wide = words_of(kind.dtype) == 2
    name: Kind = "f32" if kind.dtype == FLOAT else "i32"
    return Tensor(buffer, (*kind.shape, 2) if wide else kind.shape, name)


def bytes_of(kind: ValueType) -> int:
    """Of a value's buffer; no buffer is empty."""
    return max(4, 4 * words_of(kind.dtype) * kind.size)


class Values(Protocol):
    """Where operands are: really, or for a look at what would be."""

    def value(self, name: str) -> Tensor:
        """A value of the graph."""

    def known(self, array: Array) -> Tensor:
        """An array that is always the same."""

    def packed(self, array: Array) -> Packed:
        """A matrix float32 `[k, n]` that is always the same, packed for products."""


class Lowering:
    """Makes the steps of a graph, node after node.

    Args:
        device: Whose they are.
        graph: It.
        values: Where operands are.
        tunings: What suits the device; None: its properties tell.

    Attributes:
        steps: So far.
        scratch_bytes: What one node needs besides, at most.
        indices: Values whose elements must be in `[-size, size)`: name of the value, size, name of the node.
        flags: What is looked at on the device, slot after slot of `flag_buffer`: size, name of the node.
        flag_buffer: Where the device notes indices that are out of range; see `hetero_vulkan.ops.scan`.
    """

    def __init__(self, device: VulkanDevice, graph: Graph, values: Values, tunings: Tunings | None = None) -> None:
        self.device = device
        self.graph = graph
        self.gemm_tuning: Tuning = tunings.gemm if tunings else default_tuning(device.physical)
        self.attention_tuning: AttentionTuning | None = tunings.attention if tunings else None
        self.steps: list[Step] = []
        self.scratch_bytes = 0
        self.indices: list[tuple[str, int, str]] = []
        self.flags: list[tuple[int, str]] = []
        self.flag_buffer = PlacedLater(device, 4 * FLAG_WORDS * MOST_FLAGS)
        self._values = values
        self._later: list[tuple[PlacedLater, int]] = []
        self._used = 0

    def lower(self, node: Node) -> None:
        """Add the steps of one node.

        Raises:
            Unsupported: No operator does it.
            OptionError: No operator takes such shapes.
        """
        if self.graph.types[node.output].size:
            self._used = 0
            LOWERS[node.op](self, node)

    def type(self, node: Node, place: int = 0) -> ValueType:
        """The type of an input."""
        return self.graph.types[node.inputs[place]]

    def input(self, node: Node, place: int = 0) -> Tensor:
        """An input that is there."""
        return self._values.value(node.inputs[place])

    def option(self, node: Node, place: int) -> Tensor | None:
        """An input; None where it is left out."""
        return self._values.value(node.input(place)) if node.input(place) else None

    def inputs(self, node: Node) -> list[Tensor]:
        """All that are there."""
        return [self._values.value(value) for value in node.inputs if value]

    def output(self, node: Node) -> Tensor:
        """Its output."""
        return self._values.value(node.output)

    def known(self, array: Array) -> Tensor:
        """An array that is always the same."""
        return self._values.known(array)

    def packed(self, array: Array) -> Packed:
        """A matrix that is always the same, packed for products."""
        return self._values.packed(array)

    def scratch(self, nbytes: int) -> Buffer:
        """Memory for this node alone."""
        buffer = PlacedLater(self.device, max(4, nbytes))
        self._later.append((buffer, self._used))
        self._used += -(-buffer.nbytes // ALIGNMENT) * ALIGNMENT
        self.scratch_bytes = max(self.scratch_bytes, self._used)
        return buffer

    def spare(self, shape: Sequence[int], kind: Kind = "f32") -> Tensor:
        """A tensor of 32-bit elements for this node alone."""
        return Tensor(self.scratch(4 * math.prod(shape)), tuple(shape), kind)

    def flag(self, size: int, name: str) -> tuple[Buffer, int]:
        """Where to note an index of a node that is out of range: a buffer, and the slot in it.

        Raises:
            Unsupported: There are too many of them.
        """
        if len(self.flags) == MOST_FLAGS:
            raise Unsupported(f"more than {MOST_FLAGS} nodes look up places that are computed")
        self.flags.append((size, name))
        return self.flag_buffer, len(self.flags) - 1

    def add(self, steps: Sequence[Dispatch]) -> None:
        """Add what an operator gives."""
        self.steps += steps

    def place(self, scratch: Buffer | None) -> None:
        """Say where the scratch memory is, of `scratch_bytes`."""
        for buffer, offset in self._later:
            assert scratch is not None
            buffer.place(scratch, offset)


Lower = Callable[[Lowering, Node], None]
"""Adds a node's steps. Raises Unsupported or OptionError where no operator does it."""

LOWERS: dict[str, Lower] = {}
"""Every op that the device runs, by its name in `hetero.graph`."""

_TAKE_EMPTY = ("Concat", "Identity", "Pad", "Reshape")


def register(names: Sequence[str], lower: Lower) -> None:
    """Say how some ops are run."""
    for name in names:
        assert name not in LOWERS, name
        LOWERS[name] = lower


class _Imagined:
    """Operands of a node that is only looked at: of the right sizes, and nowhere."""

    def __init__(self, device: VulkanDevice, graph: Graph) -> None:
        self._device = device
        self._graph = graph

    def value(self, name: str) -> Tensor:
        return self._of(self._graph.types[name])

    def known(self, array: Array) -> Tensor:
        return self._of(ValueType.of(array))

    def packed(self, array: Array) -> Packed:
        k, n = array.shape
        shape = packed_shape(self._device.physical, k, n)
        return Packed(Tensor(PlacedLater(self._device, 4 * math.prod(shape)), shape), n, k)

    def _of(self, kind: ValueType) -> Tensor:
        return tensor_of(PlacedLater(self._device, bytes_of(kind)), kind)


def claims(device: VulkanDevice, graph: Graph, tunings: Tunings | None = None) -> Callable[[Node], bool | str]:
    """Says of a node whether the device runs it, for `hetero.graph.partition`: its steps are made, and not kept.

    Args:
        device: The device; shaders that are needed are compiled.
        graph: Whose nodes will be asked about.
        tunings: As for `Lowering`.
    """
    most = int(device.physical.limits["maxStorageBufferRange"])
    imagined = _Imagined(device, graph)

    def claim(node: Node) -> bool | str:
        if node.op not in LOWERS:
            return "no shader does it"
        types = [graph.types[value] for value in (*node.inputs, *node.outputs) if value]
        for kind in types:
            if not words_of(kind.dtype):
                return f"{kind.dtype} is not computed on the device"
            if bytes_of(kind) > most:
                return f"{kind} is more than the {most} bytes that the device binds"
        if graph.types[node.output].size and not all(kind.size for kind in types) and node.op not in _TAKE_EMPTY:
            return "an input is empty"
        lowering = Lowering(device, graph, imagined, tunings)
        try:
            lowering.lower(node)
        except (Unsupported, OptionError) as error:
            return error.problem
        if lowering.scratch_bytes > most:
            return f"it needs {lowering.scratch_bytes} bytes besides, more than the {most} that the device binds"
        return True

    return claim


def only(node: Node, kind: ValueType, *dtypes: np.dtype[Any]) -> None:
    """Refuse a node of another dtype.

    Raises:
        Unsupported: It is of none of these.
    """
    if kind.dtype not in dtypes:
        raise Unsupported(f"{node.op} of {kind.dtype} is not computed on the device")
