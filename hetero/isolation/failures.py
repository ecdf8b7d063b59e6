"""Errors, devices and details in a form that needs nobody's module to be read.

The parent never imports the vendor's runtime, so nothing that it unpickles may be of a vendor's type.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from hetero import errors
from hetero.backend import Device
from hetero.errors import HeteroError


@dataclass(frozen=True)
class Failure:
    """An error on its way from the child.

    Attributes:
        kind: The nearest class of `hetero.errors`; `ExecutionError` for what is none of hetero's.
        problem: What was wrong; of a foreign error with its type.
        fix: What to do.
        trace: The child's traceback.
        final: Of `NonFiniteOutput`.
    """

    kind: str
    problem: str
    fix: str
    trace: str
    final: bool = False

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """Describe an error."""
        trace = "".join(traceback.format_exception(type(error), error, error.__traceback__)).rstrip()
        if isinstance(error, HeteroError):
            kind = next(base.__name__ for base in type(error).__mro__ if base.__module__ == errors.__name__)
            return cls(kind, str(error.problem), str(error.fix), trace, getattr(error, "final", False))
        text = str(error).strip() or "no message"
        return cls("ExecutionError", f"{type(error).__name__}: {text}", "", trace)

    def error(self) -> HeteroError:
        """The error to raise in the parent; the child's traceback is its cause."""
        kind: type[HeteroError] = getattr(errors, self.kind)
        error = kind(self.problem, fix=self.fix)
        if isinstance(error, errors.NonFiniteOutput):
            error.final = self.final
        error.__cause__ = ChildTraceback(self.trace)
        return error


class ChildTraceback(Exception):
    """Where in the child it happened; shown by Python as the cause of an error."""

    def __str__(self) -> str:
        return f"in the backend's process:\n{self.args[0]}"


def plain_device(device: Device) -> Device:
    """A device of hetero's own type, its properties as plain values."""
    return Device(**{field.name: plain(getattr(device, field.name)) for field in fields(Device)})


def plain(value: Any) -> Any:
    """Python's own values as they are, mappings and sequences of them too; anything else as its text."""
    if value is None or type(value) in (bool, int, float, str, bytes):
        return value
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, tuple):
        return tuple(plain(entry) for entry in value)
    if isinstance(value, list | set | frozenset):
        return [plain(entry) for entry in value]
    return str(value)
