"""The three graphs of a Whisper model, in ONNX's standard operators only (opset 17).

Architecture: Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision", 2022, section 2.2; a
transformer with layer norms ahead of each block. The decoder keeps time as the first dimension, so that the keys and
values of the tokens so far are a contiguous prefix of one buffer and no step copies them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hetero.whisper.models.checkpoint import UNTIED
from hetero.whisper.models.dims import Dims
from hetero.whisper.models.onnx_writer import OnnxWriter

Read = Callable[[str], NDArray[np.float32]]

#: Added to the scores of tokens that lie ahead: the lowest value that half precision holds too.
_MASKED = -65504.0
_EPSILON = 1e-5


def write_encoder(path: Path, dims: Dims, read: Read, *, external: bool = False) -> None:
    """`mel` [batch, n_mels, frames] -> `hidden` [batch, context, d], both float32; context = ceil(frames / 2).

    Args:
        path: The `.onnx` file to write.
        dims: Sizes of the model.
        read: Gives a tensor by its name in `Dims.tensors`.
        external: Keep weights in a file beside it.
    """
    with OnnxWriter(path, "whisper-encoder", external=external) as graph:
        part = _Part(graph, read, dims.n_audio_head, dims.n_audio_state // dims.n_audio_head)
        x = graph.input("mel", np.float32, ("batch", dims.n_mels, "frames"))
        x = part.convolution(x, "encoder.conv1", stride=1)
        x = part.convolution(x, "encoder.conv2", stride=2)
        graph.scope("encoder.embed_positions")
        x = graph.op("Transpose", x, perm=[0, 2, 1])
        count = graph.op("Slice", graph.op("Shape", x), graph.shape(1), graph.shape(2), graph.shape(0))
        table = graph.weight("encoder.embed_positions.weight", read("encoder.embed_positions.weight"))
        x = graph.op("Add", x, graph.op("Slice", table, graph.shape(0), count, graph.shape(0)))
        for i in range(dims.n_audio_layer):
            layer = f"encoder.layers.{i}"
            y = part.norm(x, f"{layer}.self_attn_layer_norm")
            q = part.heads(part.query(y, f"{layer}.self_attn.q_proj"), (0, 2, 1, 3))
            k = part.heads(part.linear(y, f"{layer}.self_attn.k_proj", bias=False), (0, 2, 3, 1))
            v = part.heads(part.linear(y, f"{layer}.self_attn.v_proj"), (0, 2, 1, 3))
            y = part.attention(f"{layer}.self_attn", q, k, v, back=(0, 2, 1, 3))
            x = part.add(x, part.linear(y, f"{layer}.self_attn.out_proj"))
            x = part.feed_forward(x, layer)
        x = part.norm(x, "encoder.layer_norm")
        graph.output(x, "hidden", np.float32, ("batch", "context", dims.n_audio_state))


def write_cross(path: Path, dims: Dims, read: Read, *, external: bool = False) -> None:
    """`hidden` [batch, context, d] -> the keys and values of the decoder's attention to the audio, once for a window.

    Per layer `cross_k_{i}` [batch, heads, d/heads, context] and `cross_v_{i}` [batch, heads, context, d/heads], as the
    decoder's matrix products take them. Arguments as `write_encoder`.
    """
    with OnnxWriter(path, "whisper-cross", external=external) as graph:
        heads, size = dims.n_text_head, dims.n_text_state // dims.n_text_head
        part = _Part(graph, read, heads, size)
        x = graph.input("hidden", np.float32, ("batch", "context", dims.n_audio_state))
        for i in range(dims.n_text_layer):
            layer = f"decoder.layers.{i}.encoder_attn"
            k = part.heads(part.linear(x, f"{layer}.k_proj", bias=False), (0, 2, 3, 1))
            graph.output(k, f"cross_k_{i}", np.float32, ("batch", heads, size, "context"))
            v = part.heads(part.linear(x, f"{layer}.v_proj"), (0, 2, 1, 3))
            graph.output(v, f"cross_v_{i}", np.float32, ("batch", heads, "context", size))


def write_decoder(path: Path, dims: Dims, read: Read, *, untied: bool = False, external: bool = False) -> None:
    """The decoder for any number of tokens behind any number of earlier ones.

    Inputs: `tokens` int64 [batch, n]; `logits_at` int64 [m], places among the n whose logits are wanted; per layer
    `self_k_{i}` and `self_v_{i}` float32 [past, batch, d], the earlier tokens' keys and values, and `cross_k_{i}`,
    `cross_v_{i}` as `write_cross` gives them, with `batch` rows or one for all.
    Outputs: `logits` float32 [batch, m, vocab]; per layer `new_k_{i}` and `new_v_{i}` float32 [n, batch, d].

    Args:
        path: The `.onnx` file to write.
        dims: Sizes of the model.
        read: Gives a tensor by its name in `Dims.tensors`.
        untied: The logits have a matrix of their own.
        external: Keep weights in a file beside it.
    """
    width, heads = dims.n_text_state, dims.n_text_head
    size = width // heads
    with OnnxWriter(path, "whisper-decoder", external=external) as graph:
        part = _Part(graph, read, heads, size)
        tokens = graph.input("tokens", np.int64, ("batch", "n"))
        logits_at = graph.input("logits_at", np.int64, ("m",))
        past_k, past_v, cross_k, cross_v = [], [], [], []
        for i in range(dims.n_text_layer):
            past_k.append(graph.input(f"self_k_{i}", np.float32, ("past", "batch", width)))
            past_v.append(graph.input(f"self_v_{i}", np.float32, ("past", "batch", width)))
        for i in range(dims.n_text_layer):
            cross_k.append(graph.input(f"cross_k_{i}", np.float32, ("cross_batch", heads, size, "context")))
            cross_v.append(graph.input(f"cross_v_{i}", np.float32, ("cross_batch", heads, "context", size)))

        # The one matrix for both ends stands as the product of the logits wants it; a token is one of its columns.
        embedding = graph.weight("decoder.embed_tokens.weight", read("decoder.embed_tokens.weight").T)
        graph.scope("decoder.embed_tokens")
        x = graph.op("Gather", embedding, graph.op("Transpose", tokens, perm=[1, 0]), axis=1)
        x = graph.op("Transpose", x, perm=[1, 2, 0])
        past = graph.op("Slice", graph.op("Shape", past_k[0]), graph.shape(0), graph.shape(1), graph.shape(0))
        count = graph.op("Slice", graph.op("Shape", tokens), graph.shape(1), graph.shape(2), graph.shape(0))
        end = graph.op("Add", past, count)
        table = graph.weight("decoder.embed_positions.weight", read("decoder.embed_positions.weight")[:, np.newaxis])
        x = graph.op("Add", x, graph.op("Slice", table, past, end, graph.shape(0)))
        ahead = np.triu(np.full((dims.n_text_ctx, dims.n_text_ctx), _MASKED, dtype=np.float32), 1)
        from_to = [graph.op("Concat", past, graph.shape(0), axis=0), graph.op("Concat", end, end, axis=0)]
        mask = graph.op("Slice", graph.weight("decoder.mask", ahead), *from_to, graph.shape(0, 1))

        new: list[tuple[str, str]] = []
        for i in range(dims.n_text_layer):
            layer = f"decoder.layers.{i}"
            y = part.norm(x, f"{layer}.self_attn_layer_norm")
            q = part.heads(part.query(y, f"{layer}.self_attn.q_proj"), (1, 2, 0, 3))
            new_k = part.linear(y, f"{layer}.self_attn.k_proj", bias=False)
            new_v = part.linear(y, f"{layer}.self_attn.v_proj")
            graph.scope(f"{layer}.self_attn")
            k = part.heads(graph.op("Concat", past_k[i], new_k, axis=0), (1, 2, 3, 0))
            v = part.heads(graph.op("Concat", past_v[i], new_v, axis=0), (1, 2, 0, 3))
            y = part.attention(f"{layer}.self_attn", q, k, v, mask, back=(2, 0, 1, 3))
            x = part.add(x, part.linear(y, f"{layer}.self_attn.out_proj"))
            y = part.norm(x, f"{layer}.encoder_attn_layer_norm")
            q = part.heads(part.query(y, f"{layer}.encoder_attn.q_proj"), (1, 2, 0, 3))
            y = part.attention(f"{layer}.encoder_attn", q, cross_k[i], cross_v[i], back=(2, 0, 1, 3))
            x = part.add(x, part.linear(y, f"{layer}.encoder_attn.out_proj"))
            x = part.feed_forward(x, layer)
            new += [(new_k, f"new_k_{i}"), (new_v, f"new_v_{i}")]

        graph.scope("logits")
        x = graph.op("Transpose", graph.op("Gather", x, logits_at, axis=0), perm=[1, 0, 2])
        x = part.norm(x, "decoder.layer_norm")
        matrix = graph.weight(UNTIED, read(UNTIED).T) if untied else embedding
        graph.scope("logits")
        x = graph.op("MatMul", x, matrix)
        graph.output(x, "logits", np.float32, ("batch", "m", dims.n_vocab))
        for value, name in new:
            graph.output(value, name, np.float32, ("n", "batch", width))


class _Part:
    """What the layers of all three graphs are made of."""

    def __init__(self, graph: OnnxWriter, read: Read, heads: int, size: int) -> None:
        self.graph = graph
        self.read = read
        self.heads_and_size = heads, size
        self.gelu_constants: tuple[str, str, str] | None = None

    def convolution(self, x: str, name: str, stride: int) -> str:
        self.graph.scope(name)
        weight, bias = (self.graph.weight(f"{name}.{kind}", self.read(f"{name}.{kind}")) for kind in ("weight", "bias"))
        return self.gelu(self.graph.op("Conv", x, weight, bias, kernel_shape=[3], pads=[1, 1], strides=[stride]))

    def norm(self, x: str, name: str) -> str:
        self.graph.scope(name)
        weight, bias = (self.graph.weight(f"{name}.{kind}", self.read(f"{name}.{kind}")) for kind in ("weight", "bias"))
        return self.graph.op("LayerNormalization", x, weight, bias, axis=-1, epsilon=_EPSILON)

    def linear(self, x: str, name: str, *, bias: bool = True, scale: float = 1.0) -> str:
        # Stored as [in, out], as MatMul takes it.
        weight = np.ascontiguousarray(self.read(f"{name}.weight").T) * np.float32(scale)
        self.graph.scope(name)
        x = self.graph.op("MatMul", x, self.graph.weight(f"{name}.weight", weight))
        if not bias:
            return x
        return self.graph.op("Add", x, self.graph.weight(f"{name}.bias", self.read(f"{name}.bias") * np.float32(scale)))

    def query(self, x: str, name: str) -> str:
        """The queries, with the scores' factor in their weights: exact, it is a power of two in every Whisper model."""
        return self.linear(x, name, scale=self.heads_and_size[1] ** -0.5)

    def heads(self, x: str, order: tuple[int, int, int, int]) -> str:
        """[a, b, d] -> [a, b, heads, d/heads], transposed to `order`."""
        return self.graph.op(
            "Transpose", self.graph.op("Reshape", x, self.graph.shape(0, 0, *self.heads_and_size)), perm=order
        )

    def attention(self, name: str, q: str, k: str, v: str, mask: str = "", *, back: tuple[int, ...]) -> str:
        """Of q [..., n, d/heads], k [..., d/heads, t], v [..., t, d/heads] -> [..., d], in the order `back`."""
        self.graph.scope(name)
        scores = self.graph.op("MatMul", q, k, name="scores")
        if mask:
            scores = self.graph.op("Add", scores, mask)
        y = self.graph.op("MatMul", self.graph.op("Softmax", scores, axis=-1), v, name="weighted")
        heads, size = self.heads_and_size
        return self.graph.op("Reshape", self.graph.op("Transpose", y, perm=back), self.graph.shape(0, 0, heads * size))

    def feed_forward(self, x: str, layer: str) -> str:
        y = self.linear(self.norm(x, f"{layer}.final_layer_norm"), f"{layer}.fc1")
        return self.add(x, self.linear(self.gelu(y), f"{layer}.fc2"))

    def add(self, x: str, y: str) -> str:
        return self.graph.op("Add", x, y, name="residual")

    def gelu(self, x: str) -> str:
        """GELU, x / 2 * (1 + erf(x / sqrt(2))), in the order of operations that runtimes know to fuse."""
        if self.gelu_constants is None:
            root, one, half = (
                self.graph.weight(f"const/{name}", np.array(value, dtype=np.float32))
                for name, value in (("sqrt_2", 2**0.5), ("one", 1.0), ("half", 0.5))
            )
            self.gelu_constants = root, one, half
        root, one, half = self.gelu_constants
        y = self.graph.op("Add", self.graph.op("Erf", self.graph.op("Div", x, root)), one)
        return self.graph.op("Mul", self.graph.op("Mul", x, y), half)
