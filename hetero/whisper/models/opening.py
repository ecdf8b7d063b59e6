"""`open_model`: from a name, a Hugging Face id or a folder to a converted model in the cache."""

from __future__ import annotations

import difflib
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hetero.cache import building, cache_dir, key_of
from hetero.errors import ModelError
from hetero.whisper.models.carried import CARRIED
from hetero.whisper.models.files import Joined, Sums, read_json
from hetero.whisper.models.formats import Found, find_model, is_converted
from hetero.whisper.models.hub import download, is_hub_id, local_copy
from hetero.whisper.models.model import CONVERTER, MODEL_FILE, Progress, WhisperModel, load_model, write_model

_log = logging.getLogger(__name__)

#: OpenAI's models and where they are on the Hugging Face hub.
OFFICIAL: Mapping[str, str] = {
    name: f"openai/whisper-{hub}"
    for name, hub in {
        **{name: name for name in ("tiny.en", "tiny", "base.en", "base", "small.en", "small", "medium.en", "medium")},
        "large-v1": "large",
        "large-v2": "large-v2",
        "large-v3": "large-v3",
        "large": "large-v3",
        "large-v3-turbo": "large-v3-turbo",
        "turbo": "large-v3-turbo",
    }.items()
}


@dataclass(frozen=True)
class KnownModel:
    """A model that `open_model` knows by name.

    Attributes:
        name: The name.
        origin: Where it would come from.
        state: `converted` (ready in the cache), `installed` (its weights are on this machine), `download` (from the
            hub), `unusable` (a package is installed that is not the pinned one).
        fix: For `download` and `unusable`: what would have it here.
    """

    name: str
    origin: str
    state: str
    fix: str = ""


def open_model(
    source: str | os.PathLike[str], *, cache: Path | None = None, progress: Progress | None = None
) -> WhisperModel:
    """A Whisper model, converted to ONNX on first use.

    Args:
        source: One of: a name of OpenAI's (`tiny.en`, `base`, `large-v3`, `turbo`; `whisper-` in front is allowed); a
            Hugging Face id (`org/name`, `org/name@revision`); a folder in Hugging Face's, CTranslate2's or optimum's
            ONNX format, or one converted before. A name goes before a folder of the same name: write `./base` for that.
        cache: Where converted models are kept, in place of `HETERO_CACHE_DIR` or the user's cache folder.
        progress: Called with a stage (`download`, `verify`, `convert`) and how much of it is done, from 0 to 1.

    Raises:
        ModelError: Nothing is known under that name, it cannot be downloaded, it is not what its sha256 says, or it
            cannot be converted: truncated, incomplete, of an unknown format.
    """
    told = progress or (lambda stage, done: None)
    root = (cache or cache_dir()) / "whisper"
    if not isinstance(source, str | os.PathLike) or not os.fspath(source):
        raise ModelError(f"cannot open {source!r}: expected a model's name, a Hugging Face id or a folder")
    text = os.fspath(source)
    if isinstance(source, str) and text.removeprefix("whisper-") in OFFICIAL:
        return _open_official(text.removeprefix("whisper-"), root, told)
    path = Path(text).expanduser()
    if path.is_dir():
        name = path.resolve().name
        if is_converted(path):
            return load_model(path, name=name, origin=str(path))
        return _converted(find_model(path), root, name, str(path), told)
    if path.exists():
        raise ModelError(f"{path} is a file, expected a folder with a model", fix=f"give the folder: {path.parent}")
    if isinstance(source, str) and is_hub_id(text):
        return _open_hub(text, root, text, told)
    near = difflib.get_close_matches(text.removeprefix("whisper-"), OFFICIAL, n=3)
    hint = (
        f"did you mean {' or '.join(near)}?"
        if near
        else f"give a folder, a Hugging Face id, or one of {', '.join(OFFICIAL)}"
    )
    raise ModelError(f"there is no model or folder {text!r}", fix=hint)


