"""What `attention_i8_64x64` takes and gives."""

from __future__ import annotations

from hetero_kernels.attention_i8_64x64.reference import model, reference
from hetero_kernels.kernel import Kernel, int8

ATTENTION_I8_64X64 = Kernel(
    name="attention_i8_64x64",
    title="int8 attention, independent 64x64 tiles",
    description=(
        "softmax(q k^T / 2048) v of each tile, with integers only. A tile normalises over its own 64 keys: it is not a "
        "part of attention over more keys."
    ),
    scales=(
        "q and k: one step is 1/16, so that q k^T / 2048 is q k^T / sqrt(64) of the real values; other steps a and b "
        "mean a temperature of 256 a b. v and o: one step of any size, the same for both."
    ),
    inputs=(int8("q", "tiles", 64, 64), int8("k", "tiles", 64, 64), int8("v", "tiles", 64, 64)),
    outputs=(int8("o", "tiles", 64, 64),),
    reference=reference,
    model=model,
)
