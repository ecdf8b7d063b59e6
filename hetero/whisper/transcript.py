"""What a transcription gives: segments, and an account of how they came about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Segment:
    """A stretch of speech.

    Attributes:
        id: Counts up from 0.
        start: Seconds from the beginning of the audio.
        end: Seconds from the beginning of the audio.
        text: Without space around it.
        tokens: The model's, times included.
        avg_logprob: Mean log-probability of a token of the segment's window.
        no_speech_prob: Probability that nobody speaks in the segment's window.
        compression_ratio: Of the text of the segment's window; above 2.4 it likely repeats itself.
        temperature: At which the text was found; 0 is greedy.
    """

    id: int
    start: float
    end: float
    text: str
    tokens: tuple[int, ...]
    avg_logprob: float
    no_speech_prob: float
    compression_ratio: float
    temperature: float

    def to_dict(self) -> dict[str, Any]:
        """The segment as JSON-ready values."""
        return asdict(self) | {"tokens": list(self.tokens)}


@dataclass(frozen=True)
class Transcript:
    """The text of a recording.

    Attributes:
        segments: In order.
        language: Code of the language spoken.
        language_probability: How sure the model is of it; None where it was told or knows no other.
        duration: Seconds of audio that were transcribed.
        seconds: Seconds of work.
        timings: Seconds of work by stage: `audio` (decoding the file), `mel`, `encoder`, `cross`, `decoder`. What is
            left of `seconds` went into choosing tokens.
        devices: How many requests each device answered, by stage (`encoder`, `cross`, `decoder`).
        simulated: Those of the devices that are simulators.
        fell_back: How many requests were not answered by the first choice of devices.
        passed_over: What devices did that were asked before the one that answered, and for how many requests, by stage.
        model: Name of the model.
        task: `transcribe` or `translate`.
    """

    segments: tuple[Segment, ...]
    language: str
    language_probability: float | None
    duration: float
    seconds: float
    timings: Mapping[str, float] = field(default_factory=dict)
    devices: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    simulated: tuple[str, ...] = ()
    fell_back: int = 0
    passed_over: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    model: str = ""
    task: str = "transcribe"

    @property
    def text(self) -> str:
        """All segments' text, joined by spaces."""
        return " ".join(segment.text for segment in self.segments)

    @property
    def realtime_factor(self) -> float:
        """Seconds of work for a second of audio: below 1 is faster than the speech itself."""
        return self.seconds / self.duration if self.duration else 0.0

    def to_dict(self) -> dict[str, Any]:
        """The transcript as JSON-ready values."""
        return {
            "text": self.text,
            "language": self.language,
            "language_probability": self.language_probability,
            "task": self.task,
            "model": self.model,
            "duration": self.duration,
            "seconds": self.seconds,
            "realtime_factor": self.realtime_factor,
            "timings": dict(self.timings),
            "devices": {stage: dict(counts) for stage, counts in self.devices.items()},
            "simulated": list(self.simulated),
            "fell_back": self.fell_back,
            "passed_over": {stage: dict(counts) for stage, counts in self.passed_over.items()},
            "segments": [segment.to_dict() for segment in self.segments],
        }
