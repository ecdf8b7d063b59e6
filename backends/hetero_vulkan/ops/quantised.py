"""Numbers as integers with scales and zero points, and back."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from hetero.errors import OptionError, Unsupported
from hetero_vulkan.commands import Dispatch
from hetero_vulkan.ops.tensors import CODES, Tensor, lanes, spread, whole_words, words

if TYPE_CHECKING:
    from hetero_vulkan.device import VulkanDevice

_HOW = {"quantise": 0, "dequantise": 1, "both": 2}


def quantise(
    device: VulkanDevice,
    how: Literal["quantise", "dequantise", "both"],
    x: Tensor,
    y: Tensor,
    scale: Tensor,
    zero: Tensor | None = None,
    *,
    axis: int = 0,
    block: int = 0,
    limits: tuple[int, int] = (-128, 127),
) -> list[Dispatch]:
    """Y = round(x / scale) + zero within limits; or (x - zero) * scale; or the latter of the former.

    Args:
        device: The device.
        how: Which.
        x: In order: floats, or of `dequantise` integers (`i32`, `i8`).
        y: In order, of x's shape: integers, or floats.
        scale: f32, in order: one number; one for each place along the axis; or, with `block`, of x's shape but for the
            axis, along which each is that of so many places.
        zero: i32, as many; None: 0.
        axis: From the front.
        block: See `scale`; 0: none.
        limits: Of the integers, both included.

    Raises:
        OptionError: Shapes or kinds that do not fit.
        Unsupported: They do not lie in order.
    """
    if (
        x.shape != y.shape
        or scale.kind != "f32"
        or (zero is not None and (zero.kind != "i32" or zero.size != scale.size))
    ):
        raise OptionError(
            f"{how} of {x.shape} to {y.shape} by scales of {scale.kind} {scale.shape}, expected the same shape, f32, "
            f"and as many i32"
        )
    length, inner = (x.shape[axis], math.prod(x.shape[axis + 1 :])) if x.shape else (1, 1)
    blocks = -(-length // block) if block else 0
    if scale.size == 1:
        steps = (0, 0, 0)
    elif block and scale.size * length == x.size * blocks:
        steps = (blocks * inner, inner, 1)
    elif not block and scale.size == length:
        steps = (0, 1, 0)
    else:
        raise OptionError(
            f"{how} of {x.shape} by scales {scale.shape} along axis {axis} in blocks of {block or length}"
        )
    if not x.size:
        return []
    if not all(each.contiguous for each in (x, scale, zero or scale)):
        raise Unsupported(f"{how} of tensors that do not lie in order", fix="copy them first")
    whole_words(y, "what is quantised")
    local = lanes(device)
    pipeline = device.pipeline(
        "quantise",
        {
            "local_size_x": local,
            "OPERATION": _HOW[how],
            "FROM": CODES[x.kind],
            "TO": CODES[y.kind],
            "ZERO": zero is not None,
        },
    )
    push = {
        "count": x.size,
        "x_offset": x.offset,
        "y_offset": y.offset,
        "scale_offset": scale.offset,
        "zero_offset": zero.offset if zero else 0,
        "inner": inner,
        "axis_length": length,
        "block": max(1, block),
        **dict(zip(("outer_step", "axis_step", "inner_step"), steps, strict=True)),
        "least": limits[0],
        "greatest": limits[1],
    }
    buffers = [x.buffer, scale.buffer, (zero or scale).buffer, y.buffer]
    return [Dispatch(pipeline, buffers, spread(device, words(y.size, y.kind), local), push, 6.0 * x.size)]
