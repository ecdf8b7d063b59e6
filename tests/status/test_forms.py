"""Snapshots from another process are checked: what is missing or of another kind is named, and never taken in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hetero.errors import InputError
from hetero.monitor.forms import of_json, to_json
from hetero.monitor.status import RuntimeStatus


@dataclass(frozen=True)
class Inner:
    name: str
    share: float


@dataclass(frozen=True)
class Outer:
    count: int
    maybe: float | None
    inners: tuple[Inner, ...]
    inner: Inner | None


WHOLE = {"count": 1, "maybe": None, "inners": [{"name": "a", "share": 1}], "inner": {"name": "b", "share": 0.5}}


def test_what_was_written_is_read_again() -> None:
    read = of_json(Outer, WHOLE)
    assert read == Outer(1, None, (Inner("a", 1.0),), Inner("b", 0.5))
    assert of_json(Outer, to_json(read)) == read


def test_fields_of_a_newer_version_are_passed_over() -> None:
    assert of_json(Outer, {**WHOLE, "novel": [1]}) == of_json(Outer, WHOLE)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"count": "1"}, "x.count is '1', expected int"),
        ({"count": True}, "x.count is 'True', expected int"),
        ({"maybe": "warm"}, "x.maybe is 'warm', expected float"),
        ({"inners": {}}, "x.inners is '{}', expected a list"),
        ({"inners": [{"name": "a"}]}, "x.inners[0] has no 'share'"),
        ({"inner": []}, "x.inner is '[]', expected an object"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as error:
        of_json(Outer, {**WHOLE, **change}, "x")
    assert error.value.problem == says


def test_numbers_that_json_does_not_have_become_null() -> None:
    assert to_json(Inner("a", float("inf"))) == {"name": "a", "share": None}


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(ANYTHING)
def test_nothing_but_a_status_is_taken_for_one_and_nothing_else_is_raised(document: Any) -> None:
    with pytest.raises(InputError):
        of_json(RuntimeStatus, document)
