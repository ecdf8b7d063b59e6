"""A Whisper model without weights: its encoder counts windows, its decoder says what a test wrote."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hetero.backend import Array, Artifact, Backend, Call, Device, Executable, Program, TensorSpec
from hetero.whisper.models import Dims, WhisperModel
from hetero.whisper.tokenizer import TIMES, Tokenizer

LANGUAGES = ("en", "de", "fr", "es", "zh")
SPECIAL = (
    "<|endoftext|>",
    "<|startoftranscript|>",
    *(f"<|{code}|>" for code in LANGUAGES),
    "<|translate|>",
    "<|transcribe|>",
    "<|startoflm|>",
    "<|startofprev|>",
    "<|nospeech|>",
    "<|notimestamps|>",
)
BYTES = 256
VOCABULARY = BYTES + len(SPECIAL) + TIMES
PLACES = 448

F32, I64 = np.dtype(np.float32), np.dtype(np.int64)

#: Window and tokens so far (prompt included) -> what comes next: one token, or scores of several.
Script = Callable[[int, list[int]], "int | Mapping[int, float]"]


def write_tokenizer(path: Path) -> Path:
    """A Whisper tokenizer whose text tokens are the 256 bytes; a timestamp token has no name, as in tiny.en."""
    from tokenizers import AddedToken, decoders, models, pre_tokenizers
    from tokenizers import Tokenizer as Fast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    fast = Fast(models.BPE(vocab={char: i for i, char in enumerate(alphabet)}, merges=[]))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    fast.add_special_tokens([AddedToken(name, normalized=False) for name in SPECIAL])
    assert fast.token_to_id("<|endoftext|>") == BYTES
    fast.save(str(path))
    return path


@dataclass(frozen=True)
class ScriptedModel(WhisperModel):
    """A model whose programs are a script."""

    script: Script | None = None
    languages: bool = True

    @property
    def multilingual(self) -> bool:
        return self.languages  # the vocabulary is too small to tell

    @property
    def encoder(self) -> Any:
        frames = TensorSpec("mel", F32, ("batch", self.dims.n_mels, "frames"))
        return self._program("encoder", [frames], [TensorSpec("hidden", F32, ("batch", "context", "d"))])

    @property
    def cross(self) -> Any:
        hidden = TensorSpec("hidden", F32, ("batch", "context", "d"))
        return self._program(
            "cross", [hidden], [TensorSpec(f"cross_{kind}_0", F32, ("batch", "n", "d")) for kind in "kv"]
        )

    @property
    def decoder(self) -> Any:
        inputs = [TensorSpec("tokens", I64, ("batch", "n")), TensorSpec("logits_at", I64, ("m",))]
        inputs += [TensorSpec(f"self_{kind}_0", F32, ("past", "batch", "d")) for kind in "kv"]
        inputs += [TensorSpec(f"cross_{kind}_0", F32, None) for kind in "kv"]
        outputs = [TensorSpec("logits", F32, ("batch", "m", self.dims.n_vocab))]
        outputs += [TensorSpec(f"new_{kind}_0", F32, ("n", "batch", "d")) for kind in "kv"]
        return self._program("decoder", inputs, outputs)

    def _program(self, part: str, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> Program:
        artifact = Artifact("script", name=part, payload=self)
        return Program(f"scripted-{part}", tuple(inputs), tuple(outputs), (artifact,))


def scripted(folder: Path, script: Script, *, multilingual: bool = True) -> ScriptedModel:
    """A model that says what `script` says, with its tokenizer written to `folder`."""
    write_tokenizer(folder / "tokenizer.json")
    dims = Dims(80, 1500, 4, 1, 1, VOCABULARY, PLACES, 4, 1, 1)
    return ScriptedModel("scripted", folder, dims, (), (), "a test", script, multilingual)


class Scripted(Backend):
    """The device that runs scripts."""

    name = "scripted"
    simulated = False

    def probe(self) -> Sequence[Device]:
        return [Device(self.name, kind="cpu", simulated=self.simulated)]

    def load(self, program: Program, device: Device, options: Mapping[str, Any]) -> Executable:
        artifact = program.artifact("script")
        return _PARTS[str(artifact.name)](artifact.payload)


class _Encoder(Executable):
    """Window by window: 0, 1, 2, ..., in place of what was heard."""

    def __init__(self, model: ScriptedModel) -> None:
        self._lock = threading.Lock()
        self._window = 0

    def run(self, inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        mel = inputs["mel"]
        with self._lock:
            hidden = np.full((len(mel), 1500, 4), self._window, np.float32)
            self._window += 1
        return {"hidden": hidden}


class _Cross(Executable):
    def __init__(self, model: ScriptedModel) -> None:
        pass

    def run(self, inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        return {f"cross_{kind}_0": inputs["hidden"][:, :1].copy() for kind in "kv"}


class _Decoder(Executable):
    """Keeps the tokens themselves in the memory for keys, so that it has none of its own."""

    def __init__(self, model: ScriptedModel) -> None:
        assert model.script is not None
        self._script = model.script

    def run(self, inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        tokens = inputs["tokens"]
        keys = np.repeat(tokens.T[:, :, np.newaxis], 4, axis=2).astype(np.float32)
        said = [int(token) for token in np.concatenate([inputs["self_k_0"], keys])[:, 0, 0]]
        past = len(said) - tokens.shape[1]
        window = int(inputs["cross_k_0"][0, 0, 0])
        logits = np.stack([scores(self._script(window, said[: past + at + 1])) for at in inputs["logits_at"]])
        return {"logits": logits[np.newaxis], "new_k_0": keys, "new_v_0": keys}


_PARTS: dict[str, Callable[[ScriptedModel], Executable]] = {"encoder": _Encoder, "cross": _Cross, "decoder": _Decoder}


def scores(wanted: int | Mapping[int, float]) -> NDArray[np.float32]:
    """Logits for one wanted token (all but certain), or of the scores given; float32 [vocabulary]."""
    logits = np.full(VOCABULARY, -20.0, np.float32)
    for token, score in ({wanted: 20.0} if isinstance(wanted, int) else wanted).items():
        logits[token] = score
    return logits


def after_prompt(tokens: Sequence[int], tokenizer: Tokenizer) -> list[int] | None:
    """The tokens said after the prompt; None within it."""
    begin = list(tokens).index(tokenizer.start) + 1 if tokenizer.start in tokens else len(tokens)
    rest = list(tokens[begin:])
    said = 0
    while said < len(rest) and tokenizer.end < rest[said] < tokenizer.first_time:
        said += 1
    return rest[said:] if rest[:said] or not tokenizer.multilingual else None


def saying(tokenizer: Tokenizer, *windows: Sequence[float | str], language: str = "en") -> Script:
    """A script that says a text for each window: words, and times as numbers. The last one is said from then on."""
    texts = [
        [t for part in text for t in (tokenizer.encode(part) if isinstance(part, str) else [time(tokenizer, part)])]
        for text in windows
    ]

    def script(window: int, tokens: list[int]) -> int | Mapping[int, float]:
        said = after_prompt(tokens, tokenizer)
        if said is None:
            return tokenizer.languages[language]
        text = texts[min(window, len(texts) - 1)]
        return text[len(said)] if len(said) < len(text) else tokenizer.end

    return script


def time(tokenizer: Tokenizer, seconds: float) -> int:
    """The timestamp token."""
    return tokenizer.first_time + round(seconds / 0.02)
