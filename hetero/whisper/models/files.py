"""Reading a model's files: several pieces as one, and JSON with errors that name the file."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hetero.cache import key_of
from hetero.errors import ModelError


class Joined:
    """Files that were cut from one, read as one."""

    def __init__(self, parts: Sequence[Path]) -> None:
        self.parts = tuple(parts)
        try:
            self._sizes = tuple(part.stat().st_size for part in self.parts)
        except OSError as error:
            raise ModelError(f"{error.filename} cannot be read: {error.strerror}") from None
        self.size = sum(self._sizes)

    def __str__(self) -> str:
        return str(self.parts[0]) if len(self.parts) == 1 else f"{self.parts[0]} with {len(self.parts) - 1} more"

    def read(self, at: int, size: int) -> bytes:
        """`size` bytes from the byte `at` on.

        Raises:
            ModelError: The file ends before.
        """
        if at + size > self.size:
            raise self.truncated(at + size)
        pieces = []
        for part, length in zip(self.parts, self._sizes, strict=True):
            if at < length and size:
                with part.open("rb") as file:
                    file.seek(at)
                    pieces.append(file.read(min(size, length - at)))
                size -= len(pieces[-1])
            at = max(0, at - length)
        return b"".join(pieces)

    def truncated(self, needed: int, name: str = "") -> ModelError:
        """The error that the file is too short."""
        where = f" at {name!r}" if name else ""
        return ModelError(
            f"{self} is truncated: {self.size} bytes, at least {needed} are needed{where}", fix="get the file again"
        )

    def sha256(self) -> str:
        """The hex sha256 of the whole."""
        digest = hashlib.sha256()
        for part in self.parts:
            with part.open("rb") as file:
                while piece := file.read(1 << 22):
                    digest.update(piece)
        return digest.hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        ModelError: The file is missing, no JSON, or no object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ModelError(f"{path} is not valid JSON: {error}", fix="get the file again") from None
    if not isinstance(value, dict):
        raise ModelError(f"{path} holds a {type(value).__name__}, expected an object")
    return value


class Sums:
    """The sha256 of files, remembered by path, length and modification time: weights are large and do not change.

    Args:
        folder: Where they are remembered.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def of(self, file: Joined) -> str:
        """The hex sha256."""
        stats = [part.resolve().stat() for part in file.parts]
        state = [
            f"{part.resolve()} {stat.st_size} {stat.st_mtime_ns}" for part, stat in zip(file.parts, stats, strict=True)
        ]
        note = self._folder / key_of(*state)
        try:
            return note.read_text(encoding="ascii")
        except OSError:
            pass
        total = file.sha256()
        self._folder.mkdir(parents=True, exist_ok=True)
        draft = note.with_name(f"{note.name}.{os.getpid()}.{threading.get_ident()}")
        draft.write_text(total, encoding="ascii")
        draft.replace(note)
        return total
