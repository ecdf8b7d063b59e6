"""From the decoder's logits to a window's tokens: what may be said next, how it is chosen, when to try again.

Source of the rules: "Robust Speech Recognition via Large-Scale Weak Supervision" (Radford et al., 2022), section 4.5,
and the reference implementation's behaviour.
"""

from __future__ import annotations

import logging
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hetero.errors import WrongAnswer
from hetero.whisper.tokenizer import TIME_STEP, TIMES, Tokenizer

_log = logging.getLogger(__name__)

Logits = NDArray[np.float32]


class State(Protocol):
    """The decoder and its memory of one window, as `hetero.whisper.sessions.DecoderState` has it."""

    def step(self, tokens: NDArray[np.int64], logits_at: Sequence[int] | None = None) -> Logits:
        """Add tokens [1, n]; the logits [1, m, vocabulary] after the places `logits_at`, by default after the last."""

    def truncate(self, length: int) -> None:
        """Forget the tokens from `length` on."""


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        tokens: Without the end token.
        logprob: Sum of the tokens' log-probabilities, the end token's included.
        ended: The model ended the text itself; else it was cut at the cap.
    """

    tokens: tuple[int, ...]
    logprob: float
    ended: bool


class Strategy(Protocol):
    """A way to search for the text of a window."""

    def search(self, state: State, logits: Logits, rules: Rules, limit: int) -> Found:
        """Find the text that follows the prompt.

        Args:
            state: Holds the prompt; what is added to it is forgotten afterwards.
            logits: float32 [vocabulary] after the prompt; not to be written to.
            rules: What may be said.
            limit: Most tokens, the end token included.
        """


class Rules:
    """What may be said next, by the model's own ban list and by the grammar of timestamps.

    A window's text is `<time> words <time>`, again and again, with times that never go back; it begins with a time of
    at most `latest_first`. Where all times together are likelier than any single word, a time it is.

    Args:
        tokenizer: The model's.
        suppress: Tokens that are never to be said.
        suppress_first: Tokens that are not to be said first.
        timestamps: Whether times are said, or none at all.
        latest_first: Latest first time, in seconds.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        suppress: Sequence[int] = (),
        suppress_first: Sequence[int] = (),
        *,
        timestamps: bool = True,
        latest_first: float = 1.0,
    ) -> None:
        self.end = tokenizer.end
        self.timestamps = timestamps
        self._time = tokenizer.first_time
        self._stop = self._time + TIMES if timestamps else self._time
        self._latest_first = self._time + round(latest_first / TIME_STEP) + 1
        # Tasks and languages are the prompt's; the end must always be possible, or nothing would end.
        banned = {*suppress, *range(self.end + 1, self._time)} - {self.end}
        self._banned = np.array(sorted(banned), dtype=np.intp)
        self._banned_first = np.array(sorted(banned.union(suppress_first)), dtype=np.intp)

    def restrict(self, logits: Logits, said: Sequence[int]) -> tuple[int, int]:
        """Ban what may not follow `said`.

        Args:
            logits: float32 [vocabulary]; banned tokens become -inf.
            said: The tokens after the prompt.

        Returns:
            First token and end of the range outside of which everything is banned too.
        """
        logits[self._banned if said else self._banned_first] = -np.inf
        if not self.timestamps:
            return 0, self._stop
        if not said:
            return self._time, self._latest_first
        first, last_is_time = 0, said[-1] >= self._time
        if last_is_time and (len(said) < 2 or said[-2] >= self._time):
            return 0, self._time
        latest = next((token for token in reversed(said) if token >= self._time), self._time - 1)
        if last_is_time:
            # After words and their time comes the same time again (the next words begin), a later one, or the end.
            first = self.end
        else:
            latest += 1
        logits[self._time : latest] = -np.inf
        times = logits[latest : self._stop]
        if times.size and _log_sum(times) > logits[first : self._time].max():
            first = latest
        return first, self._stop


class OneByOne:
    """One token after another: the likeliest at temperature 0, else drawn at random.

    Args:
        temperature: Divides the logits before a draw.
        random: Where draws come from.
    """

    def __init__(self, temperature: float, random: np.random.Generator) -> None:
        self.temperature = temperature
        self._random = random

    def search(self, state: State, logits: Logits, rules: Rules, limit: int) -> Found:
        """Find the text that follows the prompt; arguments as `Strategy.search`."""
        said: list[int] = []
        total = 0.0
        work = np.empty_like(logits, dtype=np.float32)
        feed = np.zeros((1, 1), dtype=np.int64)
        while True:
            np.copyto(work, logits)
            first, stop = rules.restrict(work, said)
            allowed = work[first:stop]
            choice = int(allowed.argmax())
            top = float(allowed[choice])
            if not math.isfinite(top):
                raise WrongAnswer(f"the decoder gave logits of which the highest is {top}")
            np.subtract(allowed, np.float32(top), out=allowed)
            if self.temperature > 0:
                choice = self._draw(allowed)
            logprob = float(allowed[choice])
            np.exp(allowed, out=allowed)
            total += logprob - math.log(float(allowed.sum()))
            token = first + choice
            if token == rules.end:
                return Found(tuple(said), total, ended=True)
            said.append(token)
            if len(said) >= limit:
                return Found(tuple(said), total, ended=False)
            feed[0, 0] = token
            logits = state.step(feed)[0, -1]

    def _draw(self, allowed: Logits) -> int:
        """A place, by the probabilities of logits whose highest is 0."""
        heights = np.cumsum(np.exp(allowed / np.float32(self.temperature)), dtype=np.float64)
        return min(int(np.searchsorted(heights, self._random.random() * heights[-1], side="right")), len(allowed) - 1)


