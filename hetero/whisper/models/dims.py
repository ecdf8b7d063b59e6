"""The sizes of a Whisper model, and the tensors that follow from them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

from hetero.errors import ModelError

# The first size of vocabulary with the languages' tokens of the multilingual models; English-only ones have one less.
_MULTILINGUAL_VOCABULARY = 51865


@dataclass(frozen=True)
class Dims:
    """The sizes of a Whisper model, named as in OpenAI's checkpoints.

    Attributes:
        n_mels: Mel bands of the input: 80, or 128 from large-v3 on.
        n_audio_ctx: Most positions of the encoder's output: 1500 for 30 s.
        n_audio_state: Width of the encoder.
        n_audio_head: Attention heads of the encoder.
        n_audio_layer: Layers of the encoder.
        n_vocab: Tokens.
        n_text_ctx: Most tokens in the decoder: 448.
        n_text_state: Width of the decoder; the same as the encoder's.
        n_text_head: Attention heads of the decoder.
        n_text_layer: Layers of the decoder.
    """

    n_mels: int
    n_audio_ctx: int
    n_audio_state: int
    n_audio_head: int
    n_audio_layer: int
    n_vocab: int
    n_text_ctx: int
    n_text_state: int
    n_text_head: int
    n_text_layer: int

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if type(value) is not int or value < 1:
                raise ModelError(f"the model's {field.name} is {value!r}, expected a whole number from 1 on")
        if self.n_audio_state != self.n_text_state:
            raise ModelError(
                f"the encoder is {self.n_audio_state} wide and the decoder {self.n_text_state}; expected the same width"
            )
        for state, head in ((self.n_audio_state, self.n_audio_head), (self.n_text_state, self.n_text_head)):
            if state % head:
                raise ModelError(f"a width of {state} cannot be divided among {head} attention heads")

    @property
    def multilingual(self) -> bool:
        """Whether the vocabulary has the languages' tokens of a multilingual model."""
        return self.n_vocab >= _MULTILINGUAL_VOCABULARY

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Name and shape of every tensor of such a model.

        The names are those of Hugging Face's checkpoints without the leading `model.`; a linear layer's weight is
        `[out, in]`, a convolution's `[out, in, width]`.
        """
        width = self.n_audio_state
        yield from _affine("encoder.conv1", (width, self.n_mels, 3))
        yield from _affine("encoder.conv2", (width, width, 3))
        yield "encoder.embed_positions.weight", (self.n_audio_ctx, width)
        for i in range(self.n_audio_layer):
            yield from _attention(f"encoder.layers.{i}.self_attn", width)
            yield from _feed_forward(f"encoder.layers.{i}", width)
        yield from _affine("encoder.layer_norm", (width,))
        width = self.n_text_state
        yield "decoder.embed_tokens.weight", (self.n_vocab, width)
        yield "decoder.embed_positions.weight", (self.n_text_ctx, width)
        for i in range(self.n_text_layer):
            yield from _attention(f"decoder.layers.{i}.self_attn", width)
            yield from _attention(f"decoder.layers.{i}.encoder_attn", width)
            yield from _feed_forward(f"decoder.layers.{i}", width)
        yield from _affine("decoder.layer_norm", (width,))


def _affine(name: str, shape: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]


def _attention(name: str, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    for part in ("q_proj", "v_proj", "out_proj"):
        yield from _affine(f"{name}.{part}", (width, width))
    # A bias of the keys would add the same to all of a query's scores, which the softmax takes out again: there is
    # none, and one that a file has is left.
    yield f"{name}.k_proj.weight", (width, width)
    yield from _affine(f"{name}_layer_norm", (width,))


def _feed_forward(name: str, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from _affine(f"{name}.fc1", (4 * width, width))
    yield from _affine(f"{name}.fc2", (width, 4 * width))
    yield from _affine(f"{name}.final_layer_norm", (width,))
