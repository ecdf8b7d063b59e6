"""Sound of any format and rate becomes mono 16 kHz float32."""

from __future__ import annotations

import io
import logging
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hetero.errors import AudioError
from hetero.whisper.audio import SAMPLE_RATE, decode_audio

av: Any = pytest.importorskip("av", reason="av is not installed")

SPEECH = Path(__file__).parent.parent / "data" / "speech"

# Ending -> container, codec, sample format that the codec takes.
FORMATS = {
    "wav": ("wav", "pcm_s16le", "s16"),
    "flac": ("flac", "flac", "s16"),
    "mp3": ("mp3", "libmp3lame", "fltp"),
    "ogg": ("ogg", "libopus", "s16"),
    "m4a": ("mp4", "aac", "fltp"),
    "webm": ("webm", "libopus", "s16"),
    "ts": ("mpegts", "aac", "fltp"),
}


def tone(seconds: float, rate: int, hertz: float = 440.0) -> NDArray[np.float32]:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def encoded(ending: str, rate: int, channels: NDArray[np.float32]) -> bytes:
    """A file of float samples [channels, samples]."""
    container, codec, form = FORMATS[ending]
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(channels)]
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        stream = out.add_stream(codec, rate=rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(channels), format="fltp", layout=layout)
        frame.sample_rate = rate
        for piece in av.AudioResampler(format=form, layout=layout, rate=rate).resample(frame):
            piece.pts = None
            out.mux(stream.encode(piece))
        out.mux(stream.encode(None))
    return file.getvalue()


def pitch(samples: NDArray[np.float32]) -> float:
    middle = samples[len(samples) // 4 : -len(samples) // 4]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    return float(spectrum.argmax() * SAMPLE_RATE / len(middle))


def loudness(samples: NDArray[np.float32]) -> float:
    middle = samples[len(samples) // 4 : -len(samples) // 4]
    return float(np.sqrt(np.mean(middle**2)) * np.sqrt(2))


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_tone_stays_that_tone_from_any_format(ending: str, rate: int, channels: int) -> None:
    if ending in ("ogg", "webm") and rate == 44_100:
        rate = 24_000  # Opus has no 44.1 kHz
    samples = decode_audio(encoded(ending, rate, np.stack([tone(1, rate)] * channels)))
    assert samples.dtype == np.float32
    assert samples.ndim == 1
    assert abs(len(samples) - SAMPLE_RATE) < 0.2 * SAMPLE_RATE  # lossy codecs add some at the ends
    assert pitch(samples) == pytest.approx(440, abs=3)
    assert loudness(samples) == pytest.approx(0.5, rel=0.1)


def test_lossless_files_at_16_khz_come_through_to_the_bit() -> None:
    given = (tone(0.5, SAMPLE_RATE) * 32767).astype(np.int16) / np.float32(32768)
    for ending in ("wav", "flac"):
        np.testing.assert_array_equal(decode_audio(encoded(ending, SAMPLE_RATE, given[np.newaxis])), given)


def test_channels_are_averaged() -> None:
    left = tone(0.5, SAMPLE_RATE)
    half = decode_audio(encoded("wav", SAMPLE_RATE, np.stack([left, np.zeros_like(left)])))
    np.testing.assert_allclose(half, left / 2, atol=1e-4)
    opposite = decode_audio(encoded("wav", SAMPLE_RATE, np.stack([left, -left])))
    np.testing.assert_allclose(opposite, 0, atol=1e-4)


def test_what_the_centre_of_surround_sound_says_is_heard() -> None:
    silence = np.zeros(8000, np.float32)
    centre = np.stack([silence, silence, tone(0.5, SAMPLE_RATE), silence, silence, silence])
    assert loudness(decode_audio(encoded("wav", SAMPLE_RATE, centre))) > 0.2


def test_paths_bytes_and_open_files_give_the_same(tmp_path: Path) -> None:
    content = encoded("flac", 22_050, tone(0.5, 22_050)[np.newaxis])
    path = tmp_path / "sound with spaces and ümläut: 100%.flac"
    path.write_bytes(content)
    expected = decode_audio(content)
    np.testing.assert_array_equal(decode_audio(path), expected)
    np.testing.assert_array_equal(decode_audio(str(path)), expected)
    np.testing.assert_array_equal(decode_audio(memoryview(content)), expected)
    with path.open("rb") as file:
        np.testing.assert_array_equal(decode_audio(file), expected)
        assert not file.closed


@pytest.mark.parametrize("name", ["librivox-0880.flac", "two_cities.flac"])
def test_recordings_keep_their_length(name: str) -> None:
    with av.open(str(SPEECH / name)) as container:
        seconds = container.duration / av.time_base
    assert len(decode_audio(SPEECH / name)) == pytest.approx(seconds * SAMPLE_RATE, abs=16)


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 96_000])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, np.int32])
def test_samples_of_any_kind_and_rate(rate: int, dtype: type[Any]) -> None:
    sound = tone(1, rate)
    scale = 1 if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max
    samples = decode_audio((sound.astype(np.float64) * scale).astype(dtype), rate=rate)
    assert samples.dtype == np.float32
    assert len(samples) == pytest.approx(SAMPLE_RATE, abs=40)
    assert pitch(samples) == pytest.approx(440, abs=3)
    assert loudness(samples) == pytest.approx(0.5, rel=0.02)


