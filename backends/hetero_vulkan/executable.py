"""An ONNX program on a device: plans for the shapes that were seen, a new start on a new device when one is lost."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from hetero.backend import Call, Executable, OutOfMemory, Unsupported
from hetero.errors import ClosedError
from hetero.graph.node import Shapes
from hetero.graph.partition import Part, Partition
from hetero.tensors import Array
from hetero_vulkan.device import VulkanDevice
from hetero_vulkan.holder import DeviceHolder
from hetero_vulkan.limits import Novelty, patience_of
from hetero_vulkan.ops.tensors import Kind
from hetero_vulkan.ops.tuning import Tunings
from hetero_vulkan.plan import Plan
from hetero_vulkan.precision import FP32, Precision
from hetero_vulkan.weights import Weights

_MOST_CUTS = 16

_PREPARING = 60.0
"""Seconds that preparing a constant may take."""


class Session:
    """What one executable has on one device: the constants, and each lane's plans.

    Args:
        device: Taken from its holder; given back when this is closed.
        tunings: What suits the device.
        most_cost: See `Plan`.
        plans: Of each lane: memory for so many combinations of shapes. The one that was not used for longest is given
            up, and before another is made those that there are must have been used; see `Novelty`.
        precision: How numbers are stored.

    Attributes:
        users: Runs that are in it.
    """

    def __init__(
        self,
        device: VulkanDevice,
        tunings: Tunings | None = None,
        most_cost: float | None = None,
        plans: int = 4,
        precision: Precision = FP32,
    ) -> None:
        self.device = device
        self.tunings = tunings
        self.precision = precision
        self.users = 0
        self.weights = Weights(device, _PREPARING)
        self._most_cost = most_cost
        self._most_plans = plans
        # A lane is one thread's at a time, so its plans need no lock.
        self._plans: list[OrderedDict[Shapes, dict[int, Plan]]] = [OrderedDict() for _ in range(device.lanes)]
        self._novelty = [Novelty(plans) for _ in range(device.lanes)]

    def admit(self, shapes: Shapes, lane: int) -> None:
        """A run with these shapes comes.

        Raises:
            Unsupported: They would need a plan, and shapes change too often.
        """
        if self._plans[lane].get(shapes):
            self._novelty[lane].used()
        else:
            self._novelty[lane].check()

    def plan(self, shapes: Shapes, part: Part, lane: int) -> Plan:
        """The plan of a part for one lane, made when it is not there.

        Raises:
            OutOfMemory: There is no room, even without this lane's other plans.
            Unsupported: Something is beyond the device's limits.
        """
        kept = self._plans[lane]
        plans = kept.setdefault(shapes, {})
        kept.move_to_end(shapes)
        while len(kept) > self._most_plans:
            self._give_up(lane)
        if part.place not in plans:
            try:
                made = self._made(part, lane)
            except OutOfMemory:
                if len(kept) == 1:
                    raise
                while len(kept) > 1:
                    self._give_up(lane)
                made = self._made(part, lane)
            if not plans:
                self._novelty[lane].made()
            plans[part.place] = made
        return plans[part.place]

    def made(self, shapes: Shapes, lane: int) -> list[Plan]:
        """The plans that there are for inputs of these shapes."""
        return list(self._plans[lane].get(shapes, {}).values())

    def close(self) -> None:
        """Free all of it, and give the device back."""
        for kept in self._plans:
            for plans in kept.values():
                for plan in plans.values():
                    plan.close()
            kept.clear()
        self.weights.close()
        self.device.returned()

    def _made(self, part: Part, lane: int) -> Plan:
        return Plan(
            self.device,
            part.graph,
            self.weights,
            lane=lane,
            most_cost=self._most_cost,
            tunings=self.tunings,
            precision=self.precision,
        )

    def _give_up(self, lane: int) -> None:
        _, plans = self._plans[lane].popitem(last=False)
        for plan in plans.values():
            plan.close()


class GraphExecutable(Executable):
    """A program's graph on a device, and what the device does not do in numpy.

    Args:
        holder: Gives the device, and another one when it was lost.
        begin: Makes a session on a device.
        cut: The graph for inputs of certain shapes, in parts. Raises Unsupported where it cannot have them.
        timeout: Seconds after which work on the device is given up; None: by what there is to do.
        details: What was decided at load.
        min_cosine: See `Executable`.
    """

    def __init__(
        self,
        holder: DeviceHolder,
        begin: Callable[[VulkanDevice], Session],
        cut: Callable[[Session, Shapes], Partition],
        *,
        timeout: float | None,
        details: Mapping[str, Any],
        min_cosine: float | None = None,
    ) -> None:
        self.details = details
        self.min_cosine = min_cosine
        self._holder = holder
        self._begin = begin
        self._cut = cut
        self._timeout = timeout
        self._lock = threading.Lock()
        self._cuts: OrderedDict[Shapes, Partition | Unsupported] = OrderedDict()
        self._session: Session | None = None
        self._closed = False
        session = self._enter()
        self.lanes = session.device.lanes
        self._leave(session)

    def prepare(self, shapes: Shapes) -> Partition:
        """Make what inputs of these shapes need on the first lane; gives the graph in parts.

        Raises:
            Unsupported: The graph cannot have them, or the device cannot do it.
            OutOfMemory: There is no room.
        """
        session = self._enter()
        try:
            session.admit(shapes, 0)
            cut = self._parts(session, shapes)
            for part in cut.parts:
                if part.device:
                    session.plan(shapes, part, 0)
        finally:
            self._leave(session)
        return cut

    def run(self, inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        """See `Executable.run`."""
        shapes = tuple((name, array.shape) for name, array in inputs.items())
        session = self._enter()
        try:
            session.admit(shapes, call.lane)
            cut = self._parts(session, shapes)
            offered = call.outputs or {}

            def on_device(part: Part, given: Mapping[str, Array]) -> Mapping[str, Array]:
                plan = session.plan(shapes, part, call.lane)
                return plan.run(given, offered, patience_of(session.device.physical, plan.cost, self._timeout))

            return {name: _own(array, inputs) for name, array in cut.run(inputs, on_device).items()}
        finally:
            self._leave(session)

    def close(self) -> None:
        """See `Executable.close`."""
        with self._lock:
            self._closed = True
            session, self._session = self._session, None
        if session is not None and not session.users:
            session.close()

    def plans(self, shapes: Shapes) -> list[Plan]:
        """What `prepare` has made for inputs of these shapes."""
        session = self._session
        return session.made(shapes, 0) if session else []

    @property
    def memory(self) -> int:
        """Bytes of the constants on the device; 0 when there is none."""
        return sum(self.sizes.values())

    @property
    def sizes(self) -> Mapping[Kind, int]:
        """Bytes of the constants on the device, by how their elements are stored."""
        session = self._session
        return session.weights.sizes if session else {}

    @property
    def rounding(self) -> float:
        """See `Weights`; 0 when there are none."""
        session = self._session
        return session.weights.rounding if session else 0.0

    def _enter(self) -> Session:
        """The session, begun anew when its device was lost."""
        with self._lock:
            if self._closed:
                raise ClosedError("the graph is closed", fix="load it again")
            session = self._session
            if session is not None and session.device.lost:
                self._session = None
                if not session.users:
                    session.close()
                session = None
            if session is None:
                device = self._holder.take()
                try:
                    session = self._session = self._begin(device)
                except BaseException:
                    device.returned()
                    raise
            session.users += 1
            return session

    def _leave(self, session: Session) -> None:
        with self._lock:
            session.users -= 1
            last = not session.users and session is not self._session
        if last:
            session.close()

    def _parts(self, session: Session, shapes: Shapes) -> Partition:
        with self._lock:
            found = self._cuts.get(shapes)
            if found is None:
                try:
                    found = self._cut(session, shapes)
                except Unsupported as error:
                    found = error
                self._cuts[shapes] = found
                if len(self._cuts) > _MOST_CUTS:
                    self._cuts.popitem(last=False)
            self._cuts.move_to_end(shapes)
        if isinstance(found, Unsupported):
            raise Unsupported(found.problem, fix=found.fix) from found.__cause__
        return found


def _own(array: Array, inputs: Mapping[str, Array]) -> Array:
    """An output that the caller may keep: a copy of what is an input, or always the same."""
    mine = array.flags.writeable and all(array is not given for given in inputs.values())
    return array if mine else array.copy()
