"""The cache folder, and files and folders that appear in it whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


def cache_dir() -> Path:
    """Where converted models and compiled artifacts are kept: `HETERO_CACHE_DIR`, else the user's cache folder."""
    chosen = os.environ.get("HETERO_CACHE_DIR")
    if chosen:
        return Path(chosen).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("hetero", appauthor=False))


def key_of(*parts: str) -> str:
    """A short file-name-safe key that changes when any part does."""
    import hashlib

    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def sha256_of(path: Path) -> str:
    """The hex sha256 of a file's bytes, read in pieces."""
    import hashlib

    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 22):
            digest.update(piece)
    return digest.hexdigest()


@contextlib.contextmanager
def building(target: Path) -> Iterator[Path]:
    """Build a folder beside `target` and move it into place when the block ends well.

    Where two processes build the same target the first to finish wins and the other's work is dropped: entries are
    keyed by content, so both are equal. When the block raises, nothing is left behind.

    Yields:
        A new, empty folder.
    """
    import shutil
    import tempfile

    target.parent.mkdir(parents=True, exist_ok=True)
    workspace = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield workspace
        try:
            os.rename(workspace, target)
        except OSError:
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(workspace, ignore_errors=True)
