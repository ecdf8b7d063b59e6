"""Moving elements: copies between strides, parts put together, padding, gathering, series."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from hetero.errors import OptionError, Unsupported
from hetero_vulkan.commands import Dispatch
from hetero_vulkan.ops.tensors import CODES, SIZES, Tensor, lanes, merged, padded, spread, whole_words, words

if TYPE_CHECKING:
    from hetero_vulkan.device import VulkanDevice

PADDINGS = {"constant": 1, "edge": 2, "reflect": 3}
_MOST_DIMENSIONS = 6


def copy(device: VulkanDevice, source: Tensor, target: Tensor) -> list[Dispatch]:
    """Target = source, of any strides on both sides, and broadcast as numpy does; kinds may differ.

    `source.transposed(...)`, `.sliced(...)` and `.broadcast(...)` make it a transpose, a slice or an expansion.

    Raises:
        OptionError: The shapes do not fit.
        Unsupported: More than six dimensions are left after merging; or, of f16 and i8, elements of the target that
            share a word are not written by one invocation.
    """
    seen = source.broadcast(target.shape)
    if not target.size:
        return []
    shape, (from_steps, to_steps) = merged(target.shape, seen.steps, target.steps)
    each = 4 // SIZES[target.kind]
    in_order = target.contiguous and target.offset % each == 0
    if not in_order and each > 1:
        tail = to_steps[-1] == 1 and shape[-1] % each == 0
        if not tail or any(step % each for step in to_steps[:-1]) or target.offset % each:
            raise Unsupported(
                f"writing {target.kind} of shape {target.shape} with strides {target.steps} at element "
                f"{target.offset}, expected rows of a multiple of {each} that begin at one",
                fix="use f32 or i32",
            )
    if len(shape) > _MOST_DIMENSIONS:
        raise Unsupported(f"a copy over {len(shape)} dimensions, at most {_MOST_DIMENSIONS}", fix="copy in two steps")
    push = {
        **_numbers("d", shape, 1),
        **_numbers("f", from_steps, 0),
        **_numbers("s", to_steps, 0),
        **_numbers("n", (), 1),
    }
    return [_copying(device, seen, target, 0, in_order, 0.0, push, len(shape))]


def concat(device: VulkanDevice, sources: Sequence[Tensor], target: Tensor, axis: int) -> list[Dispatch]:
    """The sources one after the other along an axis.

    Raises:
        OptionError: The shapes do not add up.
        Unsupported: As for `copy`.
    """
    axis %= max(len(target.shape), 1)
    if sum(source.shape[axis] for source in sources) != target.shape[axis]:
        raise OptionError(f"{[source.shape for source in sources]} along axis {axis} to {target.shape}")
    steps, at = [], 0
    for source in sources:
        steps += copy(device, source, target.sliced(axis, at, at + source.shape[axis]))
        at += source.shape[axis]
    return steps


def pad(
    device: VulkanDevice,
    source: Tensor,
    target: Tensor,
    before: Sequence[int],
    *,
    mode: Literal["constant", "edge", "reflect"] = "constant",
    value: float = 0.0,
) -> list[Dispatch]:
    """The source amid more elements; where `before` is below 0 it is cut.

    Args:
        device: The device.
        source: Of up to six dimensions and any strides.
        target: In order.
        before: How many elements come before it, for each axis; what comes after follows from the shapes.
        mode: What they are.
        value: Of `constant`.

    Raises:
        OptionError: The ranks differ, or there is no such mode.
        Unsupported: More than six dimensions, nothing to repeat, or the target does not lie in order.
    """
    if mode not in PADDINGS or not len(source.shape) == len(target.shape) == len(before):
        raise OptionError(
            f"padding {source.shape} by {tuple(before)} to {target.shape} with {mode!r}, expected as many dimensions, "
            f"and one of {', '.join(PADDINGS)}"
        )
    if not target.size:
        return []
    whole_words(target, "a padded tensor")
    if len(target.shape) > _MOST_DIMENSIONS:
        raise Unsupported(f"padding over {len(target.shape)} dimensions, at most {_MOST_DIMENSIONS}")
    if not source.size and mode != "constant":
        raise Unsupported(f"padding {source.shape} with its {mode}, of which there is none")
    push = {
        **_numbers("d", target.shape, 1),
        **_numbers("f", source.steps, 0),
        **_numbers("s", before, 0),
        **_numbers("n", source.shape, 1),
    }
    return [_copying(device, source, target, PADDINGS[mode], True, value, push, len(target.shape))]


def gather(device: VulkanDevice, source: Tensor, indices: Tensor, target: Tensor, axis: int = 0) -> list[Dispatch]:
    """Target = numpy.take(source, indices, axis).

    Args:
        device: The device.
        source: In order.
        indices: i32, in order; below 0 they count from the end, and those that are beyond give the nearest.
        target: In order.
        axis: Of the source.

    Raises:
        OptionError: Shapes or kinds that do not fit.
        Unsupported: They do not lie in order, or there is nothing to take from.
    """
    axis %= max(len(source.shape), 1)
    expected = (*source.shape[:axis], *indices.shape, *source.shape[axis + 1 :])
    if target.shape != expected or indices.kind != "i32":
        raise OptionError(
            f"{indices.kind} {indices.shape} of axis {axis} of {source.shape} to {target.shape}, expected i32 "
            f"and {expected}"
        )
    if not target.size:
        return []
    if not source.size or not source.contiguous or not indices.contiguous:
        raise Unsupported(f"gathering from {source.shape} with strides {source.steps}", fix="copy it first")
    whole_words(target, "a gathered tensor")
    rest = 1
    for size in source.shape[axis + 1 :]:
        rest *= size
    local = lanes(device)
    pipeline = device.pipeline("gather", {"local_size_x": local, "FROM": CODES[source.kind], "TO": CODES[target.kind]})
    push = {
        "count": target.size,
        "size": source.shape[axis],
        "chosen": indices.size,
        "rest": rest,
        "from_offset": source.offset,
        "index_offset": indices.offset,
        "to_offset": target.offset,
    }
    groups = spread(device, words(target.size, target.kind), local)
    return [Dispatch(pipeline, [source.buffer, indices.buffer, target.buffer], groups, push)]


def series(device: VulkanDevice, target: Tensor, start: float = 0.0, step: float = 0.0) -> list[Dispatch]:
    """target[i] = start + i * step; with a step of 0 it is filled. Integers are exact for i32.

    Raises:
        Unsupported: It does not lie in order.
        OptionError: Fractions for an i32.
    """
    if target.kind == "i32" and (start != int(start) or step != int(step)):
        raise OptionError(f"a series of i32 from {start} by {step}, expected whole numbers")
    if not target.size:
        return []
    whole_words(target, "a series")
    local = lanes(device)
    whole = target.kind == "i32"
    push = {
        "count": target.size,
        "to_offset": target.offset,
        "start": 0.0 if whole else start,
        "step_size": 0.0 if whole else step,
        "whole_start": int(start) if whole else 0,
        "whole_step": int(step) if whole else 0,
    }
    pipeline = device.pipeline("series", {"local_size_x": local, "TO": CODES[target.kind]})
    return [Dispatch(pipeline, [target.buffer], spread(device, words(target.size, target.kind), local), push)]


def _copying(
    device: VulkanDevice,
    source: Tensor,
    target: Tensor,
    padding: int,
    in_order: bool,
    value: float,
    push: dict[str, int],
    rank: int,
) -> Dispatch:
    local = lanes(device)
    pipeline = device.pipeline(
        "copy",
        {
            "local_size_x": local,
            "FROM": CODES[source.kind],
            "TO": CODES[target.kind],
            "PADDING": padding,
            "IN_ORDER": in_order,
            "RANK": max(1, rank),
        },
    )
    more = {"count": target.size, "from_offset": source.offset, "to_offset": target.offset, "value": value}
    groups = spread(device, words(target.size, target.kind), local)
    return Dispatch(pipeline, [source.buffer, target.buffer], groups, {**push, **more})


def _numbers(name: str, values: Sequence[int], fill: int) -> dict[str, int]:
    return {f"{name}{i}": value for i, value in enumerate(padded(values, 6, fill))}
