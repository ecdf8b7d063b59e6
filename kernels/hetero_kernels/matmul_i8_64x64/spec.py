"""What `matmul_i8_64x64` takes and gives."""

from __future__ import annotations

from hetero_kernels.kernel import Kernel, int8
from hetero_kernels.matmul_i8_64x64.reference import model, reference

MATMUL_I8_64X64 = Kernel(
    name="matmul_i8_64x64",
    title="int8 matrix product, 64x64 tiles",
    description="c = clip((a b) >> 7) of each pair of tiles, summed in int32; the shift rounds down.",
    scales="a, b and c: one step is 1/128. Other steps of a and b: c's is 128 times their product.",
    inputs=(int8("a", "tiles", 64, 64), int8("b", "tiles", 64, 64)),
    outputs=(int8("c", "tiles", 64, 64),),
    reference=reference,
    model=model,
)
