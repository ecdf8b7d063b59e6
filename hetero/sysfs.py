"""Small files of the kernel's, `/sys` and `/proc`, where one that cannot be read is as good as none."""

from __future__ import annotations

from pathlib import Path


def text_of(path: Path) -> str:
    """A file's content without blanks and NULs around it; empty where there is none, or none for this user."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0 \n\t")
    except OSError:
        return ""
