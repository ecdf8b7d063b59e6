"""Indices that a model computes and looks something up by: checked on the device, told to the caller."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from hetero.errors import InputError
from hetero_vulkan.buffers import Buffer, PlacedLater
from hetero_vulkan.commands import Copy, Fill, Step
from hetero_vulkan.memory import Purpose
from hetero_vulkan.ops.scan import FLAG_WORDS

Take = Callable[[int, Purpose], Buffer]
"""Gives a buffer of so many bytes."""


class Checks:
    """Flags that the device sets in a run, one for each node that looks places up.

    Args:
        looked_up: Of each slot: elements of what is looked up in, name of the node.
        buffer: Where the steps note what is out of range; placed here.
        take: Gives memory.
    """

    def __init__(self, looked_up: Sequence[tuple[int, str]], buffer: PlacedLater, take: Take) -> None:
        self._looked_up = tuple(looked_up)
        self._landing: Buffer | None = None
        self._place: Buffer | None = None
        if self._looked_up:
            whole = take(buffer.nbytes, "device")
            buffer.place(whole, 0)
            nbytes = 4 * FLAG_WORDS * len(self._looked_up)
            self._place = whole.view(0, nbytes)
            self._landing = self._place if whole.mapped else take(nbytes, "download")

    def around(self, steps: Sequence[Step]) -> list[Step]:
        """The steps, with those before and after that the flags need."""
        if self._place is None or self._landing is None:
            return list(steps)
        after = [] if self._landing is self._place else [Copy(self._place, self._landing)]
        return [Fill(self._place), *steps, *after]

    def look(self) -> None:
        """After a run: whether all was in range.

        Raises:
            InputError: An index was not; the outputs are of no use.
        """
        if self._landing is None:
            return
        self._landing.invalidate()
        flags = self._landing.array(np.uint32, (len(self._looked_up), FLAG_WORDS))
        for (size, name), (found, low, high, _) in zip(self._looked_up, flags.tolist(), strict=True):
            if found:
                index = np.array(high << 32 | low, np.uint64).astype(np.int64)
                raise InputError(
                    f"Gather {name!r}: index {index}, which the model computed, but the dimension has {size} elements",
                    fix="give inputs (lengths, ids) that the model was made for",
                )
