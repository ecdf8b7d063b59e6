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
from typing import TYPE_CHECKING, Literal

from hetero.errors import OptionError, Unsupported
from hetero_vulkan.commands import Dispatch
from hetero_vulkan.ops.addresses import can_address, gathers
from hetero_vulkan.ops.packing import Packed, pack, packed_shape, panel
from hetero_vulkan.ops.tensors import CODES, Kind, Scratch, Tensor, matrices, matrix_steps, words

if TYPE_CHECKING:
    from hetero_vulkan.device import VulkanDevice
    from hetero_vulkan.physical import Physical
    from hetero_vulkan.pipelines import Pipeline

Family = Literal["subgroup", "tiles", "matrix"]

ACTIVATIONS = {"": 0, "relu": 1, "gelu": 2, "gelu_tanh": 3, "sigmoid": 4, "tanh": 5, "silu": 6}
"""The numbers that shaders know activations by (activations.glsl). `gelu` is the one with erf."""

_SHUFFLE, _BALLOT = 16, 8
"""VkSubgroupFeatureFlags."""

_MATRIX_FEATURES = ("cooperativeMatrix", "shaderFloat16", "storageBuffer16BitAccess", "vulkanMemoryModel")
"""What `gemm_matrix` needs."""


@dataclass(frozen=True)
class Tuning:
    """How a product is computed.

    Attributes:
        family: Which shaders.
        rows: Of C, for a subgroup (family `subgroup`).
        tile: Of C for a workgroup, and of k at a time: rows, columns, k (family `tiles`).
        each: Of C for an invocation: rows, columns (family `tiles`).
        subgroups: In a workgroup (family `matrix`).
        addressed: A and B are read by their addresses, where the device can (family `subgroup`).
    """

    family: Family = "tiles"
    rows: int = 32
    tile: tuple[int, int, int] = (64, 64, 16)
    each: tuple[int, int] = (4, 4)
    subgroups: int = 4
    addressed: bool = False


def default_tuning(physical: Physical, values: Kind = "f32") -> Tuning:
    """What suits a device before anything was measured.

    Args:
        physical: The device.
        values: The type of most of A and B.
    """
    if values == "f16" and lists_matrices(physical):
        return Tuning("matrix")
    if physical.software and physical.subgroup_operations & _SHUFFLE:
        return addressed_tuning(physical) if gathers(physical) and can_broadcast(physical) else Tuning("subgroup")
    if physical.limits["maxComputeSharedMemorySize"] >= 16384 and physical.subgroup >= 32:
        return Tuning("tiles", tile=(64, 64, 16), each=(4, 4))
    return Tuning("tiles", tile=(32, 32, 16), each=(4, 2))


def addressed_tuning(physical: Physical) -> Tuning:
    """By addresses: the loop must fit in what a CPU holds of its code, so that wide subgroups get fewer rows."""
    return Tuning("subgroup", rows=16 if physical.subgroup >= 16 else 24, addressed=True)


def can_broadcast(physical: Physical) -> bool:
    """Whether its subgroups do what `gemm_subgroup_address` does in them."""
    return physical.subgroup_operations & (_SHUFFLE | _BALLOT) == _SHUFFLE | _BALLOT


def lists_matrices(physical: Physical) -> bool:
    """Whether cooperative matrices of 16x16x16 in fp16 with sums in fp32 are here, and all that their shader needs."""
    listed = any((s.m, s.n, s.k, s.a, s.b, s.c) == (16, 16, 16, "f16", "f16", "f32") for s in physical.matrices)
    return listed and all(physical.features.get(feature, False) for feature in _MATRIX_FEATURES)


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
    product = _Product(device, a, b, c, bias, scale, residual, activation, alpha)
    product.check()
    if not c.size:
        return []
    if not product.k:
        raise Unsupported("a product over no elements", fix="fill C with what the bias and the activation give")
    if isinstance(b, Packed) or tuning.family == "subgroup":
        return _by_subgroup(product, tuning, scratch)
    if tuning.family == "matrix" and matrix_fits(device, a, b, c):
        return [_by_matrix(product, b, tuning)]
    return [_by_tiles(product, b, tuning)]


