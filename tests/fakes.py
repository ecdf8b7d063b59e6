"""Backends whose every step a test decides: programs that double their input, and the ways in which that can fail."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from hetero.backend import (
    Array,
    Artifact,
    Backend,
    Call,
    Device,
    Executable,
    Option,
    Pace,
    PolledExecutable,
    Program,
    TensorSpec,
)

F32 = np.dtype(np.float32)

DOUBLE = Program(
    "double",
    inputs=(TensorSpec("x", F32, ("n",)),),
    outputs=(TensorSpec("y", F32, ("n",)),),
    artifacts=(Artifact("fake", name="double"),),
)

Run = Callable[[Mapping[str, Array], Call], Mapping[str, Array]]


def double(inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
    return {"y": inputs["x"] * 2}


class FakeExecutable(Executable):
    def __init__(self, backend: FakeBackend) -> None:
        self._backend = backend
        self.lanes = backend.lanes
        self.units = backend.units
        self.weights = backend.weights
        self.pace = backend.pace
        self.min_cosine = backend.min_cosine
        self.details = {"fake": True}
        self.closed = 0
        self.inside = 0
        self.most_inside = 0
        self.lanes_seen: set[int] = set()
        self._lock = threading.Lock()

    def run(self, inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        assert not self.closed, "run after close"
        with self._lock:
            self.inside += 1
            self.most_inside = max(self.most_inside, self.inside)
            self.lanes_seen.add(call.lane)
        try:
            return self._backend.on_run(inputs, call)
        finally:
            with self._lock:
                self.inside -= 1

    def close(self) -> None:
        assert not self.inside, "closed while a call is running"
        self.closed += 1


class FakeBackend(Backend):
    """Make variants with `fake(...)`."""

    name = "fake"
    kind: ClassVar[Any] = "cpu"
    lanes: ClassVar[int] = 1
    simulated: ClassVar[bool] = False
    units: ClassVar[Sequence[str]] = ()
    weights: ClassVar[Sequence[float]] = ()
    pace: ClassVar[Pace | None] = None
    min_cosine: ClassVar[float | None] = None
    options = (
        Option("threads", int, 2, "How many threads.", minimum=1),
        Option("mode", str, "fast", "How.", choices=("fast", "exact")),
        Option("names", tuple, (), "Some names."),
        Option("share", float, 0.5, "A share.", minimum=0),
        Option("loud", bool, False, "Loud.", per_call=True),
    )
    probing: ClassVar[Callable[[], Sequence[Device]] | None] = None
    loading: ClassVar[Callable[[], None] | None] = None
    running: ClassVar[Run] = staticmethod(double)
    made: ClassVar[list[Any]]
    given: ClassVar[list[Mapping[str, Any]]]

    def probe(self) -> Sequence[Device]:
        if type(self).probing is not None:
            return type(self).probing()
        return [Device(self.name, kind=self.kind, lanes=self.lanes, simulated=self.simulated)]

    def load(self, program: Program, device: Device, options: Mapping[str, Any]) -> Executable | PolledExecutable:
        type(self).given.append(options)
        if type(self).loading is not None:
            type(self).loading()
        executable = FakeExecutable(self)
        type(self).made.append(executable)
        return executable

    def on_run(self, inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        return type(self).running(inputs, call)


def fake(
    name: str,
    *,
    kind: str = "npu",
    lanes: int = 1,
    simulated: bool = False,
    units: Sequence[str] = (),
    weights: Sequence[float] = (),
    pace: Pace | None = None,
    min_cosine: float | None = None,
    probe: Callable[[], Sequence[Device]] | None = None,
    load: Callable[[], None] | None = None,
    run: Run = double,
) -> type[FakeBackend]:
    """A backend class of that name; `probe`, `load` and `run` replace what it does there."""
    return type(
        f"Fake_{name}",
        (FakeBackend,),
        {
            "name": name,
            "kind": kind,
            "lanes": lanes,
            "simulated": simulated,
            "units": units,
            "weights": weights,
            "pace": pace,
            "min_cosine": min_cosine,
            "probing": staticmethod(probe) if probe else None,
            "loading": staticmethod(load) if load else None,
            "running": staticmethod(run),
            "made": [],
            "given": [],
        },
    )


def raises(error: BaseException) -> Callable[..., Any]:
    """A step that fails with `error`."""

    def step(*args: Any) -> Any:
        raise error

    return step


class Failing:
    """A run that works until the given call (counted from 0) and then raises `error` each time."""

    def __init__(self, at: int, error: BaseException) -> None:
        self.calls = 0
        self._at = at
        self._error = error

    def __call__(self, inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        self.calls += 1
        if self.calls > self._at:
            raise self._error
        return double(inputs, call)
