"""What `layernorm_i8_{D}` takes and gives."""

from __future__ import annotations

from functools import cache

from hetero_kernels.family import Family
from hetero_kernels.kernel import Kernel, int8, int16
from hetero_kernels.layernorm_i8.reference import MOST_WIDTH, model, reference


@cache
def _kernel(width: int) -> Kernel:
    return Kernel(
        name=f"layernorm_i8_{width}",
        title=f"layer normalisation of int16 rows of {width} to int8",
        description="y = gamma (x - mean) / deviation + beta of each row, with rows scaled to 14 bits.",
        scales=(
            "x: one step of any size for each row, it cancels out. y: one step of any size; gamma and beta are in "
            "steps of y's over 256, so that a gamma of 1 is 256 over the step of y."
        ),
        inputs=(int16("x", "rows", width), int16("gamma", width), int16("beta", width)),
        outputs=(int8("y", "rows", width),),
        reference=reference,
        model=model,
    )


LAYERNORM_I8 = Family(
    pattern="layernorm_i8_{D}",
    title="layer normalisation of int16 rows to int8",
    sizes={"D": range(64, MOST_WIDTH + 1, 64)},
    build=_kernel,
    usual=({"D": 384}, {"D": 512}, {"D": 768}),
)