@dataclass(frozen=True)
class _Product:
    """What is to be computed, as `gemm` was told; and of it, what every family of shaders is told."""

    device: VulkanDevice
    a: Tensor
    b: Tensor | Packed
    c: Tensor
    bias: Tensor | None
    scale: Tensor | None
    residual: Tensor | None
    activation: str
    alpha: float

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """Two of the batch, rows and columns of C."""
        return matrices(self.c.shape, "C")

    @property
    def k(self) -> int:
        """Of what sums are made."""
        return self.a.shape[-1]

    def check(self) -> None:
        """Raises OptionError and Unsupported as `gemm` does."""
        a, b, c = self.a, self.b, self.c
        if self.activation not in ACTIVATIONS:
            raise OptionError(f"activation {self.activation!r}", fix=f"there are: {', '.join(ACTIVATIONS)}")
        outer, inner, m, n = self.sizes
        b_shape = matrices(b.shape, "B")
        fits = b_shape[2:] == (self.k, n) and all(
            mine in (1, theirs) for mine, theirs in zip(b_shape[:2], (outer, inner), strict=True)
        )
        if not fits or matrices(a.shape, "A") != (outer, inner, m, self.k):
            raise OptionError(
                f"A {a.shape} times B {b.shape} to C {c.shape}, expected [M, K] [K, N] [M, N], batched alike"
            )
        kinds: tuple[tuple[str, Kind, tuple[Kind, ...]], ...] = (
            ("A", a.kind, ("f32", "f16")),
            ("B", (b if isinstance(b, Tensor) else b.tensor).kind, ("f32", "f16", "i8")),
            ("C", c.kind, ("f32", "f16")),
        )
        for what, kind, taken in kinds:
            if kind not in taken:
                raise OptionError(f"{what} of {kind}, expected {' or '.join(taken)}")
        for what, given in (("bias", self.bias), ("scale", self.scale)):
            if given is not None and (given.shape != (n,) or given.kind != "f32" or not given.contiguous):
                raise OptionError(f"a {what} of {given.kind} {given.shape}, expected f32 {(n,)} in order")
        if self.residual is not None and (self.residual.shape != c.shape or self.residual.kind != c.kind):
            raise OptionError(f"a residual of {self.residual.kind} {self.residual.shape}, expected {c.kind} {c.shape}")
        for what, given in (("C", c), ("the residual", self.residual)):
            if given is not None and matrix_steps(given)[3] != 1 and n > 1:
                raise Unsupported(f"rows of {what} that do not lie in order", fix="copy it afterwards")
        steps = matrix_steps(c)
        odd = any(x % 2 for x in (*steps[:2], c.offset)) or ((m > 1 or n % 2) and steps[2] % 2)
        if c.kind == "f16" and odd:
            raise Unsupported(
                f"C of f16 with rows of {steps[2]} elements from element {c.offset}, expected even numbers",
                fix="use f32, or rows with one element more",
            )

    def constants(self, b: Tensor) -> dict[str, int | bool]:
        """Of every family."""
        return {
            "A_TYPE": CODES[self.a.kind],
            "B_TYPE": CODES[b.kind],
            "C_TYPE": CODES[self.c.kind],
            "ACTIVATION": ACTIVATIONS[self.activation],
            "BIAS": self.bias is not None,
            "SCALE": self.scale is not None,
            "RESIDUAL": self.residual is not None,
        }

    def dispatch(
        self,
        pipeline: Pipeline,
        b: Tensor,
        b_steps: tuple[int, int, int],
        groups: tuple[int, int],
        **more: int,
    ) -> Dispatch:
        """The step.

        Args:
            pipeline: The shader.
            b: As the shader reads it.
            b_steps: Of B: both of the batch, and a row.
            groups: Workgroups of one matrix.
            more: Push constants besides.
        """
        outer, inner, m, n = self.sizes
        a, c, residual = self.a, self.c, self.residual
        push: dict[str, int | float] = {"m": m, "n": n, "k": self.k, "inner": inner, "alpha": self.alpha, **more}
        b_shape = matrices(self.b.shape, "B")
        b_outer, b_inner, b_row = b_steps
        places = {
            "a": (a.offset, *matrix_steps(a)[:3]),
            # One matrix of B may serve all of A's.
            "b": (b.offset, b_outer if b_shape[0] > 1 else 0, b_inner if b_shape[1] > 1 else 0, b_row),
            "c": (c.offset, *matrix_steps(c)[:3]),
            "r": (0, 0, 0, 0) if residual is None else (residual.offset, *matrix_steps(residual)[:3]),
        }
        for name, place in places.items():
            push |= {f"{name}_{what}": x for what, x in zip(("offset", "outer", "inner", "row"), place, strict=True)}
        push["bias_offset"] = self.bias.offset if self.bias else 0
        push["scale_offset"] = self.scale.offset if self.scale else 0
        # What is not there is not read; a buffer is bound all the same.
        others = [(given or a).buffer for given in (self.bias, self.scale, residual)]
        cost = 2.0 * c.size * self.k
        return Dispatch(pipeline, [a.buffer, b.buffer, *others, c.buffer], (*groups, outer * inner), push, cost)


