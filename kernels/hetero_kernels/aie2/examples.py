"""Inputs to check a kernel with: random ones, and those at which arithmetic goes wrong."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from hetero.tensors import Array

if TYPE_CHECKING:
    from hetero_kernels.aie2.column_map import ColumnMap


def inputs(design: ColumnMap, rng: np.random.Generator) -> dict[str, Array]:
    """Inputs of a launch of tiles; the first ones are extreme, the others random and of all magnitudes.

    Args:
        design: Of the kernel.
        rng: Draws them.

    Returns:
        One array for each input, as the kernel takes them.
    """
    found = {}
    for tensor in design.inputs:
        if tensor.shared:
            found[tensor.name] = mixed(rng, tensor.dtype, tensor.shape, extremes=False)
            continue
        values = mixed(rng, tensor.dtype, (design.tiles, *tensor.shape))
        found[tensor.name] = values.reshape(-1, *tensor.shape[1:]) if design.joined else values
    return found


def mixed(rng: np.random.Generator, dtype: str, shape: tuple[int, ...], *, extremes: bool = True) -> Array:
    """Integers, normal with a spread of its own for each entry of the leading dimension, or uniform.

    Args:
        rng: Draws them.
        dtype: A numpy name.
        shape: With a leading dimension of entries.
        extremes: The first entries are constants and both ends of the range, in another order each time, so that
            tensors combine them at random.
    """
    info = np.iinfo(dtype)
    each = (shape[0], *[1] * (len(shape) - 1))
    spread = np.exp(rng.uniform(0, math.log(info.max), each))
    normal = np.clip(np.rint(rng.normal(0, 1, shape) * spread), info.min, info.max).astype(dtype)
    uniform = rng.integers(info.min, info.max, shape, dtype, endpoint=True)
    values = np.ascontiguousarray(np.where(rng.random(each) < 0.5, normal, uniform))
    if extremes:
        _extremes(values, rng)
    return values


def _extremes(values: Array, rng: np.random.Generator) -> None:
    """Constant entries of the smallest, the largest and 0, and one of both ends."""
    info = np.iinfo(values.dtype)
    constants = rng.permutation([info.min, info.max, 0, -1, 1])
    for place, value in enumerate(constants[: max(len(values) // 4, 1)]):
        values[place] = value
    if len(values) > 5:
        values[5] = np.where(rng.random(values[5].shape) < 0.5, info.min, info.max)
