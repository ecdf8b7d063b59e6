"""Text to tokens and back, and the tokens that are not text."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hetero.errors import ModelError, OptionError
from hetero.whisper.languages import LANGUAGES, language_code
from hetero.whisper.tokenizer import TIMES, Tokenizer
from tests.whisper import scripted


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scripted.write_tokenizer(tmp_path_factory.mktemp("tokenizer") / "tokenizer.json")


@pytest.fixture(scope="module")
def tokenizer(path: Path) -> Tokenizer:
    return Tokenizer(path, multilingual=True)


@given(text=st.text().filter(lambda text: "<|" not in text))
def test_text_survives_the_round_trip(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(text=st.text().filter(lambda text: "<|" not in text), language=st.sampled_from(["en", "zh"]))
def test_words_joined_are_the_text(tokenizer: Tokenizer, text: str, language: str) -> None:
    tokens = tokenizer.encode(text)
    words = tokenizer.split(tokens, language)
    assert "".join(word for word, _ in words) == text
    assert [token for _, part in words for token in part] == tokens


@given(tokens=st.lists(st.integers(0, 255)))
def test_words_of_broken_text_are_its_tokens_too(tokenizer: Tokenizer, tokens: list[int]) -> None:
    assert [token for _, part in tokenizer.split(tokens) for token in part] == tokens


def test_words_take_their_space_and_characters_stay_whole(tokenizer: Tokenizer) -> None:
    assert [word for word, _ in tokenizer.split(tokenizer.encode(" Grüße an alle"))] == [" Grüße", " an", " alle"]
    assert [word for word, _ in tokenizer.split(tokenizer.encode("你好"), "zh")] == ["你", "好"]


def test_what_looks_like_a_special_token_does_not_become_one(tokenizer: Tokenizer) -> None:
    tokens = tokenizer.encode("a<|endoftext|>b<|de|>c")
    assert max(tokens) < tokenizer.end
    assert tokenizer.decode(tokens) == "abc"


def test_times_and_specials_are_not_text(tokenizer: Tokenizer) -> None:
    text = tokenizer.encode("hi")
    assert (
        tokenizer.decode([tokenizer.start, tokenizer.first_time, *text, tokenizer.first_time + 50, tokenizer.end])
        == "hi"
    )


def test_a_time_token_every_fiftieth_of_a_second(tokenizer: Tokenizer) -> None:
    assert tokenizer.seconds(tokenizer.first_time) == 0.0
    assert tokenizer.seconds(tokenizer.first_time + 127) == 2.54
    assert tokenizer.seconds(tokenizer.first_time + TIMES - 1) == 30.0


def test_prompts_say_language_task_and_times(path: Path, tokenizer: Tokenizer) -> None:
    de, transcribe = tokenizer.languages["de"], tokenizer.languages["zh"] + 2
    assert tokenizer.prompt("German") == [tokenizer.start, de, transcribe]
    assert tokenizer.prompt("de", "translate") == [tokenizer.start, de, transcribe - 1]
    assert tokenizer.prompt("de", timestamps=False)[-1] == tokenizer.no_timestamps
    assert Tokenizer(path, multilingual=False).prompt("en") == [tokenizer.start]


@pytest.mark.parametrize(
    ("multilingual", "language", "task", "problem"),
    [
        (True, "it", "transcribe", "language is Italian, but the model knows 5 languages"),
        (True, "klingon", "transcribe", "'klingon' is not known"),
        (True, "en", "summarise", "task is 'summarise'"),
        (False, "en", "translate", "cannot translate"),
    ],
)
def test_a_prompt_the_model_cannot_follow_is_refused(
    path: Path, multilingual: bool, language: str, task: str, problem: str
) -> None:
    with pytest.raises(OptionError, match=problem) as caught:
        Tokenizer(path, multilingual=multilingual).prompt(language, task)  # type: ignore[arg-type]
    assert caught.value.fix


def test_an_english_model_refuses_other_languages(path: Path) -> None:
    english = Tokenizer(path, multilingual=False)
    assert english.language("English") == "en"
    with pytest.raises(OptionError, match="knows English only"):
        english.language("de")


@pytest.mark.parametrize(
    ("said", "code"),
    [("en", "en"), ("DE", "de"), ("de-AT", "de"), ("pt_BR", "pt"), ("German", "de"), (" french ", "fr"),
     ("Mandarin", "zh"), ("haitian creole", "ht"), ("castilian", "es"), ("Cantonese", "yue")],
)  # fmt: skip
def test_languages_are_known_by_the_names_people_use(said: str, code: str) -> None:
    assert language_code(said) == code
    assert code in LANGUAGES


def test_a_mistyped_language_gets_a_suggestion() -> None:
    with pytest.raises(OptionError, match="did you mean german"):
        language_code("germann")


@pytest.mark.parametrize("content", ["", "{}", "not json"])
def test_a_broken_file_is_a_model_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ModelError, match=r"not a tokenizer\.json"):
        Tokenizer(tmp_path / "tokenizer.json", multilingual=True)


def test_another_models_tokenizer_is_a_model_error(tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Fast
    from tokenizers import models

    Fast(models.BPE(vocab={"a": 0}, merges=[])).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ModelError, match="not a Whisper tokenizer"):
        Tokenizer(tmp_path / "tokenizer.json", multilingual=True)
