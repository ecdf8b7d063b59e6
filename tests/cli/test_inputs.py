"""Inputs from the command line: every form, every dtype, shapes from every source."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hetero.cli.inputs import Feed, make_feed
from hetero.cli.outputs import summary
from hetero.errors import InputError
from hetero.program import Artifact, Program
from hetero.tensors import Dim, TensorSpec


def program(**inputs: tuple[Any, tuple[Dim, ...] | None]) -> Program:
    specs = tuple(TensorSpec(name, np.dtype(dtype), shape) for name, (dtype, shape) in inputs.items())
    return Program("p", specs, (), (Artifact("fake"),))


def pairs_of(*texts: str) -> tuple[tuple[str, str], ...]:
    return tuple((name, value) if equals else ("", name) for name, equals, value in (t.partition("=") for t in texts))


def feed_of(made: Program, *given: str, shapes: tuple[str, ...] = (), seed: int = 0) -> Feed:
    return make_feed(made, pairs_of(*given), pairs_of(*shapes), seed)


DTYPES = ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
DTYPES += ["float16", "float32", "float64", "complex64", "complex128"]


@pytest.mark.parametrize("kind", ["random", "zeros", "ones"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_numeric_dtype_can_be_made_up(dtype: str, kind: str) -> None:
    made = feed_of(program(x=(dtype, (50, 2))), f"x={kind}").arrays["x"]
    assert made.dtype == dtype
    assert made.shape == (50, 2)
    assert bool(made.any()) == (kind != "zeros")
    assert np.isfinite(made).all()


def test_random_integers_stay_valid_as_indices_and_bytes_use_their_whole_range() -> None:
    made = feed_of(program(index=(np.int64, (1000,)), byte=(np.int8, (5000,))), "random").arrays
    assert set(made["index"].tolist()) == {0, 1}
    assert (made["byte"].min(), made["byte"].max()) == (-128, 127)


def test_texts_cannot_be_made_up() -> None:
    with pytest.raises(InputError, match="holds texts"):
        feed_of(program(x=(object, (2,))), "x=random")


def test_a_size_that_nobody_gives_is_the_programs_usual_one() -> None:
    made = replace(program(x=(np.float32, ("batch", "frames"))), sizes={"frames": 30})
    assert feed_of(made, "random").arrays["x"].shape == (1, 30)
    assert feed_of(made, "random").assumed == {"batch": 1}
    assert feed_of(made, "random", shapes=("frames=4",)).arrays["x"].shape == (1, 4)


def test_a_dimension_has_the_same_size_wherever_its_name_stands() -> None:
    made = feed_of(program(x=(np.float32, ("n", 3)), y=(np.float32, (2, "n"))), "x=random", "y=[[1,2,3,4],[5,6,7,8]]")
    assert made.arrays["x"].shape == (4, 3)
    assert made.assumed == {}


def test_an_inputs_shape_settles_the_dimensions_of_the_others() -> None:
    made = feed_of(program(x=(np.float32, ("n", 3)), y=(np.float32, ("n", None))), "random", shapes=("x=5x3",))
    assert made.arrays["y"].shape == (5, 1)
    assert made.assumed == {"y[1]": 1}


def test_numbers_fill_the_last_open_dimension() -> None:
    made = feed_of(program(x=(np.int64, ("batch", "n"))), "x=3,1,2")
    assert made.arrays["x"].tolist() == [[3, 1, 2]]
    assert made.assumed == {"batch": 1}


def test_scalars_bools_and_json_are_read() -> None:
    made = feed_of(
        program(s=(np.float32, ()), b=(np.bool_, (3,)), t=(np.bool_, (2,)), j=(np.int32, (2, 2))),
        "s=1.5",
        "b=true,false,true",
        "t=1,0",
        "j=[[1,2],[3,4]]",
    ).arrays
    assert made["s"].shape == ()
    assert made["s"] == 1.5
    assert made["b"].tolist() == [True, False, True]
    assert made["t"].tolist() == [True, False]
    assert made["j"].tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("dtype", "values"),
    [("int8", "1,300"), ("int32", "1.5,2"), ("uint8", "-1,2"), ("bool", "2,3"), ("float32", "1e,2")],
)
def test_numbers_that_the_dtype_cannot_hold_are_refused(dtype: str, values: str) -> None:
    with pytest.raises(InputError, match="x"):
        feed_of(program(x=(dtype, (2,))), f"x={values}")


def test_an_input_without_a_declared_rank_needs_a_shape() -> None:
    with pytest.raises(InputError, match="no declared rank"):
        feed_of(program(x=(np.float32, None)), "random")
    assert feed_of(program(x=(np.float32, None)), "random", shapes=("x=2x3",)).arrays["x"].shape == (2, 3)


def test_a_shape_that_no_memory_holds_is_refused() -> None:
    with pytest.raises(InputError, match="no memory"):
        feed_of(program(x=(np.float32, ("n", "m"))), "random", shapes=("n=4000000000", "m=4000000000"))


def test_an_unnamed_value_for_several_inputs_is_refused() -> None:
    with pytest.raises(InputError, match="does not say which input"):
        feed_of(program(x=(np.float32, (1,)), y=(np.float32, (1,))), "1,2")


@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=20))
def test_numbers_arrive_as_they_were_written(numbers: list[int]) -> None:
    made = feed_of(program(x=(np.int32, ("n",))), "x=" + ",".join(map(str, numbers)))
    assert made.arrays["x"].tolist() == numbers


def test_the_summary_is_of_finite_values_and_of_any_dtype() -> None:
    told = summary("y", np.array([[1, np.nan], [3, np.inf]], np.float16))
    assert (told["min"], told["mean"], told["max"], told["not_finite"]) == (1, 2, 3, 2)
    assert summary("y", np.zeros((0, 3)))["min"] is None
    assert summary("y", np.array(["a"], object))["first"] == ["a"]
    assert summary("y", np.array([1 + 2j]))["first"] == ["(1+2j)"]
    assert summary("y", np.array([True, False]))["mean"] == 0.5
