"""How long work on a device may take, and how many plans are made for shapes that keep changing."""

from __future__ import annotations

from hetero.errors import Unsupported
from hetero_vulkan.physical import Physical

PATIENCE = 10.0
"""Seconds that work may take whatever it is."""

_LEAST_SPEED = 1e10
_LEAST_SPEED_OF_SOFTWARE = 2e8
"""Floating-point operations a second: far fewer than a device does that is well, on a machine that is busy."""

_USES = 4


def patience_of(physical: Physical, cost: float, asked: float | None) -> float:
    """Seconds after which work is given up.

    Args:
        physical: The device.
        cost: Floating-point operations of the work.
        asked: What the user wants; None: enough for the work, on a slow and busy machine.
    """
    if asked is not None:
        return asked
    return PATIENCE + cost / (_LEAST_SPEED_OF_SOFTWARE if physical.software else _LEAST_SPEED)


class Novelty:
    """Whether one more plan is worth its making. For one lane, which is one thread's at a time.

    A plan costs more than a run. A model whose shapes change with every call would have one made for each, so after the
    first few there are new ones only while those that were made have been used several times each.

    Args:
        most: Plans that are made in any case.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._made = 0
        self._uses = 0

    def used(self) -> None:
        """A plan that was there is used."""
        self._uses += 1

    def made(self) -> None:
        """A plan was made."""
        self._made += 1

    def check(self) -> None:
        """Look whether a plan is to be made for other shapes.

        Raises:
            Unsupported: It is not worth it.
        """
        if self._made >= self._most and self._uses < _USES * self._made:
            raise Unsupported(
                f"its inputs' shapes keep changing, which takes a plan each: {self._made} were made, and used again "
                f"{self._uses} times",
                fix="use few shapes (pad to some of them), raise the option vulkan.plans, or use another device",
            )
