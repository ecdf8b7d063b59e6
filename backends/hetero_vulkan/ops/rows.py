"""Reductions and normalisations along axes: sums, means, extremes, softmax, layer and RMS normalisation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from hetero.errors import OptionError, Unsupported
from hetero_vulkan.commands import Dispatch
from hetero_vulkan.ops.movement import copy, series
from hetero_vulkan.ops.tensors import CODES, SIZES, Scratch, Tensor, in_order, merged

if TYPE_CHECKING:
    from hetero_vulkan.device import VulkanDevice

Reduction = Literal["sum", "mean", "max", "min", "product"]

_OPERATIONS = {
    "sum": 0,
    "mean": 1,
    "max": 2,
    "min": 3,
    "softmax": 4,
    "log_softmax": 5,
    "layer_norm": 6,
    "rms_norm": 7,
    "product": 8,
}

_EMPTY = {"sum": 0.0, "mean": math.nan, "max": -math.inf, "min": math.inf, "product": 1.0}
"""Reductions, and what they give of no elements."""

_ROWS = 16
"""Of a workgroup that is one subgroup."""

_MOST_PARTS = 16
"""Of 8 elements each, that a lane holds of a row."""


def reduce(
    device: VulkanDevice, how: Reduction, x: Tensor, y: Tensor, axes: Sequence[int], scratch: Scratch | None = None
) -> list[Dispatch]:
    """Y = x reduced over axes.

    Args:
        device: The device.
        how: Which reduction. NaN passes, as in numpy. Of nothing: as in ONNX, infinite for extremes.
        x: f32, f16 or i32 (as floats), of any strides.
        y: f32, in order, with so many elements as are left; kept dimensions of 1 or not.
        axes: Any of x's.
        scratch: For a copy, where the axes do not make one dimension.

    Raises:
        OptionError: y is of another size or kind, or an axis is not there; or there is no scratch.
        Unsupported: As for `copy`.
    """
    rank = len(x.shape)
    if any(not -rank <= axis < rank for axis in axes):
        raise OptionError(f"axes {tuple(axes)} of {x.shape}")
    gone = sorted({axis % rank for axis in axes})
    left = [axis for axis in range(rank) if axis not in gone]
    count = math.prod(x.shape[axis] for axis in left)
    if how not in _EMPTY or y.kind != "f32" or y.size != count or not y.contiguous:
        raise OptionError(
            f"{how} of {x.shape} over {tuple(axes)} to {y.kind} {y.shape}, expected f32 of {count} in order"
        )
    if not y.size:
        return []
    if not x.size:
        return series(device, y, _EMPTY[how])
    length, (reduced,) = merged([x.shape[a] for a in gone], [x.steps[a] for a in gone])
    kept, (steps,) = merged([x.shape[a] for a in left], [x.steps[a] for a in left])
    if len(length) > 1 or len(kept) > 2:
        if scratch is None:
            raise OptionError(
                "the axes do not make one dimension, and there is no scratch to copy to", fix="give scratch"
            )
        moved = x.transposed(*left, *gone)
        ordered = Tensor(scratch(4 * -(-x.size * SIZES[x.kind] // 4)), moved.shape, x.kind)
        axes = range(len(left), rank)
        return [*copy(device, moved, ordered), *reduce(device, how, ordered, y, axes)]
    inner, outer_step, inner_step = (kept[1], *steps[:2]) if len(kept) == 2 else (1, steps[0], 0)
    return [_rows(device, how, x, y, (length[0], reduced[0]), (inner, outer_step, inner_step), (1, inner, 1), ())]


def normalise(
    device: VulkanDevice,
    how: Literal["softmax", "log_softmax", "layer_norm", "rms_norm"],
    x: Tensor,
    y: Tensor,
    axis: int = -1,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    epsilon: float = 1e-5,
) -> list[Dispatch]:
    """Y = x, each row along an axis normalised; x and y may be the same tensor.

    Args:
        device: The device.
        how: Which. Layer normalisation divides by sqrt(variance + epsilon), RMS by sqrt(mean square + epsilon).
        x: f32 or f16, in order.
        y: Of x's shape, in order; f16 only along the last axis, if that is even.
        axis: Along which. Several last ones: reshape x first.
        weight: f32 of the axis' length; multiplies.
        bias: Likewise; is added.
        epsilon: For the last two.

    Raises:
        OptionError: Shapes or kinds that do not fit.
        Unsupported: They do not lie in order, or f16 rows share words.
    """
    if x.shape != y.shape or not x.shape or not -len(x.shape) <= axis < len(x.shape):
        raise OptionError(f"{how} of {x.shape} to {y.shape} along axis {axis}")
    axis %= len(x.shape)
    length = x.shape[axis]
    for what, given in (("weight", weight), ("bias", bias)):
        if given is not None and (given.shape != (length,) or given.kind != "f32" or not given.contiguous):
            raise OptionError(f"a {what} of {given.kind} {given.shape}, expected f32 {(length,)} in order")
    if how not in _OPERATIONS or x.kind not in ("f32", "f16") or y.kind not in ("f32", "f16"):
        raise OptionError(f"{how} of {x.kind} to {y.kind}, expected f32 or f16")
    if not x.size:
        return []
    inner = in_order(x.shape)[axis]
    if not x.contiguous or not y.contiguous:
        raise Unsupported(f"{how} of strides {x.steps} to {y.steps}", fix="copy it first")
    if y.kind == "f16" and (inner > 1 or length % 2 or y.offset % 2):
        raise Unsupported(
            f"{how} to f16 along axis {axis} of {x.shape}, expected the last axis, of an even length", fix="use f32"
        )
    if _by_subgroup(device, how, x, y, length, inner):
        return [_normalising(device, x, y, length, weight, bias, epsilon, how == "layer_norm")]
    outer = (inner, length * inner, 1)
    more = (weight, bias, epsilon)
    return [_rows(device, how, x, y, (length, inner), outer, (inner, length * inner, 1), more)]


def _by_subgroup(device: VulkanDevice, how: str, x: Tensor, y: Tensor, length: int, inner: int) -> bool:
    physical = device.physical
    return (
        physical.software
        and physical.features["shaderInt64"]
        and physical.subgroup_operations & 16 != 0
        and how in ("layer_norm", "rms_norm")
        and x.kind == y.kind == "f32"
        and inner == 1
        and not any(value % 8 for value in (length, x.offset, y.offset))
        and length <= _MOST_PARTS * 8 * physical.subgroup
    )


def _normalising(
    device: VulkanDevice,
    x: Tensor,
    y: Tensor,
    length: int,
    weight: Tensor | None,
    bias: Tensor | None,
    epsilon: float,
    centred: bool,
) -> Dispatch:
    lanes = device.physical.subgroup
    pipeline = device.pipeline(
        "rows_subgroup",
        {
            "local_size_x": lanes,
            "ROWS": _ROWS,
            "PARTS": -(-length // (8 * lanes)),
            "WEIGHT": weight is not None,
            "BIAS": bias is not None,
            "CENTRED": centred,
        },
        subgroup=lanes,
    )
    rows = x.size // length
    push: dict[str, int | float] = {
        "rows": rows,
        "length_": length,
        "x_offset": x.offset,
        "y_offset": y.offset,
        "weight_offset": weight.offset if weight else 0,
        "bias_offset": bias.offset if bias else 0,
        "epsilon": epsilon,
    }
    buffers = [x.buffer, (weight or x).buffer, (bias or x).buffer, y.buffer]
    return Dispatch(pipeline, buffers, (-(-rows // _ROWS), 1, 1), push, 8.0 * x.size)


def _rows(
    device: VulkanDevice,
    how: str,
    x: Tensor,
    y: Tensor,
    along: tuple[int, int],
    x_place: tuple[int, int, int],
    y_place: tuple[int, int, int],
    more: tuple[Tensor | None, Tensor | None, float] | tuple[()],
) -> Dispatch:
    weight, bias, epsilon = more or (None, None, 0.0)
    length, step = along
    local = 64 if device.physical.software else max(64, device.physical.subgroup)
    pipeline = device.pipeline(
        "rows",
        {
            "local_size_x": local,
            "LANES": local,
            "OPERATION": _OPERATIONS[how],
            "FROM": CODES[x.kind],
            "TO": CODES[y.kind],
            "WEIGHT": weight is not None,
            "BIAS": bias is not None,
        },
    )
    rows = x.size // length
    push: dict[str, int | float] = {
        "rows": rows,
        "length_": length,
        "inner": x_place[0],
        "x_offset": x.offset,
        "x_outer": x_place[1],
        "x_inner": x_place[2],
        "x_step": step,
        "y_offset": y.offset,
        "y_outer": y_place[1],
        "y_inner": y_place[2],
        "y_step": 1 if y.size < x.size or how in _EMPTY else step,
        "weight_offset": weight.offset if weight else 0,
        "bias_offset": bias.offset if bias else 0,
        "epsilon": epsilon,
    }
    groups = (min(rows, int(device.physical.limits["maxComputeWorkGroupCount"][0]), 65535), 1, 1)
    buffers = [x.buffer, (weight or x).buffer, (bias or x).buffer, y.buffer]
    return Dispatch(pipeline, buffers, groups, push, 8.0 * x.size)