def _by_subgroup(product: _Product, tuning: Tuning, scratch: Scratch | None) -> list[Dispatch]:
    steps: list[Dispatch] = []
    device, a, b, c, k = product.device, product.a, product.b, product.c, product.k
    physical = device.physical
    _, _, m, n = product.sizes
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
    a_steps, c_steps = matrix_steps(a), matrix_steps(c)
    a_aligned = k % 8 == 0 and not any(x % 8 for x in (*a_steps[:3], a.offset))
    r_steps = (0,) if product.residual is None else (*matrix_steps(product.residual)[:3], product.residual.offset)
    c_aligned = n % 8 == 0 and not any(x % 8 for x in (*c_steps[:3], c.offset, *r_steps))
    # Where each element is read or written by itself, many rows make a shader that takes long to compile.
    rows = min(tuning.rows if a_aligned and c_aligned else 8, 1 << (m - 1).bit_length())
    constants = {
        "local_size_x": physical.subgroup,
        "ROWS": rows,
        "A_ALIGNED": a_aligned,
        "C_ALIGNED": c_aligned,
        **product.constants(b.tensor),
    }
    if tuning.addressed and a_aligned and can_address(physical) and can_broadcast(physical):
        name = "gemm_subgroup_address"
    else:
        name = "gemm_subgroup_wide" if physical.software and physical.features["shaderInt64"] else "gemm_subgroup"
    pipeline = device.pipeline(name, constants, subgroup=physical.subgroup)
    width = panel(physical)
    b_steps = (b.each * matrices(b.shape, "B")[1], b.each, width)
    return [*steps, product.dispatch(pipeline, b.tensor, b_steps, (-(-m // rows), -(-n // width)))]


def _by_tiles(product: _Product, b: Tensor, tuning: Tuning) -> Dispatch:
    a = product.a
    _, _, m, n = product.sizes
    (rows, columns, depth), (rows_each, columns_each) = tuning.tile, tuning.each
    a_steps, b_steps = matrix_steps(a), matrix_steps(b)
    pipeline = product.device.pipeline(
        "gemm_tiles",
        {
            "TILE_M": rows,
            "TILE_N": columns,
            "TILE_K": depth,
            "EACH_M": rows_each,
            "EACH_N": columns_each,
            "local_size_x": columns // columns_each,
            "local_size_y": rows // rows_each,
            "A_VECTORS": _in_vectors(a, product.k),
            "B_VECTORS": _in_vectors(b, n),
            **product.constants(b),
        },
    )
    groups = (-(-n // columns), -(-m // rows))
    return product.dispatch(pipeline, b, b_steps[:3], groups, a_column=a_steps[3], b_column=b_steps[3])


def _in_vectors(x: Tensor, columns: int) -> bool:
    """Whether four elements of a row lie together, at a multiple of four."""
    steps = matrix_steps(x)
    return x.kind == "f32" and steps[3] == 1 and not any(each % 4 for each in (*steps[:3], x.offset, columns))


def matrix_fits(device: VulkanDevice, a: Tensor, b: Tensor | Packed, c: Tensor) -> bool:
    """Whether cooperative matrices are here, and this product is one for them.

    C may have any 16 rows or more: the last matrix begins where it fits. So it does along columns, of which there must
    be a multiple of 8, as rows of A and B begin at one; sums are of a multiple of 16.
    """
    if isinstance(b, Packed) or not lists_matrices(device.physical):
        return False
    m, n, k = c.shape[-2], c.shape[-1], a.shape[-1]
    a_steps, b_steps = matrix_steps(a), matrix_steps(b)
    aligned = not any(x % 8 for x in (*a_steps[:3], *b_steps[:3], a.offset, b.offset))
    in_order = a_steps[3] == b_steps[3] == 1
    return a.kind == b.kind == "f16" and m >= 16 and n >= 16 and not n % 8 and not k % 16 and aligned and in_order


def _by_matrix(product: _Product, b: Tensor, tuning: Tuning) -> Dispatch:
    _, _, m, n = product.sizes
    across, subgroup = -(-n // 16), product.device.physical.subgroup
    subgroups = math.gcd(across, tuning.subgroups)
    pipeline = product.device.pipeline(
        "gemm_matrix",
        {"local_size_x": subgroup * subgroups, "SUBGROUPS": subgroups, **product.constants(b)},
        subgroup=subgroup,
    )
    return product.dispatch(pipeline, b, matrix_steps(b)[:3], (across // subgroups, -(-m // 16)))
