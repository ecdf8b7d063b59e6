"""What runs of one program on one device are expected to cost, learned from those that were seen."""

from __future__ import annotations

from collections.abc import Mapping

from hetero.scheduler.costs import Cost, CostModel, Energy, Key, Shapes
from hetero.tensors import Array


class Expectations:
    """The cost model as one candidate sees it.

    Args:
        costs: The Runtime's.
        key: Program and device in the cost model.
        watts: Declared power of the device at work; None when nobody has said.
    """

    def __init__(self, costs: CostModel, key: tuple[str, str], watts: float | None) -> None:
        self._costs = costs
        self._key = key
        self._watts = watts
        self._last: tuple[Shapes, Cost] | None = None

    def runs(self, shapes: Shapes) -> int:
        """How many runs of these shapes were seen."""
        cost = self._costs.cost(Key(*self._key, shapes))
        return cost.runs if cost is not None else 0

    def seconds(self, shapes: Shapes) -> float | None:
        """Of a run; None when nothing is known."""
        return self._costs.predict(Key(*self._key, shapes))

    def energy(self, shapes: Shapes) -> Energy | None:
        """Of a run: measured, else as declared; None when it is unknown."""
        key = Key(*self._key, shapes)
        measured = self._costs.predict_joules(key)
        if measured is not None:
            return Energy(measured[0], measured=True, source=measured[1])
        seconds = self._costs.predict(key)
        if self._watts is None or seconds is None:
            return None
        return Energy(self._watts * seconds, measured=False, source=f"{self._watts:g} W")

    @property
    def typical_seconds(self) -> float | None:
        """Of a run of the last shapes; None before there are two."""
        return self._last[1].median if self._last is not None else None

    @property
    def last_shapes(self) -> Shapes:
        """Of the last run; empty before the first."""
        return self._last[0] if self._last is not None else ()

    @property
    def typical_energy(self) -> Energy | None:
        """Of a run of the last shapes; None before the first, and when it is unknown."""
        return self.energy(self._last[0]) if self._last is not None else None

    def learn(self, inputs: Mapping[str, Array], seconds: float) -> None:
        """Take in a run."""
        shapes = tuple([array.shape for array in inputs.values()])
        last = self._last
        if last is not None and last[0] == shapes:
            last[1].add(seconds)
            return
        self._last = (shapes, self._costs.add(Key(*self._key, shapes), seconds))

    def learn_energy(self, shapes: Shapes, joules: float, meter: str) -> None:
        """Keep what a run was measured to take, while nothing else was at work."""
        self._costs.add_joules(Key(*self._key, shapes), joules, meter)
