"""Options are checked against what a backend declares, layer over layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import hetero
from hetero.errors import OptionError
from hetero.options import check_options
from hetero.program import Program
from tests.fakes import DOUBLE, FakeBackend, fake

DEFAULTS = {"threads": 2, "mode": "fast", "names": (), "share": 0.5, "loud": False}


def check(**given: Any) -> dict[str, Any]:
    return check_options("fake", FakeBackend.options, given)


def test_every_declared_option_has_a_value() -> None:
    assert check() == DEFAULTS


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("threads", "4", 4),
        ("share", "0.25", 0.25),
        ("loud", "yes", True),
        ("loud", "off", False),
        ("names", "a, b", ("a", "b")),
        ("mode", "exact", "exact"),
    ],
)
def test_texts_of_a_command_line_become_values(name: str, text: str, value: Any) -> None:
    assert check(**{name: text})[name] == value


def test_none_leaves_the_choice_to_the_backend() -> None:
    assert check(threads=None)["threads"] is None


def test_an_integer_will_do_for_a_float_but_a_truth_value_for_no_number() -> None:
    assert check(share=1)["share"] == 1.0
    for name in ("threads", "share"):
        with pytest.raises(OptionError):
            check(**{name: True})


def test_load_overrides_the_runtime_which_overrides_the_program(make_runtime: Callable[..., hetero.Runtime]) -> None:
    backend = fake("n")
    runtime = make_runtime(backend, options={"n": {"threads": 3, "mode": "exact"}})
    program = Program(
        "p",
        DOUBLE.inputs,
        DOUBLE.outputs,
        DOUBLE.artifacts,
        options={"n": {"threads": 9, "share": 0.1}, "other": {"x": 1}},
    )
    runtime.load(program, options={"n": {"mode": "fast"}})
    assert backend.given == [{**DEFAULTS, "threads": 3, "mode": "fast", "share": 0.1}]
