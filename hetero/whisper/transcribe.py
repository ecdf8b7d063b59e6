"""Transcriber: the Whisper pipeline over a Runtime, from a file to segments."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, TypedDict

import numpy as np
from numpy.typing import NDArray

from hetero.errors import AudioError, ClosedError, InputError, OptionError
from hetero.whisper.accounting import Account
from hetero.whisper.audio import SAMPLE_RATE, AudioSource, decode_audio
from hetero.whisper.decoding import Thresholds, language_probabilities
from hetero.whisper.models import WhisperModel, open_model
from hetero.whisper.sessions import SpeechSessions
from hetero.whisper.tokenizer import Task, Tokenizer
from hetero.whisper.transcript import Transcript
from hetero.whisper.transcription import Progress, Settings, Transcription, spectrogram
from hetero.whisper.windows import FRAME_RATE, FRAMES, window

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from hetero.options import Options
    from hetero.runtime import Runtime
    from hetero.scheduler.dispatch import Fallback

TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


class SegmentOptions(TypedDict, total=False):
    """The options of `Transcriber.segments`, which says what they mean."""

    rate: int | None
    language: str | None
    task: Task
    initial_prompt: str | None
    condition_on_previous_text: bool
    temperature: float | Sequence[float]
    max_tokens: int | None
    without_timestamps: bool
    compression_ratio_threshold: float | None
    logprob_threshold: float | None
    no_speech_threshold: float | None
    start: float
    end: float | None
    seed: int
    progress: Progress | None


class Transcriber:
    """Speech to text with one model. A context manager; usable from any thread, by several at once.

    Args:
        model: A name (`tiny.en`, `base`), a Hugging Face id, a folder, or what `open_model` gave.
        runtime: Where to run; one of its own, closed with it, when not given.
        device: As `Runtime.load` takes it, or a mapping from part (`encoder`, `cross`, `decoder`) to that.
        fallback: As `Runtime.load` takes it.
        options: As `Runtime.load` takes it.

    Attributes:
        model: The model.
        sessions: Its programs in the Runtime.
        tokenizer: Its tokenizer.

    Raises:
        ModelError: The model cannot be found, verified or converted.
        OptionError: An unknown device or option.
        AllDevicesFailed: No device takes one of the parts.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | WhisperModel = "tiny.en",
        *,
        runtime: Runtime | None = None,
        device: str | Sequence[str] | Mapping[str, str | Sequence[str]] | None = None,
        fallback: Fallback = "allow",
        options: Options | None = None,
    ) -> None:
        self.model = model if isinstance(model, WhisperModel) else open_model(model)
        self.tokenizer = Tokenizer(self.model.tokenizer, multilingual=self.model.multilingual)
        self._own: Runtime | None = None
        self._closed = False
        if runtime is None:
            from hetero.runtime import Runtime

            runtime = self._own = Runtime()
        try:
            self.sessions = SpeechSessions(runtime, self.model, device=device, fallback=fallback, options=options)
        except BaseException:
            if self._own is not None:
                self._own.close()
            raise

    def transcribe(self, audio: AudioSource, **options: Unpack[SegmentOptions]) -> Transcript:
        """The whole text of a recording. Options and errors as for `segments`."""
        return self.segments(audio, **options).transcript()

    def segments(
        self,
        audio: AudioSource,
        *,
        rate: int | None = None,
        language: str | None = None,
        task: Task = "transcribe",
        initial_prompt: str | None = None,
        condition_on_previous_text: bool = True,
        temperature: float | Sequence[float] = TEMPERATURES,
        max_tokens: int | None = None,
        without_timestamps: bool = False,
        compression_ratio_threshold: float | None = 2.4,
        logprob_threshold: float | None = -1.0,
        no_speech_threshold: float | None = 0.6,
        start: float = 0.0,
        end: float | None = None,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Transcription:
        """The segments of a recording, one after another as they are found.

        Args:
            audio: As `decode_audio` takes it.
            rate: Samples per second, where `audio` is samples.
            language: Code or name of the language spoken; detected in the first 30 s when not given.
            task: `transcribe`, or `translate` to English.
            initial_prompt: Text that goes before the first window: names, spelling, style.
            condition_on_previous_text: Whether a window's text goes before the next one's.
            temperature: 0 takes the likeliest token, more draws at random; of several the next one is tried where the
                thresholds refuse a text.
            max_tokens: Most tokens of a window's text; half the decoder's places (224), and that is the most.
            without_timestamps: Have the model write no times: one segment a window.
            compression_ratio_threshold: A text that zlib makes shorter than this many times repeats itself; None: any.
            logprob_threshold: A text with a mean log-probability below this is a guess; None: no text is.
            no_speech_threshold: With a probability of silence above this, a guess is no text; None: every guess is.
            start: Where in the audio to begin, in seconds.
            end: Where in the audio to end, in seconds.
            seed: Of the random draws: equal seeds give equal texts.
            progress: Called after each window with the seconds that are done, and all of them.

        Returns:
            An iterator that also tells the language, the timings and the devices.

        Raises:
            AudioError: The audio cannot be read.
            OptionError: An option that is not allowed, a language that the model does not know.
            AllDevicesFailed: No device answered; raised while iterating.
        """
        self._check_open()
        most = self.model.dims.n_text_ctx // 2
        max_tokens = most if max_tokens is None else max_tokens
        if not 1 <= max_tokens <= most:
            raise OptionError(f"max_tokens is {max_tokens}", fix=f"choose 1 to {most}")
        if start < 0 or (end is not None and end <= start):
            raise OptionError(f"start is {start} and end is {end}", fix="expected seconds, 0 <= start < end")
        settings = Settings(
            language=None if language is None else self.tokenizer.language(language),
            task=task,
            initial_prompt=initial_prompt,
            condition=condition_on_previous_text,
            temperatures=_temperatures(temperature),
            max_tokens=max_tokens,
            timestamps=not without_timestamps,
            thresholds=Thresholds(compression_ratio_threshold, logprob_threshold, no_speech_threshold),
            seed=seed,
            progress=progress,
        )
        self.tokenizer.prompt(settings.language, task)
        account = Account()
        with account.timed("audio"):
            samples = decode_audio(audio, rate=rate)
            samples = samples[int(start * SAMPLE_RATE) : None if end is None else int(end * SAMPLE_RATE)]
        if start and not len(samples):
            raise AudioError(f"the audio ends before start={start}", fix="check the length of the audio")
        return Transcription(self, samples, start, settings, account)

    def encode(self, audio_or_mel: AudioSource, *, rate: int | None = None) -> NDArray[np.float32]:
        """The encoder's output alone, for embeddings and for models of one's own on top.

        Args:
            audio_or_mel: Audio as `decode_audio` takes it, or a log-mel spectrogram, float32 [n_mels, frames] or
                [batch, n_mels, frames].
            rate: Samples per second, where samples are given.

        Returns:
            float32 [windows, n_audio_ctx, n_audio_state], a window for each begun 30 s: a position is 20 ms, and those
            after the sound's end encode filling.

        Raises:
            AudioError: The audio cannot be read, or there is none.
            InputError: The spectrogram does not fit the model.
        """
        self._check_open()
        dims = self.model.dims
        if isinstance(audio_or_mel, np.ndarray) and rate is None and audio_or_mel.ndim in (2, 3):
            mels = audio_or_mel[np.newaxis] if audio_or_mel.ndim == 2 else audio_or_mel
            if mels.dtype != np.float32 or mels.shape[1] != dims.n_mels:
                raise InputError(
                    f"the spectrogram is {mels.dtype} with {mels.shape[1]} bands, expected float32 with {dims.n_mels}",
                    fix=f"hetero.whisper.log_mel(audio, {dims.n_mels}) gives that; for samples give rate=",
                )
        else:
            mels = spectrogram(_some(decode_audio(audio_or_mel, rate=rate)), dims.n_mels)[np.newaxis]
        parts = [window(mel, at) for mel in mels for at in range(0, max(1, mel.shape[1]), FRAMES)]
        hidden = np.empty((len(parts), dims.n_audio_ctx, dims.n_audio_state), dtype=np.float32)
        for place, part in enumerate(parts):
            hidden[place] = self.sessions.encode(part)[0]
        return hidden

    def detect_language(self, audio: AudioSource, *, rate: int | None = None) -> list[tuple[str, float]]:
        """The languages that the first 30 s may be in, with their probabilities, likeliest first.

        Raises:
            AudioError: The audio cannot be read.
            OptionError: The model knows English only.
        """
        self._check_open()
        if not self.tokenizer.languages:
            raise OptionError(
                f"{self.model.name} knows English only", fix="use a multilingual model: one without `.en`"
            )
        samples = _some(decode_audio(audio, rate=rate))[: FRAMES * SAMPLE_RATE // FRAME_RATE]
        hidden = self.sessions.encode(window(spectrogram(samples, self.model.dims.n_mels), 0))
        return language_probabilities(self.sessions.decoder_state(hidden), self.tokenizer)

    def close(self) -> None:
        """Close the sessions, and the Runtime if it is this object's own."""
        if not self._closed:
            self._closed = True
            self.sessions.close()
            if self._own is not None:
                self._own.close()

    def __enter__(self) -> Transcriber:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the Transcriber is closed", fix="make a new one")


def _some(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    if not len(samples):
        raise AudioError("there are no samples", fix="give audio of some length")
    return samples


def _temperatures(temperature: float | Sequence[float]) -> tuple[float, ...]:
    values = tuple(temperature) if isinstance(temperature, Sequence) else (temperature,)
    if not values or not all(0 <= value <= 2 for value in values):
        raise OptionError(f"temperature is {temperature}", fix="give a number from 0 to 2, or several in order")
    return values
