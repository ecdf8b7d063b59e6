"""Models from the Hugging Face hub: the local copy where there is one, else the files of one format downloaded."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable
from pathlib import Path

from hetero.errors import ModelError
from hetero.whisper.models.formats import (
    CONFIG,
    CT2,
    GENERATION,
    INDEX,
    ONNX_DECODERS,
    ONNX_ENCODER,
    SAFETENSORS,
    find_model,
)
from hetero.whisper.models.model import TOKENIZER_FILE, Progress

_log = logging.getLogger(__name__)

_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")
_SMALL = (CONFIG, GENERATION, TOKENIZER_FILE)
_TRUE = {"1", "on", "true", "yes"}


def is_hub_id(text: str) -> bool:
    """Whether a text has the form `org/name` or `org/name@revision`."""
    return _ID.fullmatch(text) is not None


def download(source: str, progress: Progress, *, otherwise: str = "") -> Path:
    """The folder of a model on the hub, once it is downloaded.

    `HF_HOME`, `HF_TOKEN`, `HF_ENDPOINT` and `HF_HUB_OFFLINE` mean what they mean to huggingface_hub.

    Args:
        source: `org/name` or `org/name@revision`.
        progress: Told about the stage `download`.
        otherwise: Another way to get the model, for the error.

    Raises:
        ModelError: huggingface_hub is not installed; the hub cannot be reached or is not allowed to be; there is no
            such model, or it needs a login; it has no known format.
    """
    repo, revision = _parts(source)
    try:
        import huggingface_hub
    except ImportError:
        raise ModelError(
            f"{source!r} is on the Hugging Face hub, and huggingface_hub is not installed",
            fix=_either("pip install 'hetero[whisper]'", otherwise),
        ) from None
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in _TRUE:
        raise ModelError(
            f"{source!r} is not on this machine, and HF_HUB_OFFLINE forbids downloading it",
            fix=_either("unset HF_HUB_OFFLINE, or give a local folder", otherwise),
        )
    progress("download", 0.0)
    _log.info("downloading %s from the Hugging Face hub", source)
    try:
        # Not list_repo_files, which goes on asking for half a minute when there is no network.
        names = [file.rfilename for file in huggingface_hub.HfApi().model_info(repo, revision=revision).siblings or ()]
        folder = Path(huggingface_hub.snapshot_download(repo, revision=revision, allow_patterns=_wanted(source, names)))
    except ModelError:
        raise
    except Exception as error:
        raise _explained(source, error, otherwise) from error
    progress("download", 1.0)
    return folder


def local_copy(source: str) -> Path | None:
    """The folder of a model that was downloaded before and is whole, or None. Does not ask the hub."""
    repo, revision = _parts(source)
    try:
        import huggingface_hub
    except ImportError:
        return None
    try:
        folder = Path(huggingface_hub.snapshot_download(repo, revision=revision, local_files_only=True))
        find_model(folder)
    except (OSError, ValueError, ModelError):
        return None
    return folder


def _parts(source: str) -> tuple[str, str | None]:
    match = _ID.fullmatch(source)
    if match is None:
        raise ModelError(f"{source!r} is no Hugging Face id", fix="write org/name, or org/name@revision")
    return match["repo"], match["revision"]


def _wanted(source: str, names: Iterable[str]) -> list[str]:
    """The files of the best format that a repository has; of `weights in three formats` only one is downloaded."""
    there = set(names)
    small = [name for name in _SMALL if name in there]
    if SAFETENSORS in there:
        return [*small, SAFETENSORS]
    if INDEX in there:
        return [*small, INDEX, "model-*-of-*.safetensors"]
    if CT2 in there:
        return [*small, CT2]
    for folder in ("", "onnx/"):
        decoder = next((name for name in ONNX_DECODERS if folder + name in there), None)
        if decoder and folder + ONNX_ENCODER in there:
            return [*small, *(f"{folder}{name}{data}" for name in (ONNX_ENCODER, decoder) for data in ("", "?data"))]
    raise ModelError(
        f"{source!r} has no weights in a known format; it has {', '.join(sorted(there)[:12]) or 'no files'}",
        fix=f"choose a model with {SAFETENSORS}, CTranslate2's {CT2} or ONNX files",
    )


def _explained(source: str, error: Exception, otherwise: str) -> ModelError:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    if isinstance(error, GatedRepoError):
        return ModelError(
            f"{source!r} needs a login", fix="accept its terms on the hub, then `hf auth login` or set HF_TOKEN"
        )
    if isinstance(error, RepositoryNotFoundError | RevisionNotFoundError):
        return ModelError(
            f"there is no {source!r} on the Hugging Face hub",
            fix="check the name; a private model needs `hf auth login`",
        )
    reason = str(error).strip().partition("\n")[0]
    return ModelError(
        f"{source!r} cannot be downloaded: {type(error).__name__}: {reason}",
        fix=_either("check the network, or download the model elsewhere and give its folder", otherwise),
    )


def _either(first: str, second: str) -> str:
    return f"{second}; or {first}" if second else first
