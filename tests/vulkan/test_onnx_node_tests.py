"""ONNX's own tests of its operators on the device: every one of which it claims all nodes passes."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pytest

from hetero.errors import HeteroError, Unsupported
from hetero.graph import import_onnx
from hetero.graph.ir import Graph
from hetero.graph.onnx_ops import RULES
from hetero.graph.passes import fuse
from hetero.tensors import Array
from hetero_vulkan.device import VulkanDevice
from hetero_vulkan.nodes import LOWERS, claims
from hetero_vulkan.nodes.elementwise import FUSED
from hetero_vulkan.plan import Plan
from hetero_vulkan.weights import Weights

TIMEOUT = 60.0

# Its nodes round 1 + exp(x) to a multiple of 1.2e-7 and multiply what is left by up to 10: an exp that is off by its
# last bit, as Vulkan and numpy's own versions allow, moves the answer by so much.
# Without it being expanded, that is so of tanh.
ILL_CONDITIONED = {"test_mish": 1.3e-6, "test_mish_expanded": 1.3e-6}

# Of float16: the cases' answers were rounded to it after each step, the device's only where values are stored.
HALF_STEPS = 2.0**-10

# What is not computed at all, or only for some types and shapes: each reason is one that the device gives.
REASONS = (
    "no shader does it",
    "is not computed on the device",
    "is not made",
    "an input is empty",
    "over 3 dimensions",
    "padding in the mode",
    "its indices are computed",
    "that is broadcast to",
    "dimensions",
)


TABLE = "HETERO_TEST_ONNX_TABLE"
"""Set, the counts of each operator are printed."""

OF_SUBGROUPS = frozenset(
    ("Attention", "Conv", "Gemm", "LayerNormalization", "LogSoftmax", "MatMul", "ReduceMean", "ReduceSum", "Softmax")
)
"""Operators whose shaders depend on the size of subgroups, and some that always come with them."""


def _cases() -> Sequence[Any]:
    with warnings.catch_warnings():
        # Making the cases overflows and divides by zero, on purpose.
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        return [case for case in collect_testcases(None) if case.model is not None]


def _array(value: Any) -> Array:
    return onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)


def _imported(model: onnx.ModelProto, given: Mapping[str, Array]) -> Graph:
    """The graph; inputs that shapes depend on are made constants when it does not go without."""
    shapes = {name: array.shape for name, array in given.items()}
    try:
        return import_onnx(model, shapes)
    except Unsupported as error:
        if "must be constant" not in str(error):
            raise
        all_of_them = model.graph.node[0].op_type in ("ConstantOfShape", "Range")
        bound = dict(list(given.items())[0 if all_of_them else 1 :])
        return import_onnx(model, {name: shape for name, shape in shapes.items() if name not in bound}, bound)


@pytest.fixture
def weights(device: VulkanDevice) -> Iterator[Weights]:
    weights = Weights(device, TIMEOUT)
    yield weights
    weights.close()


def _difference(case: Any, answers: Mapping[str, Array], outputs: Sequence[Any]) -> str:
    for output, value in zip(case.model.graph.output, outputs, strict=True):
        array, expected = answers[output.name], _array(value)
        if array.dtype != expected.dtype or array.shape != expected.shape:
            return f"{array.dtype}{array.shape}, expected {expected.dtype}{expected.shape}"
        half = array.dtype == np.float16
        atol = max(ILL_CONDITIONED.get(case.name, case.atol), HALF_STEPS if half else 0)
        rtol = max(case.rtol, HALF_STEPS if half else 0)
        if not np.allclose(array, expected, rtol=rtol, atol=atol, equal_nan=array.dtype.kind == "f"):
            return f"off by {np.max(np.abs(array.astype(np.float64) - expected.astype(np.float64)))}"
    return ""


class Outcome:
    """What became of ONNX's cases on a device.

    Attributes:
        passed: By operator.
        not_claimed: Likewise.
        not_imported: Likewise.
        failures: What went wrong, by case.
        reasons: Why something is not claimed.
        ops: Of the graph, that ran.
    """

    def __init__(self) -> None:
        self.passed, self.not_claimed, self.not_imported = (Counter[str]() for _ in range(3))
        self.failures: list[str] = []
        self.reasons: Counter[str] = Counter()
        self.ops: set[str] = set()

    def __str__(self) -> str:
        counts = (sum(each.values()) for each in (self.passed, self.not_claimed, self.not_imported))
        told = "{} passed, {} not claimed, {} not imported".format(*counts)
        return f"{told}; {len(self.ops)} of {len(LOWERS)} ops"

    @property
    def table(self) -> str:
        """Counts by operator, of those of which some case is not claimed first."""
        names = sorted({*self.passed, *self.not_claimed, *self.not_imported})
        names.sort(key=lambda name: -self.not_claimed[name])
        lines = [f"{'':24}{'passed':>8}{'not claimed':>13}{'not imported':>14}"]
        for name in names:
            counts = (self.passed[name], self.not_claimed[name], self.not_imported[name])
            lines.append("{:24}{:8}{:13}{:14}".format(name, *counts))
        return "\n".join([*lines, *(f"{count:4} nodes: {why}" for why, count in self.reasons.most_common(25))])


def _run(device: VulkanDevice, weights: Weights, fused: bool, among: frozenset[str] | None = None) -> Outcome:
    """Run the cases whose operators can be imported; only those with an operator `among` these, when given."""
    outcome = Outcome()
    for case in _cases():
        present = {node.op_type for node in case.model.graph.node}
        if not present <= {*RULES, "If"} or (among is not None and not present & among):
            continue
        name = case.name.split("_")[1] if len(present) > 1 else present.pop()
        for inputs, outputs in case.data_sets:
            names = [value.name for value in case.model.graph.input]
            given = {name: _array(value) for name, value in zip(names, inputs, strict=True)}
            try:
                graph = _imported(case.model, given)
            except Unsupported:
                outcome.not_imported[name] += 1
                continue
            graph = fuse(graph, activations=FUSED, residuals=True) if fused else graph
            claim = claims(device, graph)
            refused = [reason for reason in map(claim, graph.nodes) if reason is not True]
            if refused:
                outcome.not_claimed[name] += 1
                outcome.reasons.update(map(str, refused))
            elif graph.nodes:
                wrong = _wrong(device, weights, case, graph, given, outputs)
                outcome.passed[name] += not wrong
                outcome.ops |= {node.op for node in graph.nodes}
                outcome.failures += [f"{case.name}: {wrong}"] if wrong else []
    return outcome


def _wrong(
    device: VulkanDevice, weights: Weights, case: Any, graph: Graph, given: Mapping[str, Array], outputs: Sequence[Any]
) -> str:
    try:
        plan = Plan(device, graph, weights)
        # Outputs that are inputs or constants are no work of the device's.
        answers = plan.run({name: given[name] for name in graph.inputs}, {}, TIMEOUT)
        plan.close()
    except HeteroError as error:
        return repr(error)
    return _difference(case, answers, outputs)


@pytest.mark.parametrize("fused", [False, True])
def test_onnx_s_own_tests_of_what_is_claimed_pass(
    device: VulkanDevice, weights: Weights, fused: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = _run(device, weights, fused)
    with capsys.disabled():
        print(f"\nONNX {onnx.__version__} on {device.physical.name}: {outcome}")  # noqa: T201
        if os.environ.get(TABLE):
            print(outcome.table)  # noqa: T201
    assert not outcome.failures, "\n".join(outcome.failures)
    unknown = [reason for reason in outcome.reasons if not any(known in reason for known in REASONS)]
    assert not unknown
    # 967 of 1318 with onnx 1.23; far fewer would mean that the cases were not found, or are refused.
    assert sum(outcome.passed.values()) > 930


def test_onnx_s_own_tests_pass_where_shaders_depend_on_the_size_of_subgroups(
    device: VulkanDevice, weights: Weights
) -> None:
    outcome = _run(device, weights, fused=True, among=OF_SUBGROUPS)
    assert not outcome.failures, "\n".join(outcome.failures)
    assert sum(outcome.passed.values()) > 100
