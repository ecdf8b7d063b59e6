"""A converted model: a folder with three bundles, the tokenizer and `model.json`.

encoder/  hetero.toml encoder.onnx     mel -> hidden
cross/    hetero.toml cross.onnx       hidden -> keys and values for the decoder's attention to the audio
decoder/  hetero.toml decoder.onnx     tokens and earlier keys and values -> logits and new keys and values
tokenizer.json
model.json                             sizes, suppressed tokens, origin, the files' lengths
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from hetero.bundle import FORMAT as BUNDLE_FORMAT
from hetero.bundle import MANIFEST
from hetero.errors import ModelError
from hetero.whisper.models.checkpoint import UNTIED, Checkpoint, tokens_of
from hetero.whisper.models.dims import Dims
from hetero.whisper.models.files import read_json

#: Called with a stage (`download`, `verify`, `convert`) and how much of it is done, from 0 to 1.
Progress = Callable[[str, float], None]

PARTS = ("encoder", "cross", "decoder")
MODEL_FILE = "model.json"
TOKENIZER_FILE = "tokenizer.json"
#: Goes up when the converter writes other files for the same weights.
CONVERTER = 2
_FORMAT = 1
# Up to here a graph and its weights are one file: protobuf ends at 2 GB, and takes twice the file's size in memory.
_LARGEST_FILE = 1 << 29


@dataclass(frozen=True)
class WhisperModel:
    """A Whisper model, ready to be loaded in a Runtime.

    Attributes:
        name: What a person calls it: `tiny.en`, `openai/whisper-small`, a folder's name.
        folder: Where everything is.
        dims: Its sizes.
        suppress: Tokens that are never to be said.
        suppress_first: Tokens that are not to be said first.
        origin: Where the weights came from, for people.
    """

    name: str
    folder: Path
    dims: Dims
    suppress: tuple[int, ...]
    suppress_first: tuple[int, ...]
    origin: str

    @property
    def encoder(self) -> Path:
        """The bundle `mel` -> `hidden`."""
        return self.folder / "encoder"

    @property
    def cross(self) -> Path:
        """The bundle `hidden` -> `cross_k_{i}`, `cross_v_{i}`."""
        return self.folder / "cross"

    @property
    def decoder(self) -> Path:
        """The bundle `tokens` and earlier keys and values -> `logits`, `new_k_{i}`, `new_v_{i}`."""
        return self.folder / "decoder"

    @property
    def tokenizer(self) -> Path:
        """The `tokenizer.json`."""
        return self.folder / TOKENIZER_FILE

    @property
    def multilingual(self) -> bool:
        """Whether it knows more languages than English."""
        return self.dims.multilingual


def load_model(folder: Path, *, name: str = "", origin: str = "") -> WhisperModel:
    """The model in a converted folder.

    Args:
        folder: What `write_model` made.
        name: In place of the one that was given at the conversion.
        origin: The same.

    Raises:
        ModelError: The folder is of another version, not whole, or a file has another length than it was written with.
    """
    path = folder / MODEL_FILE
    content = read_json(path)
    if content.get("format") != _FORMAT:
        raise ModelError(
            f"{path} is of format {content.get('format')!r}, expected {_FORMAT}",
            fix="convert the model again with this version",
        )
    sizes = content.get("dims")
    lengths = content.get("files")
    if (
        not isinstance(sizes, dict)
        or sizes.keys() != {field.name for field in fields(Dims)}
        or not isinstance(lengths, dict)
    ):
        raise ModelError(f"{path} does not tell the model's dims and files", fix="convert the model again")
    for file, length in lengths.items():
        found = (folder / file).stat().st_size if (folder / file).is_file() else None
        if found != length:
            state = "is missing" if found is None else f"has {found} bytes, expected {length}"
            raise ModelError(f"{folder / file} {state}", fix=f"delete {folder} and convert the model again")
    return WhisperModel(
        name=name or str(content.get("name") or folder.name),
        folder=folder,
        dims=Dims(**sizes),
        suppress=tokens_of(content, "suppress", path),
        suppress_first=tokens_of(content, "suppress_first", path),
        origin=origin or str(content.get("origin") or folder),
    )


def write_model(
    folder: Path,
    checkpoint: Checkpoint,
    tokenizer: Path,
    *,
    name: str,
    origin: str,
    progress: Progress,
    largest: int = _LARGEST_FILE,
) -> None:
    """Convert a checkpoint.

    Args:
        folder: Empty; made complete or, when this raises, left for the caller to remove.
        checkpoint: The weights.
        tokenizer: The `tokenizer.json` to copy.
        name: Of the model.
        origin: Where the weights came from, for people.
        progress: Told about the stage `convert`.
        largest: Bytes of weights from which on they go to a file beside the `.onnx`.

    Raises:
        ModelError: A tensor or the tokenizer does not fit the sizes, or a tensor cannot be read.
    """
    from hetero.whisper.models.graphs import write_cross, write_decoder, write_encoder

    checkpoint.check()
    _check_tokenizer(tokenizer, checkpoint.dims)
    dims = checkpoint.dims
    total = len(list(dims.tensors()))
    done = 0

    def read(tensor: str) -> Any:
        nonlocal done
        progress("convert", min(1.0, done / total))
        done += 1
        return checkpoint.tensors[tensor].float32()

    # Windows of 30 s, one at a time; the decoder's lengths change from token to token.
    sizes = {
        "encoder": f"\n[sizes]\nbatch = 1\nframes = {2 * dims.n_audio_ctx}\n",
        "cross": f"\n[sizes]\nbatch = 1\ncontext = {dims.n_audio_ctx}\n",
    }
    for part in PARTS:
        (folder / part).mkdir()
        head = f'[program]\nformat = {BUNDLE_FORMAT}\nname = "whisper-{_plain(name)}-{part}"\n\n'
        artifact = f'[[artifact]]\nkind = "onnx"\npath = "{part}.onnx"\n'
        (folder / part / MANIFEST).write_text(head + artifact + sizes.get(part, ""), encoding="utf-8")
    width = dims.n_text_state
    bytes_of = {
        "encoder": 4 * 12 * width**2 * dims.n_audio_layer,
        "decoder": 4 * (14 * width**2 * dims.n_text_layer + width * dims.n_vocab),
    }
    write_encoder(folder / "encoder" / "encoder.onnx", dims, read, external=bytes_of["encoder"] > largest)
    write_cross(folder / "cross" / "cross.onnx", dims, read)
    write_decoder(
        folder / "decoder" / "decoder.onnx",
        dims,
        read,
        untied=UNTIED in checkpoint.tensors,
        external=bytes_of["decoder"] > largest,
    )
    shutil.copyfile(tokenizer, folder / TOKENIZER_FILE)
    files = {
        file.relative_to(folder).as_posix(): file.stat().st_size for file in sorted(folder.rglob("*")) if file.is_file()
    }
    content = {
        "format": _FORMAT,
        "converter": CONVERTER,
        "name": name,
        "origin": origin,
        "dims": asdict(dims),
        "suppress": checkpoint.suppress,
        "suppress_first": checkpoint.suppress_first,
        "files": files,
    }
    (folder / MODEL_FILE).write_text(json.dumps(content, indent=1), encoding="utf-8")
    progress("convert", 1.0)


def _plain(name: str) -> str:
    """A name that needs no quoting in TOML."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in name)


def _check_tokenizer(path: Path, dims: Dims) -> None:
    content = read_json(path)
    model = content.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if not isinstance(vocabulary, dict):
        raise ModelError(f"{path} has no vocabulary: expected the `tokenizer.json` of Hugging Face's tokenizers")
    added = content.get("added_tokens") or []
    ids = [*vocabulary.values(), *(token.get("id") for token in added if isinstance(token, dict))]
    highest = max((value for value in ids if type(value) is int), default=-1)
    if not 0 <= highest < dims.n_vocab:
        raise ModelError(
            f"{path} has tokens up to {highest}, but the model knows {dims.n_vocab}",
            fix="the tokenizer and the weights do not belong together",
        )
