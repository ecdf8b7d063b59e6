"""The comparison with ONNX Runtime finds what is wrong, and reports and manifests come back as they were written."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from hetero.bundle import open_bundle
from hetero.compiling.manifest import manifest_text
from hetero.compiling.report import CompileReport, LayerLoss, OutputError, output_error, worst_of
from hetero.errors import BundleError
from tests import models

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FLOATS = arrays.arrays(np.float32, 6, elements=st.floats(-1e6, 1e6, width=32))


@given(FLOATS)
def test_an_output_agrees_with_itself(array: Any) -> None:
    error = output_error("y", array, array)
    assert error.cosine == pytest.approx(1)
    assert error.max_abs_error == 0


@given(FLOATS, FLOATS)
def test_the_cosine_is_that_of_the_angle_and_the_error_the_greatest_difference(a: Any, b: Any) -> None:
    error = output_error("y", a, b)
    x, y = a.astype(float), b.astype(float)
    assert error.max_abs_error == np.abs(x - y).max()
    if np.linalg.norm(x) * np.linalg.norm(y) > 1e-20:
        assert error.cosine == pytest.approx(x @ y / np.linalg.norm(x) / np.linalg.norm(y), abs=1e-9)


def test_opposite_and_lost_outputs_are_as_far_off_as_can_be() -> None:
    one = np.float32([1, 2, 3])
    assert output_error("y", -one, one).cosine == pytest.approx(-1)
    assert output_error("y", 0 * one, one).cosine == 0
    assert output_error("y", 0 * one, 0 * one).cosine == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_worse_than_any(bad: float) -> None:
    right = np.float32([1, 2, 3])
    wrong = np.float32([1, 2, bad])
    error = output_error("y", wrong, right)
    assert math.isnan(error.cosine)
    assert math.isnan(worst_of([output_error("y", right, right), error]).cosine)
    assert output_error("y", wrong, wrong).cosine == pytest.approx(1), "where ONNX Runtime has it too it is right"


def report(*cosines: float) -> CompileReport:
    return CompileReport(
        "rk3588",
        "rknn",
        "m.rknn",
        "toolkit 1",
        "int8",
        {"x": (1, 8), "s": ()},
        tuple(OutputError(f"y{place}", cosine, 0.5, 2.0) for place, cosine in enumerate(cosines)),
        4,
        "random inputs",
        (LayerLoss("[Conv] a", 0.9, 0.8),),
        ("a note",),
        1.5,
    )


def test_a_report_is_as_good_as_its_worst_output() -> None:
    assert report(0.999, 0.98).cosine == 0.98
    assert report(0.999, 0.98).reaches(0.98)
    assert not report(0.999, 0.98).reaches(0.99)
    assert not report(0.999, math.nan).reaches(0.0)


def test_a_report_comes_back_from_json() -> None:
    for one in (report(0.5, 1.0), report()):
        assert CompileReport.from_dict(json.loads(json.dumps(one.to_dict()))) == one
    assert math.isnan(CompileReport.from_dict(json.loads(json.dumps(report(math.nan).to_dict()))).cosine)


KEYS = st.text(min_size=1, max_size=8)
VALUES = st.recursive(
    st.booleans() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(KEYS, st.dictionaries(KEYS, VALUES, max_size=4), max_size=3),
    st.lists(st.dictionaries(KEYS, VALUES)),
)
def test_any_manifest_is_read_as_it_was_written(tables: Any, entries: Any) -> None:
    content = {**tables, "artifact": entries} if entries else {**tables}
    content = {key: value for key, value in content.items() if key != "artifact" or value is entries}
    assert tomllib.loads(manifest_text(content)) == content


def bundle(folder: Path, artifact: str) -> Path:
    models.dynamic(folder / "m.onnx")
    (folder / "m.rknn").write_bytes(b"RKNN")
    (folder / "m.json").write_text("{}")
    (folder / "hetero.toml").write_text(
        f'[program]\nformat = 1\n[[artifact]]\nkind = "onnx"\npath = "m.onnx"\n'
        f'[[artifact]]\nkind = "rknn"\npath = "m.rknn"\ntarget = "rk3588"\n{artifact}\n'
    )
    return folder


def test_a_bundle_tells_the_shapes_and_the_report_of_an_artifact(tmp_path: Path) -> None:
    artifact = open_bundle(bundle(tmp_path, 'shapes = { x = [2, 8] }\nreport = "m.json"')).artifact("rknn")
    assert artifact.shapes == {"x": (2, 8)}
    assert artifact.report == tmp_path / "m.json"
    assert artifact.takes({"x": (2, 8)})
    assert not artifact.takes({"x": (2, 9)})
    assert open_bundle(bundle(tmp_path, "")).artifact("rknn").takes({"x": (7, 7)}), "nobody says otherwise"


@pytest.mark.parametrize(
    ("artifact", "says"),
    [
        ("shapes = { x = 3 }", "shapes.x is 3, expected a list of sizes"),
        ('shapes = { x = ["n", 8] }', "expected a list of sizes"),
        ("shapes = { z = [1, 8] }", "the inputs are"),
        ("shapes = { x = [1] }", "does not fit"),
        ('report = "../m.json"', "outside the folder"),
        ("shape = { x = [1, 8] }", "did you mean 'shapes'"),
    ],
)
def test_wrong_shapes_and_reports_are_refused(tmp_path: Path, artifact: str, says: str) -> None:
    with pytest.raises(BundleError) as caught:
        open_bundle(bundle(tmp_path, artifact))
    assert says in str(caught.value)
