"""A recording being transcribed: window after window, segment after segment."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hetero.whisper.accounting import Account
from hetero.whisper.audio import SAMPLE_RATE
from hetero.whisper.decoding import Decoded, OneByOne, Rules, Thresholds, WindowDecoder, language_probabilities
from hetero.whisper.mel import WINDOW, log_mel
from hetero.whisper.sessions import DecoderState
from hetero.whisper.tokenizer import Task
from hetero.whisper.transcript import Segment, Transcript
from hetero.whisper.windows import FRAME_RATE, Piece, Seeker, cut

if TYPE_CHECKING:
    from hetero.whisper.transcribe import Transcriber

_log = logging.getLogger(__name__)

#: Called with the seconds of audio that are done, and all of them.
Progress = Callable[[float, float], None]

# What was found at a higher temperature than this is too uncertain to go on from.
_TRUSTED_TEMPERATURE = 0.5


@dataclass(frozen=True)
class Settings:
    """What `Transcriber.segments` was asked for, checked."""

    language: str | None
    task: Task
    initial_prompt: str | None
    condition: bool
    temperatures: tuple[float, ...]
    max_tokens: int
    timestamps: bool
    thresholds: Thresholds
    seed: int
    progress: Progress | None


class Transcription(Iterator[Segment]):
    """A recording being transcribed: an iterator of its segments, for one thread at a time.

    Attributes:
        duration: Seconds of audio.
        found: The segments so far.
    """

    def __init__(
        self,
        transcriber: Transcriber,
        samples: NDArray[np.float32],
        offset: float,
        settings: Settings,
        account: Account,
    ) -> None:
        self.duration = len(samples) / SAMPLE_RATE
        self.found: list[Segment] = []
        self._transcriber = transcriber
        self._tokenizer = transcriber.tokenizer
        self._sessions = account.watch(transcriber.sessions)
        self._samples = samples
        self._mel: NDArray[np.float32] | None = None
        self._offset = offset
        self._settings = settings
        self._account = account
        self._seconds = account.timings["audio"]
        self._language = settings.language or ("" if self._tokenizer.languages else "en")
        self._probability: float | None = None
        self._seeker = Seeker(len(samples) * FRAME_RATE // SAMPLE_RATE)
        # The decoder's memory of the first window, kept when its language was asked for.
        self._first: DecoderState | None = None
        prompt = settings.initial_prompt
        self._before = self._tokenizer.encode(" " + prompt.strip()) if prompt else []
        self._segments = self._run()

    def __next__(self) -> Segment:
        """The next segment.

        Raises:
            AllDevicesFailed: No device answered.
            ClosedError: The Transcriber was closed.
        """
        begun = time.perf_counter()
        try:
            return next(self._segments)
        finally:
            self._seconds += time.perf_counter() - begun

    @property
    def language(self) -> str:
        """Code of the language spoken; the first window is listened to for it where needed."""
        if not self._language:
            begun = time.perf_counter()
            self._detect()
            self._seconds += time.perf_counter() - begun
        return self._language

    @property
    def language_probability(self) -> float | None:
        """How sure the model is of the language; None where it was told or knows no other."""
        return self._probability if self.language else None

    def transcript(self) -> Transcript:
        """The whole transcript, with what is left of the segments found first."""
        for _ in self:
            pass
        account = self._account
        return Transcript(
            segments=tuple(self.found),
            language=self.language,
            language_probability=self._probability,
            duration=self.duration,
            seconds=self._seconds,
            timings=dict(account.timings),
            devices={stage: dict(counts) for stage, counts in account.devices.items()},
            simulated=tuple(sorted(account.simulated)),
            fell_back=account.fell_back,
            passed_over=account.passed_over,
            model=self._transcriber.model.name,
            task=self._settings.task,
        )

    def _run(self) -> Iterator[Segment]:
        settings, seeker = self._settings, self._seeker
        decoder = self._decoder()
        while not seeker.ended:
            self._transcriber._check_open()
            if self._soundless():
                seeker.advance(seeker.length)
            else:
                for segment in self._window(decoder):
                    self.found.append(segment)
                    yield segment
            if settings.progress is not None:
                settings.progress(min(seeker.at / FRAME_RATE, self.duration), self.duration)
        self._mel = None
        if settings.progress is not None:
            settings.progress(self.duration, self.duration)

    def _window(self, decoder: WindowDecoder) -> list[Segment]:
        """The segments of the window that begins here; goes on to the next one."""
        settings, seeker, tokenizer = self._settings, self._seeker, self._tokenizer
        state, self._first = self._first or self._listen(), None
        if not self._language:
            self._settle(state)
        prompt = tokenizer.prompt(self._language, settings.task, timestamps=settings.timestamps)
        room = self._transcriber.model.dims.n_text_ctx // 2 - 1
        earlier = [tokenizer.previous, *self._before[-room:]] if self._before else []
        decoded = decoder.decode(state, [*earlier, *prompt], self._where)
        if settings.thresholds.silent(decoded):
            seeker.advance(seeker.length)
            return []
        pieces, frames = cut(decoded.tokens, tokenizer.first_time, seeker.length)
        segments = self._segments_of(pieces, decoded)
        seeker.advance(frames)
        if settings.condition and decoded.temperature <= _TRUSTED_TEMPERATURE:
            self._before += [token for segment in segments for token in segment.tokens]
        else:
            self._before = []
        return segments

    def _soundless(self) -> bool:
        """Whether the window holds no sound at all, not even noise: the model would make something up."""
        part = self._spectrogram()[:, self._seeker.at : self._seeker.at + self._seeker.length]
        return self._settings.thresholds.no_speech is not None and bool(part.min() == part.max())

    def _decoder(self) -> WindowDecoder:
        settings, model = self._settings, self._transcriber.model
        rules = Rules(self._tokenizer, model.suppress, model.suppress_first, timestamps=settings.timestamps)
        random = np.random.default_rng(settings.seed)
        return WindowDecoder(
            self._tokenizer,
            rules,
            settings.thresholds,
            [(temperature, OneByOne(temperature, random)) for temperature in settings.temperatures],
            max_tokens=settings.max_tokens,
            places=model.dims.n_text_ctx,
        )

    def _listen(self) -> DecoderState:
        """The decoder's memory of the window that begins here, without a token yet."""
        return self._sessions.decoder_state(self._sessions.encode(self._seeker.window(self._spectrogram())))

    def _spectrogram(self) -> NDArray[np.float32]:
        if self._mel is None:
            with self._account.timed("mel"):
                self._mel = spectrogram(self._samples, self._transcriber.model.dims.n_mels)
            self._samples = self._samples[:0]
        return self._mel

    def _detect(self) -> None:
        if self._seeker.ended:
            self._language = "en"
            return
        self._first = self._listen()
        self._settle(self._first)

    def _settle(self, state: DecoderState) -> None:
        self._language, self._probability = language_probabilities(state, self._tokenizer)[0]
        _log.info("the language is %s, with probability %.2f", self._language, self._probability)

    def _segments_of(self, pieces: Sequence[Piece], decoded: Decoded) -> list[Segment]:
        segments: list[Segment] = []
        for piece in pieces:
            text = self._tokenizer.decode(piece.tokens).strip()
            if not text or piece.start == piece.end:
                continue
            if piece is not pieces[0] and piece.start >= self._seeker.length:
                _log.debug("%s: left out %r, said of the filling behind the sound", self._where(), text)
                continue
            # The model may hear the end of speech in the filling behind the sound.
            start, end = (
                min((self._seeker.at + place) / FRAME_RATE, self.duration) for place in (piece.start, piece.end)
            )
            segments.append(
                Segment(
                    id=len(self.found) + len(segments),
                    start=round(self._offset + start, 3),
                    end=round(self._offset + end, 3),
                    text=text,
                    tokens=piece.tokens,
                    avg_logprob=decoded.avg_logprob,
                    no_speech_prob=decoded.no_speech_prob,
                    compression_ratio=decoded.compression_ratio,
                    temperature=decoded.temperature,
                )
            )
        return segments

    def _where(self) -> str:
        return f"window at {self._offset + self._seeker.at / FRAME_RATE:.2f} s"


def spectrogram(samples: NDArray[np.float32], n_mels: int) -> NDArray[np.float32]:
    """The spectrogram of a recording, float32 [n_mels, samples // 160].

    As the reference implementation's, which adds 30 s of silence: what its last frames see of that is all that counts.
    """
    return log_mel(samples, n_mels, padding=WINDOW)[:, : len(samples) * FRAME_RATE // SAMPLE_RATE]
