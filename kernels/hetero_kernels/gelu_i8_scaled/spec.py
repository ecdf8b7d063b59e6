"""What `gelu_i8_scaled` takes and gives."""

from __future__ import annotations

from hetero_kernels.gelu_i8_scaled.reference import model, reference
from hetero_kernels.kernel import Kernel, int8

GELU_I8_SCALED = Kernel(
    name="gelu_i8_scaled",
    title="int8 GELU (erf form) by the host's table, element by element",
    description="y = table[x], with a table of 256 entries that the host makes for the steps of x and y.",
    scales="x and y: steps of any size; `hetero_kernels.gelu_i8_scaled.reference.gelu_table` makes their table.",
    inputs=(int8("x", "n"), int8("table", 256)),
    outputs=(int8("y", "n"),),
    reference=reference,
    model=model,
)
