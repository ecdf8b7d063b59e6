"""The kernels of hetero: what each takes and gives, and its exact answer in numpy.

One folder a kernel: `spec.py` (names, dtypes, shapes, scales), `reference.py` (the integer arithmetic, bit for bit, and
the float32 operation that it approximates). A device's sources are added beside these and must give the same bits.

Runs anywhere numpy does::

    from hetero_kernels import get

    o = get("attention_i8_64x64")(q, k, v)["o"]

and `rt.load("attention_i8_64x64")` finds the kernels through the hooks below.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from hetero.errors import ProgramNotFound
from hetero.plugins import hookimpl
from hetero.program import Program
from hetero_kernels.attention_i8_64x64.spec import ATTENTION_I8_64X64
from hetero_kernels.gelu_i8.spec import GELU_I8
from hetero_kernels.kernel import Kernel
from hetero_kernels.layernorm_i8_256.spec import LAYERNORM_I8_256
from hetero_kernels.matmul_i8_64x64.spec import MATMUL_I8_64X64

if TYPE_CHECKING:
    from hetero.kernel_tools import KernelTools

__all__ = ["Kernel", "get", "hetero_kernel_tools", "hetero_program", "hetero_program_names", "names"]

_KERNELS = {kernel.name: kernel for kernel in (ATTENTION_I8_64X64, GELU_I8, LAYERNORM_I8_256, MATMUL_I8_64X64)}


def names() -> tuple[str, ...]:
    """The names of all kernels, sorted."""
    return tuple(sorted(_KERNELS))


def get(name: str) -> Kernel:
    """The kernel of that name.

    Raises:
        ProgramNotFound: There is none.
    """
    kernel = _KERNELS.get(name)
    if kernel is None:
        close = difflib.get_close_matches(name, _KERNELS, n=1)
        raise ProgramNotFound(
            f"there is no kernel {name!r}; there are {', '.join(names())}",
            fix=f"use {close[0]!r}" if close else "",
        )
    return kernel


@hookimpl
def hetero_program(name: str) -> Program | None:
    """The program of the kernel of that name, or None when it is not a kernel's."""
    kernel = _KERNELS.get(name)
    return kernel.program() if kernel else None


@hookimpl
def hetero_program_names() -> tuple[str, ...]:
    """The kernels' names."""
    return names()


@hookimpl
def hetero_kernel_tools() -> KernelTools:
    """What checks the kernels' sources for AMD's NPU, and builds them."""
    from hetero_kernels.aie2.tools import Aie2Tools

    return Aie2Tools()
