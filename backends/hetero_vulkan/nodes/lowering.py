"""From nodes to steps: the table of what runs each op, what it is given, and what the device claims by it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from hetero.errors import OptionError, Unsupported
from hetero.graph.ir import Graph
from hetero.graph.node import Node, ValueType
from hetero.graph.ops.reduction import REDUCTIONS
from hetero.tensors import Array
from hetero_vulkan.buffers import Buffer, PlacedLater
from hetero_vulkan.commands import Dispatch, Step
from hetero_vulkan.ops.attention import AttentionTuning
from hetero_vulkan.ops.gemm import Tuning, default_tuning
from hetero_vulkan.ops.movement import copy
from hetero_vulkan.ops.packing import Packed, packed_shape
from hetero_vulkan.ops.scan import FLAG_WORDS
from hetero_vulkan.ops.tensors import Kind, Tensor, words
from hetero_vulkan.ops.tuning import Tunings
from hetero_vulkan.precision import FP32, Precision
from hetero_vulkan.storage import (
    BOOL,
    FLOAT,
    HALF,
    INT,
    LONG,
    SMALL,
    bytes_of,
    computed,
    kind_of_matrix,
    on_device,
    stored,
    tensor_of,
    words_of,
)
from hetero_vulkan.weights import Matrix

__all__ = [
    "ALIGNMENT",
    "BOOL",
    "FLOAT",
    "INT",
    "LONG",
    "LOWERS",
    "SMALL",
    "Lowering",
    "claims",
    "only",
    "register",
    "words_of",
]

if TYPE_CHECKING:
    from hetero_vulkan.device import VulkanDevice

ALIGNMENT = 256
"""Of values in an arena, bytes: the most that a device may ask of a binding's beginning."""

MOST_FLAGS = 256
"""Nodes of a graph whose indices the device looks at."""


class Values(Protocol):
    """Where operands are: really, or for a look at what would be."""

    def value(self, name: str) -> Tensor:
        """A value of the graph."""

    def known(self, array: Array, dtype: np.dtype[Any] | None = None) -> Tensor:
        """An array that is always the same; floats are stored as `dtype`, or as they are."""

    def matrix(self, array: Array, packed: bool) -> Matrix:
        """A matrix `[k, n]` of floats, or of int8, that is always the same, for products."""