@dataclass(frozen=True)
class Decoded:
    """The text of a window, and how sure the model is of it.

    Attributes:
        tokens: Text and times.
        text: The text alone.
        avg_logprob: Mean log-probability of a token.
        no_speech_prob: Probability that nobody speaks.
        compression_ratio: How much shorter zlib makes the text; high where it repeats itself.
        temperature: At which it was found.
        ended: The model ended the text itself; else it was cut at the cap.
    """

    tokens: tuple[int, ...]
    text: str
    avg_logprob: float
    no_speech_prob: float
    compression_ratio: float
    temperature: float
    ended: bool


@dataclass(frozen=True)
class Thresholds:
    """When a text is not good enough, or no text at all. Each can be None: not looked at.

    Attributes:
        compression_ratio: A text above it repeats itself.
        logprob: A text whose mean log-probability is below it is a guess.
        no_speech: Where the probability of silence is above it, a guess is no text.
    """

    compression_ratio: float | None = 2.4
    logprob: float | None = -1.0
    no_speech: float | None = 0.6

    def silent(self, decoded: Decoded) -> bool:
        """Whether nobody speaks: the model says so, and what it wrote nevertheless is a guess."""
        return (
            self.no_speech is not None
            and decoded.no_speech_prob > self.no_speech
            and (self.logprob is None or decoded.avg_logprob < self.logprob)
        )

    def repeats(self, decoded: Decoded) -> bool:
        """Whether the text goes round in circles."""
        return self.compression_ratio is not None and decoded.compression_ratio > self.compression_ratio

    def refuses(self, decoded: Decoded) -> bool:
        """Whether another temperature is worth a try."""
        if self.logprob is not None and self.silent(decoded):
            return False
        return self.repeats(decoded) or (self.logprob is not None and decoded.avg_logprob < self.logprob)


class WindowDecoder:
    """Finds the text of windows. For one thread at a time.

    Args:
        tokenizer: The model's.
        rules: What may be said.
        thresholds: When a text is tried again.
        strategies: The ways to try, in order, each with its temperature.
        max_tokens: Most tokens of a window's text.
        places: Tokens that the decoder has room for, the prompt included.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        rules: Rules,
        thresholds: Thresholds,
        strategies: Sequence[tuple[float, Strategy]],
        *,
        max_tokens: int,
        places: int,
    ) -> None:
        self._tokenizer = tokenizer
        self._rules = rules
        self._thresholds = thresholds
        self._strategies = strategies
        self._max_tokens = max_tokens
        self._places = places

    def decode(self, state: State, prompt: Sequence[int], where: Callable[[], str] = str) -> Decoded:
        """The text that follows the prompt.

        Args:
            state: Empty, with the window's sound.
            prompt: Text that goes before, and the tokens a transcript begins with.
            where: Says where in the audio this is, for the log.

        Returns:
            The first try that the thresholds do not refuse; if there is none, the likeliest that does not repeat
            itself, or else the likeliest.

        Raises:
            WrongAnswer: The decoder gave logits that are not numbers.
        """
        # The last token's place is not needed: it is said and never fed.
        limit = min(self._max_tokens, self._places - len(prompt) + 1)
        start = prompt.index(self._tokenizer.start)
        scores = state.step(np.array([prompt], dtype=np.int64), [start, len(prompt) - 1])[0]
        no_speech = float(probabilities(scores[0])[self._tokenizer.no_speech])
        tries: list[Decoded] = []
        for temperature, strategy in self._strategies:
            if tries:
                state.truncate(len(prompt))
                _log.debug("%s: trying temperature %.1f after %s", where(), temperature, tries[-1])
            found = strategy.search(state, scores[1], self._rules, limit)
            text = self._tokenizer.decode(found.tokens).strip()
            tries.append(
                Decoded(
                    tokens=found.tokens,
                    text=text,
                    avg_logprob=found.logprob / (len(found.tokens) + 1),
                    no_speech_prob=no_speech,
                    compression_ratio=compression_ratio(text),
                    temperature=temperature,
                    ended=found.ended,
                )
            )
            if not self._thresholds.refuses(tries[-1]):
                break
        else:
            sound = [decoded for decoded in tries if not self._thresholds.repeats(decoded)]
            tries.append(max(sound or tries, key=lambda decoded: decoded.avg_logprob))
        if not tries[-1].ended:
            _log.warning("%s: the text was cut after %d tokens", where(), len(tries[-1].tokens))
        return tries[-1]


def language_probabilities(state: State, tokenizer: Tokenizer) -> list[tuple[str, float]]:
    """The languages that the window may be in, likeliest first. The state is left empty.

    Raises:
        WrongAnswer: The decoder gave logits that are not numbers.
    """
    logits = state.step(np.array([[tokenizer.start]], dtype=np.int64))[0, -1]
    state.truncate(0)
    codes, tokens = list(tokenizer.languages), list(tokenizer.languages.values())
    chances = probabilities(logits[tokens])
    return sorted(zip(codes, map(float, chances), strict=True), key=lambda pair: -pair[1])


def probabilities(logits: Logits) -> NDArray[np.float64]:
    """The softmax, float64 of the same shape [n].

    Raises:
        WrongAnswer: The logits are not numbers.
    """
    top = logits.max()
    if not np.isfinite(top):
        raise WrongAnswer(f"the decoder gave logits of which the highest is {top}")
    heights = np.exp(logits.astype(np.float64) - top)
    chances: NDArray[np.float64] = heights / heights.sum()
    return chances


def compression_ratio(text: str) -> float:
    """Length of the text in UTF-8 over its length under zlib; 0 for no text."""
    raw = text.encode()
    return len(raw) / len(zlib.compress(raw))


def _log_sum(logits: Logits) -> float:
    top = logits.max()
    return float(top + np.log(np.exp(logits - top).sum())) if np.isfinite(top) else float(top)
