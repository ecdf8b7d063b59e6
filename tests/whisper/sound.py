"""Sounds made by formula, for tests."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def sweep(seconds: float, rate: int = 16_000) -> NDArray[np.float32]:
    """A rising tone that comes and goes over a low hum, and a click: every band gets something to do."""
    t = np.arange(int(seconds * rate)) / rate
    tone = 0.5 * np.sin(2 * np.pi * (80 * t + 3000 * t**2)) * np.sin(2 * np.pi * 3 * t) ** 2
    samples = tone + 0.05 * np.sin(2 * np.pi * 110 * t)
    samples[len(samples) // 3 :: max(1, len(samples) // 2)] += 0.4
    return np.asarray(samples, dtype=np.float32)
