"""Buffers of one memory behind one or several FIFOs: a ring of slots that writers fill and readers empty, in turn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hetero.tensors import Array
from hetero_kernels.aie2.simulate.baton import Actor, Baton

RUBBISH = 0xA5


class Pool:
    """`depth` slots of `size` bytes.

    Every writer fills its segment of slot 0, 1, 2 and so on; a slot can be read when all writers have filled it, and
    be filled anew when all readers have released it. So the same ring serves a plain FIFO, a split and a join.

    Args:
        name: For messages.
        size: Bytes of a slot.
        depth: Slots.
        writers: Offset and size of each writer's segment.
        readers: Offset and size of each reader's segment.
    """

    def __init__(
        self,
        baton: Baton,
        name: str,
        size: int,
        depth: int,
        writers: Sequence[tuple[int, int]],
        readers: Sequence[tuple[int, int]],
    ) -> None:
        self._baton = baton
        self.name, self.size, self.depth = name, size, depth
        self.writers, self.readers = tuple(writers), tuple(readers)
        self._slots = [np.full(size, RUBBISH, np.uint8) for _ in range(depth)]
        self.written = [0] * len(self.writers)
        self.released = [0] * len(self.readers)
        self._filled_at = [0.0] * depth
        self._freed_at = [0.0] * depth

    def wait_to_write(self, actor: Actor, writer: int, ahead: int = 0) -> Array:
        """The writer's segment of its next slot, `ahead` slots further on, once nobody reads it any more."""
        index = self.written[writer] + ahead
        self._baton.wait(
            actor, lambda: index - min(self.released) < self.depth, f"room in {self.name} ({self.depth} deep)"
        )
        actor.time = max(actor.time, self._freed_at[index % self.depth])
        offset, size = self.writers[writer]
        return self._slots[index % self.depth][offset : offset + size]

    def wrote(self, actor: Actor, writer: int) -> None:
        """The writer's segment of its next slot is full."""
        slot = self.written[writer] % self.depth
        self._filled_at[slot] = max(self._filled_at[slot], actor.time)
        self.written[writer] += 1

    def wait_to_read(self, actor: Actor, reader: int, ahead: int = 0) -> Array:
        """The reader's segment of its next slot, `ahead` slots further on, once it is full."""
        index = self.released[reader] + ahead
        self._baton.wait(actor, lambda: index < min(self.written), f"something in {self.name}")
        actor.time = max(actor.time, self._filled_at[index % self.depth])
        offset, size = self.readers[reader]
        return self._slots[index % self.depth][offset : offset + size]

    def release(self, actor: Actor, reader: int) -> None:
        """The reader needs its next slot no more."""
        index = self.released[reader]
        self.released[reader] += 1
        slot = index % self.depth
        self._freed_at[slot] = max(self._freed_at[slot], actor.time)
        if min(self.released) > index:
            # What is read after its release must not look right by chance.
            self._slots[slot][:] = RUBBISH
