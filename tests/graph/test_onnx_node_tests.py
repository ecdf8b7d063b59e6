"""ONNX's own tests of its operators: each whose operators hetero imports passes, or is refused for a known reason."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pytest

from hetero.errors import Unsupported
from hetero.graph import evaluate, import_onnx
from hetero.graph.onnx_ops import RULES

# What a graph of concrete shapes, one output a node and numpy's dtypes cannot hold.
_REFUSALS = (
    r"element type (BFLOAT16|FLOAT4|FLOAT8|INT2|INT4|UINT2|UINT4|STRING)",
    r"^(BatchNormalization|Dropout|LayerNormalization|MaxPool) .* behind the first is not supported",
    r"^Dropout .* is in training mode",
    r"^(If|Range) .* must be constant",
    r"^SpaceToDepth .* the mode CRD",
    r"^Einsum .* without diagonals",
    r"^Resize .*(tf_crop_and_resize|corners aligned)",
    r"is no tensor",
    r"is of opset 1,",
)


def _cases() -> Sequence[Any]:
    with warnings.catch_warnings():
        # Making the cases overflows and divides by zero, on purpose.
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        return [case for case in collect_testcases(None) if case.model is not None]


def _array(value: Any) -> np.ndarray[Any, Any]:
    return onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)


def _answers(model: onnx.ModelProto, given: Mapping[str, np.ndarray[Any, Any]]) -> Mapping[str, np.ndarray[Any, Any]]:
    """The outputs; inputs that shapes depend on are made constants when it does not go without."""
    shapes = {name: array.shape for name, array in given.items()}
    try:
        graph = import_onnx(model, shapes)
    except Unsupported as error:
        if "must be constant" not in str(error):
            raise
        all_of_them = model.graph.node[0].op_type in ("ConstantOfShape", "Range")
        bound = dict(list(given.items())[0 if all_of_them else 1 :])
        graph = import_onnx(model, {name: shape for name, shape in shapes.items() if name not in bound}, bound)
    graph.verify()
    return evaluate(graph, {name: given[name] for name in graph.inputs})


def _difference(case: Any, inputs: Sequence[Any], outputs: Sequence[Any]) -> str:
    names = [value.name for value in case.model.graph.input]
    got = _answers(case.model, {name: _array(value) for name, value in zip(names, inputs, strict=True)})
    for output, value in zip(case.model.graph.output, outputs, strict=True):
        array, expected = got[output.name], _array(value)
        if array.dtype != expected.dtype or array.shape != expected.shape:
            return f"{array.dtype}{array.shape}, expected {expected.dtype}{expected.shape}"
        # The expected values of half precision were rounded after each step in some cases, once in others.
        tolerance = max(case.rtol, 2e-3) if array.dtype == np.float16 else case.rtol
        if not np.allclose(array, expected, rtol=tolerance, atol=case.atol, equal_nan=array.dtype.kind == "f"):
            return f"off by {np.max(np.abs(array.astype(np.float64) - expected.astype(np.float64)))}"
    return ""


def test_onnx_s_own_tests_of_every_imported_operator_pass(capsys: pytest.CaptureFixture[str]) -> None:
    failures, counts = [], Counter[str]()
    for case in _cases():
        if not {node.op_type for node in case.model.graph.node} <= {*RULES, "If"}:
            counts["of operators that are not imported"] += 1
            continue
        for inputs, outputs in case.data_sets:
            try:
                wrong = _difference(case, inputs, outputs)
            except Unsupported as error:
                counts["refused for a known reason"] += 1
                if not any(re.search(reason, str(error)) for reason in _REFUSALS):
                    failures.append(f"{case.name}: {error}")
                continue
            counts["passed"] += not wrong
            if wrong:
                failures.append(f"{case.name}: {wrong}")
    with capsys.disabled():
        told = ", ".join(f"{count} {what}" for what, count in counts.items())
        print(f"\nONNX {onnx.__version__}'s tests: {told}")  # noqa: T201
    assert not failures, "\n".join(failures)
    # 1101 with onnx 1.23; far fewer would mean that the cases were not found, or are refused.
    assert counts["passed"] > 1050
