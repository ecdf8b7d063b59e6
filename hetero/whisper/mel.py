"""Whisper's log-mel spectrogram.

Source: "Robust Speech Recognition via Large-Scale Weak Supervision" (Radford et al., 2022), section 2.2, and for the
filters Slaney's Auditory Toolbox (1998), as librosa's `filters.mel` has them: 25 ms Hann windows every 10 ms at 16 kHz,
power, 80 or 128 triangular bands of equal area from 0 to 8 kHz, log10, the loudest 8 decades.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from hetero.errors import InputError
from hetero.whisper.audio import SAMPLE_RATE

#: Samples from one frame to the next (10 ms).
HOP = 160
#: Samples in a frame (25 ms).
WINDOW = 400

# Frames worked on at once: what lies between samples and bands (about 0.6 MB) stays in the cache.
_BLOCK = 256
_FLOOR = 1e-10


def log_mel(audio: NDArray[np.floating], n_mels: int = 80, *, padding: int = 0) -> NDArray[np.float32]:
    """The log-mel spectrogram that Whisper's encoder takes.

    Args:
        audio: float [samples], mono, 16 kHz, in -1 to 1.
        n_mels: Bands: 80, or 128 for large-v3 and later.
        padding: Samples of silence to add at the end. Without them the last frame sees the sound mirrored at its end.

    Returns:
        float32 [n_mels, (samples + padding) // 160], about -1 to 2; normalised by the loudest of all its values.

    Raises:
        InputError: `audio` is not one-dimensional float.
    """
    if audio.ndim != 1 or audio.dtype.kind != "f":
        raise InputError(
            f"audio is {audio.dtype} with {audio.ndim} dimensions, expected float [samples]",
            fix="hetero.whisper.decode_audio gives that",
        )
    audio = audio.astype(np.float32, copy=False)
    frames = (len(audio) + padding) // HOP
    if not frames:
        return np.zeros((n_mels, 0), dtype=np.float32)
    samples = _framed(audio, padding)
    windows = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::HOP]
    filters, hann = mel_filters(n_mels), _hann()
    mel = np.empty((n_mels, frames), dtype=np.float32)
    for begin in range(0, frames, _BLOCK):
        spectrum = np.fft.rfft(windows[begin : min(begin + _BLOCK, frames)] * hann)
        power = np.square(spectrum.real, dtype=np.float32)
        power += np.square(spectrum.imag, dtype=np.float32)
        np.matmul(filters, power.T, out=mel[:, begin : begin + _BLOCK])
    np.maximum(mel, np.float32(_FLOOR), out=mel)
    np.log10(mel, out=mel)
    np.maximum(mel, mel.max() - np.float32(8.0), out=mel)
    mel += np.float32(4.0)
    mel *= np.float32(0.25)
    return mel


def _framed(audio: NDArray[np.float32], padding: int) -> NDArray[np.float32]:
    """The samples with half a window more on both sides: the sound mirrored."""
    side = WINDOW // 2
    padded = np.zeros(side + len(audio) + padding + side, dtype=np.float32)
    body = padded[side : side + len(audio) + padding]
    body[: len(audio)] = audio
    if len(body) > side:
        padded[:side] = body[side:0:-1]
        padded[-side:] = body[-2 : -side - 2 : -1]
    else:
        padded = np.pad(body, side, mode="reflect")
    return padded


@functools.cache
def mel_filters(n_mels: int) -> NDArray[np.float32]:
    """Triangular bands of equal area, evenly spaced on Slaney's mel scale.

    Returns:
        float32 [n_mels, 201]; read-only.
    """
    edges = _hertz(np.linspace(_mel(0.0), _mel(SAMPLE_RATE / 2), n_mels + 2))
    bins = np.fft.rfftfreq(WINDOW, 1 / SAMPLE_RATE)
    rising = (bins - edges[:-2, np.newaxis]) / np.diff(edges)[:-1, np.newaxis]
    falling = (edges[2:, np.newaxis] - bins) / np.diff(edges)[1:, np.newaxis]
    height = 2.0 / (edges[2:] - edges[:-2])
    filters = (np.maximum(0.0, np.minimum(rising, falling)) * height[:, np.newaxis]).astype(np.float32)
    filters.setflags(write=False)
    return filters


@functools.cache
def _hann() -> NDArray[np.float32]:
    window = np.hanning(WINDOW + 1)[:-1].astype(np.float32)
    window.setflags(write=False)
    return window


# Slaney's scale: linear up to 1000 Hz (15 mel), then 27 mel for each factor of 6.4.
_BEND_HERTZ, _BEND_MEL, _STEP = 1000.0, 15.0, np.log(6.4) / 27.0


def _mel(hertz: float) -> float:
    if hertz < _BEND_HERTZ:
        return hertz * _BEND_MEL / _BEND_HERTZ
    return float(_BEND_MEL + np.log(hertz / _BEND_HERTZ) / _STEP)


def _hertz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    high = _BEND_HERTZ * np.exp(_STEP * (mel - _BEND_MEL))
    return np.where(mel < _BEND_MEL, mel * _BEND_HERTZ / _BEND_MEL, high)