class Lowering:
    """Makes the steps of a graph, node after node.

    Values may be stored as float16. A node that its operators do not take or give so is computed by way of float32
    beside it: first what it gives, then also what it takes.

    Args:
        device: Whose they are.
        graph: It, as `storage.computed` gives it.
        values: Where operands are.
        tunings: What suits the device; None: its properties tell.
        precision: How numbers are stored.

    Attributes:
        steps: So far.
        scratch_bytes: What one node needs besides, at most.
        indices: Values whose elements must be in `[-size, size)`: name of the value, size, name of the node.
        flags: What is looked at on the device, slot after slot of `flag_buffer`: size, name of the node.
        flag_buffer: Where the device notes indices that are out of range; see `hetero_vulkan.ops.scan`.
        widened: Nodes that were computed by way of float32: how many, by op and reason.
    """

    def __init__(
        self,
        device: VulkanDevice,
        graph: Graph,
        values: Values,
        tunings: Tunings | None = None,
        precision: Precision = FP32,
    ) -> None:
        self.device = device
        self.graph = graph
        # A model may be of float16 itself.
        half = precision.values == "f16" or any(x.dtype == HALF and x.ndim > 1 for x in graph.constants.values())
        kind: Kind = "f16" if half else "f32"
        self.gemm_tuning: Tuning = tunings.products(kind) if tunings else default_tuning(device.physical, kind)
        self.attention_tuning: AttentionTuning | None = tunings.attention if tunings else None
        self.steps: list[Step] = []
        self.scratch_bytes = 0
        self.indices: list[tuple[str, int, str]] = []
        self.flags: list[tuple[int, str]] = []
        self.flag_buffer = PlacedLater(device, 4 * FLAG_WORDS * MOST_FLAGS)
        self.widened: Counter[tuple[str, str]] = Counter()
        self._values = values
        self._later: list[tuple[PlacedLater, int]] = []
        self._used = 0
        self._whole: tuple[str, ...] = ()
        self._outputs: dict[str, Tensor] = {}

    def lower(self, node: Node) -> None:
        """Add the steps of one node.

        Raises:
            Unsupported: No operator does it.
            OptionError: No operator takes such shapes.
        """
        if not self.graph.types[node.output].size:
            return
        reason: Unsupported | OptionError | None = None
        for whole in ((), ("output",), ("output", "inputs")):
            before = len(self.steps), len(self.indices), len(self._later), self.scratch_bytes, len(self.flags)
            self._used, self._whole, self._outputs = 0, whole, {}
            try:
                LOWERS[node.op](self, node)
                self._narrow()
            except (Unsupported, OptionError) as error:
                reason = reason or error
                del self.steps[before[0] :], self.indices[before[1] :], self._later[before[2] :]
                self.scratch_bytes = before[3]
                del self.flags[before[4] :]
                if not self._has_halves(node):
                    break
            else:
                if reason is not None:
                    self.widened[node.op, reason.problem] += 1
                return
        assert reason is not None
        raise reason

    def type(self, node: Node, place: int = 0) -> ValueType:
        """The type of an input."""
        return self.graph.types[node.inputs[place]]

    def input(self, node: Node, place: int = 0) -> Tensor:
        """An input that is there."""
        return self._taken(node.inputs[place])

    def option(self, node: Node, place: int) -> Tensor | None:
        """An input; None where it is left out."""
        return self._taken(node.input(place)) if node.input(place) else None

    def whole(self, node: Node, place: int) -> Tensor | None:
        """An input that operators take as float32 alone; None where it is left out."""
        name = node.input(place)
        if name and name in self.graph.constants and self.graph.types[name].dtype == FLOAT:
            return self.known(self.graph.constants[name], FLOAT)
        return self.as_kind(self._values.value(name), "f32") if name else None

    def inputs(self, node: Node) -> list[Tensor]:
        """All that are there."""
        return [self._taken(value) for value in node.inputs if value]

    def output(self, node: Node) -> Tensor:
        """Its output."""
        output = self._values.value(node.output)
        if output.kind != "f16" or not self._whole:
            return output
        if node.output not in self._outputs:
            self._outputs[node.output] = self.spare(output.shape)
        return self._outputs[node.output]

    def known(self, array: Array, dtype: np.dtype[Any] | None = None) -> Tensor:
        """An array that is always the same; floats are stored as `dtype`, or as they are."""
        return self._values.known(array, dtype)

    def matrix(self, array: Array) -> Matrix:
        """A matrix `[k, n]` of floats, or of int8, that is always the same, for products."""
        return self._values.matrix(array, self.gemm_tuning.family == "subgroup")

    def as_kind(self, tensor: Tensor, kind: Kind) -> Tensor:
        """The same elements of another type: itself, or a copy for this node alone."""
        if tensor.kind == kind:
            return tensor
        other = self.spare(tensor.shape, kind)
        self.add(copy(self.device, tensor, other))
        return other

    def scratch(self, nbytes: int) -> Buffer:
        """Memory for this node alone."""
        buffer = PlacedLater(self.device, max(4, nbytes))
        self._later.append((buffer, self._used))
        self._used += -(-buffer.nbytes // ALIGNMENT) * ALIGNMENT
        self.scratch_bytes = max(self.scratch_bytes, self._used)
        return buffer

    def spare(self, shape: Sequence[int], kind: Kind = "f32") -> Tensor:
        """A tensor for this node alone."""
        return Tensor(self.scratch(4 * words(math.prod(shape), kind)), tuple(shape), kind)

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

    def _taken(self, name: str) -> Tensor:
        value = self._values.value(name)
        return self.as_kind(value, "f32") if value.kind == "f16" and "inputs" in self._whole else value

    def _narrow(self) -> None:
        """What was given as float32 goes where it is stored."""
        for name, given in self._outputs.items():
            self.add(copy(self.device, given, self._values.value(name)))

    def _has_halves(self, node: Node) -> bool:
        return any(self._values.value(name).kind == "f16" for name in (*node.inputs, *node.outputs) if name)


Lower = Callable[[Lowering, Node], None]
"""Adds a node's steps. Raises Unsupported or OptionError where no operator does it."""

LOWERS: dict[str, Lower] = {}
"""Every op that the device runs, by its name in `hetero.graph`."""

_TAKE_EMPTY = ("Concat", "Identity", "Pad", "Reshape", *REDUCTIONS)


def register(names: Sequence[str], lower: Lower) -> None:
    """Say how some ops are run."""
    for name in names:
        assert name not in LOWERS, name
        LOWERS[name] = lower


class _Imagined:
    """Operands of a node that is only looked at: of the right sizes, and nowhere."""

    def __init__(
        self, device: VulkanDevice, graph: Graph, there: Mapping[str, ValueType], precision: Precision
    ) -> None:
        self._device = device
        self._graph = graph
        self._there = there
        self._precision = precision

    def value(self, name: str) -> Tensor:
        return self._of(self._there[name])

    def known(self, array: Array, dtype: np.dtype[Any] | None = None) -> Tensor:
        return self._of(on_device(ValueType(array.dtype if dtype is None else dtype, array.shape)))

    def matrix(self, array: Array, packed: bool) -> Matrix:
        k, n = array.shape
        kind = kind_of_matrix(array, self._precision)
        shape = packed_shape(self._device.physical, k, n) if packed else (k, n)
        whole = Tensor(PlacedLater(self._device, max(4, 4 * words(math.prod(shape), kind))), shape, kind)
        scale = self._of(ValueType(FLOAT, (n,))) if kind == "i8" and array.dtype != np.int8 else None
        return Matrix(Packed(whole, n, k) if packed else whole, scale)

    def _of(self, kind: ValueType) -> Tensor:
        return tensor_of(PlacedLater(self._device, bytes_of(kind)), kind)


def claims(
    device: VulkanDevice, graph: Graph, tunings: Tunings | None = None, precision: Precision = FP32
) -> Callable[[Node], bool | str]:
    """Says of a node whether the device runs it, for `hetero.graph.partition`: its steps are made, and not kept.

    Args:
        device: The device; shaders that are needed are compiled.
        graph: Whose nodes will be asked about.
        tunings: As for `Lowering`.
        precision: As for `Lowering`.
    """
    most = int(device.physical.limits["maxStorageBufferRange"])
    there = stored(graph, precision)
    graph = computed(graph)
    imagined = _Imagined(device, graph, there, precision)

    def claim(node: Node) -> bool | str:
        if node.op not in LOWERS:
            return "no shader does it"
        names = [value for value in (*node.inputs, *node.outputs) if value]
        types = [graph.types[value] for value in names]
        for name, kind in zip(names, types, strict=True):
            if not words_of(kind.dtype):
                return f"{kind.dtype} is not computed on the device"
            if bytes_of(there[name]) > most:
                return f"{there[name]} is more than the {most} bytes that the device binds"
        if graph.types[node.output].size and not all(kind.size for kind in types) and node.op not in _TAKE_EMPTY:
            return "an input is empty"
        lowering = Lowering(device, graph, imagined, tunings, precision)
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
