"""ONNX programs: from the model to a graph of which the device does what it can."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hetero.backend import Program, Unsupported
from hetero.errors import OptionError, ProgramError
from hetero.graph.cost import total_cost
from hetero.graph.ir import Graph
from hetero.graph.node import Shapes
from hetero.graph.onnx_import import import_onnx
from hetero.graph.partition import Partition, partition
from hetero.graph.passes import fuse
from hetero_vulkan.device import VulkanDevice
from hetero_vulkan.executable import GraphExecutable, Session
from hetero_vulkan.holder import DeviceHolder
from hetero_vulkan.nodes import claims
from hetero_vulkan.nodes.elementwise import FUSED
from hetero_vulkan.ops.tuning import tunings
from hetero_vulkan.physical import Physical
from hetero_vulkan.precision import FP32, HALF_COSINE, PRECISIONS
from hetero_vulkan.storage import HALF
from hetero_vulkan.telling import told_of_storage

_MOST_COST = {"integrated": 2e10, "virtual": 2e10, "discrete": 2e11}
"""Floating-point operations of a submission: a fraction of a second, where watchdogs of drivers wait for some."""


_ROUNDING = ("FakeQuantize", "QuantizeLinear")

_ROUNDED_COSINE = 0.99
"""With the CPU's answer, of a quantised model: runtimes that put operators together round to other integers."""


class OnnxOnGpu:
    """An ONNX program, read for a device; usually made by `load_onnx`.

    Args:
        program: With an `onnx` artifact.
        name: Of the device.
        cache: Folder for what was measured of the device.
        options: Of the backend.
    """

    def __init__(self, program: Program, name: str, cache: Path | None, options: Mapping[str, Any]) -> None:
        self._program = program
        self._file = program.artifact("onnx").file
        self._name = name
        self._cache = cache
        self._checked = False
        self._mixed = options["partition"] == "allow"
        self._tune = options["tune"]
        self._plans = int(options["plans"])
        self.precision = PRECISIONS[options.get("precision", FP32.name)]

    def begin(self, device: VulkanDevice) -> Session:
        """A session on a device."""
        physical = device.physical
        tune = not physical.software if self._tune is None else bool(self._tune)
        found = tunings(device, self._cache) if tune else None
        return Session(device, found, most_cost_of(physical), self._plans, self.precision)

    def cut(self, session: Session, shapes: Shapes) -> Partition:
        """The graph for inputs of these shapes, in parts for device and host.

        Raises:
            Unsupported: It cannot have them, or the device does not do all of it and must.
        """
        graph = self._read(shapes)
        cut = partition(graph, claims(session.device, graph, session.tunings, self.precision))
        if cut.refused and not self._mixed:
            reasons = Counter((node.op, reason) for node, reason in cut.refused)
            told = "; ".join(f"{op} ({reason})" for (op, reason), _ in reasons.most_common(4))
            more = f", and {len(reasons) - 4} others" if len(reasons) > 4 else ""
            raise Unsupported(
                f"{self._name} does not run {len(cut.refused)} of the {len(graph.nodes)} nodes of "
                f"{self._program.name!r}: {told}{more}",
                fix="set the option vulkan.partition=allow to run those on the CPU, or use another device",
            )
        if not any(part.device for part in cut.parts):
            raise Unsupported(f"{self._program.name!r} has nothing for {self._name} to do")
        return cut

    def _read(self, shapes: Shapes) -> Graph:
        import onnx

        # The file was checked when it was first read; reading it once more for other shapes is most of their cost.
        model = onnx.load_model(self._file) if self._checked else self._file
        try:
            graph = import_onnx(model, dict(shapes))
        except (ProgramError, OptionError) as error:
            # Whether it is broken for every device is for ONNX Runtime to say.
            raise Unsupported(f"{self._program.name!r}: {error.problem}", fix=error.fix) from error
        self._checked = True
        return fuse(graph, activations=FUSED, residuals=True, int8=True)


def load_onnx(
    program: Program, holder: DeviceHolder, cache: Path | None, options: Mapping[str, Any]
) -> GraphExecutable:
    """An ONNX program as an executable, ready for its usual shapes.

    Args:
        program: With an `onnx` artifact.
        holder: Gives the device.
        cache: Folder for what was measured of the device.
        options: Of the backend.

    Raises:
        Unsupported: The device does not do all of it, or nothing.
        BackendError: The device cannot be used now, or has no room.
    """
    made = OnnxOnGpu(program, holder.choice.name, cache, options)
    details: dict[str, Any] = {}
    executable = GraphExecutable(
        holder,
        made.begin,
        made.cut,
        timeout=options["timeout"],
        details=details,
        min_cosine=made.precision.min_cosine,
    )
    try:
        shapes, cut = _prepare(executable, program)
        rounded = any(node.op in _ROUNDING for node in cut.whole.nodes)
        if rounded and (executable.min_cosine is None or executable.min_cosine > _ROUNDED_COSINE):
            executable.min_cosine = _ROUNDED_COSINE
        elif executable.min_cosine is None and any(kind.dtype == HALF for kind in cut.whole.types.values()):
            executable.min_cosine = HALF_COSINE
        details |= _told(cut, shapes) | told_of_storage(made.precision, executable, cut, shapes)
    except BaseException:
        executable.close()
        raise
    return executable


def _prepare(executable: GraphExecutable, program: Program) -> tuple[Shapes, Partition]:
    """Ready for the first shapes that the model takes."""
    refusal: Unsupported | None = None
    for tried in program.shapes_to_try():
        shapes = tuple(tried.items())
        try:
            return shapes, executable.prepare(shapes)
        except Unsupported as error:
            if not isinstance(error.__cause__, ProgramError):
                raise
            refusal = refusal or error
    assert refusal is not None
    raise refusal


def most_cost_of(physical: Physical) -> float | None:
    """Floating-point operations that are submitted at once; None for all, where no watchdog waits."""
    return None if physical.software else _MOST_COST.get(physical.sort, _MOST_COST["integrated"])


def _told(cut: Partition, shapes: Shapes) -> dict[str, Any]:
    flops = [total_cost(part.graph).flops for part in cut.parts]
    own = sum(cost for cost, part in zip(flops, cut.parts, strict=True) if part.device)
    nodes = Counter(node.op for part in cut.parts if part.device for node in part.graph.nodes)
    details = {
        "shapes at load": ", ".join(f"{name} {list(shape)}" for name, shape in shapes),
        "on the device": f"{sum(nodes.values())} nodes, {own / max(1, sum(flops)):.1%} of the operations: "
        + ", ".join(f"{op} {count}" for op, count in nodes.most_common()),
    }
    if cut.refused:
        reasons = Counter((node.op, reason) for node, reason in cut.refused)
        details["on the host"] = "; ".join(f"{op} {count} ({why})" for (op, why), count in reasons.most_common())
        details["parts"] = str(len(cut.parts))
    return details
