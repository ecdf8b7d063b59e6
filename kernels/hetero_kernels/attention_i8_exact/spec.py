"""What `attention_i8_exact_{T}` takes and gives, and how floats become its integers."""

from __future__ import annotations

from functools import cache

from hetero_kernels.attention_i8_exact.reference import BLOCK, MOST_KEYS, model, reference
from hetero_kernels.family import Family
from hetero_kernels.kernel import Kernel, int8, int16, int32

_HEAD = 64


@cache
def _kernel(length: int) -> Kernel:
    return Kernel(
        name=f"attention_i8_exact_{length}",
        title=f"int8 attention to all of {length} keys, online softmax",
        description=(
            "softmax(temperature / 2^34 * log(2) * q k^T) v of each head over its first `keys` keys, in blocks of 64 "
            "keys, with weights of 15 bits and integers only."
        ),
        scales=(
            "q and k: steps of any size, for each query and each head; temperature is 2^34 * log2(e) / sqrt(64) times "
            "their product (`hetero_kernels.softmax.temperatures`). v: one step of any size for each head. o: v's step "
            "over 256."
        ),
        inputs=(
            int8("q", "heads", length, _HEAD),
            int8("k", "heads", length, _HEAD),
            int8("v", "heads", length, _HEAD),
            int32("temperature", "heads", length),
            int32("keys", "heads", 1),
        ),
        outputs=(int16("o", "heads", length, _HEAD),),
        reference=reference,
        model=model,
    )


ATTENTION_I8_EXACT = Family(
    pattern="attention_i8_exact_{T}",
    title="int8 attention to all keys, online softmax",
    sizes={"T": range(BLOCK, MOST_KEYS + 1, BLOCK)},
    build=_kernel,
    usual=({"T": 512}, {"T": 768}, {"T": 1024}, {"T": 1536}),
)
