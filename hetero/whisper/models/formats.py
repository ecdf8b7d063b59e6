"""Which of the known formats a folder with a model is in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hetero.errors import ModelError
from hetero.whisper.models.checkpoint import Checkpoint
from hetero.whisper.models.files import read_json
from hetero.whisper.models.model import MODEL_FILE, TOKENIZER_FILE

INDEX = "model.safetensors.index.json"
SAFETENSORS = "model.safetensors"
CT2 = "model.bin"
ONNX_ENCODER = "encoder_model.onnx"
ONNX_DECODERS = ("decoder_model.onnx", "decoder_model_merged.onnx")
CONFIG = "config.json"
GENERATION = "generation_config.json"


@dataclass(frozen=True)
class Found:
    """A model in one of the formats.

    Attributes:
        format: For people.
        files: All that the conversion reads, by role.
        read: Opens the checkpoint.
    """

    format: str
    files: dict[str, tuple[Path, ...]]
    read: Callable[[], Checkpoint]

    @property
    def tokenizer(self) -> Path:
        """The `tokenizer.json`."""
        return self.files["tokenizer"][0]


def is_converted(folder: Path) -> bool:
    """Whether the folder is one that the converter made."""
    return (folder / MODEL_FILE).is_file() and (folder / "encoder").is_dir()


def find_model(folder: Path) -> Found:
    """The model in a folder that is not converted yet.

    Raises:
        ModelError: None of the known formats; tells which there are and what each would need.
    """
    found = _hugging_face(folder) or _ctranslate2(folder) or _onnx(folder)
    if found is None:
        raise _unknown(folder)
    for role, files in found.files.items():
        for file in files:
            if not file.is_file():
                raise ModelError(
                    f"{folder} looks like a {found.format}, but {file.relative_to(folder)} ({role}) is not there",
                    fix="get the folder again, with all its files",
                )
    return found


def _hugging_face(folder: Path) -> Found | None:
    if (folder / INDEX).is_file():
        weights = shards(folder / INDEX)
    elif (folder / SAFETENSORS).is_file():
        weights = (folder / SAFETENSORS,)
    else:
        return None
    files = {"weights": weights, "configuration": (folder / CONFIG,), **_common(folder)}

    def read() -> Checkpoint:
        from hetero.whisper.models.huggingface import read_safetensors

        return read_safetensors(weights, folder / CONFIG, folder / GENERATION)

    return Found("Hugging Face folder", files, read)


def _ctranslate2(folder: Path) -> Found | None:
    if not (folder / CT2).is_file():
        return None
    return ctranslate2_model((folder / CT2,), folder / CONFIG, folder / TOKENIZER_FILE)


def ctranslate2_model(weights: tuple[Path, ...], config: Path, tokenizer: Path) -> Found:
    """A model in CTranslate2's format whose files may lie anywhere."""

    def read() -> Checkpoint:
        from hetero.whisper.models.ctranslate2 import read_ctranslate2

        return read_ctranslate2(weights, config)

    return Found(
        "CTranslate2 folder", {"weights": weights, "configuration": (config,), "tokenizer": (tokenizer,)}, read
    )


def _onnx(folder: Path) -> Found | None:
    for place in (folder, folder / "onnx"):
        encoder = place / ONNX_ENCODER
        decoder = next((place / name for name in ONNX_DECODERS if (place / name).is_file()), place / ONNX_DECODERS[0])
        if encoder.is_file() or decoder.is_file():
            break
    else:
        return None
    weights = (encoder, decoder, *sorted({*place.glob(f"{encoder.name}?data"), *place.glob(f"{decoder.name}?data")}))
    files = {"weights": weights, "configuration": (folder / CONFIG,), **_common(folder)}

    def read() -> Checkpoint:
        from hetero.whisper.models.onnx_export import read_onnx_export

        return read_onnx_export(encoder, decoder, folder / CONFIG, folder / GENERATION)

    return Found("folder of ONNX files that optimum exported", files, read)


def _common(folder: Path) -> dict[str, tuple[Path, ...]]:
    common: dict[str, tuple[Path, ...]] = {"tokenizer": (folder / TOKENIZER_FILE,)}
    if (folder / GENERATION).is_file():
        common["generation"] = (folder / GENERATION,)
    return common


def shards(index: Path) -> tuple[Path, ...]:
    """The files that a `model.safetensors.index.json` names.

    Raises:
        ModelError: It names none, or one that is not in its folder.
    """
    table = read_json(index).get("weight_map")
    names = sorted(set(table.values())) if isinstance(table, dict) else []
    if not names:
        raise ModelError(f"{index} has no weight_map", fix="get the file again")
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise ModelError(f"{index} names {name!r}, expected a file beside it")
    return tuple(index.parent / name for name in names)


def _unknown(folder: Path) -> ModelError:
    needs = (
        ("Hugging Face", (CONFIG, SAFETENSORS, TOKENIZER_FILE)),
        ("CTranslate2", (CONFIG, CT2, TOKENIZER_FILE)),
        ("optimum's ONNX", (CONFIG, ONNX_ENCODER, ONNX_DECODERS[0], TOKENIZER_FILE)),
        ("hetero's own", (MODEL_FILE, "encoder/", "cross/", "decoder/", TOKENIZER_FILE)),
    )
    missing = "; ".join(
        f"{name}: {', '.join(file for file in files if not (folder / file).exists())} not there"
        for name, files in needs
    )
    return ModelError(f"{folder} is no Whisper model in a known format ({missing})", fix=_hint(folder))


def _hint(folder: Path) -> str:
    names = sorted(file.name for file in folder.iterdir()) if folder.is_dir() else []
    if "pytorch_model.bin" in names:
        return "pytorch_model.bin is not read: save the model with save_pretrained(..., safe_serialization=True)"
    if any(name.endswith(".pt") for name in names):
        return "OpenAI's .pt files are not read: give the model's name (tiny.en, base) or its Hugging Face id"
    if any(name.startswith("ggml") for name in names):
        return "whisper.cpp's ggml files are not read: give the model's name (tiny.en, base) or its Hugging Face id"
    if not names:
        return "the folder is empty: download the model into it, or give the model's name (tiny.en, base)"
    return "give a folder with one model, its name (tiny.en, base) or its Hugging Face id (openai/whisper-base)"
