"""What `mel_i16_{M}` takes and gives."""

from __future__ import annotations

from functools import cache

from hetero.tensors import Array
from hetero_kernels.family import Family
from hetero_kernels.kernel import Kernel, int16
from hetero_kernels.mel_i16.reference import model, reference
from hetero_kernels.mel_i16.tables import WINDOW


# Functions of the module and not partial ones, which would make no two kernels equal.
def _reference_80(*, x: Array) -> dict[str, Array]:
    return reference(x=x, bands=80)


def _reference_128(*, x: Array) -> dict[str, Array]:
    return reference(x=x, bands=128)


def _model_80(*, x: Array) -> dict[str, Array]:
    return model(x=x, bands=80)


def _model_128(*, x: Array) -> dict[str, Array]:
    return model(x=x, bands=128)


_FUNCTIONS = {80: (_reference_80, _model_80), 128: (_reference_128, _model_128)}


@cache
def _kernel(bands: int) -> Kernel:
    exact, approximated = _FUNCTIONS[bands]
    return Kernel(
        name=f"mel_i16_{bands}",
        title=f"log-mel spectrum of windows of int16 samples, {bands} bands",
        description=(
            "y = log2(max(filters |DFT(hann x)|^2, 1e-10)) of each window of 400 samples at 16 kHz, with Whisper's "
            f"{bands} filters and integers only."
        ),
        scales=(
            "x: one step is 1/32768. y: one step is 2^-9 of a logarithm of base 2. "
            "`hetero_kernels.mel_i16.host` makes windows of samples, and of y what Whisper's encoder takes."
        ),
        inputs=(int16("x", "frames", WINDOW),),
        outputs=(int16("y", "frames", bands),),
        reference=exact,
        model=approximated,
    )


MEL_I16 = Family(
    pattern="mel_i16_{M}",
    title="log-mel spectrum of windows of int16 samples",
    sizes={"M": range(80, 128 + 1, 48)},
    build=_kernel,
    usual=({"M": 80}, {"M": 128}),
)
