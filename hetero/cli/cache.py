"""`hetero cache`: what hetero keeps on disk, and taking it away."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import click

from hetero.cache import cache_dir
from hetero.cli import runtime
from hetero.cli.console import echo_json, echo_table, folder_size, size
from hetero.errors import OptionError

_KINDS = {
    "aie2": "NPU kernels, compiled to be checked",
    "whisper": "converted speech models",
    "cpu": "optimised graphs",
    "compiled": "compiled models",
    "rknn-toolkit2": "Rockchip's compiler",
    "costs.json": "learned costs",
}


@dataclass(frozen=True)
class Entry:
    """One entry of the cache.

    Attributes:
        name: As `hetero cache rm` takes it: the path below the cache folder.
        what: What it is, for people.
        bytes: How much it takes.
        changed: When it was last changed, seconds since the epoch.
    """

    name: str
    what: str
    bytes: int
    changed: float


@click.group("cache")
def command() -> None:
    """List what is kept in the cache folder (HETERO_CACHE_DIR), and remove it.

    Everything in it can be made again: it is converted, compiled or learned anew when it is needed.
    """


@command.command("ls")
@runtime.json_option
def list_entries(as_json: bool) -> None:
    """List the entries with their sizes."""
    entries = _entries()
    if as_json:
        echo_json({"cache": str(cache_dir()), "bytes": sum(entry.bytes for entry in entries), "entries": entries})
        return
    click.echo(f"{cache_dir()}: {size(sum(entry.bytes for entry in entries))}")
    rows = [
        (e.name, e.what, size(e.bytes), time.strftime("%Y-%m-%d %H:%M", time.localtime(e.changed))) for e in entries
    ]
    if rows:
        echo_table(("entry", "what", "size", "changed"), rows)


@command.command()
@click.argument("names", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Remove every entry.")
@runtime.json_option
def rm(names: tuple[str, ...], everything: bool, as_json: bool) -> None:
    """Remove entries: NAMES as `hetero cache ls` shows them, or a folder of them (`cpu`), or --all."""
    if bool(names) == everything:
        raise click.UsageError("name the entries to remove, or give --all")
    entries = _entries()
    doomed = entries if everything else [entry for name in names for entry in _named(name, entries)]
    for entry in doomed:
        _remove(cache_dir() / entry.name)
    freed = sum(entry.bytes for entry in doomed)
    if as_json:
        echo_json({"removed": [entry.name for entry in doomed], "bytes": freed})
    else:
        click.echo(f"removed {len(doomed)} {'entry' if len(doomed) == 1 else 'entries'}: {size(freed)}")


def _entries() -> list[Entry]:
    root = cache_dir()
    if not root.is_dir():
        return []
    paths = [
        path
        for top in sorted(root.iterdir())
        for path in (sorted(top.iterdir()) if top.is_dir() else [top])
        # What begins with a dot is being built, or being removed.
        if not path.name.startswith(".")
    ]
    return [_entry(path, root) for path in paths]


def _entry(path: Path, root: Path) -> Entry:
    name = path.relative_to(root)
    taken = folder_size(path) if path.is_dir() else path.lstat().st_size
    return Entry(str(name), _what(path, name.parts[0]), taken, path.lstat().st_mtime)


def _what(path: Path, kind: str) -> str:
    told = _KINDS.get(kind, "")
    if kind != "compiled":
        return told
    from hetero.compiling.store import describe

    detail = describe(path)
    return f"{told}: {detail}" if detail else told


def _named(name: str, entries: list[Entry]) -> list[Entry]:
    found = [entry for entry in entries if entry.name == name or Path(name) in Path(entry.name).parents]
    if not found:
        raise OptionError(f"the cache has no entry {name!r}", fix="`hetero cache ls` lists them")
    return found


def _remove(path: Path) -> None:
    # Out of sight at once, so that nobody opens what is half gone.
    hidden = path.with_name(f".removed-{path.name}")
    path.rename(hidden)
    if hidden.is_dir():
        shutil.rmtree(hidden)
    else:
        hidden.unlink()
