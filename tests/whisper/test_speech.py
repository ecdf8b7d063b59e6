"""Real speech through real models, where their weights are installed."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import hetero
from hetero.whisper import Transcriber, Transcript, decode_audio
from hetero.whisper.models.carried import CARRIED

SPEECH = Path(__file__).parent.parent / "data" / "speech"
EXPECTED: dict[str, str] = json.loads((SPEECH / "transcripts.json").read_text(encoding="utf-8"))

SAID = {
    "en": "Good morning. The weather is very nice today, and we would like to walk in the park with the children.",
    "de": "Guten Morgen. Das Wetter ist heute sehr schön, und wir möchten mit den Kindern im Park spazieren gehen.",
    "fr": "Bonjour. Il fait très beau aujourd'hui, et nous voudrions nous promener dans le parc avec les enfants.",
    "es": "Buenos días. Hoy hace muy buen tiempo, y nos gustaría pasear por el parque con los niños.",
}


def transcriber(name: str) -> Iterator[Transcriber]:
    for module in ("onnxruntime", "av", "tokenizers"):
        pytest.importorskip(module, reason=f"{module} is not installed")
    if CARRIED[name].find() is None:
        pytest.skip(f"the weights of {name} are not installed: {CARRIED[name].install}")
    from hetero_cpu.backend import CpuBackend

    # One thread: the tests run beside each other.
    with (
        hetero.Runtime(backends=(CpuBackend,), plugins=False, options={"cpu": {"threads": 1}}) as runtime,
        Transcriber(name, runtime=runtime) as made,
    ):
        yield made


@pytest.fixture(scope="module")
def tiny() -> Iterator[Transcriber]:
    yield from transcriber("tiny.en")


@pytest.fixture(scope="module")
def base() -> Iterator[Transcriber]:
    yield from transcriber("base")


@pytest.fixture(scope="module")
def transcripts(tiny: Transcriber) -> dict[str, Transcript]:
    return {name: tiny.transcribe(SPEECH / name) for name in EXPECTED}


def test_at_most_one_word_in_twenty_is_wrong(transcripts: dict[str, Transcript]) -> None:
    jiwer = pytest.importorskip("jiwer", reason="jiwer is not installed")
    english = pytest.importorskip("whisper_normalizer.english", reason="whisper_normalizer is not installed")
    normal = english.EnglishTextNormalizer()
    said = [normal(transcripts[name].text) for name in EXPECTED]
    assert jiwer.wer([normal(text) for text in EXPECTED.values()], said) <= 0.05


def test_segments_are_in_order_within_the_recording(transcripts: dict[str, Transcript]) -> None:
    for transcript in transcripts.values():
        moments = [moment for segment in transcript.segments for moment in (segment.start, segment.end)]
        assert moments == sorted(moments)
        assert moments[0] >= 0
        assert moments[-1] <= transcript.duration
        assert all(segment.text == segment.text.strip() != "" for segment in transcript.segments)


def test_long_speech_crosses_a_window_without_losing_a_word(transcripts: dict[str, Transcript]) -> None:
    segments = transcripts["two_cities.flac"].segments
    assert segments[0].text == "It was the best of times, it was the worst of times."
    across = [segment for segment in segments if segment.start < 30 < segment.end]
    assert across
    assert across[0].text.startswith("In short, the period")
    assert segments[-1].end == pytest.approx(41.7, abs=0.3)


def test_every_stage_ran_on_the_cpu(transcripts: dict[str, Transcript]) -> None:
    for transcript in transcripts.values():
        assert {stage: set(devices) for stage, devices in transcript.devices.items()} == {
            "encoder": {"cpu"},
            "cross": {"cpu"},
            "decoder": {"cpu"},
        }


def test_the_rate_and_the_form_of_the_audio_make_no_difference(tiny: Transcriber) -> None:
    path = SPEECH / "librivox-0930.flac"
    samples = decode_audio(path)
    expected = tiny.transcribe(path).text
    assert tiny.transcribe(samples, rate=16_000).text == expected
    assert tiny.transcribe(path.read_bytes()).text == expected
    assert tiny.transcribe((samples * 32768).astype(np.int16), rate=16_000).text == expected


def test_a_prompt_teaches_spelling(tiny: Transcriber) -> None:
    path = SPEECH / "librivox-0870.flac"
    assert "John Dashwood" in tiny.transcribe(path).text
    assert "Jon Dashwoode" in tiny.transcribe(path, initial_prompt="Jon Dashwoode, Jon Dashwoode said.").text


def test_silence_is_no_text(tiny: Transcriber) -> None:
    assert tiny.transcribe(np.zeros(16_000 * 40, np.float32), rate=16_000, temperature=0).text == ""


def test_text_without_timestamps_has_the_same_words(tiny: Transcriber, transcripts: dict[str, Transcript]) -> None:
    found = tiny.transcribe(SPEECH / "librivox-0920.flac", without_timestamps=True)
    assert len(found.segments) == 1
    assert found.text == transcripts["librivox-0920.flac"].text


def test_equal_seeds_give_equal_texts(tiny: Transcriber) -> None:
    path = SPEECH / "librivox-0880.flac"
    texts = [tiny.transcribe(path, temperature=1.0, seed=seed, logprob_threshold=None).text for seed in (3, 3)]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("language", SAID)
def test_the_language_spoken_is_detected(base: Transcriber, tmp_path: Path, language: str) -> None:
    espeak = shutil.which("espeak-ng")
    if espeak is None:
        pytest.skip("espeak-ng is not installed: apt install espeak-ng")
    path = tmp_path / "speech.wav"
    subprocess.run([espeak, "-v", language, "-s", "140", "-w", str(path), SAID[language]], check=True)
    found = base.detect_language(path)
    assert found[0][0] == language
    assert found[0][1] > 2 * found[1][1]
    transcript = base.transcribe(path)
    assert transcript.language == language
    assert transcript.language_probability == pytest.approx(found[0][1], abs=1e-3)


def test_real_english_is_english(base: Transcriber) -> None:
    assert base.detect_language(SPEECH / "two_cities.flac")[0][0] == "en"
