"""The canary's form: as large as a launch, where the program's leading dimension is free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hetero.program import Program
from hetero.scheduler.canary import canary_inputs, make_canary
from hetero.tensors import Array, TensorSpec

F32 = np.dtype(np.float32)


def program(inputs: dict[str, tuple[Any, ...]], outputs: dict[str, tuple[Any, ...]]) -> Program:
    def specs(shapes: dict[str, tuple[Any, ...]]) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec(name, F32, shape) for name, shape in shapes.items())

    return Program("p", specs(inputs), specs(outputs), ())


def shapes(form: Program, rows: int) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in (canary_inputs(form, rows) or {}).items()}


def test_the_leading_dimension_has_the_rows_of_a_launch_and_no_two_are_alike() -> None:
    form = program({"x": ("n", 8), "w": (8,)}, {"y": ("n", 8)})
    assert shapes(form, 1) == {"x": (1, 8), "w": (8,)}
    assert shapes(form, 16) == {"x": (16, 8), "w": (8,)}
    rows = (canary_inputs(form, 16) or {})["x"]
    assert len(np.unique(rows, axis=0)) == 16, "each part of the device is asked something of its own"


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ({"x": (4, 8)}, {"y": (4, 8)}),
        ({"x": ("n", 8)}, {"y": ("n", 8), "z": ("m",)}),
        ({"x": ("n", 8)}, {"y": ()}),
        ({"x": (1, "n")}, {"y": (1, "n")}),
    ],
)
def test_no_other_dimension_is_touched(inputs: dict[str, Any], outputs: dict[str, Any]) -> None:
    assert shapes(program(inputs, outputs), 16) == shapes(program(inputs, outputs), 1)


def test_a_usual_size_goes_before() -> None:
    form = replace(program({"x": ("n", 8)}, {"y": ("n", 8)}), sizes={"n": 3})
    assert shapes(form, 16) == {"x": (3, 8)}


class Reference:
    """Refuses signals of fewer than 400 samples, as a model of them does whose windows are as long."""

    def __init__(self, least: int = 400) -> None:
        self.least = least
        self.asked: list[tuple[int, ...]] = []

    def answer(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        self.asked.append(inputs["x"].shape)
        if inputs["x"].shape[-1] < self.least:
            raise ValueError("a window is larger than the signal")
        return {"y": inputs["x"]}


def test_a_model_that_refuses_short_signals_is_asked_of_longer_ones() -> None:
    reference = Reference()
    canary = make_canary(program({"x": ("batch", "samples")}, {"y": ("batch", "frames")}), reference)
    assert canary is not None
    assert canary.inputs["x"].shape == (1, 1024)
    assert reference.asked == [(1, 1), (1, 16), (1, 256), (1, 1024)]


def test_a_model_of_known_size_is_asked_once() -> None:
    reference = Reference()
    form = replace(program({"x": ("batch", "samples")}, {"y": ("batch", "frames")}), sizes={"samples": 300})
    assert make_canary(form, reference) is None
    assert reference.asked == [(1, 300)]
