"""Text to tokens and back, and the tokens that are not text: tasks, languages, times."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from hetero.errors import ModelError, OptionError
from hetero.whisper.languages import LANGUAGES, language_code

Task = Literal["transcribe", "translate"]

#: Seconds from one timestamp token to the next.
TIME_STEP = 0.02
#: Timestamp tokens: 0.00 to 30.00.
TIMES = 1501

# Written without spaces between words: a word is what a token, or a few that make one character, says.
_NO_SPACES = frozenset({"zh", "ja", "th", "lo", "my", "yue"})


class Tokenizer:
    """The tokenizer of one model. Usable from any thread.

    Args:
        path: The model's `tokenizer.json`.
        multilingual: Whether the model knows languages and tasks: English-only tokenizers have those tokens too, but
            their models were never taught them.

    Attributes:
        end: Token of the end of the text; every token below it is text.
        start: Token of the beginning of a transcript.
        previous: Token before the text that goes before.
        no_speech: Token whose probability at the beginning says that nobody speaks.
        no_timestamps: Token of a transcript without times.
        first_time: Token of 0.00 s; those above it are 0.02 s apart.
        languages: Token of each language that the model knows, by code; empty for an English-only model.

    Raises:
        ModelError: The file is not a Whisper tokenizer.
    """

    def __init__(self, path: Path, *, multilingual: bool) -> None:
        try:
            from tokenizers import Tokenizer as Fast
        except ImportError as error:
            raise ModelError(
                f"text needs the package tokenizers, which cannot be imported ({error})",
                fix="install it: pip install 'hetero[whisper]'",
            ) from None
        try:
            self._fast: Any = Fast.from_file(str(path))
        except Exception as error:  # the library raises Exception itself
            raise ModelError(f"{path} is not a tokenizer.json ({error})", fix="convert the model again") from error
        self._path = path
        self.end = self._special("<|endoftext|>")
        self.start = self._special("<|startoftranscript|>")
        self.previous = self._special("<|startofprev|>")
        self.no_speech = self._special("<|nospeech|>", "<|nocaptions|>")
        self.no_timestamps = self._special("<|notimestamps|>")
        self.first_time = self.no_timestamps + 1
        self.multilingual = multilingual
        self._tasks = {task: self._special(f"<|{task}|>") for task in ("transcribe", "translate")}
        found = {code: self._fast.token_to_id(f"<|{code}|>") for code in LANGUAGES} if multilingual else {}
        self.languages: dict[str, int] = {code: token for code, token in found.items() if token is not None}

    def prompt(self, language: str | None, task: Task = "transcribe", *, timestamps: bool = True) -> list[int]:
        """The tokens that a transcript begins with.

        Args:
            language: Code or name; `None` is English. Of no effect for an English-only model.
            task: `transcribe`, or `translate` to English.
            timestamps: Whether the model is to write times.

        Raises:
            OptionError: A language or task that this model does not know.
        """
        tokens = [self.start]
        if task not in self._tasks:
            raise OptionError(f"task is {task!r}", fix=f"choose {' or '.join(self._tasks)}")
        if self.multilingual:
            tokens += [self.languages[self.language(language or "en")], self._tasks[task]]
        elif task != "transcribe":
            raise OptionError("this model knows English only and cannot translate", fix="use a model without `.en`")
        if not timestamps:
            tokens.append(self.no_timestamps)
        return tokens

    def language(self, text: str) -> str:
        """The code of a language that this model knows.

        Raises:
            OptionError: No such language, or none that this model knows.
        """
        code = language_code(text)
        if code not in (self.languages or ("en",)):
            known = "English only" if not self.languages else f"{len(self.languages)} languages, and not this one"
            raise OptionError(
                f"language is {LANGUAGES[code]}, but the model knows {known}",
                fix="use a larger model" if self.languages else "use a multilingual model: one without `.en`",
            )
        return code

    def encode(self, text: str) -> list[int]:
        """The tokens of a text; what is written like a special token (`<|en|>`) is left out."""
        pieces: list[int] = self._fast.encode(text, add_special_tokens=False).ids
        return [token for token in pieces if token < self.end]

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of tokens; those that are not text are left out, half characters become U+FFFD."""
        text: str = self._fast.decode([token for token in tokens if token < self.end], skip_special_tokens=False)
        return text

    def seconds(self, token: int) -> float:
        """The time that a timestamp token says, from the beginning of its window."""
        return round((token - self.first_time) * TIME_STEP, 2)

    def split(self, tokens: Sequence[int], language: str = "en") -> list[tuple[str, list[int]]]:
        """The words of a text with their tokens; joined they give `decode(tokens)`.

        A word takes its space with it. In languages without spaces a word is what gives whole characters.
        """
        words: list[tuple[str, list[int]]] = []
        text, pending, said = self.decode(tokens), [], 0
        for token in (token for token in tokens if token < self.end):
            pending.append(token)
            piece = self.decode(pending)
            # Not yet a whole character, unless the text itself has a replacement character here.
            if piece.endswith("�") and not text.startswith(piece, said):
                continue
            said += len(piece)
            if words and language not in _NO_SPACES and not piece.startswith(" "):
                before, earlier = words[-1]
                words[-1] = (before + piece, earlier + pending)
            else:
                words.append((piece, pending))
            pending = []
        if pending:
            words.append((text[said:], pending))
        return words

    def _special(self, *names: str) -> int:
        for name in names:
            token = self._fast.token_to_id(name)
            if token is not None:
                return int(token)
        raise ModelError(
            f"{self._path} has no token {names[0]}: it is not a Whisper tokenizer",
            fix="take the tokenizer.json that belongs to the model",
        )
