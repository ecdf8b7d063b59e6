"""A graph, made ready for one lane of a device: its memory, and its work as recorded commands."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from hetero.errors import InputError
from hetero.graph.ir import Graph
from hetero.graph.memory import plan_arena, storages
from hetero.tensors import Array
from hetero_vulkan.buffers import Buffer, PlacedLater
from hetero_vulkan.checks import Checks
from hetero_vulkan.commands import Commands, Copy, Dispatch, Step
from hetero_vulkan.device import VulkanDevice
from hetero_vulkan.memory import Purpose
from hetero_vulkan.nodes import Lowering
from hetero_vulkan.nodes.lowering import ALIGNMENT
from hetero_vulkan.ops.tensors import Tensor
from hetero_vulkan.ops.tuning import Tunings
from hetero_vulkan.precision import FP32, Precision
from hetero_vulkan.storage import FLOAT, HALF, bytes_of, computed, kind_of_matrix, stored, tensor_of
from hetero_vulkan.warming import warm_up
from hetero_vulkan.weights import Matrix, Weights

_MOVES = ("Identity", "Reshape")


class Plan:
    """One graph of concrete shapes on one lane. For one thread at a time.

    Args:
        device: The device.
        graph: Every node of it is claimed; see `hetero_vulkan.nodes`.
        weights: Gives the constants.
        lane: The queue.
        most_cost: Submit in parts of about so many floating-point operations; None: in one.
        tunings: What suits the device; None: its properties tell.
        precision: How numbers are stored.

    Attributes:
        arena_bytes: Of the values in between.
        scratch_bytes: That single nodes need besides.
        cost: Floating-point operations, about.
        widened: Nodes that were computed by way of float32; see `Lowering`.
        kept: Values in between that are float32 where others are float16, by the op that gives them.

    Raises:
        Unsupported: Something is beyond the device's limits.
        OutOfMemory: There is no room.
    """

    def __init__(
        self,
        device: VulkanDevice,
        graph: Graph,
        weights: Weights,
        *,
        lane: int = 0,
        most_cost: float | None = None,
        tunings: Tunings | None = None,
        precision: Precision = FP32,
    ) -> None:
        self._device = device
        self._graph = graph
        self._weights = weights
        self._buffers: list[Buffer] = []
        self._places: dict[str, Buffer] = {}
        self._later: list[tuple[PlacedLater, int]] = []
        self._commands: Commands | None = None
        # Sizes in the arena are those on the device.
        self._precision = precision
        self._there = stored(graph, precision)
        there = dataclasses.replace(graph, types=self._there)
        self._storage = storages(there)
        self._alignment = max(ALIGNMENT, int(device.physical.limits["minStorageBufferOffsetAlignment"]))
        arena = plan_arena(there, self._alignment)
        self._offsets = arena.offsets
        self.arena_bytes = arena.size
        try:
            self._inputs = {name: self._end(name, "upload") for name in graph.inputs}
            self._outputs = {name: self._end(self._storage[name], "download") for name in graph.outputs}
            lowering = Lowering(device, computed(graph), self, tunings, precision)
            for node in graph.nodes:
                if node.op not in _MOVES or self._storage[node.output] == node.output:
                    lowering.lower(node)
            self.scratch_bytes = lowering.scratch_bytes
            self.widened = lowering.widened
            self.kept = self._kept()
            self._indices = lowering.indices
            if self._later:
                whole = self._take(arena.size)
                for buffer, offset in self._later:
                    buffer.place(whole, offset)
            lowering.place(self._take(self.scratch_bytes) if self.scratch_bytes else None)
            self._check_constants()
            self._checks = Checks(lowering.flags, lowering.flag_buffer, self._take)
            steps = self._checks.around(self._steps(lowering.steps))
            self.cost = sum(step.cost for step in steps if isinstance(step, Dispatch))
            warm_up(device, steps, lane=lane)
            self._commands = device.record(steps, lane=lane, most_cost=most_cost)
        except BaseException:
            self.close()
            raise

    @property
    def commands(self) -> Commands:
        """What is submitted."""
        assert self._commands is not None
        return self._commands

    def run(self, inputs: Mapping[str, Array], offered: Mapping[str, Array], timeout: float) -> dict[str, Array]:
        """The outputs.

        Args:
            inputs: By name, of the graph's types.
            offered: Arrays that outputs may be written to, by name.
            timeout: Seconds.

        Raises:
            InputError: An index that is out of range, given or computed.
            DeviceTimeout: It has not ended, or what was left by an earlier one has not.
            DeviceLost: The device is lost.
        """
        for value, size, name in self._indices:
            if value in inputs:
                _check_range(inputs[value], size, name)
        # After a time-out the device may still be reading the inputs.
        self.commands.wait(timeout)
        for name, (landing, _) in self._inputs.items():
            array = inputs[name]
            if array.size:
                np.copyto(landing.array(self._there[name].dtype, array.shape), array)
                landing.flush()
        self.commands.run(timeout)
        self._checks.look()
        return {name: self._read(name, offered.get(name)) for name in self._outputs}

    def close(self) -> None:
        """Free its memory, when what runs of it has ended."""
        if self._commands is not None:
            self._commands.close()
        for buffer in self._buffers:
            buffer.free()
        self._buffers.clear()

    def value(self, name: str) -> Tensor:
        """See `hetero_vulkan.nodes.lowering.Values`."""
        root = self._storage[name]
        kind = self._there[name]
        if root in self._graph.constants:
            return tensor_of(self._weights.get(self._graph.constants[root], kind.dtype).buffer, kind)
        if root not in self._places:
            later = PlacedLater(self._device, bytes_of(self._there[root]))
            # What has no elements has no place, and nothing binds it.
            if kind.size:
                self._later.append((later, self._offsets[root]))
            self._places[root] = later
        return tensor_of(self._places[root], kind)

    def known(self, array: Array, dtype: np.dtype[Any] | None = None) -> Tensor:
        """See `hetero_vulkan.nodes.lowering.Values`."""
        return self._weights.get(array, dtype)

    def matrix(self, array: Array, packed: bool) -> Matrix:
        """See `hetero_vulkan.nodes.lowering.Values`."""
        return self._weights.matrix(array, kind_of_matrix(array, self._precision), packed)

    @property
    def end_bytes(self) -> int:
        """Of the inputs and outputs."""
        return sum(bytes_of(self._there[self._storage[name]]) for name in (*self._graph.inputs, *self._graph.outputs))

    @property
    def wide_bytes(self) -> int:
        """By how many bytes the values in between are more than they were with as many in fp16 as can be."""
        narrow = dataclasses.replace(
            self._graph, types=stored(self._graph, dataclasses.replace(self._precision, values="f16"))
        )
        return self.arena_bytes - plan_arena(narrow, self._alignment).size

    def _kept(self) -> Counter[str]:
        found: Counter[str] = Counter()
        if any(kind.dtype == HALF for kind in self._there.values()):
            for node in self._graph.nodes:
                root = self._storage[node.output]
                if root == node.output and root not in self._graph.outputs and self._there[root].dtype == FLOAT:
                    found[node.op] += 1
        return found

    def _take(self, nbytes: int, purpose: Purpose = "device") -> Buffer:
        buffer = self._device.buffer(nbytes, purpose)
        self._buffers.append(buffer)
        return buffer

    def _end(self, value: str, purpose: Purpose) -> tuple[Buffer, Buffer]:
        """Memory for an input or output: what the host sees, and what the device works in."""
        nbytes = bytes_of(self._there[value])
        if value not in self._places:
            self._places[value] = self._take(nbytes)
        place = self._places[value]
        # Where the host reads uncached memory each element is fetched by itself; so it does not read the device's own.
        return (place if place.mapped and self._device.physical.unified else self._take(nbytes, purpose)), place

    def _steps(self, steps: list[Step]) -> list[Step]:
        before: list[Step] = [Copy(landing, place) for landing, place in self._inputs.values() if landing is not place]
        after: list[Step] = [Copy(place, landing) for landing, place in self._outputs.values() if landing is not place]
        return [*before, *steps, *after]

    def _check_constants(self) -> None:
        for value, size, name in self._indices:
            if value in self._graph.constants:
                _check_range(self._graph.constants[value], size, name)

    def _read(self, name: str, offered: Array | None) -> Array:
        kind = self._graph.types[name]
        landing, _ = self._outputs[name]
        if offered is None or offered.shape != kind.shape or offered.dtype != kind.dtype:
            offered = np.empty(kind.shape, kind.dtype)
        if kind.size:
            landing.invalidate()
            np.copyto(offered, landing.array(self._there[name].dtype, kind.shape), casting="unsafe")
        return offered


def _check_range(indices: Array, size: int, name: str) -> None:
    if indices.size and not -size <= indices.min() <= indices.max() < size:
        raise InputError(
            f"Gather {name!r}: indices from {indices.min()} to {indices.max()}, but the dimension has {size} elements"
        )
