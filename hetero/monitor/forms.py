"""Snapshots as JSON and back. What another process has sent is checked value by value against the declared types."""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from hetero.errors import InputError

T = TypeVar("T")


def to_json(value: Any) -> Any:
    """A dataclass of plain values as JSON has them; numbers that JSON does not have become null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple | list):
        return [to_json(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def of_json(form: type[T], document: Any, where: str = "the document") -> T:
    """A dataclass from what `to_json` has made of one. Fields that it does not have are passed over.

    Args:
        form: The dataclass.
        document: As read from JSON.
        where: For messages.

    Raises:
        InputError: A field is missing or of another type; which one.
    """
    value: T = _read(form, document, where)
    return value


def _read(form: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(form):
        return _read_fields(form, value, where)
    origin = typing.get_origin(form)
    if origin is tuple:
        inner = typing.get_args(form)[0]
        if not isinstance(value, list):
            raise _wrong(where, "a list", value)
        return tuple(_read(inner, entry, f"{where}[{place}]") for place, entry in enumerate(value))
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        (inner,) = (kind for kind in typing.get_args(form) if kind is not type(None))
        return _read(inner, value, where)
    if form is float and type(value) is int:
        return float(value)
    if type(value) is not form:
        raise _wrong(where, form.__name__, value)
    return value


def _read_fields(form: Any, value: Any, where: str) -> Any:
    if not isinstance(value, Mapping):
        raise _wrong(where, "an object", value)
    kinds = _kinds(form)
    missing = [name for name in kinds if name not in value]
    if missing:
        raise InputError(f"{where} has no {missing[0]!r}")
    return form(**{name: _read(kind, value[name], f"{where}.{name}") for name, kind in kinds.items()})


@functools.cache
def _kinds(form: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(form)
    return {field.name: hints[field.name] for field in dataclasses.fields(form)}


def _wrong(where: str, expected: str, value: Any) -> InputError:
    return InputError(f"{where} is {str(value)[:40]!r}, expected {expected}")
