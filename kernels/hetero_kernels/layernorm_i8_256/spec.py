"""What `layernorm_i8_256` takes and gives."""

from __future__ import annotations

from hetero_kernels.kernel import Kernel, int8
from hetero_kernels.layernorm_i8_256.reference import model, reference

LAYERNORM_I8_256 = Kernel(
    name="layernorm_i8_256",
    title="int8 layer normalisation, rows of 256",
    description="y = gamma (x - mean) / sqrt(variance + 1) + beta of each row, with an integer square root.",
    scales=(
        "x: one step of any size, it cancels out (but rows that vary by only a few steps are inexact). "
        "gamma, beta and y: one step of any size, the same for all three."
    ),
    inputs=(int8("x", "rows", 256), int8("gamma", 256), int8("beta", 256)),
    outputs=(int8("y", "rows", 256),),
    reference=reference,
    model=model,
)
