"""A Whisper model's programs, loaded in a Runtime, and the decoder's memory of what was said so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hetero.errors import InputError, OptionError
from hetero.tensors import Array, shape_text
from hetero.whisper.models import WhisperModel

if TYPE_CHECKING:
    from hetero.options import Options
    from hetero.runtime import Runtime
    from hetero.scheduler.dispatch import Fallback
    from hetero.session import Session

_PARTS = ("encoder", "cross", "decoder")
_LAST = np.array([0], dtype=np.int64)


class SpeechSessions:
    """The encoder, the cross-attention and the decoder of a model, each on its devices. A context manager.

    Args:
        runtime: Where they are loaded.
        model: The model.
        device: For all three, as `Runtime.load` takes it; or a mapping from part (`encoder`, `cross`, `decoder`) to
            that, where a part that is not named gets the Runtime's chain.
        fallback: As `Runtime.load` takes it.
        options: As `Runtime.load` takes it.

    Attributes:
        model: The model.
        encoder: mel -> hidden.
        cross: hidden -> keys and values for the decoder.
        decoder: tokens -> logits.

    Raises:
        OptionError: `device` names a part that there is not.
        AllDevicesFailed: No device takes one of the parts.
    """

    def __init__(
        self,
        runtime: Runtime,
        model: WhisperModel,
        *,
        device: str | Sequence[str] | Mapping[str, str | Sequence[str]] | None = None,
        fallback: Fallback = "allow",
        options: Options | None = None,
    ) -> None:
        devices = device if isinstance(device, Mapping) else dict.fromkeys(_PARTS, device)
        unknown = [part for part in devices if part not in _PARTS]
        if unknown:
            raise OptionError(f"a device is given for {unknown[0]!r}", fix=f"the parts are {', '.join(_PARTS)}")
        self.model = model
        loaded: list[Session] = []
        try:
            for part in _PARTS:
                source = getattr(model, part)
                loaded.append(runtime.load(source, device=devices.get(part), fallback=fallback, options=options))
        except BaseException:
            for session in loaded:
                session.close()
            raise
        self.encoder, self.cross, self.decoder = loaded

    def encode(self, mel: Array) -> NDArray[np.float32]:
        """The encoder's output.

        Args:
            mel: Log-mel spectrogram, float32 [batch, n_mels, frames] or [n_mels, frames]; at most 2 * n_audio_ctx
                frames (3000, 30 s).

        Returns:
            float32 [batch, ceil(frames / 2), n_audio_state].

        Raises:
            InputError: Another shape or dtype.
        """
        if mel.ndim == 2:
            mel = mel[np.newaxis]
        limit = 2 * self.model.dims.n_audio_ctx
        if mel.ndim == 3 and not 1 <= mel.shape[2] <= limit:
            raise InputError(
                f"mel has {mel.shape[2]} frames, expected 1 to {limit}", fix="cut the audio into windows of 30 s"
            )
        hidden: NDArray[np.float32] = self.encoder({"mel": mel})
        return hidden

    def decoder_state(self, hidden: NDArray[np.float32]) -> DecoderState:
        """An empty memory for a window (or several of them, as a batch).

        Args:
            hidden: What `encode` gave.
        """
        return DecoderState(self, self.cross({"hidden": hidden}), len(hidden))

    def close(self) -> None:
        """Close the three sessions."""
        for session in (self.encoder, self.cross, self.decoder):
            session.close()

    def __enter__(self) -> SpeechSessions:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class DecoderState:
    """The keys and values of the tokens so far, for the windows of one batch. For one thread at a time.

    They lie in buffers of the decoder's full length, time first: what a step hands to the decoder are views of the
    buffers' beginnings, and what it adds is all that is copied.

    Args:
        sessions: Whose decoder is used.
        cross: `cross_k_{i}` and `cross_v_{i}`, as the cross-attention gave them.
        batch: Rows.
    """

    def __init__(self, sessions: SpeechSessions, cross: Mapping[str, Array], batch: int) -> None:
        dims = sessions.model.dims
        self._decoder = sessions.decoder
        self._limit = dims.n_text_ctx
        self._vocabulary = dims.n_vocab
        self._batch = batch
        self._feed: dict[str, Any] = dict(cross)
        names = [(f"self_{kind}_{i}", f"new_{kind}_{i}") for i in range(dims.n_text_layer) for kind in "kv"]
        shape = (dims.n_text_ctx, batch, dims.n_text_state)
        self._memory = [(past, new, np.empty(shape, dtype=np.float32)) for past, new in names]
        self._length = 0

    @property
    def length(self) -> int:
        """Tokens so far."""
        return self._length

    def step(self, tokens: NDArray[np.int64], logits_at: Sequence[int] | None = None) -> NDArray[np.float32]:
        """Add tokens, and score what may come next.

        Args:
            tokens: int64 [batch, n]; all rows are of the same length.
            logits_at: Places among the n whose logits are wanted; the last one by default. `()` for none.

        Returns:
            float32 [batch, m, n_vocab]; row j scores the token that follows the place `logits_at[j]`.

        Raises:
            InputError: Another shape, a token outside the vocabulary, a place outside the n, or more tokens than the
                decoder has places for. The state is as before.
        """
        feed, length, count = self._feed, self._length, self._check(tokens)
        feed["tokens"] = tokens
        if logits_at is not None:
            feed["logits_at"] = self._places(logits_at, count)
        else:
            feed["logits_at"] = _LAST if count == 1 else np.array([count - 1], dtype=np.int64)
        for past, _, buffer in self._memory:
            feed[past] = buffer[:length]
        outputs = self._decoder(feed)
        end = length + count
        for _, new, buffer in self._memory:
            buffer[length:end] = outputs[new]
        self._length = end
        logits: NDArray[np.float32] = outputs["logits"]
        return logits

    def truncate(self, length: int) -> None:
        """Forget the tokens from `length` on.

        Raises:
            InputError: There are fewer.
        """
        if not 0 <= length <= self._length:
            raise InputError(f"cannot truncate to {length} tokens, there are {self._length}")
        self._length = length

    def _check(self, tokens: NDArray[np.int64]) -> int:
        if (
            not isinstance(tokens, np.ndarray)
            or tokens.ndim != 2
            or tokens.shape[0] != self._batch
            or not tokens.shape[1]
        ):
            described = shape_text(tokens.shape) if isinstance(tokens, np.ndarray) else type(tokens).__name__
            raise InputError(f"tokens are {described}, expected an int64 array of shape [{self._batch}, n]")
        if tokens.max() >= self._vocabulary or tokens.min() < 0:
            raise InputError(
                f"a token is outside the vocabulary of {self._vocabulary}: {tokens.min()} to {tokens.max()}"
            )
        count: int = tokens.shape[1]
        if self._length + count > self._limit:
            raise InputError(
                f"{self._length} + {count} tokens are more than the decoder's {self._limit} places",
                fix="truncate, or begin a new state",
            )
        return count

    def _places(self, logits_at: Sequence[int], count: int) -> NDArray[np.int64]:
        places = np.asarray(logits_at, dtype=np.int64)
        if places.ndim != 1 or (places.size and (places.min() < 0 or places.max() >= count)):
            raise InputError(f"logits_at is {list(logits_at)}, expected places from 0 to {count - 1}")
        return places
