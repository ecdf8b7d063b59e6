"""What a program costs on a device, learned from its own runs and kept on disk.

Per program, device and input shapes: the median of the last runs and their spread, the first run apart (it compiles,
pages in and fills caches). Entries are of one program content, one device and one driver; when any of them changes, the
key does, and the old entry is never asked again.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
import threading
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hetero.tensors import Array

_log = logging.getLogger(__name__)

FORMAT = 1
_SAMPLES = 32
_REFRESH = 8

Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Key:
    """What a cost belongs to.

    Attributes:
        program: Digest of the program's artifact.
        device: Device name with whatever of its driver changes its speed.
        shapes: Of the inputs, in the program's order.
    """

    program: str
    device: str
    shapes: Shapes

    def text(self) -> str:
        """As it stands in the file."""
        return "|".join([self.program, self.device, ";".join("x".join(map(str, shape)) for shape in self.shapes)])

    @property
    def elements(self) -> int:
        """How many numbers go in: a crude size, for guesses between shapes."""
        total = 0
        for shape in self.shapes:
            count = 1
            for size in shape:
                count *= size
            total += count
        return total


def shapes_of(inputs: Mapping[str, Array]) -> Shapes:
    """The shapes of a call's inputs."""
    return tuple([array.shape for array in inputs.values()])


class Cost:
    """The runs of one key.

    Attributes:
        runs: How many were seen, the first included.
        first: Seconds of the first run; None when it was not seen (an entry that was read back).
        median: Seconds, over the last runs after the first; None until there is one.
        spread: Median absolute deviation of the same, seconds.
    """

    __slots__ = ("_last", "first", "median", "runs", "spread")

    def __init__(self) -> None:
        self.runs = 0
        self.first: float | None = None
        self.median: float | None = None
        self.spread = 0.0
        self._last: deque[float] = deque(maxlen=_SAMPLES)

    def add(self, seconds: float) -> None:
        """Take in one run."""
        self.runs += 1
        if self.runs == 1:
            self.first = seconds
            return
        self._last.append(seconds)
        # The median of 32 numbers costs more than a run may: it is refreshed now and then, often at the beginning.
        if len(self._last) < _REFRESH or self.runs % _REFRESH == 0:
            self._refresh()

    def _refresh(self) -> None:
        # A copy: other lanes add their runs meanwhile.
        last = list(self._last)
        self.median = _median(last)
        self.spread = _median([abs(value - self.median) for value in last])

    def to_json(self) -> dict[str, Any]:
        """As it is stored."""
        return {"runs": self.runs, "first": self.first, "last": [round(value, 9) for value in list(self._last)]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Cost:
        """Read back. Raises TypeError, KeyError or ValueError for what was not stored by `to_json`."""
        cost = cls()
        cost.runs = int(data["runs"])
        cost.first = None if data["first"] is None else float(data["first"])
        cost._last.extend(float(value) for value in data["last"])
        if cost._last:
            cost._refresh()
        return cost


def _median(values: list[float]) -> float:
    # A third of the time that `statistics.median` takes, which counts here, as does that module's import.
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


class CostModel:
    """All costs of a Runtime.

    Args:
        path: The file in which they are kept; None keeps them in memory only.
        limit: How many keys are kept; the one not asked for or added to for longest goes first.
    """

    def __init__(self, path: Path | None = None, limit: int = 4096) -> None:
        self._path = path
        self._limit = limit
        self._lock = threading.Lock()
        self._costs: OrderedDict[Key, Cost] = OrderedDict()
        self._changed = False
        if path is not None:
            self._costs.update(_read(path))

    def add(self, key: Key, seconds: float) -> Cost:
        """Take in one run.

        Returns:
            The key's cost; further runs may be added to it without asking the model.
        """
        with self._lock:
            cost = self._costs.get(key)
            if cost is None:
                cost = self._costs[key] = Cost()
                while len(self._costs) > self._limit:
                    self._costs.popitem(last=False)
            cost.add(seconds)
            self._changed = True
            return cost

    def cost(self, key: Key) -> Cost | None:
        """What is known of exactly this key."""
        return self._costs.get(key)

    def predict(self, key: Key) -> float | None:
        """Expected seconds of a run: the key's median, else the nearest shapes' in proportion to size, else None."""
        cost = self._costs.get(key)
        if cost is not None and cost.median is not None:
            return cost.median
        with self._lock:
            known = [
                (other, other_cost.median)
                for other, other_cost in self._costs.items()
                if other.program == key.program and other.device == key.device and other_cost.median is not None
            ]
        if not known or not key.elements:
            return None
        nearest, median = min(known, key=lambda entry: abs(entry[0].elements - key.elements))
        return median * key.elements / nearest.elements if nearest.elements else median

    def __iter__(self) -> Iterator[tuple[Key, Cost]]:
        with self._lock:
            return iter(list(self._costs.items()))

    def save(self) -> None:
        """Write to disk what has changed, whole or not at all. A folder that cannot be written is noted, not raised."""
        with self._lock:
            if self._path is None or not self._changed:
                return
            entries = [[key.program, key.device, key.shapes, cost.to_json()] for key, cost in self._costs.items()]
            self._changed = False
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=f".{self._path.name}.", dir=self._path.parent)
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    json.dump({"format": FORMAT, "costs": entries}, file)
                os.replace(name, self._path)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
        except OSError as error:
            _log.warning("learned costs could not be kept in %s: %s", self._path, error)


def _read(path: Path) -> dict[Key, Cost]:
    """What is stored; nothing when the file is not there, of another format, or damaged."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["format"] != FORMAT:
            return {}
        return {
            Key(program, device, tuple(tuple(map(int, shape)) for shape in shapes)): Cost.from_json(cost)
            for program, device, shapes, cost in data["costs"]
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        _log.warning("learned costs in %s are unreadable and begin anew: %s", path, error)
        return {}
