"""Along one axis, line by line: sums so far, places of extremes; and indices that are out of range."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from hetero.errors import OptionError, Unsupported
from hetero_vulkan.buffers import Buffer
from hetero_vulkan.commands import Dispatch
from hetero_vulkan.ops.tensors import CODES, Tensor, lanes, spread

if TYPE_CHECKING:
    from hetero_vulkan.device import VulkanDevice

_HOW = {"sums": 0, "greatest": 1, "least": 2}
_PAIRS = 4

FLAG_WORDS = 4
"""32-bit words of a flag of `check_range`: whether there is one, the index in two, and one that is not used."""


def running_sums(
    device: VulkanDevice,
    x: Tensor,
    y: Tensor,
    axis: int,
    *,
    wide: bool = False,
    exclusive: bool = False,
    backwards: bool = False,
) -> list[Dispatch]:
    """Y = the sums of x's elements along an axis up to each.

    Args:
        device: The device.
        x: f32 or i32, in order; `wide`: pairs, whole numbers of 64 bits.
        y: As x.
        axis: From the front.
        wide: A last dimension of 2 makes a number.
        exclusive: The element itself does not count.
        backwards: From the end.

    Raises:
        OptionError: Shapes or kinds that differ.
        Unsupported: They do not lie in order, or are of another kind.
    """
    if x.shape != y.shape or x.kind != y.kind:
        raise OptionError(f"sums of {x.kind} {x.shape} to {y.kind} {y.shape}, expected the same")
    shape = x.shape[:-1] if wide else x.shape
    return _along(device, "sums", x, y, shape, axis, _PAIRS if wide else CODES[x.kind], backwards, exclusive)


def place_of(
    device: VulkanDevice, how: Literal["greatest", "least"], x: Tensor, y: Tensor, axis: int, *, last: bool = False
) -> list[Dispatch]:
    """Y = where along an axis the greatest or least element is: the first one, or the last; NaN is both.

    Args:
        device: The device.
        how: Which.
        x: f32 or i32, in order.
        y: Pairs: whole numbers of 64 bits, as many as x has lines.
        axis: From the front.
        last: Of several the last.

    Raises:
        OptionError: Shapes that do not fit.
        Unsupported: They do not lie in order.
    """
    if y.kind != "i32" or y.size * x.shape[axis] != 2 * x.size or not x.size:
        raise OptionError(f"the {how} of {x.shape} along axis {axis} to {y.kind} {y.shape}, expected pairs, one a line")
    return _along(device, how, x, y, x.shape, axis, CODES[x.kind], last, False)


def check_range(
    device: VulkanDevice, indices: Tensor, size: int, flags: Buffer, slot: int, *, wide: bool
) -> list[Dispatch]:
    """Note an index that is not in `[-size, size)`.

    Args:
        device: The device.
        indices: i32, in order; `wide`: pairs.
        size: Elements of what they are looked up in.
        flags: `FLAG_WORDS` for each slot, 0 before.
        slot: Which: its first word becomes 1, the two behind it such an index, low half first.
        wide: A last dimension of 2 makes a number.

    Raises:
        Unsupported: They do not lie in order.
    """
    if indices.kind != "i32" or not indices.contiguous:
        raise Unsupported("indices that do not lie in order cannot be checked", fix="copy them first")
    each = 2 if wide else 1
    count = indices.size // each
    if not count:
        return []
    local = lanes(device)
    pipeline = device.pipeline("check_range", {"local_size_x": local, "WORDS": each})
    push = {"count": count, "offset": indices.offset, "size": size, "slot": slot * FLAG_WORDS}
    return [Dispatch(pipeline, [indices.buffer, flags], spread(device, count, local), push)]


def _along(
    device: VulkanDevice,
    how: str,
    x: Tensor,
    y: Tensor,
    shape: tuple[int, ...],
    axis: int,
    code: int,
    backwards: bool,
    exclusive: bool,
) -> list[Dispatch]:
    if not x.contiguous or not y.contiguous:
        raise Unsupported("lines of a tensor that does not lie in order", fix="copy it first")
    if code not in (CODES["f32"], CODES["i32"], _PAIRS):
        raise Unsupported(f"going along lines of {x.kind}", fix="cast it to f32")
    if not x.size:
        return []
    length, inner = shape[axis], math.prod(shape[axis + 1 :])
    lines = math.prod(shape) // length
    local = lanes(device)
    pipeline = device.pipeline("scan", {"local_size_x": local, "OPERATION": _HOW[how], "TYPE": code})
    push = {
        "lines": lines,
        "length": length,
        "inner": inner,
        "x_offset": x.offset,
        "y_offset": y.offset,
        "backwards": int(backwards),
        "exclusive": int(exclusive),
    }
    cost = float(x.size)
    return [Dispatch(pipeline, [x.buffer, y.buffer], spread(device, lines, local), push, cost)]
