"""A graph as an executable: products and attention as int8 launches on the NPU, the rest in numpy on the host.

A call runs in the thread that it is made in. Steps on the NPU are started as soon as what they read is there and polled
while the host goes on; where there is nothing left to do the thread sleeps between polls. So no other request waits for
this one's host parts, which are numpy's and let go of the GIL: one call's host parts run while another's launches do.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hetero.backend import Call, Executable, ExecutionError, Unsupported
from hetero.errors import ClosedError
from hetero.tensors import Array
from hetero_xrt.steps import HostStep, Landing, Plan, Shared, Step, Times

if TYPE_CHECKING:
    from hetero.graph.node import Shapes

LANES = 2
"""Calls at once: one's host parts run while the other's launches do."""

_PLANS = 16
_SPINS = 20
_SHORTEST, _LONGEST = 20e-6, 1e-3


class GraphExecutable(Executable):
    """A graph of which the NPU does what it can.

    Args:
        plan: Makes the plan for inputs of certain shapes.
        close: Frees what plans share: kernels and their weights.
        min_cosine: As `Executable.min_cosine`.
        details: What was decided at load.
        sleep: Between polls.
        seconds: For the times of parts.

    Attributes:
        times: Where the time went.
    """

    def __init__(
        self,
        plan: Callable[[Shapes], Plan],
        close: Callable[[], None],
        *,
        min_cosine: float,
        details: Mapping[str, Any],
        sleep: Callable[[float], None] = time.sleep,
        seconds: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.lanes = LANES
        self.min_cosine = min_cosine
        self.times = Times()
        self._plan = plan
        self._free = close
        self._details = details
        self._sleep = sleep
        self._seconds = seconds
        self._lock = threading.Lock()
        self._plans: OrderedDict[Shapes, Plan | Unsupported] = OrderedDict()
        self._running: weakref.WeakValueDictionary[int, _Run] = weakref.WeakValueDictionary()
        self._closed = False

    def prepare(self, shapes: Shapes) -> Plan:
        """The plan for inputs of these shapes, made when it is not there; the least used one goes for it.

        Raises:
            Unsupported: The graph cannot have these shapes.
        """
        with self._lock:
            plan = self._plans.get(shapes)
            if plan is None:
                try:
                    plan = self._plan(shapes)
                except Unsupported as error:
                    plan = error
                self._plans[shapes] = plan
                if len(self._plans) > _PLANS:
                    self._plans.popitem(last=False)
            self._plans.move_to_end(shapes)
        if isinstance(plan, Unsupported):
            raise Unsupported(plan.problem, fix=plan.fix)
        return plan

    @property
    def details(self) -> Mapping[str, Any]:  # type: ignore[override]
        """What was decided at load, and where the time of the runs went so far."""
        times = self.times
        if not times.runs:
            return self._details
        host, waiting = (f"{seconds / times.runs * 1e3:.1f} ms" for seconds in (times.host, times.waiting))
        told = f"{host} on the host, {waiting} copying to and from the NPU and waiting for it"
        return {**self._details, "mean of a run": told}

    def run(self, inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        """See `Executable.run`."""
        if self._closed:
            raise ClosedError("the graph is closed")
        plan = self.prepare(tuple((name, array.shape) for name, array in inputs.items()))
        run = _Run(plan, dict(inputs), call, self._sleep, self._seconds)
        self._running[call.lane] = run
        outputs = run.finish()
        self.times.add(run.host, run.waiting)
        call.copy_seconds = run.copying
        return outputs

    def cancel(self, call: Call) -> bool:
        """See `Executable.cancel`: launches in flight run to their end, nothing more is begun."""
        run = self._running.get(call.lane)
        if run is None:
            return False
        run.cancelled = True
        return True

    def close(self) -> None:
        """See `Executable.close`: the weights leave the NPU, the kernels' contexts stay for who comes next."""
        if self._closed:
            return
        self._closed = True
        self._plans.clear()
        self._free()


class _Run:
    """One call."""

    def __init__(
        self,
        plan: Plan,
        inputs: dict[str, Array],
        call: Call,
        sleep: Callable[[float], None],
        seconds: Callable[[], float],
    ) -> None:
        self.cancelled = False
        self.host = self.waiting = self.copying = 0.0
        self._values = {**plan.constants, **inputs}
        self._outputs = plan.outputs
        self._to_do = list(plan.steps)
        self._uses = Counter(plan.uses)
        self._call = call
        self._sleep = sleep
        self._seconds = seconds
        self._aloft: list[tuple[Step, Landing]] = []
        self._shared: Shared = {}

    def finish(self) -> dict[str, Array]:
        """Run to the end; when that fails, launches in flight are left to themselves."""
        try:
            self._work()
        except BaseException:
            for _, landing in self._aloft:
                landing.ticket.cancelled = True
                landing.ticket.done()
            raise
        return {name: np.ascontiguousarray(self._values[value]) for name, value in self._outputs.items()}

    def _work(self) -> None:
        pauses = 0
        while self._to_do or self._aloft:
            if self.cancelled:
                raise ExecutionError("the call was cancelled")
            if self._land() or self._advance():
                pauses = 0
                continue
            pauses += 1
            began = self._seconds()
            self._sleep(0 if pauses <= _SPINS else min(_SHORTEST * 1.25 ** (pauses - _SPINS), _LONGEST))
            self.waiting += self._seconds() - began

    def _land(self) -> bool:
        """Take in what is over; whether there was anything."""
        began = self._seconds()
        over = [entry for entry in self._aloft if entry[1].ticket.done()]
        asked = self._seconds()
        self.waiting += asked - began
        for step, landing in over:
            self._aloft.remove((step, landing))
            output = landing.end()
            self.copying += landing.ticket.copying
            self._done(step, [output])
        self.host += self._seconds() - asked
        return bool(over)

    def _advance(self) -> bool:
        """Begin a step on the NPU, or do the next one of the host when there is none; whether there was one."""
        ready = [step for step in self._to_do if all(name in self._values for name in step.inputs)]
        if not ready:
            return False
        began = self._seconds()
        step = next((step for step in ready if not isinstance(step, HostStep)), ready[0])
        self._to_do.remove(step)
        if isinstance(step, HostStep):
            self._done(step, step.compute([self._values[name] for name in step.inputs]))
        else:
            self._aloft.append((step, step.begin(self._values, self._call, self._shared)))
        self.host += self._seconds() - began
        return True

    def _done(self, step: Step, outputs: Sequence[Array]) -> None:
        self._values.update(zip(step.outputs, outputs, strict=True))
        for name in step.inputs:
            self._uses[name] -= 1
            if not self._uses[name]:
                del self._values[name]
                for key in [key for key in self._shared if key[0] == name]:
                    del self._shared[key]
