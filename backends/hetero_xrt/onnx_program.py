"""ONNX programs: from the model to a graph of which the NPU does the products and attention."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from hetero.backend import Program, Unsupported
from hetero.errors import OptionError, ProgramError
from hetero.graph.ir import Graph
from hetero.graph.node import Shapes
from hetero.graph.onnx_import import import_onnx
from hetero.graph.ops import op_of
from hetero.graph.passes import fuse
from hetero_xrt.blocks import Blocks
from hetero_xrt.executable import TileExecutable
from hetero_xrt.graph import GraphExecutable
from hetero_xrt.planning import Claim, Planner, Precision, claims_of
from hetero_xrt.quantise import ALPHA, Floats
from hetero_xrt.steps import Plan

MIN_COSINE = 0.98
"""With the CPU's answer: what a right answer of int8 reaches, and one with a dead tile or a wrong layout does not."""

LEAST_SHARE = 0.5
"""Of a graph's operations: with fewer on the NPU the CPU alone is quicker than the host's part in numpy."""

# Lengths that attention kernels are built for beside the one that fits best.
_LENGTHS = (512, 768, 1024, 1536, 2048, 4096)

Load = Callable[[str], TileExecutable]
"""Gives a kernel by its name. Raises Unsupported where it cannot be had."""


class OnnxOnNpu:
    """An ONNX program with what the NPU needs for it; usually made by `load_onnx`.

    Args:
        program: With an `onnx` artifact.
        load: Gives kernels.
        precision: How floats become int8.
        threads: Of the host's part; None for as many as there are cores.

    Attributes:
        shapes: The usual ones of its inputs.
        missing: Kernels that could not be had, and why.

    Raises:
        Unsupported: The NPU has nothing to do in it, or no kernel for that.
        BackendError: A kernel cannot be loaded now.
    """

    def __init__(self, program: Program, load: Load, precision: Precision, threads: int | None = None) -> None:
        self._program = program
        self._file = program.artifact("onnx").file
        self._precision = precision
        self._kernels: dict[str, TileExecutable] = {}
        self.missing: dict[str, str] = {}
        self.shapes = tuple(program.usual_shapes().items())
        self._first: Graph | None = self._read(self.shapes)
        claims = [c for c in claims_of(self._first) if not precision.keeps(c.node.name)]
        if not claims:
            raise Unsupported(
                f"{program.name!r} has nothing for the NPU at its usual sizes: no product of 64 rows or more with a "
                "constant weight, and no attention"
            )
        try:
            length = self._load(claims, load)
            self._planner = Planner(self._kernels, length, precision, Blocks(threads))
            self._check_share(self._first)
            self._claimed = len(self.claimed(self._first))
        except BaseException:
            self.close()
            raise

    def plan(self, shapes: Shapes, also: Sequence[str] = ()) -> Plan:
        """The plan for inputs of these shapes.

        Args:
            shapes: By name.
            also: Values beside the outputs to hand out.

        Raises:
            Unsupported: The graph cannot have these shapes.
        """
        # The graph of the usual shapes is there from the first look at it.
        graph, self._first = self._first, None
        if graph is None or shapes != self.shapes:
            graph = self._read(shapes)
        claimed = len(self.claimed(graph))
        if claimed < self._claimed:
            raise Unsupported(
                f"for inputs of the shapes {', '.join(f'{name} {list(shape)}' for name, shape in shapes)} the NPU has "
                f"{claimed} of the {self._claimed} nodes of {self._program.name!r} that it has at the usual ones: too "
                "few rows, or more positions than the attention kernel takes"
            )
        plan = self._planner.plan(graph)
        return replace(plan, outputs={**plan.outputs, **{name: name for name in also}})

    def graph(self) -> Graph:
        """The graph at the usual shapes, in float32."""
        return self._read(self.shapes)

    def claimed(self, graph: Graph) -> dict[str, Claim]:
        """Which of its nodes go to the NPU, by their output."""
        return self._planner.claimed(graph)

    def close(self) -> None:
        """Free the weights on the NPU and the kernels."""
        planner = getattr(self, "_planner", None)
        if planner is not None:
            planner.close()
        for kernel in self._kernels.values():
            kernel.close()
        self._kernels.clear()

    def describe(self) -> dict[str, Any]:
        """What was decided, for `explain()`."""
        graph = self._first or self.graph()
        claimed = self.claimed(graph)
        on_host = Counter(node.op for node in graph.nodes if node.output not in claimed)
        kernels = Counter(claim.kernel for claim in claimed.values())
        weights = {claim.node.input(1): claim.kernel for claim in claimed.values() if claim.node.op != "Attention"}
        nbytes = sum(math.prod(map(int, kernel.rsplit("_", 1)[1].split("x"))) for kernel in weights.values())
        kept = [c.node.name for c in claims_of(graph, self._planner.length) if c.node.output not in claimed]
        return {
            "on the NPU": f"{len(claimed)} nodes, {self._share(graph, claimed):.1%} of the operations",
            "kernels": ", ".join(f"{name} ({count}x)" for name, count in kernels.items()),
            "weights": f"{nbytes / 1e6:.1f} MB of int8, copied once",
            "on the host": ", ".join(f"{op} {count}" for op, count in on_host.most_common()),
            **({"in float32": ", ".join(kept)} if kept else {}),
            **({"kernels that are missing": ", ".join(self.missing)} if self.missing else {}),
        }

    def _read(self, shapes: Shapes) -> Graph:
        try:
            return fuse(import_onnx(self._file, dict(shapes)))
        except (ProgramError, OptionError) as error:
            # Whether it is broken for every device is for ONNX Runtime to say.
            raise Unsupported(f"{self._program.name!r}: {error.problem}", fix=error.fix) from error

    def _load(self, claims: Sequence[Claim], load: Load) -> int | None:
        """Load the kernels; the length of the one for attention."""
        products = dict.fromkeys(c.kernel for c in claims if c.node.op != "Attention")
        for name in products:
            self._try(name, load)
        needed = [int(c.kernel.rsplit("_", 1)[1]) for c in claims if c.node.op == "Attention"]
        length = None
        if needed:
            for length in (max(needed), *(other for other in _LENGTHS if other > max(needed))):
                if self._try(f"attention_i8_exact_{length}", load):
                    # A longer one does too.
                    for name in [name for name in self.missing if name.startswith("attention_i8_exact_")]:
                        del self.missing[name]
                    break
            else:
                length = None
                best = f"attention_i8_exact_{max(needed)}"
                self.missing = {n: why for n, why in self.missing.items() if n in products or n == best}
        if not self._kernels:
            raise Unsupported(
                f"{self._program.name!r} needs kernels that are not there: {', '.join(self.missing)}",
                fix=f"{next(iter(self.missing.values()))}",
            )
        return length

    def _try(self, name: str, load: Load) -> bool:
        try:
            self._kernels[name] = load(name)
        except Unsupported as error:
            self.missing[name] = error.fix or error.problem
            return False
        except ProgramError as error:
            self.missing[name] = error.problem
            return False
        return True

    def _check_share(self, graph: Graph) -> None:
        # What the user wants in float counts as if it were on the NPU.
        possible = [
            claim
            for claim in claims_of(graph, self._planner.length)
            if claim.kernel in self._kernels or self._precision.keeps(claim.node.name)
        ]
        share = self._share(graph, {claim.node.output: claim for claim in possible})
        if share < LEAST_SHARE:
            missing = f"; kernels that are missing: {', '.join(self.missing)}" if self.missing else ""
            raise Unsupported(
                f"the NPU would do {share:.0%} of the operations of {self._program.name!r}, "
                f"and the CPU alone is quicker below {LEAST_SHARE:.0%}{missing}",
                fix=next(iter(self.missing.values()), ""),
            )

    def _share(self, graph: Graph, claimed: Mapping[str, Claim]) -> float:
        flops = {
            node.output: op_of(node).flops(node, graph.input_types(node), graph.types[node.output])
            for node in graph.nodes
        }
        return sum(flops[output] for output in claimed) / max(1, sum(flops.values()))


