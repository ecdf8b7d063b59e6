"""Whisper in numpy and float64, written from the paper: slow, and nothing of it is shared with the graphs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hetero.whisper.models import Dims

F64 = NDArray[np.float64]


class Reference:
    """The encoder and the decoder of a checkpoint; no cache, no heads side by side."""

    def __init__(self, dims: Dims, read: Callable[[str], NDArray[Any]]) -> None:
        self.dims = dims
        self._read = read

    def encode(self, mel: NDArray[Any]) -> F64:
        """[n_mels, frames] -> [context, d]."""
        x = gelu(self._conv(mel.astype(np.float64), "encoder.conv1", 1))
        x = gelu(self._conv(x, "encoder.conv2", 2)).T
        x = x + self._w("encoder.embed_positions.weight")[: len(x)]
        for i in range(self.dims.n_audio_layer):
            layer = f"encoder.layers.{i}"
            y = self._norm(x, f"{layer}.self_attn_layer_norm")
            x = x + self._attend(f"{layer}.self_attn", self.dims.n_audio_head, y, y)
            x = x + self._feed_forward(x, layer)
        return self._norm(x, "encoder.layer_norm")

    def logits(self, tokens: list[int], hidden: F64) -> F64:
        """All tokens at once: [n], [context, d] -> [n, vocab]."""
        scores: F64 = self.states(tokens, hidden) @ self._w("decoder.embed_tokens.weight").T
        return scores

    def states(self, tokens: list[int], hidden: F64) -> F64:
        """What the logits are made of: [n], [context, d] -> [n, d]."""
        x = self._w("decoder.embed_tokens.weight")[tokens] + self._w("decoder.embed_positions.weight")[: len(tokens)]
        for i in range(self.dims.n_text_layer):
            layer = f"decoder.layers.{i}"
            y = self._norm(x, f"{layer}.self_attn_layer_norm")
            x = x + self._attend(f"{layer}.self_attn", self.dims.n_text_head, y, y, causal=True)
            y = self._norm(x, f"{layer}.encoder_attn_layer_norm")
            x = x + self._attend(f"{layer}.encoder_attn", self.dims.n_text_head, y, hidden)
            x = x + self._feed_forward(x, layer)
        return self._norm(x, "decoder.layer_norm")

    def _w(self, name: str) -> F64:
        return np.asarray(self._read(name), dtype=np.float64)

    def _conv(self, x: F64, name: str, stride: int) -> F64:
        padded = np.pad(x, ((0, 0), (1, 1)))
        places = range(0, x.shape[1], stride)
        columns = np.stack([padded[:, t : t + 3] for t in places])
        y: F64 = np.einsum("tiw,oiw->ot", columns, self._w(f"{name}.weight")) + self._w(f"{name}.bias")[:, None]
        return y

    def _norm(self, x: F64, name: str) -> F64:
        centred = x - x.mean(-1, keepdims=True)
        scaled: F64 = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        return scaled * self._w(f"{name}.weight") + self._w(f"{name}.bias")

    def _linear(self, x: F64, name: str, bias: bool = True) -> F64:
        y: F64 = x @ self._w(f"{name}.weight").T
        return y + self._w(f"{name}.bias") if bias else y

    def _attend(self, name: str, heads: int, x: F64, source: F64, causal: bool = False) -> F64:
        q = self._linear(x, f"{name}.q_proj")
        k = self._linear(source, f"{name}.k_proj", bias=False)
        v = self._linear(source, f"{name}.v_proj")
        size = q.shape[1] // heads
        found = []
        for h in range(heads):
            part = slice(h * size, (h + 1) * size)
            scores = q[:, part] @ k[:, part].T / math.sqrt(size)
            if causal:
                scores[np.triu(np.ones_like(scores, dtype=bool), 1)] = -np.inf
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            found.append(weights / weights.sum(-1, keepdims=True) @ v[:, part])
        return self._linear(np.concatenate(found, -1), f"{name}.out_proj")

    def _feed_forward(self, x: F64, layer: str) -> F64:
        y = gelu(self._linear(self._norm(x, f"{layer}.final_layer_norm"), f"{layer}.fc1"))
        return self._linear(y, f"{layer}.fc2")


def gelu(x: F64) -> F64:
    y: F64 = x / 2 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
    return y
