"""Inputs to check a kernel with: random ones, and those at which arithmetic goes wrong."""

from __future__ import annotations

import math

import numpy as np

from hetero.tensors import Array
from hetero_kernels.aie2.column_map import ColumnMap


def inputs(design: ColumnMap, tiles: int, seed: int = 0) -> dict[str, Array]:
    """Inputs of so many tiles; the first ones are extreme, the others random and of all magnitudes.

    Args:
        design: Of the kernel.
        tiles: How many.
        seed: Of the random ones.

    Returns:
        One array for each input, as the kernel takes them.
    """
    rng = np.random.default_rng(seed)
    found = {}
    for tensor in design.inputs:
        info = np.iinfo(tensor.dtype)
        shape = tensor.shape if tensor.shared else (tiles, *tensor.shape)
        spread = np.exp(rng.uniform(0, math.log(info.max), (shape[0], *[1] * (len(shape) - 1))))
        values = np.clip(np.rint(rng.normal(0, 1, shape) * spread), info.min, info.max).astype(tensor.dtype)
        uniform = rng.integers(info.min, info.max, shape, tensor.dtype, endpoint=True)
        half = rng.random((shape[0], *[1] * (len(shape) - 1))) < 0.5
        values = np.where(half, values, uniform)
        if not tensor.shared:
            _extremes(values, rng)
            if design.joined:
                values = values.reshape(-1, *tensor.shape[1:])
        found[tensor.name] = np.ascontiguousarray(values)
    return found


def _extremes(values: Array, rng: np.random.Generator) -> None:
    """Constant tiles of the smallest, the largest and 0, and one of both ends; combined at random between tensors."""
    info = np.iinfo(values.dtype)
    constants = rng.permutation([info.min, info.max, 0, -1, 1])
    for place, value in enumerate(constants[: max(len(values) // 4, 1)]):
        values[place] = value
    if len(values) > 5:
        values[5] = np.where(rng.random(values[5].shape) < 0.5, info.min, info.max)
