"""Checking the options that a user gives against those that a backend declares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from hetero.backend import Option
from hetero.errors import OptionError

Options = Mapping[str, Mapping[str, Any]]
"""Options by backend: `{"cpu": {"threads": 2}}`."""

_TRUTH = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def check_options(backend: str, declared: Sequence[Option], *layers: Mapping[str, Any]) -> dict[str, Any]:
    """A value for every declared option: the default, overridden by each layer in turn.

    Raises:
        OptionError: An option that the backend does not have, or a value of a wrong type or out of range.
    """
    known = {option.name: option for option in declared}
    values = {option.name: option.default for option in declared}
    for layer in layers:
        for name, value in layer.items():
            if name not in known:
                import difflib

                near = difflib.get_close_matches(name, known, n=1)
                listed = ", ".join(sorted(known)) or "none"
                raise OptionError(
                    f"the backend {backend!r} has no option {name!r}; it has: {listed}",
                    fix=f"did you mean {near[0]!r}?" if near else "",
                )
            values[name] = _checked(backend, known[name], value)
    return values


def check_call_options(backend: str, declared: Sequence[Option], given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of one call, checked; those not given are left out.

    Raises:
        OptionError: As for `check_options`, or one that is settled when a program is loaded.
    """
    values = check_options(backend, declared, given)
    late = {option.name for option in declared if option.per_call}
    for name in given:
        if name not in late:
            listed = ", ".join(sorted(late)) or "none"
            raise OptionError(
                f"option {backend}.{name} is settled when the program is loaded; for one call there is: {listed}",
                fix="give it to Runtime.load(options=...)",
            )
    return {name: values[name] for name in given if values[name] is not None}


def _checked(backend: str, option: Option, value: Any) -> Any:
    if value is None:
        return None
    where = f"option {backend}.{option.name}"
    kinds = option.type if isinstance(option.type, tuple) else (option.type,)
    if isinstance(value, str) and str not in kinds:
        value = _from_text(where, kinds[0], option, value)
    if float in kinds and int not in kinds and type(value) is int:
        value = float(value)
    if tuple in kinds and isinstance(value, list):
        value = tuple(value)
    if not isinstance(value, kinds) or (bool not in kinds and isinstance(value, bool)):
        raise OptionError(f"{where} is {value!r}, expected {option.type_name}: {option.help}")
    if option.choices and value not in option.choices:
        raise OptionError(f"{where} is {value!r}, expected one of {', '.join(map(str, option.choices))}")
    if option.minimum is not None and cast(float, value) < option.minimum:
        raise OptionError(f"{where} is {value!r}, expected at least {option.minimum:g}")
    return value


def _from_text(where: str, kind: type, option: Option, text: str) -> Any:
    """A value as it comes from a command line: `2`, `true`, `a,b`."""
    try:
        if kind is bool:
            return _TRUTH[text.lower()]
        if kind is tuple:
            return tuple(part.strip() for part in text.split(",") if part.strip())
        if kind in (int, float):
            return kind(text)
    except (KeyError, ValueError):
        raise OptionError(f"{where} is {text!r}, expected {kind.__name__}: {option.help}") from None
    return text
