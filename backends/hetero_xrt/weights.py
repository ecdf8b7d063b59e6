"""Weights in the NPU's memory: those of a graph are copied there once and stay.

A kernel with an argument of the role `weight` finds its weights in a buffer of its own. Several sets of weights (the
layers of a model) share the contexts of one kernel, and each has buffers of its own: which of them a launch reads is
told to it anew each time. A user who runs such a kernel hands its weights in like any other input; what that array
holds may change from call to call, so it is copied in each.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hetero.errors import OutOfMemory
from hetero.tensors import Array

if TYPE_CHECKING:
    from hetero_xrt.flow import Context

LIMIT = 1 << 30
"""Bytes of weights that stay on the NPU, of all kernels together."""


class Weights:
    """What a kernel's weight arguments hold: in one call, or in every call of a graph.

    Args:
        arrays: By the tensor's name; of a set that stays they are made read-only.
        stays: They are constants: copied to the NPU once, and kept there until `ResidentWeights.drop`.
    """

    def __init__(self, arrays: Mapping[str, Array], *, stays: bool = False) -> None:
        self.arrays = dict(arrays)
        self.stays = stays
        if stays:
            for name, array in self.arrays.items():
                kept = np.ascontiguousarray(array)
                kept.setflags(write=False)
                self.arrays[name] = kept

    @property
    def nbytes(self) -> int:
        """Of one copy."""
        return sum(array.nbytes for array in self.arrays.values())


@dataclass(eq=False)
class Held:
    """Buffers with weights in them.

    Attributes:
        buffers: One for each weight argument, in the kernel's order; filled and synced.
        maps: Theirs, which they outlive by none.
        nbytes: Of all of them.
        used: When they were asked for last, in turns.
    """

    buffers: Sequence[Any]
    maps: Sequence[Any]
    nbytes: int
    used: int = 0


class ResidentWeights:
    """The sets of weights that stay on the NPU, by context; the least used go when there are too many.

    A set that goes is copied in again when it is asked for. A launch in flight keeps the buffers that it reads.

    Args:
        limit: Bytes, at most.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        self._lock = threading.RLock()
        self._turns = itertools.count()
        # A context that is gone takes its buffers along.
        self._held: weakref.WeakKeyDictionary[Context, dict[Weights, Held]] = weakref.WeakKeyDictionary()

    @property
    def nbytes(self) -> int:
        """Of all sets together."""
        with self._lock:
            return sum(held.nbytes for sets in self._held.values() for held in sets.values())

    @property
    def count(self) -> int:
        """How many sets there are; one in two contexts counts twice."""
        with self._lock:
            return sum(len(sets) for sets in self._held.values())

    def get(self, context: Context, weights: Weights, make: Callable[[], Held]) -> Held:
        """The buffers of a set in a context, made when they are not there.

        Args:
            context: Where it is used.
            weights: The set.
            make: Makes and fills them; when the NPU's memory does not hold them, the least used sets go first.

        Raises:
            OutOfMemory: There is no room for this one set.
        """
        with self._lock:
            sets = self._held.setdefault(context, {})
            held = sets.get(weights)
            if held is None:
                while self.nbytes + weights.nbytes > self.limit and self._evict():
                    pass
                held = self._made(make)
                # Evicting may have emptied the context's entry, never removed it.
                sets[weights] = held
            held.used = next(self._turns)
            return held

    def drop(self, weights: Weights) -> None:
        """Free a set in all contexts."""
        with self._lock:
            for sets in self._held.values():
                sets.pop(weights, None)

    def _made(self, make: Callable[[], Held]) -> Held:
        while True:
            try:
                return make()
            except OutOfMemory:
                if not self._evict():
                    raise

    def _evict(self) -> bool:
        """Free the set that was not asked for for longest. Returns whether there was one."""
        candidates = [(held.used, sets, weights) for sets in self._held.values() for weights, held in sets.items()]
        if not candidates:
            return False
        _, sets, weights = min(candidates, key=lambda candidate: candidate[0])
        del sets[weights]
        return True
