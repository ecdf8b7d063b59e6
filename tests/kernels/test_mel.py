"""Whisper's log-mel spectrum in integers, against a scalar version and against `hetero.whisper.mel` on real speech."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hetero.errors import InputError
from hetero.tensors import Array
from hetero.whisper.mel import log_mel
from hetero_kernels import get
from hetero_kernels.mel_i16 import host
from hetero_kernels.mel_i16.tables import LOG2, exact_filters, filters, matrices, offsets
from tests.kernels import scalar

SPEECH = Path(__file__).parents[1] / "data" / "speech"
BANDS = [80, 128]
TABLES = {
    bands: (matrices().tolist(), filters(bands).tolist(), offsets(bands).tolist(), LOG2.tolist()) for bands in BANDS
}


def sounds() -> dict[str, Array]:
    rng = np.random.default_rng(0)
    n = np.arange(400)
    made = {f"noise of {sd}": rng.normal(0, sd, 400) for sd in (0.4, 1, 30, 3000, 60000)}
    made |= {f"{hertz} Hz": 32767 * np.sin(2 * np.pi * hertz / 16000 * n + 0.3) for hertz in (40, 440, 7960)}
    made |= {"silence": np.zeros(400), "-32768": np.full(400, -32768), "32767": np.full(400, 32767)}
    made |= {
        "first sample": np.eye(400)[0] * 32767,
        "middle": np.eye(400)[200] * -32768,
        "alternating": 32767.5 * (-1.0) ** n,
    }
    made["opposed halves"] = np.where(n < 200, 32767, -32768)
    return {name: np.clip(np.rint(x), -32768, 32767).astype(np.int16) for name, x in made.items()}


@pytest.mark.parametrize("bands", BANDS)
@pytest.mark.parametrize("name", sounds())
def test_the_spectrum_is_exact(name: str, bands: int) -> None:
    x = sounds()[name]
    got = get(f"mel_i16_{bands}").reference(x=x[np.newaxis])["y"]
    assert got[0].tolist() == scalar.mel(x.tolist(), *TABLES[bands])


def test_silence_is_the_floor() -> None:
    x = np.zeros((2, 400), np.int16)
    assert np.unique(get("mel_i16_80")(x)["y"]).tolist() == [-17008]
    assert np.rint(get("mel_i16_80").model(x=x)["y"]).min() == -17008


def test_no_entry_of_a_table_lies_so_near_a_half_that_a_libm_could_round_it_otherwise() -> None:
    n, k = np.arange(1, 201)[:, np.newaxis], np.arange(1, 200)
    hann = 32760 * (0.5 - 0.5 * np.cos(2 * np.pi / 400 * n))
    tables = [hann * wave(2 * np.pi / 400 * n * k) for wave in (np.cos, np.sin)]
    np.testing.assert_array_equal(np.rint(tables), matrices())
    for bands in BANDS:
        weights = exact_filters(bands)[:, 1:200].astype(np.float64)
        tables.append(weights / weights.max(axis=1, keepdims=True) * 32767)
        tables.append(2**15 * (np.log2(weights.max(axis=1)) - 2 * np.log2(32760) - np.log2(32767)))
    tables.append(2**15 * np.log2(1 + np.arange(256) / 256))
    assert min(np.abs(np.abs(table) % 1 - 0.5).min() for table in tables) > 1e-6


@pytest.mark.parametrize("bands", BANDS)
def test_what_the_kernel_leaves_out_is_in_no_filter(bands: int) -> None:
    assert not exact_filters(bands)[:, [0, 200]].any()
    assert (filters(bands) > 0).sum(axis=1).max() <= 14


@pytest.mark.parametrize("bands", BANDS)
@pytest.mark.parametrize("name", ["librivox-0870.flac", "librivox-0930.flac"])
def test_speech_of_16_bits_has_whispers_mel_to_a_half_of_a_hundredth(name: str, bands: int) -> None:
    pytest.importorskip("av", reason="PyAV is not installed")
    from hetero.whisper import decode_audio

    audio = decode_audio(SPEECH / name)
    got = host.log_mel(get(f"mel_i16_{bands}")(host.windows(audio))["y"])
    expected = log_mel(audio, bands)
    assert (got.dtype, got.shape) == (np.float32, expected.shape)
    off = np.abs(got - expected)
    assert off.max() < 0.005
    assert off.mean() < 1e-4


def test_the_model_is_whispers_mel() -> None:
    audio = np.random.default_rng(4).normal(0, 0.1, 16000)
    audio = np.rint(audio * 32768) / 32768
    got = host.log_mel(get("mel_i16_80").model(x=host.windows(audio))["y"])
    np.testing.assert_allclose(got, log_mel(audio), atol=1e-5)


@pytest.mark.parametrize(("samples", "padding"), [(0, 0), (159, 0), (160, 0), (100, 400), (5000, 0), (5000, 1000)])
def test_windows_are_those_of_whisper_with_the_sound_mirrored_at_its_ends(samples: int, padding: int) -> None:
    audio = np.random.default_rng(5).uniform(-1, 1, samples)
    got = host.windows(audio, padding=padding)
    assert got.shape == ((samples + padding) // 160, 400)
    whole = np.concatenate([audio, np.zeros(padding)])
    if len(got):
        assert got[0, 200:360].tolist() == np.clip(np.rint(whole[:160] * 32768), -32768, 32767).tolist()
        reach = min(199, len(whole) - 1)
        assert got[0, 200 - reach : 200][::-1].tolist() == got[0, 201 : 201 + reach].tolist()


def test_audio_that_is_no_float_sound_is_refused() -> None:
    with pytest.raises(InputError, match="expected float"):
        host.windows(np.zeros(100, np.int16))
    with pytest.raises(InputError, match="2 dimensions"):
        host.windows(np.zeros((2, 100)))
