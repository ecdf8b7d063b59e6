"""`hetero models`: the speech models and other programs that go by a name, and the cache of converted models."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from hetero.cache import cache_dir
from hetero.cli import runtime
from hetero.cli.console import echo_json, echo_table, folder_size, size
from hetero.cli.progress import progress_bar
from hetero.errors import ModelError

_STATES = {
    "converted": "ready",
    "installed": "on this machine, converted on first use",
    "download": "downloaded on first use",
    "unusable": "unusable",
}


@click.group("models", invoke_without_command=True)
@runtime.json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """List the names that `run`, `bench` and `transcribe` know, and manage converted speech models.

    A speech model is converted to ONNX when it is first used and kept in the cache (HETERO_CACHE_DIR). Without a
    subcommand: list.
    """
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_models, as_json=as_json)
    elif as_json:
        raise click.UsageError(f"write --json behind {ctx.invoked_subcommand}")


@command.command("list")
@runtime.json_option
def list_models(as_json: bool) -> None:
    """List speech models, with where each one comes from, and the other programs' names."""
    models = _speech_models()
    with runtime.make_runtime() as rt:
        programs = [name for name in rt.program_names() if not name.startswith("whisper-")]
    if as_json:
        echo_json({"cache": str(_root()), "speech_models": models, "programs": programs})
        return
    click.echo("speech models (hetero transcribe --model NAME):")
    rows = [
        (told["name"], _STATES.get(told["state"], told["state"]), _bytes(told["bytes"]), told["origin"])
        for told in models
    ]
    echo_table(("name", "state", "size", "from"), rows)
    for told in models:
        if told["fix"] and told["state"] == "unusable":
            click.echo(f"note: {told['name']}: {told['fix']}")
    click.echo("Other models: a Hugging Face id (org/name) or a folder in Hugging Face, CTranslate2 or ONNX format.")
    click.echo("\nprograms (hetero run NAME):" + ("" if programs else " none"))
    for name in programs:
        click.echo(f"  {name}")


@command.command()
@click.argument("name")
@runtime.json_option
def fetch(name: str, as_json: bool) -> None:
    """Have a speech model ready: download it when it is not here, check it, convert it.

    NAME is one that `hetero models` lists, a Hugging Face id, or a folder.
    """
    from hetero.whisper.models import open_model

    with progress_bar() as bar:
        bar.begin(name)
        model = open_model(name, progress=lambda stage, done: bar.update(done, 1.0, stage))
    taken = folder_size(model.folder)
    if as_json:
        echo_json({"name": model.name, "origin": model.origin, "folder": model.folder, "bytes": taken})
    else:
        click.echo(f"{model.name} from {model.origin}: {size(taken)} in {model.folder}")


@command.command()
@click.argument("name")
@runtime.json_option
def path(name: str, as_json: bool) -> None:
    """Print the folder of a converted speech model: bundles for encoder, cross and decoder."""
    folder = _folders_of(name)[-1]
    if as_json:
        echo_json({"name": name, "folder": folder})
    else:
        click.echo(str(folder))


@command.command()
@click.argument("name")
@runtime.json_option
def rm(name: str, as_json: bool) -> None:
    """Remove a converted speech model from the cache. What it was made of is left alone."""
    folders = _folders_of(name)
    freed = sum(folder_size(folder) for folder in folders)
    for folder in folders:
        # Out of sight at once, so that nobody opens a folder that is half gone.
        hidden = folder.with_name(f".removed-{folder.name}")
        folder.rename(hidden)
        shutil.rmtree(hidden)
    if as_json:
        echo_json({"name": name, "removed": folders, "bytes": freed})
    else:
        click.echo(f"removed {name}: {size(freed)}")


def _root() -> Path:
    return cache_dir() / "whisper"


@dataclass(frozen=True)
class _Converted:
    """A model in the cache."""

    name: str
    origin: str
    folder: Path


def _speech_models() -> list[dict[str, Any]]:
    """The models that are known by name, and those that were converted from elsewhere."""
    from hetero.whisper.models import known_models

    converted = {entry.origin: entry for entry in _converted()}
    known = known_models()
    told = [_told(model.name, model.state, model.origin, model.fix, converted.get(model.origin)) for model in known]
    origins = {model.origin for model in known}
    others = (entry for entry in converted.values() if entry.origin not in origins)
    return told + [_told(entry.name, "converted", entry.origin, "", entry) for entry in others]


def _told(name: str, state: str, origin: str, fix: str, converted: _Converted | None) -> dict[str, Any]:
    folder = converted.folder if converted else None
    return {
        "name": name,
        "state": state,
        "origin": origin,
        "fix": fix,
        "folder": str(folder) if folder else None,
        "bytes": folder_size(folder) if folder else None,
    }


def _converted() -> list[_Converted]:
    """The models in the cache, the newest last; damaged ones are passed over."""
    from hetero.whisper.models.model import MODEL_FILE, load_model

    found = []
    for file in sorted(_root().glob(f"[!.]*/{MODEL_FILE}"), key=lambda file: file.stat().st_mtime):
        try:
            model = load_model(file.parent)
        except ModelError:
            continue
        found.append(_Converted(model.name, model.origin, model.folder))
    return found


def _folders_of(name: str) -> list[Path]:
    """Where a model was converted to. Names of one origin (large and large-v3) share a folder.

    Raises:
        ModelError: Nowhere.
    """
    from hetero.whisper.models import known_models

    origins = {known.name: known.origin for known in known_models()}
    origin = origins.get(name.removeprefix("whisper-"))
    folders = [entry.folder for entry in _converted() if (entry.origin == origin if origin else entry.name == name)]
    if not folders:
        raise ModelError(f"{name!r} is not converted here", fix=f"hetero models fetch {name}")
    return folders


def _bytes(number: int | None) -> str:
    return "-" if number is None else size(number)
