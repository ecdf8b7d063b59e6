"""What a program costs on a device, learned from its own runs and kept on disk.

Per program, device and input shapes: the median of the last runs and their spread, the first run apart (it compiles,
pages in and fills caches); and where `hetero bench` could measure it, the joules of a run. Entries are of one program
content, one device and one driver; when any of them changes, the key does, and the old entry is never asked again.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hetero.tensors import Array

_log = logging.getLogger(__name__)

FORMAT = 2
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


@dataclass(frozen=True)
class Energy:
    """What a run takes.

    Attributes:
        joules: On top of what the idle machine takes, where it was measured.
        measured: By a meter; else declared by the backend, as watts for as long as a run is expected to last.
        source: The meter, or the watts.
    """

    joules: float
    measured: bool
    source: str

    def __str__(self) -> str:
        return f"{self.joules:.3g} J, {'measured by' if self.measured else 'declared by the backend:'} {self.source}"


def median(values: Collection[float]) -> float:
    """The middle one, or the mean of the middle two. `statistics` costs more to import than all of this module."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


class Cost:
    """The runs of one key.

    Attributes:
        runs: How many were seen, the first included.
        first: Seconds of the first run; None when it was not seen (an entry that was read back).
        median: Seconds, over the last runs after the first; None until there is one.
        spread: Median absolute deviation of the same, seconds.
        joules: Of a run, on top of the idle machine's: the median of what was measured; None before anything was.
        meter: What measured them.
    """

    __slots__ = ("_joules", "_last", "first", "joules", "median", "meter", "runs", "spread")

    def __init__(self) -> None:
        self.runs = 0
        self.first: float | None = None
        self.median: float | None = None
        self.spread = 0.0
        self.joules: float | None = None
        self.meter = ""
        self._last: deque[float] = deque(maxlen=_SAMPLES)
        self._joules: deque[float] = deque(maxlen=_SAMPLES)

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

    def add_joules(self, joules: float, meter: str) -> None:
        """Take in a measurement. What another meter said is forgotten: it may count other things."""
        if meter != self.meter:
            self._joules.clear()
        self.meter = meter
        self._joules.append(joules)
        self.joules = median(self._joules)

    def _refresh(self) -> None:
        # A copy: other lanes add their runs meanwhile.
        last = list(self._last)
        self.median = middle = median(last)
        self.spread = median([abs(value - middle) for value in last])

    def to_json(self) -> dict[str, Any]:
        """As it is stored."""
        seconds = {"runs": self.runs, "first": self.first, "last": [round(value, 9) for value in list(self._last)]}
        return {**seconds, "joules": list(self._joules), "meter": self.meter}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Cost:
        """Read back. Raises TypeError, KeyError or ValueError for what was not stored by `to_json`."""
        cost = cls()
        cost.runs = int(data["runs"])
        cost.first = None if data["first"] is None else float(data["first"])
        cost._last.extend(float(value) for value in data["last"])
        if cost._last:
            cost._refresh()
        for joules in data["joules"]:
            cost.add_joules(float(joules), str(data["meter"]))
        return cost

    def take_joules_of(self, other: Cost) -> None:
        """Know what the other one knows of joules, and nothing else."""
        self.joules, self.meter, self._joules = other.joules, other.meter, other._joules.copy()


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
        self._changed: dict[Key, None] = {}
        self._measured: set[Key] = set()
        if path is not None:
            self._costs.update(_read(path))

    def add(self, key: Key, seconds: float) -> Cost:
        """Take in one run.

        Returns:
            The key's cost; further runs may be added to it without asking the model.
        """
        with self._lock:
            cost = self._entry(key)
            cost.add(seconds)
            self._changed[key] = None
            return cost

    def add_joules(self, key: Key, joules: float, meter: str) -> None:
        """Take in what a run was measured to take.

        Args:
            key: What was run.
            joules: On top of what the idle machine takes.
            meter: What measured it, for people.
        """
        with self._lock:
            self._entry(key).add_joules(joules, meter)
            self._changed[key] = None
            self._measured.add(key)

    def _entry(self, key: Key) -> Cost:
        cost = self._costs.get(key)
        if cost is None:
            cost = self._costs[key] = Cost()
            while len(self._costs) > self._limit:
                self._costs.popitem(last=False)
        return cost

    def cost(self, key: Key) -> Cost | None:
        """What is known of exactly this key."""
        return self._costs.get(key)

    def predict(self, key: Key) -> float | None:
        """Expected seconds of a run: the key's median, else the nearest shapes' in proportion to size, else None."""
        cost = self._costs.get(key)
        if cost is not None and cost.median is not None:
            return cost.median
        found = self._nearest(key, lambda other: other.median)
        return found[0] if found is not None else None

    def predict_joules(self, key: Key) -> tuple[float, str] | None:
        """Measured joules of a run, from the nearest shapes as in `predict`, and the meter; None without any."""
        cost = self._costs.get(key)
        if cost is not None and cost.joules is not None:
            return cost.joules, cost.meter
        found = self._nearest(key, lambda other: other.joules)
        return (found[0], f"{found[1].meter}, for other shapes") if found is not None else None

    def _nearest(self, key: Key, value: Callable[[Cost], float | None]) -> tuple[float, Cost] | None:
        """A value of the nearest shapes in proportion to size, and whose it is."""
        with self._lock:
            known = [
                (other, told, cost)
                for other, cost in self._costs.items()
                if other.program == key.program and other.device == key.device and (told := value(cost)) is not None
            ]
        if not known or not key.elements:
            return None
        nearest, told, cost = min(known, key=lambda entry: abs(entry[0].elements - key.elements))
        return (told * key.elements / nearest.elements if nearest.elements else told), cost

    def __iter__(self) -> Iterator[tuple[Key, Cost]]:
        with self._lock:
            return iter(list(self._costs.items()))

    def save(self) -> None:
        """Write to disk what has changed, whole or not at all. A folder that cannot be written is noted, not raised.

        What other processes have learned and measured meanwhile is kept, where this one knows nothing newer.
        """
        if self._path is None or not self._changed:
            return
        stored = _read(self._path)
        with self._lock:
            for key in self._changed:
                mine, other = self._costs.get(key), stored.pop(key, None)
                if mine is None:
                    continue
                if other is not None and other.joules is not None and key not in self._measured:
                    mine.take_joules_of(other)
                stored[key] = mine
            self._changed.clear()
            self._measured.clear()
            newest = list(stored.items())[-self._limit :]
            entries = [[key.program, key.device, key.shapes, cost.to_json()] for key, cost in newest]
        import tempfile

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
