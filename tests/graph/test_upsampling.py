"""ConvTranspose, Resize and what is made of other ops: ONNX Runtime's answers, computed in numpy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from hetero.errors import Unsupported
from hetero.graph import evaluate, import_onnx
from hetero.graph.passes import fuse
from hetero.tensors import Array

ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
RANDOM = np.random.default_rng(3)


def model(op: str, x: Array, known: Mapping[str, Array], opset: int = 18, **attributes: Any) -> onnx.ModelProto:
    """One node, whose inputs behind the first are known; a name of nothing stands for one that is left out."""
    made = helper.make_node(op, ["x", *(name if array is not None else "" for name, array in known.items())], ["y"])
    made.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    graph = helper.make_graph(
        [made],
        "one",
        [helper.make_tensor_value_info("x", kind, x.shape)],
        [helper.make_tensor_value_info("y", kind, None)],
        [numpy_helper.from_array(array, name) for name, array in known.items() if array is not None],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def compare(proto: onnx.ModelProto, x: Array, bound: float = 1e-5) -> None:
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"x": x})
    for graph in (import_onnx(proto), fuse(import_onnx(proto))):
        answer = evaluate(graph, {"x": x})["y"]
        assert answer.shape == expected.shape
        np.testing.assert_allclose(answer, expected, rtol=0, atol=bound * max(1.0, float(np.abs(expected).max())))


def normal(*shape: int) -> Array:
    return RANDOM.standard_normal(shape).astype(np.float32)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_transposed_convolutions_are_those_of_onnx_runtime(data: st.DataObject) -> None:
    rank = data.draw(st.sampled_from([1, 2, 2]))
    several = st.tuples(*[st.integers(1, 4)] * rank)
    kernel, strides = data.draw(several), data.draw(several)
    dilations = data.draw(st.tuples(*[st.integers(1, 2)] * rank))
    group, channels, each = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3)))
    sizes = data.draw(st.tuples(*[st.integers(1, 6)] * rank))
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    pads = [data.draw(st.integers(0, r - 1)) for r in (*reach, *reach)]
    extra = [data.draw(st.integers(0, stride - 1)) for stride in strides]
    whole = [(n - 1) * s + r + e for n, s, r, e in zip(sizes, strides, reach, extra, strict=True)]
    if any(w - pads[i] - pads[rank + i] < 1 for i, w in enumerate(whole)):
        pads = [0] * 2 * rank
    x, weight = normal(2, group * channels, *sizes), normal(group * channels, each, *kernel)
    known = {"w": weight} | ({"b": normal(group * each)} if data.draw(st.booleans()) else {})
    attributes = {"strides": strides, "dilations": dilations, "pads": pads, "output_padding": extra, "group": group}
    compare(model("ConvTranspose", x, known, **attributes), x)


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_transposed_convolutions_pad_themselves(mode: str) -> None:
    x = normal(1, 2, 5, 4)
    compare(model("ConvTranspose", x, {"w": normal(2, 3, 3, 4)}, auto_pad=mode, strides=[2, 3]), x)


def test_a_transposed_convolution_of_known_weights_is_a_convolution_and_moves() -> None:
    x = normal(1, 4, 5, 6)
    proto = model("ConvTranspose", x, {"w": normal(4, 3, 2, 2), "b": normal(3)}, strides=[2, 2])
    assert fuse(import_onnx(proto)).count() == {"Reshape": 2, "Conv": 1, "Transpose": 1}


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("where", ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"])
@pytest.mark.parametrize("sizes", [(2, 3, 11, 10), (2, 3, 3, 4), (2, 3, 10, 7), (2, 3, 1, 9)])
def test_images_are_resized_as_by_onnx_runtime(mode: str, where: str, sizes: tuple[int, ...]) -> None:
    x = normal(2, 3, 5, 7)
    attributes = {"mode": mode, "coordinate_transformation_mode": where}
    known = {"roi": None, "scales": None, "sizes": np.array(sizes)}
    compare(model("Resize", x, known, **attributes), x)  # type: ignore[arg-type]


@pytest.mark.parametrize("nearest", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
def test_signals_are_scaled_to_the_nearest(nearest: str) -> None:
    x = normal(1, 2, 9)
    known = {"roi": None, "scales": np.array([1, 1, 1.7], np.float32)}
    compare(model("Resize", x, known, nearest_mode=nearest), x)  # type: ignore[arg-type]
    compare(model("Resize", x, known, mode="linear"), x)  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_the_old_forms_are_those_of_their_opsets(mode: str) -> None:
    x, scales = normal(1, 2, 4, 5), np.array([1, 1, 2, 3], np.float32)
    compare(model("Upsample", x, {"s": scales}, 9, mode=mode), x)
    compare(model("Upsample", x, {}, 7, mode=mode, scales=scales.tolist()), x)
    compare(model("Resize", x, {"s": scales}, 10, mode=mode), x)


def test_what_runtimes_do_not_agree_on_is_refused_by_name() -> None:
    x = normal(1, 1, 4, 4)
    known = {"roi": None, "scales": np.array([1, 1, 0.6, 0.6], np.float32)}
    with pytest.raises(Unsupported, match=r"Resize 'y': 4 elements times 0\.6.* corners aligned"):
        import_onnx(model("Resize", x, known, mode="linear", coordinate_transformation_mode="align_corners"))  # type: ignore[arg-type]
    known = {"roi": np.zeros(8, np.float32), "scales": np.array([1, 1, 2, 2], np.float32)}
    with pytest.raises(Unsupported, match="tf_crop_and_resize"):
        import_onnx(model("Resize", x, known, coordinate_transformation_mode="tf_crop_and_resize"))


def test_normalisations_of_images_are_those_of_onnx_runtime() -> None:
    x = normal(2, 6, 5, 3)
    for affine in (lambda n: (normal(n), normal(n)), lambda n: (np.ones(n, np.float32), np.zeros(n, np.float32))):
        scale, bias = affine(6)
        compare(model("InstanceNormalization", x, {"s": scale, "b": bias}), x)
        compare(model("GroupNormalization", x, {"s": scale, "b": bias}, 21, num_groups=3), x)
        scale, bias = affine(3)
        compare(model("GroupNormalization", x, {"s": scale, "b": bias}, 18, num_groups=3), x)
    for p in (1, 2):
        compare(model("LpNormalization", x, {}, axis=1, p=p), x)


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("bhqd,bhkd->bhqk", [(2, 3, 4, 5), (2, 3, 6, 5)]),
        ("bqhd,bkhd->bhqk", [(2, 4, 3, 5), (2, 6, 3, 5)]),
        ("...ij,jk->...ik", [(2, 3, 4), (4, 5)]),
        ("bijc,hc->bhij", [(2, 3, 4, 5), (6, 5)]),
        ("i,j->ij", [(3,), (4,)]),
        ("ij,ik", [(3, 4), (3, 5)]),
        ("abc,cd->d", [(2, 3, 4), (4, 5)]),
        ("bij->bji", [(2, 3, 4)]),
    ],
)
def test_einsums_of_products_are_those_of_onnx_runtime(equation: str, shapes: list[tuple[int, ...]]) -> None:
    x, *others = (normal(*shape) for shape in shapes)
    compare(model("Einsum", x, {f"x{i}": array for i, array in enumerate(others)}, equation=equation), x)