def test_samples_may_have_channels_first_or_last() -> None:
    both = np.stack([tone(0.1, SAMPLE_RATE), np.zeros(1600, np.float32)])
    np.testing.assert_array_equal(decode_audio(both, rate=16_000), both[0] / 2)
    np.testing.assert_array_equal(decode_audio(both.T, rate=16_000), both[0] / 2)


def test_long_samples_are_resampled_without_a_seam() -> None:
    sound = tone(50, 48_000)  # more than one piece
    samples = decode_audio(sound, rate=48_000)
    np.testing.assert_allclose(samples[100:-100], tone(50, 16_000)[100:-100], atol=1e-3)


def test_the_callers_samples_are_not_changed() -> None:
    sound = tone(0.1, SAMPLE_RATE)
    kept = sound.copy()
    decode_audio(sound, rate=16_000)
    decode_audio(np.stack([sound, sound]), rate=8_000)
    np.testing.assert_array_equal(sound, kept)


@pytest.mark.parametrize(
    ("samples", "rate", "problem"),
    [
        (np.zeros(10, np.float32), None, "without their rate"),
        (np.zeros(10, np.float32), 0, "rate is 0"),
        (np.zeros((2, 2, 2), np.float32), 16_000, "3 dimensions"),
        (np.zeros(10, np.uint8), 16_000, "samples are uint8"),
        (np.array([0, np.nan], np.float32), 16_000, "not finite"),
    ],
)  # fmt: skip
def test_samples_that_make_no_sense_are_refused(samples: Any, rate: int | None, problem: str) -> None:
    with pytest.raises(AudioError, match=problem) as caught:
        decode_audio(samples, rate=rate)
    assert caught.value.fix


def test_no_samples_are_no_sound_and_no_error() -> None:
    assert decode_audio(np.zeros(0, np.float32), rate=48_000).shape == (0,)


def test_a_rate_for_a_file_is_refused() -> None:
    with pytest.raises(AudioError, match="which tells its own"):
        decode_audio(SPEECH / "librivox-0880.flac", rate=16_000)


def test_files_that_are_no_audio_are_refused(tmp_path: Path) -> None:
    for name, content in {"empty.wav": b"", "text.mp3": b"not audio at all, but text\n" * 50}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(AudioError, match=name) as caught:
            decode_audio(tmp_path / name)
        assert caught.value.fix
    with pytest.raises(AudioError, match=r"cannot open .*nothing\.wav: No such file"):
        decode_audio(tmp_path / "nothing.wav")
    with pytest.raises(AudioError, match="cannot open"):
        decode_audio(tmp_path)
    with pytest.raises(AudioError, match="audio is a int"):
        decode_audio(3)  # type: ignore[arg-type]


