"""What may be said next, how it is chosen, when it is tried again."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hetero.errors import WrongAnswer
from hetero.whisper.decoding import (
    Decoded,
    Found,
    Logits,
    OneByOne,
    Rules,
    State,
    Strategy,
    Thresholds,
    WindowDecoder,
    compression_ratio,
    language_probabilities,
)
from hetero.whisper.tokenizer import Tokenizer
from tests.whisper import scripted
from tests.whisper.scripted import VOCABULARY, scores, time

RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = scripted.write_tokenizer(tmp_path_factory.mktemp("tokenizer") / "tokenizer.json")
    return Tokenizer(path, multilingual=True)


class FakeState:
    """A decoder that gives the logits a test wrote, and keeps what it was fed."""

    def __init__(self, answer: Callable[[list[int]], Logits]) -> None:
        self.tokens: list[int] = []
        self.steps = 0
        self._answer = answer

    def step(self, tokens: NDArray[np.int64], logits_at: Sequence[int] | None = None) -> Logits:
        assert tokens.dtype == np.int64
        self.steps += 1
        before = len(self.tokens)
        self.tokens += tokens[0].tolist()
        places = [tokens.shape[1] - 1] if logits_at is None else logits_at
        return np.stack([self._answer(self.tokens[: before + at + 1]) for at in places])[np.newaxis]

    def truncate(self, length: int) -> None:
        assert length <= len(self.tokens)
        del self.tokens[length:]


def paper(
    logits: Logits, said: list[int], tokenizer: Tokenizer, banned: set[int], first: set[int]
) -> NDArray[np.bool_]:
    """Which tokens may follow, written as the rules are told: one condition after another over the whole vocabulary."""
    allowed = np.ones(VOCABULARY, np.bool_)
    time0, end = tokenizer.first_time, tokenizer.end
    for token in range(VOCABULARY):
        allowed[token] = token not in banned and not end < token < time0 and not (not said and token in first)
    times = [token for token in said if token >= time0]
    if not said:
        allowed[:time0] = False
        allowed[time0 + 51 :] = False
    elif said[-1] >= time0:
        if len(said) == 1 or said[-2] >= time0:
            allowed[time0:] = False
        else:
            allowed[:end] = False
    if times:
        closes = said[-1] >= time0 and len(said) > 1 and said[-2] < time0
        allowed[time0 : times[-1] + (0 if closes else 1)] = False
    chances = np.where(allowed, np.exp(logits.astype(np.float64)), 0)
    if chances[time0:].sum() > chances[:time0].max():
        allowed[:time0] = False
    return allowed


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_rules_are_those_of_the_paper(tokenizer: Tokenizer, data: st.DataObject) -> None:
    text, times = st.integers(0, 255), st.integers(tokenizer.first_time, tokenizer.first_time + 1500)
    said = data.draw(st.lists(text | times, max_size=8))
    banned = data.draw(st.sets(st.integers(0, VOCABULARY - 1), max_size=20)) - {tokenizer.end}
    first = data.draw(st.sets(st.integers(0, 255), max_size=5))
    logits = np.random.default_rng(data.draw(st.integers(0, 2**32))).normal(0, 3, VOCABULARY).astype(np.float32)
    logits[tokenizer.first_time :] += data.draw(st.sampled_from([-9, 0, 9]))
    expected = paper(logits, said, tokenizer, banned, first)
    low, high = Rules(tokenizer, sorted(banned), sorted(first)).restrict(logits, said)
    allowed = np.zeros(VOCABULARY, np.bool_)
    allowed[low:high] = np.isfinite(logits[low:high])
    np.testing.assert_array_equal(allowed, expected)


def test_without_timestamps_none_can_be_said(tokenizer: Tokenizer) -> None:
    logits = scores({tokenizer.first_time: 9.0, 7: 1.0})
    low, high = Rules(tokenizer, timestamps=False).restrict(logits, [])
    assert low + logits[low:high].argmax() == 7


def test_a_model_cannot_ban_the_end(tokenizer: Tokenizer) -> None:
    rules = Rules(tokenizer, range(VOCABULARY), timestamps=False)
    assert search(tokenizer, [5], rules=rules).tokens == ()


def search(
    tokenizer: Tokenizer, said: Sequence[int], *, rules: Rules | None = None, temperature: float = 0.0, limit: int = 99
) -> Found:
    state = FakeState(lambda tokens: scores([*said, tokenizer.end][min(len(tokens) - 1, len(said))]))
    logits = state.step(np.zeros((1, 1), np.int64))[0, -1]
    rules = rules or Rules(tokenizer, timestamps=False)
    return OneByOne(temperature, np.random.default_rng(0)).search(state, logits, rules, limit)


def test_greedy_says_the_likeliest_until_the_end(tokenizer: Tokenizer) -> None:
    found = search(tokenizer, [5, 6, 7])
    assert (found.tokens, found.ended) == ((5, 6, 7), True)
    assert found.logprob == pytest.approx(0, abs=1e-4)


def test_the_cap_is_hard(tokenizer: Tokenizer) -> None:
    found = search(tokenizer, [5] * 1000, limit=17)
    assert (found.tokens, found.ended) == ((5,) * 17, False)


def test_logprob_is_the_sum_over_what_was_allowed_and_the_end_counts(tokenizer: Tokenizer) -> None:
    # Of three equal tokens one is banned: each of the others has probability 1/2.
    equal = np.full(VOCABULARY, -np.inf, np.float32)
    equal[[5, 6, 7]] = 1.0
    last = np.full(VOCABULARY, -np.inf, np.float32)
    last[[tokenizer.end, 8]] = (2.0, 1.0)
    state = FakeState(lambda tokens: last)
    found = OneByOne(0.0, RANDOM).search(state, equal, Rules(tokenizer, [5], timestamps=False), 9)
    assert found.tokens == (6,)
    assert found.logprob == pytest.approx(math.log(0.5) + math.log(math.e / (math.e + 1)), abs=1e-5)


def test_draws_follow_the_temperature(tokenizer: Tokenizer) -> None:
    logits = np.full(VOCABULARY, -np.inf, np.float32)
    logits[[5, 6, 7]] = np.log([0.7, 0.2, 0.1])
    rules = Rules(tokenizer, timestamps=False)
    for temperature in (0.5, 1.0):
        random = np.random.default_rng(1)
        strategy = OneByOne(temperature, random)
        drawn = [strategy.search(FakeState(lambda tokens: logits), logits, rules, 1).tokens[0] for _ in range(4000)]
        wanted = np.array([0.7, 0.2, 0.1]) ** (1 / temperature)
        found = np.bincount(drawn, minlength=8)[5:] / len(drawn)
        np.testing.assert_allclose(found, wanted / wanted.sum(), atol=0.03)


def test_what_is_drawn_is_never_banned_and_the_seed_decides(tokenizer: Tokenizer) -> None:
    flat = np.zeros(VOCABULARY, np.float32)
    rules = Rules(tokenizer, range(10, 256))

    def draw(seed: int) -> tuple[int, ...]:
        return OneByOne(1.0, np.random.default_rng(seed)).search(FakeState(lambda tokens: flat), flat, rules, 50).tokens

    assert draw(1) == draw(1)
    assert len({draw(seed) for seed in range(5)}) == 5
    for seed in range(5):
        assert all(token < 10 or token >= tokenizer.end for token in draw(seed))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_no_numbers_are_a_wrong_answer(tokenizer: Tokenizer, bad: float) -> None:
    logits = scores(5)
    logits[tokenizer.first_time + 3] = bad
    with pytest.raises(WrongAnswer, match="logits"):
        OneByOne(0.0, RANDOM).search(FakeState(lambda tokens: logits), logits, Rules(tokenizer), 5)
    with pytest.raises(WrongAnswer, match="logits"):
        decode(tokenizer, lambda tokens: logits, [])


def test_the_decoders_logits_are_not_written_to(tokenizer: Tokenizer) -> None:
    logits = scores(tokenizer.end)
    logits.setflags(write=False)
    assert OneByOne(0.7, RANDOM).search(FakeState(lambda tokens: logits), logits, Rules(tokenizer, [3]), 3)


class Says:
    """A strategy that finds what it was told, and feeds it."""

    def __init__(self, text: str, tokenizer: Tokenizer, logprob: float = -0.1, ended: bool = True) -> None:
        tokens = tuple(tokenizer.encode(text))
        self.found = Found(tokens, logprob * (len(tokens) + 1), ended)
        self.limit = 0

    def search(self, state: State, logits: Logits, rules: Rules, limit: int) -> Found:
        self.limit = limit
        state.step(np.array([self.found.tokens], np.int64))
        return self.found


LOOP = "and so on " * 40


def decode(
    tokenizer: Tokenizer,
    answer: Callable[[list[int]], Logits],
    strategies: Sequence[Strategy],
    thresholds: Thresholds | None = None,
    prompt: Sequence[int] = (),
    max_tokens: int = 224,
) -> tuple[Decoded, FakeState]:
    state = FakeState(answer)
    decoder = WindowDecoder(
        tokenizer,
        Rules(tokenizer),
        thresholds or Thresholds(),
        list(enumerate(strategies)),
        max_tokens=max_tokens,
        places=448,
    )
    return decoder.decode(state, [*prompt, *tokenizer.prompt("en")]), state


def quiet(tokenizer: Tokenizer, probability: float) -> Callable[[list[int]], Logits]:
    """Logits that give the no-speech token this probability at the beginning."""
    odds = math.log(max(probability, 1e-9) / (1 - probability))
    return lambda tokens: scores({tokenizer.no_speech: odds, 1: 0.0})


@pytest.mark.parametrize(
    ("texts", "chosen"),
    [
        ([("fine", -0.2), ("never", -0.1)], 0),
        ([("a guess", -1.5), ("fine", -0.5)], 1),
        ([(LOOP, -0.1), ("fine", -0.9)], 1),
        ([("a guess", -1.5), ("a better guess", -1.2), ("a bad guess", -3.0)], 1),
        ([(LOOP, -0.1), ("a guess", -2.0), (LOOP, -0.2)], 1),
        ([(LOOP, -0.3), (LOOP, -0.2)], 1),
    ],
)  # fmt: skip
def test_other_temperatures_are_tried_until_a_text_is_good(
    tokenizer: Tokenizer, texts: list[tuple[str, float]], chosen: int
) -> None:
    strategies = [Says(text, tokenizer, logprob) for text, logprob in texts]
    decoded, _ = decode(tokenizer, quiet(tokenizer, 0.1), strategies)
    assert decoded.temperature == chosen
    assert decoded.text == texts[chosen][0].strip()
    assert decoded.avg_logprob == pytest.approx(texts[chosen][1])
    assert decoded.no_speech_prob == pytest.approx(0.1, rel=1e-4)


def test_each_try_begins_behind_the_prompt_which_is_fed_once(tokenizer: Tokenizer) -> None:
    prompt = [tokenizer.previous, *tokenizer.encode("before")]
    strategies = [Says(LOOP, tokenizer), Says("fine", tokenizer)]
    _, state = decode(tokenizer, quiet(tokenizer, 0), strategies, prompt=prompt)
    assert state.tokens == [*prompt, *tokenizer.prompt("en"), *tokenizer.encode("fine")]
    assert state.steps == 3


def test_a_guess_in_silence_is_not_tried_again(tokenizer: Tokenizer) -> None:
    decoded, _ = decode(
        tokenizer, quiet(tokenizer, 0.9), [Says("thanks for watching", tokenizer, -1.4), Says("", tokenizer)]
    )
    assert decoded.temperature == 0
    assert Thresholds().silent(decoded)
    assert not Thresholds(no_speech=None).silent(decoded)
    assert Thresholds(logprob=None).silent(decoded)


def test_what_the_model_is_sure_of_is_no_silence(tokenizer: Tokenizer) -> None:
    decoded, _ = decode(tokenizer, quiet(tokenizer, 0.9), [Says("hello", tokenizer, -0.3)])
    assert not Thresholds().silent(decoded)


def test_thresholds_can_be_switched_off(tokenizer: Tokenizer) -> None:
    strategies = [Says(LOOP, tokenizer, -5.0), Says("fine", tokenizer)]
    decoded, _ = decode(tokenizer, quiet(tokenizer, 0), strategies, Thresholds(None, None, None))
    assert decoded.temperature == 0


@pytest.mark.parametrize(("earlier", "limit"), [(0, 224), (223, 223), (300, 146)])
def test_a_long_prompt_leaves_less_room(tokenizer: Tokenizer, earlier: int, limit: int) -> None:
    says = Says("x", tokenizer)
    decode(tokenizer, quiet(tokenizer, 0), [says], prompt=[1] * earlier)
    # 448 places; three tokens of the prompt are the task's, and the last token said needs no place.
    assert says.limit == limit


def test_a_text_that_was_cut_is_told_of(tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "hetero.whisper.decoding"):
        decode(tokenizer, quiet(tokenizer, 0), [Says("on and on", tokenizer, ended=False)])
    assert "cut after 9 tokens" in caplog.text


def test_languages_are_sorted_and_sum_to_one(tokenizer: Tokenizer) -> None:
    wanted: Mapping[int, float] = {tokenizer.languages["de"]: 2.0, tokenizer.languages["fr"]: 1.0, 5: 99.0}
    state = FakeState(lambda tokens: scores(wanted))
    found = language_probabilities(state, tokenizer)
    assert [code for code, _ in found[:2]] == ["de", "fr"]
    assert found[0][1] == pytest.approx(math.e / (math.e + 1), abs=1e-4)
    assert sum(chance for _, chance in found) == pytest.approx(1)
    assert state.tokens == []


def test_repetition_compresses() -> None:
    assert compression_ratio("") == 0
    assert compression_ratio("A sentence that says what it has to say, once.") < 1.5
    assert compression_ratio(LOOP) > 2.4


def test_a_search_for_times_and_words_follows_the_grammar(tokenizer: Tokenizer) -> None:
    # Whatever the model prefers: <time> words <time> <time> words <time> ..., and times never go back.
    for seed in range(20):
        random = np.random.default_rng(seed)

        def answer(tokens: list[int], random: np.random.Generator = random) -> Logits:
            return random.normal(0, 4, VOCABULARY).astype(np.float32)

        state = FakeState(answer)
        said = list(OneByOne(1.0, random).search(state, answer([]), Rules(tokenizer), 60).tokens)
        times = [token for token in said if token >= tokenizer.first_time]
        assert times == sorted(times)
        assert times[0] == said[0] <= time(tokenizer, 1.0)
        kinds = "".join("t" if token >= tokenizer.first_time else "w" for token in said)
        assert "ttt" not in kinds
        assert not kinds[1:].startswith("t")
