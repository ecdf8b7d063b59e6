"""Recordings as inputs of a Whisper encoder, for compilers that want typical data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hetero.program import Program
from hetero.whisper.audio import decode_audio
from hetero.whisper.transcription import spectrogram
from hetero.whisper.windows import FRAMES, LEAST, window

#: Suffixes of files that are taken for recordings.
SUFFIXES = frozenset({".flac", ".m4a", ".mp3", ".mp4", ".oga", ".ogg", ".opus", ".wav", ".webm"})


def takes_mel(program: Program) -> bool:
    """Whether a program's one input is a log-mel spectrogram, as an encoder's of this package: `mel` [n, bands, n]."""
    if len(program.inputs) != 1:
        return False
    (spec,) = program.inputs
    return spec.name == "mel" and spec.dtype == np.float32 and len(spec.shape or ()) == 3


def mel_windows(path: Path, bands: int, frames: int = FRAMES) -> list[NDArray[np.float32]]:
    """A recording cut into windows, the last filled up, as transcribing does where every window is full.

    Args:
        path: A file that FFmpeg reads.
        bands: 80 or 128.
        frames: Of a window, at most 3000 (30 s).

    Returns:
        float32 [1, bands, frames] each.

    Raises:
        AudioError: The file cannot be read.
    """
    mel = spectrogram(decode_audio(path), bands)
    begins = range(0, max(1, mel.shape[1] - LEAST), frames)
    return [np.ascontiguousarray(window(mel, begin)[:, :, :frames]) for begin in begins]
