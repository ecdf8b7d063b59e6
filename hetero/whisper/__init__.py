"""Whisper speech recognition on a Runtime: encoder and decoder as sessions, the rest in numpy.

::

    from hetero.whisper import Transcriber

    with Transcriber("tiny.en") as transcriber:
        for segment in transcriber.segments("talk.mp3"):
            print(segment.start, segment.end, segment.text)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hetero.whisper.audio import decode_audio
    from hetero.whisper.mel import log_mel
    from hetero.whisper.models import WhisperModel, known_models, open_model
    from hetero.whisper.sessions import SpeechSessions
    from hetero.whisper.tokenizer import Tokenizer
    from hetero.whisper.transcribe import Transcriber
    from hetero.whisper.transcript import Segment, Transcript
    from hetero.whisper.transcription import Transcription
    from hetero.whisper.writers import FORMATS, render, write

__all__ = [
    "FORMATS",
    "Segment",
    "SpeechSessions",
    "Tokenizer",
    "Transcriber",
    "Transcript",
    "Transcription",
    "WhisperModel",
    "decode_audio",
    "known_models",
    "log_mel",
    "open_model",
    "render",
    "write",
]

_LATE = {
    "FORMATS": "writers",
    "Segment": "transcript",
    "SpeechSessions": "sessions",
    "Tokenizer": "tokenizer",
    "Transcriber": "transcribe",
    "Transcript": "transcript",
    "Transcription": "transcription",
    "WhisperModel": "models",
    "decode_audio": "audio",
    "known_models": "models",
    "log_mel": "mel",
    "open_model": "models",
    "render": "writers",
    "write": "writers",
}


def __getattr__(name: str) -> Any:
    # The plugin for programs' names lies in this package: finding it must not import the whole pipeline.
    if name in _LATE:
        from importlib import import_module

        value = getattr(import_module(f"hetero.whisper.{_LATE[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'hetero.whisper' has no attribute {name!r}")
