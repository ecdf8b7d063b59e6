"""How many bits a program's numbers have on a device: what can be asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hetero_vulkan.ops.tensors import Kind

HALF_COSINE = 0.999
"""With the CPU's answer: what fp16 reaches where a network amplifies roundings in a few places."""


@dataclass(frozen=True)
class Precision:
    """How numbers are stored; sums are of float32 whatever it is.

    Attributes:
        name: As the option `precision` has it.
        values: Of values in between; where it is `f16`, of constants that are no vectors too.
        weights: Of known matrices of products; where it is `f16`, of the other constants that are no vectors too.
        min_cosine: As `Executable.min_cosine`; None: every number is near the CPU's, as a share of the largest.
        meaning: In words.
    """

    name: str
    values: Kind = "f32"
    weights: Kind = "f32"
    min_cosine: float | None = None
    meaning: str = "float32"


PRECISIONS = {
    precision.name: precision
    for precision in (
        Precision("fp32"),
        Precision("fp16", "f32", "f16", HALF_COSINE, "weights in fp16, values in fp32"),
        Precision("fp16-fp16", "f16", "f16", HALF_COSINE, "weights and values in fp16"),
        Precision("int8", "f32", "i8", 0.99, "matrices in int8, a scale for each column; values in fp32"),
        Precision("int8-fp16", "f16", "i8", 0.99, "matrices in int8, a scale for each column; the rest in fp16"),
    )
}
"""By name, the default first. A name says what weights are and, behind the hyphen, values where these are not fp32."""

FP32 = PRECISIONS["fp32"]
