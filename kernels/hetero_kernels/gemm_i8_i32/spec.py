"""What `gemm_i8_i32_{K}x{N}` takes and gives."""

from __future__ import annotations

from functools import cache

from hetero_kernels.family import Family
from hetero_kernels.gemm_i8_i32.reference import model, reference
from hetero_kernels.kernel import Kernel, int8, int32

SIZES = range(64, 8192 + 1, 64)


@cache
def _kernel(depth: int, channels: int) -> Kernel:
    return Kernel(
        name=f"gemm_i8_i32_{depth}x{channels}",
        title=f"int8 matrix product to int32, weight {depth}x{channels}",
        description="c = a w, exact: no scale, no rounding, no saturation.",
        scales="One step of c is the product of those of a and w, whichever these are.",
        inputs=(int8("a", "rows", depth), int8("w", depth, channels)),
        outputs=(int32("c", "rows", channels),),
        reference=reference,
        model=model,
    )


GEMM_I8_I32 = Family(
    pattern="gemm_i8_i32_{K}x{N}",
    title="int8 matrix product to int32",
    sizes={"K": SIZES, "N": SIZES},
    build=_kernel,
    usual=({"K": 384, "N": 384}, {"K": 384, "N": 1536}, {"K": 1536, "N": 384}),
)
