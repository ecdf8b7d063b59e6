"""B of a matrix product, as the family `subgroup` reads it: in panels as wide as a subgroup."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hetero.errors import OptionError
from hetero_vulkan.commands import Dispatch
from hetero_vulkan.ops.tensors import CODES, Tensor, lanes, matrices, matrix_steps, rounded, spread, words

if TYPE_CHECKING:
    from hetero_vulkan.device import VulkanDevice
    from hetero_vulkan.physical import Physical


@dataclass(frozen=True)
class Packed:
    """B as the family `subgroup` reads it.

    Attributes:
        tensor: `[panels, rows, width]`, batched as B was, in order.
        n: Columns, without the zeros.
        k: Rows, without the zeros.
    """

    tensor: Tensor
    n: int
    k: int

    @property
    def shape(self) -> tuple[int, ...]:
        """As it was before it was packed."""
        return (*self.tensor.shape[:-3], self.k, self.n)

    @property
    def each(self) -> int:
        """Elements of one matrix."""
        return math.prod(self.tensor.shape[-3:])


def panel(physical: Physical) -> int:
    """Columns of a panel of packed B."""
    return 8 * physical.subgroup


def packed_shape(physical: Physical, k: int, n: int) -> tuple[int, int, int]:
    """Panels, rows and columns of a packed B of `k` rows and `n` columns."""
    width = panel(physical)
    return rounded(n, width) // width, rounded(k, 8), width


def pack(device: VulkanDevice, b: Tensor, target: Tensor) -> list[Dispatch]:
    """Pack B for the family `subgroup`.

    Args:
        device: The device.
        b: `[K, N]`, `[B, K, N]` or `[B, H, K, N]` of any strides: `transposed` sees `[N, K]` as `[K, N]`.
        target: `[B, H, *packed_shape]` in order, or without the leading dimensions that are 1; of the same kind, or
            f32 to f16 and back.

    Raises:
        OptionError: The shapes do not fit.
    """
    outer, inner, k, n = matrices(b.shape, "B")
    shape = packed_shape(device.physical, k, n)
    if target.size != outer * inner * math.prod(shape) or not target.contiguous:
        raise OptionError(f"a packed B of shape {target.shape}, expected {(outer, inner, *shape)} in order")
    if not b.size:
        return []
    count = words(math.prod(shape), target.kind)
    steps = matrix_steps(b)
    local = lanes(device)
    pipeline = device.pipeline(
        "gemm_pack",
        {"local_size_x": local, "WIDTH": shape[2], "FROM": CODES[b.kind], "TO": CODES[target.kind]},
    )
    push = {
        "n": n,
        "k": k,
        "inner": inner,
        "offset": b.offset,
        "row": steps[2],
        "column": steps[3],
        "outer_stride": steps[0],
        "inner_stride": steps[1],
        "words": count,
        "to_offset": words(target.offset, target.kind),
    }
    groups = (spread(device, count, local)[0], 1, outer * inner)
    return [Dispatch(pipeline, [b.buffer, target.buffer], groups, push)]
