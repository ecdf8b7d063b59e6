"""The guard against NaN and infinity: half precision ends at 65504, and what overflows there says nothing by itself."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hetero.backend import Array, NonFiniteOutput

CHOICES = ("rerun", "raise", "pass")


def check_finite(outputs: Mapping[str, Array], on_nonfinite: str) -> None:
    """Refuse an answer with NaN or infinity in it.

    Args:
        outputs: Arrays by name.
        on_nonfinite: `rerun`: the request goes on to the next device. `raise`: its caller gets the error. `pass`: the
            answer is given as it is.

    Raises:
        NonFiniteOutput: There is one.
    """
    if on_nonfinite == "pass":
        return
    for name, array in outputs.items():
        if array.dtype.kind != "f":
            continue
        with np.errstate(over="ignore", invalid="ignore"):
            # A sum is finite only if every number is; where it is not, they may still be: each is looked at.
            if np.isfinite(array.sum(dtype=np.float64 if array.dtype == np.float16 else None)):
                continue
        bad = int(array.size - np.count_nonzero(np.isfinite(array)))
        if bad:
            raise NonFiniteOutput(
                f"{bad} of {array.size} numbers in output {name!r} are NaN or infinite: half precision overflows above "
                "65504",
                final=on_nonfinite == "raise",
                fix="scale the model down, keep the layers that overflow in a wider type when it is compiled, or let "
                "such requests run elsewhere (on_nonfinite='rerun')",
            )
