"""The steps that recorded work is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hetero.errors import OptionError, Unsupported
from hetero_vulkan.buffers import Buffer
from hetero_vulkan.pipelines import Number, Pipeline

if TYPE_CHECKING:
    from hetero_vulkan.device import VulkanDevice


@dataclass(frozen=True)
class Dispatch:
    """A shader over some workgroups.

    Attributes:
        pipeline: The shader.
        buffers: In the order of its bindings.
        groups: Workgroups in x, y and z.
        push: Its push constants, by name or as bytes.
        cost: Floating-point operations, about; long work is submitted in parts by it.
    """

    pipeline: Pipeline
    buffers: Sequence[Buffer]
    groups: tuple[int, int, int]
    push: bytes | Mapping[str, Number] = b""
    cost: float = 0.0


@dataclass(frozen=True)
class Copy:
    """A copy of a whole buffer to the beginning of another."""

    source: Buffer
    target: Buffer


@dataclass(frozen=True)
class Fill:
    """The same 32-bit word all over a buffer, whose size is a multiple of 4."""

    target: Buffer
    word: int = 0


Step = Dispatch | Copy | Fill


def buffers_of(step: Step) -> Sequence[Buffer]:
    """The buffers that a step touches."""
    if isinstance(step, Dispatch):
        return step.buffers
    return (step.source, step.target) if isinstance(step, Copy) else (step.target,)


def parts_of(steps: Sequence[Step], most: float | None) -> list[list[Step]]:
    """The steps in parts that cost no more than `most` each, where a single step does not."""
    parts: list[list[Step]] = [[]]
    cost = 0.0
    for step in steps:
        more = step.cost if isinstance(step, Dispatch) else 0.0
        if parts[-1] and most is not None and cost + more > most:
            parts.append([])
            cost = 0.0
        parts[-1].append(step)
        cost += more
    return parts


def check_dispatch(device: VulkanDevice, step: Dispatch) -> None:
    """Look whether a device can do a step.

    Raises:
        OptionError: Not the buffers that the shader takes.
        Unsupported: It is beyond the device's limits.
    """
    pipeline, physical = step.pipeline, device.physical
    if len(step.buffers) != len(pipeline.shader.bindings):
        raise OptionError(
            f"{pipeline.name} is given {len(step.buffers)} buffers, expected {len(pipeline.shader.bindings)}"
        )
    counts, most = physical.limits["maxComputeWorkGroupCount"], physical.limits["maxStorageBufferRange"]
    if any(not 0 < count <= top for count, top in zip(step.groups, counts, strict=True)):
        raise Unsupported(f"{pipeline.name} over {step.groups} workgroups, {physical.name} takes 1 to {tuple(counts)}")
    for buffer in step.buffers:
        if buffer.nbytes > most:
            raise Unsupported(
                f"{pipeline.name} is given a buffer of {buffer.nbytes} bytes, {physical.name} binds at most {most}",
                fix="use smaller shapes; or, in a kernel, bind it in parts (Buffer.parts)",
            )
