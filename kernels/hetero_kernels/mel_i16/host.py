"""What is left to the host around `mel_i16`: windows of samples ahead of it, Whisper's normalisation behind it."""

from __future__ import annotations

import numpy as np

from hetero.errors import InputError
from hetero.tensors import Array
from hetero_kernels.mel_i16.reference import OUTPUT_BITS
from hetero_kernels.mel_i16.tables import HALF, WINDOW

HOP = 160
"""Samples from one window to the next: 10 ms."""


def windows(audio: Array, *, padding: int = 0) -> Array:
    """The windows of a sound, as Whisper takes them: the sound mirrored at both ends.

    Args:
        audio: float `[samples]` from -1 to 1, 16 kHz, mono.
        padding: Samples of silence to add at the end.

    Returns:
        int16 `[(samples + padding) // 160, 400]`, a copy.

    Raises:
        InputError: `audio` is not one-dimensional float.
    """
    if audio.ndim != 1 or audio.dtype.kind != "f":
        raise InputError(
            f"audio is {audio.dtype} with {audio.ndim} dimensions, expected float [samples]",
            fix="hetero.whisper.decode_audio gives that",
        )
    frames = (len(audio) + padding) // HOP
    if not frames:
        return np.zeros((0, WINDOW), np.int16)
    samples = np.clip(np.rint(audio * 32768.0), -32768, 32767).astype(np.int16)
    framed = np.pad(np.pad(samples, (0, padding)), HALF, mode="reflect")
    every: Array = np.lib.stride_tricks.sliding_window_view(framed, WINDOW)
    return np.array(every[::HOP][:frames])


def log_mel(y: Array) -> Array:
    """What Whisper's encoder takes, of what the kernel gives for all windows of a sound.

    Args:
        y: int16 `[frames, bands]`.

    Returns:
        float32 `[bands, frames]`, about -1 to 2: log10, the loudest 8 decades of the sound, shifted and scaled.
    """
    decades = y.T.astype(np.float32) * np.float32(np.log10(2) / (1 << OUTPUT_BITS))
    loudest = decades.max(initial=np.float32(-10))
    normal: Array = (np.maximum(decades, loudest - np.float32(8)) + np.float32(4)) * np.float32(0.25)
    return normal
