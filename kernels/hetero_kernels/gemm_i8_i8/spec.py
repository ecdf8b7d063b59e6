"""What `gemm_i8_i8_{K}x{N}` takes and gives, and how float scales become its integers."""

from __future__ import annotations

from functools import cache

import numpy as np

from hetero.errors import InputError
from hetero.tensors import Array
from hetero_kernels.family import Family
from hetero_kernels.gemm_i8_i8.reference import MOST_SHIFT, model, reference
from hetero_kernels.gemm_i8_i32.spec import SIZES
from hetero_kernels.kernel import Kernel, int8, int16, int32


@cache
def _kernel(depth: int, channels: int) -> Kernel:
    return Kernel(
        name=f"gemm_i8_i8_{depth}x{channels}",
        title=f"int8 matrix product with bias and a scale per channel, weight {depth}x{channels}",
        description=(
            "c = clip(floor((a w + bias) multiplier / 2^shift + 1/2)) with a bias and a multiplier for each output "
            "channel, summed in int32 and scaled in 64 bits."
        ),
        scales=(
            "bias: one step is the product of those of a and w. c: choose multiplier / 2^shift as that product over "
            "the step of c, for each channel (`fixed_point` does)."
        ),
        inputs=(
            int8("a", "rows", depth),
            int8("w", depth, channels),
            int32("bias", channels),
            int16("multiplier", channels),
            int8("shift", 1),
        ),
        outputs=(int8("c", "rows", channels),),
        reference=reference,
        model=model,
    )


GEMM_I8_I8 = Family(
    pattern="gemm_i8_i8_{K}x{N}",
    title="int8 matrix product with bias and a scale per channel",
    sizes={"K": SIZES, "N": SIZES},
    build=_kernel,
    usual=({"K": 384, "N": 384}, {"K": 384, "N": 1536}, {"K": 1536, "N": 384}),
)


def fixed_point(scale: Array) -> tuple[Array, Array]:
    """Multipliers and their one shift for scales of output channels, as exact as the largest of them allows.

    Args:
        scale: step of a * step of w / step of c for each channel, float `[N]`; less than 2**15.

    Returns:
        `multiplier` int16 `[N]` and `shift` int8 `[1]`. The largest multiplier has 15 bits.

    Raises:
        InputError: A scale that is not finite, or too large.
    """
    largest = float(np.abs(scale).max(initial=0.0))
    if not np.isfinite(scale).all() or largest >= 2**15:
        raise InputError(
            f"scales reach {largest:g}, expected finite ones below 32768", fix="choose a larger step for the output"
        )
    # frexp: the largest is in [2**(e - 1), 2**e), so that 2**(15 - e) brings it to 15 bits.
    shift = int(np.clip(15 - np.frexp(largest)[1], 0, MOST_SHIFT)) if largest else 0
    multiplier = np.clip(np.rint(np.ldexp(scale.astype(np.float64), shift)), -32767, 32767)
    return multiplier.astype(np.int16), np.array([shift], np.int8)
