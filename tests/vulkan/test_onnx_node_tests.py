"""ONNX's own tests of its operators on the device: every one of which it claims all nodes passes."""

from __future__ import annotations

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
ILL_CONDITIONED = {"test_mish_expanded": 1.3e-6}

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


@pytest.mark.parametrize("fused", [False, True])
def test_onnx_s_own_tests_of_what_is_claimed_pass(
    device: VulkanDevice, weights: Weights, fused: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    failures, counts, reasons, ops = [], Counter[str](), Counter[str](), set[str]()
    for case in _cases():
        if not {node.op_type for node in case.model.graph.node} <= {*RULES, "If"}:
            continue
        for inputs, outputs in case.data_sets:
            names = [value.name for value in case.model.graph.input]
            given = {name: _array(value) for name, value in zip(names, inputs, strict=True)}
            try:
                graph = _imported(case.model, given)
            except Unsupported:
                counts["not imported"] += 1
                continue
            graph = fuse(graph, activations=FUSED, residuals=True) if fused else graph
            claim = claims(device, graph)
            refused = [reason for reason in map(claim, graph.nodes) if reason is not True]
            if refused or not graph.nodes:
                counts["not claimed" if refused else "without a node"] += 1
                reasons.update(map(str, refused))
                continue
            try:
                plan = Plan(device, graph, weights)
                # Outputs that are inputs or constants are no work of the device's.
                answers = plan.run({name: given[name] for name in graph.inputs}, {}, TIMEOUT)
                plan.close()
                wrong = _difference(case, answers, outputs)
            except HeteroError as error:
                wrong = repr(error)
            counts["passed"] += not wrong
            ops |= {node.op for node in graph.nodes}
            if wrong:
                failures.append(f"{case.name}: {wrong}")
    with capsys.disabled():
        told = ", ".join(f"{count} {what}" for what, count in counts.items())
        print(f"\nONNX {onnx.__version__} on {device.physical.name}: {told}; {len(ops)} of {len(LOWERS)} ops")  # noqa: T201
    assert not failures, "\n".join(failures)
    unknown = [reason for reason in reasons if not any(known in reason for known in REASONS)]
    assert not unknown
    # 623 of 900 with onnx 1.23; far fewer would mean that the cases were not found, or are refused.
    assert counts["passed"] > 600
