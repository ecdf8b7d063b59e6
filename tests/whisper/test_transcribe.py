"""The pipeline, from samples to segments, with a model that says what the test wrote."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import hetero
from hetero import errors
from hetero.whisper import Segment, Transcriber, Transcript, log_mel
from hetero.whisper.tokenizer import Tokenizer
from hetero.whisper.transcribe import SegmentOptions
from hetero.whisper.transcription import spectrogram
from tests.whisper import scripted
from tests.whisper.scripted import Script, Scripted, after_prompt, saying, time
from tests.whisper.sound import sweep

Make = Callable[..., Transcriber]


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    return Tokenizer(scripted.write_tokenizer(tmp_path / "tokenizer.json"), multilingual=True)


@pytest.fixture
def make(make_runtime: Callable[..., hetero.Runtime], tmp_path: Path) -> Iterator[Make]:
    """Makes Transcribers that follow a script."""
    made: list[Transcriber] = []

    def transcriber(script: Script, *backends: Any, multilingual: bool = True, **options: Any) -> Transcriber:
        model = scripted.scripted(tmp_path, script, multilingual=multilingual)
        made.append(Transcriber(model, runtime=make_runtime(*(backends or (Scripted,))), **options))
        return made[-1]

    yield transcriber
    for transcriber_ in made:
        transcriber_.close()


def sound(seconds: float) -> NDArray[np.float32]:
    return np.resize(sweep(2), int(seconds * 16_000))


def cues(transcript: Transcript) -> list[tuple[float, float, str]]:
    return [(segment.start, segment.end, segment.text) for segment in transcript.segments]


def test_a_short_recording(make: Make, tokenizer: Tokenizer) -> None:
    transcriber = make(saying(tokenizer, [0.0, " Hello there.", 1.5, 2.0, " Bye.", 4.0]))
    transcript = transcriber.transcribe(sound(5), rate=16_000)
    assert cues(transcript) == [(0.0, 1.5, "Hello there."), (2.0, 4.0, "Bye.")]
    assert transcript.text == "Hello there. Bye."
    assert [segment.id for segment in transcript.segments] == [0, 1]
    assert transcript.duration == 5.0
    assert transcript.language == "en"
    assert transcript.language_probability == pytest.approx(1)
    assert transcript.segments[0].tokens == (
        time(tokenizer, 0),
        *tokenizer.encode(" Hello there."),
        time(tokenizer, 1.5),
    )


def test_long_audio_seeks_by_the_last_pair_of_times(make: Make, tokenizer: Tokenizer) -> None:
    script = saying(
        tokenizer,
        [0.0, "one", 10.0, 10.0, "two", 24.0, 24.0, "thr"],
        [0.0, "three", 20.0, 21.0, "four", 29.0],
        [0.5, "five", 5.0],
    )
    transcript = make(script).transcribe(sound(65), rate=16_000)
    assert cues(transcript) == [
        (0.0, 10.0, "one"),
        (10.0, 24.0, "two"),
        (24.0, 44.0, "three"),
        (45.0, 53.0, "four"),
        (54.5, 59.0, "five"),
    ]


def test_each_window_is_the_sound_that_begins_there(make: Make, tokenizer: Tokenizer) -> None:
    mels: list[NDArray[np.float32]] = []

    class Listening(Scripted):
        def load(self, program: Any, device: Any, options: Any) -> Any:
            executable = super().load(program, device, options)
            if program.name.endswith("encoder"):
                run = executable.run
                executable.run = lambda inputs, call: (mels.append(inputs["mel"].copy()), run(inputs, call))[1]  # type: ignore[method-assign,func-returns-value]
            return executable

    samples = sound(50) * np.linspace(0.1, 1, 50 * 16_000, dtype=np.float32)
    make(saying(tokenizer, [0.0, "a", 24.0, 24.0, "b"], [0.0, "c", 9.0]), Listening).transcribe(samples, rate=16_000)
    whole = log_mel(samples, padding=480_000)
    np.testing.assert_allclose(mels[0][0], whole[:, :3000], atol=1e-6)
    np.testing.assert_allclose(mels[1][0, :, :2600], whole[:, 2400:5000], atol=1e-6)
    assert not mels[1][0, :, 2600:].any()
    assert len(mels) == 2


def prompts(make: Make, tokenizer: Tokenizer, texts: list[list[float | str]], **options: Any) -> list[list[int]]:
    """What stands before the transcript in each window."""
    seen: dict[int, list[int]] = {}
    script = saying(tokenizer, *texts)

    def listening(window: int, tokens: list[int]) -> Any:
        if len(tokens) > 1 and tokenizer.start in tokens:
            seen.setdefault(window, tokens[: tokens.index(tokenizer.start)])
        return script(window, tokens)

    make(listening).transcribe(sound(80), rate=16_000, language="en", **options)
    return [seen[window] for window in sorted(seen)]


WINDOWS: list[list[float | str]] = [[0.0, "one", 30.0], [0.0, "two", 29.0], [0.0, "three", 10.0]]


def test_what_was_said_goes_before_the_next_window(make: Make, tokenizer: Tokenizer) -> None:
    one = [time(tokenizer, 0), *tokenizer.encode("one"), time(tokenizer, 30)]
    two = [time(tokenizer, 0), *tokenizer.encode("two"), time(tokenizer, 29)]
    assert prompts(make, tokenizer, WINDOWS) == [[], [tokenizer.previous, *one], [tokenizer.previous, *one, *two]]


def test_windows_can_be_independent(make: Make, tokenizer: Tokenizer) -> None:
    assert prompts(make, tokenizer, WINDOWS, condition_on_previous_text=False) == [[], [], []]


def test_a_prompt_goes_before_the_first_window(make: Make, tokenizer: Tokenizer) -> None:
    first, second, _ = prompts(make, tokenizer, WINDOWS, initial_prompt=" Names: Ann ")
    assert first == [tokenizer.previous, *tokenizer.encode(" Names: Ann")]
    assert second[: len(first)] == first
    first, second, _ = prompts(make, tokenizer, WINDOWS, initial_prompt="Names: Ann", condition_on_previous_text=False)
    assert first
    assert not second


def test_only_the_last_223_tokens_go_before(make: Make, tokenizer: Tokenizer) -> None:
    first = prompts(make, tokenizer, WINDOWS, initial_prompt="ab" * 300)[0]
    assert len(first) == 1 + 223
    assert tokenizer.decode(first) == ("ab" * 300)[-223:]


def test_a_text_found_at_a_high_temperature_does_not_go_before(make: Make, tokenizer: Tokenizer) -> None:
    assert prompts(make, tokenizer, WINDOWS, temperature=0.6) == [[], [], []]
    assert prompts(make, tokenizer, WINDOWS, temperature=0.4)[1]


def test_an_endless_text_meets_the_cap(make: Make, tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture) -> None:
    def endless(window: int, tokens: list[int]) -> int:
        said = after_prompt(tokens, tokenizer)
        if said is None:
            return tokenizer.languages["en"]
        return time(tokenizer, 0) if not said else 65

    transcriber = make(endless)
    transcript = transcriber.transcribe(sound(70), rate=16_000, temperature=(0.0, 0.4))
    # From the second window on the text before it takes some of the decoder's 448 places.
    assert [len(segment.tokens) for segment in transcript.segments] == [224, 222, 222]
    assert "cut after 224 tokens" in caplog.text
    transcript = transcriber.transcribe(sound(20), rate=16_000, temperature=0, max_tokens=10)
    assert [len(segment.tokens) for segment in transcript.segments] == [10]


def test_times_that_hardly_go_on_do_not_hang(make: Make, tokenizer: Tokenizer) -> None:
    transcriber = make(saying(tokenizer, [0.0, "a", 0.02, 0.02, "b"]))
    transcript = transcriber.transcribe(sound(60), rate=16_000)
    assert transcript.devices["encoder"]["scripted"] <= 2 * 61
    starts = [segment.start for segment in transcript.segments]
    assert starts == sorted(starts)


def test_a_text_that_repeats_itself_is_tried_at_a_higher_temperature(make: Make, tokenizer: Tokenizer) -> None:
    loop, fine = tokenizer.encode("na " * 70), tokenizer.encode("It is fine.")

    def script(window: int, tokens: list[int]) -> int | Mapping[int, float]:
        said = after_prompt(tokens, tokenizer)
        if not said:
            return tokenizer.languages["en"] if said is None else time(tokenizer, 0)
        if len(said) == 1:
            # The likeliest first word leads into a loop; drawn at random it is the other one nine times out of ten.
            return {loop[0]: 1.0} | {fine[0]: 0.9999}
        text = loop if said[1] == loop[0] else fine
        done = len(said) - 1
        return text[done] if done < len(text) else tokenizer.end

    transcript = make(script).transcribe(sound(20), rate=16_000, seed=1)
    assert transcript.text == "It is fine."
    assert transcript.segments[0].temperature > 0
    greedy = make(script).transcribe(sound(20), rate=16_000, temperature=0)
    assert greedy.segments[0].compression_ratio > 2.4
    assert make(script).transcribe(sound(20), rate=16_000, compression_ratio_threshold=None).text == greedy.text


def silent_first(tokenizer: Tokenizer) -> Script:
    """In the first window the model hears nothing, and says an uncertain word."""
    say = saying(tokenizer, [0.0, "um", 2.0], [0.0, "Hello.", 2.0])

    def script(window: int, tokens: list[int]) -> int | Mapping[int, float]:
        wanted = say(window, tokens)
        if window or not isinstance(wanted, int):
            return wanted
        if tokens[-1] == tokenizer.start:
            return {tokenizer.no_speech: 5.0, tokenizer.languages["en"]: 1.0}
        return {wanted: 0.0} | dict.fromkeys(range(250), -0.01)

    return script


def test_windows_without_speech_are_passed_over(make: Make, tokenizer: Tokenizer) -> None:
    transcript = make(silent_first(tokenizer)).transcribe(sound(40), rate=16_000)
    assert cues(transcript) == [(30.0, 32.0, "Hello.")]
    heard = make(silent_first(tokenizer)).transcribe(
        sound(40), rate=16_000, no_speech_threshold=None, logprob_threshold=None
    )
    assert len(heard.segments) == 2
    assert heard.segments[0].no_speech_prob > 0.9


def test_windows_without_any_sound_are_not_even_listened_to(make: Make, tokenizer: Tokenizer) -> None:
    transcriber = make(saying(tokenizer, [0.0, "a", 20.0], [0.0, "b", 20.0]))
    samples = np.concatenate([sound(29.9), np.zeros(16_000 * 32, np.float32), sound(28)])
    transcript = transcriber.transcribe(samples, rate=16_000, language="en")
    assert cues(transcript) == [(0.0, 20.0, "a"), (60.0, 80.0, "b")]
    assert transcript.devices["encoder"] == {"scripted": 2}
    quiet = transcriber.transcribe(
        samples[16_000 * 30 : 16_000 * 60], rate=16_000, language="en", no_speech_threshold=None
    )
    assert quiet.devices["encoder"] == {"scripted": 1}


def test_without_timestamps_a_window_is_a_segment(make: Make, tokenizer: Tokenizer) -> None:
    seen: list[list[int]] = []
    script = saying(tokenizer, ["all of it"], ["the rest"])

    def listening(window: int, tokens: list[int]) -> Any:
        seen.append(tokens)
        return script(window, tokens)

    transcript = make(listening).transcribe(sound(45), rate=16_000, without_timestamps=True)
    assert cues(transcript) == [(0.0, 30.0, "all of it"), (30.0, 45.0, "the rest")]
    assert sum(tokens[-1] == tokenizer.no_timestamps for tokens in seen) == 2


def test_times_behind_the_end_of_the_sound_are_the_end(make: Make, tokenizer: Tokenizer) -> None:
    transcript = make(saying(tokenizer, [0.0, "a", 2.0, 2.0, "b", 7.0])).transcribe(sound(5.123), rate=16_000)
    assert cues(transcript) == [(0.0, 2.0, "a"), (2.0, 5.123, "b")]


def test_what_is_said_of_the_filling_behind_the_sound_is_left_out(make: Make, tokenizer: Tokenizer) -> None:
    transcript = make(saying(tokenizer, [0.0, "a", 4.0, 5.0, "b", 7.0])).transcribe(sound(5), rate=16_000)
    assert cues(transcript) == [(0.0, 4.0, "a")]
    # A word of half a second that the model puts a little later is still a word.
    transcript = make(saying(tokenizer, [0.6, "Yes.", 1.0])).transcribe(sound(0.5), rate=16_000)
    assert cues(transcript) == [(0.5, 0.5, "Yes.")]


def test_segments_without_text_are_left_out(make: Make, tokenizer: Tokenizer) -> None:
    transcript = make(saying(tokenizer, [0.0, " ", 2.0, 2.0, "b", 4.0])).transcribe(sound(5), rate=16_000)
    assert cues(transcript) == [(2.0, 4.0, "b")]
    assert transcript.segments[0].id == 0


def test_a_part_of_the_audio_keeps_its_times(make: Make, tokenizer: Tokenizer) -> None:
    transcript = make(saying(tokenizer, [0.0, "a", 2.0])).transcribe(sound(20), rate=16_000, start=5.5, end=9.0)
    assert cues(transcript) == [(5.5, 7.5, "a")]
    assert transcript.duration == 3.5


@pytest.mark.parametrize("samples", [0, 100, 1500])
def test_next_to_no_audio_is_no_text(make: Make, tokenizer: Tokenizer, samples: int) -> None:
    transcript = make(saying(tokenizer, ["x"])).transcribe(np.zeros(samples, np.float32), rate=16_000)
    assert (transcript.text, transcript.segments, transcript.devices) == ("", (), {})
    json.dumps(transcript.to_dict())


def test_the_language_is_detected_once_and_without_hearing_twice(make: Make, tokenizer: Tokenizer) -> None:
    transcriber = make(saying(tokenizer, [0.0, "Guten Tag.", 29.0], language="de"))
    transcription = transcriber.segments(sound(40), rate=16_000)
    assert transcription.language == "de"
    assert transcription.language_probability == pytest.approx(1)
    transcript = transcription.transcript()
    assert transcript.language == "de"
    assert transcript.devices["encoder"] == {"scripted": 2}
    assert [segment.text for segment in transcript.segments] == ["Guten Tag."] * 2


@pytest.mark.parametrize(("language", "task"), [("German", "transcribe"), ("fr", "translate")])
def test_the_prompt_says_the_language_and_the_task_asked_for(
    make: Make, tokenizer: Tokenizer, language: str, task: Any
) -> None:
    seen: list[list[int]] = []
    script = saying(tokenizer, [0.0, "x", 2.0])

    def listening(window: int, tokens: list[int]) -> Any:
        seen.append(tokens)
        return script(window, tokens)

    transcript = make(listening).transcribe(sound(4), rate=16_000, language=language, task=task)
    assert seen[1][:3] == tokenizer.prompt(language, task)
    assert (transcript.language, transcript.task) == (tokenizer.language(language), task)
    assert transcript.language_probability is None


def test_languages_of_a_recording(make: Make, tokenizer: Tokenizer) -> None:
    found = make(saying(tokenizer, ["x"], language="fr")).detect_language(sound(2), rate=16_000)
    assert found[0][0] == "fr"
    assert found[0][1] == pytest.approx(1)
    assert len(found) == 5


def test_an_english_model_has_no_languages_to_detect(make: Make, tokenizer: Tokenizer) -> None:
    english = Tokenizer(scripted.write_tokenizer(Path(tokenizer._path)), multilingual=False)
    transcriber = make(saying(english, [0.0, "Hi.", 2.0]), multilingual=False)
    transcript = transcriber.transcribe(sound(4), rate=16_000)
    assert (transcript.text, transcript.language, transcript.language_probability) == ("Hi.", "en", None)
    with pytest.raises(errors.OptionError, match="knows English only"):
        transcriber.detect_language(sound(2), rate=16_000)
    with pytest.raises(errors.OptionError, match="knows English only"):
        transcriber.transcribe(sound(2), rate=16_000, language="de")
    with pytest.raises(errors.OptionError, match="cannot translate"):
        transcriber.transcribe(sound(2), rate=16_000, task="translate")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"language": "tlh"}, "'tlh' is not known"),
        ({"task": "sing"}, "task is 'sing'"),
        ({"temperature": ()}, "temperature is"),
        ({"temperature": -1}, "temperature is -1"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"max_tokens": 225}, "max_tokens is 225"),
        ({"start": -1}, "start is -1"),
        ({"start": 3, "end": 2}, "end is 2"),
    ],
)  # fmt: skip
def test_options_are_refused_before_the_audio_is_opened(
    make: Make, tokenizer: Tokenizer, options: dict[str, Any], problem: str
) -> None:
    transcriber = make(saying(tokenizer, ["x"]))
    with pytest.raises(errors.OptionError, match=problem) as caught:
        transcriber.segments("no-such-file.wav", **options)
    assert caught.value.fix


def test_a_start_behind_the_end_is_an_error(make: Make, tokenizer: Tokenizer) -> None:
    with pytest.raises(errors.AudioError, match="ends before start=30"):
        make(saying(tokenizer, ["x"])).segments(sound(2), rate=16_000, start=30)


def test_transcribe_takes_the_options_of_segments() -> None:
    assert set(SegmentOptions.__annotations__) == set(signature(Transcriber.segments).parameters) - {"self", "audio"}


def test_segments_come_as_they_are_found(make: Make, tokenizer: Tokenizer) -> None:
    transcriber = make(saying(tokenizer, [0.0, "one", 29.0], [0.0, "two", 29.0], [0.0, "three", 29.0]))
    progress: list[tuple[float, float]] = []
    segments = transcriber.segments(
        sound(75), rate=16_000, language="en", progress=lambda done, total: progress.append((done, total))
    )
    first = next(segments)
    assert isinstance(first, Segment)
    assert segments.found == [first]
    assert progress == []
    assert [segment.text for segment in segments] == ["two", "three"]
    assert progress == [(30.0, 75.0), (60.0, 75.0), (75.0, 75.0), (75.0, 75.0)]
    assert [segment.text for segment in segments.transcript().segments] == ["one", "two", "three"]


def test_what_a_callback_raises_ends_the_transcription(make: Make, tokenizer: Tokenizer) -> None:
    def stop(done: float, total: float) -> None:
        raise KeyboardInterrupt

    transcriber = make(saying(tokenizer, [0.0, "one", 29.0]))
    with pytest.raises(KeyboardInterrupt):
        transcriber.transcribe(sound(75), rate=16_000, progress=stop)
    assert transcriber.transcribe(sound(5), rate=16_000).text == "one"


def test_the_account_says_what_ran_where(make: Make, tokenizer: Tokenizer) -> None:
    transcript = make(saying(tokenizer, [0.0, "ab", 4.0])).transcribe(sound(5), rate=16_000, language="en")
    # The prompt, and each token after it but the last.
    assert transcript.devices == {"encoder": {"scripted": 1}, "cross": {"scripted": 1}, "decoder": {"scripted": 5}}
    assert (transcript.simulated, transcript.fell_back) == ((), 0)
    assert set(transcript.timings) == {"audio", "mel", "encoder", "cross", "decoder"}
    assert all(seconds >= 0 for seconds in transcript.timings.values())
    assert sum(transcript.timings.values()) <= transcript.seconds
    assert transcript.realtime_factor == transcript.seconds / 5
    assert json.loads(json.dumps(transcript.to_dict()))["devices"] == transcript.devices


class Failing(Scripted):
    """A device whose decoder fails from its third request on."""

    name = "npu"
    simulated = True

    def probe(self) -> Any:
        return [hetero.Device("npu", kind="npu", simulated=True)]

    def load(self, program: Any, device: Any, options: Any) -> Any:
        executable = super().load(program, device, options)
        if program.name.endswith("decoder"):
            run, calls = executable.run, itertools.count(1)

            def failing(inputs: Any, call: Any) -> Any:
                if next(calls) >= 3:
                    raise errors.DeviceLost("gone")
                return run(inputs, call)

            executable.run = failing  # type: ignore[method-assign]
        return executable


def test_a_device_that_fails_midway_costs_no_word_and_is_told_of(make: Make, tokenizer: Tokenizer) -> None:
    transcriber = make(saying(tokenizer, [0.0, "hello", 4.0]), Failing, Scripted)
    transcript = transcriber.transcribe(sound(5), rate=16_000, language="en")
    assert transcript.text == "hello"
    assert transcript.devices["encoder"] == {"npu": 1}
    assert transcript.devices["decoder"]["npu"] == 2
    assert transcript.devices["decoder"]["scripted"] == 6
    assert transcript.simulated == ("npu",)
    assert transcript.fell_back >= 1
    assert list(transcript.passed_over) == ["decoder"]
    assert transcript.passed_over["decoder"]["npu (simulated): run failed: DeviceLost: gone"] == 1


def test_a_forbidden_fallback_is_an_error(make: Make, tokenizer: Tokenizer) -> None:
    transcriber = make(saying(tokenizer, [0.0, "hello", 4.0]), Failing, Scripted, fallback="forbid")
    with pytest.raises(errors.FallbackForbidden):
        transcriber.transcribe(sound(5), rate=16_000, language="en")


def test_transcriptions_at_the_same_time_do_not_mix(make: Make, tokenizer: Tokenizer) -> None:
    transcriber = make(saying(tokenizer, [0.0, "hello", 4.0]))
    alone = transcriber.transcribe(sound(5), rate=16_000, language="en")
    together = threading.Barrier(4)

    def work(_: int) -> Transcript:
        together.wait()
        return transcriber.transcribe(sound(5), rate=16_000, language="en")

    with ThreadPoolExecutor(4) as pool:
        for transcript in pool.map(work, range(4)):
            assert transcript.text == "hello"
            assert transcript.devices == alone.devices


def test_the_encoder_alone(make: Make, tokenizer: Tokenizer) -> None:
    transcriber = make(saying(tokenizer, ["x"]))
    hidden = transcriber.encode(sound(65), rate=16_000)
    assert hidden.shape == (3, 1500, 4)
    assert hidden.dtype == np.float32
    assert hidden[:, 0, 0].tolist() == [0, 1, 2]
    assert transcriber.encode(spectrogram(sound(3), 80)).shape == (1, 1500, 4)
    assert transcriber.encode(np.zeros((2, 80, 3000), np.float32)).shape == (2, 1500, 4)
    assert transcriber.encode(np.zeros((2, 80, 4000), np.float32)).shape == (4, 1500, 4)


@pytest.mark.parametrize(
    "mel", [np.zeros((128, 3000), np.float32), np.zeros((80, 3000)), np.zeros((1, 2, 9), np.float32)]
)
def test_a_spectrogram_that_does_not_fit_is_refused(make: Make, tokenizer: Tokenizer, mel: NDArray[Any]) -> None:
    with pytest.raises(errors.InputError, match="expected float32 with 80") as caught:
        make(saying(tokenizer, ["x"])).encode(mel)
    assert "rate=" in caught.value.fix


def test_no_audio_has_no_encoding_and_no_language(make: Make, tokenizer: Tokenizer) -> None:
    transcriber = make(saying(tokenizer, ["x"]))
    for door in (transcriber.encode, transcriber.detect_language):
        with pytest.raises(errors.AudioError, match="no samples"):
            door(np.zeros(0, np.float32), rate=16_000)


def test_a_closed_transcriber_says_so(make: Make, tokenizer: Tokenizer) -> None:
    transcriber = make(saying(tokenizer, [0.0, "a", 29.0]))
    begun = transcriber.segments(sound(70), rate=16_000)
    next(begun)
    with transcriber:
        pass
    transcriber.close()
    with pytest.raises(errors.ClosedError):
        next(begun)
    with pytest.raises(errors.ClosedError):
        transcriber.transcribe(sound(2), rate=16_000)
    with pytest.raises(errors.ClosedError):
        transcriber.encode(sound(2), rate=16_000)


def test_a_runtime_that_was_given_is_left_open(make: Make, tokenizer: Tokenizer) -> None:
    transcriber = make(saying(tokenizer, [0.0, "a", 2.0]))
    runtime = transcriber.sessions.encoder._runtime
    transcriber.close()
    runtime.load(scripted.scripted(Path(tokenizer._path).parent, saying(tokenizer, ["x"])).encoder).close()