def test_a_file_without_sound_is_refused() -> None:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(SAMPLE_RATE)
    with pytest.raises(AudioError, match="holds no sound"):
        decode_audio(file.getvalue())


def test_a_video_without_sound_is_refused() -> None:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as out:
        stream = out.add_stream("mpeg4", rate=10, width=32, height=32, pix_fmt="yuv420p")
        for _ in range(3):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
        out.mux(stream.encode(None))
    with pytest.raises(AudioError, match="no audio stream"):
        decode_audio(file.getvalue())


def test_a_playlist_cannot_make_ffmpeg_open_other_files(tmp_path: Path) -> None:
    secret = tmp_path / "secret.ts"
    secret.write_bytes(encoded("ts", 48_000, tone(1, 48_000)[np.newaxis]))
    playlist = tmp_path / "list.m3u8"
    playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{secret}\n#EXT-X-ENDLIST\n")
    with av.open(str(playlist)) as container:  # FFmpeg by itself would
        assert container.streams.audio
    with pytest.raises(AudioError):
        decode_audio(playlist)
    with pytest.raises(AudioError):
        decode_audio(playlist.read_bytes())


@pytest.mark.parametrize(
    ("ending", "noticed"), [("wav", True), ("flac", True), ("webm", True), ("ogg", False), ("mp3", False)]
)
def test_a_file_that_breaks_off_gives_its_beginning(
    ending: str, noticed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    # Ogg and MP3 files do not say how long they are: that such a one was cut cannot be told.
    whole = encoded(ending, 48_000, tone(4, 48_000)[np.newaxis])
    with caplog.at_level(logging.WARNING, "hetero.whisper.audio"):
        samples = decode_audio(whole[: len(whole) // 2])
    assert SAMPLE_RATE < len(samples) < 3.2 * SAMPLE_RATE
    assert pitch(samples) == pytest.approx(440, abs=3)
    assert ("is damaged" in caplog.text) == noticed


@pytest.mark.parametrize("ending", ["flac", "mp3", "ogg", "m4a", "webm"])
def test_a_file_with_a_broken_part_gives_the_rest_and_a_warning(ending: str, caplog: pytest.LogCaptureFixture) -> None:
    content = bytearray(encoded(ending, 48_000, tone(8, 48_000)[np.newaxis]))
    middle, part = len(content) // 2, len(content) // 8
    content[middle : middle + part] = bytes(part)
    with caplog.at_level(logging.WARNING, "hetero.whisper.audio"):
        samples = decode_audio(bytes(content))
    assert len(samples) > 3 * SAMPLE_RATE
    assert np.isfinite(samples).all()
    assert "is damaged" in caplog.text


@pytest.mark.parametrize("ending", FORMATS)
def test_a_whole_file_gives_no_warning(ending: str, caplog: pytest.LogCaptureFixture) -> None:
    decode_audio(encoded(ending, 48_000, tone(4, 48_000)[np.newaxis]))
    assert not caplog.records


def test_a_float_file_with_values_that_are_no_numbers_gives_silence_there(caplog: pytest.LogCaptureFixture) -> None:
    sound = tone(1, SAMPLE_RATE)
    sound[100:200] = np.nan
    samples = decode_audio(encoded_float(sound))
    assert np.isfinite(samples).all()
    np.testing.assert_array_equal(samples[200:], sound[200:])
    assert "not finite" in caplog.text


def encoded_float(samples: NDArray[np.float32]) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="wav") as out:
        stream = out.add_stream("pcm_f32le", rate=SAMPLE_RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[np.newaxis], format="flt", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return file.getvalue()