def load_onnx(program: Program, load: Load, values: Mapping[str, Any], details: Mapping[str, Any]) -> GraphExecutable:
    """An ONNX program as an executable.

    Args:
        program: With an `onnx` artifact.
        load: Gives kernels.
        values: Of the backend's options.
        details: What is known beside.

    Raises:
        Unsupported: The NPU has nothing to do in it, or no kernel for that.
        OptionError: An option that does not fit.
        BackendError: A kernel cannot be loaded now.
    """
    made = OnnxOnNpu(program, load, precision_of(values), values["threads"])
    try:
        executable = GraphExecutable(
            made.plan, made.close, min_cosine=MIN_COSINE, details={**made.describe(), **_told(values), **details}
        )
        executable.prepare(made.shapes)
    except BaseException:
        made.close()
        raise
    return executable


def precision_of(values: Mapping[str, Any]) -> Precision:
    """How floats become int8, from the backend's options.

    Raises:
        OptionError: The statistics cannot be read, or are missing where smoothing needs them.
    """
    patterns = tuple(values["keep_float"] or ())
    largest = read_statistics(Path(values["statistics"])) if values["statistics"] else {}
    return Precision(
        bits=values["activation_bits"],
        keeps=lambda name: any(fnmatchcase(name, pattern) for pattern in patterns),
        alpha=None if values["smoothing"] == "off" else ALPHA,
        largest=largest,
    )


def read_statistics(path: Path) -> dict[str, Floats]:
    """The largest activations of samples, as `hetero_xrt.fidelity` writes them: an `.npz` of a vector for each product.

    Raises:
        OptionError: It cannot be read.
    """
    try:
        with np.load(path) as file:
            return {name: np.asarray(file[name], np.float32) for name in file.files}
    except (OSError, ValueError) as error:
        raise OptionError(
            f"the option statistics names {str(path)!r}, which cannot be read: {error}",
            fix="write it with benchmarks/xrt_encoder.py --statistics, or leave the option out",
        ) from error


def _told(values: Mapping[str, Any]) -> dict[str, Any]:
    bits = values["activation_bits"]
    activations = "int8 a token" if bits == 8 else "int16 a token, as two int8"
    return {"quantisation": f"weights int8 a channel, activations {activations}; attention int8"}
