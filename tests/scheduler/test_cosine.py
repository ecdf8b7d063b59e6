"""Executables that compute with few bits: their answers are compared as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from hetero import errors
from hetero.backend import Call
from hetero.scheduler.canary import Canary
from hetero.tensors import Array
from tests.fakes import DOUBLE, fake
from tests.scheduler.test_requests import Make, X

Y = {"y": np.array([3.0, 4.0, 0.0], np.float32)}


def outlier(inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
    """Right as a whole, with one number far off."""
    y = inputs["x"] * 2
    y.reshape(-1)[0] *= 1.1
    return {"y": y}


def test_a_whole_that_is_right_counts_where_the_executable_says_so(make_runtime: Make) -> None:
    for least, device in ((None, "c"), (0.9, "n")):
        session = make_runtime(fake("n", run=outlier, min_cosine=least), fake("c", kind="cpu")).load(DOUBLE)
        assert session.device == device


def test_a_whole_that_is_wrong_is_refused(make_runtime: Make) -> None:
    def wrong(inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        return {"y": -2 * inputs["x"]}

    session = make_runtime(fake("n", run=wrong, min_cosine=0.9), fake("c", kind="cpu")).load(DOUBLE)
    assert session.device == "c"
    assert "cosine of -1.0000" in str(session.explain())


def test_checks_at_run_time_go_by_it_too(make_runtime: Make) -> None:
    session = make_runtime(fake("n", run=outlier, min_cosine=0.9), fake("c", kind="cpu")).load(DOUBLE, verify=1)
    assert session.run(X).record.device == "n"


@pytest.mark.parametrize(
    ("got", "least", "right"),
    [
        ([3, 4, 1], 0.98, True),
        ([3, 4, 1], 0.99, False),
        ([30, 40, 0], 0.99, True),
        ([0, 0, 0], 0.5, False),
        ([np.nan, 4, 0], 0.5, False),
    ],
)
def test_the_cosine_is_of_all_numbers_together(got: list[Any], least: float, right: bool) -> None:
    canary = Canary({}, Y)
    outputs = {"y": np.array(got, np.float32)}
    if right:
        canary.check(outputs, least)
    else:
        with pytest.raises(errors.WrongAnswer):
            canary.check(outputs, least)


def test_nothing_agrees_with_nothing() -> None:
    Canary({}, {"y": np.zeros(3, np.float32)}).check({"y": np.zeros(3, np.float32)}, 0.99)