def known_models(*, cache: Path | None = None) -> list[KnownModel]:
    """The models that `open_model` knows by name, and what it would take to use each; nothing is downloaded."""
    root = (cache or cache_dir()) / "whisper"
    return [_known(name, root) for name in OFFICIAL]


def _known(name: str, root: Path) -> KnownModel:
    carried = CARRIED.get(name)
    if carried is not None:
        if is_converted(root / _key(carried.sums)):
            return KnownModel(name, carried.origin, "converted")
        try:
            if carried.find() is not None:
                return KnownModel(name, carried.origin, "installed")
        except ModelError as error:
            return KnownModel(name, carried.origin, "unusable", f"{error.problem}: {error.fix}")
    origin = _hub_origin(OFFICIAL[name])
    if _converted_before(root, origin) is not None:
        return KnownModel(name, origin, "converted")
    if local_copy(OFFICIAL[name]) is not None:
        return KnownModel(name, origin, "installed")
    return KnownModel(name, origin, "download", carried.install if carried else "downloaded when it is first used")


def _open_official(name: str, root: Path, told: Progress) -> WhisperModel:
    carried = CARRIED.get(name)
    if carried is None:
        return _open_hub(OFFICIAL[name], root, name, told)
    ready = _ready(root / _key(carried.sums), name, carried.origin)
    if ready is not None:
        return ready
    found = carried.find()
    if found is None:
        return _open_hub(OFFICIAL[name], root, name, told, otherwise=carried.install)
    told("verify", 0.0)
    carried.verify(found)
    told("verify", 1.0)
    return _convert(found, root / _key(carried.sums), name, carried.origin, told)


def _open_hub(source: str, root: Path, name: str, told: Progress, otherwise: str = "") -> WhisperModel:
    origin = _hub_origin(source)
    folder = local_copy(source)
    if folder is None:
        # What was converted does without the hub's copy, which may be deleted to save its space.
        before = _converted_before(root, origin)
        ready = _ready(before, name, origin) if before else None
        if ready is not None:
            return ready
        folder = download(source, told, otherwise=otherwise)
    return _converted(find_model(folder), root, name, origin, told)


def _hub_origin(source: str) -> str:
    return f"{source} on the Hugging Face hub"


def _converted(found: Found, root: Path, name: str, origin: str, told: Progress) -> WhisperModel:
    sums = Sums(root / "sums")
    told("verify", 0.0)
    target = root / _key({role: sums.of(Joined(files)) for role, files in found.files.items()})
    told("verify", 1.0)
    return _ready(target, name, origin) or _convert(found, target, name, origin, told)


def _convert(found: Found, target: Path, name: str, origin: str, told: Progress) -> WhisperModel:
    _log.info("converting %s (%s) to ONNX", name, origin)
    with building(target) as folder:
        write_model(folder, found.read(), found.tokenizer, name=name, origin=origin, progress=told)
    return load_model(target, name=name, origin=origin)


def _ready(target: Path, name: str, origin: str) -> WhisperModel | None:
    """What the cache has, if it is whole; a damaged entry is removed, to be made again."""
    if not target.is_dir():
        return None
    try:
        return load_model(target, name=name, origin=origin)
    except ModelError as error:
        _log.warning("the cached model is damaged and converted again: %s", error.problem)
        shutil.rmtree(target, ignore_errors=True)
        return None


def _key(sums: Mapping[str, str]) -> str:
    return key_of("whisper", str(CONVERTER), *(f"{role}={sums[role]}" for role in sorted(sums)))


def _converted_before(root: Path, origin: str) -> Path | None:
    """The last entry that was made of the weights from there, by this version of the converter."""
    for path in sorted(root.glob(f"[!.]*/{MODEL_FILE}"), key=lambda path: path.stat().st_mtime_ns, reverse=True):
        try:
            content = read_json(path)
        except ModelError:
            continue
        if content.get("origin") == origin and content.get("converter") == CONVERTER:
            return path.parent
    return None
