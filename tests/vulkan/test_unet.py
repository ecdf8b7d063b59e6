"""Networks that make images and signals larger again, and pick detections, wholly on the device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hetero.backend import Call
from hetero.errors import InputError
from hetero.tensors import Array
from hetero_vulkan.executable import GraphExecutable
from tests.models import tensor
from tests.vulkan.networks import Network

ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

RANDOM = np.random.default_rng(13)


def unet(path: Path) -> Path:
    """Down and up again with what was there before beside it; every way up that exporters write."""
    net = Network(5)
    x = net.conv("image", 8, 3, 3, 3, bias=True, pads=[1, 1, 1, 1])
    x = net.add("InstanceNormalization", x, net.positive(8), net.random(8, scale=0.1))
    first = net.add("LeakyRelu", x, alpha=0.1)
    x = net.conv(first, 16, 8, 3, 3, bias=True, strides=[2, 2], pads=[1, 1, 1, 1])
    # Group normalisation as torch writes it before opset 21.
    flat = net.add("Reshape", x, net.known([0, 4, -1], np.int64))
    flat = net.add("InstanceNormalization", flat, net.known(np.ones(4)), net.known(np.zeros(4)))
    x = net.add("Reshape", flat, net.add("Shape", x))
    x = net.add("Mul", x, net.known(RANDOM.uniform(0.5, 1.5, (16, 1, 1))))
    second = net.add("PRelu", x, net.known(RANDOM.uniform(0, 0.3, (16, 1, 1))))
    x = net.add("MaxPool", second, kernel_shape=[2, 2], strides=[2, 2])
    x = net.conv(x, 16, 16, 3, 3, bias=True, pads=[1, 1, 1, 1])
    x = net.add("Mul", x, net.add("Tanh", net.add("Softplus", x)))
    up = {"strides": [2, 2], "kernel_shape": [2, 2]}
    x = net.add("ConvTranspose", x, net.random(16, 16, 2, 2, scale=0.2), net.random(16, scale=0.1), **up)
    x = net.add("Concat", x, second, axis=1)
    x = net.add("Resize", x, "", net.known([1, 1, 2, 2]), mode="linear", coordinate_transformation_mode="half_pixel")
    x = net.conv(x, 8, 32, 3, 3, bias=True, pads=[1, 1, 1, 1])
    same = net.add("Resize", first, "", "", net.add("Shape", x), mode="nearest")
    x = net.add("HardSwish", net.add("Add", x, same))
    wide = {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1], "group": 2}
    net.add("ConvTranspose", x, net.random(8, 2, 3, 3, scale=0.2), **wide, output="mask")
    return net.save(path, [tensor("image", ("batch", 3, 20, 28))], [tensor("mask", ("batch", 4, 40, 56))])


def vocoder(path: Path) -> Path:
    """A spectrum to a signal, as of HiFi-GAN: transposed and dilated convolutions."""
    net = Network(6)
    x, channels = net.conv("mel", 32, 20, 7, bias=True, pads=[3, 3]), 32
    for stride in (4, 2):
        x = net.add("LeakyRelu", x, alpha=0.1)
        weight = net.random(channels, channels // 2, 2 * stride, scale=0.1)
        half = {"strides": [stride], "pads": [stride // 2, stride // 2]}
        x = net.add("ConvTranspose", x, weight, net.random(channels // 2, scale=0.1), **half)
        channels //= 2
        y = net.conv(net.add("LeakyRelu", x, alpha=0.1), channels, channels, 3, bias=True, dilations=[3], pads=[3, 3])
        x = net.add("Add", x, y)
    net.add("Tanh", net.conv(x, 1, channels, 7, bias=True, pads=[3, 3]), output="signal")
    return net.save(path, [tensor("mel", ("batch", 20, "frames"))], [tensor("signal", ("batch", 1, "samples"))])


def detector(path: Path) -> Path:
    """The best places of a map, their scores, and their boxes looked up by them."""
    net = Network(7)
    heat = net.add("Sigmoid", net.conv("image", 1, 3, 3, 3, bias=True, pads=[1, 1, 1, 1]))
    boxes = net.conv("image", 4, 3, 1, 1, bias=True)
    heat = net.add("Reshape", heat, net.known([0, -1], np.int64))
    net.nodes.append(_top(net, heat))
    boxes = net.add("Transpose", net.add("Reshape", boxes, net.known([0, 4, -1], np.int64)), perm=[0, 2, 1])
    places = net.add("Unsqueeze", "places", net.known([2], np.int64))
    four = net.add("Expand", places, net.known([1, 1, 4], np.int64))
    net.add("GatherElements", boxes, four, axis=1, output="boxes")
    net.add("OneHot", "kind", net.known(5, np.int64), net.known([0.0, 1.0]), axis=-1, output="kinds")
    written = net.add("Expand", net.known(0.0), net.known([2, 63], np.int64))
    net.add("ScatterElements", written, "places", "scores", axis=1, output="kept")
    given = [tensor("image", (2, 3, 7, 9)), tensor("kind", (6,), np.int64)]
    made = [tensor("scores", (2, 5)), tensor("places", (2, 5), np.int64), tensor("boxes", (2, 5, 4))]
    return net.save(path, given, [*made, tensor("kinds", (6, 5)), tensor("kept", (2, 63))])


def _top(net: Network, heat: str) -> Any:
    from onnx import helper

    return helper.make_node("TopK", [heat, net.known([5], np.int64)], ["scores", "places"], "top", axis=1)


def normal(*shape: int) -> Array:
    return RANDOM.standard_normal(shape, dtype=np.float32)


CASES: dict[str, tuple[Callable[[Path], Path], dict[str, Array]]] = {
    "unet": (unet, {"image": normal(2, 3, 20, 28)}),
    "vocoder": (vocoder, {"mel": normal(1, 20, 13)}),
    "detector": (detector, {"image": normal(2, 3, 7, 9), "kind": np.array([0, 4, -1, 2, -5, 1])}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_network_runs_wholly_on_the_device_in_fp32_and_fp16(
    load: Callable[..., GraphExecutable], tmp_path: Path, name: str
) -> None:
    make, inputs = CASES[name]
    path = make(tmp_path / "model.onnx")
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    expected = dict(zip((output.name for output in session.get_outputs()), session.run(None, inputs), strict=True))
    executable = load(path, inputs)
    assert "100.0% of the operations" in executable.details["on the device"]
    answers = executable.run(inputs, Call(0))
    for output, array in expected.items():
        if array.dtype.kind == "i":
            np.testing.assert_array_equal(answers[output], array)
        else:
            most = float(np.abs(array).max())
            np.testing.assert_allclose(answers[output], array, rtol=0, atol=1e-5 * most, err_msg=output)
    # Half precision may choose other places.
    for precision in () if name == "detector" else ("fp16", "fp16-fp16"):
        answers = load(path, inputs, precision=precision).run(inputs, Call(0))
        for output, array in expected.items():
            a, b = answers[output].ravel().astype(float), array.ravel().astype(float)
            assert a @ b / np.sqrt((a @ a) * (b @ b)) > 0.999


def test_a_place_that_is_not_there_is_the_caller_s_error(load: Callable[..., GraphExecutable], tmp_path: Path) -> None:
    net = Network(8)
    net.add("GatherElements", "x", "places", axis=1, output="y")
    path = net.save(
        tmp_path / "model.onnx", [tensor("x", (2, 3)), tensor("places", (2, 2), np.int64)], [tensor("y", (2, 2))]
    )
    inputs = {"x": normal(2, 3), "places": np.array([[0, -3], [2, 1]])}
    executable = load(path, inputs)
    found = executable.run(inputs, Call(0))["y"]
    np.testing.assert_array_equal(found, np.take_along_axis(inputs["x"], inputs["places"], 1))
    with pytest.raises(InputError, match="from 0 to 3, but the dimension has 3 elements"):
        executable.run({**inputs, "places": np.array([[0, 3], [2, 1]])}, Call(0))
