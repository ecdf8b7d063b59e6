"""Inputs are checked against the program before any device sees them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hetero.errors import InputError
from hetero.tensors import Signature, TensorSpec, shape_text

F32 = np.dtype(np.float32)
I64 = np.dtype(np.int64)


def signature(*inputs: TensorSpec) -> Signature:
    return Signature(inputs, ())


ONE = signature(TensorSpec("x", F32, ("batch", 3)))
PAIR = signature(TensorSpec("a", F32, ("n", 2)), TensorSpec("b", I64, ("n",)))


def test_positional_and_named_inputs_are_the_same() -> None:
    a, b = np.zeros((4, 2), np.float32), np.zeros(4, np.int64)
    assert list(PAIR.feed((a, b))) == list(PAIR.feed(({"b": b, "a": a},))) == ["a", "b"]


def test_an_array_that_fits_is_handed_on_without_a_copy() -> None:
    x = np.zeros((2, 3), np.float32)
    assert ONE.feed((x,))["x"] is x


def test_numbers_and_lists_become_arrays_of_the_declared_dtype() -> None:
    x = ONE.feed(([[1, 2, 3]],))["x"]
    assert (x.dtype, x.shape) == (F32, (1, 3))
    scalar = signature(TensorSpec("s", I64, ())).feed((7,))["s"]
    assert (scalar.dtype, scalar.shape) == (I64, ())


def test_strided_and_byte_swapped_arrays_arrive_contiguous_native_and_equal() -> None:
    base = np.arange(12, dtype=np.float32).reshape(3, 4)
    for x in (base.T[:2], base[:2, 1:], base.astype(">f4")[:2, :3], np.asfortranarray(base[:2, :3])):
        x = x[:, :3]
        out = ONE.feed((x,))["x"]
        assert out.flags.c_contiguous
        assert out.dtype == F32
        np.testing.assert_array_equal(out, x)


def test_text_becomes_object_arrays() -> None:
    spec = signature(TensorSpec("t", np.dtype(object), ("n",)))
    assert spec.feed((["a", "bc"],))["t"].tolist() == ["a", "bc"]
    assert spec.feed((np.array(["a", "bc"]),))["t"].dtype == object


@pytest.mark.parametrize(
    ("sig", "args", "message"),
    [
        (ONE, (), "got 0 inputs, expected 1: x: float32[batch, 3]"),
        (ONE, (1, 2), "got 2 inputs, expected 1"),
        (ONE, ({"y": 1},), "missing x; unknown y"),
        (PAIR, ({"a": 1},), "missing b"),
        (ONE, (np.zeros((2, 3)),), "has dtype float64, expected float32"),
        (ONE, (np.zeros((2, 3), np.int8),), "has dtype int8, expected float32"),
        (ONE, (np.zeros((2, 4), np.float32),), "has shape [2, 4], expected [batch, 3]"),
        (ONE, (np.zeros(3, np.float32),), "add the leading dimension"),
        (ONE, (np.zeros((1, 2, 3), np.float32),), "drop the dimensions of size 1"),
        (ONE, ("text",), "a str that cannot become float32"),
        (ONE, (None,), "a NoneType that cannot become float32"),
        (ONE, ([[1, 2], [3]],), "a list that cannot become float32"),
        (signature(TensorSpec("i", I64, ("n",))), ([1.5],), "a list that cannot become int64"),
        (signature(TensorSpec("i", np.dtype(np.int8), ("n",))), ([300],), "cannot become int8 (out of range)"),
        (PAIR, (np.zeros((4, 2), np.float32), np.zeros(5, np.int64)), "'b' has n = 5, but 'a' has n = 4"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_was_expected(sig: Signature, args: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        sig.feed(args)
    assert message in str(caught.value)


def test_a_shape_that_passed_once_does_not_let_a_wrong_one_through_later() -> None:
    PAIR.feed((np.zeros((4, 2), np.float32), np.zeros(4, np.int64)))
    with pytest.raises(InputError):
        PAIR.feed((np.zeros((4, 2), np.float32), np.zeros(3, np.int64)))


dims = st.one_of(st.integers(0, 4), st.sampled_from(["n", "m"]), st.none())


@given(st.lists(dims, max_size=4), st.lists(st.integers(0, 4), max_size=4))
def test_a_shape_passes_exactly_when_every_dimension_agrees(spec: list[Any], shape: list[int]) -> None:
    sig = signature(TensorSpec("x", F32, tuple(spec)))
    sizes: dict[str, int] = {}
    expected = len(spec) == len(shape) and all(
        dim == size if isinstance(dim, int) else dim is None or sizes.setdefault(dim, size) == size
        for dim, size in zip(spec, shape, strict=False)
    )
    x = np.zeros(shape, np.float32)
    if expected:
        assert sig.feed((x,))["x"].shape == tuple(shape)
    else:
        with pytest.raises(InputError):
            sig.feed((x,))


def test_shapes_read_as_people_write_them() -> None:
    assert shape_text(("batch", 3, None)) == "[batch, 3, ?]"
    assert shape_text(None) == "[...]"
    assert str(TensorSpec("x", F32, ())) == "x: float32[]"
