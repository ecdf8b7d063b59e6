"""Putting compiled artifacts into a bundle, a new one or one that is there."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hetero.bundle import FORMAT, MANIFEST, open_bundle, read_manifest
from hetero.cache import sha256_of
from hetero.compiling.manifest import manifest_text
from hetero.compiling.store import Entry
from hetero.errors import ProgramError
from hetero.program import Artifact, Program

#: The program of a kernel's name, or None.
Find = Callable[[str], Program | None]

_ABOVE = "# Written by `hetero compile`. Compiling into this folder again keeps everything but comments."


def check_place(folder: Path, program: Program, find: Find) -> None:
    """Whether a bundle of that program can be put there, before hours are spent on compiling.

    Raises:
        ProgramError: There is something else, or a bundle of another model.
    """
    if not folder.exists():
        return
    if not folder.is_dir() or (not (folder / MANIFEST).is_file() and any(folder.iterdir())):
        raise ProgramError(f"{folder} exists and is no bundle", fix="choose another place: -o FOLDER")
    if (folder / MANIFEST).is_file():
        there = [artifact for artifact in open_bundle(folder, find).artifacts if artifact.kind == "onnx"]
        if not there or sha256_of(there[0].file) != sha256_of(program.artifact("onnx").file):
            raise ProgramError(
                f"{folder} is a bundle of another model than {program.source or program.name}",
                fix="choose another place: -o FOLDER, or remove that folder",
            )


def write_bundle(folder: Path, program: Program, entries: Sequence[Entry], find: Find) -> None:
    """Write artifacts, their reports and the ONNX model into a bundle that appears whole.

    What is in the folder's bundle already stays; if there is none, what is in the bundle that the program comes from
    is taken over. An artifact of the same kind, target and shapes is replaced.

    Args:
        folder: The bundle.
        program: Its `onnx` artifact is the model.
        entries: Compiled of it.
        find: For bundles that name kernels.

    Raises:
        ProgramError: As `check_place`.
        OSError: The folder cannot be written.
    """
    check_place(folder, program, find)
    folder = folder.resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    workspace = scratch / folder.name
    try:
        workspace.mkdir()
        content, files = _start(folder, program, find)
        new = [_table(workspace, program, entry, len(entries)) for entry in entries]
        taken = {_identity(table) for table in new}
        kept = [table for table in content["artifact"] if _identity(table) not in taken]
        names = {name for table in kept for name in _files_of(table)} | set(files)
        for name in names - {name for table in new for name in _files_of(table)}:
            _copy(files.get(name), workspace / name)
        content["artifact"] = [*kept, *new]
        (workspace / MANIFEST).write_text(f"{_ABOVE}\n\n{manifest_text(content)}", encoding="utf-8")
        open_bundle(workspace, find)
        _swap(workspace, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _start(folder: Path, program: Program, find: Find) -> tuple[dict[str, Any], dict[str, Path]]:
    """The manifest to add to, and the files that it names by their place in the bundle."""
    source = Path(program.source) if program.source else None
    for base in (folder, source):
        if base is not None and (base / MANIFEST).is_file():
            content: dict[str, Any] = dict(read_manifest(base))
            files = {name: base / name for table in content["artifact"] for name in _files_of(table)}
            return content, {**files, **_external(open_bundle(base, find).artifact("onnx"), base)}
    model = program.artifact("onnx")
    content = {
        "program": {"format": FORMAT, "name": program.name},
        "artifact": [{"kind": "onnx", "path": model.file.name}],
    }
    return content, {model.file.name: model.file, **_external(model, model.file.parent)}


def _external(model: Artifact, folder: Path) -> dict[str, Path]:
    """External data of the model: the files by their place in the bundle."""
    inside = model.file.parent.relative_to(folder)
    return {(inside / location).as_posix(): file for location, file in model.companions.items()}


def _table(workspace: Path, program: Program, entry: Entry, count: int) -> dict[str, Any]:
    """Copy an artifact and its report, and give the `[[artifact]]` of them."""
    report = entry.report
    stem = _plain(program.artifact("onnx").file.stem)
    sizes = "_".join("x".join(map(str, shape)) for shape in report.shapes.values())
    several = any(spec.shape is None or any(type(dim) is not int for dim in spec.shape) for spec in program.inputs)
    name = ".".join([stem, _plain(report.target), _plain(report.precision), *([_plain(sizes)[:80]] if several else [])])
    suffix = entry.artifact.suffix
    shutil.copyfile(entry.artifact, workspace / f"{name}{suffix}")
    (workspace / f"{name}.json").write_text(json.dumps(report.to_dict(), indent=1), encoding="utf-8")
    return {
        "kind": report.kind,
        "target": report.target,
        "path": f"{name}{suffix}",
        "sha256": sha256_of(entry.artifact),
        "shapes": {name: list(shape) for name, shape in report.shapes.items()},
        "report": f"{name}.json",
    }


def _identity(table: Mapping[str, Any]) -> str:
    """The same for two artifacts of which a bundle needs one."""
    if table.get("kind") in ("onnx", "kernel"):
        return json.dumps(table, sort_keys=True)
    return json.dumps([table.get("kind"), table.get("target"), table.get("shapes", {})], sort_keys=True)


def _files_of(table: Mapping[str, Any]) -> list[str]:
    named = [table.get("path"), table.get("report"), *table.get("companions", {}).values()]
    return [name for name in named if name]


def _copy(source: Path | None, target: Path) -> None:
    if source is None or not source.is_file():
        return  # `open_bundle` then says what is missing
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _swap(workspace: Path, folder: Path) -> None:
    """Put the new folder into the old one's place. Open files of the old one stay readable."""
    if not folder.exists():
        os.rename(workspace, folder)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
    try:
        os.rename(folder, old / folder.name)
        try:
            os.rename(workspace, folder)
        except OSError:
            with contextlib.suppress(OSError):
                os.rename(old / folder.name, folder)
            raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)
