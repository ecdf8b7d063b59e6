"""Matrix products: C = activation(alpha * A B * scale + bias) + residual, batched and strided.

Three families of shaders:

- `subgroup`: no shared memory and no barrier; B is packed first (once, for weights). Best where a driver has neither
  fast shared memory nor cheap barriers: lavapipe.
- `tiles`: squares of A and B in shared memory, for GPUs; any strides of A and B.
- `matrix`: cooperative matrices, fp16 with sums in fp32, where a device lists 16x16x16.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from hetero.errors import OptionError, Unsupported
from hetero_vulkan.commands import Dispatch
from hetero_vulkan.ops.packing import Packed, pack, packed_shape, panel
from hetero_vulkan.ops.tensors import CODES, Scratch, Tensor, matrices, matrix_steps, words

if TYPE_CHECKING:
    from hetero_vulkan.device import VulkanDevice
    from hetero_vulkan.physical import Physical

Family = Literal["subgroup", "tiles", "matrix"]

ACTIVATIONS = {"": 0, "relu": 1, "gelu": 2, "gelu_tanh": 3, "sigmoid": 4, "tanh": 5, "silu": 6}
"""The numbers that shaders know activations by (activations.glsl). `gelu` is the one with erf."""

_SHUFFLE = 16
"""VkSubgroupFeatureFlags: shuffle."""


@dataclass(frozen=True)
class Tuning:
    """How a product is computed.

    Attributes:
        family: Which shaders.
        rows: Of C, for a subgroup (family `subgroup`).
        tile: Of C for a workgroup, and of k at a time: rows, columns, k (family `tiles`).
        each: Of C for an invocation: rows, columns (family `tiles`).
        subgroups: In a workgroup (family `matrix`).
    """

    family: Family = "tiles"
    rows: int = 32
    tile: tuple[int, int, int] = (64, 64, 16)
    each: tuple[int, int] = (4, 4)
    subgroups: int = 4


def default_tuning(physical: Physical) -> Tuning:
    """What suits a device before anything was measured."""
    if physical.software and physical.subgroup_operations & _SHUFFLE:
        return Tuning("subgroup")
    if physical.limits["maxComputeSharedMemorySize"] >= 16384 and physical.subgroup >= 32:
        return Tuning("tiles", tile=(64, 64, 16), each=(4, 4))
    return Tuning("tiles", tile=(32, 32, 16), each=(4, 2))


def gemm(
    device: VulkanDevice,
    a: Tensor,
    b: Tensor | Packed,
    c: Tensor,
    *,
    bias: Tensor | None = None,
    scale: Tensor | None = None,
    activation: str = "",
    residual: Tensor | None = None,
    alpha: float = 1.0,
    tuning: Tuning | None = None,
    scratch: Scratch | None = None,
) -> list[Dispatch]:
    """C = activation(alpha * A B * scale + bias) + residual.

    Args:
        device: The device.
        a: `[M, K]`, `[B, M, K]` or `[B, H, M, K]`, f32 or f16, of any strides; rows that overlap make a convolution.
        b: `[K, N]`, or batched like A, or of a batch of 1 for all of A's; f32, f16, or i8. Packed or not.
        c: `[M, N]`, batched like A, f32 or f16; the last stride is 1.
        bias: f32 `[N]`, added to each row.
        scale: f32 `[N]`: the columns' scales, for i8.
        activation: One of `ACTIVATIONS`.
        residual: Of C's shape and kind, the last stride is 1.
        alpha: Multiplies the sums.
        tuning: How; None: by the device's properties.
        scratch: Where to pack B, if it must be.

    Raises:
        OptionError: Shapes or kinds that do not fit.
        Unsupported: Strides that no shader takes.
    """
    tuning = tuning or default_tuning(device.physical)
    if activation not in ACTIVATIONS:
        raise OptionError(f"activation {activation!r}", fix=f"there are: {', '.join(ACTIVATIONS)}")
    outer, inner, m, n = matrices(c.shape, "C")
    k = a.shape[-1]
    b_shape = matrices(b.shape, "B")
    fits = b_shape[2:] == (k, n) and all(
        mine in (1, theirs) for mine, theirs in zip(b_shape[:2], (outer, inner), strict=True)
    )
    if not fits or matrices(a.shape, "A") != (outer, inner, m, k):
        raise OptionError(f"A {a.shape} times B {b.shape} to C {c.shape}, expected [M, K] [K, N] [M, N], batched alike")
    if (b if isinstance(b, Tensor) else b.tensor).kind not in ("f32", "f16", "i8"):
        raise OptionError("B of i32, expected f32, f16 or i8")
    _check(c, bias, scale, residual, a)
    if not c.size:
        return []
    if not k:
        raise Unsupported("a product over no elements", fix="fill C with what the bias and the activation give")
    if isinstance(b, Packed) or tuning.family == "subgroup":
        return _by_subgroup(device, a, b, c, (bias, scale, residual), activation, alpha, tuning, scratch)
    family = _by_matrix if tuning.family == "matrix" and matrix_fits(device, a, b, c) else _by_tiles
    return family(device, a, b, c, (bias, scale, residual), activation, alpha, tuning)


_More = tuple[Tensor | None, Tensor | None, Tensor | None]
"""Bias, scale and residual."""


def _by_subgroup(
    device: VulkanDevice,
    a: Tensor,
    b: Tensor | Packed,
    c: Tensor,
    more: _More,
    activation: str,
    alpha: float,
    tuning: Tuning,
    scratch: Scratch | None,
) -> list[Dispatch]:
    steps: list[Dispatch] = []
    physical = device.physical
    outer, inner, m, n = matrices(c.shape, "C")
    k = a.shape[-1]
    if matrix_steps(a)[3] != 1 and k > 1:
        raise Unsupported("rows of A that do not lie in order", fix="copy A first, or use the family 'tiles'")
    if isinstance(b, Tensor):
        if scratch is None:
            raise OptionError("B is not packed, and there is no scratch to pack it in", fix="pack it, or give scratch")
        b_outer, b_inner, _, _ = matrices(b.shape, "B")
        shape = (b_outer, b_inner, *packed_shape(physical, k, n))
        made = Packed(Tensor(scratch(4 * words(math.prod(shape), b.kind)), shape, b.kind), n, k)
        steps += pack(device, b, made.tensor)
        b = made
    if b.tensor.offset % 8 or not b.tensor.contiguous:
        raise Unsupported("a packed B that is not in order, or not at a multiple of 8 elements", fix="pack it anew")
    b_outer, b_inner, _, _ = matrices(b.shape, "B")
    a_steps, c_steps = matrix_steps(a), matrix_steps(c)
    a_aligned = k % 8 == 0 and not any(x % 8 for x in (*a_steps[:3], a.offset))
    c_aligned = not any(x % 8 for x in (*c_steps[:3], c.offset))
    # Where each element is read or written by itself, many rows make a shader that takes long to compile.
    rows = min(tuning.rows if a_aligned and c_aligned else 8, 1 << (m - 1).bit_length())
    constants = {
        "local_size_x": physical.subgroup,
        "ROWS": rows,
        "A_ALIGNED": a_aligned,
        "C_ALIGNED": c_aligned,
        **_constants(a, b.tensor, c, more, activation),
    }
    name = "gemm_subgroup_wide" if physical.software and physical.features["shaderInt64"] else "gemm_subgroup"
    pipeline = device.pipeline(name, constants, subgroup=physical.subgroup)
    push = {
        **_push(a, c, more, alpha, k),
        "b_offset": b.tensor.offset,
        "b_row": panel(physical),
        "b_outer": b.each * b_inner if b_outer > 1 else 0,
        "b_inner": b.each if b_inner > 1 else 0,
    }
    groups = (-(-m // rows), -(-n // panel(physical)), outer * inner)
    steps.append(Dispatch(pipeline, _bound(a, b.tensor, c, more), groups, push, _cost(c, k)))
    return steps


def _by_tiles(
    device: VulkanDevice,
    a: Tensor,
    b: Tensor | Packed,
    c: Tensor,
    more: _More,
    activation: str,
    alpha: float,
    tuning: Tuning,
) -> list[Dispatch]:
    assert isinstance(b, Tensor)
    outer, inner, m, n = matrices(c.shape, "C")
    (rows, columns, depth), (rows_each, columns_each) = tuning.tile, tuning.each
    a_steps, b_steps = matrix_steps(a), matrix_steps(b)
    pipeline = device.pipeline(
        "gemm_tiles",
        {
            "TILE_M": rows,
            "TILE_N": columns,
            "TILE_K": depth,
            "EACH_M": rows_each,
            "EACH_N": columns_each,
            "local_size_x": columns // columns_each,
            "local_size_y": rows // rows_each,
            "A_VECTORS": a.kind == "f32"
            and a_steps[3] == 1
            and not any(x % 4 for x in (*a_steps[:3], a.offset, a.shape[-1])),
            "B_VECTORS": b.kind == "f32" and b_steps[3] == 1 and not any(x % 4 for x in (*b_steps[:3], b.offset, n)),
            **_constants(a, b, c, more, activation),
        },
    )
    b_shape = matrices(b.shape, "B")
    push = {
        **_push(a, c, more, alpha, a.shape[-1]),
        "b_offset": b.offset,
        "b_row": b_steps[2],
        "b_outer": b_steps[0] if b_shape[0] > 1 else 0,
        "b_inner": b_steps[1] if b_shape[1] > 1 else 0,
        "a_column": a_steps[3],
        "b_column": b_steps[3],
    }
    groups = (-(-n // columns), -(-m // rows), outer * inner)
    return [Dispatch(pipeline, _bound(a, b, c, more), groups, push, _cost(c, a.shape[-1]))]


def matrix_fits(device: VulkanDevice, a: Tensor, b: Tensor | Packed, c: Tensor) -> bool:
    """Whether cooperative matrices of 16x16x16 in fp16 are here, and this product is one for them."""
    physical = device.physical
    listed = any((s.m, s.n, s.k, s.a, s.b, s.c) == (16, 16, 16, "f16", "f16", "f32") for s in physical.matrices)
    if not listed or isinstance(b, Packed) or not physical.features.get("vulkanMemoryModel", False):
        return False
    m, n, k = c.shape[-2], c.shape[-1], a.shape[-1]
    a_steps, b_steps = matrix_steps(a), matrix_steps(b)
    whole = not any(x % 16 for x in (m, n, k)) and not any(
        x % 8 for x in (*a_steps[:3], *b_steps[:3], a.offset, b.offset)
    )
    return whole and a.kind == b.kind == "f16" and a_steps[3] == 1 and b_steps[3] == 1


def _by_matrix(
    device: VulkanDevice,
    a: Tensor,
    b: Tensor | Packed,
    c: Tensor,
    more: _More,
    activation: str,
    alpha: float,
    tuning: Tuning,
) -> list[Dispatch]:
    assert isinstance(b, Tensor)
    outer, inner, m, n = matrices(c.shape, "C")
    b_steps, b_shape = matrix_steps(b), matrices(b.shape, "B")
    subgroups = math.gcd(n // 16, tuning.subgroups)
    pipeline = device.pipeline(
        "gemm_matrix",
        {
            "local_size_x": device.physical.subgroup * subgroups,
            "SUBGROUPS": subgroups,
            **_constants(a, b, c, more, activation),
        },
        subgroup=device.physical.subgroup,
    )
    push = {
        **_push(a, c, more, alpha, a.shape[-1]),
        "b_offset": b.offset,
        "b_row": b_steps[2],
        "b_outer": b_steps[0] if b_shape[0] > 1 else 0,
        "b_inner": b_steps[1] if b_shape[1] > 1 else 0,
    }
    groups = (n // 16 // subgroups, m // 16, outer * inner)
    return [Dispatch(pipeline, _bound(a, b, c, more), groups, push, _cost(c, a.shape[-1]))]


def _check(c: Tensor, bias: Tensor | None, scale: Tensor | None, residual: Tensor | None, a: Tensor) -> None:
    n = c.shape[-1]
    for what, given in (("bias", bias), ("scale", scale)):
        if given is not None and (given.shape != (n,) or given.kind != "f32" or not given.contiguous):
            raise OptionError(f"a {what} of {given.kind} {given.shape}, expected f32 {(n,)} in order")
    if residual is not None and (residual.shape != c.shape or residual.kind != c.kind):
        raise OptionError(f"a residual of {residual.kind} {residual.shape}, expected {c.kind} {c.shape}")
    for what, given in (("A", a), ("C", c)):
        if given.kind not in ("f32", "f16"):
            raise OptionError(f"{what} of {given.kind}, expected f32 or f16")
    for what, given in (("C", c), ("the residual", residual)):
        if given is None:
            continue
        steps = matrix_steps(given)
        if steps[3] != 1 and n > 1:
            raise Unsupported(f"rows of {what} that do not lie in order", fix="copy it afterwards")
        if (
            given is c
            and given.kind == "f16"
            and (any(x % 2 for x in (*steps[:2], given.offset)) or ((c.shape[-2] > 1 or n % 2) and steps[2] % 2))
        ):
            raise Unsupported(
                f"{what} of f16 with rows of {steps[2]} elements from element {given.offset}, expected even numbers",
                fix="use f32, or rows with one element more",
            )


def _constants(a: Tensor, b: Tensor, c: Tensor, more: _More, activation: str) -> dict[str, int | bool]:
    bias, scale, residual = more
    return {
        "A_TYPE": CODES[a.kind],
        "B_TYPE": CODES[b.kind],
        "C_TYPE": CODES[c.kind],
        "ACTIVATION": ACTIVATIONS[activation],
        "BIAS": bias is not None,
        "SCALE": scale is not None,
        "RESIDUAL": residual is not None,
    }


def _push(a: Tensor, c: Tensor, more: _More, alpha: float, k: int) -> dict[str, int | float]:
    bias, scale, residual = more
    _, inner, m, n = matrices(c.shape, "C")
    a_steps, c_steps = matrix_steps(a), matrix_steps(c)
    r_steps = (0, 0, 0, 0) if residual is None else matrix_steps(residual)
    return {
        "m": m,
        "n": n,
        "k": k,
        "inner": inner,
        "a_offset": a.offset,
        "a_row": a_steps[2],
        "a_outer": a_steps[0],
        "a_inner": a_steps[1],
        "c_offset": c.offset,
        "c_row": c_steps[2],
        "c_outer": c_steps[0],
        "c_inner": c_steps[1],
        "r_offset": residual.offset if residual else 0,
        "r_row": r_steps[2],
        "r_outer": r_steps[0],
        "r_inner": r_steps[1],
        "bias_offset": bias.offset if bias else 0,
        "scale_offset": scale.offset if scale else 0,
        "alpha": alpha,
    }


def _bound(a: Tensor, b: Tensor, c: Tensor, more: _More) -> list[Any]:
    # What is not there is not read; a buffer is bound all the same.
    return [a.buffer, b.buffer, *((given or a).buffer for given in more), c.buffer]


def _cost(c: Tensor, k: int) -> float:
    return 2.0 * c.size * k
