"""The mel spectrogram, against what openai-whisper 20250625 gives for the same samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hetero.errors import InputError
from hetero.whisper.mel import HOP, log_mel, mel_filters
from tests.whisper.sound import sweep

GOLDEN = Path(__file__).parent.parent / "data" / "mel" / "openai-whisper-20250625.npz"


@pytest.mark.parametrize(
    ("name", "n_mels", "padding"), [("bands80", 80, 0), ("bands80_padded", 80, 4000), ("bands128", 128, 0)]
)
def test_within_a_ten_thousandth_of_openai(name: str, n_mels: int, padding: int) -> None:
    with np.load(GOLDEN) as golden:
        expected = golden[name]
    mel = log_mel(sweep(1.2), n_mels, padding=padding)
    assert mel.dtype == np.float32
    assert mel.shape == expected.shape
    np.testing.assert_allclose(mel, expected, rtol=0, atol=1e-4)


@settings(max_examples=20, deadline=None)
@given(samples=st.integers(1, 50_000), padding=st.integers(0, 1000))
def test_a_frame_every_ten_milliseconds_and_finite(samples: int, padding: int) -> None:
    mel = log_mel(sweep(4)[:samples], padding=padding)
    assert mel.shape == (80, (samples + padding) // HOP)
    assert np.isfinite(mel).all()


def test_blocks_leave_no_seam() -> None:
    # But for the normalisation a frame depends on its own samples only: a part of the sound has the same frames.
    sound = np.tile(sweep(0.5), 10)
    whole, part = log_mel(sound), log_mel(sound[: 2 * 8000])
    np.testing.assert_allclose(part[:, 2:95], whole[:, 2:95], atol=1e-5)
    np.testing.assert_allclose(whole[:, 2 + 400 : 95 + 400], whole[:, 2:95], atol=1e-5)


def test_silence_padding_changes_no_frame_before_it() -> None:
    sound = sweep(1)
    np.testing.assert_array_equal(log_mel(sound, padding=400)[:, :100], log_mel(sound, padding=480_000)[:, :100])


def test_silence_is_flat() -> None:
    assert np.ptp(log_mel(np.zeros(16_000, np.float32))) == 0


def test_filters_cover_the_range_with_equal_area() -> None:
    for n_mels in (80, 128):
        filters = mel_filters(n_mels)
        assert filters.shape == (n_mels, 201)
        assert (filters.argmax(axis=1)[1:] >= filters.argmax(axis=1)[:-1]).all()
    assert not filters.flags.writeable


@pytest.mark.parametrize("audio", [np.zeros((2, 100), np.float32), np.zeros(100, np.int16)])
def test_other_than_float_samples_are_refused(audio: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"expected float \[samples\]"):
        log_mel(audio)


def test_no_samples_give_no_frames() -> None:
    assert log_mel(np.zeros(0, np.float32)).shape == (80, 0)
    assert log_mel(np.zeros(159, np.float32)).shape == (80, 0)
    assert log_mel(np.zeros(0, np.float32), padding=320).shape == (80, 2)
