"""A kernel's inputs as the buffers of a design, and its outputs out of them, as its arguments say they lie."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from hetero.kernel_manifest import TileTensor
from hetero.tensors import Array
from hetero_kernels.aie2.array_design import ArrayDesign, HostArgument


def pack(design: ArrayDesign, inputs: Mapping[str, Array]) -> list[Array]:
    """One launch's inputs as the host's buffers, and empty ones for its outputs.

    Args:
        design: Whose buffers.
        inputs: As the kernel takes them, of as many tiles as a launch has.

    Returns:
        One uint8 array for each argument.
    """
    buffers = []
    for argument in design.arguments:
        buffer = np.zeros(argument.size, np.uint8)
        if argument.content is not None:
            buffer[:] = argument.content.reshape(-1).view(np.uint8)
        elif argument.role != "out":
            for tensor, view in _views(argument, buffer):
                np.copyto(view, _cut(design, argument, tensor, inputs[tensor.name]))
        buffers.append(buffer)
    return buffers


def unpack(design: ArrayDesign, buffers: Sequence[Array]) -> dict[str, Array]:
    """The kernel's outputs, from the buffers of `pack` after a launch."""
    found: dict[str, list[Array]] = {}
    for argument, buffer in zip(design.arguments, buffers, strict=True):
        for tensor, view in _views(argument, buffer) if argument.role == "out" else ():
            entries = tensor.shape[1:] if design.joined else tensor.shape
            found.setdefault(tensor.name, []).append(view.reshape(-1, *entries))
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _views(argument: HostArgument, buffer: Array) -> Iterator[tuple[TileTensor, Array]]:
    offset = 0
    for tensor in argument.tensors:
        dealt = tensor.dealt(argument.pieces)
        yield tensor, dealt.view(buffer.data, offset, argument.piece_size, argument.tiles)
        offset += dealt.part_size


def _cut(design: ArrayDesign, argument: HostArgument, tensor: TileTensor, array: Array) -> Array:
    """The part of an input that an argument holds, in the shape of its view."""
    cells = tensor.dealt(argument.pieces).cells
    if tensor.shared or argument.role == "weight":
        return array.reshape(cells)
    tiles = array.reshape(design.tiles, *cells)
    return tiles if argument.column is None else tiles[argument.column * argument.tiles :][: argument.tiles]
