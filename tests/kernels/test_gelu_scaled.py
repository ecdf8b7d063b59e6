"""GELU by a table that the host makes for steps of its own."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from hetero.errors import InputError
from hetero_kernels import get
from hetero_kernels.gelu_i8_scaled.reference import gelu_table
from tests.kernels import scalar

EVERY = np.arange(-128, 128).astype(np.int8)


@pytest.mark.parametrize(("step_x", "step_y"), [(1 / 127, 1 / 127), (0.05, 0.04), (0.013, 0.013), (0.08, 0.002)])
def test_the_table_is_erf_gelu_to_the_nearest_step(step_x: float, step_y: float) -> None:
    got = get("gelu_i8_scaled")(EVERY, gelu_table(step_x, step_y))["y"]
    exact = [scalar.erf_gelu(x, Fraction(step_x), Fraction(step_y)) for x in EVERY.tolist()]
    assert got.tolist() == [scalar.clip(scalar.nearest(value)) for value in exact]


def test_values_far_from_zero_are_themselves_or_nothing() -> None:
    table = gelu_table(1.0, 1.0)
    assert table[:128].tolist() == list(range(128))
    assert table[128:-3].tolist() == [0] * 125


@pytest.mark.parametrize("steps", [(0.0, 1.0), (1.0, -1.0), (float("nan"), 1.0), (1.0, float("inf"))])
def test_steps_that_cannot_be_are_refused(steps: tuple[float, float]) -> None:
    with pytest.raises(InputError, match="expected finite numbers above 0"):
        gelu_table(*steps)


def test_every_entry_of_any_table_is_looked_up_by_its_bits() -> None:
    table = np.random.default_rng(0).integers(-128, 128, 256).astype(np.int8)
    got = get("gelu_i8_scaled").reference(x=EVERY, table=table)["y"]
    assert got.tolist() == [table[x % 256] for x in EVERY.tolist()]
