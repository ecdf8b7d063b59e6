"""Whole numbers of 64 bits, which are pairs of `i32`, low half first: arithmetic, comparisons, casts from and to f32.

Such a tensor has a last dimension more, of 2. No device needs a feature for it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from hetero.errors import OptionError, Unsupported
from hetero_vulkan.commands import Dispatch
from hetero_vulkan.ops.elementwise import BINARY
from hetero_vulkan.ops.tensors import Tensor, in_order, lanes, merged, padded, spread

if TYPE_CHECKING:
    from hetero_vulkan.device import VulkanDevice

ARITHMETIC = ("add", "sub", "mul", "min", "max")
"""Functions of two that give a number of 64 bits; they wrap around as numpy's do."""

COMPARISONS = ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")
"""Functions of two that give an i32, 0 or 1."""

_TO, _FROM = 30, 31
_MOST_DIMENSIONS = 6


def wide_binary(device: VulkanDevice, function: str, a: Tensor, b: Tensor, z: Tensor) -> list[Dispatch]:
    """Z = function(a, b), broadcast as numpy does.

    Args:
        device: The device.
        function: One of `ARITHMETIC` or `COMPARISONS`.
        a: Pairs, `[..., 2]`, in order.
        b: Likewise.
        z: In order: pairs, or for a comparison `i32` without the last dimension.

    Raises:
        OptionError: No such function, or shapes that do not fit.
        Unsupported: More than six dimensions are left after merging, or something does not lie in order.
    """
    if function not in (*ARITHMETIC, *COMPARISONS):
        raise OptionError(
            f"function {function!r} of 64 bits", fix=f"there are: {', '.join((*ARITHMETIC, *COMPARISONS))}"
        )
    left, right = _numbers(a, function), _numbers(b, function)
    shape = _numbers(z, function).shape if function in ARITHMETIC else z.shape
    try:
        fits = np.broadcast_shapes(left.shape, right.shape) == shape
    except ValueError:
        fits = False
    if not fits:
        raise OptionError(f"{left.shape} and {right.shape} to {shape}, expected what numpy would broadcast to")
    return _dispatched(device, BINARY[function], left, right, shape, z)


def wide_cast(device: VulkanDevice, x: Tensor, y: Tensor) -> list[Dispatch]:
    """Y = x, from pairs to f32 or from f32 to pairs.

    Numbers of more than 24 bits are rounded; from f32 fractions are cut off, and NaN and what is beyond 64 bits
    become the lowest number.

    Raises:
        OptionError: Shapes or kinds that do not fit.
        Unsupported: They do not lie in order.
    """
    if (x.kind, y.kind) not in (("i32", "f32"), ("f32", "i32")):
        raise OptionError(f"a cast of 64 bits from {x.kind} to {y.kind}, expected one i32 and one f32")
    pairs, floats = (x, y) if y.kind == "f32" else (y, x)
    if _numbers(pairs, "a cast").shape != floats.shape:
        raise OptionError(f"a cast of {x.shape} to {y.shape}, expected pairs of the same shape")
    seen = _numbers(x, "a cast") if x is pairs else x
    return _dispatched(device, _FROM if x is pairs else _TO, seen, seen, floats.shape, y)


def _numbers(pairs: Tensor, what: str) -> Tensor:
    """Pairs without their last dimension; strides count pairs."""
    if pairs.kind != "i32" or not pairs.shape or pairs.shape[-1] != 2:
        raise OptionError(f"{what} of {pairs.kind} {pairs.shape}, expected pairs of i32")
    if not pairs.contiguous:
        raise Unsupported(f"{what} of numbers of 64 bits that do not lie in order", fix="copy them first")
    return replace(pairs, shape=pairs.shape[:-1], strides=in_order(pairs.shape[:-1]))


def _dispatched(
    device: VulkanDevice, operation: int, a: Tensor, b: Tensor, shape: tuple[int, ...], z: Tensor
) -> list[Dispatch]:
    if not z.size:
        return []
    if not z.contiguous:
        raise Unsupported("a result of 64 bits that does not lie in order", fix="copy it afterwards")
    first, second = a.broadcast(shape), b.broadcast(shape)
    sizes, steps = merged(shape, first.steps, second.steps)
    if len(sizes) > _MOST_DIMENSIONS:
        raise Unsupported(f"broadcasting over {len(sizes)} dimensions, at most {_MOST_DIMENSIONS}")
    local = lanes(device)
    count = int(np.prod(shape, dtype=np.int64))
    push = {"count": count, "a_offset": a.offset, "b_offset": b.offset, "z_offset": z.offset}
    push |= {f"d{i}": size for i, size in enumerate(padded(sizes, 6, 1))}
    for name, strides in zip("ab", steps, strict=True):
        push |= {f"{name}{i}": step for i, step in enumerate(padded(strides, 6, 0))}
    pipeline = device.pipeline("wide", {"local_size_x": local, "OPERATION": operation})
    return [Dispatch(pipeline, [a.buffer, b.buffer, z.buffer], spread(device, count, local), push, float(count))]
