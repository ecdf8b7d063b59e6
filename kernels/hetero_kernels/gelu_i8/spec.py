"""What `gelu_i8` takes and gives."""

from __future__ import annotations

from hetero_kernels.gelu_i8.reference import model, reference
from hetero_kernels.kernel import Kernel, int8

GELU_I8 = Kernel(
    name="gelu_i8",
    title="int8 GELU (tanh form), element by element",
    description=(
        "y = round(127 gelu(x / 127)) with gelu(t) = t/2 (1 + tanh(sqrt(2/pi) (t + 0.044715 t^3))), from a table of "
        "256 entries."
    ),
    scales="x and y: one step is 1/127, so that only values from -128/127 to 1 can be given.",
    inputs=(int8("x", "n"),),
    outputs=(int8("y", "n"),),
    reference=reference,
    model=model,
)
