"""The header of a `.rknn` file, read without Rockchip's library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class ModelTensor:
    """An input or output as a `.rknn` file declares it.

    Attributes:
        name: As in the original graph.
        dtype: Of the original graph: what the caller hands over or gets.
        shape: Of the original graph (NCHW for images).
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class ModelFile:
    """What the header of a `.rknn` file says.

    Attributes:
        platform: The SoC it was compiled for, in lower case: `rk3588`.
        version: Of the toolkit that wrote it, such as `2.3.2`; None when the file does not say.
        format_version: Of the file's format, such as 6.
        inputs: In the model's order.
        outputs: In the model's order.
        custom_ops: It needs operators from a library of the user's.
    """

    platform: str
    version: str | None
    format_version: int
    inputs: tuple[ModelTensor, ...]
    outputs: tuple[ModelTensor, ...]
    custom_ops: bool = False
