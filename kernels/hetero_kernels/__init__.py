"""The kernels of hetero: what each takes and gives, and its exact answer in numpy.

One folder a kernel: `spec.py` (names, dtypes, shapes, scales), `reference.py` (the integer arithmetic, bit for bit, and
the float32 operation that it approximates). A device's sources are added beside these and must give the same bits.

Runs anywhere numpy does::

    from hetero_kernels import get

    o = get("attention_i8_64x64")(q, k, v)["o"]
    c = get("gemm_i8_i32_384x1536")(a, w)["c"]

The second is one of a family, whose names carry sizes: `names()` lists the kernels of one size, `families()` the
others.
`rt.load("attention_i8_64x64")` finds both through the hooks below.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from hetero.errors import ProgramNotFound
from hetero.plugins import hookimpl
from hetero.program import Program
from hetero_kernels.attention_i8_64x64.spec import ATTENTION_I8_64X64
from hetero_kernels.attention_i8_64x64_v2.spec import ATTENTION_I8_64X64_V2
from hetero_kernels.attention_i8_exact.spec import ATTENTION_I8_EXACT
from hetero_kernels.family import Family
from hetero_kernels.gelu_i8.spec import GELU_I8
from hetero_kernels.gelu_i8_scaled.spec import GELU_I8_SCALED
from hetero_kernels.gemm_i8_i8.spec import GEMM_I8_I8
from hetero_kernels.gemm_i8_i32.spec import GEMM_I8_I32
from hetero_kernels.kernel import Kernel
from hetero_kernels.layernorm_i8.spec import LAYERNORM_I8
from hetero_kernels.layernorm_i8_256.spec import LAYERNORM_I8_256
from hetero_kernels.matmul_i8_64x64.spec import MATMUL_I8_64X64
from hetero_kernels.mel_i16.spec import MEL_I16

if TYPE_CHECKING:
    from hetero.kernel_tools import KernelTools

__all__ = [
    "Family",
    "Kernel",
    "families",
    "get",
    "hetero_kernel_tools",
    "hetero_program",
    "hetero_program_names",
    "names",
]

_KERNELS = {
    kernel.name: kernel
    for kernel in (
        ATTENTION_I8_64X64,
        ATTENTION_I8_64X64_V2,
        GELU_I8,
        GELU_I8_SCALED,
        LAYERNORM_I8_256,
        MATMUL_I8_64X64,
    )
}
_FAMILIES = {family.pattern: family for family in (ATTENTION_I8_EXACT, GEMM_I8_I32, GEMM_I8_I8, LAYERNORM_I8, MEL_I16)}


def names() -> tuple[str, ...]:
    """The names of the kernels of one size, sorted."""
    return tuple(sorted(_KERNELS))


def families() -> tuple[Family, ...]:
    """The kernels of many sizes, sorted by the pattern of their names."""
    return tuple(_FAMILIES[pattern] for pattern in sorted(_FAMILIES))


def get(name: str) -> Kernel:
    """The kernel of that name, of one size or of a family.

    Raises:
        ProgramNotFound: There is none, or none of these sizes.
    """
    kernel = _find(name)
    if kernel is None:
        known = hetero_program_names()
        close = difflib.get_close_matches(name, known, n=1)
        raise ProgramNotFound(
            f"there is no kernel {name!r}; there are {', '.join(known)}",
            fix=f"use {close[0]!r}" if close else "",
        )
    return kernel


def _find(name: str) -> Kernel | None:
    kernel = _KERNELS.get(name)
    if kernel is not None:
        return kernel
    return next((found for found in (family.find(name) for family in families()) if found), None)


@hookimpl
def hetero_program(name: str) -> Program | None:
    """The program of the kernel of that name, or None when it is not a kernel's.

    Raises:
        ProgramNotFound: It is that of a family, but there is no kernel of these sizes.
    """
    kernel = _find(name)
    return kernel.program() if kernel else None


@hookimpl
def hetero_program_names() -> tuple[str, ...]:
    """The kernels' names, and the patterns of those whose names carry sizes."""
    return tuple(sorted([*_KERNELS, *_FAMILIES]))


@hookimpl
def hetero_kernel_tools() -> KernelTools:
    """What checks the kernels' sources for AMD's NPU, and builds them."""
    from hetero_kernels.aie2.tools import Aie2Tools

    return Aie2Tools()
