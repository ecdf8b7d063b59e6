"""The order in which devices are considered for a program."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from hetero.backend import Device
from hetero.errors import OptionError

Owned = tuple[str, Device]
"""A device with its backend's name."""

T = TypeVar("T")


def default_chain(found: Iterable[Owned]) -> list[Owned]:
    """Every device by rank: NPUs, GPUs, the CPU."""
    return sorted(found, key=lambda owned: (owned[1].rank, owned[1].name))


def matches(wanted: str, backend: str, device: str) -> bool:
    """Whether a name that a user gave means this device: its own name, or its backend's."""
    return wanted in (device, backend)


def pick(wanted: str | Sequence[str], candidates: Sequence[T], names: Sequence[tuple[str, str]]) -> list[T]:
    """The candidates that `device=` names, in the order in which it names them.

    Args:
        wanted: One name or several; each a device's or a backend's.
        candidates: What to choose from.
        names: Backend and device of each candidate.

    Raises:
        OptionError: A name that none of them has.
    """
    picked: list[T] = []
    for name in [wanted] if isinstance(wanted, str) else wanted:
        chosen = [c for c, (backend, device) in zip(candidates, names, strict=True) if matches(name, backend, device)]
        if not chosen:
            listed = ", ".join(device for _, device in names) or "none"
            raise OptionError(f"device={name!r} is none of the candidates here: {listed}")
        picked += [candidate for candidate in chosen if candidate not in picked]
    return picked
