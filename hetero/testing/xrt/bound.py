"""What every class of the simulated module shares: the machine it belongs to, and pybind11's ways with arguments."""

from __future__ import annotations

import types
from typing import Any, ClassVar

from hetero.testing.xrt.npu import Npu


class Bound:
    """What belongs to one module."""

    npu: ClassVar[Npu]
    module: ClassVar[types.ModuleType]


def incompatible(what: str, args: tuple[Any, ...]) -> TypeError:
    """What pybind11 raises where no overload fits."""
    given = ", ".join(repr(argument) for argument in args)
    return TypeError(f"{what}: incompatible function arguments. Invoked with: {given}")


def unsigned(what: str, value: Any) -> int:
    """As pybind11 casts to an unsigned integer: no floats, no texts, nothing below 0."""
    if isinstance(value, float) or not hasattr(value, "__index__"):
        raise incompatible(what, (value,))
    number: int = value.__index__()
    if number < 0:
        raise incompatible(what, (value,))
    return number
