"""Small networks with random weights, in the structure in which exporters write them: encoders, decoders, CNNs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests.models import save, tensor


class Network:
    """Nodes and weights, added one after the other; each method gives the name of what it adds."""

    def __init__(self, seed: int = 0) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._random = np.random.default_rng(seed)

    def add(self, op: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        output = output or f"/{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [output], output, **attributes))
        return output

    def known(self, value: Any, dtype: Any = np.float32) -> str:
        name = f"onnx::{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def random(self, *shape: int, scale: float | None = None, around: float = 0.0) -> str:
        fan_in = int(np.prod(shape[1:])) if len(shape) > 2 else shape[0]
        scale = 1 / np.sqrt(fan_in) if scale is None else scale
        return self.known(around + scale * self._random.standard_normal(shape))

    def positive(self, count: int) -> str:
        return self.known(self._random.uniform(0.5, 1.5, count))

    def linear(self, x: str, k: int, n: int, *, bias: bool = True) -> str:
        y = self.add("MatMul", x, self.random(k, n))
        return self.add("Add", self.random(n, scale=0.1), y) if bias else y

    def layer_norm(self, x: str, width: int, *, fused: bool) -> str:
        scale, bias = self.random(width, scale=0.1, around=1.0), self.random(width, scale=0.1)
        if fused:
            return self.add("LayerNormalization", x, scale, bias, axis=-1, epsilon=1e-12)
        centred = self.add("Sub", x, self.add("ReduceMean", x, axes=[-1]))
        variance = self.add("ReduceMean", self.add("Pow", centred, self.known(2.0)), axes=[-1])
        root = self.add("Sqrt", self.add("Add", variance, self.known(1e-12)))
        return self.add("Add", self.add("Mul", self.add("Div", centred, root), scale), bias)

    def gelu(self, x: str) -> str:
        error = self.add("Erf", self.add("Div", x, self.known(np.sqrt(2.0))))
        return self.add("Mul", self.add("Mul", x, self.add("Add", error, self.known(1.0))), self.known(0.5))

    def heads(self, x: str, heads: int, size: int, order: Sequence[int] = (0, 2, 1, 3)) -> str:
        apart = self.add("Reshape", x, self.known([0, 0, heads, size], np.int64))
        return self.add("Transpose", apart, perm=order)

    def attend(self, q: str, k_transposed: str, v: str, mask: str, size: int, width: int) -> str:
        scores = self.add("Div", self.add("MatMul", q, k_transposed), self.known(np.sqrt(size)))
        scores = self.add("Add", scores, mask) if mask else scores
        mixed = self.add("MatMul", self.add("Softmax", scores, axis=-1), v)
        together = self.add("Transpose", mixed, perm=[0, 2, 1, 3])
        return self.add("Reshape", together, self.known([0, 0, width], np.int64))

    def conv(self, x: str, out: int, each: int, *kernel: int, bias: bool = False, **attributes: Any) -> str:
        inputs = [x, self.random(out, each, *kernel), *([self.random(out, scale=0.1)] if bias else [])]
        return self.add("Conv", *inputs, kernel_shape=kernel, **attributes)

    def batch_norm(self, x: str, count: int) -> str:
        return self.add(
            "BatchNormalization",
            x,
            self.positive(count),
            self.random(count, scale=0.1),
            self.random(count, scale=0.1),
            self.positive(count),
        )

    def save(self, path: Path, inputs: Sequence[Any], outputs: Sequence[Any]) -> Path:
        save(path, self.nodes, inputs, outputs, self.weights)
        assert path.stat().st_size < 300_000
        return path


def bert(path: Path, *, fused: bool = False, roberta: bool = False, layers: int = 2, width: int = 32) -> Path:
    """An encoder of text as `transformers` exports it: `input_ids` and `attention_mask` to `hidden` and `pooled`.

    Args:
        path: Where it is written.
        fused: Layer normalisation is one operator (opset 17), and the mask is made by `Where`; else of many.
        roberta: Positions are counted from the ids, leaving padding (1) out; else they are known.
        layers: How many.
        width: Of the values; heads have 8.
    """
    net, heads, size, longest, words = Network(), width // 8, 8, 40, 60
    ids = net.add("Gather", net.random(words, width, scale=1.0), "input_ids")
    if roberta:
        there = net.add("Not", net.add("Equal", "input_ids", net.known(1, np.int64)))
        counted = net.add("CumSum", net.add("Cast", there, to=6), net.known(1, np.int64))
        places = net.add("Cast", net.add("Mul", counted, net.add("Cast", there, to=6)), to=7)
        places = net.add("Add", places, net.known(1, np.int64))
    else:
        length = net.add("Gather", net.add("Shape", "input_ids"), net.known(1, np.int64), axis=0)
        end = net.add("Unsqueeze", length, net.known([0], np.int64))
        every = net.known(np.arange(longest)[np.newaxis], np.int64)
        places = net.add("Slice", every, net.known([0], np.int64), end, net.known([1], np.int64))
    x = net.add("Add", ids, net.add("Gather", net.random(longest + 2, width, scale=1.0), places))
    x = net.layer_norm(x, width, fused=fused)
    seen = net.add("Unsqueeze", "attention_mask", net.known([1], np.int64))
    seen = net.add("Unsqueeze", seen, net.known([2], np.int64))
    lowest = float(np.finfo(np.float32).min)
    if fused:
        hidden = net.add("Equal", seen, net.known(0, np.int64))
        mask = net.add("Where", hidden, net.known(lowest), net.known(0.0))
    else:
        mask = net.add("Mul", net.add("Sub", net.known(1.0), net.add("Cast", seen, to=1)), net.known(lowest))
    for _ in range(layers):
        q, v = (net.heads(net.linear(x, width, width), heads, size) for _ in range(2))
        k = net.heads(net.linear(x, width, width), heads, size, (0, 2, 3, 1))
        mixed = net.linear(net.attend(q, k, v, mask, size, width), width, width)
        x = net.layer_norm(net.add("Add", mixed, x), width, fused=fused)
        inner = net.gelu(net.linear(x, width, 2 * width))
        x = net.layer_norm(net.add("Add", net.linear(inner, 2 * width, width), x), width, fused=fused)
    net.add("Identity", x, output="hidden")
    first = net.add("Gather", x, net.known(0, np.int64), axis=1)
    net.add("Tanh", net.add("Gemm", first, net.random(width, width), net.random(width), transB=1), output="pooled")
    shape = ("batch", "length")
    ends = [tensor(name, shape, np.int64) for name in ("input_ids", "attention_mask")]
    return net.save(path, ends, [tensor("hidden", (*shape, width)), tensor("pooled", ("batch", width))])


def decoder(path: Path, *, width: int = 32, words: int = 50, longest: int = 20) -> Path:
    """A step of a decoder as of Whisper: a token, keys and values of those before and of the encoder, to logits."""
    net, heads, size = Network(1), width // 8, 8
    table = net.random(words, width, scale=1.0)
    places = net.add("Add", net.known([[0]], np.int64), "place")
    x = net.add("Add", net.add("Gather", table, "token"), net.add("Gather", net.random(longest, width), places))
    before = net.layer_norm(x, width, fused=False)
    q, new_k, new_v = (net.heads(net.linear(before, width, width, bias=i != 1), heads, size) for i in range(3))
    k = net.add("Concat", "past_k", new_k, axis=2, output="present_k")
    v = net.add("Concat", "past_v", new_v, axis=2, output="present_v")
    mixed = net.attend(q, net.add("Transpose", k, perm=[0, 1, 3, 2]), v, "", size, width)
    x = net.add("Add", x, net.linear(mixed, width, width))
    q = net.heads(net.linear(net.layer_norm(x, width, fused=False), width, width), heads, size)
    mixed = net.attend(q, net.add("Transpose", "cross_k", perm=[0, 1, 3, 2]), "cross_v", "", size, width)
    x = net.add("Add", x, net.linear(mixed, width, width))
    inner = net.gelu(net.linear(net.layer_norm(x, width, fused=False), width, 2 * width))
    x = net.layer_norm(net.add("Add", x, net.linear(inner, 2 * width, width)), width, fused=False)
    net.add("MatMul", x, net.add("Transpose", table, perm=[1, 0]), output="logits")
    net.add("ArgMax", "logits", axis=-1, keepdims=0, output="next")
    past, cross = ("batch", heads, "past", size), ("batch", heads, "audio", size)
    given = [tensor(name, ("batch", 1), np.int64) for name in ("token", "place")]
    given += [tensor("past_k", past), tensor("past_v", past), tensor("cross_k", cross), tensor("cross_v", cross)]
    present = ("batch", heads, "present", size)
    made = [tensor("logits", ("batch", 1, words)), tensor("next", ("batch", 1), np.int64)]
    return net.save(path, given, [*made, tensor("present_k", present), tensor("present_v", present)])


def resnet(path: Path) -> Path:
    """Two blocks with residuals, as torchvision's ResNet is exported without folding: image to logits."""
    net = Network(2)
    x = net.batch_norm(net.conv("image", 8, 3, 7, 7, strides=[2, 2], pads=[3, 3, 3, 3]), 8)
    x = net.add("MaxPool", net.add("Relu", x), kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    channels = 8
    for out, stride in ((8, 1), (16, 2)):
        y = net.conv(x, out, channels, 3, 3, strides=[stride, stride], pads=[1, 1, 1, 1])
        y = net.add("Relu", net.batch_norm(y, out))
        y = net.batch_norm(net.conv(y, out, out, 3, 3, pads=[1, 1, 1, 1]), out)
        if stride > 1:
            x = net.batch_norm(net.conv(x, out, channels, 1, 1, strides=[stride, stride]), out)
        x, channels = net.add("Relu", net.add("Add", y, x)), out
    flat = net.add("Flatten", net.add("GlobalAveragePool", x), axis=1)
    net.add("Gemm", flat, net.random(10, channels), net.random(10), transB=1, output="logits")
    return net.save(path, [tensor("image", ("batch", 3, 32, 32))], [tensor("logits", ("batch", 10))])


def mobilenet(path: Path) -> Path:
    """Depthwise Conv, squeeze and excitation, as tf2onnx writes MobileNet V3: `image` (channels last) to `shares`."""
    net = Network(3)
    x = net.add("Transpose", "image", perm=[0, 3, 1, 2])
    x = net.conv(x, 8, 3, 3, 3, bias=True, strides=[2, 2], auto_pad="SAME_UPPER")
    x = net.add("Clip", x, net.known(0.0), net.known(6.0))
    wide = net.add("HardSwish", net.batch_norm(net.conv(x, 16, 8, 1, 1), 16))
    y = net.conv(wide, 16, 1, 5, 5, bias=True, group=16, strides=[1, 1], pads=[2, 2, 2, 2])
    y = net.add("Mul", y, net.add("HardSigmoid", y, alpha=1 / 6, beta=0.5))
    squeezed = net.add("Relu", net.conv(net.add("GlobalAveragePool", y), 4, 16, 1, 1, bias=True))
    gate = net.add("HardSigmoid", net.conv(squeezed, 16, 4, 1, 1, bias=True), alpha=0.2, beta=0.5)
    x = net.add("Add", x, net.batch_norm(net.conv(net.add("Mul", y, gate), 8, 16, 1, 1), 8))
    x = net.add("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=0)
    flat = net.add("Squeeze", net.add("ReduceMean", x, axes=[2, 3], keepdims=1), net.known([2, 3], np.int64))
    net.add("Softmax", net.linear(flat, 8, 10), axis=-1, output="shares")
    return net.save(path, [tensor("image", ("batch", 30, 22, 3))], [tensor("shares", ("batch", 10))])


def audio(path: Path) -> Path:
    """A signal to log-probabilities of letters, as wav2vec 2 and its like: strided and dilated Conv, then layers."""
    net = Network(4)
    x = net.add("Unsqueeze", "signal", net.known([1], np.int64))
    x = net.gelu(net.batch_norm(net.conv(x, 16, 1, 10, strides=[5]), 16))
    x = net.add("LeakyRelu", net.conv(x, 32, 16, 3, bias=True, strides=[2], pads=[1, 1]), alpha=0.1)
    y = net.conv(x, 32, 16, 3, bias=True, group=2, dilations=[2], pads=[2, 2])
    x = net.add("Add", x, net.add("Mul", y, net.add("Sigmoid", y)))
    x = net.add("AveragePool", x, kernel_shape=[2], strides=[2])
    x = net.layer_norm(net.add("Transpose", x, perm=[0, 2, 1]), 32, fused=True)
    net.add("LogSoftmax", net.linear(x, 32, 12), axis=-1, output="letters")
    return net.save(path, [tensor("signal", ("batch", "samples"))], [tensor("letters", ("batch", "frames", 12))])
