"""What `attention_i8_64x64_v2` takes and gives."""

from __future__ import annotations

from hetero_kernels.attention_i8_64x64_v2.reference import model, reference
from hetero_kernels.kernel import Kernel, int8, int32

ATTENTION_I8_64X64_V2 = Kernel(
    name="attention_i8_64x64_v2",
    title="int8 attention, independent 64x64 tiles, a temperature each",
    description=(
        "softmax(temperature / 2^34 * log(2) * q k^T) v of each tile, with weights of 15 bits and integers only. A "
        "tile normalises over its own 64 keys: it is not a part of attention over more keys (attention_i8_exact is)."
    ),
    scales=(
        "q and k: steps of any size for each tile; temperature is 2^34 * log2(e) / sqrt(64) times their product "
        "(`hetero_kernels.softmax.temperatures`). v and o: one step of any size, the same for both."
    ),
    inputs=(
        int8("q", "tiles", 64, 64),
        int8("k", "tiles", 64, 64),
        int8("v", "tiles", 64, 64),
        int32("temperature", "tiles", 1),
    ),
    outputs=(int8("o", "tiles", 64, 64),),
    reference=reference,
    model=model,
)
